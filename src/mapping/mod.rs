//! From wire types to events: which instance a span or a push belongs to, and what the flows' rules say about it.
//!
//! Knows the decoders and the domain, and neither transports nor the aggregator. One bad span is not a bad request:
//! mapping returns what was accepted and what was not.

pub mod admission;
pub mod condition;
pub mod facts;
pub mod flows;
pub mod otlp;
pub mod push;
pub mod spans;
mod spelling;

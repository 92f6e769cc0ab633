//! Replay: traces that were recorded go the way that traces take when they come.
//!
//! Knows files, and neither transports nor instances. Invariant: what a file holds is decoded by the decoders that
//! requests are decoded by, so a recorded trace means what it meant when it was sent.

pub mod files;

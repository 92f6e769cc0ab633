//! The contract in pure code: what an event is, how an instance of a flow takes events in, when it is over,
//! and what it then measured.
//!
//! Knows only `std`, and `smallvec` for short lists: no clock, no lock, no async, no logging, no wire format. Everything
//! is handed the time.

pub mod batch;
pub mod catalog;
pub mod completion;
pub mod critical_path;
mod division;
pub mod event;
mod few;
pub mod flow;
pub mod footprint;
pub mod gathering;
pub mod ids;
pub mod instance;
pub mod intervals;
pub mod joining;
pub mod labels;
pub mod names;
pub mod outline;
pub mod result;
pub mod skew;
pub mod stored;
mod stub;
pub mod summary;
pub mod time;
pub mod tombstone;

#[cfg(test)]
mod tests;

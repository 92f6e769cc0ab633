//! When events may end, and what spans and pushes are refused for.

mod stored;

use std::time::Duration;

use crate::domain::time::{EventTime, Now};

/// How far from now an event's end may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// How far ahead.
    pub max_future: Duration,
    /// How far behind.
    pub max_past: Duration,
}

impl TimeLimits {
    /// When events may end that come at `now`.
    pub fn around(&self, now: Now) -> TimeWindow {
        TimeWindow { first: now.wall.minus(self.max_past), last: now.wall.plus(self.max_future) }
    }
}

/// When events may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    first: EventTime,
    last: EventTime,
}

impl TimeWindow {
    /// Whether an event may end at `end`.
    pub fn admit(&self, end: EventTime) -> Result<(), Rejection> {
        if end > self.last {
            Err(Rejection::TooFarAhead)
        } else if end < self.first {
            Err(Rejection::TooFarBehind)
        } else {
            Ok(())
        }
    }
}

/// Why a span or a push is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// Its trace id is not 16 bytes, or all zero.
    TraceId,
    /// Its span id is not 8 bytes, or all zero.
    SpanId,
    /// Its parent's span id is not 8 bytes.
    ParentSpanId,
    /// It ends too far ahead of now.
    TooFarAhead,
    /// It ended too long ago.
    TooFarBehind,
    /// It is no valid push.
    Push,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Rejection; 6] = [
        Rejection::TraceId,
        Rejection::SpanId,
        Rejection::ParentSpanId,
        Rejection::TooFarAhead,
        Rejection::TooFarBehind,
        Rejection::Push,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::TraceId => "trace_id",
            Rejection::SpanId => "span_id",
            Rejection::ParentSpanId => "parent_span_id",
            Rejection::TooFarAhead => "too_far_ahead",
            Rejection::TooFarBehind => "too_far_behind",
            Rejection::Push => "push",
        }
    }

    /// What is wrong, and what would be right, for the sender.
    pub(super) fn explain(self) -> &'static str {
        match self {
            Rejection::TraceId => "trace_id is not 16 bytes with one of them not zero",
            Rejection::SpanId => "span_id is not 8 bytes with one of them not zero",
            Rejection::ParentSpanId => "parent_span_id is neither empty nor 8 bytes",
            Rejection::TooFarAhead => "the end lies further ahead of now than ingest.max_future allows",
            Rejection::TooFarBehind => "the end lies further behind now than ingest.max_past allows",
            Rejection::Push => "not a valid push",
        }
    }
}

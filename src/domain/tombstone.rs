//! What is kept of a closed instance, so that a late event is known as late and never opens a second one.

use std::time::Duration;

use super::event::Event;
use super::flow::Flow;
use super::ids::FlowId;
use super::summary::bounds_of;
use super::time::{Arrival, EventTime};

/// The grave of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its flow; `None` when no flow wanted its trace.
    pub flow: Option<FlowId>,
    /// When it was closed.
    pub closed: Arrival,
    /// How long it is kept after its closing or its last late event.
    pub lifetime: Duration,
    /// When it may be forgotten.
    pub expires: Arrival,
    /// What its latency covered, in event time; `None` when it had no extent.
    pub extent: Option<(EventTime, EventTime)>,
    /// Whether its key is remembered after it expired: traces are, pushes open a new instance then.
    pub remember: bool,
}

/// An event that came after its instance was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness {
    /// How long after the closing it came.
    pub late: Duration,
    /// By how much it would have lengthened the flow.
    pub extension: Duration,
}

impl Tombstone {
    /// Takes note of a late event: renews the tombstone and tells how late it was.
    pub fn meet(&mut self, flow: &Flow, event: &Event, now: Arrival) -> Lateness {
        self.expires = now.plus(self.lifetime);
        let (start, end) = bounds_of(flow, event);
        let extension = self.extent.map_or(0, |(earliest, latest)| {
            let before = start.map_or(0, |start| earliest.nanoseconds_since(start));
            before.saturating_add(end.map_or(0, |end| end.nanoseconds_since(latest)))
        });
        Lateness { late: now.since(self.closed), extension: Duration::from_nanos(extension) }
    }
}

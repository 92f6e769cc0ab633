//! One call of the aggregator, and what comes of it.

use std::sync::Arc;

use super::budget::Pressure;
use super::changes::Changes;
use crate::domain::event::Event;
use crate::domain::ids::FlowId;
use crate::domain::result::Finished;
use crate::domain::time::Arrival;
use crate::domain::tombstone::Lateness;

/// What became of a batch of events, or of the instances that were due.
#[derive(Debug, Default)]
pub struct Effects {
    /// Instances that were opened.
    pub opened: u64,
    /// Events that are part of an open instance now.
    pub new: u64,
    /// Of these, events that match a flow before the one under which their instance was folded.
    pub after_folding: u64,
    /// Events that were there already.
    pub duplicates: u64,
    /// Of these, events that differ from what was there.
    pub conflicts: u64,
    /// Events of an instance that is full, or for which there is no room.
    pub over_limit: u64,
    /// Events of a trace that was closed as belonging to no flow.
    pub unmatched: u64,
    /// Events of closed instances.
    pub late: Vec<Late>,
    /// Tombstones that made room before they expired.
    pub tombstones_evicted: u64,
    /// Instances that ended as parts of others.
    pub merged: u64,
    /// Links and key values that found no room, and looks at groups that were larger than they may be.
    pub joints_over_limit: u64,
    /// By how many the open instances of each flow became more or fewer.
    pub open_change: Changes,
    /// The same for those that have taken longer than their users were promised.
    pub overdue_change: Changes,
    /// Instances that are over, each exactly once.
    pub finished: Vec<Finished>,
    /// How often dealing with an instance panicked.
    pub panics: u64,
    /// By how many bytes open instances became heavier, or lighter.
    pub(super) bytes_change: i64,
    /// What is done from now on about how much is kept, if that is news.
    pub pressure: Option<Pressure>,
}

impl Effects {
    /// Events of a batch of which it is known what became of them.
    pub(super) fn counted(&self) -> u64 {
        self.new + self.duplicates + self.over_limit + self.unmatched + self.late.len() as u64
    }
}

/// An event that came after its instance was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// The flow of the closed instance.
    pub flow: FlowId,
    /// The stage it would have been in.
    pub stage: Arc<str>,
    /// How late; `None` when only the key is remembered.
    pub lateness: Option<Lateness>,
}

impl Late {
    /// An event that came after an instance of `flow` was closed.
    pub(super) fn of(flow: FlowId, event: &Event, lateness: Option<Lateness>) -> Self {
        let stage = event.facts.view(flow).map_or(&event.facts.service, |view| &view.stage);
        Late { flow, stage: Arc::clone(stage), lateness }
    }
}

/// One call of the aggregator: when it is made, by which rules, and what has come of it so far.
pub(super) struct Round<'a, R> {
    pub(super) now: Arrival,
    pub(super) rules: &'a R,
    pub(super) effects: Effects,
}

impl<'a, R> Round<'a, R> {
    pub(super) fn new(now: Arrival, rules: &'a R) -> Self {
        Round { now, rules, effects: Effects::default() }
    }
}

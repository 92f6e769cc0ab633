//! What closing an instance needs of its events: all of it at once, or joined event by event once it is folded.
//!
//! Invariant: while no cap is met, a stub that took events one by one and one that was made of all of them give the same
//! bounds, labels and stages; only its critical path is coarser.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, Kind};
use super::flow::{Flow, Measure, OnIncomplete};
use super::ids::Key;
use super::instance::Recorded;
use super::outline::{Outline, Progress};
use super::result::{Closed, Latency, Notes, Outcome, PathShare, Reason, StageTime};
use super::summary::{Extent, StageSummary, Summary, unknown};
use super::time::{Arrival, EventTime, nanoseconds};

/// An instance folded to what its closing needs.
#[derive(Debug)]
pub(super) struct Stub {
    pub(super) outline: Outline,
    pub(super) summary: Summary,
    /// CONSUMER spans whose producer has not come: their start is not known yet.
    pub(super) waiting: Vec<Event>,
    /// Whether every event is in the outline, in an order that depends on content only.
    exact: bool,
    pub(super) coarsened: u64,
}

impl Stub {
    /// Everything about `events`, with every interval kept apart.
    pub(super) fn exact(flow: &Flow, mut events: Vec<Event>) -> Self {
        // In the order of event time, so that intervals are appended, not inserted; and by content in all else, so
        // that nothing depends on arrival.
        events.sort_unstable_by(|a, b| a.start.cmp(&b.start).then_with(|| a.cmp(b)));
        let outline = Outline::of(flow, &events);
        let parents = outline.parents_of_consumers();
        let mut stub =
            Stub { outline, summary: Summary::default(), waiting: Vec::new(), exact: true, coarsened: 0 };
        for event in events {
            if !is_consumer(&event) {
                stub.summary.join(flow, &event, event.start);
            } else if let Some(producer) = parents.get(&event.parent) {
                stub.summary.join(flow, &event, producer.map_or(event.start, |start| start.max(event.start)));
            } else {
                stub.waiting.push(event);
            }
        }
        stub
    }

    /// The same, in bounded room.
    pub(super) fn of(flow: &Flow, events: Vec<Event>) -> Self {
        let mut stub = Stub::exact(flow, events);
        stub.exact = false;
        stub.coarsened += stub.summary.coarsen();
        stub
    }

    pub(super) fn take(&mut self, flow: &Flow, event: Event) {
        self.outline.push(flow, &event);
        let span = event.span;
        if !is_consumer(&event) {
            self.summary.join(flow, &event, event.start);
        } else if let Some(start) = self.outline.consumer_start(&event) {
            self.summary.join(flow, &event, start);
        } else {
            self.waiting.push(event);
        }
        for consumer in self.waiting.extract_if(.., |consumer| consumer.parent == span) {
            let start = self.outline.consumer_start(&consumer).unwrap_or(consumer.start);
            self.summary.join(flow, &consumer, start);
        }
        self.coarsened += self.summary.coarsen();
    }

    pub(super) fn meet(&mut self, flow: &Flow, event: &Event) -> Option<Recorded> {
        let place = self.outline.find(event)?;
        let node = *self.outline.at(place);
        let push = event.kind == Kind::Push;
        let same_time = push || (node.start, node.end) == (event.start, event.end);
        let same = same_time && (node.parent, node.flags) == (event.parent, event.flags);
        // A join cannot be undone: the longer of two reports of a span counts, the earlier of two pushes.
        let longer = match push {
            true => event.end < node.end,
            false => (event.end, Reverse(event.start)) > (node.end, Reverse(node.start)),
        };
        if longer {
            self.outline.replace(place, flow, event);
            if let Some(awaited) = self.waiting.iter_mut().find(|consumer| consumer.same_identity(event)) {
                *awaited = event.clone();
            } else if let Some(view) = event.facts.view(flow.id).filter(|_| node.counts) {
                let start = if is_consumer(event) { self.outline.consumer_start(event) } else { None };
                self.summary.join_again(flow, event, view, start.unwrap_or(event.start));
            }
        }
        Some(if same { Recorded::Duplicate } else { Recorded::Conflict })
    }

    /// Joins the consumers whose producer never came.
    pub(super) fn settle(&mut self, flow: &Flow) {
        for event in std::mem::take(&mut self.waiting) {
            self.summary.join(flow, &event, event.start);
        }
    }

    /// Where the latency starts and ends in event time; `None` while one of the two is unknown.
    pub(super) fn bounds(&self, flow: &Flow, progress: &Progress) -> Extent {
        if flow.measure == Measure::Root && progress.spans {
            return progress.root.map(|root| (root.start, root.end));
        }
        let (earliest, latest) = self.summary.extent?;
        let start = if flow.start.is_none() { Some(earliest) } else { self.summary.start };
        let ended_otherwise = flow.ends.is_empty() || (progress.finals && progress.ends == 0);
        let end = if ended_otherwise { Some(latest) } else { self.summary.end };
        start.zip(end)
    }

    #[expect(clippy::too_many_arguments, reason = "all that a result consists of")]
    pub(super) fn finish(
        self,
        flow: Arc<Flow>,
        key: Key,
        progress: &Progress,
        outcome: Outcome,
        reason: Reason,
        age: Duration,
        due: Arrival,
    ) -> Closed {
        let bounds = self.bounds(&flow, progress);
        let ended = matches!(outcome, Outcome::Ok | Outcome::Error);
        let reversed = ended && bounds.is_some_and(|(start, end)| end < start);
        let extent = self.summary.extent.map_or(0, |(earliest, latest)| latest.nanoseconds_since(earliest));
        let elapsed = extent.max(nanoseconds(age));
        let latency = match (outcome, flow.on_incomplete, bounds) {
            (Outcome::Ok | Outcome::Error, _, Some((start, end))) if !reversed => {
                Latency::Finite(end.nanoseconds_since(start))
            }
            (Outcome::Incomplete, OnIncomplete::Inf, _) => Latency::Infinite(elapsed),
            (Outcome::Incomplete, OnIncomplete::Elapsed, _) => Latency::Finite(elapsed),
            _ => Latency::Unobserved,
        };
        let observed_from = bounds.filter(|_| ended && !reversed).map(|(start, _)| start);
        let stages = observed_from.map_or_else(Vec::new, |start| self.stage_times(start));
        let (path, cycles) = self.path(&flow, latency, bounds);
        let transitions = if observed_from.is_some() { self.outline.transitions() } else { Vec::new() };
        let missing = |(bit, _): &(usize, &Arc<str>)| progress.expected & (1 << bit) == 0;
        let missing_stages = match outcome {
            Outcome::Ok | Outcome::Error | Outcome::Incomplete => {
                flow.expect.iter().enumerate().filter(missing).map(|(_, stage)| Arc::clone(stage)).collect()
            }
            Outcome::Truncated | Outcome::Orphan | Outcome::Evicted => Vec::new(),
        };
        let (labels, label_conflict) = self.summary.labels.choose(&flow);
        let notes = Notes {
            events: self.summary.events,
            ignored: self.summary.ignored,
            foreign: self.summary.foreign,
            skewed: self.summary.skewed,
            coarsened: self.coarsened,
            cycles,
            coarse_path: observed_from.is_some() && !self.exact,
            reversed,
            orphan_root: progress.spans && !progress.has_root(),
            unanswered: progress.unanswered,
            label_conflict,
        };
        Closed {
            flow,
            key,
            outcome,
            reason,
            latency,
            labels,
            stages,
            missing_stages,
            path,
            transitions,
            due,
            notes,
        }
    }

    /// Which stage took how much of the latency.
    fn path(&self, flow: &Flow, latency: Latency, bounds: Extent) -> (Vec<PathShare>, u64) {
        match (latency, bounds) {
            (Latency::Unobserved, _) => (Vec::new(), 0),
            (Latency::Finite(nanoseconds), Some((from, to))) if to.nanoseconds_since(from) == nanoseconds => {
                if self.exact {
                    self.outline.critical_path(flow, from, to)
                } else {
                    (self.summary.coarse_path(from, to), 0)
                }
            }
            // What never ended has no path; the time that passed is nobody's.
            (Latency::Finite(nanoseconds) | Latency::Infinite(nanoseconds), _) => (unknown(nanoseconds), 0),
        }
    }

    fn stage_times(&self, start: EventTime) -> Vec<StageTime> {
        let time = |stage: &StageSummary| StageTime {
            name: Arc::clone(&stage.name),
            inside: stage.spans.then(|| stage.intervals.nanoseconds()),
            offset: stage.intervals.earliest().map_or(0, |reached| reached.nanoseconds_since(start)),
        };
        let mut stages: Vec<StageTime> = self.summary.stages.iter().map(time).collect();
        stages.sort_by(|a, b| a.name.cmp(&b.name));
        stages
    }
}

/// Whether the event's start has to be looked up: it may have polled long before there was work.
fn is_consumer(event: &Event) -> bool {
    event.kind == Kind::Consumer && event.parent.is_some()
}

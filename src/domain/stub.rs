//! What closing an instance needs of its events: all of it at once, or joined event by event once it is folded.
//!
//! Invariant: while no cap is met, a stub that took events one by one and one that was made of all of them give the same
//! bounds, labels and stages; only its critical path is coarser.

mod stored;

use std::cmp::{Ordering, Reverse};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::completion::{self, Clocks};
use super::event::{Event, Flags, Kind};
use super::flow::{Flow, Keys, Measure, OnIncomplete, Origin};
use super::footprint;
use super::ids::{Key, SpanId};
use super::instance::{Recorded, Rules};
use super::outline::{Family, Handover, Outline, Progress, StagePath};
use super::result::{
    Closed, Detail, Finished, Latency, Notes, Outcome, PathShare, PathStep, Reason, Skew, StageTime,
};
use super::summary::{Counts, Extent, StageSummary, Summary, shares, unknown};
use super::time::{Arrival, EventTime, nanoseconds};

/// An instance folded to what its closing needs.
#[derive(Debug, Clone)]
pub(super) struct Stub {
    pub(super) outline: Outline,
    pub(super) summary: Summary,
    /// CONSUMER spans whose producer has not come: their start is not known yet.
    pub(super) waiting: Vec<Event>,
    /// The events of the outline, in its order, while all are at hand.
    events: Vec<Event>,
    /// Whether every event is in the outline, in an order that depends on content only.
    exact: bool,
    pub(super) coarsened: u64,
    /// What is to be observed and counted, where others observe and count the rest.
    own: Option<Box<Own>>,
}

/// What an instance observes and counts itself, where it shares traces with others.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) stages: Vec<StageSummary>,
    pub(super) counts: Counts,
    /// The traces that are tails of others, too.
    pub(super) tails: Vec<u16>,
}

/// What kind of an end an instance has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndingAs {
    /// Its own.
    Itself,
    /// Others have observed it already, as the tail of their own.
    Tail,
    /// None yet: only what it would be if all that is awaited did not matter.
    Forecast,
}

/// How and when an instance ends.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) reason: Reason,
    pub(super) now: Arrival,
    /// The last time at which events may have been lost.
    pub(super) loss: Arrival,
    /// When it should have been closed.
    pub(super) due: Arrival,
    /// What kind of an end it is.
    pub(super) role: EndingAs,
    /// A trace that it is linked to never came, or was over already.
    pub(super) awaits_link: bool,
    pub(super) missed_link: bool,
    /// Its traces, if they are several.
    pub(super) traces: Vec<Key>,
}

impl Stub {
    /// Everything about the events of one or more traces, with every interval kept apart.
    pub(super) fn exact(flow: &Flow, mut events: Vec<Event>, is_cut: bool, handovers: Vec<Handover>) -> Self {
        sort_by_time(&mut events);
        let outline = Outline::of(flow, &events, is_cut);
        Stub::outlined(flow, events, outline.with_handovers(handovers))
    }

    /// The same of events in the order of [`by_time`], when their outline is at hand.
    pub(super) fn outlined(flow: &Flow, events: Vec<Event>, outline: Outline) -> Self {
        let parents = outline.parents_of_consumers();
        let handed_over = outline.starts_of_handovers();
        let mut stub = Stub {
            summary: Summary::with_stages(outline.stages()),
            outline,
            waiting: Vec::new(),
            events: Vec::new(),
            exact: true,
            coarsened: 0,
            own: None,
        };
        for (place, event) in events.iter().enumerate() {
            let stage = stub.outline.at(place).stage;
            if !stub.outline.may_have_waited(event) {
                stub.summary.join_in(flow, event, event.start, stage);
                continue;
            }
            let start = match parents.get(&(event.member, event.parent)) {
                _ if stub.outline.took_up(event) => {
                    handed_over.get(&(event.member, event.span)).map(|first| event.start.max(*first))
                }
                Some(producer) => Some(producer.map_or(event.start, |start| start.max(event.start))),
                None => stub.outline.start_by_parent(event),
            };
            match start {
                Some(start) => stub.summary.join_in(flow, event, start, stage),
                None => stub.waiting.push(event.clone()),
            }
        }
        stub.events = events;
        stub
    }

    /// The same of one trace, in bounded room. `links` are its spans that took up work of other traces.
    pub(super) fn of(
        flow: &Flow,
        events: Vec<Event>,
        is_cut: bool,
        links: impl Iterator<Item = SpanId>,
    ) -> Self {
        let mut stub = Stub::exact(flow, events, is_cut, links.map(Handover::from_elsewhere).collect());
        stub.exact = false;
        stub.events = Vec::new();
        stub.outline.shrink_to_fit();
        stub.coarsened += stub.summary.coarsen();
        stub
    }

    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        footprint::array::<Stub>(1)
            + self.outline.bytes()
            + self.summary.bytes()
            + footprint::array::<Event>(self.waiting.capacity() + self.events.capacity())
    }

    pub(super) fn take(&mut self, flow: &Flow, event: Event, is_linked: bool) {
        self.outline.push(flow, &event);
        if is_linked {
            self.outline.add_handover(Handover::from_elsewhere(event.span));
        }
        let span = event.span;
        if !self.outline.may_have_waited(&event) {
            self.summary.join(flow, &event, event.start);
        } else if let Some(start) = self.outline.consumer_start(&event) {
            self.summary.join(flow, &event, start);
        } else {
            self.waiting.push(event);
        }
        let outline = &self.outline;
        let has_come = |consumer: &mut Event| consumer.parent == span && !outline.took_up(consumer);
        for consumer in self.waiting.extract_if(.., has_come) {
            let start = outline.consumer_start(&consumer).unwrap_or(consumer.start);
            self.summary.join(flow, &consumer, start);
        }
        self.coarsened += self.summary.coarsen();
    }

    /// Takes in the stub of one more trace of the instance, as `member` of it.
    pub(super) fn absorb(&mut self, flow: &Flow, member: u16, other: Stub) {
        self.outline.absorb(member, &other.outline);
        self.summary.merge(flow, other.summary);
        self.waiting.extend(other.waiting.into_iter().map(|event| Event { member, ..event }));
        self.exact = false;
        self.events = Vec::new();
        self.coarsened += other.coarsened + self.summary.coarsen();
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
            if let Some(awaited) = self.waiting.iter_mut().find(|known| known.same_identity(event)) {
                *awaited = event.clone();
            } else if let Some(view) = event.facts.view(flow.id).filter(|_| node.counts) {
                let may_have_waited = self.outline.may_have_waited(event);
                let start = may_have_waited.then(|| self.outline.consumer_start(event)).flatten();
                self.summary.join_again(flow, event, view, start.unwrap_or(event.start));
            }
        }
        Some(if same { Recorded::Duplicate } else { Recorded::Conflict })
    }

    /// Joins the consumers that waited: those whose producer never came with their own start.
    pub(super) fn settle(&mut self, flow: &Flow) {
        for event in std::mem::take(&mut self.waiting) {
            let start = self.outline.consumer_start(&event);
            let start = start.or_else(|| self.outline.start_by_parent(&event));
            self.summary.join(flow, &event, start.unwrap_or(event.start));
        }
    }

    /// Leaves it to others to observe and count everything else.
    pub(super) fn observe_only(&mut self, own: Own) {
        self.own = Some(Box::new(own));
    }

    /// Its result, and what its latency covered in event time. `seen` is what follows from its outline, where that is
    /// known.
    pub(super) fn conclude(
        mut self,
        flow: Arc<Flow>,
        key: Key,
        clocks: &Clocks,
        ending: Ending,
        seen: Option<(Family, Progress)>,
        rules: &impl Rules,
    ) -> (Finished, Extent) {
        self.settle(&flow);
        let (family, progress) = seen.unwrap_or_else(|| self.outline.seen(&flow));
        // A trace whose root is ignored is no trace to the flow that takes what nobody else wants.
        let ignored = flow.origin == Origin::BuiltIn
            && progress.root.is_some_and(|root| root.flags.has(Flags::IGNORED));
        let is_tail = ending.role == EndingAs::Tail;
        let lacks_value = flow.keys == Keys::Value && !matches!(key, Key::Named { .. }) && !is_tail;
        if flow.id == rules.unmatched().id || self.summary.extent.is_none() || ignored || lacks_value {
            let Counts { events, ignored, foreign, .. } = self.counts();
            return (Finished::Unmatched { events: events + foreign, ignored }, None);
        }
        let extent = self.bounds(&flow, &progress);
        let outcome = match ending.role {
            EndingAs::Itself => completion::outcome(&flow, &progress, clocks, ending.reason, ending.loss),
            EndingAs::Tail => Outcome::Shared,
            EndingAs::Forecast if progress.error => Outcome::Error,
            EndingAs::Forecast => Outcome::Ok,
        };
        let age = ending.now.since(clocks.first);
        let is_asked_for = ending.role == EndingAs::Forecast;
        let mut closed = self.finish(flow, key, &family, &progress, outcome, ending, age);
        if !is_asked_for {
            closed.detail.keep_at_most(rules.explained_events());
        }
        (Finished::Closed(Box::new(closed)), extent)
    }

    /// The events that are counted with it.
    fn counts(&self) -> Counts {
        self.own.as_ref().map_or(self.summary.counts, |own| own.counts)
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

    #[expect(clippy::too_many_arguments, reason = "all that is known of what has ended")]
    fn finish(
        self,
        flow: Arc<Flow>,
        key: Key,
        family: &Family,
        progress: &Progress,
        outcome: Outcome,
        ending: Ending,
        age: Duration,
    ) -> Closed {
        let (reason, due) = (ending.reason, ending.due);
        let unfinished = self.summary.extent.filter(|_| ending.role == EndingAs::Forecast);
        let bounds = self.bounds(&flow, progress).or(unfinished);
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
        let stages = match outcome {
            Outcome::Shared => self.stage_times(None),
            _ => observed_from.map_or_else(Vec::new, |start| self.stage_times(Some(start))),
        };
        let (StagePath { steps, skews, cycles }, path) = self.path(family, &flow, latency, bounds);
        let skews = if outcome == Outcome::Shared { self.skews(family, &flow) } else { skews };
        let skews = self.told_apart(skews);
        let transitions = if observed_from.is_some() { self.outline.transitions(family) } else { Vec::new() };
        let missing = |(bit, _): &(usize, &Arc<str>)| progress.expected & (1 << bit) == 0;
        let missing_stages = match outcome {
            Outcome::Ok | Outcome::Error | Outcome::Incomplete => {
                flow.expect.iter().enumerate().filter(missing).map(|(_, stage)| Arc::clone(stage)).collect()
            }
            Outcome::Truncated | Outcome::Orphan | Outcome::Evicted | Outcome::Shared => Vec::new(),
        };
        let counts = self.counts();
        let weight = flow.sampling.weight(self.summary.threshold, || lot(&key));
        let (labels, label_conflict) = self.summary.labels.choose(&flow);
        let notes = Notes {
            events: counts.events,
            ignored: counts.ignored,
            foreign: counts.foreign,
            skewed: counts.skewed,
            coarsened: self.coarsened,
            cycles,
            coarse_path: observed_from.is_some() && !self.exact,
            reversed,
            orphan_root: progress.spans && !progress.has_root(),
            unanswered: progress.unanswered,
            unseen_link: ending.awaits_link,
            missed_link: ending.missed_link,
            label_conflict,
        };
        Closed {
            flow,
            key,
            outcome,
            reason,
            latency,
            weight,
            labels,
            stages,
            missing_stages,
            path,
            transitions,
            skews,
            due,
            notes,
            detail: self.into_detail(ending.traces, steps),
        }
    }

    /// Where clocks disagree in what has no path of its own.
    fn skews(&self, family: &Family, flow: &Flow) -> Vec<(u16, Skew)> {
        if self.exact { self.outline.skews(family, flow) } else { Vec::new() }
    }

    /// Says which of them are in a tail that others share.
    fn told_apart(&self, skews: Vec<(u16, Skew)>) -> Vec<Skew> {
        let tails = self.own.as_ref().map_or(&[][..], |own| &own.tails);
        let skew = |(member, skew)| Skew { is_shared: tails.contains(&member), ..skew };
        skews.into_iter().map(skew).collect()
    }

    /// Which stage took how much of the latency: the path, and what each stage's share of it is.
    fn path(
        &self,
        family: &Family,
        flow: &Flow,
        latency: Latency,
        bounds: Extent,
    ) -> (StagePath, Vec<PathShare>) {
        match (latency, bounds) {
            (Latency::Unobserved, _) => Default::default(),
            (Latency::Finite(nanoseconds), Some((from, to))) if to.nanoseconds_since(from) == nanoseconds => {
                let path = self.path_between(family, flow, from, to);
                let shares = shares(&path.steps, |stage| self.stage(stage));
                (path, shares)
            }
            // What never ended has no path; the time that passed is nobody's.
            (Latency::Finite(nanoseconds) | Latency::Infinite(nanoseconds), _) => {
                (StagePath::default(), unknown(nanoseconds))
            }
        }
    }

    fn path_between(&self, family: &Family, flow: &Flow, from: EventTime, to: EventTime) -> StagePath {
        if self.exact {
            self.outline.critical_path(family, flow, from, to)
        } else {
            StagePath { steps: self.summary.coarse_path(from, to), ..StagePath::default() }
        }
    }

    /// The name of a stage, as the steps of the critical path number it.
    fn stage(&self, place: u16) -> Option<&Arc<str>> {
        let place = usize::from(place);
        match self.exact {
            true => self.outline.stages().get(place),
            false => self.summary.stages.get(place).map(|stage| &stage.name),
        }
    }

    /// What its result is explained by.
    fn into_detail(self, traces: Vec<Key>, steps: Vec<PathStep>) -> Detail {
        let (events, outline, summary) = (self.events, self.outline, self.summary);
        let stages = match self.exact {
            _ if steps.is_empty() => Vec::new(),
            true => outline.into_stages(),
            false => summary.stages.into_iter().map(|stage| stage.name).collect(),
        };
        Detail { traces, events, trace: None, steps, stages }
    }

    /// What each stage measured; `start` is where the flow starts, if that is to be observed.
    fn stage_times<'s>(&'s self, start: Option<EventTime>) -> Vec<StageTime> {
        let observed = |stage: &'s StageSummary| match &self.own {
            None => Some(stage),
            Some(own) => own.stages.iter().find(|own| own.name == stage.name),
        };
        let time = |stage: &'s StageSummary| StageTime {
            name: Arc::clone(&stage.name),
            inside: observed(stage).filter(|own| own.spans).map(|own| own.intervals.nanoseconds()),
            offset: start.map(|start| {
                stage.intervals.earliest().map_or(0, |reached| reached.nanoseconds_since(start))
            }),
        };
        // One whose only event turned out to be of another stage has nothing.
        let stages = self.summary.stages.iter().filter(|stage| stage.intervals.earliest().is_some());
        let mut stages: Vec<StageTime> = stages.map(time).collect();
        stages.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        stages
    }
}

/// Puts events in the order of event time.
pub(super) fn sort_by_time(events: &mut [Event]) {
    // Spans come when they end: what is inside of others first, and so what began last.
    if let [first, .., last] = events
        && by_time(first, last) == Ordering::Greater
    {
        events.reverse();
    }
    events.sort_unstable_by(by_time);
}

/// The order of event time, so that intervals are appended, not inserted; and by content in all else, so that nothing
/// depends on arrival.
fn by_time(a: &Event, b: &Event) -> Ordering {
    a.start.cmp(&b.start).then_with(|| a.cmp(b))
}

/// A number from 0 to below 1 that depends on the key alone, and is evenly distributed over keys.
fn lot(key: &Key) -> f64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

//! What an instance measured so far: bounds, stage intervals and label candidates, as joins.
//!
//! Invariant: joining an event twice, or two events in either order, gives the same summary, as long as no cap is
//! met. That is why a duplicate cannot change a stub.

use std::sync::{Arc, LazyLock};

use smallvec::SmallVec;

use super::critical_path::{Spent, Step, coarse_path};
use super::event::{Event, Flags, Kind, View};
use super::flow::{At, Boundary, Flow, Measure};
use super::footprint;
use super::intervals::Intervals;
use super::labels::Candidates;
use super::outline::Outline;
use super::result::{PathKind, PathShare, PathStep};
use super::time::EventTime;

/// Earliest and latest moment of a latency, in event time, if it has one.
pub type Extent = Option<(EventTime, EventTime)>;

/// The joins of one flow over the events of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Earliest start and latest end of any event of the flow.
    pub extent: Extent,
    /// Where the flow starts, if its `start` has been met.
    pub start: Option<EventTime>,
    /// Where the flow ends, if one of its `end` alternatives has been met.
    pub end: Option<EventTime>,
    /// Time inside each stage.
    pub stages: Vec<StageSummary>,
    /// Candidates for the labels.
    pub labels: Candidates,
    /// How many events of which sort.
    pub counts: Counts,
    /// The greatest rejection threshold of any event of the flow.
    pub threshold: u64,
}

/// How many events of which sort an instance has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events of the flow.
    pub events: u64,
    /// Events that no flow wanted: ignored ones.
    pub ignored: u64,
    /// Pushes that named another flow than the one that took the instance.
    pub foreign: u64,
    /// Spans of the flow whose end was before their start.
    pub skewed: u64,
}

impl Counts {
    /// Counts one event as `flow` sees it. Copies are counted where their home is.
    pub fn add(&mut self, flow: &Flow, event: &Event) {
        self.add_seen(event, event.facts.view(flow.id).is_some());
    }

    fn add_seen(&mut self, event: &Event, has_view: bool) {
        if event.flags.has(Flags::COPY) {
            return;
        }
        if event.flags.has(Flags::IGNORED) {
            self.ignored += 1;
        } else if !has_view {
            self.foreign += 1;
        } else {
            self.events += 1;
            self.skewed += u64::from(event.flags.has(Flags::SKEWED));
        }
    }

    /// Adds what other events of the same instance count.
    pub fn merge(&mut self, other: Counts) {
        self.events += other.events;
        self.ignored += other.ignored;
        self.foreign += other.foreign;
        self.skewed += other.skewed;
    }

    /// All events.
    pub fn total(&self) -> u64 {
        self.events + self.ignored + self.foreign
    }
}

/// What one stage measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSummary {
    /// Its name.
    pub name: Arc<str>,
    /// When something was active in it.
    pub intervals: Intervals,
    /// Whether a span was, so that the time inside means something.
    pub spans: bool,
}

impl StageSummary {
    fn of(name: Arc<str>) -> Self {
        StageSummary { name, intervals: Intervals::default(), spans: false }
    }
}

impl Summary {
    /// Of nothing, with the stages of the events that are to be joined.
    pub(super) fn with_stages(stages: &[Arc<str>]) -> Self {
        let stages = stages.iter().map(|name| StageSummary::of(Arc::clone(name))).collect();
        Summary { stages, ..Summary::default() }
    }

    /// What it takes in memory beside itself, in bytes.
    pub fn bytes(&self) -> usize {
        footprint::array::<StageSummary>(self.stages.capacity())
            + self.stages.iter().map(|stage| stage.intervals.bytes()).sum::<usize>()
            + self.labels.bytes()
            + self.labels.text_bytes()
    }

    /// How many intervals a stub keeps for each stage.
    pub const STUB_INTERVALS: usize = 8;

    /// Takes in one event; `start` is its start, or the start of its producer where that is later.
    pub fn join(&mut self, flow: &Flow, event: &Event, start: EventTime) {
        let view = event.facts.view(flow.id);
        self.counts.add_seen(event, view.is_some());
        if let Some(view) = view.filter(|_| !event.flags.has(Flags::IGNORED)) {
            self.join_again(flow, event, view, start);
        }
    }

    /// The same for an event whose stage has this place among the stages.
    pub(super) fn join_in(&mut self, flow: &Flow, event: &Event, start: EventTime, stage: u16) {
        let view = event.facts.view(flow.id);
        self.counts.add_seen(event, view.is_some());
        if let Some(view) = view.filter(|_| !event.flags.has(Flags::IGNORED)) {
            self.join_at(flow, event, view, start, usize::from(stage));
        }
    }

    /// Takes in an event that has been counted before: only the idempotent part.
    pub fn join_again(&mut self, flow: &Flow, event: &Event, view: &View, start: EventTime) {
        let stage = self.stage(&view.stage);
        self.join_at(flow, event, view, start, stage);
    }

    fn join_at(&mut self, flow: &Flow, event: &Event, view: &View, start: EventTime, stage: usize) {
        let start = start.clamp(event.start, event.end);
        self.extent = Some(match self.extent {
            None => (start, event.end),
            Some((earliest, latest)) => (earliest.min(start), latest.max(event.end)),
        });
        let moment = |at: At| if at == At::Start { start } else { event.end };
        if let Some(boundary) = flow.start.as_ref().filter(|boundary| meets(boundary, view, view.start)) {
            let candidate = moment(boundary.at);
            self.start = Some(self.start.map_or(candidate, |known| known.min(candidate)));
        }
        for (bit, alternative) in flow.ends.iter().enumerate() {
            if meets(&alternative.boundary, view, view.ends & (1 << bit) != 0) {
                self.end = self.end.max(Some(moment(alternative.boundary.at)));
            }
        }
        self.threshold = self.threshold.max(event.facts.threshold);
        let stage = &mut self.stages[stage];
        stage.intervals.add(start, event.end);
        stage.spans |= event.kind != Kind::Push;
        self.labels.join(flow, event, view);
    }

    /// Takes in the summary of other events of the same instance.
    pub fn merge(&mut self, flow: &Flow, other: Summary) {
        self.extent = match (self.extent, other.extent) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
        self.start = [self.start, other.start].into_iter().flatten().min();
        self.end = self.end.max(other.end);
        for theirs in &other.stages {
            let stage = self.stage(&theirs.name);
            let stage = &mut self.stages[stage];
            stage.spans |= theirs.spans;
            for &(start, end) in theirs.intervals.as_slice() {
                stage.intervals.add(start, end);
            }
        }
        self.labels.merge(flow, other.labels);
        self.counts.merge(other.counts);
        self.threshold = self.threshold.max(other.threshold);
    }

    /// The place of a stage, which is added if it is new.
    fn stage(&mut self, name: &Arc<str>) -> usize {
        let known =
            self.stages.iter().position(|stage| Arc::ptr_eq(&stage.name, name) || stage.name == *name);
        known.unwrap_or_else(|| {
            let has_room = self.stages.len() < Outline::MAX_STAGES;
            let name = if has_room { Arc::clone(name) } else { Arc::from(Outline::FURTHER_STAGES) };
            if self.stages.len() <= Outline::MAX_STAGES {
                self.stages.push(StageSummary::of(name));
            }
            self.stages.len() - 1
        })
    }

    /// The critical path at the level of stages, which are places in `stages`.
    pub fn coarse_path(&self, from: EventTime, to: EventTime) -> Vec<PathStep> {
        let mut by_name: Vec<usize> = (0..self.stages.len()).collect();
        by_name.sort_by(|&a, &b| self.stages[a].name.cmp(&self.stages[b].name));
        let (mut intervals, mut stages) = (Vec::new(), Vec::new());
        for stage in by_name {
            intervals.extend_from_slice(self.stages[stage].intervals.as_slice());
            stages.resize(intervals.len(), u16::try_from(stage).unwrap_or(PathStep::NOBODY));
        }
        told(&coarse_path(&intervals, from, to).steps, |place| (stages[place], None))
    }

    /// Bounds the memory of a stub; returns how many gaps inside stages were lost.
    pub fn coarsen(&mut self) -> u64 {
        self.stages.iter_mut().map(|stage| stage.intervals.coarsen(Self::STUB_INTERVALS)).sum()
    }
}

/// The steps of a path with their stages; `whose` tells the stage and the event of a place in the walk.
pub fn told(steps: &[Step], whose: impl Fn(usize) -> (u16, Option<usize>)) -> Vec<PathStep> {
    let tell = |step: &Step| {
        let ((stage, event), kind) = match step.spent {
            Spent::Working(place) => (whose(place), PathKind::Work),
            Spent::Waiting(place) => (whose(place), PathKind::Wait),
            Spent::Unknown => ((PathStep::NOBODY, None), PathKind::Unknown),
        };
        PathStep { from: step.from, to: step.to, stage, kind, event }
    };
    steps.iter().map(tell).collect()
}

/// Sums the steps of a path by stage and kind, in the order of the stages' names; `stages` are those.
pub fn shares<'s>(steps: &[PathStep], stages: impl Fn(u16) -> Option<&'s Arc<str>>) -> Vec<PathShare> {
    let mut sums: SmallVec<[(u16, PathKind, u64); 8]> = SmallVec::new();
    for step in steps {
        match sums.iter_mut().find(|(stage, kind, _)| (*stage, *kind) == (step.stage, step.kind)) {
            Some((.., sum)) => *sum += step.nanoseconds(),
            None => sums.push((step.stage, step.kind, step.nanoseconds())),
        }
    }
    let share = |(stage, kind, nanoseconds): (u16, PathKind, u64)| PathShare {
        stage: stages(stage).map_or_else(nobody, Arc::clone),
        kind,
        nanoseconds,
    };
    let mut shares: Vec<PathShare> = sums.into_iter().map(share).collect();
    shares.sort_unstable_by(|a, b| (&a.stage, a.kind).cmp(&(&b.stage, b.kind)));
    shares
}

/// The stage of what cannot be attributed.
fn nobody() -> Arc<str> {
    static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
    Arc::clone(&NOBODY)
}

/// A latency of which nothing can be attributed.
pub fn unknown(nanoseconds: u64) -> Vec<PathShare> {
    vec![PathShare { stage: nobody(), kind: PathKind::Unknown, nanoseconds }]
}

/// Where the latency would start and end if there were only this event; `None` where it has no say.
pub fn bounds_of(flow: &Flow, event: &Event) -> (Option<EventTime>, Option<EventTime>) {
    let mut alone = Summary::default();
    alone.join(flow, event, event.start);
    let (earliest, latest) = alone.extent.unzip();
    let is_root = event.kind != Kind::Push && !event.parent.is_some();
    match flow.measure {
        Measure::Root if is_root => (earliest, latest),
        Measure::Root => (None, None),
        Measure::Extent => (
            if flow.start.is_none() { earliest } else { alone.start },
            if flow.ends.is_empty() { latest } else { alone.end },
        ),
    }
}

fn meets(boundary: &Boundary, view: &View, condition_holds: bool) -> bool {
    (!boundary.conditional || condition_holds)
        && boundary.stage.as_ref().is_none_or(|stage| *stage == view.stage)
}

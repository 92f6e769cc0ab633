//! What a closed instance leaves for the metrics: one value, observed once.

use std::sync::Arc;

use super::completion::Clocks;
use super::event::{Event, Kind};
use super::flow::Flow;
use super::ids::{Key, TraceId};
use super::instance::Rules;
use super::labels::Candidates;
use super::time::{Arrival, EventTime};

/// How an instance ended for its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It ended, nothing required was missing.
    Ok,
    /// The same, with an error.
    Error,
    /// It aged out with something required missing.
    Incomplete,
    /// It aged out although nothing was required.
    Truncated,
    /// Its beginning may have been lost.
    Orphan,
    /// It was closed for want of room, at shutdown, or because of a bug.
    Evicted,
    /// It took up the work of several others, and was observed as the tail of each of them.
    Shared,
}

impl Outcome {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Outcome; 7] = [
        Outcome::Ok,
        Outcome::Error,
        Outcome::Incomplete,
        Outcome::Truncated,
        Outcome::Orphan,
        Outcome::Evicted,
        Outcome::Shared,
    ];

    /// The value of the label `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
            Outcome::Incomplete => "incomplete",
            Outcome::Truncated => "truncated",
            Outcome::Orphan => "orphan",
            Outcome::Evicted => "evicted",
            Outcome::Shared => "shared",
        }
    }
}

/// Why an instance was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An `end` alternative was seen.
    End,
    /// All expected stages were seen.
    Expect,
    /// A push said so.
    Final,
    /// The root span and every parent had come.
    Root,
    /// Nothing new came for the quiet period.
    Quiet,
    /// It reached `max_age`.
    MaxAge,
    /// Room was needed.
    Capacity,
    /// The process ended.
    Shutdown,
    /// A bug of this program kept it from being dealt with.
    Failure,
}

impl Reason {
    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::End => "end",
            Reason::Expect => "expect",
            Reason::Final => "final",
            Reason::Root => "root",
            Reason::Quiet => "quiet",
            Reason::MaxAge => "max_age",
            Reason::Capacity => "capacity",
            Reason::Shutdown => "shutdown",
            Reason::Failure => "failure",
        }
    }
}

/// What goes into the latency histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// The flow took this many nanoseconds.
    Finite(u64),
    /// It never ended: one more in the +Inf bucket, and this many nanoseconds in the sum.
    Infinite(u64),
    /// Nothing: its outcome has no latency, or its end lies before its start.
    Unobserved,
}

/// An instance that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// Its flow.
    pub flow: Arc<Flow>,
    /// What it was found by.
    pub key: Key,
    /// How it ended for its user.
    pub outcome: Outcome,
    /// Why it was closed.
    pub reason: Reason,
    /// What goes into the latency histogram.
    pub latency: Latency,
    /// How many instances it stands for, where others were sampled away.
    pub weight: u64,
    /// Its labels, as (name, value).
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Its stages, by name.
    pub stages: Vec<StageTime>,
    /// Expected stages that never came.
    pub missing_stages: Vec<Arc<str>>,
    /// Which stage made it take as long as it took; the shares sum to what its latency adds to the histogram's sum.
    pub path: Vec<PathShare>,
    /// How long it took from one stage into another.
    pub transitions: Vec<Transition>,
    /// Calls that were served outside of the time in which they were waited for: clocks disagree.
    pub skews: Vec<Skew>,
    /// When it should have been closed.
    pub due: Arrival,
    /// What else is worth counting.
    pub notes: Notes,
    /// What it is explained by.
    pub detail: Detail,
}

impl Closed {
    /// A trace that it was, if it was one.
    pub fn trace(&self) -> Option<TraceId> {
        let Detail { traces, trace, .. } = &self.detail;
        let of_events = || trace.or_else(|| self.detail.trace_of_events());
        self.key.trace().or_else(of_events).or_else(|| traces.iter().find_map(Key::trace))
    }
}

/// What an instance is explained by, beside what it measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detail {
    /// Its traces, by the `member` of their events; empty where there is only the one that it is found by.
    pub traces: Vec<Key>,
    /// Its events in the order of their start; none of those that were folded.
    pub events: Vec<Event>,
    /// The trace of the first of its events, if these were dropped.
    pub trace: Option<TraceId>,
    /// The critical path, from the end to the start.
    pub steps: Vec<PathStep>,
    /// The names of its stages.
    pub stages: Vec<Arc<str>>,
}

impl Detail {
    /// The trace of the first of its events that is a span.
    fn trace_of_events(&self) -> Option<TraceId> {
        let first = self.events.iter().find(|event| event.kind != Kind::Push)?;
        self.traces.get(usize::from(first.member))?.trace()
    }

    /// Drops what is longer than that. Results wait for each other, and what they share each has for itself.
    pub fn keep_at_most(&mut self, count: usize) {
        if self.events.len() > count {
            self.trace = self.trace_of_events();
            self.events = Vec::new();
        }
        if self.steps.len() > count {
            self.steps = Vec::new();
        }
    }

    /// Whose a stretch of the critical path is; `None` for what cannot be attributed.
    pub fn stage(&self, step: &PathStep) -> Option<&Arc<str>> {
        self.stages.get(usize::from(step.stage))
    }
}

/// One stretch of a critical path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathStep {
    /// Its earlier end.
    pub from: EventTime,
    /// Its later end.
    pub to: EventTime,
    /// Whose it is, as a place among the stages; that of none for what cannot be attributed.
    pub stage: u16,
    /// How the time was spent.
    pub kind: PathKind,
    /// The place among the events of the one that worked or was waited for.
    pub event: Option<usize>,
}

impl PathStep {
    /// The stage of what cannot be attributed.
    pub const NOBODY: u16 = u16::MAX;

    /// Its length.
    pub fn nanoseconds(&self) -> u64 {
        self.to.nanoseconds_since(self.from)
    }
}

/// A served call that does not lie within the call that waited for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skew {
    /// The stage that waited.
    pub from: Arc<str>,
    /// The stage that served.
    pub to: Arc<str>,
    /// By how much the clocks seem to disagree, at least half of it as the ways there and back are unknown.
    pub nanoseconds: u64,
    /// Whether that is within `max_clock_skew`, so that the critical path has been corrected.
    pub corrected: bool,
    /// Whether it is in a tail that several instances share, and so is counted where that ends.
    pub is_shared: bool,
}

/// What one stage of a closed instance measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageTime {
    /// Its name.
    pub name: Arc<str>,
    /// Nanoseconds in which something was active in it; `None` for a stage of pushes only, and for one that another
    /// instance observes.
    pub inside: Option<u64>,
    /// Nanoseconds from the flow's start until it was reached; `None` where other instances observe that.
    pub offset: Option<u64>,
}

/// A stage's share of a latency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathShare {
    /// Its name; empty for what cannot be attributed.
    pub stage: Arc<str>,
    /// How the time was spent.
    pub kind: PathKind,
    /// How much time.
    pub nanoseconds: u64,
}

/// How time on the critical path was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// The stage worked.
    Work,
    /// Nothing on the path worked until the stage began.
    Wait,
    /// What worked had no known part in the flow's end.
    Unknown,
}

impl PathKind {
    /// All of them.
    pub const ALL: [PathKind; 3] = [PathKind::Work, PathKind::Wait, PathKind::Unknown];

    /// The value of the label `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            PathKind::Work => "work",
            PathKind::Wait => "wait",
            PathKind::Unknown => "unknown",
        }
    }
}

/// The longest way from one stage into another: through a queue, or from push to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The stage that handed over.
    pub from: Arc<str>,
    /// The stage that took over.
    pub to: Arc<str>,
    /// How long it took.
    pub nanoseconds: u64,
}

/// What is odd about a closed instance, for the program's own metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Its events.
    pub events: u64,
    /// Ignored spans among its trace.
    pub ignored: u64,
    /// Pushes to another flow than the one that took it.
    pub foreign: u64,
    /// Spans that ended before they started.
    pub skewed: u64,
    /// Gaps inside stages that its stub lost.
    pub coarsened: u64,
    /// Parents on its critical path that led in a circle.
    pub cycles: u64,
    /// Its critical path is known by stages only, since it was folded.
    pub coarse_path: bool,
    /// Its configured end lies before its configured start.
    pub reversed: bool,
    /// Its root never came; its earliest orphan stood in.
    pub orphan_root: bool,
    /// A PRODUCER's consumer never came.
    pub unanswered: bool,
    /// It is linked to a trace that never came.
    pub unseen_link: bool,
    /// It is linked to a trace whose instance was over already.
    pub missed_link: bool,
    /// Its events disagreed about a label.
    pub label_conflict: bool,
}

/// What the notes of several instances count together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub events: u64,
    pub ignored: u64,
    pub foreign: u64,
    pub skewed: u64,
    pub coarsened: u64,
    pub cycles: u64,
    /// Instances with a coarse path.
    pub coarse_paths: u64,
}

impl Sums {
    /// Adds those of one more instance.
    pub fn add(&mut self, notes: &Notes) {
        self.events += notes.events;
        self.ignored += notes.ignored;
        self.foreign += notes.foreign;
        self.skewed += notes.skewed;
        self.coarsened += notes.coarsened;
        self.cycles += notes.cycles;
        self.coarse_paths += u64::from(notes.coarse_path);
    }
}

/// An open instance as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// What it would be if it ended now, with all that is missing left out.
    pub closed: Box<Closed>,
    /// What it waits for.
    pub awaits: Vec<Await>,
    /// When its events came.
    pub clocks: Clocks,
    /// When it will be looked at again, or is over, if nothing comes until then.
    pub until: Arrival,
}

/// Something that has not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Await {
    /// What begins the flow.
    Start,
    /// What ends it.
    End,
    /// An expected stage.
    Stage(Arc<str>),
    /// The parent of a span, which is still running or may have been lost.
    LocalParent,
    /// The parent of a span, in another process.
    RemoteParent,
    /// The consumer of what a PRODUCER has put on a queue.
    Consumer,
    /// The trace that a link leads to.
    Link,
}

/// The end of an instance, observed or not.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// An instance of a flow.
    Closed(Box<Closed>),
    /// A trace that no flow wanted: how many of its spans, and how many of these were ignored.
    Unmatched {
        /// Spans of no flow.
        events: u64,
        /// Spans that an `ignore` condition dropped.
        ignored: u64,
    },
    /// A trace whose spans were parts of other instances, which have been observed.
    Divided {
        /// Spans of these instances.
        events: u64,
        /// Spans that belong to none of them.
        unmatched: u64,
        /// Spans that an `ignore` condition dropped.
        ignored: u64,
        /// Spans that ended before they started.
        skewed: u64,
    },
}

impl Finished {
    /// An instance with so many events that cannot be ended as it should be: it is counted, and nothing of it is observed.
    pub fn given_up(flow: Arc<Flow>, key: Key, events: u64, now: Arrival, rules: &impl Rules) -> Self {
        if flow.id == rules.unmatched().id {
            return Finished::Unmatched { events, ignored: 0 };
        }
        let (labels, _) = Candidates::default().choose(&flow);
        Finished::Closed(Box::new(Closed {
            flow,
            key,
            outcome: Outcome::Evicted,
            reason: Reason::Failure,
            latency: Latency::Unobserved,
            weight: 1,
            labels,
            stages: Vec::new(),
            missing_stages: Vec::new(),
            path: Vec::new(),
            transitions: Vec::new(),
            skews: Vec::new(),
            due: now,
            notes: Notes { events, ..Notes::default() },
            detail: Detail::default(),
        }))
    }
}

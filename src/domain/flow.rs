//! A flow: a kind of business transaction, and the rules by which its instances are told apart, ended and measured.
//!
//! Conditions are evaluated where spans are mapped; here they are bits of an event's [`View`](super::event::View).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::ids::FlowId;
use super::labels::Label;

/// The rules of one flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Tells this version of it apart from all other flows.
    pub id: FlowId,
    /// The id of its first version, by which its instances are found whatever version they are of.
    pub home: FlowId,
    /// Its name: the value of the label `flow`.
    pub name: Arc<str>,
    /// Where it comes from.
    pub origin: Origin,
    /// What its instances are found by.
    pub keys: Keys,
    /// It sees every trace beside the flow that takes the trace, and has instances of its own.
    pub also: bool,
    /// How long each kind of waiting may last.
    pub timers: Timers,
    /// How far a served call may be moved into the call that waited for it, for the critical path.
    pub max_clock_skew: Duration,
    /// Whether an instance stands for those that were sampled away.
    pub sampling: Sampling,
    /// What begins it; `None`: the earliest event.
    pub start: Option<Boundary>,
    /// What ends it, any of them; empty: the latest event. At most [`Flow::MAX_ENDS`].
    pub ends: Vec<EndAlternative>,
    /// Stages that every instance should reach.
    pub expect: Vec<Arc<str>>,
    /// Its labels.
    pub labels: Labels,
    /// What its latency is.
    pub measure: Measure,
    /// What an instance that aged out with something missing does to the histogram.
    pub on_incomplete: OnIncomplete,
    /// What its users were promised.
    pub slo: Option<Slo>,
    /// The name of a histogram of its own, beside the families that all flows share.
    pub metric: Option<Arc<str>>,
    /// What its metrics say about it: a flow that pushes create learns this from the first push that says so.
    pub help: OnceLock<Arc<str>>,
    /// Bounds of the buckets of single stages in seconds, rising, where they differ from those of the latency.
    pub stage_buckets: Vec<(Arc<str>, Arc<[f64]>)>,
    /// Bounds of its latency buckets in seconds, rising; set at the latest when it is first observed.
    pub buckets: OnceLock<Arc<[f64]>>,
}

impl Flow {
    /// Each alternative is one bit of a `u32`.
    pub const MAX_ENDS: usize = 32;
    /// Each expected stage is one bit of a `u64`.
    pub const MAX_EXPECTED: usize = 64;

    /// Whether it may ask which stages were reached.
    pub fn names_stages(&self) -> bool {
        let names = |boundary: &Boundary| boundary.stage.is_some();
        !self.expect.is_empty()
            || self.start.as_ref().is_some_and(names)
            || self.ends.iter().any(|end| names(&end.boundary))
    }
}

/// What is counted when only a sample of the traces comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The instances that come.
    Count,
    /// The instances for which these stand.
    Weight {
        /// The share of traces that the sampler lets through, between 0 and 1, where the traces do not say.
        ratio: f64,
    },
}

impl Sampling {
    /// For how many instances one stands, of whose spans the least likely to be let through has this rejection
    /// threshold. `lot` decides about the part after the point: it gives any number below 1, evenly distributed over the
    /// instances, so that the counts are right on the whole.
    pub fn weight(self, threshold: u64, lot: impl FnOnce() -> f64) -> u64 {
        const ALL: f64 = (1_u64 << 56) as f64;
        // Whatever a sender claims, counters must not run over.
        const MAX_WEIGHT: f64 = 1e6;
        let Sampling::Weight { ratio } = self else { return 1 };
        let weight = if threshold > 0 { ALL / (ALL - threshold as f64) } else { 1.0 / ratio };
        let weight = weight.min(MAX_WEIGHT);
        let whole = weight.floor();
        whole as u64 + u64::from(lot() < weight - whole)
    }
}

/// What the instances of a flow are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The trace id.
    Trace,
    /// The value of a business key, or the trace id where there is none.
    ValueOrTrace,
    /// The value of a business key; traces without one are none of the flow's.
    Value,
}

/// What the users of a flow were promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    /// An instance is good when it ends `ok` within this time.
    pub latency: Duration,
    /// The share of good instances that was promised, between 0 and 1.
    pub objective: f64,
}

/// Where a flow comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The config names it.
    Configured,
    /// The built-in flow `trace`, which takes every trace that no other flow takes.
    BuiltIn,
    /// The first push with its name created it.
    Pushed,
}

/// How long each kind of waiting may last, on the arrival clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// From the last new event to closing without evidence of the end.
    pub quiet_period: Duration,
    /// From the last new event to closing with evidence of the end.
    pub linger: Duration,
    /// From the first event to closing whatever is missing.
    pub max_age: Duration,
    /// How long a missing parent that may be in another process is waited for.
    pub parent_wait: Duration,
    /// How long a PRODUCER's consumer is waited for.
    pub async_wait: Duration,
    /// How long a closed instance that held spans is remembered as a tombstone.
    pub tombstone: Duration,
}

/// What begins or ends a flow: a stage, a condition, or a stage in which a condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// The stage it happens in; `None`: any.
    pub stage: Option<Arc<str>>,
    /// Whether a condition has to hold as well; which one is the mapping's business.
    pub conditional: bool,
    /// Which moment of the event counts.
    pub at: At,
}

/// One way for a flow to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndAlternative {
    /// What has to happen.
    pub boundary: Boundary,
    /// Whether ending this way is an error.
    pub is_error: bool,
}

/// Which moment of an event a boundary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The event's start.
    Start,
    /// The event's end.
    End,
}

/// What the latency of an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// From the flow's start to its end in event time, over all services.
    Extent,
    /// The root span's own duration.
    Root,
}

/// What an incomplete instance does to the latency histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIncomplete {
    /// Counts in the +Inf bucket only.
    Inf,
    /// Counts with the time that passed.
    Elapsed,
    /// Is left out.
    Drop,
}

/// The labels of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// A fixed list, each with its rule.
    Declared(Vec<LabelRule>),
    /// Whatever its pushes carry.
    Union,
}

impl Labels {
    /// The labels of an instance of an earlier version of the flow as this one has them: those that it knows by name, and
    /// the default of those that are new.
    pub fn renew(&self, labels: &[Label]) -> Vec<Label> {
        let Labels::Declared(rules) = self else {
            // As pushes would name them.
            let mut labels: Vec<Label> =
                labels.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
            labels.sort_unstable();
            return labels;
        };
        let value = |rule: &LabelRule| {
            let known = labels.iter().find(|(name, _)| *name == rule.name).map(|(_, value)| value);
            (Arc::clone(&rule.name), Arc::clone(known.unwrap_or(&rule.default)))
        };
        rules.iter().map(value).collect()
    }
}

/// How one declared label is chosen among what the events of an instance say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    /// The label's name.
    pub name: Arc<str>,
    /// Which candidate wins.
    pub pick: Pick,
    /// Its value when no event says anything.
    pub default: Arc<str>,
}

/// Which of several candidates a label takes. "First" and "last" are by (event start, span id), never by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The earliest event's.
    First,
    /// The latest event's.
    Last,
    /// The root event's.
    Root,
    /// The greatest: by number where all candidates are numbers, else by text.
    Max,
    /// The least, likewise.
    Min,
    /// All distinct ones, sorted, joined with a comma.
    Join,
}

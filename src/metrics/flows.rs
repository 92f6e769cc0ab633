//! The metrics of one flow: what its closed instances add to, and what a scrape reads.
//!
//! One set of family names serves all flows, told apart by the label `flow`; flows that pushes create have a
//! histogram of their own name beside them, as the ancestor did.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Settings;
use super::histogram::{Bounds, Histogram};
use super::series::{Open, SeriesMap};
use super::snapshot::{Kind, Series, Value};
use crate::domain::flow::{Flow, Labels, Origin};
use crate::domain::labels::Label;
use crate::domain::result::{Closed, Latency, Outcome, PathKind, Reason, Skew, Transition};
use crate::domain::time::{Arrival, EventTime, nanoseconds};

/// A family that all flows share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    Latency,
    Closed,
    CriticalPath,
    CriticalPathShare,
    Stage,
    StageOffset,
    Transition,
    ClockSkew,
    MissingStage,
    Slo,
    SloObjective,
    Open,
    Overdue,
    LastClosed,
}

impl Shared {
    /// All of them in the order in which they are shown.
    pub(super) const ALL: [Shared; 14] = [
        Shared::Latency,
        Shared::Closed,
        Shared::CriticalPath,
        Shared::CriticalPathShare,
        Shared::Stage,
        Shared::StageOffset,
        Shared::Transition,
        Shared::ClockSkew,
        Shared::MissingStage,
        Shared::Slo,
        Shared::SloObjective,
        Shared::Open,
        Shared::Overdue,
        Shared::LastClosed,
    ];

    pub(super) fn name(self) -> &'static str {
        self.described().0
    }

    pub(super) fn help(self) -> &'static str {
        self.described().1
    }

    pub(super) fn kind(self) -> Kind {
        self.described().2
    }

    /// Name, help and kind.
    fn described(self) -> (&'static str, &'static str, Kind) {
        match self {
            Shared::Latency => (
                "flow_latency_seconds",
                "End-to-end latency of closed flow instances; incomplete ones are in the +Inf bucket.",
                Kind::Histogram,
            ),
            Shared::Closed => (
                "flow_closed_total",
                "Closed flow instances by outcome and by the reason they were closed for.",
                Kind::Counter,
            ),
            Shared::CriticalPath => (
                "flow_critical_path_seconds_total",
                "Each stage's share of the latency of closed instances: working, or waited for; all shares sum to the latency.",
                Kind::Counter,
            ),
            Shared::CriticalPathShare => (
                "flow_critical_path_share_seconds",
                "Each stage's share of the latency of each closed instance, as a distribution.",
                Kind::Histogram,
            ),
            Shared::Stage => (
                "flow_stage_seconds",
                "Time in which something was active inside the stage, for each closed instance that reached it.",
                Kind::Histogram,
            ),
            Shared::StageOffset => (
                "flow_stage_offset_seconds",
                "Time from the start of the flow until the stage was reached.",
                Kind::Histogram,
            ),
            Shared::Transition => (
                "flow_transition_seconds",
                "Time from one stage into another: from a PRODUCER's end to its CONSUMER's start, or from push to push.",
                Kind::Histogram,
            ),
            Shared::ClockSkew => (
                "flow_clock_skew_seconds",
                "By how much the clocks of two stages seem to disagree: of each served call that does not lie within the call that waited for it.",
                Kind::Histogram,
            ),
            Shared::MissingStage => {
                ("flow_missing_stage_total", "Expected stages that never came.", Kind::Counter)
            }
            Shared::Slo => (
                "flow_slo_total",
                "Closed flow instances that ended ok within slo.latency (good), and all others that ended or should have (bad).",
                Kind::Counter,
            ),
            Shared::SloObjective => {
                ("flow_slo_objective_ratio", "The share of good instances that was promised.", Kind::Gauge)
            }
            Shared::Open => ("flow_open", "Flow instances in flight.", Kind::Gauge),
            Shared::Overdue => {
                ("flow_overdue", "Flow instances in flight for longer than slo.latency.", Kind::Gauge)
            }
            Shared::LastClosed => (
                "flow_last_closed_timestamp_seconds",
                "When an instance of the flow was last closed, in Unix time; 0 before the first.",
                Kind::Gauge,
            ),
        }
    }
}

/// The metrics of one flow.
#[derive(Debug)]
pub(super) struct FlowMetrics {
    flow: Arc<Flow>,
    open: AtomicI64,
    overdue: AtomicI64,
    /// Unix time in nanoseconds.
    last_closed: AtomicU64,
    recorded: Mutex<Recorded>,
}

/// What is recorded for each closed instance, under one lock that is taken once for each.
#[derive(Debug)]
struct Recorded {
    bounds: Bounds,
    latency: SeriesMap<Outcome, Histogram>,
    closed: SeriesMap<(Outcome, Reason), u64>,
    path: SeriesMap<PathKind, u128>,
    /// Only if it is asked for: it costs as much as all the rest.
    path_share: Option<SeriesMap<PathKind, Histogram>>,
    skew: SeriesMap<(), Histogram>,
    transition: SeriesMap<(), Histogram>,
    stage: SeriesMap<(), Histogram>,
    offset: SeriesMap<(), Histogram>,
    missing: SeriesMap<(), u64>,
    slo: SeriesMap<SloResult, u64>,
    /// The histogram of the flow's own name, if it has one: by outcome, if it is not ok.
    own: SeriesMap<Option<Outcome>, Histogram>,
    last: SeriesMap<(), f64>,
}

impl FlowMetrics {
    /// The metrics of `flow`; closed label sets are there from the start, at zero until `visible_from`.
    pub(super) fn new(flow: Arc<Flow>, bounds: Bounds, settings: &Settings, visible_from: Arrival) -> Self {
        let limit = settings.series_per_family;
        let mut recorded = Recorded {
            latency: SeriesMap::new(limit),
            closed: SeriesMap::new(limit),
            path: SeriesMap::new(limit),
            path_share: settings.critical_path_histogram.then(|| SeriesMap::new(limit)),
            skew: SeriesMap::new(limit),
            transition: SeriesMap::new(limit),
            stage: SeriesMap::new(limit),
            offset: SeriesMap::new(limit),
            missing: SeriesMap::new(limit),
            slo: SeriesMap::new(limit),
            own: SeriesMap::new(limit),
            last: SeriesMap::new(limit),
            bounds,
        };
        recorded.initialise(&flow, visible_from);
        FlowMetrics {
            flow,
            open: AtomicI64::new(0),
            overdue: AtomicI64::new(0),
            last_closed: AtomicU64::new(0),
            recorded: Mutex::new(recorded),
        }
    }

    /// One more or fewer in flight.
    pub(super) fn change_open(&self, by: i64) {
        self.open.fetch_add(by, Relaxed);
    }

    /// One more or fewer in flight for longer than promised.
    pub(super) fn change_overdue(&self, by: i64) {
        self.overdue.fetch_add(by, Relaxed);
    }

    /// How many are in flight, and how many of these for longer than promised.
    pub(super) fn in_flight(&self) -> (u64, u64) {
        let count = |value: &AtomicI64| value.load(Relaxed).max(0).cast_unsigned();
        (count(&self.open), count(&self.overdue))
    }

    /// Observes a closed instance. A series that is new shows zero until `visible_from`.
    pub(super) fn observe(&self, closed: &Closed, wall: EventTime, visible_from: Arrival) {
        self.last_closed.fetch_max(wall.unix_nanoseconds(), Relaxed);
        self.recorded().observe(&self.flow, closed, visible_from);
    }

    /// How many values each bounded family sent to its overflow series.
    pub(super) fn refused(&self) -> [(&'static str, u64); 11] {
        let recorded = self.recorded();
        [
            (Shared::Latency.name(), recorded.latency.refused()),
            (Shared::Closed.name(), recorded.closed.refused()),
            (Shared::CriticalPath.name(), recorded.path.refused()),
            (Shared::CriticalPathShare.name(), recorded.path_share.as_ref().map_or(0, SeriesMap::refused)),
            (Shared::Transition.name(), recorded.transition.refused()),
            (Shared::ClockSkew.name(), recorded.skew.refused()),
            (Shared::Stage.name(), recorded.stage.refused()),
            (Shared::StageOffset.name(), recorded.offset.refused()),
            (Shared::MissingStage.name(), recorded.missing.refused()),
            (Shared::Slo.name(), recorded.slo.refused()),
            ("push", recorded.own.refused()),
        ]
    }

    /// The flow's series of one of the shared families.
    pub(super) fn series(&self, family: Shared, now: Arrival) -> Vec<Series> {
        let recorded = self.recorded();
        let flow = || vec![label("flow", &self.flow.name)];
        match family {
            Shared::Latency => histograms(&recorded.latency, now, |outcome, open| {
                [flow(), vec![label("outcome", outcome.as_str())], open].concat()
            }),
            Shared::Closed => counters(&recorded.closed, now, |(outcome, reason), open| {
                [flow(), vec![label("outcome", outcome.as_str()), label("reason", reason.as_str())], open]
                    .concat()
            }),
            Shared::CriticalPath => {
                let show = |(kind, open, time, hidden): (PathKind, &Open, &u128, bool)| Series {
                    labels: [flow(), open.shown(), vec![label("kind", kind.as_str())]].concat(),
                    value: Value::Nanoseconds(if hidden { 0 } else { *time }),
                };
                recorded.path.sorted(now).into_iter().map(show).collect()
            }
            Shared::Transition => histograms(&recorded.transition, now, |(), open| [flow(), open].concat()),
            Shared::CriticalPathShare => recorded.path_share.as_ref().map_or_else(Vec::new, |shares| {
                histograms(shares, now, |kind, open| {
                    [flow(), open, vec![label("kind", kind.as_str())]].concat()
                })
            }),
            Shared::ClockSkew => histograms(&recorded.skew, now, |(), open| [flow(), open].concat()),
            Shared::Stage => histograms(&recorded.stage, now, |(), open| [flow(), open].concat()),
            Shared::StageOffset => histograms(&recorded.offset, now, |(), open| [flow(), open].concat()),
            Shared::MissingStage => counters(&recorded.missing, now, |(), open| [flow(), open].concat()),
            Shared::Slo => counters(&recorded.slo, now, |result, open| {
                [flow(), vec![label("result", result.as_str())], open].concat()
            }),
            Shared::Open => self.gauge(&self.open),
            Shared::Overdue if self.flow.slo.is_none() => Vec::new(),
            Shared::Overdue => self.gauge(&self.overdue),
            Shared::SloObjective => {
                let objective = self.flow.slo.map(|slo| Value::Float(slo.objective));
                objective.into_iter().map(|value| Series { labels: flow(), value }).collect()
            }
            Shared::LastClosed => {
                let seconds = self.last_closed.load(Relaxed) as f64 / 1e9;
                vec![Series { labels: flow(), value: Value::Float(seconds) }]
            }
        }
    }

    fn gauge(&self, value: &AtomicI64) -> Vec<Series> {
        let value = value.load(Relaxed).max(0).cast_unsigned();
        vec![Series { labels: vec![label("flow", &self.flow.name)], value: Value::Integer(value) }]
    }

    /// The histogram of the flow's own name, and its last durations in seconds; only for flows with such a name.
    pub(super) fn own(&self) -> Option<(Vec<Series>, Vec<Series>)> {
        self.flow.metric.as_ref()?;
        let recorded = self.recorded();
        // Shown at once, as the ancestor did.
        let now = Arrival::since_origin(std::time::Duration::MAX);
        let own = histograms(&recorded.own, now, |outcome, open| {
            let outcome = outcome.map(|outcome| label("outcome", outcome.as_str()));
            open.into_iter().chain(outcome).collect()
        });
        let gauge = |(_, open, value, _): ((), &Open, &f64, bool)| Series {
            labels: open.shown(),
            value: Value::Float(*value),
        };
        Some((own, recorded.last.sorted(now).into_iter().map(gauge).collect()))
    }

    /// Whether the stage stands among the flow's series.
    pub(super) fn knows_stage(&self, stage: &Arc<str>) -> bool {
        self.recorded().offset.contains((), &stage_labels(stage))
    }

    /// The flow itself.
    pub(super) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    /// Creates the series whose labels are known in advance.
    fn initialise(&mut self, flow: &Flow, visible_from: Arrival) {
        for stage in &flow.expect {
            self.missing.get((), &stage_labels(stage), visible_from, || 0);
        }
        let open_valued = match &flow.labels {
            Labels::Declared(rules) => !rules.is_empty(),
            Labels::Union => true,
        };
        if open_valued {
            return;
        }
        let none: Arc<[Label]> = Arc::from([]);
        for outcome in [Outcome::Ok, Outcome::Error, Outcome::Incomplete] {
            let bounds = &self.bounds;
            self.latency.get(outcome, &none, visible_from, || Histogram::new(bounds));
        }
        for result in flow.slo.iter().flat_map(|_| [SloResult::Good, SloResult::Bad]) {
            self.slo.get(result, &none, visible_from, || 0);
        }
        for (outcome, reason) in possible_endings(flow) {
            self.closed.get((outcome, reason), &none, visible_from, || 0);
        }
    }

    fn observe(&mut self, flow: &Flow, closed: &Closed, visible_from: Arrival) {
        let Recorded { bounds, .. } = self;
        let labels: Arc<[Label]> = closed.labels.as_slice().into();
        *self.closed.get((closed.outcome, closed.reason), &labels, visible_from, || 0) += 1;
        if closed.latency != Latency::Unobserved {
            let latency = self.latency.get(closed.outcome, &labels, visible_from, || Histogram::new(bounds));
            latency.observe(closed.latency);
            if flow.metric.is_some() {
                let outcome = Some(closed.outcome).filter(|outcome| *outcome != Outcome::Ok);
                self.own
                    .get(outcome, &labels, Arrival::ORIGIN, || Histogram::new(bounds))
                    .observe(closed.latency);
            }
        }
        if let (Latency::Finite(nanoseconds), Origin::Pushed) = (closed.latency, flow.origin) {
            *self.last.get((), &labels, Arrival::ORIGIN, || 0.0) = nanoseconds as f64 / 1e9;
        }
        if let Some(result) = SloResult::of(flow, closed) {
            *self.slo.get(result, &labels, visible_from, || 0) += 1;
        }
        for stage in &closed.stages {
            let labels = stage_labels(&stage.name);
            if let Some(offset) = stage.offset {
                let histogram = self.offset.get((), &labels, visible_from, || Histogram::new(bounds));
                histogram.observe(Latency::Finite(offset));
            }
            if let Some(inside) = stage.inside {
                let histogram = self.stage.get((), &labels, visible_from, || Histogram::new(bounds));
                histogram.observe(Latency::Finite(inside));
            }
        }
        for share in &closed.path {
            let time = self.path.get(share.kind, &stage_labels(&share.stage), visible_from, || 0);
            *time += u128::from(share.nanoseconds);
            if let Some(shares) = &mut self.path_share {
                let labels = stage_labels(&share.stage);
                let histogram = shares.get(share.kind, &labels, visible_from, || Histogram::new(bounds));
                histogram.observe(Latency::Finite(share.nanoseconds));
            }
        }
        for Transition { from, to, nanoseconds } in &closed.transitions {
            let labels = pair_labels(from, to);
            let histogram = self.transition.get((), &labels, visible_from, || Histogram::new(bounds));
            histogram.observe(Latency::Finite(*nanoseconds));
        }
        for Skew { from, to, nanoseconds, .. } in &closed.skews {
            let histogram =
                self.skew.get((), &pair_labels(from, to), visible_from, || Histogram::new(bounds));
            histogram.observe(Latency::Finite(*nanoseconds));
        }
        for stage in &closed.missing_stages {
            *self.missing.get((), &stage_labels(stage), visible_from, || 0) += 1;
        }
    }
}

/// Whether an instance kept what its users were promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum SloResult {
    Good,
    Bad,
}

impl SloResult {
    fn as_str(self) -> &'static str {
        match self {
            SloResult::Good => "good",
            SloResult::Bad => "bad",
        }
    }

    /// `None` for flows that promise nothing, and for instances whose end we did not see through no fault of theirs.
    fn of(flow: &Flow, closed: &Closed) -> Option<Self> {
        let promised = nanoseconds(flow.slo?.latency);
        match (closed.outcome, closed.latency) {
            (Outcome::Ok, Latency::Finite(taken)) => {
                Some(if taken <= promised { SloResult::Good } else { SloResult::Bad })
            }
            (Outcome::Error | Outcome::Incomplete, _) => Some(SloResult::Bad),
            _ => None,
        }
    }
}

/// The outcomes and reasons with which an instance of `flow` can close.
fn possible_endings(flow: &Flow) -> Vec<(Outcome, Reason)> {
    let mut normal = vec![Reason::Final];
    let required = flow.start.is_some() || !flow.ends.is_empty() || !flow.expect.is_empty();
    if !flow.ends.is_empty() {
        normal.push(Reason::End);
    } else if !flow.expect.is_empty() {
        normal.push(Reason::Expect);
    } else {
        normal.extend([Reason::Root, Reason::Quiet]);
    }
    let aged = if required { Outcome::Incomplete } else { Outcome::Truncated };
    let mut endings: Vec<_> =
        normal.iter().flat_map(|&reason| [(Outcome::Ok, reason), (Outcome::Error, reason)]).collect();
    endings.extend([
        (aged, Reason::MaxAge),
        (Outcome::Orphan, Reason::Quiet),
        (Outcome::Orphan, Reason::MaxAge),
        (Outcome::Evicted, Reason::Shutdown),
    ]);
    endings
}

fn histograms<C: Copy + Eq + std::hash::Hash + Ord>(
    map: &SeriesMap<C, Histogram>,
    now: Arrival,
    labels: impl Fn(C, Vec<Label>) -> Vec<Label>,
) -> Vec<Series> {
    let show = |(closed, open, histogram, hidden): (C, &Open, &Histogram, bool)| Series {
        labels: labels(closed, open.shown()),
        value: Value::Histogram(histogram.value(hidden)),
    };
    map.sorted(now).into_iter().map(show).collect()
}

fn counters<C: Copy + Eq + std::hash::Hash + Ord>(
    map: &SeriesMap<C, u64>,
    now: Arrival,
    labels: impl Fn(C, Vec<Label>) -> Vec<Label>,
) -> Vec<Series> {
    let show = |(closed, open, count, hidden): (C, &Open, &u64, bool)| Series {
        labels: labels(closed, open.shown()),
        value: Value::Integer(if hidden { 0 } else { *count }),
    };
    map.sorted(now).into_iter().map(show).collect()
}

fn stage_labels(stage: &Arc<str>) -> Arc<[Label]> {
    Arc::from([(Arc::from("stage"), Arc::clone(stage))])
}

fn pair_labels(from: &Arc<str>, to: &Arc<str>) -> Arc<[Label]> {
    let stages = [("from", from), ("to", to)];
    stages.map(|(name, stage)| (Arc::from(name), Arc::clone(stage))).into()
}

fn label(name: &str, value: &str) -> Label {
    (Arc::from(name), Arc::from(value))
}

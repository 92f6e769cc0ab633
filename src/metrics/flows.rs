//! The metrics of one flow: what its closed instances add to, and what a scrape reads.
//!
//! One set of family names serves all flows, told apart by the label `flow`; flows that pushes create have a
//! histogram of their own name beside them, as the ancestor did.

mod stored;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::yield_now;
use std::time::Duration;

use super::histogram::{Bounds, Histogram, Layout};
use super::series::{Accumulate, Birth, Hashed, Reading, SeriesLimits, SeriesMap};
use super::snapshot::{Kind, Series, SideBySide, Value};
use crate::domain::flow::{Flow, Labels, Origin};
use crate::domain::labels::Label;
use crate::domain::result::{Closed, Latency, Outcome, PathKind, Reason, Skew, Transition};
use crate::domain::time::{Arrival, Now, nanoseconds};

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
    gauges: Arc<Gauges>,
    recorded: Arc<Mutex<Recorded>>,
}

/// What stays the same when the flow's rules change, or the flow goes and comes again: it counts instances that may have
/// been opened before.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    open: AtomicI64,
    overdue: AtomicI64,
    /// Unix time in nanoseconds.
    last_closed: AtomicU64,
}

/// What is recorded of closed instances, under one lock.
#[derive(Debug)]
struct Recorded {
    layout: Layout,
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
    /// The metrics of `flow`; closed label sets are there from the start.
    pub(super) fn new(
        flow: Arc<Flow>,
        layout: Layout,
        limits: &SeriesLimits,
        shares: bool,
        gauges: Arc<Gauges>,
        birth: Birth,
    ) -> Self {
        let lines = layout.lines();
        let mut recorded = Recorded {
            latency: SeriesMap::new(limits, lines),
            closed: SeriesMap::new(limits, 1),
            path: SeriesMap::new(limits, 1),
            path_share: shares.then(|| SeriesMap::new(limits, lines)),
            skew: SeriesMap::new(limits, lines),
            transition: SeriesMap::new(limits, lines),
            stage: SeriesMap::new(limits, lines),
            offset: SeriesMap::new(limits, lines),
            missing: SeriesMap::new(limits, 1),
            slo: SeriesMap::new(limits, 1),
            own: SeriesMap::new(limits, lines),
            last: SeriesMap::new(limits, 1),
            layout,
        };
        recorded.initialise(&flow, birth);
        FlowMetrics { flow, gauges, recorded: Arc::new(Mutex::new(recorded)) }
    }

    /// The metrics of the same flow with other rules. Where these have other buckets, labels or another metric of its
    /// own, all series begin anew, as `fresh` has them, for nothing may be added to what has another meaning.
    pub(super) fn with_rules_of(&self, fresh: FlowMetrics, birth: Birth) -> Self {
        if !has_same_series(&self.flow, &fresh.flow) {
            return fresh;
        }
        self.recorded().initialise(&fresh.flow, birth);
        FlowMetrics { recorded: Arc::clone(&self.recorded), ..fresh }
    }

    /// One more or fewer in flight.
    pub(super) fn change_open(&self, by: i64) {
        self.gauges.open.fetch_add(by, Relaxed);
    }

    /// One more or fewer in flight for longer than promised.
    pub(super) fn change_overdue(&self, by: i64) {
        self.gauges.overdue.fetch_add(by, Relaxed);
    }

    /// How many are in flight, and how many of these for longer than promised.
    pub(super) fn in_flight(&self) -> (u64, u64) {
        let count = |value: &AtomicI64| value.load(Relaxed).max(0).cast_unsigned();
        (count(&self.gauges.open), count(&self.gauges.overdue))
    }

    /// Observes closed instances. Returns at how many of them that panicked, which costs no other one.
    pub(super) fn observe(&self, closed: &[&Closed], birth: Birth) -> u64 {
        self.gauges.last_closed.fetch_max(birth.created.unix_nanoseconds(), Relaxed);
        let mut recorded = self.recorded();
        let mut observe =
            |closed| catch_unwind(AssertUnwindSafe(|| recorded.observe(&self.flow, closed, birth)));
        closed.iter().filter(|closed| observe(closed).is_err()).count() as u64
    }

    /// Moves series that nothing was added to for `idle` into the overflow. Returns how many.
    pub(super) fn expire(&self, birth: Birth, idle: Duration) -> u64 {
        self.recorded().expire(birth, idle)
    }

    /// For each bounded family: how many values it sent to its overflow series, and how many series it would have
    /// without limits.
    pub(super) fn demand(&self) -> Vec<(&'static str, u64, u64)> {
        fn of<C: Copy + Eq + std::hash::Hash + Ord, V: Accumulate>(
            name: &'static str,
            map: &SeriesMap<C, V>,
        ) -> (&'static str, u64, u64) {
            (name, map.refused(), map.wanted())
        }
        let recorded = self.recorded();
        let shares = recorded.path_share.as_ref();
        [
            of(Shared::Latency.name(), &recorded.latency),
            of(Shared::Closed.name(), &recorded.closed),
            of(Shared::CriticalPath.name(), &recorded.path),
            of(Shared::Transition.name(), &recorded.transition),
            of(Shared::ClockSkew.name(), &recorded.skew),
            of(Shared::Stage.name(), &recorded.stage),
            of(Shared::StageOffset.name(), &recorded.offset),
            of(Shared::MissingStage.name(), &recorded.missing),
            of(Shared::Slo.name(), &recorded.slo),
            of("push", &recorded.own),
        ]
        .into_iter()
        .chain(shares.map(|shares| of(Shared::CriticalPathShare.name(), shares)))
        .collect()
    }

    /// The flow's series of one of the shared families.
    pub(super) fn series(&self, family: Shared, now: Now) -> Vec<Series> {
        let flow = || vec![self.label()];
        match family {
            Shared::Latency => self.histograms(
                |recorded| Some(&recorded.latency),
                now,
                |outcome, open| [flow(), vec![label("outcome", outcome.as_str())], open].concat(),
            ),
            Shared::Closed => self.counters(
                |recorded| &recorded.closed,
                now,
                |(outcome, reason), open| {
                    [flow(), vec![label("outcome", outcome.as_str()), label("reason", reason.as_str())], open]
                        .concat()
                },
            ),
            Shared::CriticalPath => self.read(
                |recorded| Some(&recorded.path),
                now,
                |kind, open| [flow(), open, vec![label("kind", kind.as_str())]].concat(),
                |&value, is_hidden, _| Value::Nanoseconds(if is_hidden { 0 } else { value }),
            ),
            Shared::Transition => self.histograms(
                |recorded| Some(&recorded.transition),
                now,
                |(), open| [flow(), open].concat(),
            ),
            Shared::CriticalPathShare => self.histograms(
                |recorded| recorded.path_share.as_ref(),
                now,
                |kind, open| [flow(), open, vec![label("kind", kind.as_str())]].concat(),
            ),
            Shared::ClockSkew => {
                self.histograms(|recorded| Some(&recorded.skew), now, |(), open| [flow(), open].concat())
            }
            Shared::Stage => {
                self.histograms(|recorded| Some(&recorded.stage), now, |(), open| [flow(), open].concat())
            }
            Shared::StageOffset => {
                self.histograms(|recorded| Some(&recorded.offset), now, |(), open| [flow(), open].concat())
            }
            Shared::MissingStage => {
                self.counters(|recorded| &recorded.missing, now, |(), open| [flow(), open].concat())
            }
            Shared::Slo => self.counters(
                |recorded| &recorded.slo,
                now,
                |result, open| [flow(), vec![label("result", result.as_str())], open].concat(),
            ),
            Shared::Open => self.gauge(&self.gauges.open),
            Shared::Overdue if self.flow.slo.is_none() => Vec::new(),
            Shared::Overdue => self.gauge(&self.gauges.overdue),
            Shared::SloObjective => {
                let objective = self.flow.slo.map(|slo| Value::Float(slo.objective));
                objective.into_iter().map(|value| self.single(value)).collect()
            }
            Shared::LastClosed => {
                let seconds = self.gauges.last_closed.load(Relaxed) as f64 / 1e9;
                vec![self.single(Value::Float(seconds))]
            }
        }
    }

    fn gauge(&self, value: &AtomicI64) -> Vec<Series> {
        let value = value.load(Relaxed).max(0).cast_unsigned();
        vec![self.single(Value::Integer(value))]
    }

    /// What there is one of for the flow.
    fn single(&self, value: Value) -> Series {
        Series { labels: [self.label()].into_iter().collect(), created: None, value }
    }

    fn label(&self) -> Label {
        (word("flow"), Arc::clone(&self.flow.name))
    }

    /// The histogram of the flow's own name, and its last durations in seconds; only for flows with such a name.
    pub(super) fn own(&self, now: Now) -> Option<(Vec<Series>, Vec<Series>)> {
        self.flow.metric.as_ref()?;
        // Shown at once, as the ancestor did.
        let now = Now { arrival: Arrival::since_origin(Duration::MAX), ..now };
        let own = self.histograms(
            |recorded| Some(&recorded.own),
            now,
            |outcome, open| {
                let outcome = outcome.map(|outcome| label("outcome", outcome.as_str()));
                open.into_iter().chain(outcome).collect()
            },
        );
        let value = |&value: &f64, _, _: &mut SideBySide| Value::Float(value);
        let last = self.read(|recorded| Some(&recorded.last), now, |(), open| open, value);
        Some((own, last.into_iter().map(|series| Series { created: None, ..series }).collect()))
    }

    fn histograms<C: Copy + Ord>(
        &self,
        of: impl Fn(&Recorded) -> Option<&SeriesMap<C, Histogram>>,
        now: Now,
        labels: impl Fn(C, Vec<Label>) -> Vec<Label>,
    ) -> Vec<Series> {
        let value = |value: &Histogram, is_hidden, counts: &mut SideBySide| {
            Value::Histogram(value.value(is_hidden, now.wall, counts))
        };
        self.read(of, now, labels, value)
    }

    fn counters<C: Copy + Ord>(
        &self,
        of: impl Fn(&Recorded) -> &SeriesMap<C, u64>,
        now: Now,
        labels: impl Fn(C, Vec<Label>) -> Vec<Label>,
    ) -> Vec<Series> {
        let value =
            |&value: &u64, is_hidden, _: &mut SideBySide| Value::Integer(if is_hidden { 0 } else { value });
        self.read(|recorded| Some(of(recorded)), now, labels, value)
    }

    /// The series of one family, which are copied a few at a time: those who observe take turns with it.
    fn read<C: Copy + Ord, V>(
        &self,
        of: impl Fn(&Recorded) -> Option<&SeriesMap<C, V>>,
        now: Now,
        labels: impl Fn(C, Vec<Label>) -> Vec<Label>,
        value: impl Fn(&V, bool, &mut SideBySide) -> Value,
    ) -> Vec<Series> {
        let Some(rows) = of(&self.recorded()).map(SeriesMap::rows) else { return Vec::new() };
        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reading = Reading::new(&mut rows);
        while of(&self.recorded()).is_some_and(|map| map.read(&mut reading, now.arrival, &value)) {
            reading.take_in(&labels);
            yield_now();
        }
        reading.take_in(&labels);
        reading.in_order(|labels, created, value| Series { labels, created: Some(created), value })
    }

    /// Whether the stage stands among the flow's series.
    pub(super) fn knows_stage(&self, stage: &Arc<str>) -> bool {
        self.recorded().offset.contains((), &Hashed::of(&stage_labels(stage)))
    }

    /// The flow itself.
    pub(super) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two versions of a flow can share their series.
fn has_same_series(a: &Flow, b: &Flow) -> bool {
    let labels = |flow: &Flow| match &flow.labels {
        Labels::Declared(rules) => Some(rules.iter().map(|rule| Arc::clone(&rule.name)).collect::<Vec<_>>()),
        Labels::Union => None,
    };
    a.buckets == b.buckets
        && a.stage_buckets == b.stage_buckets
        && a.metric == b.metric
        && labels(a) == labels(b)
}

impl Recorded {
    /// Creates the series whose labels are known in advance.
    fn initialise(&mut self, flow: &Flow, birth: Birth) {
        for stage in &flow.expect {
            self.missing.get((), &Hashed::of(&stage_labels(stage)), birth, || 0);
        }
        let open_valued = match &flow.labels {
            Labels::Declared(rules) => !rules.is_empty(),
            Labels::Union => true,
        };
        if open_valued {
            return;
        }
        let none = &Hashed::of(&[] as &[Label]);
        for outcome in [Outcome::Ok, Outcome::Error, Outcome::Incomplete] {
            let layout = &self.layout;
            self.latency.get(outcome, none, birth, || Histogram::new(layout));
        }
        for result in flow.slo.iter().flat_map(|_| [SloResult::Good, SloResult::Bad]) {
            self.slo.get(result, none, birth, || 0);
        }
        for (outcome, reason) in possible_endings(flow) {
            self.closed.get((outcome, reason), none, birth, || 0);
        }
    }

    fn observe(&mut self, flow: &Flow, closed: &Closed, birth: Birth) {
        let weight = closed.weight;
        // Of an instance that was opened under an earlier config: label sets of one family are all of the same names.
        let renewed = (closed.flow.id != flow.id).then(|| flow.labels.renew(&closed.labels));
        let labels = &Hashed::of(renewed.as_deref().unwrap_or(&closed.labels));
        *self.closed.get((closed.outcome, closed.reason), labels, birth, || 0) += weight;
        if closed.latency != Latency::Unobserved {
            let layout = &self.layout;
            let latency = self.latency.get(closed.outcome, labels, birth, || Histogram::new(layout));
            observe_latency(latency, closed, birth);
            if flow.metric.is_some() {
                let outcome = Some(closed.outcome).filter(|outcome| *outcome != Outcome::Ok);
                let at_once = Birth { visible_from: Arrival::ORIGIN, ..birth };
                let own = self.own.get(outcome, labels, at_once, || Histogram::new(layout));
                observe_latency(own, closed, birth);
            }
        }
        if let (Latency::Finite(nanoseconds), Origin::Pushed) = (closed.latency, flow.origin) {
            *self.last.get((), labels, birth, || 0.0) = nanoseconds as f64 / 1e9;
        }
        // By the promise under which it began, as long as there still is one.
        if let Some(result) = flow.slo.and_then(|_| SloResult::of(&closed.flow, closed)) {
            *self.slo.get(result, labels, birth, || 0) += weight;
        }
        self.observe_stages(flow, closed, birth);
        self.observe_path(closed, birth);
        for stage in &closed.missing_stages {
            *self.missing.get((), &Hashed::of(&stage_labels(stage)), birth, || 0) += weight;
        }
    }

    fn observe_stages(&mut self, flow: &Flow, closed: &Closed, birth: Birth) {
        let weight = closed.weight;
        let layout = &self.layout;
        for stage in &closed.stages {
            let labels = stage_labels(&stage.name);
            let labels = Hashed::of(&labels);
            if let Some(offset) = stage.offset {
                let histogram = self.offset.get((), &labels, birth, || Histogram::new(layout));
                histogram.observe(Latency::Finite(offset), weight);
            }
            if let Some(inside) = stage.inside {
                let own = flow.stage_buckets.iter().find(|(name, _)| *name == stage.name);
                let histogram = match own {
                    // Its buckets are no others', so it cannot go into the overflow.
                    Some((_, seconds)) => self.stage.keep((), &labels, birth, || {
                        Histogram::new(&Layout { bounds: Bounds::from_seconds(seconds), ..layout.clone() })
                    }),
                    None => self.stage.get((), &labels, birth, || Histogram::new(layout)),
                };
                histogram.observe(Latency::Finite(inside), weight);
            }
        }
    }

    fn observe_path(&mut self, closed: &Closed, birth: Birth) {
        let weight = closed.weight;
        let layout = &self.layout;
        for share in &closed.path {
            let labels = stage_labels(&share.stage);
            let labels = Hashed::of(&labels);
            let time = self.path.get(share.kind, &labels, birth, || 0);
            *time += u128::from(share.nanoseconds) * u128::from(weight);
            if let Some(shares) = &mut self.path_share {
                let histogram = shares.get(share.kind, &labels, birth, || Histogram::new(layout));
                histogram.observe(Latency::Finite(share.nanoseconds), weight);
            }
        }
        for Transition { from, to, nanoseconds } in &closed.transitions {
            let histogram = self
                .transition
                .get((), &Hashed::of(&pair_labels(from, to)), birth, || Histogram::new(layout));
            histogram.observe(Latency::Finite(*nanoseconds), weight);
        }
        for Skew { from, to, nanoseconds, .. } in closed.skews.iter().filter(|skew| !skew.is_shared) {
            let histogram =
                self.skew.get((), &Hashed::of(&pair_labels(from, to)), birth, || Histogram::new(layout));
            histogram.observe(Latency::Finite(*nanoseconds), weight);
        }
    }

    /// Moves series that nothing was added to for long into the overflow. Returns how many.
    fn expire(&mut self, birth: Birth, idle: Duration) -> u64 {
        self.latency.expire(birth, idle)
            + self.closed.expire(birth, idle)
            + self.path.expire(birth, idle)
            + self.path_share.as_mut().map_or(0, |shares| shares.expire(birth, idle))
            + self.transition.expire(birth, idle)
            + self.skew.expire(birth, idle)
            + self.stage.expire(birth, idle)
            + self.offset.expire(birth, idle)
            + self.slo.expire(birth, idle)
            + self.own.expire(birth, idle)
            + self.last.expire(birth, idle)
    }
}

/// The latency, and the trace that may stand for it.
fn observe_latency(histogram: &mut Histogram, closed: &Closed, birth: Birth) {
    histogram.observe(closed.latency, closed.weight);
    if let Some(trace) = closed.trace() {
        histogram.exemplify(closed.latency, trace, birth.created);
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

fn stage_labels(stage: &Arc<str>) -> [(&Arc<str>, &Arc<str>); 1] {
    static STAGE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("stage"));
    [(&STAGE, stage)]
}

fn pair_labels<'s>(from: &'s Arc<str>, to: &'s Arc<str>) -> [(&'s Arc<str>, &'s Arc<str>); 2] {
    static FROM: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("from"));
    static TO: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("to"));
    [(&FROM, from), (&TO, to)]
}

fn label(name: &'static str, value: &'static str) -> Label {
    (word(name), word(value))
}

/// One of the few words that stand in the labels of all flows.
fn word(word: &'static str) -> Arc<str> {
    static WORDS: LazyLock<Mutex<HashMap<&'static str, Arc<str>>>> = LazyLock::new(Mutex::default);
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(words.entry(word).or_insert_with(|| word.into()))
}

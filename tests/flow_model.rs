//! Random instances of random flows against an oracle that keeps every event and works everything out anew at every
//! second, straight from the words of the contract: sections "When a flow is over" and "What is measured".
//!
//! The oracle knows nothing of stubs, indexes, wake-up times or incremental joins. Of the code under test it uses
//! the plain data only: what a flow is configured to be, and what an event says.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use latency_aggregator::aggregator::{Aggregator, Budget, Effects, Limits, Population};
use latency_aggregator::domain::catalog::{self, Catalog};
use latency_aggregator::domain::event::{Event, Facts, Flags, Incoming, Kind, Matches, PushFacts, View};
use latency_aggregator::domain::flow::{
    At, Boundary, EndAlternative, Flow, LabelRule, Labels, Measure, OnIncomplete, Origin, Pick, Slo, Timers,
};
use latency_aggregator::domain::ids::{FlowId, Key, SpanId, TraceId};
use latency_aggregator::domain::result::{Closed, Finished, Latency, Notes, Outcome, Reason};
use latency_aggregator::domain::time::{Arrival, EventTime};
use latency_aggregator::mapping::flows::{Defaults, FlowConfig, compile};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

// ---------------------------------------------------------------------------------------------------------------
// What a case consists of.

const SERVICES: usize = 3;
const STAGES: [&str; SERVICES] = ["cart", "pay", "ship"];
const VALUES: [&str; 4] = ["10", "9", "blue", "red"];
const LABELS: [&str; 2] = ["tenant", "tier"];
/// The instances of a case: two traces, and one run of a flow that pushes created.
const INSTANCES: usize = 3;
/// The place of the instance that only pushes reach.
const PUSHED: usize = 2;

/// A flow, and what the domain does not know of it.
#[derive(Debug, Clone)]
struct FlowPlan {
    start: Option<Boundary>,
    ends: Vec<EndAlternative>,
    expect: Vec<usize>,
    picks: [Pick; 2],
    measure: Measure,
    on_incomplete: OnIncomplete,
    timers: Timers,
    has_error_if: bool,
    /// Which stage each service is in.
    stages: [usize; SERVICES],
}

/// All flows of a case.
#[derive(Debug, Clone)]
struct Plan {
    configured: Vec<FlowPlan>,
    trace_flow: bool,
    defaults: Timers,
    /// When the first event may come, in seconds after the start of the process.
    offset: u64,
    /// From how many events on an instance that only waits is folded.
    fold_from: usize,
}

/// One event as its sender would describe it. Times are whole seconds.
#[derive(Clone, PartialEq)]
struct Spec {
    instance: usize,
    source: Source,
    start: u64,
    end: u64,
    error: bool,
    says: Vec<Says>,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Span {
        /// From 1 on.
        id: u64,
        /// 0: none.
        parent: u64,
        service: usize,
        kind: Kind,
        local: bool,
        ignored: bool,
        skewed: bool,
    },
    Push {
        flow: usize,
        stage: usize,
        last: bool,
        life_span: Option<u64>,
        time_to_live: u64,
    },
}

/// What the rules of one flow say about an event.
#[derive(Clone, PartialEq)]
struct Says {
    matches: bool,
    start: bool,
    ends: [bool; 2],
    error: bool,
    labels: [Option<usize>; 2],
}

/// One line for an event, so that a counterexample can be read.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = if self.error { " error" } else { "" };
        let Spec { instance, start, end, .. } = self;
        write!(f, "instance {instance} {:?} {start}..{end}{error}", self.source)?;
        for (flow, says) in self.says.iter().enumerate() {
            write!(f, " {flow}:{says:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [end, other_end] = self.ends;
        let said = [(self.matches, 'm'), (self.start, 's'), (end, 'e'), (other_end, 'E'), (self.error, '!')];
        said.iter().filter(|(holds, _)| *holds).try_for_each(|(_, word)| write!(f, "{word}"))?;
        for value in &self.labels {
            write!(f, "{}", value.map_or("-", |value| VALUES[value]))?;
        }
        Ok(())
    }
}

/// Batches of events and the second in which they arrive, in order.
type Schedule = Vec<(u64, Vec<Spec>)>;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn moment(second: u64) -> EventTime {
    EventTime::from_unix_nanoseconds((1_750_000_000 + second) * 1_000_000_000)
}

impl Plan {
    fn flows(&self) -> Vec<Arc<Flow>> {
        let configs: Vec<FlowConfig> = (0..self.configured.len())
            .map(|place| serde_saphyr::from_str(&format!("name: flow{place}")).unwrap())
            .collect();
        let compiled = compile(&configs, &Defaults::default(), &[], self.trace_flow).unwrap();
        let rule =
            |place: usize, pick: Pick| LabelRule { name: LABELS[place].into(), pick, default: "none".into() };
        let mut flows: Vec<Flow> = compiled.flows.iter().map(|flow| Flow::clone(flow)).collect();
        for (flow, plan) in flows.iter_mut().zip(&self.configured) {
            flow.start = plan.start.clone();
            flow.ends = plan.ends.clone();
            flow.expect = plan.expect.iter().map(|&stage| STAGES[stage].into()).collect();
            flow.labels = Labels::Declared(vec![rule(0, plan.picks[0]), rule(1, plan.picks[1])]);
            flow.measure = plan.measure;
            flow.on_incomplete = plan.on_incomplete;
            flow.timers = plan.timers;
            flow.slo = Some(Slo { latency: seconds(3), objective: 0.99 });
        }
        if self.trace_flow {
            flows[self.configured.len()].timers = self.defaults;
        }
        flows.into_iter().map(Arc::new).collect()
    }

    /// With the flow that pushes created behind the others.
    fn catalog(&self, events_per_instance: usize) -> Catalog {
        let limits = catalog::Limits {
            pushed_flows: 1,
            events_per_instance,
            fold_from: self.fold_from,
            explained_events: 100,
        };
        let catalog = Catalog::new(self.flows(), self.defaults, !self.configured.is_empty(), limits);
        catalog.pushed("order").unwrap();
        catalog
    }

    /// The id of the flow at a place of its list, in which the one that pushes created is the last.
    fn id(&self, flow: usize) -> FlowId {
        FlowId::at(if flow == self.pushed() { catalog::PUSHED } else { flow as u32 })
    }

    /// The place of the flow that pushes created.
    fn pushed(&self) -> usize {
        self.configured.len() + usize::from(self.trace_flow)
    }

    fn key(&self, instance: usize) -> Key {
        if instance == PUSHED {
            Key::Named { flow: self.id(self.pushed()), id: "order-1".into() }
        } else {
            Key::Trace(TraceId([instance as u8 + 1; 16]))
        }
    }

    fn has_error_if(&self, flow: usize) -> bool {
        self.configured.get(flow).is_some_and(|plan| plan.has_error_if)
    }

    /// The stage of a service, as a flow sees it.
    fn stage(&self, flow: usize, service: usize) -> &'static str {
        STAGES[self.configured.get(flow).map_or(service, |plan| plan.stages[service])]
    }

    fn event(&self, spec: &Spec) -> Event {
        let (span, parent, kind, flags, facts) = match &spec.source {
            Source::Span { id, parent, service, kind, local, ignored, skewed } => {
                let flags = Flags::IGNORED
                    .when(*ignored)
                    .with(Flags::SKEWED.when(*skewed))
                    .with(Flags::PARENT_IS_LOCAL.when(*local && *parent != 0));
                let facts = Facts {
                    origin: Facts::origin_of(STAGES[*service], None),
                    service: STAGES[*service].into(),
                    name: "".into(),
                    threshold: 0,
                    matches: Matches {
                        first: spec.matched(self).map(|flow| self.id(flow)),
                        also: Box::default(),
                    },
                    matched_before: Box::default(),
                    views: (0..self.pushed())
                        .map(|flow| (self.id(flow), self.view(spec, flow, self.stage(flow, *service), true)))
                        .collect(),
                    push: None,
                    held: Default::default(),
                };
                (SpanId(*id), SpanId(*parent), *kind, flags, facts)
            }
            Source::Push { flow, stage, last, life_span, time_to_live } => {
                let view = self.view(spec, *flow, STAGES[*stage], false);
                let said = LABELS.iter().zip(&spec.says[*flow].labels);
                let labels =
                    said.filter_map(|(name, value)| Some(((*name).into(), VALUES[(*value)?].into())));
                let facts = Facts {
                    origin: Facts::origin_of(STAGES[*stage], Some(self.id(*flow))),
                    service: STAGES[*stage].into(),
                    name: "".into(),
                    threshold: 0,
                    matches: Matches::default(),
                    matched_before: Box::default(),
                    views: Box::default(),
                    push: Some(Box::new(PushFacts {
                        flow: self.id(*flow),
                        home: self.id(*flow),
                        view,
                        earlier: Box::default(),
                        labels: labels.collect(),
                        life_span: life_span.map(seconds),
                        time_to_live: seconds(*time_to_live),
                    })),
                    held: Default::default(),
                };
                (SpanId::NONE, SpanId::NONE, Kind::Push, Flags::FINAL.when(*last), facts)
            }
        };
        Event {
            end: moment(spec.end),
            start: moment(spec.start),
            span,
            parent,
            kind,
            flags: flags.with(Flags::ERROR.when(spec.error)),
            facts: Arc::new(facts),
            member: 0,
        }
    }

    fn view(&self, spec: &Spec, flow: usize, stage: &str, is_span: bool) -> View {
        let says = &spec.says[flow];
        let plan = self.configured.get(flow);
        let start = plan.and_then(|plan| plan.start.as_ref());
        let ends = plan.map_or(&[][..], |plan| &plan.ends);
        let asked = |boundary: &Boundary| is_span && boundary.conditional;
        let end = |(place, end): (usize, &EndAlternative)| {
            u32::from(asked(&end.boundary) && says.ends[place]) << place
        };
        View {
            stage: stage.into(),
            start: start.is_some_and(asked) && says.start,
            ends: ends.iter().enumerate().map(end).sum(),
            error: (is_span && self.has_error_if(flow)).then_some(says.error),
            labels: says.labels.iter().map(|value| value.map(|value| VALUES[value].into())).collect(),
        }
    }
}

impl Spec {
    /// Which flow a span matches: the first in file order, else the built-in one.
    fn matched(&self, plan: &Plan) -> Option<usize> {
        let configured = (0..plan.configured.len()).find(|&flow| self.says[flow].matches);
        let built_in = plan.trace_flow.then_some(plan.configured.len());
        match self.source {
            Source::Span { ignored: false, .. } => configured.or(built_in),
            _ => None,
        }
    }

    fn pin(&self) -> Option<usize> {
        match self.source {
            Source::Push { flow, .. } => Some(flow),
            Source::Span { .. } => None,
        }
    }

    fn is_push(&self) -> bool {
        self.pin().is_some()
    }

    fn is_ignored(&self) -> bool {
        matches!(self.source, Source::Span { ignored: true, .. })
    }

    fn span(&self) -> Option<u64> {
        match self.source {
            Source::Span { id, .. } => Some(id),
            Source::Push { .. } => None,
        }
    }

    fn parent(&self) -> Option<u64> {
        match self.source {
            Source::Span { parent, .. } => Some(parent).filter(|parent| *parent != 0),
            Source::Push { .. } => None,
        }
    }

    fn kind(&self) -> Kind {
        match self.source {
            Source::Span { kind, .. } => kind,
            Source::Push { .. } => Kind::Push,
        }
    }

    fn same_identity(&self, other: &Spec) -> bool {
        match (&self.source, &other.source) {
            (
                Source::Span { id, kind, service, .. },
                Source::Span { id: other_id, kind: other_kind, service: other_service, .. },
            ) => (id, kind, service) == (other_id, other_kind, other_service),
            (Source::Push { stage, last, .. }, Source::Push { stage: other_stage, last: other_last, .. }) => {
                (stage, last) == (other_stage, other_last)
            }
            _ => false,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What a case leads to, in a form that can be compared.

/// One end of one instance.
#[derive(Debug, Clone, PartialEq)]
enum Ended {
    Closed(Box<Story>),
    Unmatched { at: u64, events: u64, ignored: u64 },
}

#[derive(Debug, Clone, PartialEq)]
struct Story {
    at: u64,
    key: Key,
    flow: String,
    outcome: Outcome,
    reason: Reason,
    latency: Latency,
    labels: Vec<(String, String)>,
    /// Name, nanoseconds inside, offset.
    stages: Vec<(String, Option<u64>, u64)>,
    missing: Vec<String>,
    notes: Notes,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    received: u64,
    opened: u64,
    new: u64,
    duplicates: u64,
    conflicts: u64,
    unmatched: u64,
    after_folding: u64,
    /// Seconds after the closing of each late event, in order; none when only the key was remembered.
    late: Vec<Option<u64>>,
}

#[derive(Debug, Default)]
struct Told {
    ended: Vec<Ended>,
    /// Critical paths and transitions of the instances that were never folded.
    paths: Vec<String>,
    counts: Counts,
    over_limit: u64,
    open_by_flow: BTreeMap<FlowId, i64>,
    overdue_by_flow: BTreeMap<FlowId, i64>,
    left: Population,
}

impl Told {
    fn sorted(mut self) -> Self {
        self.ended.sort_by_key(|ended| format!("{ended:?}"));
        self.counts.late.sort_unstable();
        self
    }

    fn closed(&self) -> Vec<&Story> {
        let closed = self.ended.iter().filter_map(|ended| match ended {
            Ended::Closed(story) => Some(&**story),
            Ended::Unmatched { .. } => None,
        });
        closed.collect()
    }

    /// What must not depend on when, in which order and how often events came.
    fn results(&self) -> Vec<Ended> {
        let timeless = |ended: &Ended| match ended.clone() {
            Ended::Closed(story) => Ended::Closed(Box::new(Story { at: 0, ..*story })),
            Ended::Unmatched { events, ignored, .. } => Ended::Unmatched { at: 0, events, ignored },
        };
        let mut results: Vec<Ended> = self.ended.iter().map(timeless).collect();
        results.sort_by_key(|ended| format!("{ended:?}"));
        results
    }

    fn take(&mut self, effects: Effects, at: u64) {
        self.counts.opened += effects.opened;
        self.counts.new += effects.new;
        self.counts.duplicates += effects.duplicates;
        self.counts.conflicts += effects.conflicts;
        self.counts.unmatched += effects.unmatched;
        self.counts.after_folding += effects.after_folding;
        self.over_limit += effects.over_limit;
        let late = effects.late.iter().map(|late| late.lateness.map(|known| known.late.as_secs()));
        self.counts.late.extend(late);
        for (flow, change) in effects.open_change.each() {
            *self.open_by_flow.entry(flow).or_default() += change;
        }
        for (flow, change) in effects.overdue_change.each() {
            *self.overdue_by_flow.entry(flow).or_default() += change;
        }
        for finished in effects.finished {
            let ended = match finished {
                Finished::Unmatched { events, ignored } => Ended::Unmatched { at, events, ignored },
                Finished::Divided { .. } => panic!("nothing is joined here"),
                Finished::Closed(closed) => {
                    self.take_path(&closed);
                    Ended::Closed(Box::new(Story {
                        at,
                        key: closed.key,
                        flow: closed.flow.name.to_string(),
                        outcome: closed.outcome,
                        reason: closed.reason,
                        latency: closed.latency,
                        labels: closed
                            .labels
                            .iter()
                            .map(|(name, value)| (name.to_string(), value.to_string()))
                            .collect(),
                        stages: closed
                            .stages
                            .iter()
                            .map(|stage| (stage.name.to_string(), stage.inside, stage.offset.unwrap()))
                            .collect(),
                        missing: closed.missing_stages.iter().map(|stage| stage.to_string()).collect(),
                        notes: Notes { coarsened: 0, cycles: 0, coarse_path: false, ..closed.notes },
                    }))
                }
            };
            self.ended.push(ended);
        }
    }

    /// The shares of the critical path sum to the latency, whatever came.
    fn take_path(&mut self, closed: &Closed) {
        let sum: u64 = closed.path.iter().map(|share| share.nanoseconds).sum();
        let latency = match closed.latency {
            Latency::Finite(nanoseconds) | Latency::Infinite(nanoseconds) => nanoseconds,
            Latency::Unobserved => 0,
        };
        assert_eq!(sum, latency, "{closed:?}");
        if !closed.notes.coarse_path {
            self.paths.push(format!("{:?} {:?} {:?}", closed.key, closed.path, closed.transitions));
            self.paths.sort();
        }
    }

    /// Every event is counted once, every instance ends once, and nothing is left behind.
    fn check_identities(&self) {
        let of = |ended: &Ended| match ended {
            Ended::Closed(story) => story.notes.events + story.notes.ignored + story.notes.foreign,
            Ended::Unmatched { events, ignored, .. } => events + ignored,
        };
        let ended: u64 = self.ended.iter().map(of).sum();
        let counts = &self.counts;
        let elsewhere = counts.unmatched + counts.late.len() as u64 + counts.duplicates + self.over_limit;
        assert_eq!(counts.received, self.left.events + ended + elsewhere, "events: {self:?}");
        assert_eq!(counts.new, self.left.events + ended, "kept events: {self:?}");
        assert_eq!(counts.opened, self.left.open + self.ended.len() as u64, "instances: {self:?}");
        let open: i64 = self.open_by_flow.values().sum();
        assert_eq!(open, self.left.open as i64, "open instances by flow: {self:?}");
        assert!(self.open_by_flow.values().all(|open| *open >= 0), "{self:?}");
        for (flow, overdue) in &self.overdue_by_flow {
            assert!((0..=self.open_by_flow[flow]).contains(overdue), "overdue instances: {self:?}");
        }
    }

    fn check_nothing_is_left(&self) {
        let Population { open, stubs, events, .. } = self.left;
        assert_eq!((open, stubs, events), (0, 0, 0), "{self:?}");
        assert!(self.open_by_flow.values().all(|open| *open == 0), "{self:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The code under test.

/// How long after the last arrival every instance must be closed.
const PATIENCE: u64 = 60;
/// What no case meets.
const NO_CAPS: Caps = Caps { instances: 100, events_per_instance: 100, tombstones: 100 };

#[derive(Debug, Clone, Copy)]
struct Caps {
    instances: usize,
    events_per_instance: usize,
    tombstones: usize,
}

/// Lets the batches arrive, sweeps every second, and ends everything at second `until`.
fn run_until(plan: &Plan, schedule: &Schedule, caps: Caps, until: u64) -> Told {
    let catalog = plan.catalog(caps.events_per_instance);
    let aggregator = Aggregator::new(Limits {
        budget: Budget { bytes: u64::MAX, instances: caps.instances as u64 },
        tombstones: caps.tombstones,
        remembered: 100_000,
        traces_per_instance: 100,
        links_per_trace: 100,
    });
    let mut told = Told::default();
    for second in 0..=until {
        let now = Arrival::since_origin(seconds(plan.offset + second));
        for (_, batch) in schedule.iter().filter(|(time, _)| *time == second) {
            told.counts.received += batch.len() as u64;
            let incoming = batch.iter().map(|spec| Incoming::new(plan.key(spec.instance), plan.event(spec)));
            told.take(aggregator.ingest(incoming.collect(), now, &catalog), second);
        }
        let (effects, more) = aggregator.sweep(now, 1000, &catalog);
        assert!(!more);
        told.take(effects, second);
        if second == until {
            told.take(aggregator.close_all(now, &catalog), second);
        }
        told.left = aggregator.population();
        told.check_identities();
    }
    told.check_nothing_is_left();
    told.sorted()
}

/// The same, long enough for every instance to end by itself.
fn run(plan: &Plan, schedule: &Schedule) -> Told {
    run_until(plan, schedule, NO_CAPS, horizon(schedule))
}

fn horizon(schedule: &Schedule) -> u64 {
    schedule.last().map_or(0, |(second, _)| *second) + PATIENCE
}

// ---------------------------------------------------------------------------------------------------------------
// The oracle.

/// What the oracle keeps of a key.
#[derive(Debug, Clone)]
enum Kept {
    Open(Open),
    Tombstone {
        matched: bool,
        closed: u64,
        lifetime: u64,
        expires: u64,
        had_spans: bool,
    },
    /// Only the key of a trace, for longer than any case lasts.
    Remembered {
        matched: bool,
    },
}

#[derive(Debug, Clone, Default)]
struct Open {
    events: Vec<Spec>,
    first: u64,
    last: u64,
    life_span: Option<u64>,
    /// The flow it was folded under, and whether a push had pinned it.
    folded_as: Option<(usize, bool)>,
}

struct Oracle<'a> {
    plan: &'a Plan,
    flows: Vec<Arc<Flow>>,
    unmatched: Flow,
    kept: BTreeMap<usize, Kept>,
    told: Told,
}

impl<'a> Oracle<'a> {
    /// What is told when everything is ended at second `until`.
    fn tell(plan: &'a Plan, schedule: &Schedule, until: u64) -> Told {
        let catalog = plan.catalog(NO_CAPS.events_per_instance);
        let flows = catalog.all();
        let unmatched = Flow {
            labels: Labels::Declared(Vec::new()),
            origin: Origin::BuiltIn,
            ..Flow::clone(&flows[plan.pushed()])
        };
        let mut oracle = Oracle { plan, flows, unmatched, kept: BTreeMap::new(), told: Told::default() };
        for now in 0..=until {
            for spec in schedule.iter().filter(|(time, _)| *time == now).flat_map(|(_, batch)| batch) {
                oracle.told.counts.received += 1;
                oracle.arrive(spec, now);
            }
            (0..INSTANCES).for_each(|instance| oracle.look(instance, now, now == until));
        }
        oracle.told.sorted()
    }

    fn arrive(&mut self, spec: &Spec, now: u64) {
        let counts = &mut self.told.counts;
        match self.kept.get_mut(&spec.instance) {
            Some(Kept::Remembered { matched }) => match matched {
                true => counts.late.push(None),
                false => counts.unmatched += 1,
            },
            Some(Kept::Tombstone { matched, closed, lifetime, expires, had_spans })
                if *had_spans || now < *expires =>
            {
                *expires = now + *lifetime;
                match matched {
                    true => counts.late.push(Some(now - *closed)),
                    false => counts.unmatched += 1,
                }
            }
            Some(Kept::Open(open)) => Self::add(self.plan, open, spec, now, counts),
            Some(Kept::Tombstone { .. }) | None => {
                counts.opened += 1;
                let mut open = Open { first: now, ..Open::default() };
                Self::add(self.plan, &mut open, spec, now, counts);
                self.kept.insert(spec.instance, Kept::Open(open));
            }
        }
    }

    fn add(plan: &Plan, open: &mut Open, spec: &Spec, now: u64, counts: &mut Counts) {
        if let Some(known) = open.events.iter_mut().find(|known| known.same_identity(spec)) {
            counts.duplicates += 1;
            if spec.is_push() {
                // The earliest event time of a stage is kept.
                known.end = known.end.min(spec.end);
                known.start = known.end;
            } else if known != spec {
                // The later end wins, then the earlier start.
                counts.conflicts += 1;
                if (spec.end, known.start) > (known.end, spec.start) {
                    *known = spec.clone();
                }
            }
            return;
        }
        counts.new += 1;
        if let Some((folded_as, pinned)) = open.folded_as {
            let better = match spec.pin() {
                Some(pin) => pin != folded_as && (!pinned || pin < folded_as),
                None => !pinned && spec.matched(plan).is_some_and(|flow| flow < folded_as),
            };
            counts.after_folding += u64::from(better);
        }
        open.last = now;
        if let Source::Push { life_span, .. } = spec.source {
            open.life_span = life_span;
        }
        open.events.push(spec.clone());
    }

    fn look(&mut self, instance: usize, now: u64, is_shutdown: bool) {
        match self.kept.get(&instance).cloned() {
            Some(Kept::Open(open)) => self.look_at_open(instance, open, now, is_shutdown),
            Some(Kept::Tombstone { expires, had_spans, matched, .. }) if expires <= now => {
                if had_spans {
                    self.kept.insert(instance, Kept::Remembered { matched });
                } else {
                    self.kept.remove(&instance);
                }
            }
            _ => {}
        }
    }

    fn look_at_open(&mut self, instance: usize, mut open: Open, now: u64, is_shutdown: bool) {
        let folded_as = open.folded_as.map(|(flow, _)| flow);
        let chosen = folded_as.or_else(|| choose_flow(self.plan, &open.events));
        let case = Case {
            plan: self.plan,
            flow: chosen.map_or(&self.unmatched, |flow| &self.flows[flow]),
            place: chosen,
            instance,
            open: &open,
        };
        let at_shutdown = is_shutdown.then(|| case.ended_by(now).unwrap_or(Reason::Shutdown));
        let Some(reason) = case.closes(now).or(at_shutdown) else {
            // A trace that is only the built-in flow's may still turn out to be a configured one's.
            let is_decided =
                |flow: &usize| *flow != self.plan.configured.len() || *flow == 0 || !self.plan.trace_flow;
            let is_large = open.events.len() >= self.plan.fold_from;
            let may_fold = open.folded_as.is_none() && is_large && case.quiet_is_over(now);
            if let Some(flow) = chosen.filter(is_decided).filter(|_| may_fold) {
                let pinned = open.events.iter().any(Spec::is_push);
                open.folded_as = Some((flow, pinned));
                self.kept.insert(instance, Kept::Open(open));
            }
            return;
        };
        let ended = case.end(reason, now);
        let matched = matches!(ended, Ended::Closed(_));
        let had_spans = open.events.iter().any(|event| !event.is_push());
        let asked = open.events.iter().filter_map(|event| match event.source {
            Source::Push { time_to_live, .. } => Some(time_to_live),
            Source::Span { .. } => None,
        });
        let by_spans = had_spans.then_some(case.flow.timers.tombstone.as_secs());
        let lifetime = asked.chain(by_spans).max().unwrap();
        self.told.ended.push(ended);
        let tombstone =
            Kept::Tombstone { matched, closed: now, lifetime, expires: now + lifetime, had_spans };
        self.kept.insert(instance, tombstone);
    }
}

/// A flow that a push names is the instance's; else the first in file order that any event matches.
fn choose_flow(plan: &Plan, events: &[Spec]) -> Option<usize> {
    let pinned = events.iter().filter_map(Spec::pin).min();
    pinned.or_else(|| events.iter().filter_map(|event| event.matched(plan)).min())
}

/// An open instance as one flow sees it.
struct Case<'a> {
    plan: &'a Plan,
    flow: &'a Flow,
    /// None while no flow has matched.
    place: Option<usize>,
    instance: usize,
    open: &'a Open,
}

impl<'a> Case<'a> {
    /// The events of the flow: not what is ignored, nor pushes to other flows.
    fn events(&self) -> impl Iterator<Item = &'a Spec> {
        let place = self.place;
        let of_flow = move |event: &&Spec| {
            place.is_some() && event.pin().is_none_or(|pin| Some(pin) == place) && !event.is_ignored()
        };
        self.open.events.iter().filter(of_flow)
    }

    fn spans(&self) -> impl Iterator<Item = &'a Spec> {
        self.open.events.iter().filter(|event| !event.is_push())
    }

    fn says(&self, event: &'a Spec) -> &'a Says {
        &event.says[self.place.unwrap_or_default()]
    }

    fn stage(&self, event: &Spec) -> &'static str {
        match event.source {
            Source::Span { service, .. } => self.place.map_or("", |place| self.plan.stage(place, service)),
            Source::Push { stage, .. } => STAGES[stage],
        }
    }

    fn parent(&self, event: &Spec) -> Option<&'a Spec> {
        let parent = event.parent()?;
        self.spans().find(|span| span.span() == Some(parent))
    }

    fn parent_is_missing(&self, event: &Spec) -> bool {
        event.parent().is_some() && self.parent(event).is_none()
    }

    /// A stage counts as seen only by a push or its entry span.
    fn is_entry(&self, event: &Spec) -> bool {
        let elsewhere = |parent: &Spec| !parent.is_ignored() && self.stage(parent) != self.stage(event);
        matches!(event.kind(), Kind::Server | Kind::Consumer | Kind::Push)
            || event.parent().is_none()
            || self.parent(event).is_some_and(elsewhere)
    }

    /// The events that show that a boundary was reached.
    fn reaching(&self, boundary: &Boundary, condition: impl Fn(&Says) -> bool) -> Vec<&'a Spec> {
        let in_stage =
            |event: &&Spec| boundary.stage.as_ref().is_none_or(|stage| **stage == *self.stage(event));
        let shows = |event: &&'a Spec| {
            if boundary.conditional {
                !event.is_push() && condition(self.says(event))
            } else {
                self.is_entry(event)
            }
        };
        self.events().filter(in_stage).filter(shows).collect()
    }

    fn has_started(&self) -> bool {
        let start = self.flow.start.as_ref();
        start.is_none_or(|boundary| !self.reaching(boundary, |says| says.start).is_empty())
    }

    fn ending(&self) -> Vec<(&'a EndAlternative, Vec<&'a Spec>)>
    where
        Self: 'a,
    {
        let alternatives = self.flow.ends.iter().enumerate();
        let reached =
            alternatives.map(|(place, end)| (end, self.reaching(&end.boundary, |says| says.ends[place])));
        reached.filter(|(_, events)| !events.is_empty()).collect()
    }

    fn has_final(&self) -> bool {
        self.events().any(|event| matches!(event.source, Source::Push { last: true, .. }))
    }

    fn missing_stages(&self) -> Vec<String> {
        let seen: BTreeSet<&str> =
            self.events().filter(|event| self.is_entry(event)).map(|event| self.stage(event)).collect();
        let expected = self.flow.expect.iter().map(|stage| stage.to_string());
        expected.filter(|stage| !seen.contains(stage.as_str())).collect()
    }

    /// Required: `start`, and `end` if given, else `expect`. A `final` push is an end.
    fn lacks_required(&self) -> bool {
        let end_is_missing = if self.flow.ends.is_empty() {
            !self.missing_stages().is_empty()
        } else {
            self.ending().is_empty()
        };
        !self.has_started() || (end_is_missing && !self.has_final())
    }

    fn true_root(&self) -> Option<&'a Spec> {
        let roots = self.spans().filter(|span| span.parent().is_none());
        roots.min_by_key(|span| (span.start, span.span()))
    }

    /// The root, or the earliest orphan that acts as root.
    fn root(&self) -> Option<&'a Spec> {
        let orphans = self.spans().filter(|span| self.parent_is_missing(span));
        self.true_root().or_else(|| orphans.min_by_key(|span| (span.start, span.span())))
    }

    fn evidence(&self) -> Option<Reason> {
        let flow = self.flow;
        let complete = self.spans().all(|span| !self.parent_is_missing(span));
        let root_rule = flow.ends.is_empty()
            && flow.expect.is_empty()
            && self.instance != PUSHED
            && self.open.events.iter().all(|event| !event.is_push());
        if !self.has_started() {
            None
        } else if self.has_final() {
            Some(Reason::Final)
        } else if !self.ending().is_empty() {
            Some(Reason::End)
        } else if flow.ends.is_empty() && !flow.expect.is_empty() && self.missing_stages().is_empty() {
            Some(Reason::Expect)
        } else if root_rule && self.true_root().is_some() && complete {
            Some(Reason::Root)
        } else {
            None
        }
    }

    /// A PRODUCER without a consumer: a CONSUMER, or whatever else took its work in another stage.
    fn is_unanswered(&self) -> bool {
        let producers = || self.spans().filter(|span| span.kind() == Kind::Producer && !span.is_ignored());
        let takes_from = |producer: &Spec, span: &Spec| {
            span.parent() == producer.span()
                && (span.kind() == Kind::Consumer
                    || (!span.is_ignored() && self.stage(span) != self.stage(producer)))
        };
        producers().any(|producer| !self.spans().any(|span| takes_from(producer, span)))
    }

    fn is_held(&self, now: u64) -> bool {
        let missing = |local: bool| {
            self.spans().any(|span| {
                let is_local = matches!(span.source, Source::Span { local: true, .. });
                self.parent_is_missing(span) && is_local == local
            })
        };
        let within = |wait: Duration| now < self.open.last + wait.as_secs();
        let timers = &self.flow.timers;
        missing(true)
            || (missing(false) && within(timers.parent_wait))
            || (self.is_unanswered() && within(timers.async_wait))
    }

    fn quiet_is_over(&self, now: u64) -> bool {
        let period = self.open.life_span.unwrap_or(self.flow.timers.quiet_period.as_secs());
        now >= self.open.last + period
    }

    /// The holds delay the root rule too.
    fn ended_by(&self, now: u64) -> Option<Reason> {
        let is_delayed = |reason: &Reason| *reason == Reason::Root && self.is_held(now);
        self.evidence().filter(|reason| !is_delayed(reason))
    }

    fn closes(&self, now: u64) -> Option<Reason> {
        let evidence = self.evidence();
        let lingered = now >= self.open.last + self.flow.timers.linger.as_secs();
        let by_evidence = lingered && self.ended_by(now).is_some();
        let by_quiet = self.quiet_is_over(now) && !self.lacks_required() && !self.is_held(now);
        if by_evidence {
            evidence
        } else if by_quiet {
            Some(evidence.unwrap_or(Reason::Quiet))
        } else if self.is_too_old(now) {
            Some(evidence.unwrap_or(Reason::MaxAge))
        } else {
            None
        }
    }

    fn is_too_old(&self, now: u64) -> bool {
        let limit = self.open.first + self.flow.timers.max_age.as_secs();
        if self.flow.origin != Origin::Pushed {
            return now >= limit;
        }
        // Pushes that create their flow have no other setting than their life span: it is kept to.
        let quiet = self.open.life_span.unwrap_or(self.flow.timers.quiet_period.as_secs());
        now >= limit.max(self.open.last + quiet)
    }

    fn is_error(&self) -> bool {
        let of_push = self.events().any(|event| event.is_push() && event.error);
        let ending = self.ending();
        let by_config = ending.iter().any(|(end, _)| end.is_error);
        let spans = || self.events().filter(|event| !event.is_push());
        let by_status = if self.plan.has_error_if(self.place.unwrap_or_default()) && spans().next().is_some()
        {
            spans().any(|event| self.says(event).error)
        } else {
            let root = self.root().is_some_and(|root| root.error && !root.is_ignored());
            root || ending.iter().flat_map(|(_, events)| events).any(|event| event.error)
        };
        of_push || by_config || by_status
    }

    fn outcome(&self, reason: Reason) -> Outcome {
        let age_at_start = self.plan.offset + self.open.first;
        let may_be_lost = age_at_start <= self.flow.timers.max_age.as_secs();
        let has_spans = self.events().any(|event| !event.is_push()) || self.spans().next().is_some();
        let no_beginning = match &self.flow.start {
            Some(_) => !self.has_started(),
            None => has_spans && self.true_root().is_none(),
        };
        if reason == Reason::Shutdown {
            Outcome::Evicted
        } else if may_be_lost && no_beginning && self.flow.origin != Origin::Pushed {
            Outcome::Orphan
        } else if reason == Reason::MaxAge {
            if self.lacks_required() { Outcome::Incomplete } else { Outcome::Truncated }
        } else if self.is_error() {
            Outcome::Error
        } else {
            Outcome::Ok
        }
    }

    /// A CONSUMER's start is not before its producer's, nor after its own end.
    fn start_of(&self, event: &Spec) -> u64 {
        let producer = self.parent(event).filter(|parent| parent.kind() == Kind::Producer);
        match (event.kind(), producer) {
            (Kind::Consumer, Some(producer)) => event.start.max(producer.start).min(event.end),
            _ => event.start,
        }
    }

    fn bounds(&self) -> Option<(u64, u64)> {
        // Without a span there is no root to measure.
        if self.flow.measure == Measure::Root && self.open.events.iter().any(|event| !event.is_push()) {
            return self.root().map(|root| (root.start, root.end));
        }
        let at = |at: At, event: &Spec| match at {
            At::Start => self.start_of(event),
            At::End => event.end,
        };
        let in_stage = |boundary: &Boundary, event: &Spec, condition: bool| {
            boundary.stage.as_ref().is_none_or(|stage| **stage == *self.stage(event))
                && (!boundary.conditional || (condition && !event.is_push()))
        };
        let start = match &self.flow.start {
            None => self.events().map(|event| self.start_of(event)).min(),
            Some(boundary) => self
                .events()
                .filter(|event| in_stage(boundary, event, self.says(event).start))
                .map(|event| at(boundary.at, event))
                .min(),
        };
        let latest = self.events().map(|event| event.end).max();
        let configured = self.flow.ends.iter().enumerate().flat_map(|(place, end)| {
            let of = self
                .events()
                .filter(move |event| in_stage(&end.boundary, event, self.says(event).ends[place]));
            of.map(|event| at(end.boundary.at, event))
        });
        let end = if self.flow.ends.is_empty() || (self.has_final() && self.ending().is_empty()) {
            latest
        } else {
            configured.max()
        };
        start.zip(end)
    }

    fn end(&self, reason: Reason, now: u64) -> Ended {
        let kept = &self.open.events;
        let ignored = kept.iter().filter(|event| event.is_ignored()).count() as u64;
        let events = self.events().count() as u64;
        let of_nobody = self.flow.origin == Origin::BuiltIn && self.root().is_some_and(Spec::is_ignored);
        if self.place.is_none() || events == 0 || of_nobody {
            return Ended::Unmatched { at: now, events: kept.len() as u64 - ignored, ignored };
        }
        let outcome = self.outcome(reason);
        let ended = matches!(outcome, Outcome::Ok | Outcome::Error);
        let bounds = self.bounds();
        let reversed = ended && bounds.is_some_and(|(start, end)| end < start);
        let observed = bounds.filter(|_| ended && !reversed);
        let earliest = self.events().map(|event| self.start_of(event)).min().unwrap();
        let latest = self.events().map(|event| event.end).max().unwrap();
        let elapsed = (latest - earliest).max(now - self.open.first) * 1_000_000_000;
        let latency = match (outcome, self.flow.on_incomplete, observed) {
            (Outcome::Incomplete, OnIncomplete::Inf, _) => Latency::Infinite(elapsed),
            (Outcome::Incomplete, OnIncomplete::Elapsed, _) => Latency::Finite(elapsed),
            (_, _, Some((start, end))) => Latency::Finite((end - start) * 1_000_000_000),
            _ => Latency::Unobserved,
        };
        let counts_missing = ended || outcome == Outcome::Incomplete;
        let (labels, label_conflict) = self.labels();
        Ended::Closed(Box::new(Story {
            at: now,
            key: self.plan.key(self.instance),
            flow: self.flow.name.to_string(),
            outcome,
            reason,
            latency,
            labels,
            stages: observed.map_or_else(Vec::new, |(start, _)| self.stages(start)),
            missing: if counts_missing { self.missing_stages() } else { Vec::new() },
            notes: Notes {
                events,
                ignored,
                foreign: kept.len() as u64 - ignored - events,
                skewed: self.skewed(),
                coarsened: 0,
                cycles: 0,
                coarse_path: false,
                reversed,
                orphan_root: self.spans().next().is_some() && self.true_root().is_none(),
                unanswered: self.is_unanswered(),
                unseen_link: false,
                missed_link: false,
                label_conflict,
            },
        }))
    }

    fn skewed(&self) -> u64 {
        let is_skewed = |event: &&Spec| matches!(event.source, Source::Span { skewed: true, .. });
        self.events().filter(is_skewed).count() as u64
    }

    fn stages(&self, flow_start: u64) -> Vec<(String, Option<u64>, u64)> {
        let names: BTreeSet<&str> = self.events().map(|event| self.stage(event)).collect();
        let stage = |name: &str| {
            let events: Vec<&Spec> = self.events().filter(|event| self.stage(event) == name).collect();
            // Second by second: whether something was active in it.
            let is_active =
                |second: u64| events.iter().any(|event| self.start_of(event) <= second && second < event.end);
            let inside = (0..=2 * TIME_RANGE).filter(|&second| is_active(second)).count() as u64;
            let reached = events.iter().map(|event| self.start_of(event)).min().unwrap();
            let has_spans = events.iter().any(|event| !event.is_push());
            (
                name.to_owned(),
                has_spans.then_some(inside * 1_000_000_000),
                reached.saturating_sub(flow_start) * 1_000_000_000,
            )
        };
        names.into_iter().map(stage).collect()
    }

    fn labels(&self) -> (Vec<(String, String)>, bool) {
        // By event start, then span id; for pushes by time, then stage.
        let candidates = |place: usize| {
            let mut candidates: Vec<_> = self
                .events()
                .filter_map(|event| {
                    let value = VALUES[self.says(event).labels[place]?];
                    let stage = event.is_push().then(|| self.stage(event));
                    Some(((event.start, event.span(), stage, value), event.parent().is_none()))
                })
                .collect();
            candidates.sort_unstable();
            candidates
        };
        let Labels::Declared(rules) = &self.flow.labels else {
            let last =
                |place: usize| Some((LABELS[place].to_owned(), candidates(place).last()?.0.3.to_owned()));
            let distinct =
                |place| candidates(place).iter().map(|((.., value), _)| *value).collect::<BTreeSet<_>>();
            return ((0..2).filter_map(last).collect(), (0..2).any(|place| distinct(place).len() > 1));
        };
        let mut conflict = false;
        let mut labels = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            let candidates = candidates(place);
            let values: Vec<&str> = candidates.iter().map(|((.., value), _)| *value).collect();
            let distinct: BTreeSet<&str> = values.iter().copied().collect();
            // Only roots can disagree about what the root says.
            let roots: BTreeSet<&str> =
                candidates.iter().filter(|(_, is_root)| *is_root).map(|((.., value), _)| *value).collect();
            conflict |= match rule.pick {
                Pick::Join => false,
                Pick::Root => roots.len() > 1,
                Pick::First | Pick::Last | Pick::Max | Pick::Min => distinct.len() > 1,
            };
            let of_root = candidates.iter().find(|(_, is_root)| *is_root).map(|((.., value), _)| *value);
            let chosen = match rule.pick {
                Pick::First => values.first().copied().map(str::to_owned),
                Pick::Last => values.last().copied().map(str::to_owned),
                Pick::Root => of_root.or(values.first().copied()).map(str::to_owned),
                Pick::Max => sorted_by_size(&distinct).last().copied().map(str::to_owned),
                Pick::Min => sorted_by_size(&distinct).first().copied().map(str::to_owned),
                Pick::Join => (!distinct.is_empty()).then(|| Vec::from_iter(distinct).join(",")),
            };
            labels.push((rule.name.to_string(), chosen.unwrap_or_else(|| rule.default.to_string())));
        }
        (labels, conflict)
    }
}

/// By number where all are numbers, else by text.
fn sorted_by_size<'v>(values: &BTreeSet<&'v str>) -> Vec<&'v str> {
    let mut sorted: Vec<&str> = values.iter().copied().collect();
    if sorted.iter().all(|value| value.parse::<u32>().is_ok()) {
        sorted.sort_by_key(|value| value.parse::<u32>().unwrap());
    }
    sorted
}

// ---------------------------------------------------------------------------------------------------------------
// Random cases.

/// No event time lies beyond this second.
const TIME_RANGE: u64 = 40;
/// More would fill a stub's intervals.
const MAX_EVENTS: usize = 9;
/// Flows of a case: three configured ones, the built-in one, the pushed one.
const MAX_FLOWS: usize = 5;

fn a_boundary(default: At) -> impl Strategy<Value = Boundary> {
    let at = prop_oneof![3 => Just(default), 1 => select(vec![At::Start, At::End])];
    let what = prop_oneof![
        (0..SERVICES).prop_map(|stage| (Some(stage), false)),
        option::of(0..SERVICES).prop_map(|stage| (stage, true)),
    ];
    (what, at).prop_map(|((stage, conditional), at)| Boundary {
        stage: stage.map(|stage| STAGES[stage].into()),
        conditional,
        at,
    })
}

fn some_timers() -> impl Strategy<Value = Timers> {
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    (seconds(2..8), seconds(2..8), seconds(8..40), seconds(2..20), seconds(2..20), seconds(2..20)).prop_map(
        |(quiet_period, linger, max_age, parent_wait, async_wait, tombstone)| Timers {
            quiet_period,
            linger,
            max_age,
            parent_wait,
            async_wait,
            tombstone,
        },
    )
}

fn a_flow() -> impl Strategy<Value = FlowPlan> {
    let pick = || select(vec![Pick::First, Pick::Last, Pick::Root, Pick::Max, Pick::Min, Pick::Join]);
    let end = (a_boundary(At::End), prop::bool::weighted(0.3))
        .prop_map(|(boundary, is_error)| EndAlternative { boundary, is_error });
    let stages = prop_oneof![3 => Just([0, 1, 2]), 1 => Just([0, 0, 1])];
    (
        prop_oneof![2 => Just(None), 1 => a_boundary(At::Start).prop_map(Some)],
        vec(end, 0..=2),
        prop::sample::subsequence(vec![0, 1, 2], 0..=2),
        [pick(), pick()],
        prop_oneof![3 => Just(Measure::Extent), 1 => Just(Measure::Root)],
        select(vec![OnIncomplete::Inf, OnIncomplete::Elapsed, OnIncomplete::Drop]),
        some_timers(),
        (any::<bool>(), stages),
    )
        .prop_map(
            |(start, ends, expect, picks, measure, on_incomplete, timers, (has_error_if, stages))| FlowPlan {
                start,
                ends,
                expect,
                picks,
                measure,
                on_incomplete,
                timers,
                has_error_if,
                stages,
            },
        )
}

fn a_plan() -> impl Strategy<Value = Plan> {
    // Right after the start of the process beginnings may have been lost, after 1000 s not any more.
    let offset = prop_oneof![1 => Just(1), 2 => Just(1000)];
    let fold_from = prop_oneof![2 => Just(0), 1 => 2..=4_usize, 1 => Just(100)];
    (vec(a_flow(), 1..=3), any::<bool>(), some_timers(), offset, fold_from).prop_map(
        |(configured, trace_flow, defaults, offset, fold_from)| Plan {
            configured,
            trace_flow,
            defaults,
            offset,
            fold_from,
        },
    )
}

fn some_says() -> impl Strategy<Value = Vec<Says>> {
    let label = || option::weighted(0.6, 0..VALUES.len());
    let says = (
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.3),
        [prop::bool::weighted(0.2), prop::bool::weighted(0.2)],
        prop::bool::weighted(0.2),
        [label(), label()],
    )
        .prop_map(|(matches, start, ends, error, labels)| Says { matches, start, ends, error, labels });
    vec(says, MAX_FLOWS)
}

fn a_span(id: u64) -> impl Strategy<Value = Source> {
    let kinds = vec![Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer];
    // One id more than there are spans: that parent never comes.
    let parent = prop_oneof![2 => Just(0), 5 => 1..=MAX_EVENTS as u64 + 1, 3 => 1..=3_u64];
    (
        parent,
        0..SERVICES,
        select(kinds),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(move |(parent, service, kind, local, ignored, skewed)| Source::Span {
            id,
            parent,
            service,
            kind,
            local,
            ignored,
            skewed,
        })
}

fn a_push(life_spans: std::ops::Range<u64>) -> impl Strategy<Value = Source> {
    (0..MAX_FLOWS, 0..SERVICES, prop::bool::weighted(0.15), option::of(life_spans), 1..10_u64).prop_map(
        |(flow, stage, last, life_span, time_to_live)| Source::Push {
            flow,
            stage,
            last,
            life_span,
            time_to_live,
        },
    )
}

/// Event `place` of a case.
fn a_spec(place: usize, life_spans: std::ops::Range<u64>) -> impl Strategy<Value = Spec> {
    let source = prop_oneof![4 => a_span(place as u64 + 1), 1 => a_push(life_spans)];
    let instance = prop_oneof![6 => Just(0), 2 => Just(1), 2 => Just(PUSHED)];
    (instance, source, 0..TIME_RANGE, 0..TIME_RANGE, prop::bool::weighted(0.15), some_says()).prop_map(
        |(instance, source, one, other, error, says)| Spec {
            instance,
            source,
            start: one.min(other),
            end: one.max(other),
            error,
            says,
        },
    )
}

/// Events that fit the flows of a plan: pushes name a flow that can be pushed to, and are points in time.
fn fit(plan: &Plan, mut specs: Vec<Spec>) -> Vec<Spec> {
    let pushed = plan.pushed();
    for (place, spec) in specs.iter_mut().enumerate() {
        if spec.instance == PUSHED && !spec.is_push() {
            spec.source = Source::Push {
                flow: pushed,
                stage: place % SERVICES,
                last: false,
                life_span: None,
                time_to_live: 5,
            };
        }
        match &mut spec.source {
            Source::Push { flow, .. } => {
                *flow = if spec.instance == PUSHED { pushed } else { *flow % plan.configured.len() };
                spec.start = spec.end;
            }
            Source::Span { skewed: true, .. } => spec.start = spec.end,
            Source::Span { .. } => {}
        }
    }
    specs
}

fn some_specs(life_spans: std::ops::Range<u64>) -> impl Strategy<Value = Vec<Spec>> {
    (1..=MAX_EVENTS).prop_flat_map(move |count| {
        (0..count).map(|place| a_spec(place, life_spans.clone())).collect::<Vec<_>>()
    })
}

/// One event for each identity: the repetitions are made by the tests.
fn distinct(specs: Vec<Spec>) -> Vec<Spec> {
    let mut kept: Vec<Spec> = Vec::new();
    for spec in specs {
        if !kept.iter().any(|known| known.instance == spec.instance && known.same_identity(&spec)) {
            kept.push(spec);
        }
    }
    kept
}

fn a_case(life_spans: std::ops::Range<u64>) -> impl Strategy<Value = (Plan, Vec<Spec>)> {
    (a_plan(), some_specs(life_spans)).prop_map(|(plan, specs)| {
        let specs = distinct(fit(&plan, specs));
        (plan, specs)
    })
}

/// The events in some order, some of them repeated, spread over `seconds` seconds. A push that is repeated without
/// `created_at` has a later time with each attempt, never an earlier one.
fn a_schedule(specs: Vec<Spec>, seconds: u64) -> impl Strategy<Value = Schedule> {
    let repeated = vec((any::<Index>(), 0..=seconds, 0..4_u64), 0..5);
    let times = vec(0..=seconds, specs.len());
    (Just(specs).prop_shuffle(), times, repeated).prop_map(|(specs, times, repeated)| {
        let mut arrivals: Vec<(u64, Spec)> = times.into_iter().zip(specs).collect();
        let originals = arrivals.clone();
        arrivals.extend(repeated.into_iter().map(|(place, time, later)| {
            let (_, again) = place.get(&originals).clone();
            (time, repeat(again, later))
        }));
        arrivals.sort_by_key(|(time, _)| *time);
        let mut schedule = Schedule::new();
        let mut earlier: Vec<Spec> = Vec::new();
        for (time, mut spec) in arrivals {
            let of_same = |known: &&Spec| known.instance == spec.instance && known.same_identity(&spec);
            let latest = earlier.iter().filter(of_same).map(|known| known.end).max();
            if spec.is_push() {
                spec.end = spec.end.max(latest.unwrap_or_default());
                spec.start = spec.end;
            }
            earlier.push(spec.clone());
            match schedule.last_mut() {
                Some((last, batch)) if *last == time => batch.push(spec),
                _ => schedule.push((time, vec![spec])),
            }
        }
        schedule
    })
}

/// The same event once more; a push without `created_at` has a later time with each attempt.
fn repeat(mut spec: Spec, later: u64) -> Spec {
    if spec.is_push() {
        spec.end += later;
        spec.start = spec.end;
    }
    spec
}

/// The events in some order, some of them repeated, in batches that all come at once.
fn some_batches(specs: Vec<Spec>) -> impl Strategy<Value = Schedule> {
    let repeated = vec((any::<Index>(), 0..4_u64), 0..5);
    (Just(specs), repeated)
        .prop_map(|(mut specs, repeated)| {
            for (place, later) in repeated {
                specs.push(repeat(place.get(&specs).clone(), later));
            }
            specs
        })
        .prop_shuffle()
        .prop_flat_map(|specs| (vec(1..4_usize, specs.len()), Just(specs)))
        .prop_map(|(sizes, mut specs)| {
            let mut batches = Schedule::new();
            for size in sizes {
                let rest = specs.split_off(size.min(specs.len()));
                batches.push((0, std::mem::replace(&mut specs, rest)));
            }
            batches
        })
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        max_shrink_iters: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The properties.

/// Shows only where two stories differ.
fn check_same(told: &[Ended], expected: &[Ended]) {
    let only = |these: &[Ended], those: &[Ended]| {
        let differing = these.iter().filter(|ended| !those.contains(ended));
        differing.map(|ended| format!("{ended:?}")).collect::<Vec<_>>().join("\n")
    };
    assert!(told == expected, "told:\n{}\nexpected:\n{}", only(told, expected), only(expected, told));
}

/// The seam of all properties: the code tells the same story as the oracle.
fn check(plan: &Plan, schedule: &Schedule, until: u64) {
    let (told, expected) = (run_until(plan, schedule, NO_CAPS, until), Oracle::tell(plan, schedule, until));
    check_same(&told.ended, &expected.ended);
    assert_eq!(told.counts, expected.counts, "counts, then those expected");
}

/// A flow that waits for the last of its events, however long that takes.
fn a_patient_plan() -> impl Strategy<Value = Plan> {
    a_plan().prop_map(|mut plan| {
        plan.configured.truncate(1);
        plan.trace_flow = false;
        plan.fold_from = 0;
        let flow = &mut plan.configured[0];
        flow.start = None;
        flow.ends = vec![EndAlternative {
            boundary: Boundary { stage: None, conditional: true, at: At::End },
            is_error: false,
        }];
        flow.timers.quiet_period = seconds(2);
        flow.timers.max_age = seconds(1000);
        plan
    })
}

/// Spans of one instance that match its flow, of which only the last one ends it.
fn with_the_end_last(plan: &Plan, specs: Vec<Spec>) -> Vec<Spec> {
    let mut specs = fit(plan, specs);
    for (place, spec) in specs.iter_mut().enumerate() {
        spec.instance = 0;
        spec.says[0].matches = true;
        spec.says[0].ends = [false; 2];
        if let Source::Push { last, life_span, .. } = &mut spec.source {
            (*last, *life_span) = (false, None);
        }
        if spec.pin().is_some_and(|pin| pin != 0) {
            spec.source = Source::Span {
                id: place as u64 + 1,
                parent: 0,
                service: 0,
                kind: Kind::Internal,
                local: false,
                ignored: false,
                skewed: true,
            };
        }
    }
    // Until something matches, there is no flow that could wait.
    if let Source::Span { ignored, .. } = &mut specs[0].source {
        *ignored = false;
    }
    let mut end = specs[0].clone();
    end.source = Source::Span {
        id: MAX_EVENTS as u64 + 2,
        parent: 1,
        service: 2,
        kind: Kind::Consumer,
        local: false,
        ignored: false,
        skewed: false,
    };
    end.says[0].ends[0] = true;
    specs.push(end);
    distinct(specs)
}

fn a_patient_case() -> impl Strategy<Value = (Plan, Vec<Spec>, Vec<Index>)> {
    (a_patient_plan(), some_specs(1..8), vec(any::<Index>(), 0..6)).prop_map(|(plan, specs, repeated)| {
        let specs = with_the_end_last(&plan, specs);
        (plan, specs, repeated)
    })
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn instances_end_when_and_as_the_contract_says(
        (plan, schedule) in a_case(0..12).prop_flat_map(|(plan, specs)| {
            (Just(plan), a_schedule(specs, 45))
        })
    ) {
        check(&plan, &schedule, horizon(&schedule));
    }

    #[test]
    fn at_shutdown_what_has_ended_closes_normally_and_the_rest_is_evicted(
        (plan, schedule) in a_case(0..12).prop_flat_map(|(plan, specs)| {
            (Just(plan), a_schedule(specs, 30))
        }),
        until in 0..35_u64,
    ) {
        let schedule: Schedule = schedule.into_iter().filter(|(time, _)| *time <= until).collect();
        check(&plan, &schedule, until);
    }

    #[test]
    fn order_repetition_and_batches_change_no_result(
        (plan, one, other) in a_case(1..8).prop_flat_map(|(plan, specs)| {
            (Just(plan), some_batches(specs.clone()), some_batches(specs))
        })
    ) {
        let (one_told, other_told) = (run(&plan, &one), run(&plan, &other));
        check_same(&one_told.results(), &other_told.results());
        check_same(&one_told.results(), &Oracle::tell(&plan, &one, horizon(&one)).results());
        // One of the two may have been folded on its way.
        if one_told.paths.len() == other_told.paths.len() {
            prop_assert_eq!(one_told.paths, other_told.paths);
        }
    }

    #[test]
    fn of_two_reports_of_a_span_the_later_end_wins_in_either_order(
        (plan, one, other) in (a_case(1..8), vec((any::<Index>(), 1..9_u64, some_says(), any::<bool>()), 1..4))
            .prop_flat_map(|((plan, mut specs), reports)| {
                for (place, later, says, error) in reports {
                    let spec = place.get(&specs);
                    if !spec.is_push() {
                        let end = spec.end + later;
                        let start = if matches!(spec.source, Source::Span { skewed: true, .. }) {
                            end
                        } else {
                            spec.start
                        };
                        let report = Spec { start, end, says, error, ..spec.clone() };
                        if !specs.iter().any(|known| known.same_identity(&report) && known.end == end) {
                            specs.push(report);
                        }
                    }
                }
                (Just(plan), some_batches(specs.clone()), some_batches(specs))
            })
    ) {
        let (one_told, other_told) = (run(&plan, &one), run(&plan, &other));
        check_same(&one_told.results(), &other_told.results());
        check_same(&one_told.results(), &Oracle::tell(&plan, &one, horizon(&one)).results());
    }

    #[test]
    fn a_stub_measures_what_the_whole_instance_would_have_and_repetitions_do_not_change_it(
        (plan, specs, repeated) in a_patient_case()
    ) {
        let end = specs.len() as u64 * 10;
        let at_once: Schedule = vec![(0, specs.clone())];
        let mut piece_by_piece: Schedule = Schedule::new();
        for (place, spec) in specs.iter().enumerate() {
            piece_by_piece.push((place as u64 * 10, vec![spec.clone()]));
            for again in repeated.iter().map(|index| index.index(specs.len())).filter(|again| *again < place) {
                piece_by_piece.push((place as u64 * 10 + 5, vec![specs[again].clone()]));
            }
        }
        piece_by_piece.retain(|(time, _)| *time < end);
        let whole = run(&plan, &at_once);
        let stub = run(&plan, &piece_by_piece);
        prop_assert_eq!(whole.closed().len(), 1);
        check_same(&stub.results(), &whole.results());
    }

    #[test]
    fn a_later_end_of_a_span_counts_in_a_stub_too(
        (plan, specs, _) in a_patient_case(),
        longer in vec((any::<Index>(), 1..9_u64), 1..4),
    ) {
        let mut reports = specs.clone();
        for (index, later) in longer {
            let mut report = index.get(&specs[..specs.len() - 1]).clone();
            // A CONSUMER that ended before its producer started is a point whose start moves with its end.
            let is_point = report.kind() == Kind::Consumer
                || matches!(report.source, Source::Span { skewed: true, .. });
            if !report.is_push() && !is_point {
                report.end += later;
                reports.insert(reports.len() - 1, report);
            }
        }
        let piece_by_piece: Schedule = (reports.iter().zip(0..))
            .map(|(spec, time)| (time * 10, vec![spec.clone()]))
            .collect();
        let stub = run(&plan, &piece_by_piece);
        let whole = run(&plan, &vec![(0, reports)]);
        prop_assert_eq!(whole.closed().len(), 1);
        check_same(&stub.results(), &whole.results());
    }

    #[test]
    fn an_instance_over_its_cap_is_still_observed_once_as_ended(
        (plan, specs, _) in a_patient_case(),
        events_per_instance in 1..4_usize,
    ) {
        let caps = Caps { events_per_instance, ..NO_CAPS };
        let one_by_one: Schedule = specs.iter().map(|spec| (0, vec![spec.clone()])).collect();
        let told = run_until(&plan, &one_by_one, caps, horizon(&one_by_one));
        let closed = told.closed();
        prop_assert_eq!(closed.len(), 1);
        prop_assert_eq!(told.ended.len(), 1);
        prop_assert_eq!(closed[0].reason, Reason::End);
        prop_assert_eq!(told.over_limit, specs.len().saturating_sub(events_per_instance) as u64);
    }

    #[test]
    fn every_event_is_counted_once_and_no_trace_is_closed_twice_whatever_caps_are_met(
        (plan, schedule) in a_case(0..12).prop_flat_map(|(plan, specs)| {
            (Just(plan), a_schedule(specs, 45))
        }),
        instances in 1..3_usize,
        events_per_instance in 1..4_usize,
        tombstones in 0..2_usize,
    ) {
        let caps = Caps { instances, events_per_instance, tombstones };
        // The identities are checked at every second of the run.
        let told = run_until(&plan, &schedule, caps, horizon(&schedule));
        let traces = || told.closed().into_iter().filter(|story| matches!(story.key, Key::Trace(_)));
        let keys: BTreeSet<String> = traces().map(|story| format!("{:?}", story.key)).collect();
        let had_spans = schedule.iter().flat_map(|(_, batch)| batch).all(|spec| !spec.is_push());
        if had_spans {
            prop_assert_eq!(traces().count(), keys.len());
        }
    }
}

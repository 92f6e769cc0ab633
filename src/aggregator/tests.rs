//! What is left inside when everything has ended, also when several threads take part.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::domain::catalog::{Catalog, Limits as CatalogLimits};
use crate::domain::event::{Facts, Flags, Incoming, Kind, Matches, PushFacts, View};
use crate::domain::flow::{Flow, Timers as FlowTimers};
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::time::{EventTime, Now};
use crate::mapping::admission::TimeLimits;
use crate::mapping::facts::SpanRules;
use crate::mapping::flows::{Defaults, FlowConfig, compile};
use crate::mapping::otlp::{SpanFields, Text, TraceVisitor, Value};
use crate::mapping::spans::SpanMapper;

/// When all spans start.
const NOON: u64 = 1_750_000_000_000_000_000;

const LIMITS: Limits = Limits {
    budget: Budget { bytes: u64::MAX, instances: 1_000_000 },
    tombstones: 1_000_000,
    remembered: 1_000_000,
    traces_per_instance: 256,
    links_per_trace: 1024,
};

const FLOWS: &str = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', trace_id]
  end: {stage: shipping}
  slo: {latency: 3s, objective: 99}
  max_age: 60s
- name: parts
  also: true
  match: 'resource.attributes["service.name"] == "payment"'
  key: ['span.attributes["order.id"]', trace_id]
  slo: {latency: 1s, objective: 99}
- name: others
  match: 'resource.attributes["service.name"] == "mail"'
  key: ['span.attributes["order.id"]']
  slo: {latency: 2s, objective: 99}
"#;

/// Flows that end at once, so that an instance is often judged while another thread adds to it.
const AT_ONCE: &str = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', trace_id]
  quiet_period: 0s
  linger: 0s
  max_age: 1s
  parent_wait: 0s
  async_wait: 0s
"#;

/// Rules that panic when they are asked something for the last of so many times.
struct Rigged {
    catalog: Catalog,
    asked: AtomicI64,
}

impl Rigged {
    fn asked(&self) -> &Catalog {
        if self.asked.fetch_sub(1, Relaxed) == 1 {
            // As a panic, but it is not written to standard error.
            resume_unwind(Box::new("a bug"));
        }
        &self.catalog
    }
}

impl Rules for Rigged {
    fn flow(&self, id: FlowId) -> Arc<Flow> {
        Rules::flow(self.asked(), id)
    }

    fn unmatched(&self) -> &Arc<Flow> {
        Rules::unmatched(self.asked())
    }

    fn spans_may_match(&self) -> bool {
        self.asked().spans_may_match()
    }

    fn events_per_instance(&self) -> usize {
        Rules::events_per_instance(self.asked())
    }

    fn fold_from(&self) -> usize {
        Rules::fold_from(self.asked())
    }

    fn explained_events(&self) -> usize {
        Rules::explained_events(self.asked())
    }

    fn generation(&self) -> u32 {
        Rules::generation(self.asked())
    }
}

/// An aggregator with the mapping before it.
struct Bench {
    catalog: Rigged,
    rules: SpanRules,
    aggregator: Aggregator,
}

/// A span as a client would send it.
#[derive(Default, Clone, Debug)]
struct Raw {
    trace: u32,
    id: u64,
    parent: u64,
    kind: i32,
    service: &'static str,
    value: Option<u32>,
    links: Vec<(u32, u64)>,
}

fn trace_id(trace: u32) -> [u8; 16] {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&trace.to_be_bytes());
    id
}

impl Bench {
    fn new(flows: &str, limits: Limits) -> Self {
        let configs: Vec<FlowConfig> = serde_saphyr::from_str(flows).unwrap();
        let defaults = Defaults::default();
        let compiled = compile(&configs, &defaults, &[], true).unwrap();
        let catalog_limits = CatalogLimits {
            pushed_flows: 10,
            events_per_instance: 10_000,
            fold_from: 0,
            explained_events: 10_000,
        };
        let may_match = compiled.rules.may_match();
        Bench {
            catalog: Rigged {
                catalog: Catalog::new(compiled.flows, defaults.timers(), may_match, catalog_limits),
                asked: AtomicI64::new(0),
            },
            rules: compiled.rules,
            aggregator: Aggregator::new(limits),
        }
    }

    fn ingest(&self, spans: &[Raw], now: Duration) -> Effects {
        let limits =
            TimeLimits { max_future: Duration::from_secs(300), max_past: Duration::from_secs(24 * 3600) };
        let wall = EventTime::from_unix_nanoseconds(NOON);
        let now = Now { arrival: Arrival::since_origin(now), wall };
        let mut mapper = SpanMapper::new(&self.rules, limits, now);
        for raw in spans {
            let (id, parent) = (raw.id.to_be_bytes(), raw.parent.to_be_bytes());
            mapper.resource();
            mapper.resource_attribute("service.name".into(), Value::Str(raw.service.into()));
            mapper.scope(Text::default(), Text::default());
            let value = raw.value.map(|value| value.to_string());
            if let Some(value) = &value {
                mapper.span_attribute("order.id".into(), Value::Str(value.as_str().into()));
            }
            for (trace, span) in &raw.links {
                mapper.span_link(&trace_id(*trace), &span.to_be_bytes());
            }
            mapper.span(SpanFields {
                trace_id: &trace_id(raw.trace),
                span_id: &id,
                parent_span_id: if raw.parent == 0 { &[] } else { &parent },
                name: "work".into(),
                kind: raw.kind,
                start_time_unix_nano: NOON,
                end_time_unix_nano: NOON + 1_000_000_000,
                ..SpanFields::default()
            });
        }
        self.aggregator.ingest(mapper.finish().events, now.arrival, &self.catalog)
    }

    fn sweep(&self, now: Duration) -> Effects {
        self.aggregator.sweep(Arrival::since_origin(now), 1_000_000, &self.catalog).0
    }

    /// The joints that an open trace keeps, as how many there are, are said to be distinct, and are distinct.
    fn joints(&self, trace: u32) -> (usize, usize, usize) {
        match self.aggregator.slots.get(&Key::Trace(TraceId(trace_id(trace)))).as_deref() {
            Some(Slot::Open(instance)) => instance.joints_kept(),
            _ => (0, 0, 0),
        }
    }

    fn assert_empty(&self, sum: &Sum, received: u64) {
        let population = self.aggregator.population();
        assert_eq!((population.open, population.events, population.stubs), (0, 0, 0));
        assert_eq!(self.aggregator.bytes.load(Relaxed), 0, "bytes of open instances");
        let closed = self.aggregator.slots.iter().filter(|slot| matches!(slot.value(), Slot::Closed(_)));
        assert_eq!(population.tombstones, closed.count() as u64, "tombstones");
        assert_eq!(sum.opened, sum.ended + sum.merged, "instances end once");
        assert_eq!(sum.events, received, "events are counted once");
        assert!(sum.gauges.values().all(|gauges| *gauges == (0, 0)), "gauges: {:?}", sum.gauges);
        let claims = lock(&self.aggregator.claims);
        assert_eq!(claims.len(), 0, "claims of instances that are over: {claims:?}");
    }
}

/// What happened, summed up.
#[derive(Default, Debug)]
struct Sum {
    opened: u64,
    ended: u64,
    merged: u64,
    events: u64,
    panics: u64,
    /// By flow: open and overdue.
    gauges: BTreeMap<FlowId, (i64, i64)>,
}

impl Sum {
    fn take(&mut self, effects: Effects) {
        self.opened += effects.opened;
        self.merged += effects.merged;
        self.panics += effects.panics;
        for (flow, by) in effects.open_change.each() {
            self.gauges.entry(flow).or_default().0 += by;
        }
        for (flow, by) in effects.overdue_change.each() {
            self.gauges.entry(flow).or_default().1 += by;
        }
        self.events +=
            effects.duplicates + effects.over_limit + effects.unmatched + effects.late.len() as u64;
        for finished in effects.finished {
            match finished {
                Finished::Closed(closed) => {
                    self.ended += 1;
                    self.events += closed.notes.events + closed.notes.ignored + closed.notes.foreign;
                }
                Finished::Unmatched { events, ignored } => {
                    self.ended += 1;
                    self.events += events + ignored;
                }
                Finished::Divided { events, unmatched, ignored, .. } => {
                    self.events += events + unmatched + ignored;
                }
            }
        }
    }

    fn add(&mut self, other: Sum) {
        self.opened += other.opened;
        self.ended += other.ended;
        self.merged += other.merged;
        self.events += other.events;
        for (flow, (open, overdue)) in other.gauges {
            let gauges = self.gauges.entry(flow).or_default();
            *gauges = (gauges.0 + open, gauges.1 + overdue);
        }
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % bound
    }

    fn span(&mut self, traces: u32) -> Raw {
        let links = match self.below(6) {
            0 | 1 => vec![(self.below(traces), 1 + u64::from(self.below(4)))],
            2 => (0..self.below(4)).map(|_| (self.below(traces), 1)).collect(),
            _ => Vec::new(),
        };
        Raw {
            trace: self.below(traces),
            id: 1 + u64::from(self.below(6)),
            parent: u64::from(self.below(6)),
            kind: 1 + self.below(5) as i32,
            service: ["gateway", "payment", "mail", "shipping", "stock"][self.below(5) as usize],
            value: (self.below(3) == 0).then(|| self.below(8)),
            links,
        }
    }
}

#[test]
fn nothing_is_left_inside_when_everything_has_ended() {
    for seed in 0..300 {
        assert_eq!(panics_in_a_life(seed, 0), 0);
    }
}

/// Whatever was under way, keys that were taken from a calendar included.
#[test]
fn a_bug_that_panics_costs_one_instance_and_no_count() {
    let mut panics = 0;
    for life in 0..500 {
        panics += panics_in_a_life(life % 60, 1 + (life * 7 % 509).cast_signed());
    }
    assert!(panics > 200, "only {panics}");
}

/// Brings spans for a while, and ends everything; the rules panic when they are asked for the `nth` time, unless that is 0.
/// Returns how often dealing with an instance panicked.
fn panics_in_a_life(seed: u64, nth: i64) -> u64 {
    let mut random = Random(seed);
    let limits = match seed % 3 {
        0 => LIMITS,
        1 => Limits { traces_per_instance: 3, links_per_trace: 4, ..LIMITS },
        _ => Limits {
            traces_per_instance: 5,
            budget: Budget { bytes: u64::MAX, instances: 10 },
            tombstones: 4,
            remembered: 512,
            ..LIMITS
        },
    };
    let bench = Bench::new(FLOWS, limits);
    bench.catalog.asked.store(nth, Relaxed);
    let (mut sum, mut received, mut now) = (Sum::default(), 0, Duration::from_secs(1));
    for _ in 0..40 {
        let spans: Vec<Raw> = (0..1 + random.below(4)).map(|_| random.span(14)).collect();
        received += spans.len() as u64;
        sum.take(bench.ingest(&spans, now));
        now += Duration::from_millis(u64::from(random.below(4000)));
        sum.take(bench.sweep(now));
    }
    if seed.is_multiple_of(2) {
        sum.take(bench.aggregator.close_all(Arrival::since_origin(now), &bench.catalog));
    }
    while bench.aggregator.population().open > 0 {
        assert!(now < Duration::from_secs(2000), "open for ever, seed {seed}, {nth}");
        now += Duration::from_secs(5);
        sum.take(bench.sweep(now));
    }
    bench.assert_empty(&sum, received);
    sum.panics
}

/// Three threads bring spans of the same traces while a fourth one sweeps.
fn several_threads(flows: &str, rounds: u32, step: Duration) {
    let bench = Bench::new(flows, LIMITS);
    let stop = AtomicBool::new(false);
    let clock = AtomicU64::new(Duration::from_secs(1).as_nanos() as u64);
    let now = || Duration::from_nanos(clock.fetch_add(step.as_nanos() as u64, Relaxed));
    let bring = |seed: u64| {
        let (mut random, mut sum, mut received) = (Random(seed), Sum::default(), 0);
        for first in (0..rounds).map(|round| round / 4 * 8) {
            let span = |_| {
                let mut span = random.span(8);
                span.trace += first;
                span.links.iter_mut().for_each(|(trace, _)| *trace += first);
                span
            };
            let spans: Vec<Raw> = (0..3).map(span).collect();
            received += spans.len() as u64;
            sum.take(bench.ingest(&spans, now()));
        }
        (sum, received)
    };
    let sweep = || {
        let mut sum = Sum::default();
        while !stop.load(Relaxed) {
            sum.take(bench.sweep(now()));
        }
        sum
    };
    let (mut sum, mut received) = (Sum::default(), 0);
    std::thread::scope(|scope| {
        let bringing: Vec<_> = (0..3).map(|seed| scope.spawn(move || bring(seed))).collect();
        let sweeping = scope.spawn(sweep);
        for thread in bringing {
            let (theirs, count) = thread.join().unwrap();
            sum.add(theirs);
            received += count;
        }
        stop.store(true, Relaxed);
        sum.add(sweeping.join().unwrap());
    });
    let mut at = now();
    for _ in 0..400 {
        at += Duration::from_secs(5);
        sum.take(bench.sweep(at));
    }
    bench.assert_empty(&sum, received);
}

#[test]
fn several_threads_leave_nothing_inside_when_flows_end_at_once() {
    several_threads(AT_ONCE, 5_000, Duration::from_micros(10));
}

#[test]
fn several_threads_leave_nothing_inside() {
    several_threads(FLOWS, 5_000, Duration::from_millis(2));
}

#[test]
fn what_spans_beyond_the_cap_say_takes_no_room() {
    let bench = Bench::new(FLOWS, LIMITS);
    for block in 0..12_u64 {
        let span = |n| Raw {
            trace: 1,
            id: 1 + block * 1000 + n,
            parent: 7,
            kind: 1,
            service: "gateway",
            value: Some(17),
            ..Raw::default()
        };
        let spans: Vec<Raw> = (0..1000).map(span).collect();
        bench.ingest(&spans, Duration::from_secs(1));
    }
    assert_eq!(bench.aggregator.population().events, 10_000, "events_per_instance");
    assert_eq!(bench.joints(1), (20_000, 2, 2), "one for each of the two flows whose key it is");
}

/// A link or value that was taken back is one no longer.
#[test]
fn joints_that_were_taken_back_leave_their_room() {
    let limits = Limits { traces_per_instance: 2, links_per_trace: 10, ..LIMITS };
    let bench = Bench::new(FLOWS, limits);
    let span = |trace, id| Raw { trace, id, parent: 7, kind: 5, service: "gateway", ..Raw::default() };
    let at = Duration::from_secs(1);
    for trace in 1..=3 {
        for id in 1..=10 {
            bench.ingest(&[Raw { value: Some(17), ..span(trace, id) }], at);
        }
    }
    let linked = Raw { links: vec![(9, 1)], ..span(3, 11) };
    let refused = bench.ingest(&[linked], at).joints_over_limit;
    let (_, said, distinct) = bench.joints(3);
    assert_eq!((said, refused), (distinct, 0), "one link of ten");
}

/// How many keys are in the calendars.
fn entries(aggregator: &Aggregator) -> usize {
    aggregator.timers.iter().map(|timers| lock(timers).instances.len()).sum()
}

#[test]
fn repeated_events_leave_no_more_entries_in_the_calendar_than_one() {
    let wait = Duration::from_secs(10);
    let timers = FlowTimers {
        quiet_period: wait,
        linger: wait,
        max_age: Duration::from_secs(600),
        parent_wait: wait,
        async_wait: wait,
        tombstone: wait,
    };
    let limits =
        CatalogLimits { pushed_flows: 1, events_per_instance: 100, fold_from: 0, explained_events: 10_000 };
    let catalog = Catalog::new(Vec::new(), timers, false, limits);
    let flow = catalog.pushed("order").unwrap();
    let aggregator = Aggregator::new(Limits {
        budget: Budget { bytes: u64::MAX, instances: 10 },
        tombstones: 10,
        remembered: 0,
        traces_per_instance: 10,
        links_per_trace: 10,
    });
    let stage: Arc<str> = Arc::from("placed");
    let push = PushFacts {
        flow: flow.id,
        home: flow.home,
        earlier: Box::default(),
        view: View { stage: Arc::clone(&stage), start: false, ends: 0, error: None, labels: Box::default() },
        labels: Box::default(),
        life_span: Some(Duration::from_secs(86_400)),
        time_to_live: wait,
    };
    let facts = Facts {
        origin: 1,
        service: stage,
        name: Arc::from(""),
        threshold: 0,
        matches: Matches::default(),
        matched_before: Box::default(),
        views: Box::default(),
        push: Some(Box::new(push)),
        held: Default::default(),
    };
    let time = EventTime::from_unix_nanoseconds(1);
    let event = Event {
        end: time,
        start: time,
        span: SpanId::NONE,
        parent: SpanId::NONE,
        kind: Kind::Push,
        flags: Flags::default(),
        facts: Arc::new(facts),
        member: 0,
    };
    let incoming = Incoming::new(Key::Named { flow: flow.id, id: Arc::from("1") }, event);
    for second in 0..1000 {
        let now = Arrival::since_origin(Duration::from_secs(second));
        aggregator.ingest([incoming.clone()].into_iter().collect(), now, &catalog);
        aggregator.sweep(now, 100, &catalog);
    }
    assert_eq!(entries(&aggregator), 1);
}

#[test]
fn the_room_of_a_burst_is_given_back_when_its_tombstones_have_expired() {
    let bench = Bench::new("[]", LIMITS);
    let root = |trace| Raw { trace, id: 1, service: "gateway", ..Raw::default() };
    let burst: Vec<Raw> = (0..200_000).map(root).collect();
    bench.ingest(&burst, Duration::from_secs(1));
    let full = bench.aggregator.slots.capacity();
    assert!(full >= burst.len());
    assert_eq!(bench.sweep(Duration::from_secs(60)).finished.len(), burst.len());
    assert_eq!(bench.aggregator.slots.capacity(), full, "their tombstones are there");
    bench.sweep(Duration::from_secs(600));
    bench.sweep(Duration::from_secs(620));
    assert!(bench.aggregator.slots.capacity() < full / 10);
    bench.ingest(&[root(1_000_000)], Duration::from_secs(630));
    assert_eq!(bench.sweep(Duration::from_secs(700)).finished.len(), 1);
}

/// Rules that bring a span while they are asked, once for each.
struct Meddling<'b> {
    bench: &'b Bench,
    spans: std::cell::RefCell<Vec<Raw>>,
    now: Duration,
    sum: std::cell::RefCell<Sum>,
}

impl Rules for Meddling<'_> {
    fn flow(&self, id: FlowId) -> Arc<Flow> {
        self.bench.catalog.flow(id)
    }

    fn unmatched(&self) -> &Arc<Flow> {
        let next = self.spans.borrow_mut().pop();
        if let Some(span) = next {
            self.sum.borrow_mut().take(self.bench.ingest(&[span], self.now));
        }
        self.bench.catalog.unmatched()
    }

    fn spans_may_match(&self) -> bool {
        self.bench.catalog.spans_may_match()
    }

    fn events_per_instance(&self) -> usize {
        self.bench.catalog.events_per_instance()
    }

    fn fold_from(&self) -> usize {
        self.bench.catalog.fold_from()
    }

    fn explained_events(&self) -> usize {
        self.bench.catalog.explained_events()
    }

    fn generation(&self) -> u32 {
        self.bench.catalog.generation()
    }
}

#[test]
fn what_comes_while_a_large_instance_is_looked_at_is_part_of_it() {
    const AWAITED: &str = r#"
- {name: orders, match: 'resource.attributes["service.name"] == "gateway"', expect: [never], quiet_period: 1s, max_age: 60s}
"#;
    // Then it is looked at under its lock, where these rules would wait for themselves.
    const LOOKS_APART: u64 = 3;
    for meanwhile in 0..=LOOKS_APART {
        let bench = Bench::new(AWAITED, LIMITS);
        let raw = |id: u64| Raw { trace: 1, id, kind: 2, service: "gateway", ..Raw::default() };
        let mut sum = Sum::default();
        sum.take(bench.ingest(&[raw(1), raw(2), raw(3), raw(4)], Duration::ZERO));
        let second = Duration::from_secs(2);
        let rules = Meddling {
            bench: &bench,
            spans: (0..meanwhile).map(|number| raw(10 + number)).collect::<Vec<_>>().into(),
            now: Duration::from_millis(1),
            sum: std::cell::RefCell::default(),
        };
        let effects = bench.aggregator.sweep(Arrival::since_origin(second), 1024, &rules).0;
        sum.take(effects);
        assert!(rules.spans.take().is_empty(), "all have come");
        sum.add(rules.sum.take());
        let population = bench.aggregator.population();
        assert_eq!((population.open, population.stubs, population.events), (1, 1, 4 + meanwhile));
        sum.take(bench.sweep(Duration::from_secs(61)));
        bench.sweep(Duration::from_secs(10_000));
        bench.assert_empty(&sum, 4 + meanwhile);
    }
}

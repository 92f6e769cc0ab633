//! The world of a story: flows as a config writes them, spans and pushes as senders send them, and invented time. What
//! happened is compared as lines such as `checkout ok end 62s at 72s`: flow, outcome, reason, what goes into the
//! histogram, and the second in which the instance was closed.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "not every story needs all of it; one that meets None or Err has failed"
)]

use std::fmt::Write;
use std::time::Duration;

use latency_aggregator::aggregator::{Aggregator, Budget, Effects, Late, Limits};
use latency_aggregator::domain::catalog::{self, Catalog};
use latency_aggregator::domain::event::{Flags, Incoming};
use latency_aggregator::domain::result::{Closed, Finished, Latency};
use latency_aggregator::domain::time::{Arrival, EventTime, Now};
use latency_aggregator::mapping::admission::TimeLimits;
use latency_aggregator::mapping::facts::SpanRules;
use latency_aggregator::mapping::flows::{Defaults, FlowConfig, compile};
use latency_aggregator::mapping::otlp::{SpanFields, Text, TraceVisitor, Value};
use latency_aggregator::mapping::push::{PushLimits, map_push};
use latency_aggregator::mapping::spans::SpanMapper;

/// Second 0 of a story, on the sender's clock.
pub const NOON: u64 = 1_750_000_000_000_000_000;
/// How long the process has been running then, unless the story is about that.
pub const UPTIME: Duration = Duration::from_secs(7200);
pub const TIMES: TimeLimits =
    TimeLimits { max_future: Duration::from_secs(300), max_past: Duration::from_secs(24 * 3600) };

pub struct World {
    pub catalog: Catalog,
    pub rules: SpanRules,
    pub aggregator: Aggregator,
    pub uptime: Duration,
    pub now: Duration,
    /// Each with the second of its closing.
    pub closed: Vec<(f64, Closed)>,
    /// Spans of no flow, and how many of them were ignored, for each such trace.
    pub unmatched: Vec<(u64, u64)>,
    /// Spans of divided traces: those of instances, and those of none.
    pub divided: (u64, u64),
    /// Of these, spans that ended before they started.
    pub divided_skewed: u64,
    pub received: u64,
    /// All effects so far, without what finished.
    pub total: Effects,
}

#[derive(Clone, Copy)]
pub struct Caps {
    pub instances: usize,
    pub events_per_instance: usize,
    pub fold_from: usize,
    pub tombstones: usize,
    pub traces_per_instance: usize,
    pub links_per_trace: usize,
}

pub const NO_CAPS: Caps = Caps {
    instances: 1_000_000,
    events_per_instance: 10_000,
    fold_from: 0,
    tombstones: 1_000_000,
    traces_per_instance: 100,
    links_per_trace: 100,
};

impl World {
    /// With the flows of a config, as YAML; no flows: only the built-in one.
    pub fn with(flows: &str) -> Self {
        Self::new(flows, &[], NO_CAPS)
    }

    pub fn new(flows: &str, ignore: &[&str], caps: Caps) -> Self {
        Self::of(flows, ignore, caps, true)
    }

    /// `trace_flow`: whether the built-in flow takes what no other takes.
    pub fn of(flows: &str, ignore: &[&str], caps: Caps, trace_flow: bool) -> Self {
        let configs: Vec<FlowConfig> =
            if flows.is_empty() { Vec::new() } else { serde_saphyr::from_str(flows).unwrap() };
        let defaults = Defaults::default();
        let ignore: Vec<String> = ignore.iter().map(|condition| condition.to_string()).collect();
        let compiled = compile(&configs, &defaults, &ignore, trace_flow).unwrap();
        let (events_per_instance, fold_from) = (caps.events_per_instance, caps.fold_from);
        let limits = catalog::Limits {
            pushed_flows: 10,
            events_per_instance,
            fold_from,
            explained_events: usize::MAX,
        };
        World {
            catalog: Catalog::new(compiled.flows, defaults.timers(), compiled.rules.may_match(), limits),
            rules: compiled.rules,
            aggregator: Aggregator::new(Limits {
                budget: Budget { bytes: u64::MAX, instances: caps.instances as u64 },
                tombstones: caps.tombstones,
                remembered: 100_000,
                traces_per_instance: caps.traces_per_instance,
                links_per_trace: caps.links_per_trace,
            }),
            uptime: UPTIME,
            now: Duration::ZERO,
            closed: Vec::new(),
            unmatched: Vec::new(),
            divided: (0, 0),
            divided_skewed: 0,
            received: 0,
            total: Effects::default(),
        }
    }

    /// As if the process had started at second 0.
    pub fn just_started(flows: &str) -> Self {
        World { uptime: Duration::ZERO, ..Self::with(flows) }
    }

    pub fn now(&self) -> Now {
        Now {
            arrival: Arrival::since_origin(self.uptime + self.now),
            wall: EventTime::from_unix_nanoseconds(NOON).plus(self.now),
        }
    }

    /// Lets time pass, sweeping on the way.
    pub fn at(&mut self, second: f64) -> &mut Self {
        let target = Duration::from_secs_f64(second);
        assert!(target >= self.now, "time does not go back to {second}");
        while self.now < target {
            self.now = target.min(self.now + Duration::from_millis(500));
            let (effects, more) = self.aggregator.sweep(self.now().arrival, 1_000_000, &self.catalog);
            assert!(!more);
            self.take(effects);
        }
        self
    }

    /// The same in larger steps, for stories in which it does not matter when exactly something ends.
    pub fn wait(&mut self, second: u64) -> &mut Self {
        while self.now.as_secs() < second {
            self.now += Duration::from_secs(4);
            let (effects, _) = self.aggregator.sweep(self.now().arrival, 1_000_000, &self.catalog);
            self.take(effects);
        }
        self
    }

    /// One request with these spans, of which none is refused.
    pub fn receive(&mut self, spans: &[Span]) -> &mut Self {
        let mut mapper = SpanMapper::new(&self.rules, TIMES, self.now());
        for span in spans {
            span.visit(&mut mapper);
        }
        let mapped = mapper.finish();
        assert_eq!(mapped.rejected, []);
        self.ingest(mapped.events.into_incoming().collect())
    }

    /// One request with these pushes.
    pub fn push(&mut self, pushes: &[serde_json::Value]) -> &mut Self {
        let limits = PushLimits { time: TIMES, value_bytes: 256 };
        let map = |push: &serde_json::Value| {
            let text = push.to_string();
            let push = serde_json::from_str(&text).unwrap();
            map_push(&push, &self.catalog, &limits, self.now()).unwrap().incoming
        };
        let events = pushes.iter().map(map).collect();
        self.ingest(events)
    }

    pub fn ingest(&mut self, events: Vec<Incoming>) -> &mut Self {
        let home = |incoming: &&Incoming| !incoming.event.flags.has(Flags::COPY);
        self.received += events.iter().filter(home).count() as u64;
        let effects = self.aggregator.ingest(events.into_iter().collect(), self.now().arrival, &self.catalog);
        self.take(effects);
        self
    }

    pub fn shut_down(&mut self) -> &mut Self {
        let effects = self.aggregator.close_all(self.now().arrival, &self.catalog);
        self.take(effects);
        self
    }

    pub fn take(&mut self, effects: Effects) {
        let total = &mut self.total;
        total.opened += effects.opened;
        total.new += effects.new;
        total.after_folding += effects.after_folding;
        total.duplicates += effects.duplicates;
        total.conflicts += effects.conflicts;
        total.over_limit += effects.over_limit;
        effects.overdue_change.each().for_each(|(flow, by)| total.overdue_change.add(flow, by));
        total.unmatched += effects.unmatched;
        total.tombstones_evicted += effects.tombstones_evicted;
        total.late.extend(effects.late);
        total.merged += effects.merged;
        total.joints_over_limit += effects.joints_over_limit;
        for finished in effects.finished {
            match finished {
                Finished::Closed(closed) => self.closed.push((self.now.as_secs_f64(), *closed)),
                Finished::Unmatched { events, ignored } => self.unmatched.push((events, ignored)),
                Finished::Divided { events, unmatched, ignored, skewed } => {
                    self.divided_skewed += skewed;
                    self.divided.0 += events + ignored;
                    self.divided.1 += unmatched;
                }
            }
        }
        let population = self.aggregator.population();
        let ended: u64 = self
            .closed
            .iter()
            .map(|(_, closed)| closed.notes.events + closed.notes.ignored + closed.notes.foreign)
            .chain(self.unmatched.iter().map(|(events, ignored)| events + ignored))
            .sum();
        let total = &self.total;
        let counted = population.events
            + ended
            + self.divided.0
            + self.divided.1
            + total.unmatched
            + total.late.len() as u64
            + total.duplicates
            + total.over_limit;
        assert_eq!(self.received, counted, "events are counted once");
        let instances = (self.closed.len() + self.unmatched.len()) as u64 + total.merged;
        assert_eq!(total.opened, population.open + instances, "instances end once");
    }

    /// The only instance that has been closed.
    #[track_caller]
    pub fn only(&self) -> &Closed {
        assert_eq!(self.closed.len(), 1, "{:?}", self.story());
        &self.closed[0].1
    }

    #[track_caller]
    pub fn label(&self, name: &str) -> &str {
        let labels = &self.only().labels;
        &labels.iter().find(|(label, _)| **label == *name).unwrap().1
    }

    /// Late events as (stage, seconds late, seconds of extension); only the stage when no more is remembered.
    pub fn late(&self) -> Vec<String> {
        let line = |late: &Late| {
            let known = late.lateness.map(|known| {
                format!(" {}s late, {}s longer", known.late.as_secs_f64(), known.extension.as_secs_f64())
            });
            format!("{}{}", late.stage, known.unwrap_or_default())
        };
        self.total.late.iter().map(line).collect()
    }

    pub fn story(&self) -> Vec<String> {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let line = |(at, closed): &(f64, Closed)| {
            let latency = match closed.latency {
                Latency::Finite(nanoseconds) => format!("{}s", seconds(nanoseconds)),
                Latency::Infinite(nanoseconds) => format!("+Inf({}s)", seconds(nanoseconds)),
                Latency::Unobserved => "unobserved".to_owned(),
            };
            let (flow, outcome, reason) =
                (&closed.flow.name, closed.outcome.as_str(), closed.reason.as_str());
            format!("{flow} {outcome} {reason} {latency} at {at}s")
        };
        self.closed.iter().map(line).collect()
    }

    /// Stages as `name inside offset`.
    pub fn stages(&self) -> String {
        let mut line = String::new();
        for stage in &self.only().stages {
            let inside = stage.inside.map_or("-".to_owned(), |inside| (inside as f64 / 1e9).to_string());
            write!(
                line,
                "{} {inside} {}, ",
                stage.name,
                stage.offset.map_or(f64::NAN, |offset| offset as f64 / 1e9)
            )
            .unwrap();
        }
        line.trim_end_matches(", ").to_owned()
    }
}

/// The seam of all stories: what has been closed so far, in order.
#[track_caller]
pub fn check(world: &World, expected: &[&str]) {
    assert_eq!(world.story(), expected);
}

/// A span as an SDK exports it; by default INTERNAL, without parent, of trace 1.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: u32,
    pub id: u64,
    pub parent: u64,
    pub service: &'static str,
    pub name: &'static str,
    pub kind: i32,
    pub from: f64,
    pub to: f64,
    pub flags: u32,
    pub trace_state: &'static str,
    pub failed: bool,
    pub attributes: Vec<(&'static str, &'static str)>,
    /// Trace and span.
    pub links: Vec<(u32, u64)>,
}

pub fn span(service: &'static str, id: u64, from: f64, to: f64) -> Span {
    Span {
        trace: 1,
        id,
        parent: 0,
        service,
        name: "work",
        kind: 1,
        from,
        to,
        flags: 0,
        trace_state: "",
        failed: false,
        attributes: Vec::new(),
        links: Vec::new(),
    }
}

impl Span {
    pub fn under(self, parent: u64) -> Self {
        Span { parent, ..self }
    }

    pub fn server(self) -> Self {
        Span { kind: 2, ..self }
    }

    pub fn client(self) -> Self {
        Span { kind: 3, ..self }
    }

    pub fn producer(self) -> Self {
        Span { kind: 4, ..self }
    }

    pub fn consumer(self) -> Self {
        Span { kind: 5, ..self }
    }

    /// `Span.flags` says that the parent is in the same process.
    pub fn local(self) -> Self {
        Span { flags: 0x100, ..self }
    }

    pub fn failed(self) -> Self {
        Span { failed: true, ..self }
    }

    pub fn named(self, name: &'static str) -> Self {
        Span { name, ..self }
    }

    pub fn of_trace(self, trace: u32) -> Self {
        Span { trace, ..self }
    }

    pub fn saying(mut self, key: &'static str, value: &'static str) -> Self {
        self.attributes.push((key, value));
        self
    }

    pub fn sampled(self, trace_state: &'static str) -> Self {
        Span { trace_state, ..self }
    }

    pub fn linked_to(mut self, trace: u32, span: u64) -> Self {
        self.links.push((trace, span));
        self
    }

    pub fn visit(&self, visitor: &mut impl TraceVisitor) {
        let time = |second: f64| NOON + (second * 1e9) as u64;
        let trace = trace_id(self.trace);
        let (id, parent) = (self.id.to_be_bytes(), self.parent.to_be_bytes());
        visitor.resource();
        visitor.resource_attribute("service.name".into(), Value::Str(self.service.into()));
        visitor.scope(Text::default(), Text::default());
        for (key, value) in &self.attributes {
            visitor.span_attribute((*key).into(), Value::Str((*value).into()));
        }
        for (trace, span) in &self.links {
            visitor.span_link(&trace_id(*trace), &span.to_be_bytes());
        }
        visitor.span(SpanFields {
            trace_id: &trace,
            span_id: &id,
            parent_span_id: if self.parent == 0 { &[] } else { &parent },
            name: self.name.into(),
            kind: self.kind,
            flags: self.flags,
            trace_state: self.trace_state.into(),
            start_time_unix_nano: time(self.from),
            end_time_unix_nano: time(self.to),
            status_code: if self.failed { 2 } else { 0 },
            ..SpanFields::default()
        });
    }
}

pub fn trace_id(trace: u32) -> [u8; 16] {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&trace.to_be_bytes());
    id
}

pub fn hexadecimal(trace: u32) -> String {
    trace_id(trace).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `created_at` of a moment of the story.
pub fn at(second: f64) -> String {
    let nanoseconds = i128::from(NOON) + (second * 1e9) as i128;
    jiff::Timestamp::from_nanosecond(nanoseconds).unwrap().to_string()
}

/// The critical path as `stage kind seconds`.
pub fn path(closed: &Closed) -> Vec<String> {
    let line = |share: &latency_aggregator::domain::result::PathShare| {
        format!("{} {} {}", share.stage, share.kind.as_str(), share.nanoseconds as f64 / 1e9)
    };
    closed.path.iter().map(line).collect()
}

/// Transitions as `from to seconds`.
pub fn transitions(closed: &Closed) -> Vec<String> {
    let line = |way: &latency_aggregator::domain::result::Transition| {
        format!("{} {} {}", way.from, way.to, way.nanoseconds as f64 / 1e9)
    };
    closed.transitions.iter().map(line).collect()
}

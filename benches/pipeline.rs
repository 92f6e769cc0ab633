//! What the steps between a request and a result cost: reading the wire format, mapping spans by the rules, taking events
//! in, ending instances, finding the critical path, and joining traces.
//!
//! `cargo bench --bench pipeline`. With `COUNT=name` it runs the benchmark of that name once, for a tool that counts
//! instructions of the function [`measured`]: see `.ci/instructions.py`. With `HOLDS=1` it shows how long a sweep takes for one
//! instance, and how long others wait for it.

#![allow(missing_docs, reason = "criterion's macros write public functions")]
#![allow(clippy::disallowed_types, reason = "nothing here pauses time")]
#![allow(clippy::print_stdout, reason = "a benchmark says what it found")]
#![allow(clippy::unwrap_used, reason = "a benchmark that meets None or Err has failed")]

use std::any::Any;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use latency_aggregator::aggregator::{Aggregator, Budget, Limits};
use latency_aggregator::domain::batch::Batch;
use latency_aggregator::domain::catalog::{self, Catalog};
use latency_aggregator::domain::critical_path::{Timed, critical_path};
use latency_aggregator::domain::time::{Arrival, EventTime, Now};
use latency_aggregator::mapping::admission::TimeLimits;
use latency_aggregator::mapping::facts::SpanRules;
use latency_aggregator::mapping::flows::{Defaults, FlowConfig, compile};
use latency_aggregator::mapping::otlp::wire;
use latency_aggregator::mapping::spans::SpanMapper;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When all spans start.
const NOON: u64 = 1_750_000_000_000_000_000;

const ORDERS: &str = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', trace_id]
  end: {stage: shipping}
"#;

/// One benchmark: what it is made ready with, and what is measured.
struct Case {
    name: String,
    /// What one round processes.
    elements: u64,
    prepare: Box<dyn Fn() -> Round>,
}

/// What is measured. It returns all that it worked on, so that freeing that is not measured.
type Round = Box<dyn FnOnce() -> Box<dyn Any>>;

fn case<T: 'static, U: 'static>(
    name: impl Into<String>,
    elements: u64,
    prepare: impl Fn() -> T + 'static,
    run: impl Fn(T) -> U + Copy + 'static,
) -> Case {
    let prepare = move || {
        let ready = prepare();
        Box::new(move || Box::new(run(ready)) as Box<dyn Any>) as Round
    };
    Case { name: name.into(), elements, prepare: Box::new(prepare) }
}

/// All that is measured happens in here.
#[inline(never)]
fn measured(round: Round) -> Box<dyn Any> {
    round()
}

/// The program between a request and the results, without metrics.
struct World {
    catalog: Catalog,
    rules: SpanRules,
    aggregator: Aggregator,
}

fn world(flows: &str) -> World {
    let configs: Vec<FlowConfig> =
        if flows.is_empty() { Vec::new() } else { serde_saphyr::from_str(flows).unwrap() };
    let defaults = Defaults::default();
    let compiled = compile(&configs, &defaults, &[], true).unwrap();
    let limits = catalog::Limits {
        pushed_flows: 10,
        events_per_instance: 10_000,
        fold_from: 64,
        explained_events: 1000,
    };
    let may_match = compiled.rules.may_match();
    World {
        catalog: Catalog::new(compiled.flows, defaults.timers(), may_match, limits),
        rules: compiled.rules,
        aggregator: Aggregator::new(Limits {
            budget: Budget { bytes: u64::MAX, instances: 10_000_000 },
            tombstones: 1_000_000,
            remembered: 1_000_000,
            traces_per_instance: 256,
            links_per_trace: 1024,
        }),
    }
}

fn at(seconds: u64) -> Now {
    let arrival = Arrival::since_origin(Duration::from_secs(seconds));
    Now { arrival, wall: EventTime::from_unix_nanoseconds(NOON) }
}

impl World {
    fn map(&self, request: &[u8]) -> Batch {
        let limits =
            TimeLimits { max_future: Duration::from_secs(300), max_past: Duration::from_secs(24 * 3600) };
        let mut mapper = SpanMapper::new(&self.rules, limits, at(1));
        wire::walk(request, &mut mapper).unwrap();
        mapper.finish().events
    }

    fn take(&self, events: Batch) {
        black_box(self.aggregator.ingest(events, at(1).arrival, &self.catalog));
    }

    /// Until nothing is open.
    fn end(&self) {
        let mut second = 1;
        while self.aggregator.population().open > 0 {
            second += 1;
            while self.aggregator.sweep(at(second).arrival, 1024, &self.catalog).1 {}
        }
    }
}

/// A span of a trace; what the benchmarks do not name is as in a request of a web service.
#[derive(Clone, Default)]
struct Made {
    trace: u32,
    id: u64,
    parent: u64,
    kind: i32,
    value: Option<u32>,
    links: Vec<(u32, u64)>,
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn trace_id(trace: u32) -> Vec<u8> {
    let mut id = vec![7; 16];
    // Spread, as real ids are.
    id[..8].copy_from_slice(&u64::from(trace).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..12].copy_from_slice(&trace.to_be_bytes());
    id
}

/// A request with these spans of one service.
fn request(service: &str, spans: &[Made]) -> Vec<u8> {
    let id = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    let span = |made: &Made| {
        let mut attributes = vec![
            text("http.request.method", "POST"),
            text("http.route", "/orders/{id}/items"),
            text("server.address", "orders.shop.svc.cluster.local"),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
            text("url.path", "/orders/4711/items"),
        ];
        attributes.extend(made.value.map(|value| text("order.id", &value.to_string())));
        let link = |(trace, span): &(u32, u64)| Link {
            trace_id: trace_id(*trace),
            span_id: id(*span),
            ..Link::default()
        };
        Span {
            trace_id: trace_id(made.trace),
            span_id: id(made.id),
            parent_span_id: id(made.parent),
            name: "POST /orders".to_owned(),
            kind: made.kind,
            start_time_unix_nano: NOON + made.id * 1_000_000,
            end_time_unix_nano: NOON + 1_000_000_000 - made.id * 1_000_000,
            attributes,
            links: made.links.iter().map(link).collect(),
            ..Span::default()
        }
    };
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans: spans.iter().map(span).collect(), ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// Traces of eight spans: a root and what it calls.
fn traces(count: u32) -> Vec<Made> {
    let span = |n: u32| Made {
        trace: n / 8,
        id: u64::from(n % 8) + 1,
        parent: u64::from(!n.is_multiple_of(8)),
        kind: if n.is_multiple_of(8) { 2 } else { 3 },
        ..Made::default()
    };
    (0..count * 8).map(span).collect()
}

/// Twenty flows, of which the last takes the spans.
fn twenty_flows() -> String {
    let flow = |n: u32| {
        format!(
            "- {{name: flow{n}, match: 'resource.attributes[\"service.name\"] == \"service{n}\" and span.attributes[\"http.route\"] == \"/{n}\"'}}\n"
        )
    };
    let last = r#"- {name: orders, match: 'span.attributes["http.request.method"] == "POST"'}"#;
    (1..20).map(flow).collect::<String>() + last
}

/// Nothing is done with what is read.
#[derive(Default)]
struct Ignore(u64);

impl latency_aggregator::mapping::otlp::TraceVisitor for Ignore {
    fn resource(&mut self) {}
    fn resource_attribute(
        &mut self,
        _: latency_aggregator::mapping::otlp::Text<'_>,
        _: latency_aggregator::mapping::otlp::Value<'_>,
    ) {
    }
    fn scope(
        &mut self,
        _: latency_aggregator::mapping::otlp::Text<'_>,
        _: latency_aggregator::mapping::otlp::Text<'_>,
    ) {
    }
    fn span_attribute(
        &mut self,
        _: latency_aggregator::mapping::otlp::Text<'_>,
        _: latency_aggregator::mapping::otlp::Value<'_>,
    ) {
    }
    fn span_link(&mut self, _: &[u8], _: &[u8]) {}
    fn span(&mut self, span: latency_aggregator::mapping::otlp::SpanFields<'_>) {
        self.0 += span.start_time_unix_nano;
    }
}

fn steps() -> Vec<Case> {
    let mut cases = Vec::new();
    for spans in [8_u32, 96, 1000] {
        let body = move || request("gateway", &traces(spans / 8));
        let count = u64::from(spans / 8 * 8);
        cases.push(case(format!("walk/{spans}"), count, body, |body| {
            let mut ignore = Ignore::default();
            wire::walk(&body, &mut ignore).unwrap();
            (ignore.0, body)
        }));
        for (flows, config) in [("1 flow", ORDERS.to_owned()), ("20 flows", twenty_flows())] {
            let ready = move || {
                let world = world(&config);
                // Looks that come again are known.
                black_box(world.map(&body()));
                (world, body())
            };
            cases.push(case(format!("map/{flows}/{spans}"), count, ready, |(world, body)| {
                let mapped = world.map(&body);
                (mapped, world, body)
            }));
        }
    }
    for open in [1000_u32, 10_000, 100_000] {
        let ready = move || {
            let world = world("");
            for spans in traces(open).chunks(1000) {
                world.take(world.map(&request("gateway", spans)));
            }
            let mut more = traces(125);
            more.iter_mut().for_each(|span| span.trace += open);
            let more = world.map(&request("gateway", &more));
            (world, more)
        };
        cases.push(case(format!("ingest/{open} open"), 1000, ready, |(world, more)| {
            world.take(more);
            world
        }));
    }
    for count in [100_u32, 1000, 10_000] {
        let ready = move || {
            let world = world("");
            for spans in traces(count).chunks(1000) {
                world.take(world.map(&request("gateway", spans)));
            }
            world
        };
        cases.push(case(format!("close/{count} of 8 spans"), u64::from(count), ready, |world| {
            world.end();
            world
        }));
    }
    for events in [10_u64, 100, 1000, 10_000] {
        let ready = move || {
            let at = |n: u64| EventTime::from_unix_nanoseconds(NOON + n * 1000);
            let parent = |n: u64| (n > 0).then(|| (n as usize - 1) / 2);
            let timed = |n: u64| Timed::inside_of(parent(n), at(n), at(2 * events - n));
            (0..events).map(timed).collect::<Vec<_>>()
        };
        cases.push(case(format!("critical path/{events}"), events, ready, |timed| {
            let path = critical_path(&timed, 0, timed[0].start, timed[0].end);
            (path, timed)
        }));
    }
    cases
}

/// Traces that are joined, from their first span to their end; all of them come at once.
fn joined() -> Vec<Case> {
    let consumer = |trace: u32| Made { trace, id: 1, kind: 5, ..Made::default() };
    let chain = move |length: u32| {
        let link = move |n: u32| Made {
            links: n.checked_sub(1).map(|to| (to, 1)).into_iter().collect(),
            ..consumer(n)
        };
        (0..length).map(link).collect::<Vec<_>>()
    };
    let batch = move |heads: u32| {
        let open = |n: u32| Made { trace: 1 + n, id: 2, parent: 1, kind: 4, ..Made::default() };
        let root = |n: u32| Made { trace: 1 + n, id: 1, kind: 2, ..Made::default() };
        let tail = Made { links: (0..heads).map(|n| (1 + n, 2)).collect(), ..consumer(0) };
        let work = (2..1000).map(|id| Made { id, parent: 1, kind: 3, ..Made::default() });
        (0..heads).flat_map(|n| [open(n), root(n)]).chain([tail]).chain(work).collect::<Vec<_>>()
    };
    let values = move |values: u32, traces: u32| {
        let span = move |n: u32| Made { kind: 2, value: Some(n % values), ..consumer(n) };
        (0..traces).map(span).collect::<Vec<_>>()
    };
    let divided = move |values: u32| {
        let own = move |n: u32| Made { id: 1 + u64::from(n), value: Some(n % values), ..consumer(0) };
        (0..values * 10).map(own).collect::<Vec<_>>()
    };
    let mut shapes: Vec<(String, &'static str, Vec<Made>)> = Vec::new();
    for size in [10, 100, 1000] {
        shapes.push((format!("chain/{size}"), "", chain(size)));
        shapes.push((format!("batch/{}", size / 5), "", batch(size / 5)));
        shapes.push((format!("traces of one value/{}", size / 5), ORDERS, values(1, size / 5)));
        shapes.push((format!("values of 10 traces/{size}"), ORDERS, values(size, size * 10)));
        shapes.push((format!("values of one trace/{size}"), ORDERS, divided(size)));
    }
    let to_case = |(name, flows, spans): (String, &'static str, Vec<Made>)| {
        let count = spans.len() as u64;
        let ready = move || {
            let world = world(flows);
            let events: Vec<_> =
                spans.chunks(500).map(|spans| world.map(&request("gateway", spans))).collect();
            (world, events)
        };
        case(format!("joined/{name}"), count, ready, |(world, events)| {
            events.into_iter().for_each(|events| world.take(events));
            world.end();
            world
        })
    };
    shapes.into_iter().map(to_case).collect()
}

/// How long the sweep takes for one instance, with closing it, and for how long others wait for it, who have something
/// for an instance behind the same lock. All instances are due at once, which is the worst case for the calendar.
fn holds() {
    println!("| open | spans each | swept: p50 us | p99 us | max us | others: p50 us | p99.9 us | max us |");
    println!("|---|---|---|---|---|---|---|---|");
    for (count, spans) in [(100_000, 8), (1_000_000, 8), (10_000, 100), (1000, 1000), (200, 10_000)] {
        let world = world("");
        for first in (0..count).step_by(1000) {
            let of_trace = |trace| {
                let root = move |id: u32| Made {
                    trace,
                    id: u64::from(id) + 1,
                    parent: u64::from(id > 0),
                    kind: 2,
                    ..Made::default()
                };
                (0..spans).map(root)
            };
            for part in (first..count.min(first + 1000)).flat_map(of_trace).collect::<Vec<_>>().chunks(1000) {
                world.take(world.map(&request("gateway", part)));
            }
        }
        let is_over = AtomicBool::new(false);
        let (swept, waited) = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                let bring = |number: u32| {
                    let new = Made { trace: u32::MAX - number, id: 1, kind: 2, ..Made::default() };
                    let new = world.map(&request("gateway", &[new]));
                    let began = Instant::now();
                    black_box(world.aggregator.ingest(new, at(59).arrival, &world.catalog));
                    began.elapsed()
                };
                (0..).take_while(|_| !is_over.load(Relaxed)).map(bring).collect::<Vec<_>>()
            });
            let (mut swept, mut closed) = (Vec::new(), 0);
            while closed < count {
                let began = Instant::now();
                let (effects, _) = world.aggregator.sweep(at(60).arrival, 1, &world.catalog);
                closed += black_box(effects).finished.len() as u32;
                swept.push(began.elapsed());
            }
            is_over.store(true, Relaxed);
            (swept, others.join().unwrap())
        });
        let [swept, waited] =
            [(swept, [0.5, 0.99, 1.0]), (waited, [0.5, 0.999, 1.0])].map(|(mut times, parts)| {
                times.sort_unstable();
                let part = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
                parts.map(|of| format!("{:.1}", part(of))).join(" | ")
            });
        println!("| {count} | {spans} | {swept} | {waited} |");
    }
}

fn main() {
    if std::env::var_os("HOLDS").is_some() {
        return holds();
    }
    let cases: Vec<Case> = steps().into_iter().chain(joined()).collect();
    if let Ok(name) = std::env::var("COUNT") {
        let case =
            cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no benchmark {name:?}"));
        return drop(measured((case.prepare)()));
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .configure_from_args();
    for case in &cases {
        let (group, size) = case.name.rsplit_once('/').unwrap_or((&case.name, ""));
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(case.elements));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(|| (case.prepare)(), measured, BatchSize::PerIteration);
        });
        group.finish();
    }
    criterion.final_summary();
}

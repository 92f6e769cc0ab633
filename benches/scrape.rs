//! What a scrape costs for each line of the text format, in each format, at 10,000 and 100,000 series; what it costs to
//! read 10,000 histograms, and how long those wait meanwhile whose instances are closed.
//!
//! `cargo bench --bench scrape`. With `COUNT=snapshot` or `COUNT=text` that is done once, for a tool that counts
//! instructions of the function [`measured`].

#![allow(missing_docs, reason = "criterion's macros write public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that meets None or Err has failed")]
#![allow(clippy::disallowed_types, reason = "nothing here pauses time")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{iter, thread};

use criterion::{BenchmarkId, Criterion, Throughput};
use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config;
use latency_aggregator::domain::ids::TraceId;
use latency_aggregator::domain::time::{Arrival, EventTime, Now};
use latency_aggregator::mapping::push::map_push;
use latency_aggregator::metrics::exposition::{self, Format};
use latency_aggregator::metrics::snapshot::{
    Exemplar, Family, HistogramValue, Kind, NativeHistogram, Series, Sum, Value,
};
use latency_aggregator::metrics::{Received, Transport};
use latency_aggregator::pipeline::Pipeline;
use serde_json::json;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bounds of a histogram; with +Inf, sum and count it has three lines more.
const BOUNDS: [f64; 19] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 7.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

const FORMATS: [(&str, &str); 3] = [
    ("text", ""),
    ("openmetrics", "application/openmetrics-text"),
    ("protobuf", "application/vnd.google.protobuf"),
];

/// About `series` series as Prometheus counts them, each line of a histogram one, nine tenths of them in histograms.
fn families(series: usize) -> Vec<Family> {
    let bounds: Arc<[f64]> = BOUNDS.into();
    let created = Some(EventTime::from_unix_nanoseconds(1_700_000_000_123_000_000));
    let labels = |place: usize| {
        [("flow", "checkout"), ("outcome", "ok"), ("tenant", &format!("tenant-{place}"))]
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    };
    let histogram = |place: usize| Series {
        labels: labels(place),
        created,
        value: Value::Histogram(HistogramValue {
            bounds: Arc::clone(&bounds),
            counts: (0..=BOUNDS.len() as u64).map(|bucket| bucket * place as u64).collect::<Vec<_>>().into(),
            sum: Sum::Nanoseconds(1_234_567_890_123),
            exemplars: vec![Exemplar {
                bucket: 7,
                trace: TraceId([0x4b; 16]),
                nanoseconds: 750_000_000,
                at: EventTime::from_unix_nanoseconds(1_700_000_000_000_000_000),
            }],
            shows_classic: true,
            native: Some(Box::new(NativeHistogram {
                schema: 3,
                zero_threshold: 1e-38,
                zero_count: 0,
                buckets: (-20..20).map(|index| (index, 100)).collect(),
            })),
        }),
    };
    let counter =
        |place: usize| Series { labels: labels(place), created, value: Value::Integer(place as u64) };
    let family = |name: &str, kind, series| Family { name: name.into(), help: "Help.".into(), kind, series };
    let lines = BOUNDS.len() + 3;
    vec![
        family(
            "flow_latency_seconds",
            Kind::Histogram,
            (0..series * 9 / 10 / lines).map(histogram).collect(),
        ),
        family("flow_closed_total", Kind::Counter, (0..series / 10).map(counter).collect()),
    ]
}

fn scrape(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(20);
    for series in [10_000, 100_000] {
        let families = families(series);
        let lines = exposition::text(&families).lines().count();
        group.throughput(Throughput::Elements(lines as u64));
        for (name, accept) in FORMATS {
            let format = Format::negotiate(accept);
            group.bench_with_input(BenchmarkId::new(name, series), &families, |bencher, families| {
                bencher.iter(|| format.render(black_box(families)));
            });
        }
    }
    group.finish();
}

const CONFIG: &str = "metrics: {series_per_family: 100000, values_per_label: 100000, zero_first: 0s}\n";

/// The program without its sockets, with invented time.
struct Program {
    pipeline: Arc<Pipeline>,
    second: u64,
}

impl Program {
    /// It has closed instances of a flow with so many values of a label: there are two histograms of each of them, by the
    /// flow and by the flow's own name.
    fn new(values: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, CONFIG).unwrap();
        let (pipeline, _) = build_pipeline(&config::load(Some(&path), &[]).unwrap()).unwrap();
        let mut program = Program { pipeline: Arc::new(pipeline), second: 0 };
        for first in (0..values).step_by(1000) {
            program.close(first..values.min(first + 1000));
        }
        program
    }

    fn now(&self) -> Now {
        let wall = EventTime::from_unix_nanoseconds(1_700_000_000_000_000_000 + self.second * 1_000_000_000);
        Now { arrival: Arrival::since_origin(Duration::from_secs(self.second)), wall }
    }

    /// Closes an instance for each of these values. Returns how long that took.
    fn close(&mut self, values: impl ExactSizeIterator<Item = usize>) -> Duration {
        let in_force = self.pipeline.in_force();
        let received = Received { events: values.len() as u64, ..Received::default() };
        let second = self.second;
        let push = |value| {
            let push = json!({
                "id": format!("{second}-{value}"), "name": "orders", "stage": "placed", "life_span": 1,
                "final": true, "label_values": {"customer": format!("customer-{value}")},
            })
            .to_string();
            let push = serde_json::from_str(&push).unwrap();
            map_push(&push, &in_force.catalog, &self.pipeline.limits, self.now()).unwrap().incoming
        };
        let events = values.map(push).collect();
        self.pipeline.ingest(&in_force, Transport::Push, &received, events, self.now()).unwrap();
        self.second += 100;
        let begin = Instant::now();
        while self.pipeline.sweep(self.now()) {}
        begin.elapsed()
    }
}

/// For how long an instance that is closed waits while 10,000 histograms are read again and again, and while they are not.
fn stalls() {
    let mut program = Program::new(5_000);
    let pipeline = Arc::clone(&program.pipeline);
    let later = Now { arrival: Arrival::since_origin(Duration::from_secs(1 << 32)), ..program.now() };
    for is_scraped in [false, true] {
        let is_over = AtomicBool::new(false);
        let mut waits: Vec<Duration> = thread::scope(|scope| {
            scope.spawn(|| {
                while is_scraped && !is_over.load(Relaxed) {
                    black_box(pipeline.snapshot(later));
                }
            });
            let waits = (0..50_000).map(|round| program.close(iter::once(round % 5_000))).collect();
            is_over.store(true, Relaxed);
            waits
        });
        waits.sort_unstable();
        let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), waits[waits.len() - 1]);
        let how = if is_scraped { "while it is scraped" } else { "without a scraper" };
        eprintln!("an instance closes in {p50:?}, 99 % in {p99:?}, 99.9 % in {p999:?}, all in {max:?} {how}");
    }
}

/// Instructions are counted in here.
#[inline(never)]
fn measured<T>(run: impl FnOnce() -> T) -> T {
    run()
}

fn snapshot(criterion: &mut Criterion) {
    let program = Program::new(5_000);
    let mut group = criterion.benchmark_group("snapshot");
    group.throughput(Throughput::Elements(10_000));
    let read = || program.pipeline.snapshot(program.now());
    group.bench_function("10000 histograms", |bencher| bencher.iter(read));
    group.finish();
}

/// What is counted of `COUNT=name`.
fn count(name: &str) {
    let program = Program::new(5_000);
    // Not the first time, in which labels are put in order and written.
    let families = program.pipeline.snapshot(program.now());
    let render = |accept| drop(black_box(Format::negotiate(accept).render(&families)));
    render("");
    match FORMATS.iter().find(|(format, _)| *format == name) {
        Some((_, accept)) => measured(|| render(accept)),
        None => measured(|| drop(black_box(program.pipeline.snapshot(program.now())))),
    }
    eprintln!("{} lines", exposition::text(&families).lines().count());
}

fn main() {
    if let Ok(name) = std::env::var("COUNT") {
        return count(&name);
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    scrape(&mut criterion);
    snapshot(&mut criterion);
    criterion.final_summary();
    stalls();
}

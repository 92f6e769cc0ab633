//! What a scrape costs for each line of the text format, in each format, at 10,000 and 100,000 series.

#![allow(missing_docs, reason = "criterion's macros write public functions")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use latency_aggregator::domain::time::EventTime;
use latency_aggregator::metrics::exposition::Format;
use latency_aggregator::metrics::snapshot::{
    Exemplar, Family, HistogramValue, Kind, NativeHistogram, Series, Sum, Value,
};

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
        vec![
            ("flow".into(), "checkout".into()),
            ("outcome".into(), "ok".into()),
            ("tenant".into(), format!("tenant-{place}").into()),
        ]
    };
    let histogram = |place: usize| Series {
        labels: labels(place),
        created,
        value: Value::Histogram(HistogramValue {
            bounds: Arc::clone(&bounds),
            counts: (0..=BOUNDS.len() as u64).map(|bucket| bucket * place as u64).collect(),
            sum: Sum::Nanoseconds(1_234_567_890_123),
            exemplars: vec![Exemplar {
                bucket: 7,
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
                nanoseconds: 750_000_000,
                at: EventTime::from_unix_nanoseconds(1_700_000_000_000_000_000),
            }],
            shows_classic: true,
            native: Some(NativeHistogram {
                schema: 3,
                zero_threshold: 1e-38,
                zero_count: 0,
                buckets: (-20..20).map(|index| (index, 100)).collect(),
            }),
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
        let text = Format::negotiate("").render(&families);
        let lines = text.split(|byte| *byte == b'\n').count();
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

criterion_group!(benches, scrape);
criterion_main!(benches);

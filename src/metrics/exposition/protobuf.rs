//! Prometheus' protobuf format: messages of `io.prometheus.client.MetricFamily`, each behind its length.
//!
//! The only format in which native histograms can be had.
//! <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>

use prost::Message;

use super::text::push_sum;
use crate::domain::labels::Label;
use crate::domain::time::EventTime;
use crate::metrics::snapshot::{Exemplar, Family, HistogramValue, Kind, NativeHistogram, Series, Sum, Value};

/// Writes all families.
pub(super) fn render(families: &[Family]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 * 1024);
    for family in families {
        let message = wire::MetricFamily {
            name: family.name.to_string(),
            help: family.help.to_string(),
            kind: match family.kind {
                Kind::Counter => wire::COUNTER,
                Kind::Gauge => wire::GAUGE,
                Kind::Histogram => wire::HISTOGRAM,
            },
            metric: family.series.iter().map(|series| metric(family.kind, series)).collect(),
        };
        // A Vec grows as needed.
        message.encode_length_delimited(&mut bytes).unwrap_or_default();
    }
    bytes
}

fn metric(kind: Kind, series: &Series) -> wire::Metric {
    let mut metric =
        wire::Metric { label: series.labels.iter().map(pair).collect(), ..wire::Metric::default() };
    let created = series.created.map(timestamp);
    let plain = |value: f64, metric: &mut wire::Metric| match kind {
        Kind::Counter => metric.counter = Some(wire::Counter { value: Some(value), created }),
        Kind::Gauge | Kind::Histogram => metric.gauge = Some(wire::Gauge { value: Some(value) }),
    };
    match &series.value {
        Value::Integer(value) => plain(*value as f64, &mut metric),
        Value::Float(value) => plain(*value, &mut metric),
        Value::Nanoseconds(value) => plain(seconds(*value), &mut metric),
        Value::Histogram(value) => metric.histogram = Some(histogram(value, created)),
    }
    metric
}

fn pair((name, value): &Label) -> wire::LabelPair {
    wire::LabelPair { name: name.to_string(), value: value.to_string() }
}

fn histogram(value: &HistogramValue, created: Option<wire::Timestamp>) -> wire::Histogram {
    let mut cumulated = 0;
    let mut buckets = Vec::new();
    for (place, count) in value.counts.iter().enumerate() {
        cumulated += count;
        let found = value.exemplars.iter().find(|exemplar| exemplar.bucket == place);
        if value.shows_classic {
            buckets.push(wire::Bucket {
                cumulative_count: Some(cumulated),
                upper_bound: Some(value.bounds.get(place).copied().unwrap_or(f64::INFINITY)),
                exemplar: found.map(exemplar),
            });
        }
    }
    let sum = match value.sum {
        Sum::Nanoseconds(nanoseconds) => seconds(nanoseconds),
        Sum::Float(sum) => sum,
    };
    let histogram = wire::Histogram {
        sample_count: Some(cumulated),
        sample_sum: Some(sum),
        bucket: buckets,
        created,
        ..wire::Histogram::default()
    };
    match &value.native {
        Some(native) => with_native(histogram, native, value),
        None => histogram,
    }
}

fn with_native(
    classic: wire::Histogram,
    native: &NativeHistogram,
    value: &HistogramValue,
) -> wire::Histogram {
    let mut spans: Vec<wire::BucketSpan> = Vec::new();
    let mut deltas = Vec::with_capacity(native.buckets.len());
    let (mut next, mut before) = (0_i32, 0_i64);
    for &(index, count) in &native.buckets {
        match spans.last_mut() {
            Some(span) if index == next => span.length = Some(span.length.unwrap_or_default() + 1),
            _ => spans.push(wire::BucketSpan { offset: Some(index - next), length: Some(1) }),
        }
        next = index + 1;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        before = count;
    }
    if spans.is_empty() {
        // Without a span it could not be told from a classic histogram.
        spans.push(wire::BucketSpan { offset: Some(0), length: Some(0) });
    }
    wire::Histogram {
        schema: Some(native.schema),
        zero_threshold: Some(native.zero_threshold),
        zero_count: Some(native.zero_count),
        positive_span: spans,
        positive_delta: deltas,
        exemplars: value.exemplars.iter().map(exemplar).collect(),
        ..classic
    }
}

fn exemplar(exemplar: &Exemplar) -> wire::Exemplar {
    wire::Exemplar {
        label: vec![wire::LabelPair { name: "trace_id".to_owned(), value: exemplar.trace.to_string() }],
        value: Some(seconds(exemplar.nanoseconds.into())),
        timestamp: Some(timestamp(exemplar.at)),
    }
}

/// The number next to the exact one, which is what a parser of the text makes of it.
fn seconds(nanoseconds: u128) -> f64 {
    let mut text = String::new();
    push_sum(&mut text, Sum::Nanoseconds(nanoseconds));
    text.parse().unwrap_or(f64::INFINITY)
}

fn timestamp(time: EventTime) -> wire::Timestamp {
    let nanoseconds = time.unix_nanoseconds();
    wire::Timestamp {
        seconds: (nanoseconds / 1_000_000_000) as i64,
        nanos: (nanoseconds % 1_000_000_000) as i32,
    }
}

/// The messages of metrics.proto, as far as they are used.
mod wire {
    pub(super) const COUNTER: i32 = 0;
    pub(super) const GAUGE: i32 = 1;
    pub(super) const HISTOGRAM: i32 = 4;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricFamily {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub help: String,
        #[prost(int32, tag = "3")]
        pub kind: i32,
        #[prost(message, repeated, tag = "4")]
        pub metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub gauge: Option<Gauge>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Counter>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct LabelPair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Gauge {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Counter {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub created: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, packed = "false", tag = "13")]
        pub positive_delta: Vec<i64>,
        #[prost(message, optional, tag = "15")]
        pub created: Option<Timestamp>,
        #[prost(message, repeated, tag = "16")]
        pub exemplars: Vec<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub cumulative_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub upper_bound: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub exemplar: Option<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BucketSpan {
        #[prost(sint32, optional, tag = "1")]
        pub offset: Option<i32>,
        #[prost(uint32, optional, tag = "2")]
        pub length: Option<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(double, optional, tag = "2")]
        pub value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub timestamp: Option<Timestamp>,
    }

    /// `google.protobuf.Timestamp`
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }
}

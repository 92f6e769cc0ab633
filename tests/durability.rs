//! What is stored at any moment and restored is as if nothing had happened: whatever comes later, /metrics says the same to
//! the byte.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod world;

use std::time::Duration;

use latency_aggregator::aggregator::Seed;
use latency_aggregator::config::{self, Loaded};
use latency_aggregator::domain::stored::{Decoder, Encoder};
use latency_aggregator::domain::time::{Arrival, EventTime, Now};
use latency_aggregator::metrics::snapshot::{Family, Series};
use latency_aggregator::metrics::{Stability, Transport, exposition, stability};
use latency_aggregator::pipeline::input::Input;
use latency_aggregator::receiver::logged;
use latency_aggregator::recovery::Known;
use latency_aggregator::reload::Source;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Link};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use world::{NOON, trace_id};

/// Every kind of flow, and bounds so narrow that each is met.
const CONFIG: &str = r#"
defaults: {quiet_period: 3s, linger: 2s, max_age: 40s, parent_wait: 8s, async_wait: 6s, tombstone: 15s}
flows:
  - name: checkout
    match: 'resource.attributes["service.name"] == "gateway"'
    expect: [gateway, shipping]
    labels:
      tenant: 'span.attributes["tenant"]'
    slo: {latency: 4s, objective: 99}
    stage_buckets: {shipping: [1, 2, 4]}
  - name: parcel
    match: 'resource.attributes["service.name"] == "warehouse"'
    key: ['span.attributes["parcel"]', trace_id]
  - name: everything
    also: true
    match: 'span.kind == SPAN_KIND_SERVER'
    measure: root
  - name: order
    end: [{stage: shipped}]
    labels: {store: 'span.attributes["x"]'}
limits: {events_per_instance: 6, fold_from: 3, tombstones: 4, remembered: 2000, instances: 12, links_per_trace: 2}
metrics: {series_per_family: 3, values_per_label: 2, idle: 30s, histograms: both, native_buckets: 4, zero_first: 5s}
push: {ancestor_gauge: true, flows: 2}
"#;

/// What a reload makes of it.
const CHANGED: [&str; 3] = ["max_age: 40s", "max_age: 30s", "[gateway, shipping]"];

fn configs() -> [Loaded; 3] {
    let [first, other, stages] = CHANGED;
    let shorter = CONFIG.replace(first, other);
    let without = CONFIG.replace(stages, "[gateway]").replace("name: parcel", "name: package");
    [CONFIG, &shorter, &without].map(|text| config::load_text("config.yaml", text).unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Spans(Vec<Sent>),
    Pushes(Vec<Pushed>),
    Config(usize),
    Loss,
    Down(u64),
    Nothing,
}

#[derive(Debug, Clone)]
struct Sent {
    trace: u32,
    id: u64,
    parent: u64,
    service: &'static str,
    kind: i32,
    length: u64,
    tenant: Option<&'static str>,
    parcel: Option<&'static str>,
    link: Option<(u32, u64)>,
    failed: bool,
}

#[derive(Debug, Clone)]
struct Pushed {
    name: &'static str,
    id: u32,
    stage: &'static str,
    region: &'static str,
    life_span: Option<u64>,
    last: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let who = (1_u32..7, 1_u64..6, 0_u64..6, select(vec!["gateway", "shipping", "warehouse", "other"]));
    let what = (1_i32..6, 0_u64..5000, any::<bool>());
    let says = (
        option::of(select(vec!["a", "b", "c"])),
        option::of(select(vec!["p1", "p2", "p3"])),
        option::weighted(0.3, (1_u32..7, 1_u64..6)),
    );
    (who, what, says).prop_map(
        |((trace, id, parent, service), (kind, length, failed), (tenant, parcel, link))| Sent {
            trace,
            id,
            parent,
            service,
            kind,
            length,
            tenant,
            parcel,
            link,
            failed,
        },
    )
}

fn pushed() -> impl Strategy<Value = Pushed> {
    let names = select(vec!["order", "quick", "slow", "third"]);
    let stages = select(vec!["placed", "shipped", "paid"]);
    let regions = select(vec!["eu", "us", "asia"]);
    (names, 0_u32..4, stages, regions, option::of(0_u64..9), any::<bool>()).prop_map(
        |(name, id, stage, region, life_span, last)| Pushed { name, id, stage, region, life_span, last },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(sent(), 1..8).prop_map(Step::Spans),
        3 => vec(pushed(), 1..4).prop_map(Step::Pushes),
        1 => (0_usize..3).prop_map(Step::Config),
        1 => Just(Step::Loss),
        1 => (0_u64..20).prop_map(Step::Down),
        2 => Just(Step::Nothing),
    ]
}

/// A step and how many milliseconds pass before it.
fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    vec((select(vec![0, 1, 400, 2500, 7000, 13_000]), step()), 1..24)
}

impl Sent {
    fn span(&self, now: u64) -> ResourceSpans {
        let text = |key: &str, value: &str| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
            ..KeyValue::default()
        };
        let attributes = [("tenant", self.tenant), ("parcel", self.parcel)];
        let span = Span {
            trace_id: trace_id(self.trace).to_vec(),
            span_id: self.id.to_be_bytes().to_vec(),
            parent_span_id: if self.parent == 0 { Vec::new() } else { self.parent.to_be_bytes().to_vec() },
            name: "work".to_owned(),
            kind: self.kind,
            start_time_unix_nano: now - self.length * 1_000_000,
            end_time_unix_nano: now,
            attributes: attributes.iter().filter_map(|(key, value)| Some(text(key, (*value)?))).collect(),
            links: self
                .link
                .iter()
                .map(|(trace, span)| Link {
                    trace_id: trace_id(*trace).to_vec(),
                    span_id: span.to_be_bytes().to_vec(),
                    ..Link::default()
                })
                .collect(),
            status: self.failed.then(|| Status { code: 2, ..Status::default() }),
            ..Span::default()
        };
        ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", self.service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    }
}

impl Pushed {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id.to_string(),
            "name": self.name,
            "stage": self.stage,
            "label_values": {"region": self.region, "store": self.region},
            "life_span": self.life_span,
            "final": self.last,
            "time_to_live": 5,
        })
    }
}

/// The log of a story, which is applied to `known` at the same time.
fn log_of(known: &mut Known, steps: &[(u64, Step)]) -> Vec<Vec<u8>> {
    let mut log = Vec::new();
    let mut passed = 0;
    for (milliseconds, step) in steps {
        for wait in [*milliseconds / 2, milliseconds.div_ceil(2)] {
            passed += wait;
            append(known, &mut log, &Input::Sweep { now: at(passed) });
        }
        let now = at(passed);
        match step {
            Step::Spans(spans) => {
                let resource_spans =
                    spans.iter().map(|sent| sent.span(now.wall.unix_nanoseconds())).collect();
                let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
                log.push(logged(&known.pipeline, Transport::Grpc, &request, now).unwrap());
                apply(known, &log[log.len() - 1..]);
            }
            Step::Pushes(pushes) => {
                let pushes: Vec<_> = pushes.iter().map(Pushed::json).collect();
                let request = serde_json::to_vec(&pushes).unwrap();
                append(known, &mut log, &Input::Pushes { now, request: &request });
            }
            Step::Config(which) => {
                append(known, &mut log, &Input::Config { now, config: &configs()[*which].to_bytes() });
            }
            Step::Loss => append(known, &mut log, &Input::Loss { now }),
            Step::Down(seconds) => {
                let downtime = Duration::from_secs(*seconds);
                append(known, &mut log, &Input::Downtime { now, downtime });
            }
            Step::Nothing => {}
        }
    }
    append(known, &mut log, &Input::Sweep { now: at(passed + 60_000) });
    log
}

fn append(known: &mut Known, log: &mut Vec<Vec<u8>>, input: &Input<'_>) {
    let mut entry = Vec::new();
    input.write(&mut entry);
    log.push(entry);
    apply(known, &log[log.len() - 1..]);
}

const START: Duration = Duration::from_secs(1_000_000);

fn at(milliseconds: u64) -> Now {
    let passed = Duration::from_millis(milliseconds);
    Now {
        arrival: Arrival::since_origin(START + passed),
        wall: EventTime::from_unix_nanoseconds(NOON).plus(passed),
    }
}

fn begin() -> Known {
    Known::empty(&configs()[0], Source::default(), Seed(7), at(0)).unwrap()
}

fn apply(known: &mut Known, log: &[Vec<u8>]) {
    for entry in log {
        known.apply(Input::read(entry).unwrap());
    }
}

fn stored(known: &Known) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut encoder = Encoder::new(|piece| pieces.push(piece));
    known.pipeline.set_clock(known.last.arrival);
    known.pipeline.store(&mut encoder);
    encoder.finish();
    pieces
}

fn restored(pieces: Vec<Vec<u8>>) -> Known {
    let mut pieces = pieces.into_iter();
    Known::restore(&mut Decoder::new(|| pieces.next()), Seed(7), None, Source::default()).unwrap()
}

/// All that depends on what was received, as a scrape shows it, in every detail.
fn shown(known: &Known) -> Vec<String> {
    let passed = known.last.arrival.since(at(0).arrival);
    let mut families = known.pipeline.snapshot(at(passed.as_millis() as u64));
    families.retain(|family| stability(&family.name) == Stability::Settled);
    let line = |family: &Family, series: &Series| format!("{} {series:?}", family.name);
    let lines = families.iter().flat_map(|family| family.series.iter().map(|series| line(family, series)));
    lines.chain(exposition::text(&families).lines().map(str::to_owned)).collect()
}

/// The first line in which two pages differ.
fn difference(one: &[String], other: &[String]) -> Option<(Option<String>, Option<String>)> {
    let places = 0..one.len().max(other.len());
    let mut pairs = places.map(|place| (one.get(place).cloned(), other.get(place).cloned()));
    pairs.find(|(one, other)| one != other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_run_that_is_cut_anywhere_and_goes_on_says_what_the_uncut_run_says(steps in steps(), cut in any::<prop::sample::Index>()) {
        let mut uncut = begin();
        let log = log_of(&mut uncut, &steps);
        let cut = cut.index(log.len() + 1);
        let mut first = begin();
        apply(&mut first, &log[..cut]);
        let at_the_cut = shown(&first);
        let mut second = restored(stored(&first));
        prop_assert_eq!(difference(&shown(&second), &at_the_cut), None, "at the cut");
        apply(&mut second, &log[cut..]);
        prop_assert_eq!(difference(&shown(&second), &shown(&uncut)), None, "at the end");
    }
}

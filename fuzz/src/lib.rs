//! What the targets share: pipelines, requests to the program's routes without sockets, and what must hold of a
//! pipeline whatever it was given.

#[allow(dead_code, reason = "the page's reader serves tests, which ask for more")]
#[path = "../../tests/support/exposition.rs"]
mod page;

use std::io::Cursor;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config::{self, Loaded};
use latency_aggregator::metrics::BytesInFlight;
use latency_aggregator::metrics::exposition::{self, Format};
use latency_aggregator::metrics::snapshot::{Family, Series, Value};
use latency_aggregator::pipeline::Pipeline;
use latency_aggregator::receiver::{InFlight, ReceiverLimits, large_at_once};
use latency_aggregator::replay::Recording;
use latency_aggregator::replay::files::TraceFile;
use page::Page;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// Flows of all kinds. Whatever the time of a span, it is taken, and shows at once.
const CONFIG: &str = include_str!("../config.yaml");

/// A pipeline with nothing in it.
pub fn pipeline() -> Arc<Pipeline> {
    static LOADED: LazyLock<Loaded> =
        LazyLock::new(|| config::load_text("fuzz/config.yaml", CONFIG).expect("the config is right"));
    let (pipeline, _) = build_pipeline(&LOADED).expect("the config is right");
    Arc::new(pipeline)
}

/// What requests of so many bytes may take.
pub fn limits(request_bytes: usize) -> ReceiverLimits {
    const ROOM_BYTES: usize = 1 << 30;
    static LARGE: LazyLock<Arc<Semaphore>> = LazyLock::new(large_at_once);
    static IN_FLIGHT: LazyLock<InFlight> =
        LazyLock::new(|| InFlight::new(ROOM_BYTES, BytesInFlight::default()));
    ReceiverLimits {
        request_bytes,
        body_timeout: Duration::from_secs(60),
        in_flight: InFlight::clone(&IN_FLIGHT),
        large: Arc::clone(&LARGE),
    }
}

/// What a route answered.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    /// The code of a call over gRPC.
    pub grpc: Option<u16>,
}

/// Sends a POST to a router.
pub fn post(router: Router, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let request = Request::post(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(body.into()).expect("a request");
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let Ok(response) = router.oneshot(request).await;
            let (parts, body) = response.into_parts();
            let collected = body.collect().await.expect("an answer");
            let grpc = grpc_code(&parts.headers).or_else(|| grpc_code(collected.trailers()?));
            Answer { status: parts.status.as_u16(), grpc, body: collected.to_bytes() }
        })
    })
}

fn grpc_code(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Replays a trace file that can be read, and checks what has become of it if all of it can be decoded.
pub fn replay(file: &[u8], pipeline: &Pipeline) {
    let mut recording = Recording::default();
    let reader = Cursor::new(file.to_vec());
    let file = TraceFile::from_reader("file", reader, PIECE_LIMIT_BYTES).expect("a trace file");
    let is_whole = recording.read(file, pipeline, |_| {}).is_ok();
    let (read, refused) = recording.spans();
    assert!(refused <= read, "{refused} of {read}");
    recording.replay(pipeline, |_| {});
    if is_whole {
        check_pipeline(pipeline);
    }
}

/// No piece of a trace file may be larger.
pub const PIECE_LIMIT_BYTES: usize = 1 << 16;

/// Whatever came, the flows' part of a page can be written in every format, and each event is in exactly one place.
pub fn check_pipeline(pipeline: &Pipeline) {
    let families = pipeline.snapshot(pipeline.now());
    let (own, flows): (Vec<_>, Vec<_>) = families.into_iter().partition(is_own);
    for accept in ["application/openmetrics-text", "application/vnd.google.protobuf"] {
        Format::negotiate(accept).render(&flows);
    }
    let text = String::from_utf8(Format::TEXT.render(&flows).concat()).expect("text is UTF-8");
    let page = Page::parse(&text);
    let found = PLACES.iter().map(|place| sum(&own, place)).sum::<u64>()
        + page.sum("latency_aggregator_late_events_total", &[]) as u64;
    assert_eq!(sum(&own, "events_received_total"), found, "{}", exposition::text(&own));
}

/// How many events the pipeline has been given, as its page says.
pub fn received(pipeline: &Pipeline) -> u64 {
    sum(&pipeline.snapshot(pipeline.now()), "events_received_total")
}

/// Where an event may be that was received, apart from late ones.
const PLACES: [&str; 7] = [
    "events_open",
    "events_closed_total",
    "events_duplicate_total",
    "events_unmatched_total",
    "events_ignored_total",
    "events_over_limit_total",
    "events_rejected_total",
];

/// Whether nothing that came has a part in the family's names and labels.
fn is_own(family: &Family) -> bool {
    let is_of_the_process = family.name.starts_with("process_");
    let is_of_flows =
        family.series.iter().any(|series| series.labels.iter().any(|(name, _)| **name == *"flow"));
    is_of_the_process || family.name.starts_with("latency_aggregator_") && !is_of_flows
}

fn sum(families: &[Family], name: &str) -> u64 {
    let named =
        families.iter().filter(|family| family.name.strip_prefix("latency_aggregator_") == Some(name));
    let value = |series: &Series| match series.value {
        Value::Integer(value) => value,
        Value::Float(value) => value as u64,
        Value::Nanoseconds(_) | Value::Histogram(_) => panic!("{name} counts"),
    };
    named.flat_map(|family| &family.series).map(value).sum()
}

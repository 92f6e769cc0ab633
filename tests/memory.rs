//! What open flows may take of memory: that it is reckoned right, and what happens when it is too much.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod support;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use support::exposition::Page;
use support::otlp::{EXPORT, PROTOBUF, frame, grpc_raw, request, span};
use support::{Launch, PATIENT, QUICK, Reply, Server};
use tokio::time::Instant;
use tonic::Code;

const MIB: f64 = 1024.0 * 1024.0;

/// Spans of this many traces from `first` on, so many each.
fn spans(first: u64, traces: u64, each: u64, name: impl Fn(u64, u64) -> String) -> Vec<Span> {
    let of = |trace: u64| {
        let name = &name;
        (1..=each).map(move |id| {
            let mut span = span(1, 1);
            span.trace_id = [[0xab; 8], (trace + 1).to_be_bytes()].concat();
            span.span_id = id.to_be_bytes().to_vec();
            span.name = name(trace, id);
            span
        })
    };
    (first..first + traces).flat_map(of).collect()
}

fn post(server: &Server, spans: Vec<Span>) -> Reply {
    let body = request("shop", spans).encode_to_vec();
    server.post_otlp("/v1/traces", &[("content-type", PROTOBUF)], body)
}

fn memory(page: &Page) -> f64 {
    page.sum("latency_aggregator_memory_bytes", &[])
}

fn degraded(page: &Page) -> f64 {
    page.sum("latency_aggregator_degraded", &[])
}

/// Resident bytes of the server.
fn resident(server: &Server) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.id())).unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0
}

/// Traces of a request: few, so that what requests take while they are decoded does not matter.
const STEP: u64 = 250;

/// Sends traces of a shape, and says what they took: as reckoned, and as resident.
fn growth(each: u64, traces: u64, name: fn(u64, u64) -> String) -> (f64, f64) {
    let server = Server::patient("");
    // What is taken once, whatever comes: threads, buffers, tables.
    for first in (0..6_000).step_by(STEP as usize) {
        assert_eq!(post(&server, spans(first, STEP, each, name)).status, 200);
    }
    // The tables are reckoned several times a second.
    let reckoned = |server: &Server| {
        let mut last = (-1.0, Instant::now());
        let page = server.until("it is reckoned", |page| {
            let is_same = last.0 == memory(page);
            last = if is_same { last } else { (memory(page), Instant::now()) };
            is_same && last.1.elapsed() > Duration::from_secs(2)
        });
        memory(&page)
    };
    let before = (reckoned(&server), resident(&server));
    for first in (0..traces).step_by(STEP as usize) {
        assert_eq!(post(&server, spans(10_000 + first, STEP, each, name)).status, 200);
    }
    let after = (reckoned(&server), resident(&server));
    (after.0 - before.0, after.1 - before.1)
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_reckoned_is_what_is_resident() {
    let mut wrong = Vec::new();
    for (shape, each, traces, name) in [
        ("many small ones", 1, 60_000, (|_, _| "work".to_owned()) as fn(u64, u64) -> String),
        ("of eight spans", 8, 20_000, |_, _| "work".to_owned()),
        ("with names of their own", 2, 20_000, |trace, id| {
            format!("a name that nobody else has {trace} {id}")
        }),
    ] {
        let (reckoned, resident) = growth(each, traces, name);
        let ratio = reckoned / resident;
        assert!(resident > 10.0 * MIB, "{shape}: only {:.1} MiB", resident / MIB);
        // Beside what is asked of it the allocator keeps what tables had that have grown since.
        if !(0.65..1.25).contains(&ratio) {
            wrong.push(format!("{shape}: {:.1} of {:.1} MiB", reckoned / MIB, resident / MIB));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const SMALL: [&str; 2] = ["--limits.memory_bytes", "16777216"];

/// Whether every received event is in exactly one place, and so is every instance. What a sweep that is under way has
/// closed is counted when it is done.
fn is_conserved(page: &Page) -> bool {
    let sum = |names: &[&str]| -> f64 {
        names.iter().map(|name| page.sum(&format!("latency_aggregator_{name}"), &[])).sum()
    };
    let places = [
        "events_open",
        "events_closed_total",
        "events_unmatched_total",
        "events_duplicate_total",
        "late_events_total",
        "events_over_limit_total",
        "events_rejected_total",
        "events_ignored_total",
    ];
    let ends =
        ["open_instances", "instances_closed_total", "instances_merged_total", "instances_unmatched_total"];
    sum(&["events_received_total"]) == sum(&places) && sum(&["instances_opened_total"]) == sum(&ends)
}

#[test]
fn requests_are_refused_before_memory_is_short_and_taken_again_when_flows_have_ended() {
    let server = Launch::config(QUICK).args(&SMALL).start();
    let same = |_, _| "work".to_owned();
    let mut taken = 0;
    let refused = loop {
        let reply = post(&server, spans(taken * 1_000, 1_000, 4, same));
        match reply.status {
            200 => taken += 1,
            _ => break reply,
        }
        assert!(taken < 1_000, "it never refused");
    };
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    let page = server.scrape();
    assert!(degraded(&page) > 0.0);
    assert!(memory(&page) <= 16.0 * MIB);
    // Every way in says the same.
    let push = server.push(&serde_json::json!({"id": "1", "name": "order"}));
    assert_eq!((push.status, push.json()["retryable"].clone()), (503, true.into()), "{push:?}");
    let message = frame(false, &ExportTraceServiceRequest::default().encode_to_vec());
    let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], message);
    assert_eq!(reply.code, i32::from(Code::Unavailable), "{reply:?}");
    assert!(reply.metadata.contains_key("grpc-status-details-bin"));
    server.until("there is room again", |page| degraded(page) == 0.0);
    assert_eq!(post(&server, spans(0, 1, 1, same)).status, 200);
    server.until_settled();
    let page = server.until("everything is counted", is_conserved);
    assert_eq!(page.sum("latency_aggregator_events_received_total", &[]), (taken * 4_000 + 1) as f64);
    assert!(page.sum("latency_aggregator_requests_refused_total", &[("reason", "overloaded")]) >= 3.0);
}

#[test]
fn what_is_far_too_much_at_once_is_evicted_and_counted() {
    let server = Launch::config(PATIENT).args(&SMALL).start();
    let mut spans = spans(0, 100_000, 1, |trace, _| format!("a name that nobody else has: {trace}"));
    // Of which nothing shows that they have ended.
    spans.iter_mut().for_each(|span| span.parent_span_id = vec![0xee; 8]);
    let reply = post(&server, spans);
    assert_eq!(reply.status, 200, "{reply:?}");
    let page = server.until("there is room again", |page| degraded(page) == 0.0);
    assert!(memory(&page) <= 0.8 * 16.0 * MIB, "{} MiB", memory(&page) / MIB);
    let evicted = [("outcome", "evicted"), ("reason", "capacity")];
    assert!(page.sum("flow_closed_total", &evicted) > 10_000.0, "{}", page.interesting());
    server.until("everything is counted", is_conserved);
    assert!(server.logs().contains("instances are evicted for want of room"));
}

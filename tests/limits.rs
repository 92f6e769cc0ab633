//! What clients may take: connections, time and room; beyond it they are told so, and nobody else is harmed.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod support;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use support::otlp::{EXPORT, PROTOBUF, Way, export, frame, grpc_raw, request, span};
use support::{Launch, PATIENT, Server, Wire, deflate, gzip, zstd};
use tokio::time::Instant;
use tonic::Code;

/// How long a connection lasts that does nothing else than wait for its end.
fn lifetime(mut wire: Wire) -> Duration {
    let started = Instant::now();
    wire.read_to_end();
    started.elapsed()
}

/// Longer than the timeout that should have ended it, and shorter than the others, which are minutes.
#[track_caller]
fn assert_ended_after(lifetime: Duration, timeout: Duration) {
    assert!(lifetime >= timeout && lifetime < Duration::from_secs(20), "{lifetime:?}, not {timeout:?}");
}

const LONG: [&str; 8] = [
    "--limits.header_timeout",
    "10m",
    "--limits.body_timeout",
    "10m",
    "--limits.response_timeout",
    "10m",
    "--limits.idle_timeout",
    "10m",
];

/// With one timeout that is short.
fn server_with(setting: &str, timeout: Duration) -> Server {
    let timeout = format!("{}ms", timeout.as_millis());
    let mut arguments: Vec<&str> = LONG.to_vec();
    let place = arguments.iter().position(|known| known.ends_with(setting)).unwrap();
    arguments[place + 1] = &timeout;
    Launch::config(PATIENT).args(&arguments).start()
}

const TIMEOUT: Duration = Duration::from_millis(400);

fn timed_out(server: &Server, reason: &str) -> f64 {
    server.scrape().sum("latency_aggregator_connections_timed_out_total", &[("reason", reason)])
}

#[test]
fn headers_that_do_not_come_in_time_end_the_connection() {
    let server = server_with("header_timeout", TIMEOUT);
    for begun in ["", "POST / HTTP/1.1\r\nhost: x\r\n", "PRI"] {
        let mut wire = Wire::connect(server.http());
        wire.write(begun);
        assert_ended_after(lifetime(wire), TIMEOUT);
    }
    let mut dripping = Wire::connect(server.http());
    let started = Instant::now();
    while dripping.write_anyway("P") && started.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    assert_ended_after(started.elapsed(), TIMEOUT);
    // A connection that has had an answer may wait for longer before it begins.
    let mut wire = Wire::connect(server.http());
    wire.write("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.read_reply().status, 200);
    server.until("the others were ended", |_| timed_out(&server, "headers") >= 4.0);
    wire.write("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.read_reply().status, 200);
    wire.write("GET");
    assert_ended_after(lifetime(wire), TIMEOUT);
}

#[test]
fn a_connection_without_requests_ends_some_day() {
    let server = server_with("idle_timeout", TIMEOUT);
    let mut wire = Wire::connect(server.http());
    wire.write("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.read_reply().status, 200);
    assert_ended_after(lifetime(wire), TIMEOUT);
    let mut preface = Wire::connect(server.http());
    preface.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0");
    assert_ended_after(lifetime(preface), TIMEOUT);
    assert_eq!(timed_out(&server, "idle"), 2.0);
}

#[test]
fn a_body_that_does_not_come_in_time_is_to_be_sent_again() {
    let server = server_with("body_timeout", TIMEOUT);
    for (address, path, content_type) in [
        (server.http(), "/", "application/json"),
        (server.otlp_http(), "/v1/traces", PROTOBUF),
        (server.otlp_http(), "/v1/traces", "application/json"),
    ] {
        let mut wire = Wire::connect(address);
        wire.write(format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: 100\r\n\r\n{{"
        ));
        let reply = wire.read_reply();
        assert_eq!(reply.status, 503, "{path}: {reply:?}");
        let seconds: u64 = reply.header("retry-after").parse().unwrap();
        assert!((1..60).contains(&seconds));
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(said.contains("limits.body_timeout"), "{said}");
    }
    let refused =
        server.scrape().sum("latency_aggregator_requests_refused_total", &[("reason", "slow_body")]);
    assert_eq!(refused, 3.0);
}

/// Enough series that a page finds no room in the buffers of a connection.
fn fill(server: &Server) {
    let pushes: Vec<_> = (0..6000)
        .map(|number| json!({"id": format!("{number}"), "name": "order", "life_span": 0, "label_values": {"n": format!("{number}")}}))
        .collect();
    assert_eq!(server.push(&json!(pushes)).status, 200);
}

/// A server whose page is larger than those buffers, and a reader that has taken no more than the head of it.
fn stalled_reader(scrapes: &str, response_timeout: &str) -> (Server, Wire, usize) {
    let settings = [
        ["--metrics.series_per_family", "10000"],
        ["--metrics.values_per_label", "10000"],
        ["--metrics.concurrent_scrapes", scrapes],
        ["--limits.response_timeout", response_timeout],
    ];
    let server = Launch::config(PATIENT).args(&settings.concat()).start();
    fill(&server);
    let mut slow = Wire::connect(server.http());
    slow.write("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let head = slow.read_head();
    assert_eq!(head.status, 200);
    (server, slow, head.length())
}

#[test]
fn a_page_that_is_not_taken_in_time_ends_its_connection() {
    let (server, mut slow, length) = stalled_reader("8", "2s");
    support::eventually("it is cut off and counted", || timed_out(&server, "answer") == 1.0);
    assert!(slow.read_to_end() < length);
}

#[test]
fn a_page_that_is_not_being_read_makes_room_for_another_one_soon() {
    let (server, mut slow, length) = stalled_reader("1", "10m");
    support::eventually("another one has its place", || server.get("/metrics").status == 200);
    assert!(slow.read_to_end() < length, "what was on its way, and no more");
    assert_eq!(timed_out(&server, "answer"), 0.0);
    assert!(server.scrape().sum("latency_aggregator_scrapes_refused_total", &[]) >= 1.0);
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let server = Launch::config(PATIENT).args(&["--limits.connections", "3"]).args(&LONG).start();
    let mut first: Vec<Wire> = (0..3).map(|_| Wire::connect(server.otlp_http())).collect();
    support::eventually("one of the next is closed", || {
        lifetime(Wire::connect(server.otlp_http())) < Duration::from_secs(20)
    });
    // Other addresses have room of their own.
    let refused = |server: &Server| {
        server.scrape().sum("latency_aggregator_connections_refused_total", &[("listener", "otlp_http")])
    };
    assert!(refused(&server) >= 1.0);
    assert_eq!(server.scrape().sum("latency_aggregator_connections", &[("listener", "otlp_http")]), 3.0);
    let wire = &mut first[0];
    wire.write("GET /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.read_reply().status, 405);
    drop(first);
    support::eventually("there is room again", || {
        let reply = server.try_post_otlp(&ExportTraceServiceRequest::default().encode_to_vec());
        reply.is_some_and(|reply| reply.status == 200)
    });
}

#[test]
fn requests_for_which_there_is_no_room_are_to_be_sent_again_and_leave_nothing() {
    let settings = [
        ["--limits.request_bytes", "100000"],
        ["--push.request_bytes", "1000"],
        ["--limits.bytes_in_flight", "100000"],
    ];
    let server = Launch::config(PATIENT).args(&settings.concat()).args(&LONG).start();
    // Three bodies that do not end take most of it.
    let mut open: Vec<Wire> = (0..3)
        .map(|_| {
            let mut wire = Wire::connect(server.otlp_http());
            wire.write(format!(
                "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 40000\r\n\r\n"
            ));
            wire.write(vec![0; 30_000]);
            wire
        })
        .collect();
    let spans = (1..=100).map(|id| span(1, id)).collect();
    let message = request("a service of a rather long name ".repeat(20).as_str(), spans).encode_to_vec();
    assert!(message.len() < 100_000);
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("content-type", PROTOBUF)], headers].concat();
        server.post_otlp("/v1/traces", &headers, body)
    };
    let padded = [message.clone(), vec![0x7a, 0x80, 0xc8, 0x01], vec![0; 25_600]].concat();
    server.until("they are read", |page| {
        page.sum("latency_aggregator_request_bytes_in_flight", &[]) == 90_000.0
    });
    let refused = post(&[], &padded);
    assert_eq!(refused.status, 503, "{refused:?}");
    for (encoding, body) in [("gzip", gzip(&padded)), ("deflate", deflate(&padded))] {
        let reply = post(&[("content-encoding", encoding)], &body);
        assert_eq!(reply.status, 503, "{encoding}: {reply:?}");
        assert!(!reply.header("retry-after").is_empty());
        let headers = [("grpc-encoding", encoding)];
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &headers, frame(true, &body));
        assert_eq!(reply.code, i32::from(Code::Unavailable), "{encoding}: {reply:?}");
        assert!(reply.metadata.contains_key("grpc-status-details-bin"), "it says when to try again");
    }
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_events_received_total", &[]), 0.0);
    assert_eq!(page.sum("latency_aggregator_request_bytes_in_flight", &[]), 90_000.0);
    assert!(page.sum("latency_aggregator_requests_refused_total", &[("reason", "bytes_in_flight")]) >= 5.0);
    // A window of zstd alone is more than all may have: sending it again is of no use.
    let reply = post(&[("content-encoding", "zstd")], &zstd(&padded));
    assert_eq!(reply.status, 413, "{reply:?}");
    assert!(String::from_utf8_lossy(&reply.body).contains("limits.bytes_in_flight"), "{reply:?}");
    // A small one finds room between them.
    assert_eq!(
        export(&server, Way::Grpc, &request("shop", vec![span(2, 1)])),
        support::otlp::Answer::Accepted
    );
    open.clear();
    support::eventually("there is room again", || post(&[], &padded).status == 200);
}

/// What little is on the wire may stand for very much: a name of its own for each span makes facts of its own.
#[test]
fn what_a_request_is_decoded_to_needs_room_as_well() {
    const SPANS: u32 = 60_000;
    let limits = ["--limits.request_bytes", "8000000", "--limits.bytes_in_flight", "24000000"];
    let server = Launch::config(PATIENT).args(&limits).start();
    let request = |name: fn(u32) -> String| {
        let named = |number: u32| Span {
            span_id: (u64::from(number) + 1).to_be_bytes().to_vec(),
            name: name(number),
            ..span(1, 1)
        };
        request("shop", (0..SPANS).map(named).collect()).encode_to_vec()
    };
    let post = |body: &[u8]| server.post_otlp("/v1/traces", &[("content-type", PROTOBUF)], body);
    let reply = post(&request(|number| format!("{number:06}")));
    assert_eq!(reply.status, 413, "{reply:?}");
    assert!(String::from_utf8_lossy(&reply.body).contains("limits.bytes_in_flight"), "{reply:?}");
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_events_received_total", &[]), 0.0);
    assert_eq!(page.sum("latency_aggregator_request_bytes_in_flight", &[]), 0.0);
    assert_eq!(post(&request(|_| "000000".to_owned())).status, 200);
    assert_eq!(server.scrape().sum("latency_aggregator_events_received_total", &[]), f64::from(SPANS));
}

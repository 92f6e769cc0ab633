//! What a stock OTLP client may rely on: the 45 lines of the OTLP checklist, each as tests that bear its number, and
//! behind them what HTTP, gRPC and protobuf ask for besides.
//!
//! The word behind the number says how binding a line is: what the specification (OTLP 1.11.0, and what it refers to)
//! says that a server `must`, `should` or `may` do, and what ours `chooses` to do where it says nothing. `cargo test
//! --test otlp_conformance -- --list` reads as that list.
//!
//! The numbered tests can be run against another server, which is given by its addresses:
//!
//! ```sh
//! OTLP_CONFORMANCE_GRPC=127.0.0.1:4317 OTLP_CONFORMANCE_HTTP=127.0.0.1:4318 cargo test --test otlp_conformance line_
//! ```
//!
//! `OTLP_CONFORMANCE_REQUEST_BYTES` is the largest request that it takes, 64 MiB if it is not said. What shows on our
//! metrics page only is not looked at then, and a test that is left with nothing says `not applicable`.
//! `.ci/conformance.py` runs the suite against both and prints a table.

mod support;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use latency_aggregator::receiver::Refusal;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use support::exposition::Page;
use support::otlp::{
    Answer, EXPORT, GrpcReply, JSON, OtlpServer, PROTOBUF, Way, attribute, export, export_compressed, frame,
    grpc_body, grpc_client, grpc_raw, json_answer, json_request, on_runtime, post_json, protobuf_answer,
    request, span, unix_nanos,
};
use support::target::{Target, is_ours};
use support::{
    Launch, PATIENT, QUICK, Reply, Server, Wire, client, deflate, eventually, gzip, listens, send, zstd,
};
use tokio::sync::oneshot;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt;

const TRACE: &str = "0123456789abcdef0123456789abcdef";
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// Lines without a test here, and why.
const NOT_HERE: [(u32, &str); 4] = [
    (28, "overload is in tests/limits.rs and tests/memory.rs"),
    (29, "overload is in tests/limits.rs and tests/memory.rs"),
    (32, "authentication is in tests/tls.rs"),
    (33, "a panic cannot be provoked from outside"),
];

/// Headers of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];
/// From plain bytes to compressed ones, or to what is wrong with them.
type Coding = fn(&[u8]) -> Vec<u8>;

const PLAIN: (Option<&str>, Coding) = (None, <[u8]>::to_vec);
const GZIPPED: (Option<&str>, Coding) = (Some("gzip"), gzip);

/// Events in decoded requests, by all ways.
fn received(page: &Page) -> f64 {
    page.sum("latency_aggregator_events_received_total", &[])
}

fn opened(page: &Page) -> f64 {
    page.sum("latency_aggregator_instances_opened_total", &[])
}

fn observed(page: &Page) -> f64 {
    page.sum("flow_latency_seconds_count", &[])
}

/// Nothing of a refused request may be seen.
#[track_caller]
fn assert_nothing_was_received(server: &Server) {
    let page = server.scrape();
    assert_eq!(received(&page), 0.0, "{}", page.interesting());
    assert_eq!(opened(&page), 0.0, "{}", page.interesting());
}

/// So many events were received in so many traces, where that can be seen.
#[track_caller]
fn check_received(server: &Target, events: f64, traces: f64) {
    if let Some(page) = server.scrape() {
        assert_eq!((received(&page), opened(&page)), (events, traces), "{}", page.interesting());
    }
}

/// The `google.rpc.Status` of an error answer of HTTP, in the encoding of the request: its message.
#[track_caller]
fn check_error(reply: &Reply, code: u16, content_type: &str) -> String {
    assert_eq!(reply.status, code, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("content-type"), content_type, "{reply:?}");
    let message = match content_type {
        PROTOBUF => tonic_types::Status::decode(&*reply.body).expect("a google.rpc.Status").message,
        _ => reply.json()["message"].as_str().expect("a message").to_owned(),
    };
    assert!(!message.is_empty(), "an error says what is wrong");
    message
}

/// Posts bytes in a coding, which is named unless it is none.
fn post_coded(
    server: &impl OtlpServer,
    content_type: &str,
    (encoding, compress): (Option<&str>, Coding),
    plain: &[u8],
) -> Reply {
    let headers = [("content-type", content_type), ("content-encoding", encoding.unwrap_or_default())];
    let named = if encoding.is_some() { 2 } else { 1 };
    server.post_otlp("/v1/traces", &headers[..named], compress(plain))
}

fn post_protobuf(server: &impl OtlpServer, body: impl Into<Vec<u8>>) -> Reply {
    server.post_otlp("/v1/traces", &[("content-type", PROTOBUF)], body)
}

/// The numbers of the lines that have a test here, read off this file.
fn tested_lines() -> BTreeSet<u32> {
    let names = include_str!("otlp_conformance.rs").lines().filter_map(|line| line.strip_prefix("fn line_"));
    let number = |name: &str| {
        let mut words = name.split('_');
        let number = words.next().and_then(|number| number.parse().ok());
        let binding = words.next().unwrap_or_default();
        assert!(["must", "should", "may", "chooses"].contains(&binding), "how binding is line_{name}");
        number.unwrap_or_else(|| panic!("line_{name} has no number"))
    };
    names.map(number).collect()
}

#[test]
fn every_line_of_the_checklist_is_here() {
    let mut lines = tested_lines();
    for (line, why) in NOT_HERE {
        assert!(lines.insert(line), "line {line} has a test, and is said to have none: {why}");
    }
    assert_eq!(lines, (1..=45).collect());
}

#[test]
fn line_01_must_take_what_stock_clients_export_over_grpc_and_over_http() {
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    let server = Target::quick();
    let grpc = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let grpc = grpc.expect("a runtime");
    let exporter = grpc.block_on(async {
        SpanExporter::builder().with_tonic().with_endpoint(format!("http://{}", server.otlp_grpc())).build()
    });
    let over_grpc = SdkTracerProvider::builder().with_batch_exporter(exporter.expect("an exporter")).build();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("http://{}/v1/traces", server.otlp_http()))
        .build();
    let over_http = SdkTracerProvider::builder().with_batch_exporter(exporter.expect("an exporter")).build();
    for provider in [over_grpc, over_http] {
        provider.tracer("test").in_span("work", |_| {});
        provider.shutdown().expect("everything is exported");
    }
    let Some(page) = server.until("both spans are observed", |page| observed(page) == 2.0) else { return };
    for transport in ["grpc", "http_protobuf"] {
        let only = page.only("latency_aggregator_events_received_total", &[("transport", transport)]);
        assert_eq!(only.value, 1.0, "{transport}");
    }
}

/// Sends one trace by each coding, over gRPC and over HTTP in both formats, and checks that all give the same result.
#[track_caller]
fn check_codings(over_grpc: &[Option<CompressionEncoding>], over_http: &[(Option<&str>, Coding)]) {
    let server = Target::quick();
    let ended = SystemTime::now();
    let mut traces = 1..;
    let mut make = || {
        let times = Span {
            start_time_unix_nano: unix_nanos(ended - Duration::from_secs(2)),
            end_time_unix_nano: unix_nanos(ended),
            ..span(traces.next().expect("there are enough"), 1)
        };
        request("shop", vec![times])
    };
    for encoding in over_grpc {
        let answer = match encoding {
            None => export(&server, Way::Grpc, &make()),
            Some(encoding) => export_compressed(&server, *encoding, make()).expect("it is understood"),
        };
        assert_eq!(answer, Answer::Accepted, "{encoding:?}");
    }
    for coding in over_http {
        let reply = post_coded(&server, PROTOBUF, *coding, &make().encode_to_vec());
        assert_eq!(protobuf_answer(&reply), Answer::Accepted, "{:?}", coding.0);
        let json = serde_json::to_vec(&make()).expect("it serialises");
        assert_eq!(
            json_answer(&post_coded(&server, JSON, *coding, &json)),
            Answer::Accepted,
            "{:?}",
            coding.0
        );
    }
    let sent = f64::from(traces.start - 1);
    let Some(page) = server.until("all are observed", |page| observed(page) == sent) else { return };
    let latency = page.only("flow_latency_seconds_sum", &[]);
    assert!((latency.value - 2.0 * sent).abs() < 1e-6, "one series, 2 s each: {latency:?}");
}

#[test]
fn line_02_must_take_no_compression_and_gzip_with_the_same_result() {
    check_codings(&[None, Some(CompressionEncoding::Gzip)], &[PLAIN, GZIPPED]);
}

#[test]
fn line_02_chooses_to_take_zstd_and_deflate_too() {
    check_codings(&[Some(CompressionEncoding::Zstd)], &[(Some("zstd"), zstd), (Some("deflate"), deflate)]);
}

#[test]
fn line_02_chooses_to_take_identity_for_a_name_of_no_compression() {
    check_codings(&[], &[(Some("identity"), <[u8]>::to_vec)]);
}

#[test]
fn line_03_must_refuse_unknown_encodings_over_grpc_and_name_the_known_ones() {
    let server = Target::patient();
    let body = frame(true, &request("shop", vec![span(1, 1)]).encode_to_vec());
    for encoding in ["br", "unheard-of"] {
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[("grpc-encoding", encoding)], body.clone());
        assert_eq!(reply.code, i32::from(Code::Unimplemented), "{reply:?}");
        let accepted = reply.metadata.get("grpc-accept-encoding").map(|value| value.to_str().expect("text"));
        assert!(accepted.is_some_and(|accepted| accepted.contains("gzip")), "{reply:?}");
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_03_chooses_to_refuse_unknown_encodings_over_http_and_to_name_the_known_ones() {
    let server = Target::patient();
    for content_type in [PROTOBUF, JSON] {
        for encoding in ["br", "gzip, br", "compress", "unheard-of"] {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            let reply = server.post_otlp("/v1/traces", &headers, "anything");
            check_error(&reply, 415, content_type);
            for accepted in ["gzip", "zstd", "deflate"] {
                assert!(reply.header("accept-encoding").contains(accepted), "{encoding}: {reply:?}");
            }
        }
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_04_should_take_both_formats_at_one_port_whatever_the_parameters_of_the_type() {
    let server = Target::patient();
    let protobuf = request("shop", vec![span(1, 1)]).encode_to_vec();
    let json = json_request(TRACE, "");
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
    ] {
        let reply = server.post_otlp("/v1/traces", &[("content-type", content_type)], json.clone());
        assert_eq!(reply.status, 200, "{content_type}: {reply:?}");
        assert_eq!(json_answer(&reply), Answer::Accepted, "{content_type}");
    }
    for content_type in
        ["application/x-protobuf", "application/x-protobuf; charset=utf-8", "APPLICATION/x-protobuf"]
    {
        let reply = server.post_otlp("/v1/traces", &[("content-type", content_type)], protobuf.clone());
        assert_eq!(reply.status, 200, "{content_type}: {reply:?}");
        assert_eq!(protobuf_answer(&reply), Answer::Accepted, "{content_type}");
    }
    check_received(&server, 7.0, 2.0);
}

#[test]
fn line_05_may_speak_http_1_1_and_http_2_with_prior_knowledge() {
    let server = Target::patient();
    let http2 =
        reqwest::blocking::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    let body = request("shop", vec![span(1, 1)]).encode_to_vec();
    for client in [client(), http2] {
        let url = format!("http://{}/v1/traces", server.otlp_http());
        let reply = send(&client, "POST", &url, &[("content-type", PROTOBUF)], body.clone());
        assert_eq!(protobuf_answer(&reply), Answer::Accepted);
        if let Some(ours) = server.ours() {
            let url = format!("http://{}/health", ours.http());
            assert_eq!(send(&client, "GET", &url, &[], Vec::new()).status, 200);
        }
    }
    check_received(&server, 2.0, 1.0);
}

#[test]
fn line_06_should_hold_up_no_request_for_a_slow_one() {
    let server = Target::patient();
    let json = json_request(TRACE, "");
    let mut slow = Wire::connect(server.otlp_http());
    let length = json.len();
    slow.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n\r\n"
    ));
    let (first, rest) = json.split_at(length / 2);
    slow.write(first);
    for number in 0..100 {
        let fast = post_json(&server, json_request(&format!("{:032x}", number + 1), ""));
        assert_eq!(json_answer(&fast), Answer::Accepted);
    }
    let way = export(&server, Way::Grpc, &request("shop", vec![span(2, 1)]));
    assert_eq!(way, Answer::Accepted);
    slow.write(rest);
    assert_eq!(json_answer(&slow.read_reply()), Answer::Accepted);
    check_received(&server, 102.0, 102.0);
}

#[test]
fn line_07_should_take_a_thousand_requests_in_a_row_on_one_connection() {
    let server = Target::patient();
    let body = request("shop", vec![span(1, 1)]).encode_to_vec();
    let mut connection = Wire::connect(server.otlp_http());
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..1000 {
        connection.write([head.as_bytes(), &body].concat());
        assert_eq!(connection.read_reply().status, 200);
    }
    on_runtime(async {
        let mut client = grpc_client(server.otlp_grpc()).await;
        for _ in 0..1000 {
            client.export(request("shop", vec![span(2, 1)])).await.expect("it is accepted");
        }
    });
    check_received(&server, 2000.0, 2.0);
}

#[test]
fn line_08_must_take_traces_that_are_posted_to_v1_traces() {
    let server = Target::patient();
    let message = request("shop", vec![span(1, 1)]);
    for way in [Way::Protobuf, Way::Json] {
        assert_eq!(export(&server, way, &message), Answer::Accepted, "{way:?}");
    }
    check_received(&server, 2.0, 1.0);
}

#[test]
fn line_08_may_be_told_another_path() {
    let launch = Launch::config(PATIENT).args(&["--listen.otlp_http_path", "/otlp/traces"]);
    let Some(server) = Target::only_ours(launch, "a setting of ours") else { return };
    let body = json_request(TRACE, "");
    let reply = server.post_otlp("/otlp/traces", &[("content-type", JSON)], body.clone());
    assert_eq!(json_answer(&reply), Answer::Accepted);
    check_error(&server.post_otlp("/v1/traces", &[("content-type", JSON)], body), 404, JSON);
    assert_eq!(received(&server.scrape()), 1.0);
}

#[test]
fn line_09_chooses_to_refuse_metrics_and_logs_and_not_to_drop_them_in_silence() {
    let server = Target::patient();
    for service in ["metrics.v1.MetricsService", "logs.v1.LogsService", "trace.v1.TraceServices"] {
        let path = format!("/opentelemetry.proto.collector.{service}/Export");
        let reply = grpc_raw(server.otlp_grpc(), &path, &[], frame(false, &[]));
        assert_eq!(reply.http_status, 200, "{service}: {reply:?}");
        assert_eq!(reply.code, i32::from(Code::Unimplemented), "{service}: {reply:?}");
    }
    for path in ["/v1/metrics", "/v1/logs", "/v1/profiles", "/", "/v1", "/v2/traces"] {
        for content_type in [PROTOBUF, JSON] {
            let reply = server.post_otlp(path, &[("content-type", content_type)], "{}");
            check_error(&reply, 404, content_type);
        }
    }
}

#[test]
fn line_10_chooses_to_refuse_other_methods_and_to_name_the_one_that_is_allowed() {
    let server = Target::patient();
    let url = format!("http://{}/v1/traces", server.otlp_http());
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = send(&client(), method, &url, &[], Vec::new());
        check_error(&reply, 405, JSON);
        assert_eq!(reply.header("allow"), "POST", "{method}");
    }
    let reply = send(&client(), "PUT", &url, &[("content-type", PROTOBUF)], vec![1]);
    check_error(&reply, 405, PROTOBUF);
    let reply = send(&client(), "HEAD", &url, &[], Vec::new());
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
}

#[test]
fn line_11_chooses_to_take_a_trailing_slash_as_an_alias_and_not_to_redirect() {
    let server = Target::patient();
    let reply = server.post_otlp("/v1/traces/", &[("content-type", JSON)], json_request(TRACE, ""));
    assert_eq!(json_answer(&reply), Answer::Accepted);
    check_received(&server, 1.0, 1.0);
}

#[test]
fn line_12_chooses_to_refuse_missing_and_unknown_content_types_with_a_status_in_json() {
    let server = Target::patient();
    let json = json_request(TRACE, "");
    check_error(&server.post_otlp("/v1/traces", &[], json.clone()), 415, JSON);
    for content_type in ["text/plain", "application/xml", "application/grpc", "application/jsonp", "", "/"] {
        let reply = server.post_otlp("/v1/traces", &[("content-type", content_type)], json.clone());
        check_error(&reply, 415, JSON);
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_13_chooses_to_let_no_page_of_another_origin_read_or_preflight_unless_told_to() {
    let server = Target::patient();
    let url = format!("http://{}/v1/traces", server.otlp_http());
    let origin = ("origin", "https://elsewhere.example");
    let preflight = [origin, ("access-control-request-method", "POST")];
    for reply in [
        server.post_otlp("/v1/traces", &[("content-type", JSON), origin], "{}"),
        send(&client(), "OPTIONS", &url, &preflight, Vec::new()),
    ] {
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:?}");
    }
}

#[test]
fn line_13_chooses_to_let_pages_of_the_origins_in_its_config_send_and_never_with_credentials() {
    let text = "
listen:
  http: 127.0.0.1:0
  otlp_grpc: null
  otlp_http: 127.0.0.1:0
  cors_origins: [https://shop.example, 'https://*.shop.example']
";
    let Some(server) = Target::only_ours(Launch::config(text), "a setting of ours") else { return };
    let url = format!("http://{}/v1/traces", server.otlp_http());
    for (origin, allowed) in [
        ("https://shop.example", true),
        ("https://eu.shop.example", true),
        ("http://shop.example", false),
        ("https://shop.example.elsewhere.example", false),
        ("https://elsewhere.example", false),
        ("null", false),
    ] {
        let preflight = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        let asked = send(&client(), "OPTIONS", &url, &preflight, Vec::new());
        let sent = server.post_otlp("/v1/traces", &[("content-type", JSON), ("origin", origin)], "{}");
        for (what, reply) in [("preflight", &asked), ("request", &sent)] {
            let expected = if allowed { origin } else { "" };
            assert_eq!(reply.header("access-control-allow-origin"), expected, "{origin}: {what}");
            assert_eq!(reply.header("access-control-allow-credentials"), "", "{origin}: {what}");
        }
        if allowed {
            assert!((200..300).contains(&asked.status), "{origin}: {asked:?}");
            assert!(asked.header("access-control-allow-methods").contains("POST"), "{asked:?}");
            let headers = asked.header("access-control-allow-headers").to_ascii_lowercase();
            assert!(headers.contains("content-type"), "{asked:?}");
            assert!(!asked.header("access-control-max-age").is_empty(), "{asked:?}");
        }
    }
}

/// A request of exactly this many bytes in protobuf.
fn sized(size: usize) -> ExportTraceServiceRequest {
    let mut length = size / 2;
    loop {
        let padding = Span { attributes: vec![attribute("padding", &"x".repeat(length))], ..span(1, 1) };
        let made = request("shop", vec![padding]);
        match made.encoded_len() {
            found if found == size => return made,
            found if found < size => length += size - found,
            found => length -= found - size,
        }
    }
}

/// Text of exactly this many bytes.
fn padded(text: &str, size: usize) -> String {
    text.to_owned() + &" ".repeat(size - text.len())
}

/// Posts a request of this size in both formats: content type and answer.
fn post_sized(server: &Target, size: usize, coding: (Option<&str>, Coding)) -> [(&'static str, Reply); 2] {
    let json = padded(&json_request(TRACE, ""), size).into_bytes();
    [(PROTOBUF, sized(size).encode_to_vec()), (JSON, json)].map(|(content_type, plain)| {
        assert_eq!(plain.len(), size);
        (content_type, post_coded(server, content_type, coding, &plain))
    })
}

/// Exports a request of this size over gRPC.
fn export_sized(
    server: &Target,
    size: usize,
    encoding: Option<CompressionEncoding>,
) -> Result<(), tonic::Status> {
    match encoding {
        Some(encoding) => export_compressed(server, encoding, sized(size)).map(drop),
        None => on_runtime(async {
            let mut client = grpc_client(server.otlp_grpc()).await;
            client.export(sized(size)).await.map(drop)
        }),
    }
}

/// What fits is accepted, and what does not is refused, on every way in this coding.
#[track_caller]
fn check_limit(
    server: &Target,
    over_http: (Option<&str>, Coding),
    over_grpc: Option<CompressionEncoding>,
    sizes: &[(usize, bool)],
) {
    for (size, fits) in sizes {
        for (content_type, reply) in post_sized(server, *size, over_http) {
            let what = format!("{content_type}, {:?}, {size} bytes", over_http.0);
            assert_eq!(reply.status == 200, *fits, "{what}: {reply:?}");
        }
        let sent = export_sized(server, *size, over_grpc);
        assert_eq!(sent.is_ok(), *fits, "gRPC, {over_grpc:?}, {size} bytes: {sent:?}");
    }
}

#[test]
fn line_14_must_limit_requests_as_sent_and_as_decompressed_on_every_way() {
    let server = Target::limited();
    let limit = server.request_bytes();
    let near = [(limit - 1, true), (limit, true), (limit + 1, false)];
    check_limit(&server, PLAIN, None, &near);
    check_limit(&server, GZIPPED, Some(CompressionEncoding::Gzip), &near);
    check_limit(&server, GZIPPED, Some(CompressionEncoding::Gzip), &[(4 * limit, false)]);
}

#[test]
fn line_14_chooses_to_limit_zstd_alike() {
    let server = Target::limited();
    let limit = server.request_bytes();
    let sizes = [(limit - 1, true), (limit, true), (limit + 1, false), (4 * limit, false)];
    check_limit(&server, (Some("zstd"), zstd), Some(CompressionEncoding::Zstd), &sizes);
}

#[test]
fn line_14_chooses_to_limit_pushes_alike() {
    const LIMIT: usize = 4096;
    let launch = Launch::config(PATIENT).args(&["--push.request_bytes", "4096"]);
    let Some(server) = Target::only_ours(launch, "pushes") else { return };
    for (size, status) in [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413), (64 * LIMIT, 413)] {
        let push = padded(r#"{"id":"1","name":"order","life_span":60}"#, size);
        for (encoding, body) in [("identity", push.clone().into_bytes()), ("gzip", gzip(push.as_bytes()))] {
            let headers = [("content-type", JSON), ("content-encoding", encoding)];
            let reply = server.push_with(&headers, body);
            assert_eq!(reply.status, status, "{encoding} {size}: {reply:?}");
        }
    }
}

#[test]
fn line_15_must_answer_413_with_a_status_to_http_beyond_the_limit() {
    let server = Target::limited();
    let over = server.request_bytes() + 1;
    for coding in [PLAIN, GZIPPED] {
        for (content_type, reply) in post_sized(&server, over, coding) {
            check_error(&reply, 413, content_type);
        }
    }
}

#[test]
fn line_15_chooses_not_to_wait_for_the_rest_and_to_name_the_limit() {
    let server = Target::limited();
    let limit = server.request_bytes();
    let mut connection = Wire::connect(server.otlp_http());
    connection.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 1000000000000\r\n\r\n"
    ));
    connection.write_if_wanted(" ".repeat(limit + 10_000));
    let message = check_error(&connection.read_reply(), 413, JSON);
    assert!(message.contains(&limit.to_string()), "{message}");
}

#[test]
fn line_16_must_answer_resource_exhausted_without_retry_info_to_grpc_beyond_the_limit() {
    let server = Target::limited();
    let over = server.request_bytes() + 1;
    for encoding in [None, Some(CompressionEncoding::Gzip)] {
        let status = export_sized(&server, over, encoding).expect_err("it is too large");
        assert_eq!(status.code(), Code::ResourceExhausted, "{encoding:?}: {status:?}");
        assert!(status.get_details_retry_info().is_none(), "no retry could help: {status:?}");
    }
}

#[test]
fn line_16_chooses_to_refuse_a_grpc_message_that_declares_too_much_unread() {
    let server = Target::limited();
    let mut body = vec![0];
    body.extend(u32::MAX.to_be_bytes());
    let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], body);
    assert_eq!(reply.code, i32::from(Code::ResourceExhausted), "{reply:?}");
}

#[test]
fn line_17_must_answer_briefly_and_should_keep_the_count_when_a_million_spans_are_rejected() {
    const SPANS: usize = 1_000_000;
    const RESPONSE_BYTES: usize = 4 * 1024 * 1024;
    let server = Target::patient();
    let message = request("shop", vec![Span::default(); SPANS]);
    let json =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#, "{},".repeat(SPANS - 1));
    // The client of gRPC takes no more than 4 MiB by itself.
    let mut answers = vec![export(&server, Way::Grpc, &message)];
    for (reply, read) in [
        (post_protobuf(&server, message.encode_to_vec()), protobuf_answer as fn(&Reply) -> Answer),
        (post_json(&server, json), json_answer),
    ] {
        assert!(reply.body.len() <= RESPONSE_BYTES, "{} bytes", reply.body.len());
        answers.push(read(&reply));
    }
    for answer in answers {
        match &answer {
            Answer::Partial { rejected, .. } => assert_eq!(*rejected, SPANS as i64, "{answer:?}"),
            Answer::Accepted => return server.excuse(&answer, "it rejects no span by itself"),
            Answer::Refused { .. } => panic!("{answer:?}"),
        }
    }
}

#[test]
fn line_18_must_bound_the_memory_for_what_decompresses_to_too_much() {
    const LIMIT: usize = 32 * 1024 * 1024;
    /// The limit, and what the allocator keeps of it for each of the threads that have met it.
    const MOST: usize = 5 * LIMIT;
    const PIECE: usize = 16 * 1024 * 1024;
    /// A gigabyte in pieces that were compressed one by one, each to a thousandth.
    const PIECES: usize = 64;
    let launch = Launch::config(PATIENT).args(&["--limits.request_bytes", &LIMIT.to_string()]);
    let Some(server) = Target::only_ours(launch, "the memory of its process") else { return };
    for way in Way::ALL {
        assert_eq!(export(&server, way, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    }
    let before = server.peak_memory_bytes();
    let zeros = vec![0; PIECE];
    for (encoding, piece) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
        let bomb = piece.repeat(PIECES);
        for content_type in [PROTOBUF, JSON] {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            check_error(&server.post_otlp("/v1/traces", &headers, bomb.clone()), 413, content_type);
        }
        let headers = [("grpc-encoding", encoding)];
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &headers, frame(true, &bomb));
        assert_eq!(reply.code, i32::from(Code::ResourceExhausted), "{reply:?}");
        let grown = server.peak_memory_bytes() - before;
        assert!(grown <= MOST, "{encoding}: {grown} bytes more");
    }
}

#[test]
fn line_19_must_leave_partial_success_unset_on_full_success() {
    let server = Target::patient();
    let message = request("shop", vec![span(1, 1)]);
    let response: ExportTraceServiceResponse = on_runtime(async {
        let mut client = grpc_client(server.otlp_grpc()).await;
        client.export(message.clone()).await.expect("it is accepted").into_inner()
    });
    let reply = post_json(&server, json_request(TRACE, ""));
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    let reply = post_protobuf(&server, message.encode_to_vec());
    assert_eq!((reply.status, reply.body.as_slice()), (200, &[][..]));
    assert_eq!(response.partial_success, None);
}

#[test]
fn line_20_should_take_empty_requests_and_empty_envelopes() {
    let server = Target::patient();
    let empty_resource = ExportTraceServiceRequest {
        resource_spans: vec![
            ResourceSpans::default(),
            ResourceSpans { scope_spans: vec![ScopeSpans::default()], ..ResourceSpans::default() },
        ],
    };
    for message in [ExportTraceServiceRequest::default(), empty_resource] {
        for way in Way::ALL {
            assert_eq!(export(&server, way, &message), Answer::Accepted, "{way:?} {message:?}");
        }
    }
    for json in [
        "{}",
        r#"{"resourceSpans":[]}"#,
        r#"{"resourceSpans":[{}]}"#,
        r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"spans":[]}]}]}"#,
    ] {
        assert_eq!(json_answer(&post_json(&server, json)), Answer::Accepted, "{json}");
    }
    let mut connection = Wire::connect(server.otlp_http());
    connection.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 0\r\n\r\n"
    ));
    assert_eq!(connection.read_reply().status, 200);
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_21_must_say_exactly_how_many_spans_were_rejected_and_should_say_why() {
    let server = Target::patient();
    for way in Way::ALL {
        for count in [1, 3, 100] {
            let bad = |id: u8| Span { trace_id: vec![0; 16], ..span(1, id) };
            let spans = (1..=count).map(bad).chain([span(1, 1), span(2, 1)]);
            let answer = export(&server, way, &request("shop", spans.collect()));
            let Answer::Partial { rejected, message } = answer else {
                return server.excuse(&answer, "it rejects no span by itself");
            };
            assert_eq!(rejected, i64::from(count), "{way:?}");
            assert!(!message.is_empty(), "{way:?}");
        }
    }
}

#[test]
fn line_21_must_call_it_a_success_even_when_no_span_is_good() {
    let server = Target::patient();
    for way in Way::ALL {
        let bad = |id: u8| Span { trace_id: vec![0; 16], ..span(1, id) };
        let answer = export(&server, way, &request("shop", (1..=100).map(bad).collect()));
        if answer == Answer::Accepted {
            return server.excuse(&answer, "it rejects no span by itself");
        }
        assert_eq!(answer.rejected(), 100, "{way:?}");
    }
    check_received(&server, 300.0, 0.0);
}

#[test]
fn line_22_may_warn_of_what_is_odd_but_good_and_then_in_words() {
    let server = Target::patient();
    let now = unix_nanos(SystemTime::now());
    let odd = [
        Span { start_time_unix_nano: now, end_time_unix_nano: now - 5_000_000_000, ..span(1, 1) },
        Span { attributes: vec![attribute("a", "b"), attribute("a", "c")], ..span(2, 1) },
        Span { name: String::new(), kind: 99, ..span(3, 1) },
        Span { attributes: vec![attribute("long", &"x".repeat(10_000))], ..span(4, 1) },
    ];
    for way in Way::ALL {
        for odd in &odd {
            match export(&server, way, &request("shop", vec![odd.clone()])) {
                Answer::Accepted => {}
                Answer::Partial { rejected: 0, message } => assert!(!message.is_empty(), "{way:?} {odd:?}"),
                other => panic!("{way:?} {odd:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn line_23_must_answer_in_the_content_type_of_the_request() {
    let server = Target::patient();
    for (content_type, good) in [(PROTOBUF, ""), (JSON, "{}")] {
        let typed = ("content-type", content_type);
        let cases: [(u16, Headers<'_>, &str); 3] = [
            (200, &[typed], good),
            (400, &[typed], "\x07not what it says"),
            (400, &[typed, GZIP], "no gzip"),
        ];
        for (code, headers, body) in cases {
            let reply = server.post_otlp("/v1/traces", headers, body);
            assert_eq!(
                (reply.status, reply.header("content-type")),
                (code, content_type),
                "{body}: {reply:?}"
            );
        }
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_24_may_compress_answers_but_only_for_a_client_that_asks() {
    let server = Target::patient();
    let bad = Span { trace_id: Vec::new(), ..span(1, 1) };
    for message in [ExportTraceServiceRequest::default(), request("shop", vec![bad])] {
        let reply = post_protobuf(&server, message.encode_to_vec());
        assert_eq!(reply.header("content-encoding"), "");
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], frame(false, &message.encode_to_vec()));
        let encoding = reply.metadata.get("grpc-encoding").map(|encoding| encoding.as_bytes());
        assert!(matches!(encoding, None | Some(b"identity")), "{reply:?}");
    }
}

#[test]
fn line_25_must_put_a_status_into_the_answer_to_a_request_that_is_wrong() {
    let server = Target::limited();
    let long = "x".repeat(server.request_bytes() + 1);
    for content_type in [PROTOBUF, JSON] {
        let typed = ("content-type", content_type);
        let cases: [(Headers<'_>, &str); 3] =
            [(&[typed], "\x07not what it says"), (&[typed, GZIP], "no gzip"), (&[typed], &long)];
        for (headers, body) in cases {
            let reply = server.post_otlp("/v1/traces", headers, body);
            assert!((400..500).contains(&reply.status), "{reply:?}");
            check_error(&reply, reply.status, content_type);
        }
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_25_must_put_a_status_into_every_other_refusal() {
    let server = Target::patient();
    for content_type in [PROTOBUF, JSON] {
        let typed = ("content-type", content_type);
        let url = format!("http://{}/v1/traces", server.otlp_http());
        for reply in [
            server.post_otlp("/v1/traces", &[typed, ("content-encoding", "unheard-of")], "{}"),
            send(&client(), "PUT", &url, &[typed], b"{}".to_vec()),
            server.post_otlp("/v1/elsewhere", &[typed], "{}"),
        ] {
            assert!((400..500).contains(&reply.status), "{reply:?}");
            check_error(&reply, reply.status, content_type);
        }
    }
}

/// A request in JSON whose span ended at a time that is written like this.
fn ended(time: &str) -> String {
    // Numbers keep their spelling when they are put into the text, not into a value.
    json_request(TRACE, r#""endTimeUnixNano":"END""#).replace("\"END\"", time)
}

/// Bodies that are no protobuf of a request.
fn undecodable() -> Vec<Vec<u8>> {
    let message = request("shop", vec![span(1, 1)]).encode_to_vec();
    let truncated = message[..message.len() - 1].to_vec();
    vec![vec![0x0a], vec![0x0a, 0x7f, 0x01], vec![0xff; 20], truncated, b"{}".to_vec()]
}

/// These bodies of JSON are answered with 400, or accepted where that is better than another code.
#[track_caller]
fn check_bad_requests(server: &Target, bodies: &[&[u8]], unless_accepted: bool) {
    let answers = bodies.iter().map(|body| (String::from_utf8_lossy(body), post_json(server, *body)));
    let is_wrong = |reply: &Reply| reply.status != 400 && !(unless_accepted && reply.status == 200);
    let wrong: Vec<_> = answers.filter(|(_, reply)| is_wrong(reply)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn line_26_must_answer_400_over_http_to_what_cannot_be_decoded() {
    let server = Target::patient();
    for body in undecodable() {
        check_error(&post_protobuf(&server, body), 400, PROTOBUF);
    }
    let json = json_request(TRACE, "");
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"1",
        br#"{"resourceSpans":{}}"#,
        br#"{"resourceSpans":[1]}"#,
        br#"{"resourceSpans":[{"scopeSpans":[{"spans":["x"]}]}]}"#,
        b"{'resourceSpans':[]}",
        &json.as_bytes()[..json.len() - 1],
    ];
    check_bad_requests(&server, &bodies, false);
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_26_must_answer_nothing_but_400_over_http_to_text_that_it_does_not_take() {
    let server = Target::patient();
    let bodies: [&[u8]; 6] =
        [b"\xff", b"\xef\xbb\xbf{}", b"{\xff", b"\xef\xbb\xbf{", "é".as_bytes(), b"{\"a\":\xc3}"];
    check_bad_requests(&server, &bodies, true);
    for time in ["-1", r#""-1""#, "1.5", r#""soon""#, "true", "{}", "18446744073709551616", "1e400"] {
        check_bad_requests(&server, &[ended(time).as_bytes()], true);
    }
}

#[test]
fn line_26_chooses_to_be_as_strict_as_json_is() {
    let server = Target::patient();
    let json = json_request(TRACE, "");
    let mut not_utf8 = json.clone().into_bytes();
    not_utf8[json.find("POST").expect("its name")] = 0xff;
    let bodies: [&[u8]; 4] = [b"null", br#"{"resourceSpans":[],}"#, br#"{"resourceSpans":[]} x"#, &not_utf8];
    check_bad_requests(&server, &bodies, false);
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_26_should_answer_invalid_argument_over_grpc_to_what_cannot_be_decoded() {
    let server = Target::patient();
    for body in undecodable() {
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], frame(false, &body));
        assert_eq!(reply.code, i32::from(Code::InvalidArgument), "{body:?}: {reply:?}");
        assert!(!reply.message.is_empty(), "{body:?}");
    }
    check_received(&server, 0.0, 0.0);
}

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

#[test]
fn line_26_should_say_in_details_over_http_what_is_wrong() {
    let server = Target::patient();
    let reply = post_protobuf(&server, [0x0a]);
    let status = tonic_types::Status::decode(&*reply.body).expect("a google.rpc.Status");
    assert!(status.details.iter().any(|detail| detail.type_url == BAD_REQUEST), "{status:?}");
    let reply = post_json(&server, "{");
    let details = reply.json()["details"].clone();
    let is_bad_request = |detail: &serde_json::Value| detail["@type"] == BAD_REQUEST;
    assert!(details.as_array().is_some_and(|all| all.iter().any(is_bad_request)), "{}", reply.text());
}

#[test]
fn line_26_may_say_in_details_over_grpc_what_is_wrong() {
    let server = Target::patient();
    let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], frame(false, &[0x0a]));
    let status = status_of(&reply);
    assert!(status.get_details_bad_request().is_some(), "{status:?}");
}

fn status_of(reply: &GrpcReply) -> tonic::Status {
    tonic::Status::from_header_map(&reply.metadata).expect("a status")
}

/// How requests were answered that had begun before our server was asked to end, and were whole only after it had
/// closed what was open; and the last scrape.
struct TooLate {
    over_http: [(&'static str, Reply); 2],
    over_grpc: GrpcReply,
    page: Page,
}

fn too_late(server: &Server) -> TooLate {
    let protobuf = request("shop", vec![span(1, 1)]).encode_to_vec();
    let begun = [(PROTOBUF, protobuf.clone()), (JSON, json_request(TRACE, "").into_bytes())];
    let begun = begun.map(|(content_type, body)| {
        let mut connection = Wire::connect(server.otlp_http());
        let length = body.len();
        connection.write(format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        ));
        connection.write(&body[..length / 2]);
        (content_type, connection, body[length / 2..].to_vec())
    });
    let framed = frame(false, &protobuf);
    let (first, rest) = framed.split_at(framed.len() / 2);
    let (body, rest_is_sent, first_is_sent) = paused_after(Bytes::copy_from_slice(first));
    let address = server.otlp_grpc();
    let over_grpc = std::thread::spawn(move || grpc_body(address, EXPORT, &[], body));
    first_is_sent.recv().expect("the call begins");
    // Whether a connection has been accepted shows once a later one is answered to.
    assert_eq!(json_answer(&post_json(server, "{}")), Answer::Accepted);
    assert_eq!(export(server, Way::Grpc, &ExportTraceServiceRequest::default()), Answer::Accepted);
    server.terminate();
    eventually("what was open is closed", || server.logs().contains("closed what was open"));
    assert!(!listens(server.otlp_http()) && !listens(server.otlp_grpc()), "nothing new is accepted");
    let over_http = begun.map(|(content_type, mut connection, rest)| {
        connection.write(rest);
        (content_type, connection.read_reply())
    });
    rest_is_sent.send(Bytes::copy_from_slice(rest)).expect("the call still waits");
    let over_grpc = over_grpc.join().expect("it is answered");
    TooLate { over_http, over_grpc, page: server.scrape() }
}

/// Ours, which gives requests little time at its end, and scrapes all that they need.
fn ending_soon() -> Option<Server> {
    let launch = Launch::config(PATIENT).args(&["--shutdown.grace", "200ms", "--shutdown.linger", "60s"]);
    Target::only_ours(launch, "to be asked to end")
}

#[test]
fn line_27_must_answer_503_over_http_when_a_later_try_may_succeed() {
    let Some(server) = ending_soon() else { return };
    for (content_type, reply) in too_late(&server).over_http {
        check_error(&reply, 503, content_type);
    }
}

/// Whether a client may send a request again that was refused with this code (OTLP specification, OTLP/HTTP).
fn invites_a_retry(code: u16) -> bool {
    matches!(code, 429 | 502 | 503 | 504)
}

/// The same for gRPC.
fn invites_a_retry_over_grpc(code: Code, has_retry_info: bool) -> bool {
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => has_retry_info,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal => false,
    }
}

#[test]
fn line_30_must_never_invite_a_retry_of_what_cannot_succeed() {
    let server = Target::limited();
    let long = "x".repeat(server.request_bytes() + 1);
    let url = format!("http://{}/v1/traces", server.otlp_http());
    for content_type in [PROTOBUF, JSON] {
        let typed = ("content-type", content_type);
        for reply in [
            server.post_otlp("/v1/traces", &[typed], "\x07"),
            server.post_otlp("/v1/traces", &[typed], long.clone()),
            server.post_otlp("/v1/traces", &[typed, GZIP], "no gzip"),
            server.post_otlp("/v1/traces", &[typed, ("content-encoding", "unheard-of")], "{}"),
            server.post_otlp("/v1/elsewhere", &[typed], "{}"),
            server.post_otlp("/v1/traces", &[("content-type", "text/plain")], "{}"),
            send(&client(), "PUT", &url, &[typed], b"{}".to_vec()),
        ] {
            assert!(reply.status >= 400 && !invites_a_retry(reply.status), "{reply:?}");
        }
    }
    let garbage = frame(false, &[0x0a]);
    let calls: [(&str, Headers<'_>, Vec<u8>); 5] = [
        (EXPORT, &[], garbage.clone()),
        (EXPORT, &[], frame(false, long.as_bytes())),
        (EXPORT, &[("grpc-encoding", "gzip")], frame(true, b"no gzip")),
        (EXPORT, &[("grpc-encoding", "unheard-of")], frame(true, b"anything")),
        ("/elsewhere/Export", &[], garbage),
    ];
    for (path, headers, body) in calls {
        let reply = grpc_raw(server.otlp_grpc(), path, headers, body);
        let status = status_of(&reply);
        let has_retry_info = status.get_details_retry_info().is_some();
        assert_ne!(status.code(), Code::Ok, "{reply:?}");
        assert!(!invites_a_retry_over_grpc(status.code(), has_retry_info), "{reply:?}");
    }
}

/// Whether a refused request may be sent again: the table that all answers follow.
fn may_be_sent_again(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Undecodable(_)
        | Refusal::TooLarge(_)
        | Refusal::Unsupported(_)
        | Refusal::NotFound(_)
        | Refusal::MethodNotAllowed(_)
        | Refusal::Unauthenticated
        | Refusal::Internal => false,
        Refusal::NoRoom
        | Refusal::TooSlow
        | Refusal::Overloaded
        | Refusal::NotStored
        | Refusal::ShuttingDown => true,
    }
}

#[test]
fn line_30_must_say_the_same_of_every_refusal_over_http_and_over_grpc() {
    if !is_ours("our table of refusals") {
        return;
    }
    let why = || "why".to_owned();
    let all = [
        Refusal::Undecodable(why()),
        Refusal::TooLarge(why()),
        Refusal::Unsupported(why()),
        Refusal::NotFound(why()),
        Refusal::MethodNotAllowed(why()),
        Refusal::Unauthenticated,
        Refusal::NoRoom,
        Refusal::TooSlow,
        Refusal::Overloaded,
        Refusal::NotStored,
        Refusal::ShuttingDown,
        Refusal::Internal,
    ];
    for refusal in all {
        let expected = may_be_sent_again(&refusal);
        assert_eq!(refusal.is_retryable(), expected, "{refusal:?}");
        assert_eq!(invites_a_retry(refusal.http_status().as_u16()), expected, "{refusal:?}");
        // RetryInfo is sent with what is retryable, and with nothing else.
        assert_eq!(invites_a_retry_over_grpc(refusal.grpc_code(), expected), expected, "{refusal:?}");
    }
}

#[test]
fn line_31_chooses_to_refuse_retryably_and_to_keep_nothing_once_it_shuts_down() {
    let Some(server) = ending_soon() else { return };
    let TooLate { over_http, over_grpc, page } = too_late(&server);
    for (content_type, reply) in over_http {
        check_error(&reply, 503, content_type);
        let seconds = reply.header("retry-after").parse::<u64>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0), "{reply:?}");
    }
    let status = status_of(&over_grpc);
    assert_eq!(status.code(), Code::Unavailable, "{over_grpc:?}");
    assert!(status.get_details_retry_info().is_some(), "{over_grpc:?}");
    assert_eq!((received(&page), opened(&page)), (0.0, 0.0), "{}", page.interesting());
}

#[test]
fn line_34_must_read_ids_as_hexadecimal_digits_in_any_case() {
    let server = Target::patient();
    for (trace, span_id) in [
        (TRACE.to_owned(), "0102030405060a0b"),
        (TRACE.to_uppercase(), "0102030405060A0B"),
        ("0123456789AbCdEf0123456789aBcDeF".to_owned(), "0102030405060A0b"),
    ] {
        let fields = format!(
            r#""spanId":"{span_id}","parentSpanId":"01020304050607aA",
               "links":[{{"traceId":"{trace}","spanId":"0102030405060C0d"}}]"#
        );
        assert_eq!(
            json_answer(&post_json(&server, json_request(&trace, &fields))),
            Answer::Accepted,
            "{trace}"
        );
    }
    let reply = post_json(&server, json_request(TRACE, r#""spanId":"0102030405060a0b","parentSpanId":"""#));
    assert_eq!(json_answer(&reply), Answer::Accepted, "an empty parent is none");
    let Some(page) = server.scrape() else { return };
    assert_eq!(opened(&page), 1.0, "{}", page.interesting());
    assert_eq!(page.sum("latency_aggregator_events_duplicate_total", &[]), 3.0);
}

/// Fields of a span with an id that is none.
const NO_IDS: [&str; 7] = [
    r#""traceId":"AAECAwQFBgcICQoLDA0ODw==""#,
    r#""traceId":"0123456789abcdef0123456789abcdeg""#,
    r#""traceId":"0123456789abcdef0123456789abcde""#,
    r#""traceId":"0x0123456789abcdef0123456789abcdef""#,
    r#""spanId":"AQIDBAUGBwg=""#,
    r#""spanId":"0102030405060é""#,
    r#""spanId":"01 02030405060708""#,
];

#[test]
fn line_34_must_not_read_ids_as_base64() {
    let server = Target::patient();
    for fields in NO_IDS {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_ne!(json_answer(&reply), Answer::Accepted, "{fields}");
    }
    if let Some(page) = server.scrape() {
        assert_eq!(opened(&page), 0.0);
    }
}

#[test]
fn line_34_chooses_to_reject_no_more_than_the_span_whose_id_is_none() {
    let server = Target::patient();
    for fields in NO_IDS.into_iter().chain([r#""traceId":"""#, r#""traceId":null"#]) {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply).rejected(), 1, "{fields}: {}", reply.text());
    }
}

#[test]
fn line_35_must_take_names_in_snake_case_for_unknown() {
    let server = Target::patient();
    for snake_case in [
        r#"{"resource_spans":[{"scope_spans":[{"spans":[{"trace_id":"x"}]}]}]}"#,
        r#"{"resourceSpans":[{"scope_spans":[{"spans":[{"trace_id":"x"}]}]}]}"#,
    ] {
        assert_eq!(json_answer(&post_json(&server, snake_case)), Answer::Accepted);
    }
    let fields = r#""trace_id":7,"parent_span_id":7,"start_time_unix_nano":"x","droppedEventsCount":1"#;
    assert_eq!(json_answer(&post_json(&server, json_request(TRACE, fields))), Answer::Accepted);
    check_received(&server, 1.0, 1.0);
}

#[test]
fn line_36_must_ignore_names_that_it_does_not_know_at_any_depth() {
    let server = Target::patient();
    let known = json_request(
        TRACE,
        r#""new":{"deep":[[{"x":null}],1e5,"\u0000"]},"status":{"code":1,"new":{}},
           "attributes":[{"key":"a","value":{"stringValue":"b","new":1},"new":true},
                         {"key":"n","value":{"newValue":[1,2]}}],
           "links":[{"traceId":"0123456789abcdef0123456789abcdea","spanId":"0102030405060701","new":1}],
           "events":[{"name":"e","new":[]}]"#,
    );
    let wrapped = known.replacen('{', r#"{"new":[{"a":{}}],"news":7,"#, 1);
    let reply = post_json(&server, wrapped);
    assert_eq!(json_answer(&reply), Answer::Accepted, "{}", reply.text());
    check_received(&server, 1.0, 1.0);
}

#[test]
fn line_37_must_take_enums_as_numbers() {
    let server = Target::patient();
    for fields in [r#""kind":2"#, r#""kind":0"#, r#""status":{"code":2}"#] {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{fields}");
    }
}

#[test]
fn line_37_chooses_to_refuse_names_of_enums() {
    let server = Target::patient();
    for fields in [
        r#""kind":"SPAN_KIND_SERVER""#,
        r#""status":{"code":"STATUS_CODE_ERROR"}"#,
        r#""status":{"code":"ERROR"}"#,
    ] {
        let reply = post_json(&server, json_request(TRACE, fields));
        check_error(&reply, 400, JSON);
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_37_chooses_to_take_numbers_of_enums_that_it_does_not_know() {
    let server = Target::patient();
    for fields in [r#""kind":99"#, r#""kind":-1"#, r#""status":{"code":77}"#] {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{fields}");
    }
}

/// All of these requests are accepted.
#[track_caller]
fn check_accepted(server: &Target, requests: impl IntoIterator<Item = (String, String)>) {
    let answers = requests.into_iter().map(|(what, json)| (what, json_answer(&post_json(server, json))));
    let refused: Vec<_> = answers.filter(|(_, answer)| *answer != Answer::Accepted).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// A span with an attribute of this value.
fn valued(value: &str) -> (String, String) {
    let fields =
        format!(r#""attributes":[{{"key":"a","value":{value}}}],"droppedAttributesCount":3,"flags":257"#);
    (value.to_owned(), json_request(TRACE, &fields))
}

#[test]
fn line_38_must_take_64_bit_integers_as_text_and_as_numbers() {
    let server = Target::patient();
    let now = unix_nanos(SystemTime::now());
    check_accepted(&server, [format!("\"{now}\""), now.to_string()].map(|time| (time.clone(), ended(&time))));
    let values = [
        r#"{"intValue":"-5"}"#,
        r#"{"intValue":-5}"#,
        r#"{"intValue":"9223372036854775807"}"#,
        r#"{"intValue":9223372036854775807}"#,
        r#"{"intValue":"-9223372036854775808"}"#,
    ];
    check_accepted(&server, values.map(valued));
}

#[test]
fn line_38_chooses_to_refuse_what_is_no_integer_of_64_bits() {
    let server = Target::patient();
    for time in
        [r#""soon""#, r#""1.5""#, "1.5", "-1", r#""-1""#, "true", "{}", "18446744073709551616", "1e400"]
    {
        let reply = post_json(&server, ended(time));
        assert!(reply.status >= 400, "{time}: {reply:?}");
    }
    check_received(&server, 0.0, 0.0);
}

#[test]
fn line_39_must_take_values_in_every_spelling_of_proto3_json() {
    let server = Target::patient();
    let values = [
        r#"{"doubleValue":"NaN"}"#,
        r#"{"doubleValue":"Infinity"}"#,
        r#"{"doubleValue":"-Infinity"}"#,
        r#"{"doubleValue":"1.5"}"#,
        r#"{"doubleValue":3}"#,
        r#"{"bytesValue":"aGVsbG8="}"#,
        r#"{"bytesValue":"aGVsbG8"}"#,
        r#"{"bytesValue":"-_8"}"#,
        r#"{"boolValue":true}"#,
        r#"{"arrayValue":{"values":[{"stringValue":"a"},{}]}}"#,
        r#"{"kvlistValue":{"values":[{"key":"a","value":{"intValue":1}}]}}"#,
        "{}",
    ];
    check_accepted(&server, values.map(valued));
}

#[test]
fn line_39_must_take_integers_with_an_exponent_or_a_fraction_of_zeros() {
    let server = Target::patient();
    let seconds = unix_nanos(SystemTime::now()) / 1_000_000_000;
    let times = [
        format!("{seconds}e9"),
        format!("{seconds}.0e9"),
        format!("{seconds}000000000.0"),
        format!("\"{seconds}e9\""),
    ];
    check_accepted(&server, times.map(|time| (time.clone(), ended(&time))));
    check_accepted(&server, [valued(r#"{"intValue":5.0}"#)]);
    check_received(&server, 5.0, 1.0);
}

#[test]
fn line_39_must_take_null_for_the_default_of_every_field() {
    let server = Target::patient();
    let fields = [
        r#""parentSpanId":null"#,
        r#""name":null"#,
        r#""kind":null"#,
        r#""traceState":null"#,
        r#""flags":null"#,
        r#""attributes":null,"events":null,"links":null"#,
        r#""status":null"#,
        r#""droppedEventsCount":null"#,
        r#""attributes":[{"key":null,"value":null}]"#,
        r#""attributes":[{"key":"a","value":{"stringValue":null}}]"#,
        r#""startTimeUnixNano":null"#,
    ];
    check_accepted(&server, fields.map(|fields| (fields.to_owned(), json_request(TRACE, fields))));
    let schema = json_request(TRACE, "").replace(r#""resource":{"#, r#""schemaUrl":null,"resource":{"#);
    let nothing = r#"{"resourceSpans":null}"#.to_owned();
    check_accepted(&server, [("schemaUrl".to_owned(), schema), (nothing.clone(), nothing)]);
}

/// The example of the OTLP repository, examples/trace.json.
const OFFICIAL_EXAMPLE: &str = r#"{
  "resourceSpans": [
    {
      "resource": {
        "attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]
      },
      "scopeSpans": [
        {
          "scope": {
            "name": "my.library",
            "version": "1.0.0",
            "attributes": [{"key": "my.scope.attribute", "value": {"stringValue": "some scope attribute"}}]
          },
          "spans": [
            {
              "traceId": "5B8EFFF798038103D269B633813FC60C",
              "spanId": "EEE19B7EC3C1B174",
              "parentSpanId": "EEE19B7EC3C1B173",
              "name": "I'm a server span",
              "startTimeUnixNano": "1544712660000000000",
              "endTimeUnixNano": "1544712661000000000",
              "kind": 2,
              "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}]
            }
          ]
        }
      ]
    }
  ]
}"#;

#[test]
fn line_40_must_read_the_official_example() {
    let launch =
        Launch::config(QUICK).args(&["--ingest.max_past", "36500d", "--defaults.parent_wait", "200ms"]);
    let server = Target::launched(launch);
    assert_eq!(json_answer(&post_json(&server, OFFICIAL_EXAMPLE)), Answer::Accepted);
    check_received(&server, 1.0, 1.0);
}

#[test]
fn line_40_chooses_to_reject_the_official_example_as_too_old_unless_told_not_to() {
    let Some(server) = Target::only_ours(Launch::config(PATIENT), "our default settings") else { return };
    assert_eq!(json_answer(&post_json(&server, OFFICIAL_EXAMPLE)).rejected(), 1, "it ended in 2018");
}

#[test]
fn line_40_must_give_the_same_metrics_for_the_same_spans_whatever_they_came_by() {
    let now = SystemTime::now();
    let at = |millis: u64| unix_nanos(now - Duration::from_secs(60) + Duration::from_millis(millis));
    let make = |id: u8, parent: u8, (start, end): (u64, u64), name: &str| Span {
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: name.to_owned(),
        start_time_unix_nano: at(start),
        end_time_unix_nano: at(end),
        attributes: vec![attribute("tenant", "a\"b\\c\nd")],
        ..span(9, id)
    };
    let shop = [make(1, 0, (0, 3000), "POST /orders"), make(2, 1, (100, 200), "check")];
    let mail = [make(3, 1, (500, 7250), "send")];
    let mut message = request("shop", shop.to_vec());
    message.resource_spans.extend(request("mail", mail.to_vec()).resource_spans);
    let flow = "
flows:
  - name: order
    match: 'span.name == \"POST /orders\"'
    labels: {tenant: 'span.attributes[\"tenant\"]'}
";
    let mut pages = Vec::new();
    for way in Way::ALL {
        let launch = Launch::config(&format!("{QUICK}{flow}"));
        let Some(server) = Target::only_ours(launch, "our metrics page") else { return };
        assert_eq!(export(&server, way, &message), Answer::Accepted, "{way:?}");
        let page = server.until("it is observed", |page| observed(page) == 1.0);
        let latency = page.only("flow_latency_seconds_sum", &[("flow", "order")]);
        assert!((latency.value - 7.25).abs() < 1e-9, "{way:?}: {latency:?}");
        assert_eq!(latency.labels["tenant"], "a\"b\\c\nd");
        pages.push(page.without(&["process_", "latency_aggregator_", "flow_last_closed"]));
    }
    assert_eq!(pages[0], pages[1]);
    assert_eq!(pages[0], pages[2]);
}

#[test]
fn line_41_chooses_to_reject_spans_without_valid_ids_and_to_keep_the_rest() {
    let bad: [(&str, Span); 8] = [
        ("trace id of zeros", Span { trace_id: vec![0; 16], ..span(1, 2) }),
        ("no trace id", Span { trace_id: Vec::new(), ..span(1, 3) }),
        ("short trace id", Span { trace_id: vec![1; 15], ..span(1, 4) }),
        ("long trace id", Span { trace_id: vec![1; 17], ..span(1, 5) }),
        ("span id of zeros", Span { span_id: vec![0; 8], ..span(1, 6) }),
        ("no span id", Span { span_id: Vec::new(), ..span(1, 7) }),
        ("short span id", Span { span_id: vec![1; 7], ..span(1, 8) }),
        ("long span id", Span { span_id: vec![1; 9], ..span(1, 9) }),
    ];
    for way in Way::ALL {
        let server = Target::patient();
        for (count, (what, bad)) in (1..).zip(bad.iter()) {
            let message = request("shop", vec![span(1, 1), bad.clone(), span(2, 1)]);
            let answer = export(&server, way, &message);
            let Answer::Partial { rejected, .. } = answer else {
                panic!("{way:?}, {what}: no partial success: {answer:?}");
            };
            assert_eq!(rejected, 1, "{way:?} {what}");
            if let Some(page) = server.scrape() {
                let rejected = page.sum("latency_aggregator_events_rejected_total", &[]);
                assert_eq!(rejected, f64::from(count), "{way:?} {what}");
            }
        }
        let all: Vec<Span> = bad.iter().map(|(_, span)| span.clone()).chain([span(1, 1)]).collect();
        assert_eq!(export(&server, way, &request("shop", all)).rejected(), 8, "{way:?}");
        check_received(&server, 33.0, 2.0);
    }
}

/// Times of spans that are odd: start, end, and whether ours rejects them.
fn odd_times() -> [(&'static str, u64, u64, bool); 10] {
    let now = unix_nanos(SystemTime::now());
    let year = 365 * 24 * 3600 * 1_000_000_000;
    [
        ("all zero", 0, 0, true),
        ("no start", 0, now, false),
        ("end before start", now, now - 1_000_000_000, false),
        ("start in the far future", u64::MAX, now, false),
        ("end in the far future", now, u64::MAX, true),
        ("both in the far future", u64::MAX, u64::MAX, true),
        ("end past the range of signed numbers", now, 1 << 63, true),
        ("end a year ahead", now, now + year, true),
        ("end a year ago", now - year, now - year, true),
        ("start a year ago", now - year, now, false),
    ]
}

#[test]
fn line_42_chooses_to_refuse_no_request_for_its_timestamps() {
    for way in Way::ALL {
        let server = Target::quick();
        for (trace, (what, start, end, rejected)) in (1..).zip(odd_times()) {
            let odd = Span { start_time_unix_nano: start, end_time_unix_nano: end, ..span(trace, 1) };
            let answer = export(&server, way, &request("shop", vec![odd]));
            assert!(!matches!(answer, Answer::Refused { .. }), "{way:?} {what}: {answer:?}");
            if server.ours().is_some() {
                assert_eq!(answer.rejected(), i64::from(rejected), "{way:?} {what}");
            }
        }
        let Some(server) = server.ours() else { continue };
        let page = server.until_settled();
        assert_eq!(page.sum("latency_aggregator_events_rejected_total", &[]), 6.0, "{way:?}");
    }
}

#[test]
fn line_42_chooses_to_measure_zero_when_the_end_is_before_the_start() {
    let Some(server) = Target::only_ours(Launch::config(QUICK), "our metrics page") else { return };
    let now = unix_nanos(SystemTime::now());
    let skewed = Span { start_time_unix_nano: now, end_time_unix_nano: now - 5_000_000_000, ..span(1, 1) };
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![skewed])), Answer::Accepted);
    let page = server.until("it is observed", |page| observed(page) == 1.0);
    assert_eq!(page.only("flow_latency_seconds_sum", &[]).value, 0.0);
}

#[test]
fn line_43_chooses_to_take_the_last_of_attributes_with_one_key() {
    let flow = "
flows:
  - name: order
    match: 'true'
    labels: {tenant: 'span.attributes[\"tenant\"]', region: 'resource.attributes[\"region\"]'}
";
    for way in Way::ALL {
        let launch = Launch::config(&format!("{QUICK}{flow}"));
        let Some(server) = Target::only_ours(launch, "our metrics page") else { return };
        let twice = Span {
            attributes: vec![attribute("tenant", "first"), attribute("tenant", "last")],
            ..span(1, 1)
        };
        let mut message = request("shop", vec![twice]);
        let resource = message.resource_spans[0].resource.as_mut().expect("it has one");
        resource.attributes.extend([attribute("region", "first"), attribute("region", "last")]);
        assert_eq!(export(&server, way, &message), Answer::Accepted);
        let page = server.until("it is observed", |page| observed(page) == 1.0);
        let labels = &page.only("flow_latency_seconds_count", &[]).labels;
        assert_eq!((labels["tenant"].as_str(), labels["region"].as_str()), ("last", "last"), "{way:?}");
    }
}

#[test]
fn line_44_chooses_to_change_nothing_when_a_request_is_delivered_again() {
    let launch = Launch::config(QUICK).args(&["--defaults.linger", "3s"]);
    let Some(server) = Target::only_ours(launch, "our metrics page") else { return };
    let message = request("shop", vec![span(1, 1), Span { parent_span_id: vec![1; 8], ..span(1, 2) }]);
    for way in [Way::Grpc, Way::Json, Way::Protobuf, Way::Grpc] {
        assert_eq!(export(&server, way, &message), Answer::Accepted);
    }
    let page = server.until("it is observed", |page| observed(page) == 1.0);
    assert_eq!(received(&page), 8.0);
    assert_eq!(page.sum("latency_aggregator_events_duplicate_total", &[]), 6.0, "{}", page.interesting());
    assert_eq!(page.sum("latency_aggregator_events_conflict_total", &[]), 0.0);
    assert_eq!(export(&server, Way::Grpc, &message), Answer::Accepted);
    let page =
        server.until("both are late", |page| page.sum("latency_aggregator_late_events_total", &[]) == 2.0);
    assert_eq!(observed(&page), 1.0);
    assert_eq!(opened(&page), 1.0, "a late event opens no second instance");
}

/// A value of arrays in arrays.
fn nested(depth: usize) -> AnyValue {
    let mut value = AnyValue::default();
    for _ in 0..depth {
        value = AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![value] })) };
    }
    value
}

#[test]
fn line_45_chooses_to_refuse_what_is_nested_too_deep_in_protobuf() {
    let server = Target::patient();
    let make = |depth: usize| {
        let deep = KeyValue { key: "deep".to_owned(), value: Some(nested(depth)), ..KeyValue::default() };
        request("shop", vec![Span { attributes: vec![deep], ..span(1, 1) }])
    };
    for way in [Way::Grpc, Way::Protobuf] {
        assert_eq!(export(&server, way, &make(10)), Answer::Accepted, "{way:?}");
        let Answer::Refused { code, .. } = export(&server, way, &make(200)) else {
            panic!("{way:?}: 400 messages deep was accepted");
        };
        let expected = if way == Way::Grpc { Code::InvalidArgument.into() } else { 400 };
        assert_eq!(code, expected, "{way:?}");
    }
}

#[test]
fn line_45_chooses_to_refuse_what_is_nested_too_deep_in_json() {
    let server = Target::patient();
    let json = |depth: usize| {
        let value = format!("{}{{}}{}", r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
        json_request(TRACE, r#""attributes":[{"key":"deep","value":"DEEP"}]"#).replace("\"DEEP\"", &value)
    };
    assert_eq!(json_answer(&post_json(&server, json(5))), Answer::Accepted);
    for depth in [200, 100_000] {
        let reply = post_json(&server, json(depth));
        assert_eq!(reply.status, 400, "{depth} values deep: {reply:?}");
        check_error(&reply, 400, JSON);
    }
    for unknown in ["[", "{\"a\":"] {
        let body = format!("{{\"unknown\":{}", unknown.repeat(1_000_000));
        check_error(&post_json(&server, body), 400, JSON);
    }
    assert_eq!(export(&server, Way::Json, &request("shop", vec![span(1, 1)])), Answer::Accepted);
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_behind() {
    let server = Server::patient("");
    let json = json_request(TRACE, "");
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\n");
    let declared = format!("{head}content-length: {}\r\n\r\n{json}", json.len() + 1);
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n", json.len());
    for sent in [declared, chunked, head] {
        let mut connection = Wire::connect(server.otlp_http());
        connection.write(sent);
        connection.hang_up();
    }
    let other = post_json(&server, json_request("fedcba9876543210fedcba9876543210", ""));
    assert_eq!(json_answer(&other), Answer::Accepted);
    let page = server.scrape();
    assert_eq!((received(&page), opened(&page)), (1.0, 1.0), "{}", page.interesting());
}

#[test]
fn chunked_bodies_are_put_together() {
    let server = Server::patient("");
    let mut connection = Wire::connect(server.otlp_http());
    connection.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    ));
    for byte in json_request(TRACE, "").as_bytes().chunks(7) {
        connection.write(format!("{:x}\r\n", byte.len()));
        connection.write(byte);
        connection.write("\r\n");
    }
    connection.write("0\r\n\r\n");
    assert_eq!(json_answer(&connection.read_reply()), Answer::Accepted);
    assert_eq!(received(&server.scrape()), 1.0);
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let server = Server::patient("");
    let json = json_request(TRACE, "");
    let mut connection = Wire::connect(server.otlp_http());
    connection.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        json.len()
    ));
    assert_eq!(connection.read_reply().status, 100);
    connection.write(&json);
    assert_eq!(json_answer(&connection.read_reply()), Answer::Accepted);
}

#[test]
fn a_wrong_content_length_is_no_request() {
    let server = Server::patient("");
    for length in ["-1", "x", "1, 2"] {
        let mut connection = Wire::connect(server.otlp_http());
        connection.write(format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n\r\n{{}}"
        ));
        assert_eq!(connection.read_reply().status, 400, "{length}");
    }
    assert_nothing_was_received(&server);
}

/// A request in pieces that were compressed one by one.
fn in_pieces() -> [(&'static str, Vec<u8>); 3] {
    let protobuf = request("shop", vec![span(1, 1)]).encode_to_vec();
    let (first, second) = protobuf.split_at(protobuf.len() / 2);
    [
        ("gzip", [gzip(first), gzip(second)].concat()),
        ("gzip", [gzip(first), gzip(b""), gzip(second)].concat()),
        ("zstd", [zstd(first), zstd(second)].concat()),
    ]
}

#[test]
fn members_of_gzip_and_frames_of_zstd_follow_one_another_over_http() {
    let server = Server::patient("");
    for (encoding, body) in in_pieces() {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let reply = server.post_otlp("/v1/traces", &headers, body);
        assert_eq!(protobuf_answer(&reply), Answer::Accepted, "{encoding}");
    }
    let page = server.scrape();
    assert_eq!((received(&page), opened(&page)), (3.0, 1.0));
}

#[test]
fn members_of_gzip_and_frames_of_zstd_follow_one_another_over_grpc() {
    let server = Server::patient("");
    for (encoding, body) in in_pieces() {
        let headers = [("grpc-encoding", encoding)];
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &headers, frame(true, &body));
        assert_eq!(reply.code, 0, "{encoding}: {reply:?}");
    }
    let page = server.scrape();
    assert_eq!((received(&page), opened(&page)), (3.0, 1.0));
}

const SPOILT: [(&str, &str, Coding); 6] = [
    ("cut within the data", "gzip", |plain| {
        let whole = gzip(plain);
        whole[..whole.len() - 9].to_vec()
    }),
    ("cut within the length", "gzip", |plain| {
        let whole = gzip(plain);
        whole[..whole.len() - 1].to_vec()
    }),
    ("wrong checksum", "gzip", |plain| {
        let mut whole = gzip(plain);
        let checksum = whole.len() - 8;
        whole[checksum] ^= 1;
        whole
    }),
    ("not compressed", "gzip", <[u8]>::to_vec),
    ("not compressed", "zstd", <[u8]>::to_vec),
    ("cut", "zstd", |plain| {
        let whole = zstd(plain);
        whole[..whole.len() - 3].to_vec()
    }),
];

const GARBAGE_BEHIND: [(&str, &str, Coding); 3] = [
    ("garbage behind", "gzip", |plain| [gzip(plain), b"garbage".to_vec()].concat()),
    ("garbage behind", "zstd", |plain| [zstd(plain), b"garbage".to_vec()].concat()),
    ("one more stream behind", "deflate", |plain| deflate(plain).repeat(2)),
];

#[test]
fn what_does_not_decompress_is_invalid_for_good_over_http() {
    let server = Server::patient("");
    let protobuf = request("shop", vec![span(1, 1)]).encode_to_vec();
    let json = json_request(TRACE, "").into_bytes();
    for (what, encoding, spoil) in SPOILT.into_iter().chain(GARBAGE_BEHIND) {
        for (content_type, plain) in [(PROTOBUF, &protobuf), (JSON, &json)] {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            let reply = server.post_otlp("/v1/traces", &headers, spoil(plain));
            assert_eq!(reply.status, 400, "{encoding}, {what}: {reply:?}");
            check_error(&reply, 400, content_type);
        }
    }
    let headers = [("content-type", PROTOBUF), ("content-encoding", "deflate")];
    let truncated = &deflate(&protobuf)[..20];
    check_error(&server.post_otlp("/v1/traces", &headers, truncated), 400, PROTOBUF);
    assert_nothing_was_received(&server);
}

#[test]
fn what_does_not_decompress_is_invalid_for_good_over_grpc() {
    let server = Server::patient("");
    let protobuf = request("shop", vec![span(1, 1)]).encode_to_vec();
    let mut wrong = Vec::new();
    for (what, encoding, spoil) in SPOILT {
        let body = frame(true, &spoil(&protobuf));
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[("grpc-encoding", encoding)], body);
        if reply.code != i32::from(Code::InvalidArgument) {
            wrong.push((what, encoding, reply.code, reply.message));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_nothing_was_received(&server);
}

#[test]
fn garbage_behind_compressed_data_is_refused_over_grpc() {
    let server = Server::patient("");
    let protobuf = request("shop", vec![span(1, 1)]).encode_to_vec();
    for (what, encoding, spoil) in GARBAGE_BEHIND {
        let body = frame(true, &spoil(&protobuf));
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[("grpc-encoding", encoding)], body);
        assert!(reply.code > 0, "{encoding}, {what}: {reply:?}");
    }
    assert_nothing_was_received(&server);
}

/// As a page of another site can have it posted by a browser that asks nobody.
#[test]
fn what_does_not_say_that_it_is_grpc_is_not_taken_for_it() {
    let server = Server::patient("");
    let body = frame(false, &request("shop", vec![span(1, 1)]).encode_to_vec());
    let url = format!("http://{}{EXPORT}", server.otlp_grpc());
    for content_type in ["text/plain", "application/x-protobuf", "application/grpcish", ""] {
        let headers = [("content-type", content_type), ("origin", "https://elsewhere.example")];
        assert_eq!(send(&client(), "POST", &url, &headers, body.clone()).status, 415, "{content_type}");
    }
    assert_eq!(send(&client(), "POST", &url, &[], body.clone()).status, 415);
    assert_nothing_was_received(&server);
    for content_type in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y"] {
        let reply = send(&client(), "POST", &url, &[("content-type", content_type)], body.clone());
        assert_eq!(reply.status, 200, "{content_type}");
    }
}

#[test]
fn fields_it_does_not_know_are_skipped_in_protobuf() {
    let server = Server::patient("");
    let message = request("shop", vec![span(1, 1)]).encode_to_vec();
    // Field 1000 as a varint, 64 bits, bytes, a group that holds a varint, 32 bits.
    let unknown: [&[u8]; 5] = [
        &[0xc0, 0x3e, 0x05],
        &[0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xc2, 0x3e, 2, 1, 2],
        &[0xc3, 0x3e, 0x08, 0x01, 0xc4, 0x3e],
        &[0xc5, 0x3e, 1, 2, 3, 4],
    ];
    for field in unknown {
        for body in [[field, &message].concat(), [&message, field].concat()] {
            assert_eq!(protobuf_answer(&post_protobuf(&server, body)), Answer::Accepted, "{field:?}");
        }
    }
    // A group without its end, an end without its group, wire types 6 and 7, field 0, a varint without its end.
    let wrong: [&[u8]; 6] = [
        &[0xc3, 0x3e, 0x08, 0x01],
        &[0xc4, 0x3e],
        &[0xc6, 0x3e, 0x00],
        &[0xc7, 0x3e, 0x00],
        &[0x00, 0x00],
        &[0xc0, 0x3e, 0xff],
    ];
    for field in wrong {
        check_error(&post_protobuf(&server, [&message, field].concat()), 400, PROTOBUF);
    }
    assert_eq!(received(&server.scrape()), 10.0);
}

#[test]
fn a_deadline_of_grpc_is_honoured() {
    let server = Server::patient("");
    let begun = Bytes::from_static(&[0, 0, 0, 1, 0, 1, 2, 3]);
    let (stalled, _rest, _) = paused_after(begun);
    let headers = [("grpc-timeout", "300m")];
    let reply = grpc_body(server.otlp_grpc(), EXPORT, &headers, stalled);
    let expected = [i32::from(Code::DeadlineExceeded), i32::from(Code::Cancelled)];
    assert!(expected.contains(&reply.code), "{reply:?}");
}

/// A body that begins with these bytes, and goes on and ends with those that are sent for the rest. It says when its
/// beginning is on its way.
fn paused_after(begun: Bytes) -> (BoxBody<Bytes, Infallible>, oneshot::Sender<Bytes>, mpsc::Receiver<()>) {
    struct Paused {
        begun: Option<Bytes>,
        has_begun: mpsc::Sender<()>,
        rest: Option<oneshot::Receiver<Bytes>>,
    }
    impl hyper::body::Body for Paused {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            if let Some(bytes) = self.begun.take() {
                // Whoever does not care has hung up.
                self.has_begun.send(()).unwrap_or_default();
                return Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes))));
            }
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            let bytes = ready!(Pin::new(rest).poll(context));
            self.rest = None;
            Poll::Ready(bytes.ok().map(|bytes| Ok(hyper::body::Frame::data(bytes))))
        }
    }
    let (has_begun, begins) = mpsc::channel();
    let (sender, rest) = oneshot::channel();
    (Paused { begun: Some(begun), has_begun, rest: Some(rest) }.boxed(), sender, begins)
}

#[test]
fn grpc_that_is_not_grpc_is_answered_as_grpc() {
    let server = Server::patient("");
    let message = request("shop", vec![span(1, 1)]).encode_to_vec();
    for (what, body) in [
        ("no frame", Vec::new()),
        ("a frame cut short", frame(false, &message)[..20].to_vec()),
        ("a header cut short", vec![0, 0, 0]),
        ("an unknown flag", [vec![9], frame(false, &message)[1..].to_vec()].concat()),
        ("compressed without an encoding", frame(true, &gzip(&message))),
    ] {
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], body);
        assert!(reply.code > 0, "{what}: {reply:?}");
        let retryable = [1, 4, 10, 11, 14, 15];
        assert!(!retryable.contains(&reply.code), "{what}: no retry could help: {reply:?}");
    }
    assert_nothing_was_received(&server);
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
}

#[test]
fn requests_are_counted_by_way_and_by_answer() {
    let server = Server::patient("");
    post_json(&server, "{}");
    post_json(&server, "{");
    post_protobuf(&server, [0x0a]);
    export(&server, Way::Grpc, &ExportTraceServiceRequest::default());
    let page = server.scrape();
    for (transport, code) in [("http_json", "200"), ("http_json", "400"), ("http_protobuf", "400")] {
        let labels = [("transport", transport), ("code", code)];
        assert_eq!(page.sum("latency_aggregator_requests_total", &labels), 1.0, "{transport} {code}");
    }
    assert_eq!(page.sum("latency_aggregator_requests_total", &[("transport", "grpc")]), 1.0);
}

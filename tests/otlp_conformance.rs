//! What a stock OTLP client may rely on: the lines of the OTLP checklist, each as a test that bears its number.

mod support;

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use support::exposition::Page;
use support::otlp::{
    Answer, EXPORT, JSON, PROTOBUF, Way, attribute, export, export_compressed, frame, grpc_body, grpc_client,
    grpc_raw, json_answer, json_request, on_runtime, post_json, protobuf_answer, request, span, unix_nanos,
};
use support::{Launch, PATIENT, QUICK, Reply, Server, Wire, client, deflate, gzip, send, zstd};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt;

const TRACE: &str = "0123456789abcdef0123456789abcdef";
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// Headers of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];
/// From plain bytes to compressed ones, or to what is wrong with them.
type Coding = fn(&[u8]) -> Vec<u8>;

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

/// An error answer of HTTP: its code, its content type, and a Status in the encoding of the request.
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

fn post_protobuf(server: &Server, body: impl Into<Vec<u8>>) -> Reply {
    server.post_otlp("/v1/traces", &[("content-type", PROTOBUF)], body)
}

#[test]
fn line_01_stock_clients_export_over_grpc_and_over_http() {
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    let server = Server::quick("");
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
    let page = server.until("both spans are observed", |page| observed(page) == 2.0);
    for transport in ["grpc", "http_protobuf"] {
        let only = page.only("latency_aggregator_events_received_total", &[("transport", transport)]);
        assert_eq!(only.value, 1.0, "{transport}");
    }
}

#[test]
fn line_02_every_compression_on_every_way_gives_the_same_result() {
    let server = Server::quick("");
    let ended = SystemTime::now();
    let make = |trace: u8| {
        let times = Span {
            start_time_unix_nano: unix_nanos(ended - Duration::from_secs(2)),
            end_time_unix_nano: unix_nanos(ended),
            ..span(trace, 1)
        };
        request("shop", vec![times])
    };
    let json = |trace: u8| serde_json::to_vec(&make(trace)).expect("it serialises");
    assert_eq!(export(&server, Way::Grpc, &make(1)), Answer::Accepted);
    for (trace, encoding) in [(2, CompressionEncoding::Gzip), (3, CompressionEncoding::Zstd)] {
        let answer = export_compressed(&server, encoding, make(trace));
        assert_eq!(answer.expect("it is understood"), Answer::Accepted, "{encoding}");
    }
    let http: [(&str, Coding); 4] =
        [("identity", <[u8]>::to_vec), ("gzip", gzip), ("zstd", zstd), ("deflate", deflate)];
    for (trace, (encoding, compress)) in (4..).step_by(2).zip(http) {
        let post = |content_type: &str, body: &[u8]| {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            server.post_otlp("/v1/traces", &headers, compress(body))
        };
        assert_eq!(
            protobuf_answer(&post(PROTOBUF, &make(trace).encode_to_vec())),
            Answer::Accepted,
            "{encoding}"
        );
        assert_eq!(json_answer(&post(JSON, &json(trace + 1))), Answer::Accepted, "{encoding}");
    }
    let page = server.until("all are observed", |page| observed(page) == 11.0);
    let latency = page.only("flow_latency_seconds_sum", &[]);
    assert!((latency.value - 22.0).abs() < 1e-6, "one series, 2 s each: {latency:?}");
}

#[test]
fn line_03_unknown_encodings_are_refused_with_what_is_accepted() {
    let server = Server::patient("");
    for content_type in [PROTOBUF, JSON] {
        for encoding in ["br", "snappy", "gzip, br", "compress"] {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            let reply = server.post_otlp("/v1/traces", &headers, "anything");
            check_error(&reply, 415, content_type);
            for accepted in ["gzip", "zstd", "deflate"] {
                assert!(reply.header("accept-encoding").contains(accepted), "{encoding}: {reply:?}");
            }
        }
    }
    let body = frame(true, &request("shop", vec![span(1, 1)]).encode_to_vec());
    let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[("grpc-encoding", "snappy")], body);
    assert_eq!(reply.code, i32::from(Code::Unimplemented), "{reply:?}");
    let accepted = reply.metadata.get("grpc-accept-encoding").expect("what is accepted");
    let accepted = accepted.to_str().expect("text");
    assert!(accepted.contains("gzip") && accepted.contains("zstd"), "{accepted}");
    assert_nothing_was_received(&server);
}

#[test]
fn line_04_one_port_takes_both_encodings_whatever_the_parameters_of_the_type() {
    let server = Server::patient("");
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
        assert_eq!(reply.text(), "{}", "{content_type}");
    }
    for content_type in
        ["application/x-protobuf", "application/x-protobuf; charset=utf-8", "APPLICATION/x-protobuf"]
    {
        let reply = server.post_otlp("/v1/traces", &[("content-type", content_type)], protobuf.clone());
        assert_eq!(reply.status, 200, "{content_type}: {reply:?}");
        assert!(reply.body.is_empty(), "{content_type}");
    }
    assert_eq!(received(&server.scrape()), 7.0);
}

#[test]
fn line_05_http_1_1_and_http_2_with_prior_knowledge_are_served() {
    let server = Server::patient("");
    let http2 =
        reqwest::blocking::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    let body = request("shop", vec![span(1, 1)]).encode_to_vec();
    for client in [client(), http2] {
        let url = format!("http://{}/v1/traces", server.otlp_http());
        let reply = send(&client, "POST", &url, &[("content-type", PROTOBUF)], body.clone());
        assert_eq!(protobuf_answer(&reply), Answer::Accepted);
        let url = format!("http://{}/health", server.http());
        assert_eq!(send(&client, "GET", &url, &[], Vec::new()).status, 200);
    }
    assert_eq!(received(&server.scrape()), 2.0);
}

#[test]
fn line_06_a_slow_request_holds_up_no_other() {
    let server = Server::patient("");
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
    assert_eq!(received(&server.scrape()), 102.0);
}

#[test]
fn line_07_one_connection_takes_a_thousand_requests_in_a_row() {
    let server = Server::patient("");
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
    let page = server.scrape();
    assert_eq!(received(&page), 2000.0);
    assert_eq!(opened(&page), 2.0);
}

#[test]
fn line_09_metrics_and_logs_are_refused_and_never_dropped_in_silence() {
    let server = Server::patient("");
    for path in ["/v1/metrics", "/v1/logs", "/v1/profiles", "/", "/v1", "/v2/traces"] {
        for content_type in [PROTOBUF, JSON] {
            let reply = server.post_otlp(path, &[("content-type", content_type)], "{}");
            check_error(&reply, 404, content_type);
        }
    }
    for service in ["metrics.v1.MetricsService", "logs.v1.LogsService", "trace.v1.TraceServices"] {
        let path = format!("/opentelemetry.proto.collector.{service}/Export");
        let reply = grpc_raw(server.otlp_grpc(), &path, &[], frame(false, &[]));
        assert_eq!(reply.http_status, 200, "{service}: {reply:?}");
        assert_eq!(reply.code, i32::from(Code::Unimplemented), "{service}: {reply:?}");
    }
}

#[test]
fn line_10_other_methods_are_refused_with_the_one_that_is_allowed() {
    let server = Server::patient("");
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
fn line_11_a_trailing_slash_is_an_alias_and_no_redirection() {
    let server = Server::patient("");
    let reply = server.post_otlp("/v1/traces/", &[("content-type", JSON)], json_request(TRACE, ""));
    assert_eq!(json_answer(&reply), Answer::Accepted);
    assert_eq!(received(&server.scrape()), 1.0);
}

#[test]
fn line_12_a_missing_or_unknown_content_type_is_refused_with_a_status_in_json() {
    let server = Server::patient("");
    let json = json_request(TRACE, "");
    check_error(&server.post_otlp("/v1/traces", &[], json.clone()), 415, JSON);
    for content_type in ["text/plain", "application/xml", "application/grpc", "application/jsonp", "", "/"] {
        let reply = server.post_otlp("/v1/traces", &[("content-type", content_type)], json.clone());
        check_error(&reply, 415, JSON);
    }
    assert_nothing_was_received(&server);
}

#[test]
fn line_13_no_page_of_another_origin_may_read_or_preflight_by_default() {
    let server = Server::patient("");
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
fn line_13_pages_of_the_origins_in_the_config_may_send_and_never_with_credentials() {
    let text = "
listen:
  http: 127.0.0.1:0
  otlp_grpc: null
  otlp_http: 127.0.0.1:0
  cors_origins: [https://shop.example, 'https://*.shop.example']
";
    let server = Launch::config(text).start();
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

#[test]
fn line_14_15_16_the_size_limit_holds_before_and_after_decompression_on_every_way() {
    const LIMIT: usize = 4096;
    let server = Launch::config(PATIENT)
        .args(&["--limits.request_bytes", "4096", "--push.request_bytes", "4096"])
        .start();
    for (size, fits) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false), (64 * LIMIT, false)] {
        let message = sized(size);
        let protobuf = message.encode_to_vec();
        assert_eq!(protobuf.len(), size);
        let json = padded(&json_request(TRACE, ""), size);
        let push = padded(r#"{"id":"1","name":"order","life_span":60}"#, size);
        for (content_type, plain) in [(PROTOBUF, protobuf.as_slice()), (JSON, json.as_bytes())] {
            for (encoding, body) in
                [("identity", plain.to_vec()), ("gzip", gzip(plain)), ("zstd", zstd(plain))]
            {
                let headers = [("content-type", content_type), ("content-encoding", encoding)];
                let reply = server.post_otlp("/v1/traces", &headers, body);
                if fits {
                    assert_eq!(reply.status, 200, "{content_type} {encoding} {size}: {reply:?}");
                } else {
                    let message = check_error(&reply, 413, content_type);
                    assert!(message.contains("4096"), "it names the limit: {message}");
                }
            }
        }
        for (encoding, body) in [("identity", push.clone().into_bytes()), ("gzip", gzip(push.as_bytes()))] {
            let headers = [("content-type", JSON), ("content-encoding", encoding)];
            let reply = server.push_with(&headers, body);
            assert_eq!(reply.status, if fits { 200 } else { 413 }, "push {encoding} {size}: {reply:?}");
        }
        let plain = on_runtime(async {
            let mut client = grpc_client(server.otlp_grpc()).await;
            client.export(message.clone()).await.map(drop)
        });
        let gzipped = export_compressed(&server, CompressionEncoding::Gzip, message.clone()).map(drop);
        let zstded = export_compressed(&server, CompressionEncoding::Zstd, message.clone()).map(drop);
        for (encoding, sent) in [("identity", plain), ("gzip", gzipped), ("zstd", zstded)] {
            let Err(status) = sent else {
                assert!(fits, "gRPC {encoding} {size} was accepted");
                continue;
            };
            assert!(!fits, "gRPC {encoding} {size}: {status:?}");
            assert_eq!(status.code(), Code::ResourceExhausted, "{encoding}: {status:?}");
            assert!(status.get_details_retry_info().is_none(), "no retry could help: {status:?}");
        }
    }
}

#[test]
fn line_15_http_beyond_the_limit_is_refused_without_waiting_for_the_rest() {
    let server = Launch::config(PATIENT).args(&["--limits.request_bytes", "4096"]).start();
    let mut connection = Wire::connect(server.otlp_http());
    connection.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 1000000000000\r\n\r\n"
    ));
    connection.write_if_wanted(" ".repeat(10_000));
    check_error(&connection.read_reply(), 413, JSON);
}

#[test]
fn line_16_a_grpc_message_that_declares_too_much_is_refused_unread() {
    let server = Launch::config(PATIENT).args(&["--limits.request_bytes", "4096"]).start();
    let mut body = vec![0];
    body.extend(u32::MAX.to_be_bytes());
    let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], body);
    assert_eq!(reply.code, i32::from(Code::ResourceExhausted), "{reply:?}");
}

#[test]
fn line_19_full_success_leaves_partial_success_unset() {
    let server = Server::patient("");
    let message = request("shop", vec![span(1, 1)]);
    assert_eq!(export(&server, Way::Grpc, &message), Answer::Accepted);
    let reply = post_protobuf(&server, message.encode_to_vec());
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let reply = post_json(&server, json_request(TRACE, ""));
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
}

#[test]
fn line_20_empty_requests_and_empty_envelopes_succeed() {
    let server = Server::patient("");
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
        r#"{"resourceSpans":null}"#,
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
    assert_nothing_was_received(&server);
}

#[test]
fn line_21_and_41_a_bad_span_is_rejected_alone_and_the_count_is_exact() {
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
        let server = Server::patient("");
        for (count, (what, bad)) in (1..).zip(bad.iter()) {
            let message = request("shop", vec![span(1, 1), bad.clone(), span(2, 1)]);
            let Answer::Partial { rejected, message } = export(&server, way, &message) else {
                panic!("{way:?} {what}: no partial success");
            };
            assert_eq!(rejected, 1, "{way:?} {what}");
            assert!(!message.is_empty(), "{way:?} {what}");
            let page = server.scrape();
            assert_eq!(
                page.sum("latency_aggregator_events_rejected_total", &[]),
                f64::from(count),
                "{way:?} {what}"
            );
        }
        let all: Vec<Span> = bad.iter().map(|(_, span)| span.clone()).chain([span(1, 1)]).collect();
        assert_eq!(export(&server, way, &request("shop", all)).rejected(), 8, "{way:?}");
        let page = server.scrape();
        assert_eq!(opened(&page), 2.0, "{way:?}");
        assert_eq!(received(&page), 33.0, "{way:?}: every event counts as received");
    }
}

#[test]
fn line_21_no_span_of_a_request_need_be_good() {
    for way in Way::ALL {
        let server = Server::patient("");
        let bad = |id: u8| Span { trace_id: vec![0; 16], ..span(1, id) };
        let message = request("shop", (1..=100).map(bad).collect());
        assert_eq!(export(&server, way, &message).rejected(), 100, "{way:?}");
        assert_eq!(opened(&server.scrape()), 0.0);
    }
}

#[test]
fn line_23_and_25_every_answer_is_in_the_encoding_of_its_request() {
    let server = Launch::config(PATIENT).args(&["--limits.request_bytes", "10000"]).start();
    let long = "x".repeat(10_001);
    for (content_type, good) in [(PROTOBUF, ""), (JSON, "{}")] {
        let reply = server.post_otlp("/v1/traces", &[("content-type", content_type)], good);
        assert_eq!((reply.status, reply.header("content-type")), (200, content_type));
        let typed = ("content-type", content_type);
        let cases: [(u16, &str, Headers<'_>, &str); 5] = [
            (400, "/v1/traces", &[typed], "\x07not what it says"),
            (400, "/v1/traces", &[typed, GZIP], "no gzip"),
            (404, "/v1/metrics", &[typed], "{}"),
            (413, "/v1/traces", &[typed], &long),
            (415, "/v1/traces", &[typed, ("content-encoding", "br")], "{}"),
        ];
        for (code, path, headers, body) in cases {
            check_error(&server.post_otlp(path, headers, body), code, content_type);
        }
    }
    assert_nothing_was_received(&server);
}

#[test]
fn line_24_an_answer_is_compressed_only_for_a_client_that_asks() {
    let server = Server::patient("");
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
fn line_26_what_cannot_be_decoded_is_invalid_for_good() {
    let server = Server::patient("");
    let message = request("shop", vec![span(1, 1)]).encode_to_vec();
    let truncated = &message[..message.len() - 1];
    for body in [&[0x0a][..], &[0x0a, 0x7f, 0x01], &[0xff; 20], truncated, b"{}"] {
        check_error(&post_protobuf(&server, body), 400, PROTOBUF);
        let reply = grpc_raw(server.otlp_grpc(), EXPORT, &[], frame(false, body));
        assert_eq!(reply.code, i32::from(Code::InvalidArgument), "{body:?}: {reply:?}");
        assert!(!reply.message.is_empty(), "{body:?}");
    }
    let json = json_request(TRACE, "");
    for body in [
        "{",
        "[]",
        "null",
        "1",
        r#"{"resourceSpans":{}}"#,
        r#"{"resourceSpans":[1]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":["x"]}]}]}"#,
        r#"{"resourceSpans":[],}"#,
        r#"{"resourceSpans":[]} x"#,
        "{'resourceSpans':[]}",
        "\u{feff}{",
        &json[..json.len() - 1],
    ] {
        check_error(&post_json(&server, body), 400, JSON);
    }
    let mut not_utf8 = json.clone().into_bytes();
    let place = json.find("POST").expect("its name");
    not_utf8[place] = 0xff;
    check_error(&post_json(&server, not_utf8), 400, JSON);
    check_error(&server.post_otlp("/v1/traces", &[("content-type", JSON)], ""), 400, JSON);
    assert_nothing_was_received(&server);
}

#[test]
fn line_26_details_say_what_is_wrong_with_the_request() {
    let server = Server::patient("");
    let reply = post_protobuf(&server, [0x0a]);
    let status = tonic_types::Status::decode(&*reply.body).expect("a google.rpc.Status");
    let bad_request = "type.googleapis.com/google.rpc.BadRequest";
    assert!(status.details.iter().any(|detail| detail.type_url == bad_request), "{status:?}");
    let reply = post_json(&server, "{");
    let details = reply.json()["details"].clone();
    let is_bad_request = |detail: &serde_json::Value| detail["@type"] == bad_request;
    assert!(details.as_array().is_some_and(|all| all.iter().any(is_bad_request)), "{}", reply.text());
}

#[test]
fn line_34_ids_are_hexadecimal_in_any_case_and_never_base64() {
    let server = Server::patient("");
    for (trace, span_id) in [
        (TRACE.to_owned(), "0102030405060a0b"),
        (TRACE.to_uppercase(), "0102030405060A0B"),
        ("0123456789AbCdEf0123456789aBcDeF".to_owned(), "0102030405060A0b"),
    ] {
        let reply = post_json(&server, json_request(&trace, &format!(r#""spanId":"{span_id}""#)));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{trace}");
    }
    let page = server.scrape();
    assert_eq!(opened(&page), 1.0, "{}", page.interesting());
    assert_eq!(page.sum("latency_aggregator_events_duplicate_total", &[]), 2.0);
    for fields in [
        r#""traceId":"AAECAwQFBgcICQoLDA0ODw==""#,
        r#""traceId":"0123456789abcdef0123456789abcdeg""#,
        r#""traceId":"0123456789abcdef0123456789abcde""#,
        r#""traceId":"0x0123456789abcdef0123456789abcdef""#,
        r#""traceId":"""#,
        r#""traceId":null"#,
        r#""spanId":"AQIDBAUGBwg=""#,
        r#""spanId":"0102030405060é""#,
        r#""spanId":"01 02030405060708""#,
    ] {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply).rejected(), 1, "{fields}: {}", reply.text());
    }
    for fields in [r#""parentSpanId":"""#, r#""parentSpanId":"01020304050607AA""#] {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{fields}");
    }
    assert_eq!(opened(&server.scrape()), 1.0);
}

#[test]
fn line_35_and_36_names_it_does_not_know_are_ignored_at_any_depth() {
    let server = Server::patient("");
    let snake_case = r#"{"resource_spans":[{"scope_spans":[{"spans":[{"trace_id":"x"}]}]}]}"#;
    assert_eq!(json_answer(&post_json(&server, snake_case)), Answer::Accepted);
    assert_nothing_was_received(&server);
    let known = json_request(
        TRACE,
        r#""new":{"deep":[[{"x":null}],1e5,"\u0000"]},"status":{"code":1,"new":{}},
           "attributes":[{"key":"a","value":{"stringValue":"b","new":1},"new":true},
                         {"key":"n","value":{"newValue":[1,2]}}],
           "links":[{"traceId":"0123456789abcdef0123456789abcdea","spanId":"0102030405060701","new":1}],
           "events":[{"name":"e","new":[]}]"#,
    );
    let wrapped = known.replacen('{', r#"{"new":[{"a":{}}],"resource_spans":7,"#, 1);
    let reply = post_json(&server, wrapped);
    assert_eq!(json_answer(&reply), Answer::Accepted, "{}", reply.text());
    assert_eq!(received(&server.scrape()), 1.0);
}

#[test]
fn line_37_enums_are_numbers_and_their_names_are_refused() {
    let server = Server::patient("");
    for fields in [
        r#""kind":"SPAN_KIND_SERVER""#,
        r#""status":{"code":"STATUS_CODE_ERROR"}"#,
        r#""status":{"code":"ERROR"}"#,
    ] {
        let reply = post_json(&server, json_request(TRACE, fields));
        check_error(&reply, 400, JSON);
    }
    assert_nothing_was_received(&server);
    for fields in
        [r#""kind":99"#, r#""kind":-1"#, r#""status":{"code":77}"#, r#""kind":null"#, r#""status":null"#]
    {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{fields}");
    }
}

#[test]
fn line_38_and_39_numbers_may_be_written_in_every_way_of_proto3_json() {
    let server = Server::patient("");
    let now = unix_nanos(SystemTime::now());
    let seconds = now / 1_000_000_000;
    for time in [
        format!("\"{now}\""),
        now.to_string(),
        format!("{seconds}e9"),
        format!("{seconds}.0e9"),
        format!("{seconds}000000000.0"),
        format!("\"{seconds}e9\""),
    ] {
        // Numbers keep their spelling when they are put into the text, not into a value.
        let json = json_request(TRACE, r#""endTimeUnixNano":"END""#).replace("\"END\"", &time);
        let reply = post_json(&server, json);
        assert_eq!(json_answer(&reply), Answer::Accepted, "{time}: {}", reply.text());
    }
    for value in [
        r#"{"intValue":"-5"}"#,
        r#"{"intValue":-5}"#,
        r#"{"intValue":5.0}"#,
        r#"{"intValue":"9223372036854775807"}"#,
        r#"{"doubleValue":"NaN"}"#,
        r#"{"doubleValue":"Infinity"}"#,
        r#"{"doubleValue":"-Infinity"}"#,
        r#"{"doubleValue":"1.5"}"#,
        r#"{"doubleValue":3}"#,
        r#"{"bytesValue":"aGVsbG8="}"#,
        r#"{"bytesValue":"-_8"}"#,
        r#"{"boolValue":true}"#,
        r#"{"arrayValue":{"values":[{"stringValue":"a"},{}]}}"#,
        r#"{"kvlistValue":{"values":[{"key":"a","value":{"intValue":1}}]}}"#,
        r#"{"stringValue":null}"#,
        "{}",
        "null",
    ] {
        let fields =
            format!(r#""attributes":[{{"key":"a","value":{value}}}],"droppedAttributesCount":3,"flags":257"#);
        let reply = post_json(&server, json_request(TRACE, &fields));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{value}: {}", reply.text());
    }
    for time in
        [r#""soon""#, r#""1.5""#, "1.5", "-1", r#""-1""#, "true", "{}", "18446744073709551616", "1e400"]
    {
        let json = json_request(TRACE, r#""endTimeUnixNano":"END""#).replace("\"END\"", time);
        check_error(&post_json(&server, json), 400, JSON);
    }
    assert_eq!(opened(&server.scrape()), 1.0);
}

#[test]
fn line_39_null_is_the_default_of_every_field() {
    let server = Server::patient("");
    for fields in [
        r#""parentSpanId":null,"name":null,"kind":null,"traceState":null,"flags":null"#,
        r#""attributes":null,"events":null,"links":null,"status":null,"droppedEventsCount":null"#,
        r#""attributes":[{"key":null,"value":null}],"startTimeUnixNano":null"#,
    ] {
        let reply = post_json(&server, json_request(TRACE, fields));
        assert_eq!(json_answer(&reply), Answer::Accepted, "{fields}: {}", reply.text());
    }
    let json = json_request(TRACE, "").replace(r#""resource":{"#, r#""schemaUrl":null,"resource":{"#);
    assert_eq!(json_answer(&post_json(&server, json)), Answer::Accepted);
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
fn line_40_the_official_example_is_read_and_is_old() {
    let old = Server::patient("");
    assert_eq!(json_answer(&post_json(&old, OFFICIAL_EXAMPLE)).rejected(), 1, "it ended in 2018");
    let server = Launch::config(QUICK)
        .args(&["--ingest.max_past", "36500d", "--defaults.parent_wait", "200ms"])
        .start();
    assert_eq!(json_answer(&post_json(&server, OFFICIAL_EXAMPLE)), Answer::Accepted);
    assert_eq!(opened(&server.scrape()), 1.0);
}

#[test]
fn line_40_the_same_spans_give_the_same_metrics_whatever_they_came_by() {
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
        let server = Server::quick(flow);
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
fn line_42_no_timestamp_is_too_odd() {
    let now = unix_nanos(SystemTime::now());
    let year = 365 * 24 * 3600 * 1_000_000_000;
    let cases = [
        ("all zero", 0, 0, 1),
        ("no start", 0, now, 0),
        ("end before start", now, now - 1_000_000_000, 0),
        ("start in the far future", u64::MAX, now, 0),
        ("end in the far future", now, u64::MAX, 1),
        ("both in the far future", u64::MAX, u64::MAX, 1),
        ("end past the range of signed numbers", now, 1 << 63, 1),
        ("end a year ahead", now, now + year, 1),
        ("end a year ago", now - year, now - year, 1),
        ("start a year ago", now - year, now, 0),
    ];
    for way in Way::ALL {
        let server = Server::quick("");
        for (trace, (what, start, end, rejected)) in (1..).zip(cases) {
            let odd = Span { start_time_unix_nano: start, end_time_unix_nano: end, ..span(trace, 1) };
            let answer = export(&server, way, &request("shop", vec![odd]));
            assert_eq!(answer.rejected(), rejected, "{way:?} {what}");
        }
        let page = server.until_settled();
        assert_eq!(page.sum("latency_aggregator_events_rejected_total", &[]), 6.0, "{way:?}");
    }
}

#[test]
fn line_42_an_end_before_the_start_measures_zero() {
    let server = Server::quick("");
    let now = unix_nanos(SystemTime::now());
    let skewed = Span { start_time_unix_nano: now, end_time_unix_nano: now - 5_000_000_000, ..span(1, 1) };
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![skewed])), Answer::Accepted);
    let page = server.until("it is observed", |page| observed(page) == 1.0);
    assert_eq!(page.only("flow_latency_seconds_sum", &[]).value, 0.0);
}

#[test]
fn line_43_of_attributes_with_one_key_the_last_wins() {
    let flow = "
flows:
  - name: order
    match: 'true'
    labels: {tenant: 'span.attributes[\"tenant\"]', region: 'resource.attributes[\"region\"]'}
";
    for way in Way::ALL {
        let server = Server::quick(flow);
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
fn line_44_a_request_delivered_again_changes_nothing() {
    let server = Launch::config(QUICK).args(&["--defaults.linger", "3s"]).start();
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
fn line_45_what_is_nested_too_deep_is_refused() {
    let server = Server::patient("");
    let make = |depth: usize| {
        let deep = KeyValue { key: "deep".to_owned(), value: Some(nested(depth)), ..KeyValue::default() };
        request("shop", vec![Span { attributes: vec![deep], ..span(1, 1) }])
    };
    let json = |depth: usize| {
        let value = format!("{}{{}}{}", r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
        json_request(TRACE, r#""attributes":[{"key":"deep","value":"DEEP"}]"#).replace("\"DEEP\"", &value)
    };
    for way in [Way::Grpc, Way::Protobuf] {
        assert_eq!(export(&server, way, &make(10)), Answer::Accepted, "{way:?}");
        let Answer::Refused { code, .. } = export(&server, way, &make(200)) else {
            panic!("{way:?}: 400 messages deep was accepted");
        };
        let expected = if way == Way::Grpc { Code::InvalidArgument.into() } else { 400 };
        assert_eq!(code, expected, "{way:?}");
    }
    assert_eq!(json_answer(&post_json(&server, json(5))), Answer::Accepted);
    for depth in [200, 100_000] {
        check_error(&post_json(&server, json(depth)), 400, JSON);
    }
    for unknown in ["[", "{\"a\":"] {
        let body = format!("{{\"unknown\":{}", unknown.repeat(1_000_000));
        check_error(&post_json(&server, body), 400, JSON);
    }
    assert_eq!(server.get("/health").status, 200);
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

const GARBAGE_BEHIND: [(&str, &str, Coding); 2] = [
    ("garbage behind", "gzip", |plain| [gzip(plain), b"garbage".to_vec()].concat()),
    ("garbage behind", "zstd", |plain| [zstd(plain), b"garbage".to_vec()].concat()),
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
    let first = stalled_after(begun);
    let headers = [("grpc-timeout", "300m")];
    let reply = grpc_body(server.otlp_grpc(), EXPORT, &headers, first);
    let expected = [i32::from(Code::DeadlineExceeded), i32::from(Code::Cancelled)];
    assert!(expected.contains(&reply.code), "{reply:?}");
}

/// A body that begins and does not go on.
fn stalled_after(begun: Bytes) -> http_body_util::combinators::BoxBody<Bytes, Infallible> {
    struct Stalled(Option<Bytes>);
    impl hyper::body::Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            match self.0.take() {
                Some(bytes) => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes)))),
                None => std::task::Poll::Pending,
            }
        }
    }
    Stalled(Some(begun)).boxed()
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

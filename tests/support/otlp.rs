//! OTLP clients: the generated gRPC client, the same call byte by byte, and requests to send with them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::{PATIENCE, Reply, Server, client, send};

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";
pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What takes OTLP over gRPC and over HTTP: a server of ours, or another one.
pub(crate) trait OtlpServer {
    fn otlp_grpc(&self) -> SocketAddr;
    fn otlp_http(&self) -> SocketAddr;

    /// Posts to the address of OTLP over HTTP.
    fn post_otlp(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
        let url = format!("http://{}{path}", self.otlp_http());
        send(&client(), "POST", &url, headers, body.into())
    }
}

impl OtlpServer for Server {
    fn otlp_grpc(&self) -> SocketAddr {
        Server::otlp_grpc(self)
    }

    fn otlp_http(&self) -> SocketAddr {
        Server::otlp_http(self)
    }

    fn post_otlp(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
        Server::post_otlp(self, path, headers, body)
    }
}

/// The three ways in that OTLP has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Grpc,
    Protobuf,
    Json,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Grpc, Way::Protobuf, Way::Json];
}

/// How a request was answered, whatever it came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Partial { rejected: i64, message: String },
    Refused { code: i32, message: String },
}

impl Answer {
    /// A partial success in which nothing is set means the same as none (trace_service.proto).
    fn success(rejected: i64, message: String) -> Answer {
        if rejected == 0 && message.is_empty() {
            Answer::Accepted
        } else {
            Answer::Partial { rejected, message }
        }
    }

    #[track_caller]
    pub(crate) fn rejected(&self) -> i64 {
        match self {
            Answer::Accepted => 0,
            Answer::Partial { rejected, .. } => *rejected,
            Answer::Refused { .. } => panic!("{self:?}"),
        }
    }
}

/// Sends a request by one of the ways, uncompressed.
pub(crate) fn export(server: &impl OtlpServer, way: Way, request: &ExportTraceServiceRequest) -> Answer {
    match way {
        Way::Grpc => {
            let sent = on_runtime(async {
                let mut client = grpc_client(server.otlp_grpc()).await;
                client.export(request.clone()).await
            });
            match sent {
                Ok(response) => answer(&response.into_inner()),
                Err(status) => {
                    Answer::Refused { code: status.code().into(), message: status.message().to_owned() }
                }
            }
        }
        Way::Protobuf => protobuf_answer(&server.post_otlp(
            "/v1/traces",
            &[("content-type", PROTOBUF)],
            request.encode_to_vec(),
        )),
        Way::Json => {
            let body = serde_json::to_vec(request).expect("it serialises");
            json_answer(&post_json(server, body))
        }
    }
}

pub(crate) fn post_json(server: &impl OtlpServer, body: impl Into<Vec<u8>>) -> Reply {
    server.post_otlp("/v1/traces", &[("content-type", JSON)], body)
}

fn answer(response: &ExportTraceServiceResponse) -> Answer {
    let partial = response.partial_success.clone().unwrap_or_default();
    Answer::success(partial.rejected_spans, partial.error_message)
}

pub(crate) fn protobuf_answer(reply: &Reply) -> Answer {
    assert_eq!(reply.header("content-type"), PROTOBUF, "{reply:?}");
    if reply.status == 200 {
        return answer(&ExportTraceServiceResponse::decode(&*reply.body).expect("a response"));
    }
    let status = tonic_types::Status::decode(&*reply.body).expect("a google.rpc.Status");
    Answer::Refused { code: i32::from(reply.status), message: status.message }
}

pub(crate) fn json_answer(reply: &Reply) -> Answer {
    assert_eq!(reply.header("content-type"), JSON, "{reply:?}");
    let body = reply.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    if reply.status != 200 {
        return Answer::Refused { code: i32::from(reply.status), message: text(&body["message"]) };
    }
    let partial = &body["partialSuccess"];
    // proto3 JSON writes 64-bit numbers as text.
    let rejected = &partial["rejectedSpans"];
    let rejected = rejected.as_i64().or_else(|| rejected.as_str().and_then(|text| text.parse().ok()));
    Answer::success(rejected.unwrap_or(0), text(&partial["errorMessage"]))
}

/// Runs something asynchronous to its end.
pub(crate) fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let limited = async { tokio::time::timeout(PATIENCE, work).await.expect("it ends in time") };
    runtime.expect("a runtime").block_on(limited)
}

pub(crate) async fn grpc_client(address: SocketAddr) -> TraceServiceClient<Channel> {
    TraceServiceClient::connect(format!("http://{address}")).await.expect("a gRPC connection")
}

/// Exports over gRPC with compression.
pub(crate) fn export_compressed(
    server: &impl OtlpServer,
    encoding: CompressionEncoding,
    request: ExportTraceServiceRequest,
) -> Result<Answer, tonic::Status> {
    on_runtime(async {
        let client = grpc_client(server.otlp_grpc()).await;
        let mut client = client.send_compressed(encoding).accept_compressed(encoding);
        let response = client.export(request).await?;
        Ok(answer(&response.into_inner()))
    })
}

/// The answer to a gRPC call that was written byte by byte.
#[derive(Debug)]
pub(crate) struct GrpcReply {
    pub http_status: u16,
    pub code: i32,
    pub message: String,
    /// Headers and trailers.
    pub metadata: http::HeaderMap,
}

/// A message as gRPC frames it.
pub(crate) fn frame(compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![u8::from(compressed)];
    framed.extend(u32::try_from(message.len()).expect("a small message").to_be_bytes());
    framed.extend(message);
    framed
}

/// One gRPC call with these bytes as its body.
pub(crate) fn grpc_raw(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> GrpcReply {
    grpc_body(address, path, headers, Full::new(Bytes::from(body)).boxed())
}

pub(crate) fn grpc_body(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: BoxBody<Bytes, std::convert::Infallible>,
) -> GrpcReply {
    on_runtime(async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://{address}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let mut metadata = parts.headers;
        let collected = body.collect().await.expect("a whole answer");
        metadata.extend(collected.trailers().cloned().unwrap_or_default());
        let text =
            |name: &str| metadata.get(name).map_or("", |value| value.to_str().expect("text")).to_owned();
        GrpcReply {
            http_status: parts.status.as_u16(),
            code: text("grpc-status").parse().unwrap_or(-1),
            message: text("grpc-message"),
            metadata,
        }
    })
}

/// Nanoseconds since 1970, as OTLP has them.
pub(crate) fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_nanos()).expect("a clock before 2554")
}

/// A server span of 100 ms that has just ended, without a parent.
pub(crate) fn span(trace: u8, id: u8) -> Span {
    let now = SystemTime::now();
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        name: "POST /orders".to_owned(),
        kind: 2,
        start_time_unix_nano: unix_nanos(now - Duration::from_millis(100)),
        end_time_unix_nano: unix_nanos(now),
        ..Span::default()
    }
}

pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}

/// Spans of one service.
pub(crate) fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

/// One span as JSON of a request; `fields` come behind its ids, times and name, and may replace them.
pub(crate) fn json_request(trace: &str, fields: &str) -> String {
    let span = span(1, 1);
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_value(serde_json::json!({
        "traceId": trace, "spanId": "0102030405060708", "name": "POST /orders", "kind": 2,
        "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
    }))
    .expect("an object");
    let more: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&format!("{{{fields}}}")).expect("fields of an object");
    object.extend(more);
    let request = serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"scope": {"name": "test"}, "spans": [object]}],
    }]});
    request.to_string()
}

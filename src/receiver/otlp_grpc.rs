//! OTLP over gRPC: `TraceService/Export`.
//!
//! One unary method, whose message is read by the reader that all ways in share and never becomes a prost struct (most of
//! the time of an ordinary receiver goes there); tonic has the words for what went wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{BufMut, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::body::{self, Encoding};
use super::otlp_http::export_response;
use super::{Receiver, ReceiverLimits, Refusal, retry_delay};
use crate::mapping::spans::MappedSpans;
use crate::metrics::Transport;
use crate::pipeline::Pipeline;

/// The method's path, from the service definition `collector/trace/v1/trace_service.proto`.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The routes of OTLP over gRPC.
pub fn router(pipeline: Arc<Pipeline>, limits: ReceiverLimits) -> Router {
    let receiver = Receiver::new(pipeline, limits);
    Router::new().route(EXPORT, post(export)).fallback(unimplemented).with_state(receiver)
}

async fn export(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return not_grpc(&receiver, request);
    }
    let exported = match timeout(request.headers()) {
        None => receiver.export_message(request).await,
        Some(deadline) => tokio::time::timeout(deadline, receiver.export_message(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the request was not there in time"))),
    };
    let (code, response) = match exported {
        Ok(mapped) => (Code::Ok, accepted(&mapped)),
        Err(status) => (status.code(), status.into_http()),
    };
    match code {
        Code::Ok => receiver.answered(Transport::Grpc, "0"),
        code => receiver.answered(Transport::Grpc, &(code as i32).to_string()),
    }
    response
}

impl Receiver {
    async fn export_message(&self, request: Request) -> Result<MappedSpans, Status> {
        let (parts, content) = request.into_parts();
        let export = async {
            let encoding = match encoding(&parts.headers) {
                Ok(encoding) => encoding,
                Err(refusal) => {
                    body::drain_later(content);
                    return Err(refusal);
                }
            };
            let read = |content| body::read_message(encoding, content, &self.limits);
            let content = self.read(content, read).await?;
            self.accept_traces(Transport::Grpc, content).await
        };
        export.await.map_err(|refusal| {
            self.refused(&refusal);
            status(&refusal)
        })
    }
}

/// Whether a request says that it is one of gRPC. A browser may be made to post anything from another site, but not under
/// this name.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    let format = content_type.as_deref().and_then(|value| value.strip_prefix(b"application/grpc"));
    format.is_some_and(|format| matches!(format.first(), None | Some(b'+' | b';' | b' ')))
}

/// As gRPC over HTTP2, "Requests", has it.
fn not_grpc(receiver: &Receiver, request: Request) -> Response {
    let refusal = Refusal::Unsupported("content-type must be application/grpc".to_owned());
    refuse_unread(receiver, request, &refusal);
    (refusal.http_status(), format!("{}\n", refusal.message())).into_response()
}

/// Names the compression of a message, and those that are accepted (gRPC over HTTP2, "Message-Encoding").
const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(b"zstd") => Ok(Encoding::Zstd),
        Some(b"deflate") => Ok(Encoding::Deflate),
        Some(_) => Err(Refusal::Unsupported(format!(
            "grpc-encoding is none of identity, {}",
            body::ACCEPTED_ENCODINGS
        ))),
    }
}

/// How long the client waits for its answer: `grpc-timeout`, at most 8 digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The answer: one message in a frame, and the status behind it.
fn accepted(mapped: &MappedSpans) -> Response {
    let message = export_response(mapped);
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("the message names few errors"));
    message.encode(&mut frame).expect("there is room for it");
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn unimplemented(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let refusal = Refusal::NotFound("only traces are received here, by TraceService/Export".to_owned());
    refuse_unread(&receiver, request, &refusal);
    status(&refusal).into_http()
}

/// Counts a request that is refused without having been read, and its answer.
fn refuse_unread(receiver: &Receiver, request: Request, refusal: &Refusal) {
    body::drain_later(request.into_body());
    receiver.refused(refusal);
    receiver.answered(Transport::Grpc, &(refusal.grpc_code() as i32).to_string());
}

/// Answers a call that carries no token of ours.
pub fn unauthenticated(pipeline: &Pipeline) -> Response {
    let refusal = Refusal::Unauthenticated;
    pipeline.metrics().request_refused(refusal.reason());
    pipeline.metrics().answered(Transport::Grpc, &(refusal.grpc_code() as i32).to_string());
    status(&refusal).into_http()
}

fn status(refusal: &Refusal) -> Status {
    let (code, message) = (refusal.grpc_code(), refusal.message());
    match refusal {
        _ if refusal.is_retryable() => {
            Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(retry_delay())))
        }
        Refusal::Undecodable(_) => {
            let details = ErrorDetails::with_bad_request_violation("request", message);
            Status::with_error_details(code, message, details)
        }
        Refusal::Unsupported(_) => {
            let accepted = [(GRPC_ACCEPT_ENCODING, HeaderValue::from_static(body::ACCEPTED_ENCODINGS))];
            let accepted = HeaderMap::from_iter(accepted);
            Status::with_metadata(code, message, MetadataMap::from_headers(accepted))
        }
        _ => Status::new(code, message),
    }
}

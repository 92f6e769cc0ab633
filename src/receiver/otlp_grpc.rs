//! OTLP over gRPC: `TraceService/Export`.
//!
//! tonic does the framing and the compression; the codec hands over the message's bytes, so that no prost struct is
//! built of a request (most of the time of an ordinary receiver goes there).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::body::Content;
use super::otlp_http::export_response;
use super::{Receiver, Refusal, accept_traces, body};
use crate::metrics::Transport;
use crate::pipeline::Pipeline;

/// The method's path, from the service definition `collector/trace/v1/trace_service.proto`.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// How long a client should wait when the process ends: until its successor listens.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The routes of OTLP over gRPC.
pub fn router(pipeline: Arc<Pipeline>, request_bytes: usize) -> Router {
    let receiver = Receiver { pipeline, request_bytes };
    Router::new().route(EXPORT, post(export)).fallback(unimplemented).with_state(receiver)
}

async fn export(State(receiver): State<Receiver>, request: Request) -> Response {
    let deadline = timeout(request.headers());
    let response = match tokio::time::timeout(deadline, receiver.call(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the request was not there in time").into_http(),
    };
    let response = never_out_of_range(response);
    let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok()).unwrap_or("0");
    receiver.pipeline.metrics().answered(Transport::Grpc, code);
    response.into_response()
}

impl Receiver {
    async fn call(&self, request: Request) -> http::Response<tonic::body::Body> {
        // tonic's own decompression reads the first gzip member only, and ignores what comes behind it.
        let request = match body::inflate_grpc(request, self.request_bytes).await {
            Ok(request) => request,
            Err(refusal) => return status(&refusal).into_http(),
        };
        let mut grpc = Grpc::new(BytesCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(self.request_bytes);
        grpc.unary(Export { pipeline: Arc::clone(&self.pipeline) }, request).await
    }
}

/// How long the client waits for its answer: `grpc-timeout`, at most 8 digits and a unit.
fn timeout(headers: &HeaderMap) -> Duration {
    let parse = || {
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
    };
    parse().unwrap_or(Duration::MAX)
}

/// tonic answers OUT_OF_RANGE to a message that is too large, and clients would send it again for ever.
fn never_out_of_range<B>(mut response: http::Response<B>) -> http::Response<B> {
    if Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::OutOfRange) {
        response.headers_mut().insert("grpc-status", HeaderValue::from(Code::ResourceExhausted as i32));
    }
    response
}

async fn unimplemented(State(receiver): State<Receiver>) -> Response {
    let code = (Code::Unimplemented as i32).to_string();
    receiver.pipeline.metrics().answered(Transport::Grpc, &code);
    let status = Status::unimplemented("only traces are received here, by TraceService/Export");
    status.into_http::<axum::body::Body>()
}

/// Answers a call that carries no token of ours.
pub fn unauthenticated(pipeline: &Pipeline) -> Response {
    let refusal = Refusal::Unauthenticated;
    pipeline.metrics().answered(Transport::Grpc, &(refusal.grpc_code() as i32).to_string());
    status(&refusal).into_http::<axum::body::Body>()
}

/// One call of the method.
#[derive(Debug)]
struct Export {
    pipeline: Arc<Pipeline>,
}

impl UnaryService<Bytes> for Export {
    type Response = Bytes;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let pipeline = Arc::clone(&self.pipeline);
        Box::pin(async move {
            let mapped =
                accept_traces(&pipeline, Transport::Grpc, Content::plain(request.into_inner())).await;
            let mapped = mapped.map_err(|refusal| status(&refusal))?;
            Ok(tonic::Response::new(export_response(&mapped).encode_to_vec().into()))
        })
    }
}

fn status(refusal: &Refusal) -> Status {
    let (code, message) = (refusal.grpc_code(), refusal.message());
    match refusal {
        _ if refusal.is_retryable() => {
            Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(RETRY_DELAY)))
        }
        Refusal::Undecodable(_) => {
            let details = ErrorDetails::with_bad_request_violation("request", message);
            Status::with_error_details(code, message, details)
        }
        _ => Status::new(code, message),
    }
}

/// Hands messages over as bytes.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

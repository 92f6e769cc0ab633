//! Takes requests in on the same sockets, with the same settings of HTTP and the same framing of gRPC as the program, and does
//! nothing with them: what is left is what the way in costs.
//!
//!     null_sink GRPC_ADDRESS HTTP_ADDRESS

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Buf, BufMut, Bytes};
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use latency_aggregator::listener;
use tokio::sync::watch;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Status, body};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [grpc, http] = addresses.try_into().map_err(|_| "usage: null_sink GRPC_ADDRESS HTTP_ADDRESS")?;
    let (grpc, http) = (listener::bind("grpc", &grpc).await?, listener::bind("http", &http).await?);
    let (_stop, stopped) = watch::channel(false);
    let by_grpc = Router::new().route(EXPORT, post(export));
    let by_http = Router::new().route("/v1/traces", post(traces)).route("/", post(push));
    tokio::join!(
        listener::serve(grpc, by_grpc, None, stopped.clone(), Duration::ZERO),
        listener::serve(http, by_http, None, stopped, Duration::ZERO),
    );
    Ok(())
}

async fn export(request: Request) -> http::Response<body::Body> {
    Grpc::new(Frames).max_decoding_message_size(LARGEST_REQUEST).unary(Nothing, request).await
}

async fn traces(request: Request) -> Response {
    read(request.into_body()).await;
    [(CONTENT_TYPE, "application/x-protobuf")].into_response()
}

async fn push(request: Request) -> Response {
    read(request.into_body()).await;
    ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

async fn read(body: Body) {
    if let Ok(collected) = body.collect().await {
        std::hint::black_box(collected.to_bytes());
    }
}

struct Nothing;

impl UnaryService<Bytes> for Nothing {
    type Response = Bytes;
    type Future = std::future::Ready<Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        std::hint::black_box(request.into_inner());
        std::future::ready(Ok(tonic::Response::new(Bytes::new())))
    }
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Frames;

impl Codec for Frames {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Frames;
    type Decoder = Frames;

    fn encoder(&mut self) -> Frames {
        Frames
    }

    fn decoder(&mut self) -> Frames {
        Frames
    }
}

impl Encoder for Frames {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

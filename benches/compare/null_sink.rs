//! Takes requests in on the same sockets, with the same settings of HTTP and the same framing of gRPC as the program, and does
//! nothing with them: what is left is what the way in costs.
//!
//!     null_sink GRPC_ADDRESS HTTP_ADDRESS

#[path = "sockets.rs"]
mod sockets;

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use latency_aggregator::listener;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [grpc, http] = addresses.try_into().map_err(|_| "usage: null_sink GRPC_ADDRESS HTTP_ADDRESS")?;
    let (grpc, http) = (listener::bind("grpc", &grpc).await?, listener::bind("http", &http).await?);
    let by_grpc = Router::new().route(EXPORT, post(export));
    let by_http = Router::new().route("/v1/traces", post(traces)).route("/", post(push));
    sockets::serve([(grpc, by_grpc), (http, by_http)]).await
}

/// An empty message in its frame, and the status behind it.
async fn export(request: Request) -> Response {
    read(request.into_body()).await;
    let trailers =
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let message = Full::new(Bytes::from_static(&[0; 5]));
    let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(trailers)))));
    ([(CONTENT_TYPE, "application/grpc")], body).into_response()
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

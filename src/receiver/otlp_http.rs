//! OTLP over HTTP: protobuf and JSON at one path, by default `/v1/traces`.
//!
//! Every answer, good or bad, is in the encoding of the request; errors are a `google.rpc.Status`
//! (OTLP specification, OTLP/HTTP response).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::json;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};
use tower::util::option_layer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{Receiver, ReceiverLimits, Refusal, add_remedy, body};
use crate::mapping::spans::MappedSpans;
use crate::metrics::Transport;
use crate::pipeline::Pipeline;

/// The routes of OTLP over HTTP at `path`.
pub fn router(pipeline: Arc<Pipeline>, limits: ReceiverLimits, path: &str) -> Router {
    let receiver = Receiver::new(pipeline, limits);
    let export = || post(export).fallback(method_not_allowed);
    Router::new()
        .route(path, export())
        // Some exporters are given the URL with a slash behind; a redirect would lose the body.
        .route(&format!("{path}/"), export())
        .fallback(not_found)
        .with_state(receiver)
}

/// The routes of `router` for browsers as well, from pages at `cors_origins`, never with cookies. Tokens are asked for
/// within: a browser asks without one first.
pub fn for_browsers(router: Router, cors_origins: Vec<String>) -> Router {
    router.layer(option_layer((!cors_origins.is_empty()).then(|| cors(cors_origins))))
}

fn cors(origins: Vec<String>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, _: &Parts| {
        origin.to_str().is_ok_and(|origin| origins.iter().any(|pattern| origin_matches(pattern, origin)))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::POST])
        .allow_headers([CONTENT_TYPE, CONTENT_ENCODING, AUTHORIZATION])
        .max_age(CORS_MAX_AGE)
}

/// How long a browser may remember that it may call us.
const CORS_MAX_AGE: Duration = Duration::from_secs(7200);

/// Whether an origin is the pattern, of which one part may be `*`.
fn origin_matches(pattern: &str, origin: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == origin,
        Some((start, end)) => {
            origin.len() >= start.len() + end.len() && origin.starts_with(start) && origin.ends_with(end)
        }
    }
}

/// How the request is written, and so the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Format::Protobuf),
            "application/json" => Some(Format::Json),
            _ => None,
        }
    }

    fn transport(self) -> Transport {
        match self {
            Format::Protobuf => Transport::HttpProtobuf,
            Format::Json => Transport::HttpJson,
        }
    }

    fn content_type(self) -> HeaderValue {
        match self {
            Format::Protobuf => HeaderValue::from_static("application/x-protobuf"),
            Format::Json => HeaderValue::from_static("application/json"),
        }
    }
}

async fn export(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let format = Format::of(request.headers());
    let result = match format {
        Some(format) => receiver.export(format, request).await,
        None => {
            body::drain_later(request.into_body());
            let message = "content-type must be application/x-protobuf or application/json";
            Err(Refusal::Unsupported(message.to_owned()))
        }
    };
    let format = format.unwrap_or(Format::Json);
    match result {
        Ok(mapped) => {
            let response = accepted(format, &mapped);
            receiver.answered(format.transport(), response.status().as_str());
            response
        }
        Err(refusal) => receiver.refuse(format, &refusal),
    }
}

impl Receiver {
    async fn export(&self, format: Format, request: Request) -> Result<MappedSpans, Refusal> {
        let (parts, content) = request.into_parts();
        let read = |content| body::read(&parts, content, &self.limits);
        let content = self.read(content, read).await?;
        self.accept_traces(format.transport(), content).await
    }

    fn refuse(&self, format: Format, refusal: &Refusal) -> Response {
        let response = refused(format, refusal);
        self.refused(refusal);
        self.answered(format.transport(), response.status().as_str());
        response
    }
}

async fn method_not_allowed(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let format = Format::of(request.headers()).unwrap_or(Format::Json);
    body::drain_later(request.into_body());
    let refusal = Refusal::MethodNotAllowed("traces are sent with POST".to_owned());
    let mut response = receiver.refuse(format, &refusal);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn not_found(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let format = Format::of(request.headers()).unwrap_or(Format::Json);
    body::drain_later(request.into_body());
    let message = "only traces are received here, by default at /v1/traces; send metrics and logs elsewhere";
    receiver.refuse(format, &Refusal::NotFound(message.to_owned()))
}

/// Answers a request that carries no token of ours.
pub fn unauthenticated(pipeline: &Pipeline, headers: &HeaderMap) -> Response {
    let format = Format::of(headers).unwrap_or(Format::Json);
    pipeline.metrics().request_refused(Refusal::Unauthenticated.reason());
    let response = refused(format, &Refusal::Unauthenticated);
    pipeline.metrics().answered(format.transport(), response.status().as_str());
    response
}

/// The response message; nothing is set in it when everything was accepted.
pub(super) fn export_response(mapped: &MappedSpans) -> ExportTraceServiceResponse {
    let rejected = mapped.rejected_spans();
    let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: mapped.explain(),
    });
    ExportTraceServiceResponse { partial_success }
}

fn accepted(format: Format, mapped: &MappedSpans) -> Response {
    let message = export_response(mapped);
    let body = match (format, &message.partial_success) {
        (Format::Protobuf, _) => message.encode_to_vec(),
        (Format::Json, None) => b"{}".to_vec(),
        // 64-bit integers are strings in proto3 JSON.
        (Format::Json, Some(partial)) => {
            let rejected = partial.rejected_spans.to_string();
            let partial = json!({ "rejectedSpans": rejected, "errorMessage": partial.error_message });
            json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    };
    respond(StatusCode::OK, format, body)
}

/// The type of the details of a request that cannot be understood.
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

fn refused(format: Format, refusal: &Refusal) -> Response {
    let (code, message) = (refusal.grpc_code(), refusal.message());
    let body = match format {
        Format::Json => {
            let mut status = json!({ "code": code as i32, "message": message });
            if matches!(refusal, Refusal::Undecodable(_)) {
                let violation = json!({ "field": "request", "description": message });
                status["details"] = json!([{ "@type": BAD_REQUEST, "fieldViolations": [violation] }]);
            }
            status.to_string().into_bytes()
        }
        Format::Protobuf => {
            let mut details = ErrorDetails::new();
            if matches!(refusal, Refusal::Undecodable(_)) {
                details.add_bad_request_violation("request", message);
            }
            // What gRPC sends as grpc-status-details-bin is the same message.
            Status::with_error_details(code, message, details).details().to_vec()
        }
    };
    let mut response = respond(refusal.http_status(), format, body);
    add_remedy(&mut response, refusal);
    response
}

fn respond(status: StatusCode, format: Format, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_matches_itself_or_a_pattern_with_one_star() {
        for (pattern, origin, expected) in [
            ("https://shop.example", "https://shop.example", true),
            ("https://shop.example", "https://shop.example.evil", false),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("*", "https://anything", true),
        ] {
            assert_eq!(origin_matches(pattern, origin), expected, "{pattern} {origin}");
        }
    }
}

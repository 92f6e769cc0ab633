//! Native push: one JSON object, or an array of them, with `POST /`.
//!
//! Compatible with the ancestor's Go client, which sends no content type and wants a JSON object back.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{LARGE_BYTES, Refusal, body, run};
use crate::domain::event::Incoming;
use crate::domain::time::Now;
use crate::mapping::push::{MappedPush, PushError, map_push};
use crate::mapping::spans::Rejection;
use crate::metrics::{Received, Transport};
use crate::pipeline::Pipeline;

/// What the way in needs.
#[derive(Debug, Clone)]
struct Receiver {
    pipeline: Arc<Pipeline>,
    request_bytes: usize,
}

/// How many warnings and errors one reply names.
const MAX_REPORTED: usize = 100;

/// The route of native push.
pub fn router(pipeline: Arc<Pipeline>, request_bytes: usize) -> Router {
    let receiver = Receiver { pipeline, request_bytes };
    Router::new().route("/", post(push).fallback(method_not_allowed)).with_state(receiver)
}

async fn push(State(receiver): State<Receiver>, request: Request) -> Response {
    let result = receiver.push(request).await;
    let response = match result {
        Ok(reply) => json_response(http::StatusCode::OK, &reply),
        Err(refusal) => refused(&refusal),
    };
    receiver.pipeline.metrics().answered(Transport::Push, response.status().as_str());
    response
}

async fn method_not_allowed(State(receiver): State<Receiver>) -> Response {
    let message = "events are pushed with POST; metrics are at /metrics".to_owned();
    let mut response = refused(&Refusal::MethodNotAllowed(message));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    receiver.pipeline.metrics().answered(Transport::Push, response.status().as_str());
    response
}

fn refused(refusal: &Refusal) -> Response {
    let reply = json!({ "error": refusal.message(), "retryable": refusal.is_retryable() });
    let mut response = json_response(refusal.http_status(), &reply);
    if refusal.is_retryable() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    if matches!(refusal, Refusal::Unsupported(_)) {
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(body::ACCEPTED_ENCODINGS));
    }
    response
}

fn json_response(status: http::StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

impl Receiver {
    async fn push(&self, request: Request) -> Result<Value, Refusal> {
        let (parts, content) = request.into_parts();
        check_content_type(&parts.headers)?;
        let bytes = body::read(&parts.headers, content, self.request_bytes).await?;
        let pipeline = Arc::clone(&self.pipeline);
        run(bytes.len() >= LARGE_BYTES, move || accept(&pipeline, &bytes)).await
    }
}

/// JSON, or nothing at all: the ancestor's client does not say. A browser, which may be made to post from another
/// site without asking, does say where it comes from then.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type =
        headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let essence = content_type.as_deref().map(|value| value.split(';').next().unwrap_or_default().trim());
    match essence {
        Some("application/json") => Ok(()),
        None if !headers.contains_key(ORIGIN) => Ok(()),
        _ => Err(Refusal::Unsupported(
            "content-type must be application/json (with curl: -H 'Content-Type: application/json')"
                .to_owned(),
        )),
    }
}

fn accept(pipeline: &Pipeline, body: &Bytes) -> Result<Value, Refusal> {
    let now = pipeline.now();
    let undecodable =
        |error: serde_json::Error| Refusal::Undecodable(format!("the body is no valid JSON: {error}"));
    match serde_json::from_slice::<Value>(body).map_err(undecodable)? {
        Value::Array(pushes) => accept_many(pipeline, &pushes, now),
        push => accept_one(pipeline, &push, now),
    }
}

fn accept_one(pipeline: &Pipeline, push: &Value, now: Now) -> Result<Value, Refusal> {
    let mapped =
        map(pipeline, push, now).map_err(|error| Refusal::Undecodable(error.message().to_owned()))?;
    let mut gathered = Gathered::default();
    let warnings: Vec<Value> = gathered.take(mapped).into_iter().map(Value::from).collect();
    gathered.ingest(pipeline, now)?;
    let mut reply = json!({ "status": "ok" });
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    Ok(reply)
}

fn accept_many(pipeline: &Pipeline, pushes: &[Value], now: Now) -> Result<Value, Refusal> {
    let mut gathered = Gathered::default();
    let (mut rejected, mut warnings) = (Vec::new(), Vec::new());
    for (index, push) in pushes.iter().enumerate() {
        match map(pipeline, push, now) {
            Ok(mapped) => {
                let messages = gathered.take(mapped);
                warnings.extend(
                    messages.into_iter().map(|warning| json!({ "index": index, "warning": warning })),
                );
            }
            Err(error) => rejected.push(json!({ "index": index, "error": error.message() })),
        }
    }
    let (accepted, refused) = (gathered.events.len(), rejected.len());
    gathered.refused = refused as u64;
    gathered.ingest(pipeline, now)?;
    rejected.truncate(MAX_REPORTED);
    warnings.truncate(MAX_REPORTED);
    let status = if refused == 0 { "ok" } else { "partial" };
    let mut reply = json!({ "status": status, "accepted": accepted, "rejected": rejected });
    if refused > MAX_REPORTED {
        reply["rejected_total"] = refused.into();
    }
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    Ok(reply)
}

fn map(pipeline: &Pipeline, push: &Value, now: Now) -> Result<MappedPush, PushError> {
    map_push(push, &pipeline.catalog, &pipeline.limits, now).inspect_err(|error| {
        if matches!(error, PushError::TooManyFlows(_)) {
            pipeline.metrics().flow_refused();
        }
    })
}

/// The pushes of one request.
#[derive(Debug, Default)]
struct Gathered {
    events: Vec<Incoming>,
    refused: u64,
    truncated: u64,
    warnings: BTreeMap<&'static str, u64>,
}

impl Gathered {
    /// Adds a push; returns its warnings.
    fn take(&mut self, mapped: MappedPush) -> Vec<String> {
        self.events.push(mapped.incoming);
        self.truncated += mapped.truncated;
        let count = |(kind, message)| {
            *self.warnings.entry(kind).or_default() += 1;
            message
        };
        mapped.warnings.into_iter().map(count).collect()
    }

    fn ingest(self, pipeline: &Pipeline, now: Now) -> Result<(), Refusal> {
        let rejected =
            if self.refused > 0 { vec![(Rejection::Push.as_str(), self.refused)] } else { Vec::new() };
        let received = Received {
            events: self.events.len() as u64 + self.refused,
            rejected,
            sampled: 0,
            truncated: self.truncated,
            warnings: self.warnings.into_iter().collect(),
        };
        Ok(pipeline.ingest(Transport::Push, &received, self.events, now)?)
    }
}

//! Native push: one JSON object, or an array of them, with `POST /`.
//!
//! Compatible with the ancestor's Go client, which sends no content type and wants a JSON object back.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use serde_json::value::RawValue;

use super::in_flight::Reserved;
use super::{Receiver, ReceiverLimits, Refusal, add_remedy, body, run};
use crate::domain::batch::Batch;
use crate::domain::event::Incoming;
use crate::domain::time::Now;
use crate::mapping::admission::Rejection;
use crate::mapping::push::{MappedPush, PushError, Value, map_push};
use crate::metrics::{Received, Transport};
use crate::pipeline::input::Input;
use crate::pipeline::{Applied, InForce, Pipeline};

/// How many warnings and errors one reply names.
const MAX_REPORTED: usize = 100;

/// The route of native push.
pub fn router(pipeline: Arc<Pipeline>, limits: ReceiverLimits) -> Router {
    let receiver = Receiver::new(pipeline, limits);
    Router::new().route("/", post(push).fallback(method_not_allowed)).with_state(receiver)
}

async fn push(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let result = receiver.push(request).await;
    let response = match result {
        Ok(reply) => json_response(http::StatusCode::OK, reply),
        Err(refusal) => {
            receiver.refused(&refusal);
            refused(&refusal)
        }
    };
    receiver.answered(Transport::Push, response.status().as_str());
    response
}

async fn method_not_allowed(State(receiver): State<Arc<Receiver>>) -> Response {
    let message = "events are pushed with POST; metrics are at /metrics".to_owned();
    let refusal = Refusal::MethodNotAllowed(message);
    receiver.refused(&refusal);
    let mut response = refused(&refusal);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    receiver.answered(Transport::Push, response.status().as_str());
    response
}

/// Answers a request that carries no token of ours.
pub fn unauthenticated(pipeline: &Pipeline) -> Response {
    pipeline.metrics().request_refused(Refusal::Unauthenticated.reason());
    let response = refused(&Refusal::Unauthenticated);
    pipeline.metrics().answered(Transport::Push, response.status().as_str());
    response
}

fn refused(refusal: &Refusal) -> Response {
    let reply = json!({ "error": refusal.message(), "retryable": refusal.is_retryable() });
    let mut response = json_response(refusal.http_status(), reply.to_string().into());
    add_remedy(&mut response, refusal);
    response
}

fn json_response(status: http::StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Receiver {
    async fn push(&self, request: Request) -> Result<Bytes, Refusal> {
        let (parts, content) = request.into_parts();
        if let Err(refusal) = check_content_type(&parts.headers) {
            body::drain_later(content);
            return Err(refusal);
        }
        let read = |content| body::read(&parts, content, &self.limits);
        let content = self.read(content, read).await?;
        let pipeline = Arc::clone(&self.pipeline);
        let permit = self.permit(&content).await;
        let accept = move || {
            let (body, mut reserved) = content.inflate()?;
            accept(&pipeline, &body, &mut reserved)
        };
        let applied = run(self.pipeline.metrics().panics(), permit, accept).await?;
        Ok(self.pipeline.stored(applied).await?)
    }
}

/// JSON, or nothing at all: the ancestor's client does not say. A browser, which may be made to post from another
/// site without asking, does say where it comes from then.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = headers.get(CONTENT_TYPE);
    if content_type.is_some_and(|value| value == "application/json") {
        return Ok(());
    }
    let content_type = content_type.map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
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

/// What a push takes as an event of its own, in bytes, roughly.
const PUSH_BYTES: usize = 512;
/// Nothing shorter is a push.
const SHORTEST_PUSH: &str = r#"{"id":"1","name":"a"}"#;

fn accept(pipeline: &Pipeline, body: &[u8], reserved: &mut Reserved) -> Result<Applied<Bytes>, Refusal> {
    let now = pipeline.now();
    let body = Body::read(body)?;
    if let Pushes::Many(pushes) = &body.pushes {
        // Before any of them has created a flow.
        let may_be_right = pushes.iter().filter(|push| push.get().len() >= SHORTEST_PUSH.len());
        reserved.grow(may_be_right.count() * PUSH_BYTES)?;
    }
    // Mapping may create flows, which is a matter of the order, too.
    pipeline.log(&Input::Pushes { now, request: body.text }, || body.accept(pipeline, now))
}

/// Takes in again what a log says.
pub(super) fn accept_again(pipeline: &Pipeline, body: &[u8], now: Now) -> Result<(), Refusal> {
    Body::read(body)?.accept(pipeline, now).map(drop)
}

/// The body of a request, decoded as a whole.
struct Body<'b> {
    text: &'b [u8],
    pushes: Pushes<'b>,
}

enum Pushes<'b> {
    One(Value<'b>),
    /// One push at a time becomes values: a tree of all would be many times as large as the body.
    Many(Vec<&'b RawValue>),
}

impl<'b> Body<'b> {
    fn read(text: &'b [u8]) -> Result<Self, Refusal> {
        let undecodable =
            |error: serde_json::Error| Refusal::Undecodable(format!("the body is no valid JSON: {error}"));
        let pushes = match (text.trim_ascii_start().starts_with(b"["), std::str::from_utf8(text)) {
            // To look at the whole once costs less than to look at each of its texts.
            (false, Ok(text)) => serde_json::from_str(text).map(Pushes::One),
            // Says where it is wrong.
            (false, Err(_)) => serde_json::from_slice(text).map(Pushes::One),
            (true, _) => serde_json::from_slice(text).map(Pushes::Many),
        };
        Ok(Body { text, pushes: pushes.map_err(undecodable)? })
    }

    fn accept(&self, pipeline: &Pipeline, now: Now) -> Result<Bytes, Refusal> {
        match &self.pushes {
            Pushes::One(push) => accept_one(pipeline, push, now),
            Pushes::Many(pushes) => accept_many(pipeline, pushes, now),
        }
    }
}

/// The answer to one push about which there is nothing to say.
const OK: &[u8] = br#"{"status":"ok"}"#;

fn accept_one(pipeline: &Pipeline, push: &Value<'_>, now: Now) -> Result<Bytes, Refusal> {
    let in_force = pipeline.in_force();
    let mapped = map(pipeline, &in_force, push, now)
        .map_err(|error| Refusal::Undecodable(error.message().to_owned()))?;
    let mut gathered = Gathered::default();
    let mut warnings = gathered.take(mapped);
    if gathered.ingest(pipeline, &in_force, now)? > 0 {
        let message = "this stage was pushed before with other content; the earlier event counts";
        warnings.push(message.to_owned());
    }
    if warnings.is_empty() {
        return Ok(Bytes::from_static(OK));
    }
    Ok(json!({ "status": "ok", "warnings": warnings }).to_string().into())
}

fn accept_many(pipeline: &Pipeline, pushes: &[&RawValue], now: Now) -> Result<Bytes, Refusal> {
    let in_force = pipeline.in_force();
    let mut gathered = Gathered::default();
    let (mut rejected, mut warnings) = (Vec::new(), Vec::new());
    for (index, push) in pushes.iter().enumerate() {
        let read = serde_json::from_str(push.get()).map_err(|error| PushError::Invalid(error.to_string()));
        match read.and_then(|push| map(pipeline, &in_force, &push, now)) {
            Ok(mapped) => {
                let room = MAX_REPORTED.saturating_sub(warnings.len());
                let messages = gathered.take(mapped).into_iter().take(room);
                warnings.extend(messages.map(|warning| json!({ "index": index, "warning": warning })));
            }
            Err(error) => {
                gathered.refused += 1;
                if rejected.len() < MAX_REPORTED {
                    rejected.push(json!({ "index": index, "error": error.message() }));
                }
            }
        }
    }
    let (accepted, refused) = (gathered.events.len(), gathered.refused);
    let conflicts = gathered.ingest(pipeline, &in_force, now)?;
    if conflicts > 0 {
        let message =
            format!("{conflicts} stages were pushed before with other content; the earlier events count");
        warnings.push(json!({ "warning": message }));
    }
    let status = if refused == 0 { "ok" } else { "partial" };
    let is_cut = refused > rejected.len() as u64;
    let mut reply = json!({ "status": status, "accepted": accepted, "rejected": rejected });
    if is_cut {
        reply["rejected_total"] = refused.into();
    }
    if !warnings.is_empty() {
        reply["warnings"] = warnings.into();
    }
    Ok(reply.to_string().into())
}

fn map(pipeline: &Pipeline, in_force: &InForce, push: &Value<'_>, now: Now) -> Result<MappedPush, PushError> {
    map_push(push, &in_force.catalog, &pipeline.limits, now).inspect_err(|error| {
        if matches!(error, PushError::TooManyFlows(_)) {
            pipeline.metrics().flow_refused();
        }
    })
}

/// The pushes of one request.
#[derive(Debug, Default)]
struct Gathered {
    events: Batch,
    refused: u64,
    truncated: u64,
    warnings: BTreeMap<&'static str, u64>,
}

impl Gathered {
    /// Adds a push; returns its warnings.
    fn take(&mut self, mapped: MappedPush) -> Vec<String> {
        let Incoming { key, event, joints } = mapped.incoming;
        self.events.push(key, event, joints);
        self.truncated += mapped.truncated;
        let count = |(kind, message)| {
            *self.warnings.entry(kind).or_default() += 1;
            message
        };
        mapped.warnings.into_iter().map(count).collect()
    }

    /// Returns how many of them repeat earlier ones with other content.
    fn ingest(self, pipeline: &Pipeline, in_force: &InForce, now: Now) -> Result<u64, Refusal> {
        let rejected =
            if self.refused > 0 { vec![(Rejection::Push.as_str(), self.refused)] } else { Vec::new() };
        let received = Received {
            events: self.events.len() as u64 + self.refused,
            rejected,
            sampled: 0,
            overlong_keys: 0,
            truncated: self.truncated,
            warnings: self.warnings.into_iter().collect(),
        };
        Ok(pipeline.ingest(in_force, Transport::Push, &received, self.events, now)?)
    }
}

//! What people and Prometheus look at: /metrics, /api/flows, /health, /livez and /readyz.

mod page;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use tokio::sync::watch;

use page::Places;

use crate::explain::{Closing, FlowOverview};
use crate::metrics::Task;
use crate::metrics::exposition::Format;
use crate::pipeline::Pipeline;
use crate::tasks::attempt_now;

/// Whether the program wants traffic, and who has looked at its metrics.
#[derive(Debug, Default)]
pub struct Status {
    ready: AtomicBool,
    /// What is received cannot be stored.
    stores_nothing: AtomicBool,
    /// Everything has been closed: scrapes show the last there is to see.
    closed: AtomicBool,
    /// How many scrapes have shown it.
    last_scrapes: watch::Sender<u32>,
}

impl Status {
    /// Says whether the program wants traffic.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// Says whether what is received can be stored.
    pub fn set_stores(&self, stores: bool) {
        self.stores_nothing.store(!stores, Relaxed);
    }

    /// Says that everything has been closed, at once, and resolves when that many scrapes have shown it to the end.
    pub fn last_scrapes(&self, scrapes: u32) -> impl Future<Output = ()> {
        self.closed.store(true, Relaxed);
        async move {
            let mut seen = self.last_scrapes.subscribe();
            seen.wait_for(|seen| *seen >= scrapes).await.expect("the sender lives as long as self");
        }
    }
}

#[derive(Debug, Clone)]
struct Web {
    pipeline: Arc<Pipeline>,
    status: Arc<Status>,
    /// The places of scrapes.
    scrapes: Arc<Places>,
    /// Those of answers of the API.
    answers: Arc<Places>,
}

/// The routes of metrics and the API; at the push address, or at one of their own. `scrapes` may be under way at once, and
/// as many answers of the API; further ones are refused, unless one of these is not being read.
pub fn router(pipeline: Arc<Pipeline>, status: Arc<Status>, scrapes: usize) -> Router {
    let (scrapes, answers) = (Places::new(scrapes), Places::new(scrapes));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/flows", get(flows))
        .route("/api/flows/{flow}/{key}", get(instance))
        .with_state(Web { pipeline, status, scrapes, answers })
}

/// The routes of health, open to all, which both addresses have.
pub fn health_router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(status)
}

/// Answers a request that carries no token of ours.
pub fn unauthenticated(pipeline: &Pipeline) -> Response {
    pipeline.metrics().read_unauthenticated();
    let error = "a valid token is needed, as in `authorization: Bearer TOKEN` (auth.read_token_file)\n";
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

async fn metrics(State(web): State<Web>, method: Method, headers: HeaderMap) -> Response {
    // A page may be large: as many at once as there are likely to be Prometheus servers.
    let place = web.scrapes.take();
    if place.as_ref().is_none_or(|(_, from_another)| *from_another) {
        web.pipeline.metrics().scrape_refused();
    }
    let Some((place, _)) = place else {
        let error = "too many scrapes at once (metrics.concurrent_scrapes); try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], error).into_response();
    };
    // Formatting many series takes a while: not on a thread that also takes requests in.
    let pipeline = Arc::clone(&web.pipeline);
    let is_last = web.status.closed.load(Relaxed) && method == Method::GET;
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(&accept.join(","));
    let is_compressed = accepts_gzip(&headers);
    let Some(families) = pipeline.shown().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let render = move || {
        let page = format.render(&families);
        match is_compressed.then(|| gzip(&page)).flatten() {
            Some(compressed) => (place.fill(vec![compressed.into()]), true),
            None => (place.fill(page), false),
        }
    };
    let Some((page, is_compressed)) = apart(&web, render).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let page = if is_last { page.counted_by(web.status.last_scrapes.clone()) } else { page };
    let mut response_headers = HeaderMap::new();
    let content_type = HeaderValue::try_from(format.content_type());
    response_headers.insert(CONTENT_TYPE, content_type.expect("all content types are plain ASCII"));
    response_headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_compressed {
        response_headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    (response_headers, Body::new(page)).into_response()
}

/// One flow in the list of all.
#[derive(Debug, Serialize)]
struct FlowEntry {
    #[serde(flatten)]
    overview: FlowOverview,
    recent: Vec<Closing>,
}

/// All flows, and what they closed last.
async fn flows(State(web): State<Web>) -> Response {
    let pipeline = Arc::clone(&web.pipeline);
    answer(&web, move || {
        let entry = |(overview, recent)| FlowEntry { overview, recent };
        let flows: Vec<FlowEntry> = pipeline.overview().into_iter().map(entry).collect();
        (StatusCode::OK, serde_json::to_vec(&serde_json::json!({ "flows": flows })))
    })
    .await
}

/// One instance, explained.
async fn instance(State(web): State<Web>, Path((flow, key)): Path<(String, String)>) -> Response {
    let pipeline = Arc::clone(&web.pipeline);
    answer(&web, move || match pipeline.explain(&flow, &key, pipeline.now()) {
        Some(explanation) => (StatusCode::OK, serde_json::to_vec(&explanation)),
        None => {
            let error = format!(
                "flow {flow:?} has no open instance {key:?}, and none among those it closed last (api.recent); \
                 GET /api/flows shows the flows and what they closed last"
            );
            (StatusCode::NOT_FOUND, serde_json::to_vec(&serde_json::json!({ "error": error })))
        }
    })
    .await
}

/// An answer of the API, which may be long, and counts as under way until it has been taken.
async fn answer(
    web: &Web,
    work: impl FnOnce() -> (StatusCode, serde_json::Result<Vec<u8>>) + Send + 'static,
) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let Some((place, _)) = web.answers.take() else {
        let error = "too many requests at once (metrics.concurrent_scrapes); try again";
        let body = serde_json::json!({ "error": error }).to_string();
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], content_type, body).into_response();
    };
    // An instance may consist of many events.
    let worked = apart(web, move || {
        let (status, body) = work();
        (status, body.map(|body| place.fill(vec![body.into()])))
    });
    match worked.await {
        Some((status, Ok(page))) => (status, content_type, Body::new(page)).into_response(),
        Some((_, Err(_))) | None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Works where it holds up no request; nothing comes of it if it panics.
async fn apart<T: Send + 'static>(web: &Web, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let panics = web.pipeline.metrics().panics().clone();
    tokio::task::spawn_blocking(move || attempt_now(Task::Request, &panics, work)).await.ok().flatten()
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings = values.flat_map(|value| value.split(',')).map(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let parameters = parameters.trim().to_ascii_lowercase();
        let quality = parameters.strip_prefix("q=").map_or(Ok(1.0), |quality| quality.trim().parse::<f32>());
        (name.trim().to_ascii_lowercase(), quality.is_ok_and(|quality| quality > 0.0))
    });
    let codings: Vec<(String, bool)> = codings.collect();
    let of = |name: &str| codings.iter().find(|(known, _)| known == name).map(|(_, is_wanted)| *is_wanted);
    // What is named goes before what stands for all others.
    of("gzip").or_else(|| of("*")).unwrap_or(false)
}

fn gzip(pieces: &[Bytes]) -> Option<Vec<u8>> {
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes / 8), Compression::fast());
    pieces.iter().try_for_each(|piece| encoder.write_all(piece)).ok()?;
    encoder.finish().ok()
}

/// The ancestor's answer.
async fn health() -> Response {
    let body = serde_json::json!({ "status": 200, "version": env!("CARGO_PKG_VERSION") });
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

async fn readyz(State(status): State<Arc<Status>>) -> Response {
    let unavailable = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    match (status.ready.load(Relaxed), status.stores_nothing.load(Relaxed)) {
        (false, _) => unavailable("shutting down\n"),
        (true, true) => unavailable("what is received cannot be stored (store.path)\n"),
        (true, false) => "ready\n".into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_when_the_client_wants_it() {
        for (value, expected) in [
            ("gzip", true),
            ("GZip", true),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
    }
}

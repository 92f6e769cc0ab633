//! The ways in. Each decodes its wire format, maps it to events and calls the one pipeline.
//!
//! Knows transports and encodings, not what becomes of an event. Invariant: a request is decoded whole before
//! anything of it is applied, and every refusal says, by one table, whether sending it again can help.

mod body;
mod in_flight;
pub mod native_http;
pub mod otlp_grpc;
pub mod otlp_http;

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;
use tracing::error;

use body::Content;
pub use body::most_room;
pub use in_flight::InFlight;
use in_flight::{NoRoom, Reserved};

use crate::domain::batch::KnownFacts;
use crate::domain::stored::{Damaged, Stored, from_bytes, to_bytes};
use crate::domain::time::Now;
use crate::mapping::otlp::{DecodeError, json, wire};
use crate::mapping::spans::{MappedSpans, SpanMapper};
use crate::metrics::{Panics, Received, Task, Transport};
use crate::pipeline::input::Input;
use crate::pipeline::{Applied, InForce, Pipeline, ShuttingDown};
use crate::store::NotStored;
use crate::tasks::attempt_now;

/// What the requests of one way in may take.
#[derive(Debug, Clone)]
pub struct ReceiverLimits {
    /// The largest request, on the wire and decompressed.
    pub request_bytes: usize,
    /// How long its body may take to come.
    pub body_timeout: Duration,
    /// The room for all requests that are under way, which all ways in share.
    pub in_flight: InFlight,
    /// One permit for each large request that may be worked on at once, likewise.
    pub large: Arc<Semaphore>,
}

/// How many large requests are worked on at once: enough to keep all processors busy. The others wait, with what they
/// have on the wire; what they are inflated to is not there yet.
pub fn large_at_once() -> Arc<Semaphore> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(2 * processors))
}

/// What every way in needs, shared as a whole: each request has hold of it several times on its way through the router.
#[derive(Debug)]
struct Receiver {
    pipeline: Arc<Pipeline>,
    limits: ReceiverLimits,
}

impl Receiver {
    fn new(pipeline: Arc<Pipeline>, limits: ReceiverLimits) -> Arc<Self> {
        Arc::new(Receiver { pipeline, limits })
    }

    /// Reads the body of a request in one way or another, if there is room for what it may bring.
    async fn read<F: Future<Output = Result<Content, Refusal>>>(
        &self,
        body: Body,
        read: impl FnOnce(Body) -> F,
    ) -> Result<Content, Refusal> {
        if self.pipeline.has_room() {
            return read(body).await;
        }
        body::drain_later(body);
        Err(if self.pipeline.can_store() { Refusal::Overloaded } else { Refusal::NotStored })
    }

    /// Waits until it may be worked on, if it is large.
    async fn permit(&self, content: &Content) -> Option<OwnedSemaphorePermit> {
        if !content.is_large() {
            return None;
        }
        Arc::clone(&self.limits.large).acquire_owned().await.ok()
    }

    /// Takes in an OTLP request, whichever way it came. Returns what was refused of it.
    async fn accept_traces(&self, transport: Transport, request: Content) -> Result<MappedSpans, Refusal> {
        let permit = self.permit(&request).await;
        let pipeline = Arc::clone(&self.pipeline);
        let accept = move || {
            let (request, mut reserved) = request.inflate()?;
            accept_traces_now(&pipeline, transport, &request, &mut reserved)
        };
        let applied = run(self.pipeline.metrics().panics(), permit, accept).await?;
        Ok(self.pipeline.stored(applied).await?)
    }

    /// Counts the answer to a request.
    fn answered(&self, transport: Transport, code: &str) {
        self.pipeline.metrics().answered(transport, code);
    }

    /// Counts a request that is refused as a whole.
    fn refused(&self, refusal: &Refusal) {
        self.pipeline.metrics().request_refused(refusal.reason());
    }
}

/// Why a request is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be decoded, and never will.
    Undecodable(String),
    /// It is larger than allowed.
    TooLarge(String),
    /// Its compression or its content type is not supported.
    Unsupported(String),
    /// Nothing is served there.
    NotFound(String),
    /// The path does not take this method.
    MethodNotAllowed(String),
    /// The requests that are under way leave no room for it.
    NoRoom,
    /// Its body took too long to come.
    TooSlow,
    /// What is kept leaves no room for more.
    Overloaded,
    /// It cannot be stored.
    NotStored,
    /// It carries no token of ours.
    Unauthenticated,
    /// The process ends.
    ShuttingDown,
    /// We failed; the request may be the cause, so it must not come again.
    Internal,
}

impl Refusal {
    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        match self {
            Refusal::Undecodable(message)
            | Refusal::TooLarge(message)
            | Refusal::Unsupported(message)
            | Refusal::NotFound(message)
            | Refusal::MethodNotAllowed(message) => message,
            Refusal::NoRoom => {
                "as many bytes of requests are under way as may be (limits.bytes_in_flight); try again"
            }
            Refusal::TooSlow => "the body did not come in time (limits.body_timeout); try again",
            Refusal::Overloaded => {
                "as much is kept of open flows as may be (limits.memory_bytes, limits.instances); try again"
            }
            Refusal::NotStored => "it cannot be stored at this moment (store.path); try again",
            Refusal::Unauthenticated => "a valid token is needed, as in `authorization: Bearer TOKEN`",
            Refusal::ShuttingDown => "shutting down; try again",
            Refusal::Internal => "internal error; the log says more",
        }
    }

    /// The answer over HTTP. Clients send again on 429, 502, 503 and 504 only (OTLP specification, OTLP/HTTP).
    pub fn http_status(&self) -> StatusCode {
        match self {
            Refusal::Undecodable(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Unauthenticated => StatusCode::UNAUTHORIZED,
            Refusal::NoRoom
            | Refusal::TooSlow
            | Refusal::Overloaded
            | Refusal::NotStored
            | Refusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer over gRPC, and the code in the body over HTTP.
    pub fn grpc_code(&self) -> Code {
        match self {
            Refusal::Undecodable(_) => Code::InvalidArgument,
            // Without RetryInfo: clients must not send it again (OTLP specification 1.11).
            Refusal::TooLarge(_) => Code::ResourceExhausted,
            Refusal::Unsupported(_) | Refusal::NotFound(_) | Refusal::MethodNotAllowed(_) => {
                Code::Unimplemented
            }
            Refusal::Unauthenticated => Code::Unauthenticated,
            Refusal::NoRoom
            | Refusal::TooSlow
            | Refusal::Overloaded
            | Refusal::NotStored
            | Refusal::ShuttingDown => Code::Unavailable,
            Refusal::Internal => Code::Internal,
        }
    }

    /// Whether sending the same request again can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Refusal::NoRoom
            | Refusal::TooSlow
            | Refusal::Overloaded
            | Refusal::NotStored
            | Refusal::ShuttingDown => true,
            Refusal::Undecodable(_)
            | Refusal::TooLarge(_)
            | Refusal::Unsupported(_)
            | Refusal::NotFound(_)
            | Refusal::MethodNotAllowed(_)
            | Refusal::Unauthenticated
            | Refusal::Internal => false,
        }
    }

    /// The value of the label `reason` of `requests_refused_total`.
    fn reason(&self) -> &'static str {
        match self {
            Refusal::Undecodable(_) => "undecodable",
            Refusal::TooLarge(_) => "too_large",
            Refusal::Unsupported(_) => "unsupported",
            Refusal::NotFound(_) => "not_found",
            Refusal::MethodNotAllowed(_) => "method_not_allowed",
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::NoRoom => "bytes_in_flight",
            Refusal::TooSlow => "slow_body",
            Refusal::Overloaded => "overloaded",
            Refusal::NotStored => "store",
            Refusal::ShuttingDown => "shutting_down",
            Refusal::Internal => "internal",
        }
    }
}

impl From<NoRoom> for Refusal {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Now => Refusal::NoRoom,
            NoRoom::Ever => Refusal::TooLarge(
                "the request takes more room, on the wire, decompressed and decoded, than all together may \
                 (limits.bytes_in_flight); send smaller ones"
                    .to_owned(),
            ),
        }
    }
}

/// When to try again, in whole seconds: when a successor listens or what is open has ended, and not all clients at once.
fn retry_delay() -> Duration {
    const LEAST_SECONDS: u64 = 3;
    const SPREAD_SECONDS: u64 = 5;
    // A hasher's seed is as random as this needs.
    let random = RandomState::new().hash_one(());
    Duration::from_secs(LEAST_SECONDS + random % SPREAD_SECONDS)
}

/// Says in the headers of a refusal over HTTP what can be done about it.
fn add_remedy(response: &mut Response, refusal: &Refusal) {
    if refusal.is_retryable() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_delay().as_secs()));
    }
    if matches!(refusal, Refusal::Unsupported(_)) {
        let accepted = HeaderValue::from_static(body::ACCEPTED_ENCODINGS);
        response.headers_mut().insert(ACCEPT_ENCODING, accepted);
    }
    if matches!(refusal, Refusal::Unauthenticated) {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

impl From<ShuttingDown> for Refusal {
    fn from(_: ShuttingDown) -> Self {
        Refusal::ShuttingDown
    }
}

impl From<NotStored> for Refusal {
    fn from(_: NotStored) -> Self {
        Refusal::NotStored
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Refusal::Undecodable(error.to_string())
    }
}

/// Runs what may panic on foreign bytes: a bug then costs one request. With a permit it runs where it holds up no other.
async fn run<T: Send + 'static>(
    panics: &Panics,
    large: Option<OwnedSemaphorePermit>,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let guarded =
        |panics: &Panics| attempt_now(Task::Request, panics, work).unwrap_or(Err(Refusal::Internal));
    let Some(permit) = large else { return guarded(panics) };
    let panics = panics.clone();
    let held = move || {
        let _permit = permit;
        guarded(&panics)
    };
    tokio::task::spawn_blocking(held).await.unwrap_or(Err(Refusal::Internal))
}

fn accept_traces_now(
    pipeline: &Pipeline,
    transport: Transport,
    request: &[u8],
    reserved: &mut Reserved,
) -> Result<Applied<MappedSpans>, Refusal> {
    let before = reserved.bytes();
    loop {
        let in_force = pipeline.in_force();
        reserved.shrink_to(before);
        let mut refused = None;
        let mut room = |bytes| reserved.grow(bytes).inspect_err(|no_room| refused = Some(*no_room)).is_ok();
        let mapped = map_traces(pipeline, &in_force, transport, request, &mut room, pipeline.now())?;
        if let Some(no_room) = refused {
            return Err(no_room.into());
        }
        let spans = pipeline.journal().map(|_| to_bytes(|to| mapped.write(to)));
        // Decoding may have taken a while: arrival is when the request is applied.
        let now = pipeline.now();
        let input = Input::Traces { transport, now, spans: spans.as_deref().unwrap_or_default() };
        let applied = pipeline.log(&input, || {
            // With a log, all is applied by the rules in force.
            if spans.is_some() && !Arc::ptr_eq(&in_force, &pipeline.in_force()) {
                return Err(NotApplied::Outdated);
            }
            apply_traces(pipeline, &in_force, transport, mapped, now).map_err(NotApplied::Refused)
        });
        match applied {
            Ok(applied) => return Ok(applied),
            Err(NotApplied::Refused(refusal)) => return Err(refusal),
            Err(NotApplied::Outdated) => {}
        }
    }
}

/// Why a request was not applied.
enum NotApplied {
    /// Another config came into force after it was mapped.
    Outdated,
    Refused(Refusal),
}

impl From<NotStored> for NotApplied {
    fn from(not_stored: NotStored) -> Self {
        NotApplied::Refused(not_stored.into())
    }
}

/// The events of a request that is decoded at `decoded`; not all of them if there is no `room`.
fn map_traces(
    pipeline: &Pipeline,
    in_force: &InForce,
    transport: Transport,
    request: &[u8],
    room: &mut dyn FnMut(usize) -> bool,
    decoded: Now,
) -> Result<MappedSpans, Refusal> {
    let mut mapper = SpanMapper::new(&in_force.rules, pipeline.limits.time, decoded);
    mapper = mapper.for_bytes(request.len()).within(room);
    match transport {
        Transport::HttpJson => json::walk(request, &mut mapper)?,
        Transport::Grpc | Transport::HttpProtobuf | Transport::Push => wire::walk(request, &mut mapper)?,
    }
    Ok(mapper.finish())
}

fn apply_traces(
    pipeline: &Pipeline,
    in_force: &InForce,
    transport: Transport,
    mut mapped: MappedSpans,
    now: Now,
) -> Result<MappedSpans, Refusal> {
    let received = Received {
        events: mapped.received,
        rejected: mapped.rejected.iter().map(|(reason, count)| (reason.as_str(), *count)).collect(),
        sampled: mapped.sampled,
        overlong_keys: mapped.overlong_keys,
        truncated: in_force.rules.take_truncated(),
        warnings: Vec::new(),
    };
    let events = std::mem::take(&mut mapped.events);
    pipeline.ingest(in_force, transport, &received, events, now)?;
    Ok(mapped)
}

/// Takes in again what a log says, at the times that it says. Whether it was a request.
pub fn accept_again(pipeline: &Pipeline, input: &Input<'_>, known: &mut KnownFacts) -> bool {
    let accept = || match input {
        Input::Traces { transport, now, spans } => {
            let undecodable = |damaged: Damaged| Refusal::Undecodable(damaged.to_string());
            let mapped = from_bytes(spans, MappedSpans::read).map_err(undecodable);
            let applied = mapped.and_then(|mut mapped| {
                known.share(&mut mapped.events);
                apply_traces(pipeline, &pipeline.in_force(), *transport, mapped, *now)
            });
            (true, applied.map(drop))
        }
        Input::Pushes { now, request } => (true, native_http::accept_again(pipeline, request, *now)),
        _ => (false, Ok(())),
    };
    // What met a bug then meets it now, and left as much behind.
    let (is_request, applied) = catch_unwind(AssertUnwindSafe(accept)).unwrap_or((true, Ok(())));
    if let Err(refusal) = applied {
        error!("a request of the log is refused by this version: {}", refusal.message());
    }
    is_request
}

/// What a request with spans would be in a log that came now, for tests.
pub fn logged(pipeline: &Pipeline, transport: Transport, request: &[u8], now: Now) -> Option<Vec<u8>> {
    let mapped = map_traces(pipeline, &pipeline.in_force(), transport, request, &mut |_| true, now).ok()?;
    let spans = to_bytes(|to| mapped.write(to));
    let mut entry = Vec::new();
    Input::Traces { transport, now, spans: &spans }.write(&mut entry);
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::BytesInFlight;

    #[tokio::test]
    async fn line_33_a_panic_costs_one_request_that_must_not_come_again() {
        for is_large in [false, true] {
            let panics = Panics::default();
            let permits = Arc::new(Semaphore::new(1));
            let permit = || is_large.then(|| Arc::clone(&permits).try_acquire_owned().expect("it came back"));
            let in_flight = InFlight::new(100, BytesInFlight::default());
            let mut reserved = in_flight.begin();
            assert_eq!(reserved.grow(100), Ok(()));
            let bug = move || {
                let _reserved = reserved;
                panic!("a bug")
            };
            let answer: Result<(), Refusal> = run(&panics, permit(), bug).await;
            assert_eq!((answer, panics.of(Task::Request)), (Err(Refusal::Internal), 1));
            assert_eq!(in_flight.begin().grow(100), Ok(()), "its room is free");
            assert_eq!(run(&panics, permit(), || Ok(1)).await, Ok(1), "the process goes on");
        }
        assert_eq!(Refusal::Internal.http_status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(Refusal::Internal.grpc_code(), Code::Internal);
        assert!(!Refusal::Internal.is_retryable());
    }
}

//! What one connection is doing, as far as its deadlines go.
//!
//! Invariant: at every moment a connection has a deadline, unless it has a request under way that is not being answered
//! yet: how long its body may take is the receiver's business, and how long the work takes ours.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The headers of a request did not come in time.
    Headers,
    /// An answer was not taken in time.
    Answer,
    /// No request came for long.
    Idle,
}

impl Overdue {
    pub(super) const ALL: [Overdue; 3] = [Overdue::Headers, Overdue::Answer, Overdue::Idle];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Overdue::Headers => "headers",
            Overdue::Answer => "answer",
            Overdue::Idle => "idle",
        }
    }
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Whether the next bytes are worth noting, so that bodies cost no lock.
    is_silent: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When the answers that are being sent began.
    answers: Vec<Instant>,
    protocol: Protocol,
}

/// What a connection speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// So many of them have come that are those of HTTP/2.
    Unknown(usize),
    Http1,
    Http2,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing has come since.
    Silent(Instant),
    /// Something came then, or is expected to, and no request yet.
    Beginning(Instant),
    /// So many requests are under way.
    Working(usize),
}

/// How connections of HTTP/2 begin (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Protocol {
    /// By some more bytes.
    fn told_by(self, bytes: &[u8]) -> Self {
        let Protocol::Unknown(matched) = self else { return self };
        let rest = &PREFACE[matched..];
        match () {
            () if bytes.starts_with(rest) => Protocol::Http2,
            () if rest.starts_with(bytes) => Protocol::Unknown(matched + bytes.len()),
            () => Protocol::Http1,
        }
    }
}

impl Activity {
    /// Of a connection that has just been made: a request is expected.
    pub(super) fn new(now: Instant) -> Arc<Self> {
        let state =
            State { phase: Phase::Beginning(now), answers: Vec::new(), protocol: Protocol::Unknown(0) };
        Arc::new(Activity { state: Mutex::new(state), is_silent: AtomicBool::new(true) })
    }

    /// When the connection is to be ended, as things stand, and why.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, Overdue)> {
        let state = self.state();
        let answer =
            state.answers.iter().min().map(|since| (*since + limits.response_timeout, Overdue::Answer));
        let next = match state.phase {
            Phase::Silent(since) => Some((since + limits.idle_timeout, Overdue::Idle)),
            Phase::Beginning(since) => Some((since + limits.header_timeout, Overdue::Headers)),
            Phase::Working(_) => None,
        };
        answer.into_iter().chain(next).min_by_key(|(at, _)| *at)
    }

    /// A request has begun; it is under way as long as what is returned lives.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        let mut state = self.state();
        let others = if let Phase::Working(others) = state.phase { others } else { 0 };
        state.phase = Phase::Working(others + 1);
        self.is_silent.store(false, Relaxed);
        UnderWay { activity: Arc::clone(self), answered: None }
    }

    fn end(&self, answered: Option<Instant>) {
        let mut state = self.state();
        if let Some(place) = state.answers.iter().position(|since| Some(*since) == answered) {
            state.answers.swap_remove(place);
        }
        state.phase = match state.phase {
            Phase::Working(others @ 2..) => Phase::Working(others - 1),
            _ => {
                self.is_silent.store(true, Relaxed);
                Phase::Silent(Instant::now())
            }
        };
    }

    /// Bytes have come while nothing was under way.
    fn came(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.protocol = state.protocol.told_by(bytes);
        state.phase = match (state.phase, state.protocol) {
            // Its frames are more than requests: pings, windows. Headers are few, and bounded by their size.
            (Phase::Beginning(since), Protocol::Http2) => Phase::Silent(since),
            (Phase::Silent(_), Protocol::Http1) => Phase::Beginning(Instant::now()),
            (phase, _) => phase,
        };
        self.is_silent.store(matches!(state.protocol, Protocol::Unknown(_)), Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way, until its answer has been sent.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    answered: Option<Instant>,
}

impl UnderWay {
    /// The answer is there, and is being sent from now on.
    pub(super) fn answer(mut self, body: Body) -> Answer {
        let now = Instant::now();
        self.answered = Some(now);
        self.activity.state().answers.push(now);
        Answer { body, _under_way: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.activity.end(self.answered);
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that says when bytes come.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() && self.activity.is_silent.load(Relaxed) {
            self.activity.came(bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 1,
        streams: 1,
        header_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(120),
    };

    fn due_in(activity: &Activity) -> Option<(u64, Overdue)> {
        let (at, why) = activity.deadline(&LIMITS)?;
        Some((at.duration_since(Instant::now()).as_secs(), why))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_to_come_in_time_and_to_be_answered_in_time() {
        let activity = Activity::new(Instant::now());
        assert_eq!(due_in(&activity), Some((10, Overdue::Headers)));
        pass(4).await;
        activity.came(b"GET / H");
        assert_eq!(due_in(&activity), Some((6, Overdue::Headers)), "slow headers gain no time");
        let under_way = activity.begin();
        assert_eq!(due_in(&activity), None, "the work may take its time");
        let answer = under_way.answer(Body::empty());
        pass(5).await;
        assert_eq!(due_in(&activity), Some((25, Overdue::Answer)));
        drop(answer);
        assert_eq!(due_in(&activity), Some((120, Overdue::Idle)));
        pass(100).await;
        activity.came(b"G");
        assert_eq!(due_in(&activity), Some((10, Overdue::Headers)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_answer_counts_and_frames_of_http_2_are_no_requests() {
        let activity = Activity::new(Instant::now());
        activity.came(PREFACE);
        assert_eq!(due_in(&activity), Some((120, Overdue::Idle)));
        let first = activity.begin().answer(Body::empty());
        pass(7).await;
        let second = activity.begin().answer(Body::empty());
        assert_eq!(due_in(&activity), Some((23, Overdue::Answer)));
        drop(first);
        assert_eq!(due_in(&activity), Some((30, Overdue::Answer)));
        drop(second);
        pass(60).await;
        activity.came(b"a ping");
        assert_eq!(due_in(&activity), Some((60, Overdue::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_connection_speaks_is_told_by_the_whole_preface_however_it_comes() {
        let activity = Activity::new(Instant::now());
        for byte in PREFACE {
            assert_eq!(due_in(&activity), Some((10, Overdue::Headers)));
            activity.came(std::slice::from_ref(byte));
        }
        assert_eq!(due_in(&activity), Some((120, Overdue::Idle)));
        let activity = Activity::new(Instant::now());
        activity.came(b"PR");
        activity.came(b"I /livez HTTP/1.1\r\n");
        assert_eq!(due_in(&activity), Some((10, Overdue::Headers)));
        drop(activity.begin().answer(Body::empty()));
        activity.came(PREFACE);
        assert_eq!(due_in(&activity), Some((10, Overdue::Headers)), "it has spoken HTTP/1.1 before");
    }
}

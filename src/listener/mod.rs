//! Sockets: bound all together before anything is served, served alike, and drained under a timeout.
//!
//! Knows no routes. Invariants: an accept loop survives every error of `accept`, such as too many open files; and no
//! connection outlives its deadlines, whatever its client does or leaves undone.

mod activity;
mod connection;
pub mod descriptors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

use crate::metrics::{ConnectionMetrics, Task};
use crate::tasks::{attempt, supervise};
use crate::tls::Tls;
use connection::Connection;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address} ({setting}): {reason}\n  {remedy}")]
pub struct BindError {
    setting: &'static str,
    address: String,
    /// Named in the message itself, so that the remedy stands last.
    reason: std::io::Error,
    remedy: String,
}

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    /// The setting that named its address.
    pub setting: &'static str,
    /// Its address, with the port that was picked.
    pub address: SocketAddr,
    listener: TcpListener,
}

/// Listens on `address`; nothing is accepted before [`serve`].
pub async fn bind(setting: &'static str, address: &str) -> Result<Bound, BindError> {
    let failed = |reason: std::io::Error| {
        let remedy = match reason.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "another program has this port (an OpenTelemetry Collector has 4317 and 4318): stop it, or choose \
                 another address with --{setting} HOST:PORT"
            ),
            _ => format!("choose another address with --{setting} HOST:PORT"),
        };
        BindError { setting, address: address.to_owned(), reason, remedy }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { setting, address, listener })
}

/// What the clients of one address may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections; further ones are closed at once.
    pub connections: usize,
    /// Requests under way on one HTTP/2 connection; further ones wait.
    pub streams: u32,
    /// Time for the headers of a request, and for the first one to begin.
    pub header_timeout: Duration,
    /// Time in which an answer has to be taken.
    pub response_timeout: Duration,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
}

/// How an address is served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Handshakes, if it speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// What its clients may take.
    pub limits: Limits,
    /// Where its connections are counted.
    pub metrics: ConnectionMetrics,
    /// Becomes true when no more connections are wanted.
    pub stop: watch::Receiver<bool>,
    /// How long requests under way may take to finish then.
    pub grace: Duration,
}

/// The values of the label `reason` of the connections that are ended.
pub const OVERDUE: [&str; 3] = {
    let [headers, answer, idle] = activity::Overdue::ALL;
    [headers.as_str(), answer.as_str(), idle.as_str()]
};

/// Largest header block of one request, HTTP/2.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The same of HTTP/1.1, and how much of a body is read at once.
const MAX_BUFFER_BYTES: usize = 128 * 1024;
/// Flow-control windows: a whole batch of spans on its way, without waiting for the reader.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 24 * 1024 * 1024;
/// The largest frame: a big request in few pieces, from those who send such.
const FRAME_BYTES: u32 = 256 * 1024;
/// How often, and how patiently, a silent HTTP/2 connection is probed.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// After an error of `accept`: time for other connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router`, over TLS if there is any, until `stop` becomes true, then finishes the requests under way for at most
/// `grace`.
pub async fn serve(bound: Bound, router: Router, serving: Serving) {
    let Bound { setting, listener, .. } = bound;
    let Serving { tls, limits, metrics, stop, grace } = serving;
    let most = limits.connections.min(MOST_CONNECTIONS);
    let room = Arc::new(Semaphore::new(most));
    let connection = Connection::new(builder(&limits), router, limits, metrics.clone(), stop.clone());
    let mut stop_accepting = stop.clone();
    let accept = async || {
        loop {
            match (listener.accept().await, Arc::clone(&room).try_acquire_owned()) {
                (Ok((stream, _)), Ok(permit)) => {
                    connect(stream, tls.clone(), connection.clone(), stop.clone(), permit);
                }
                // Closed at once, so that its client hears of it: in the queue of the kernel it would wait for nothing.
                (Ok(_), Err(_)) => metrics.refused(),
                (Err(error), _) => {
                    warn!(setting, %error, "cannot accept a connection; going on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        _ = supervise(Task::Listener, metrics.panics(), accept) => {}
        _ = stop_accepting.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    let all = u32::try_from(most).expect("no more than MOST_CONNECTIONS");
    if tokio::time::timeout(grace, room.acquire_many(all)).await.is_err() {
        warn!(setting, "requests were still under way when the grace period ended");
    }
}

/// More than a process can have files open.
const MOST_CONNECTIONS: usize = 1 << 28;

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The time for headers is kept by `Activity`: hyper's would end idle connections as well.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(limits.streams)
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Handshakes are in the task of their connection: one that takes its time holds up no other, and not the end either.
fn connect(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let panics = connection.panics().clone();
    let serve = async move {
        let _permit = permit;
        let Some(tls) = tls else { return connection.serve(stream).await };
        let accepted = tokio::select! {
            accepted = tls.accept(stream) => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(stream) => connection.serve(stream).await,
            Err(error) => debug!(%error, "connection refused"),
        }
    };
    tokio::spawn(async move { attempt(Task::Connection, &panics, serve).await });
}

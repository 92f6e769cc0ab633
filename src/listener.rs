//! Sockets: bound all together before anything is served, served alike, and drained under a timeout.
//!
//! Knows no routes. Invariant: an accept loop survives every error of `accept`, such as too many open files.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::tls::Tls;

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

/// Largest header block of one request, HTTP/2; hyper's HTTP/1 reader has limits of its own.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Requests under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Flow-control windows: a whole batch of spans on its way, without waiting for the reader.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 24 * 1024 * 1024;
/// The largest frame: a big request in few pieces, from those who send such.
const FRAME_BYTES: u32 = 256 * 1024;
/// How long a client may take to send its request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often, and how patiently, an idle HTTP/2 connection is probed.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// After an error of `accept`: time for other connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router`, over TLS if there is any, until `stop` becomes true, then finishes the requests under way for at most
/// `grace`.
pub async fn serve(
    bound: Bound,
    router: Router,
    tls: Option<Arc<Tls>>,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let Bound { setting, listener, .. } = bound;
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connect(stream, tls.clone(), &router, &builder, graceful.watcher(), stop.clone())
            }
            Err(error) => {
                warn!(setting, %error, "cannot accept a connection; going on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        warn!(setting, "requests were still under way when the grace period ended");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
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
    router: &Router,
    builder: &Builder<TokioExecutor>,
    watcher: Watcher,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let (router, builder) = (router.clone(), builder.clone());
    tokio::spawn(async move {
        let Some(tls) = tls else { return converse(stream, router, &builder, watcher).await };
        let accepted = tokio::select! {
            accepted = tls.accept(stream) => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(stream) => converse(stream, router, &builder, watcher).await,
            Err(error) => debug!(%error, "connection refused"),
        }
    });
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    builder: &Builder<TokioExecutor>,
    watcher: Watcher,
) {
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(error, "connection ended");
    }
}

//! One connection: served over HTTP/1.1 or HTTP/2, whichever its client speaks, and ended when it is overdue.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::Limits;
use super::activity::{Activity, Overdue, Watched};
use crate::metrics::{ConnectionMetrics, Panics, Task};
use crate::tasks::attempt;

/// How the connections of one address are served.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    builder: Builder<TokioExecutor>,
    router: Router,
    limits: Limits,
    metrics: ConnectionMetrics,
    stop: watch::Receiver<bool>,
}

/// How often it is looked whether a connection is overdue: what it does moves its deadline, and wakes nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a connection that is asked to end may take for it.
const FAREWELL: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn new(
        builder: Builder<TokioExecutor>,
        router: Router,
        limits: Limits,
        metrics: ConnectionMetrics,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Connection { builder, router, limits, metrics, stop }
    }

    /// Where panics are counted.
    pub(super) fn panics(&self) -> &Panics {
        self.metrics.panics()
    }

    /// Serves requests until the client hangs up, is overdue, or no more are wanted.
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Connection { builder, router, limits, metrics, mut stop } = self;
        let _open = metrics.opened();
        let activity = Activity::new(Instant::now());
        let router = TowerToHyperService::new(router);
        // Its own, so that requests of several connections do not pass the count of its holders to and fro.
        let panics = Arc::new(metrics.panics().clone());
        let service = service_fn(|request: Request<Incoming>| {
            let under_way = activity.begin();
            let (answer, panics) = (router.call(request), Arc::clone(&panics));
            async move {
                let answer = attempt(Task::Request, &panics, answer).await;
                let answer = answer.unwrap_or_else(|| Ok(failed()))?;
                Ok::<_, Infallible>(answer.map(|body| under_way.answer(body)))
            }
        });
        let io = TokioIo::new(Watched { stream, activity: activity.clone() });
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let (mut is_stopping, mut last_moment) = (false, None);
        loop {
            let look_again = last_moment.unwrap_or_else(|| {
                let due = activity.deadline(&limits).map(|(due, _)| due);
                due.into_iter().fold(Instant::now() + LOOK_AGAIN, Instant::min)
            });
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(error, "connection ended");
                    }
                    return;
                }
                _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(look_again) => {
                    if last_moment.is_some() {
                        return;
                    }
                    let Some((_, why)) = activity.deadline(&limits).filter(|(due, _)| *due <= Instant::now()) else {
                        continue;
                    };
                    debug!(why = why.as_str(), "ending a connection that is overdue");
                    metrics.timed_out(why.as_str());
                    if why == Overdue::Answer {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    last_moment = Some(Instant::now() + FAREWELL);
                }
            }
        }
    }
}

/// The answer to a request that panicked: it must not come again, for it may be the cause.
fn failed() -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

//! The one place that wires: begins with what is stored, binds, serves, and drains in order.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::access::{self, Access};
use crate::config::{Config, Loaded};
use crate::listener::{self, BindError, Bound, Serving, descriptors};
use crate::metrics::Task;
use crate::pipeline::{Pipeline, SWEEP_INTERVAL};
use crate::receiver::{
    InFlight, ReceiverLimits, large_at_once, most_room, native_http, otlp_grpc, otlp_http,
};
use crate::recovery;
use crate::reload::{ReloadSignal, Reloader, Source};
use crate::store::Journal;
use crate::tasks::supervise;
use crate::web::{self, Status};

/// A program that listens but serves nothing yet.
#[derive(Debug)]
pub struct App {
    pipeline: Arc<Pipeline>,
    reloader: Reloader,
    access: Access,
    status: Arc<Status>,
    config: Config,
    http: Bound,
    metrics: Option<Bound>,
    otlp_grpc: Option<Bound>,
    otlp_http: Option<Bound>,
}

/// How long answers that are under way at the very end may take; nothing is accepted any more by then.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl App {
    /// Builds everything and listens on every address, or does nothing at all. `source` is where the config came from.
    pub async fn bind(loaded: Loaded, source: Source) -> anyhow::Result<Self> {
        let (pipeline, reloader) = recovery::begin(&loaded, source)?;
        let access = Access::open(&loaded, &pipeline)?;
        let reloader = reloader.with_secrets(access.secrets());
        let config = loaded.config;
        let listen = config.listen.clone();
        Ok(App {
            http: listener::bind("listen.http", &listen.http).await?,
            metrics: bind_optional("listen.metrics", listen.metrics.as_deref()).await?,
            otlp_grpc: bind_optional("listen.otlp_grpc", listen.otlp_grpc.as_deref()).await?,
            otlp_http: bind_optional("listen.otlp_http", listen.otlp_http.as_deref()).await?,
            status: Arc::default(),
            pipeline,
            reloader,
            access,
            config,
        })
    }

    /// The addresses that are listened on, by setting.
    pub fn addresses(&self) -> Vec<(&'static str, std::net::SocketAddr)> {
        let optional = [&self.metrics, &self.otlp_grpc, &self.otlp_http];
        let bound = [Some(&self.http)].into_iter().chain(optional.map(Option::as_ref)).flatten();
        bound.map(|bound| (bound.setting, bound.address)).collect()
    }

    /// Says what listens where, and one line to try.
    pub fn announce(&self, mut out: impl Write) -> std::io::Result<()> {
        writeln!(out, "latency-aggregator {}", env!("CARGO_PKG_VERSION"))?;
        for (setting, address) in self.addresses() {
            let what = match setting {
                "listen.http" if self.metrics.is_some() => "push API",
                "listen.http" => "push API and /metrics",
                "listen.metrics" => "/metrics",
                "listen.otlp_grpc" => "OTLP over gRPC",
                _ => "OTLP over HTTP",
            };
            let tls = if self.config.tls.covers(setting) { ", TLS" } else { "" };
            writeln!(out, "  {setting:<16} {address:<21} {what}{tls}")?;
        }
        let address = self.http.address;
        let scheme = if self.config.tls.covers("listen.http") { "https" } else { "http" };
        let token = match self.config.auth.ingest_token_file {
            Some(_) => "-H 'Authorization: Bearer TOKEN' ",
            None => "",
        };
        writeln!(
            out,
            "Try: curl {token}-H 'Content-Type: application/json' -d \
             '{{\"id\":\"1\",\"name\":\"order\",\"stage\":\"placed\",\"life_span\":5}}' {scheme}://{address}/"
        )
    }

    /// Warns about what is open to everybody, and what in the config looks like a mistake.
    fn warn(&self) {
        let exposures = access::exposures(&self.config, &self.addresses());
        for warning in exposures.into_iter().chain(tight_limits(&self.config)) {
            warn!("{warning}");
        }
    }

    /// Serves until `stop` resolves, then drains: finishes requests, closes what is open, and waits for a last
    /// scrape. `hurry` resolving cuts the drain short; `reload` makes it read its config again.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
        reload: ReloadSignal,
    ) {
        self.warn();
        let routes = self.routes();
        let App { pipeline, reloader, access, status, config, http, metrics, otlp_grpc, otlp_http } = self;
        status.set_ready(true);
        let (stop_ingest, ingest_stopped) = watch::channel(false);
        let (stop_web, web_stopped) = watch::channel(false);
        let (mut ingest, mut serving) = (JoinSet::new(), JoinSet::new());
        let services = [
            (otlp_grpc, routes.otlp_grpc, Role::Ingest),
            (otlp_http, routes.otlp_http, Role::Ingest),
            (Some(http), routes.http, Role::Web),
            (metrics, routes.metrics, Role::Web),
        ];
        let limits =
            connection_limits(&config, services.iter().filter(|(bound, ..)| bound.is_some()).count());
        for (bound, router, role) in services {
            let Some(bound) = bound else { continue };
            let (tasks, stop, grace) = match role {
                Role::Ingest => (&mut ingest, ingest_stopped.clone(), config.shutdown.grace),
                Role::Web => (&mut serving, web_stopped.clone(), LAST_ANSWERS),
            };
            let metrics = pipeline.metrics().connections(listener_name(bound.setting), &listener::OVERDUE);
            let serving = Serving { tls: access.tls_of(bound.setting), limits, metrics, stop, grace };
            tasks.spawn(listener::serve(bound, router, serving));
        }
        let swept = Arc::clone(&pipeline);
        let sweep = tokio::spawn(async move {
            supervise(Task::Sweep, swept.metrics().panics(), || sweep(&swept)).await;
        });
        let keep = tokio::spawn(keep(Arc::clone(&pipeline), Arc::clone(&status)));
        let reloads = tokio::spawn(reloader.run(reload, config.reload.interval));

        stop.await;
        reloads.abort();
        info!("shutting down: finishing requests, then closing what is open");
        let drain = async {
            status.set_ready(false);
            stop_ingest.send_replace(true);
            while ingest.join_next().await.is_some() {}
            sweep.abort();
            // A sweep that is under way still records what it closed.
            let _aborted = sweep.await;
            keep.abort();
            let closing = Arc::clone(&pipeline);
            let ended = tokio::task::spawn_blocking(move || end(&closing)).await;
            // Before it is said: who reads that and scrapes has seen the last.
            let scrapes = status.last_scrapes(config.shutdown.scrapes);
            let ended = ended.unwrap_or_else(|error| format!("what is open could not be ended: {error}"));
            info!("{ended}; waiting for a last scrape");
            if tokio::time::timeout(config.shutdown.linger, scrapes).await.is_err() {
                info!("no scrape came within shutdown.linger");
            }
            stop_web.send_replace(true);
            while serving.join_next().await.is_some() {}
        };
        tokio::select! {
            () = drain => info!("shut down"),
            () = hurry => warn!("shut down in a hurry"),
        }
    }
}

/// Ends what is open, or stores it where there is a store. Returns what became of it.
fn end(pipeline: &Pipeline) -> String {
    if pipeline.journal().is_none() {
        return format!("closed what was open ({})", pipeline.close_all(pipeline.now()));
    }
    pipeline.stop_accepting();
    let is_stored = pipeline.checkpoint();
    let open = pipeline.open_instances();
    if is_stored {
        format!("stored what is open ({open})")
    } else {
        format!("what is open ({open}) is in the log")
    }
}

/// How an address is drained.
enum Role {
    /// First: its requests are finished before everything is closed.
    Ingest,
    /// Last: it shows what was closed.
    Web,
}

/// The value of the label `listener`.
fn listener_name(setting: &'static str) -> &'static str {
    setting.trim_start_matches("listen.")
}

/// Limits that do not go well together.
pub fn tight_limits(config: &Config) -> Option<String> {
    let largest = config.limits.request_bytes.max(config.push.request_bytes);
    let (room, needed) = (config.limits.bytes_in_flight, most_room(largest));
    (room < needed).then(|| {
        format!(
            "limits.bytes_in_flight ({room}): a compressed request of {largest} bytes, which is allowed, may take \
             {needed}, on the wire, decompressed and decoded, and would be refused; set at least that, or lower \
             limits.request_bytes or push.request_bytes"
        )
    })
}

/// What the clients of each of `listeners` addresses may take.
pub fn connection_limits(config: &Config, listeners: usize) -> listener::Limits {
    let wanted = config.limits.connections;
    let connections = descriptors::connections_for(wanted, listeners, descriptors::raise_limit());
    if connections < wanted {
        info!(connections, wanted, "fewer connections at each address: the process may not open more files");
    }
    listener::Limits {
        connections,
        streams: config.limits.streams,
        header_timeout: config.limits.header_timeout,
        response_timeout: config.limits.response_timeout,
        idle_timeout: config.limits.idle_timeout,
    }
}

/// What is served at each address, those that want tokens behind them.
struct Routes {
    http: Router,
    metrics: Router,
    otlp_grpc: Router,
    otlp_http: Router,
}

impl App {
    fn routes(&self) -> Routes {
        let App { pipeline, access, status, config, .. } = self;
        let in_flight = InFlight::new(config.limits.bytes_in_flight, pipeline.metrics().requests_in_flight());
        let large = large_at_once();
        let pipeline = || Arc::clone(pipeline);
        let health = || web::health_router(Arc::clone(status));
        let limits = |request_bytes| ReceiverLimits {
            request_bytes,
            body_timeout: config.limits.body_timeout,
            in_flight: in_flight.clone(),
            large: Arc::clone(&large),
        };
        let otlp_limits = || limits(config.limits.request_bytes);

        let otlp_grpc = otlp_grpc::router(pipeline(), otlp_limits());
        let refused = pipeline();
        let otlp_grpc = access.for_senders(otlp_grpc, move |_| otlp_grpc::unauthenticated(&refused));

        let otlp_http = otlp_http::router(pipeline(), otlp_limits(), &config.listen.otlp_http_path);
        let refused = pipeline();
        let refuse = move |request: &Request| otlp_http::unauthenticated(&refused, request.headers());
        let otlp_http = access.for_senders(otlp_http, refuse);
        let otlp_http = otlp_http::for_browsers(otlp_http, config.listen.cors_origins.clone());

        let push = native_http::router(pipeline(), limits(config.push.request_bytes));
        let refused = pipeline();
        let push = access.for_senders(push, move |_| native_http::unauthenticated(&refused));

        let web = web::router(pipeline(), Arc::clone(status), config.metrics.concurrent_scrapes);
        let refused = pipeline();
        let web = access.for_readers(web, move |_| web::unauthenticated(&refused)).merge(health());

        let is_apart = self.metrics.is_some();
        let http = push.merge(if is_apart { health() } else { web.clone() });
        Routes { http, metrics: web, otlp_grpc, otlp_http }
    }
}

async fn bind_optional(setting: &'static str, address: Option<&str>) -> Result<Option<Bound>, BindError> {
    match address {
        Some(address) => listener::bind(setting, address).await.map(Some),
        None => Ok(None),
    }
}

/// The timer: only wakes; what is due follows from what is open and what time it is.
async fn sweep(pipeline: &Pipeline) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A few keys may stand for much work. Whoever waits for the network is not to wait for it.
        while tokio::task::block_in_place(|| pipeline.sweep(pipeline.now())) {
            tokio::task::yield_now().await;
        }
    }
}

/// Looks after the store, if there is one.
async fn keep(pipeline: Arc<Pipeline>, status: Arc<Status>) {
    while pipeline.journal().is_some() {
        status.set_stores(pipeline.can_store());
        tokio::time::sleep(Journal::LOOK_INTERVAL).await;
        let looking = Arc::clone(&pipeline);
        if let Err(error) = tokio::task::spawn_blocking(move || looking.look_after_store()).await {
            error!(%error, "the store could not be looked after");
        }
    }
}

/// Hears when the process is asked to end, by SIGTERM or Ctrl-C, from its creation on.
#[derive(Debug)]
pub struct EndSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl EndSignals {
    /// From now on these signals no longer kill the process.
    pub fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(EndSignals {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for Ctrl-C")?,
        })
    }

    /// Resolves when the process is asked to end once more.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

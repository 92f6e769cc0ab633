//! The one place that wires: builds everything from a config, binds, serves, and drains in order.

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
use crate::aggregator::{self, Aggregator, Budget, Seed};
use crate::config::{Config, ConfigError, Loaded};
use crate::domain::catalog::{self, Catalog};
use crate::domain::flow::Flow;
use crate::domain::time::{Arrival, Now};
use crate::listener::{self, BindError, Bound, Serving, descriptors};
use crate::mapping::facts::SpanRules;
use crate::mapping::flows::{Compiled, History};
use crate::mapping::push::PushLimits;
use crate::mapping::admission::{Rejection, TimeLimits};
use crate::memory;
use crate::metrics::{Metrics, Settings, Task};
use crate::pipeline::{InForce, Pipeline, SWEEP_INTERVAL, wall};
use crate::receiver::{
    InFlight, ReceiverLimits, large_at_once, most_room, native_http, otlp_grpc, otlp_http,
};
use crate::recent::{self, Recent};
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

/// The part of the memory that the process may have which is kept for instances, unless the config says how much.
const MEMORY_SHARE: u64 = 2;
/// The same where nobody knows how much memory there is.
const UNKNOWN_MEMORY: u64 = 1 << 30;

fn memory_budget(config: &Config) -> u64 {
    let share = || memory::available().map_or(UNKNOWN_MEMORY, |bytes| bytes / MEMORY_SHARE);
    config.limits.memory_bytes.map_or_else(share, |bytes| bytes as u64)
}

/// Where a pipeline begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// On both clocks.
    pub now: Now,
    /// Decides about orders that nothing else decides about; `None`: by chance.
    pub seed: Option<Seed>,
    /// The versions of flows of earlier configs, and how often the config had been reloaded.
    pub earlier: (Vec<Arc<Flow>>, u32),
}

impl Beginning {
    /// With the process.
    fn anew() -> Self {
        let now = Now { arrival: Arrival::ORIGIN, wall: wall() };
        Beginning { now, seed: None, earlier: Default::default() }
    }
}

/// Builds the pipeline that a config describes, and begins the history of its flows.
pub fn build_pipeline(loaded: &Loaded) -> Result<(Pipeline, History), ConfigError> {
    let Compiled { flows, rules, history } = loaded.compile()?;
    Ok((build_from(loaded, (flows, rules), Beginning::anew()), history))
}

/// The same from its flows and rules.
pub fn build_from(
    loaded: &Loaded,
    (flows, rules): (Vec<Arc<Flow>>, SpanRules),
    beginning: Beginning,
) -> Pipeline {
    let config = &loaded.config;
    let limits = catalog::Limits {
        pushed_flows: config.push.flows,
        events_per_instance: config.limits.events_per_instance,
    };
    let Beginning { now, seed, earlier: (earlier, generation) } = beginning;
    let catalog = Catalog::new(flows, config.defaults.timers(), rules.may_match(), limits);
    let catalog = catalog.reloaded(earlier, generation);
    let limits = aggregator::Limits {
        budget: Budget { bytes: memory_budget(config), instances: config.limits.instances as u64 },
        tombstones: config.limits.tombstones,
        remembered: config.limits.remembered,
        traces_per_instance: config.limits.traces_per_instance,
        links_per_trace: config.limits.links_per_trace,
    };
    let aggregator = match seed {
        Some(seed) => Aggregator::with_seed(limits, seed, now.arrival),
        None => Aggregator::new(limits),
    };
    let settings = Settings {
        zero_first: config.metrics.zero_first,
        series_per_family: config.metrics.series_per_family,
        values_per_label: config.metrics.values_per_label,
        pushed_lines: config.push.series,
        idle: Some(config.metrics.idle).filter(|idle| !idle.is_zero()),
        histograms: config.metrics.histograms,
        native_factor: config.metrics.native_factor,
        native_buckets: config.metrics.native_buckets,
        buckets: config.defaults.buckets.bounds().into(),
        ancestor_gauge: config.push.ancestor_gauge,
        critical_path_histogram: config.metrics.critical_path_histogram,
        rejection_reasons: Rejection::ALL.map(Rejection::as_str).to_vec(),
    };
    let metrics = Metrics::new(settings, &catalog, now);
    metrics.config_in_force(loaded.fingerprint);
    let time = TimeLimits { max_future: config.ingest.max_future, max_past: config.ingest.max_past };
    let limits = PushLimits { time, value_bytes: config.limits.value_bytes };
    let rules = rules.with_value_bytes(config.limits.value_bytes);
    let recent =
        Recent::new(recent::Limits { instances: config.api.recent, events: config.api.recent_events });
    let in_force = InForce { catalog, rules };
    Pipeline::new(in_force, limits, aggregator, metrics, recent)
}

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
             {needed}, on the wire and decompressed, and would be refused; set at least that, or lower \
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
        while pipeline.sweep(pipeline.now()) {
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

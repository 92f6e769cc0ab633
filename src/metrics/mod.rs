//! What a scrape shows: the flows' metrics and the program's own.
//!
//! Knows what was closed and what was counted, never how.

mod connections;
mod distinct;
pub mod exposition;
mod flows;
mod histogram;
mod own;
mod recording;
mod scrape;
mod series;
pub mod snapshot;
mod store;
mod stored;
mod tasks;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::domain::catalog::Catalog;
use crate::domain::flow::{Flow, Origin};
use crate::domain::time::{Arrival, EventTime, Now};
pub use connections::{BytesInFlight, ConnectionMetrics};
use flows::{FlowMetrics, Gauges};
use histogram::{Bounds, Layout, NativeLayout};
use own::{OwnMetrics, StoreMetrics};
use series::{Birth, Lines, SeriesLimits};
pub use store::{Recovery, StoreHealth};
use stored::Carried;
pub use stored::{Stability, stability};
pub use tasks::{Panics, Task};

/// Settings of what a scrape shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// For how long a new series shows zero.
    pub zero_first: Duration,
    /// Series with label values of their own, for each family and flow, and values of each of their labels.
    pub series_per_family: usize,
    /// Values of each open label of a family and flow.
    pub values_per_label: usize,
    /// Lines of the page that the series of all flows together take which pushes create, beside a few of each flow.
    pub pushed_lines: usize,
    /// For how long nothing may be added to a series before it goes into the overflow; `None`: for ever.
    pub idle: Option<Duration>,
    /// Which buckets histograms have.
    pub histograms: Histograms,
    /// By which factor native buckets grow at most.
    pub native_factor: f64,
    /// How many native buckets a histogram has at most.
    pub native_buckets: usize,
    /// Bucket bounds in seconds of flows that name none.
    pub buckets: Arc<[f64]>,
    /// Whether pushes also show their last duration as the gauge `NAME_total`.
    pub ancestor_gauge: bool,
    /// Whether each stage's share of a latency is also shown as a distribution.
    pub critical_path_histogram: bool,
    /// Why events are rejected: these reasons are there from the start.
    pub rejection_reasons: Vec<&'static str>,
}

/// Which buckets the histograms of flows have, in the format that can show both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Histograms {
    /// Those of the config.
    Classic,
    /// Exponential ones. Text formats, which cannot show these, have the others all the same.
    Native,
    /// Both.
    Both,
}

/// What a scrape shows.
#[derive(Debug)]
pub struct Metrics {
    settings: Settings,
    /// By the name of the flow.
    flows: RwLock<HashMap<Arc<str>, Arc<FlowMetrics>>>,
    /// How many instances of each flow are in flight, also of those that are not shown any more.
    gauges: Mutex<HashMap<Arc<str>, Arc<Gauges>>>,
    /// Flows that the config has no longer, and since when: they are shown until all their instances have been seen.
    retired: Mutex<HashMap<Arc<str>, Arrival>>,
    /// [`Settings::buckets`], or those of the config that is in force by now.
    default_buckets: RwLock<Arc<[f64]>>,
    /// What is left of [`Settings::pushed_lines`].
    pushed_lines: Arc<Lines>,
    own: OwnMetrics,
    bytes_in_flight: BytesInFlight,
    warned: Warned,
    /// Set at shutdown: the last scrape must not find new series at zero.
    show_all: AtomicBool,
    /// When the process started, by our wall clock.
    started: EventTime,
    /// The stages that late events have named, by flow.
    late_stages: Mutex<HashMap<Arc<str>, HashSet<Arc<str>>>>,
    /// By flow and family how many values had gone to the overflow when that was looked at last. Held while the values are
    /// brought up to date that are read, not counted.
    refreshing: Mutex<HashMap<(Arc<str>, &'static str), u64>>,
    /// When idle series were looked for last.
    expired: Mutex<Arrival>,
    /// What the program's own metrics stood at when the process started.
    carried: Mutex<Carried>,
    /// Where there is a store.
    store: OnceLock<StoreMetrics>,
}

/// For what requests are refused that senders are to keep: these reasons are there from the start, so that the first refusal is
/// seen as one more, and somebody is told.
const REFUSED_FOR_NOW: [&str; 3] = ["overloaded", "bytes_in_flight", "store"];

/// How long the series of a flow that the config has no longer are shown after its last instance was closed: several
/// scrapes of any usual interval.
const SHOWN_AFTER_RETIRING: Duration = Duration::from_secs(600);

/// What has been said once and need not be said again.
#[derive(Debug, Default)]
struct Warned {
    sampled: OnceLock<()>,
    over_limit: OnceLock<()>,
    flow_refused: OnceLock<()>,
}

/// A way in, as the value of the label `transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf.
    HttpProtobuf,
    /// OTLP over HTTP, JSON.
    HttpJson,
    /// Native push.
    Push,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 4] =
        [Transport::Grpc, Transport::HttpProtobuf, Transport::HttpJson, Transport::Push];

    /// The value of the label `transport`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Grpc => "grpc",
            Transport::HttpProtobuf => "http_protobuf",
            Transport::HttpJson => "http_json",
            Transport::Push => "push",
        }
    }

    /// The code of an answer that says that all is well.
    fn success(self) -> &'static str {
        match self {
            Transport::Grpc => "0",
            Transport::HttpProtobuf | Transport::HttpJson | Transport::Push => "200",
        }
    }
}

/// Why a connection did not become one over TLS, as the value of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedHandshake {
    /// The client took too long.
    Timeout,
    /// The client went away, as port scanners and health checks by TCP do.
    Left,
    /// One side refused the other: a wrong certificate, no common version, or no TLS at all.
    Refused,
}

impl FailedHandshake {
    /// All of them.
    pub const ALL: [FailedHandshake; 3] =
        [FailedHandshake::Timeout, FailedHandshake::Left, FailedHandshake::Refused];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            FailedHandshake::Timeout => "timeout",
            FailedHandshake::Left => "left",
            FailedHandshake::Refused => "refused",
        }
    }
}

/// What a decoded request held, before it was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// All its events.
    pub events: u64,
    /// Those refused, by reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// Spans whose tracestate says that they were sampled.
    pub sampled: u64,
    /// Label and stage values that were cut.
    pub truncated: u64,
    /// Values of business keys that were too long to find anything by.
    pub overlong_keys: u64,
    /// Warnings in the reply, by kind.
    pub warnings: Vec<(&'static str, u64)>,
}

impl Metrics {
    /// Metrics of the configured flows at zero.
    pub fn new(settings: Settings, catalog: &Catalog, now: Now) -> Self {
        let (pushed_lines, buckets) = (settings.pushed_lines, Arc::clone(&settings.buckets));
        let metrics = Metrics {
            settings,
            flows: RwLock::default(),
            gauges: Mutex::default(),
            retired: Mutex::default(),
            default_buckets: RwLock::new(buckets),
            pushed_lines: Lines::new(pushed_lines),
            own: OwnMetrics::new(),
            bytes_in_flight: BytesInFlight::default(),
            warned: Warned::default(),
            show_all: AtomicBool::new(false),
            started: now.wall,
            late_stages: Mutex::default(),
            refreshing: Mutex::default(),
            expired: Mutex::new(now.arrival),
            carried: Mutex::default(),
            store: OnceLock::new(),
        };
        for flow in catalog.fixed() {
            metrics.of(flow, now);
            metrics.own.instances.expose(&flow.name);
        }
        metrics.own.requests.reload_succeeded.set(1.0);
        metrics.own.requests.reloaded_at.set(now.wall.unix_nanoseconds() as f64 / 1e9);
        for reason in REFUSED_FOR_NOW {
            metrics.own.requests.refused.with_label_values(&[reason]).inc_by(0);
        }
        for reason in &metrics.settings.rejection_reasons {
            metrics.own.events.rejected.with_label_values(&[*reason]).inc_by(0);
        }
        metrics
    }

    /// Counts what a request held.
    pub fn received(&self, transport: Transport, received: &Received) {
        self.own.events.received[transport as usize].inc_by(received.events);
        for (reason, count) in &received.rejected {
            self.own.events.rejected.with_label_values(&[*reason]).inc_by(*count);
        }
        for (kind, count) in &received.warnings {
            self.own.requests.push_warnings.with_label_values(&[*kind]).inc_by(*count);
        }
        if received.sampled > 0 {
            self.own.events.sampled.inc_by(received.sampled);
            self.warned.sampled.get_or_init(|| {
                warn!("spans arrive that were sampled (tracestate ot=th): counts are those of the sample");
            });
        }
        add(&self.own.requests.values_truncated, received.truncated);
        add(&self.own.requests.overlong_keys, received.overlong_keys);
    }

    /// Counts an answered request.
    pub fn answered(&self, transport: Transport, code: &str) {
        let counter = || self.own.requests.answered.with_label_values(&[transport.as_str(), code]);
        if code == transport.success() {
            self.own.requests.succeeded[transport as usize].get_or_init(counter).inc();
        } else {
            counter().inc();
        }
    }

    /// Counts a request that was refused as a whole.
    pub fn request_refused(&self, reason: &'static str) {
        self.own.requests.refused.with_label_values(&[reason]).inc();
    }

    /// Where it is counted how many bytes of requests are under way.
    pub fn requests_in_flight(&self) -> BytesInFlight {
        self.bytes_in_flight.clone()
    }

    /// The metrics of the connections made to one address. `reasons` are those for which they may be ended.
    pub fn connections(&self, listener: &'static str, reasons: &[&str]) -> ConnectionMetrics {
        ConnectionMetrics::new(&self.own.connections, listener, reasons, self.panics().clone())
    }

    /// Counts a push that was refused because there are too many flows.
    pub fn flow_refused(&self) {
        self.own.requests.flows_refused.inc();
        self.warned.flow_refused.get_or_init(|| {
            warn!("pushes are refused: they have created as many flows as push.flows allows");
        });
    }

    /// Counts a scrape that was refused because others were under way, or given up for one of them.
    pub fn scrape_refused(&self) {
        self.own.requests.scrapes_refused.inc();
    }

    /// Counts a request for metrics or the API that carried no token of ours.
    pub fn read_unauthenticated(&self) {
        self.own.requests.reads_unauthenticated.inc();
    }

    /// Counts a connection that did not become one over TLS.
    pub fn handshake_failed(&self, reason: FailedHandshake) {
        self.own.requests.handshakes_failed.with_label_values(&[reason.as_str()]).inc();
    }

    /// Where panics are counted.
    pub fn panics(&self) -> &Panics {
        &self.own.panics
    }

    /// Shows whether what the files of a secret hold could be taken.
    pub fn secret_reloaded(&self, secret: &str, succeeded: bool) {
        self.own.requests.secrets_succeeded.with_label_values(&[secret]).set(i64::from(succeeded));
    }

    /// Shows the fingerprint of the config in force.
    pub fn config_in_force(&self, fingerprint: u32) {
        self.own.requests.config_hash.set(f64::from(fingerprint));
    }

    /// Shows whether the last config could be taken.
    pub fn reloaded(&self, succeeded: bool, now: Now) {
        self.own.requests.reload_succeeded.set(f64::from(u8::from(succeeded)));
        if succeeded {
            self.own.requests.reloaded_at.set(now.wall.unix_nanoseconds() as f64 / 1e9);
        }
    }

    /// Shows that the config that was read is the one in force, after another one had been refused or not.
    pub fn reloaded_again(&self, was_refused: bool) {
        if was_refused {
            self.own.requests.reload_succeeded.set(1.0);
        }
    }

    /// Takes over the flows of a new config: those that measure the same go on, others begin anew. `buckets` are those of
    /// flows that name none.
    pub fn take_over(&self, catalog: &Catalog, buckets: Arc<[f64]>, now: Now) {
        *self.default_buckets.write().unwrap_or_else(PoisonError::into_inner) = buckets;
        let birth = self.birth(now);
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        for flow in catalog.fixed() {
            self.own.instances.expose(&flow.name);
            let next = match flows.get(&flow.name) {
                Some(known) if Arc::ptr_eq(known.flow(), flow) => continue,
                Some(known) => known.with_rules_of(self.fresh(flow, now), birth),
                None => self.fresh(flow, now),
            };
            flows.insert(Arc::clone(&flow.name), Arc::new(next));
        }
        let is_gone = |name: &Arc<str>| !catalog.fixed().iter().any(|flow| flow.name == *name);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|name, _| is_gone(name));
        let fixed = flows.values().filter(|metrics| metrics.flow().origin != Origin::Pushed);
        for metrics in fixed.filter(|metrics| is_gone(&metrics.flow().name)) {
            retired.entry(Arc::clone(&metrics.flow().name)).or_insert(now.arrival);
        }
    }

    /// Drops the series of flows that the config has no longer and whose instances have long been seen.
    fn drop_retired(&self, now: Arrival) {
        let is_shown =
            |name: &Arc<str>| self.flows.read().unwrap_or_else(PoisonError::into_inner).contains_key(name);
        let retired: Vec<Arc<str>> =
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        if !retired.iter().any(is_shown) {
            return;
        }
        // In the same order as where they are taken over.
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // They are not forgotten: an instance may turn out late to be one of them.
        for (name, since) in retired.iter_mut() {
            let is_open = flows.get(name).is_some_and(|metrics| metrics.in_flight().0 > 0);
            if is_open {
                *since = now;
            } else if now.since(*since) > SHOWN_AFTER_RETIRING {
                flows.remove(name);
            }
        }
    }

    /// How many instances of a flow are open, and how many of these for longer than promised.
    pub fn in_flight(&self, flow: &str) -> (u64, u64) {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        flows.get(flow).map_or((0, 0), |metrics| metrics.in_flight())
    }

    /// The metrics of a flow, created when it is first heard of.
    fn of(&self, flow: &Arc<Flow>, now: Now) -> Arc<FlowMetrics> {
        let known = self.flows.read().unwrap_or_else(PoisonError::into_inner).get(&flow.name).map(Arc::clone);
        if let Some(known) = known.filter(|known| !self.is_inherited(known, flow)) {
            return known;
        }
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        if flows.get(&flow.name).is_some_and(|known| self.is_inherited(known, flow)) {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).remove(&flow.name);
            flows.remove(&flow.name);
        }
        let fresh = || Arc::new(self.fresh(flow, now));
        Arc::clone(flows.entry(Arc::clone(&flow.name)).or_insert_with(fresh))
    }

    /// Whether pushes have created a flow with the name of one that the config has no longer.
    fn is_inherited(&self, known: &FlowMetrics, flow: &Flow) -> bool {
        flow.origin == Origin::Pushed
            && known.flow().origin != Origin::Pushed
            && self.retired.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&flow.name)
    }

    /// The metrics of a flow at zero.
    fn fresh(&self, flow: &Arc<Flow>, now: Now) -> FlowMetrics {
        let default = || self.default_buckets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let bounds = Bounds::from_seconds(flow.buckets.get_or_init(default));
        let native = NativeLayout::new(self.settings.native_factor, self.settings.native_buckets);
        let layout = Layout {
            bounds,
            shows_classic: self.settings.histograms != Histograms::Native,
            native: (self.settings.histograms != Histograms::Classic).then_some(native),
        };
        let limits = self.limits_of(flow);
        let shares = self.settings.critical_path_histogram;
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let gauges = Arc::clone(gauges.entry(Arc::clone(&flow.name)).or_default());
        FlowMetrics::new(Arc::clone(flow), layout, &limits, shares, gauges, self.birth(now))
    }

    fn limits_of(&self, flow: &Flow) -> SeriesLimits {
        SeriesLimits {
            series: self.settings.series_per_family,
            values_per_label: self.settings.values_per_label,
            // Who writes a config knows how many flows it has.
            lines: (flow.origin == Origin::Pushed).then(|| Arc::clone(&self.pushed_lines)),
        }
    }

    /// What a series is born with that is new now.
    fn birth(&self, now: Now) -> Birth {
        let visible_from = now.arrival.plus(self.settings.zero_first);
        Birth { now: now.arrival, visible_from, created: now.wall }
    }

    /// Drops the series of flows that are gone, and moves series that nothing was added to for long into the overflow.
    /// Looks for these now and then only.
    pub fn expire(&self, now: Now) {
        self.drop_retired(now.arrival);
        let Some(idle) = self.settings.idle else { return };
        {
            let mut last = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
            if now.arrival.since(*last) < idle / 10 {
                return;
            }
            *last = now.arrival;
        }
        let flows: Vec<_> =
            self.flows.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        let birth = self.birth(now);
        let expired = flows.iter().map(|metrics| metrics.expire(birth, idle)).sum();
        self.own.requests.series_expired.inc_by(expired);
    }

    /// Shows new series at once from here on, for there will be no later scrape.
    pub fn show_all(&self) {
        self.show_all.store(true, Relaxed);
    }
}

/// Adds to a counter. Most of what may be counted does not happen, and to add nothing would take its place in the cache from
/// the other processors all the same.
fn add(counter: &IntCounter, count: u64) {
    if count > 0 {
        counter.inc_by(count);
    }
}

/// A time in seconds, to the microsecond: in parts of a power of two, so that sums are exact, whatever was added up first.
fn seconds(time: Duration) -> f64 {
    const PARTS: f64 = (1 << 20) as f64;
    (time.as_secs_f64() * PARTS).round() / PARTS
}

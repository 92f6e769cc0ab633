//! The program's own health, as metrics of the `prometheus` crate.
//!
//! Counters are bumped once for each request or sweep, never for each span. Together they keep the identities of
//! the contract: every received event is counted in exactly one place.

mod store;

use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::{FailedHandshake, Panics, Transport};
use crate::domain::result::Outcome;
pub(super) use store::StoreMetrics;

/// The program's own metrics.
#[derive(Debug)]
pub(super) struct OwnMetrics {
    registry: Registry,
    pub(super) events: EventMetrics,
    pub(super) instances: InstanceMetrics,
    pub(super) times: TimeMetrics,
    pub(super) requests: RequestMetrics,
    pub(super) connections: ConnectionsMetrics,
    pub(super) panics: Panics,
}

/// Where every received event went.
#[derive(Debug)]
pub(super) struct EventMetrics {
    /// By [`Transport`].
    pub(super) received: [IntCounter; Transport::ALL.len()],
    pub(super) rejected: IntCounterVec,
    pub(super) duplicate: IntCounter,
    pub(super) conflict: IntCounter,
    pub(super) unmatched: IntCounter,
    pub(super) ignored: IntCounter,
    pub(super) over_limit: IntCounter,
    pub(super) closed: IntCounter,
    pub(super) open: Gauge,
    pub(super) late: IntCounterVec,
    pub(super) sampled: IntCounter,
    pub(super) skewed: IntCounter,
    pub(super) after_folding: IntCounter,
}

/// What became of instances.
#[derive(Debug)]
pub(super) struct InstanceMetrics {
    pub(super) opened: IntCounter,
    /// By [`Outcome`].
    pub(super) closed: [IntCounter; Outcome::ALL.len()],
    pub(super) unmatched: IntCounter,
    pub(super) open: IntGaugeVec,
    pub(super) tombstones: Gauge,
    pub(super) memory: Gauge,
    pub(super) memory_limit: Gauge,
    pub(super) degraded: Gauge,
    pub(super) tombstones_evicted: IntCounter,
    pub(super) orphan_roots: IntCounterVec,
    pub(super) unanswered_producers: IntCounterVec,
    pub(super) merged: IntCounter,
    pub(super) unseen_links: IntCounterVec,
    pub(super) missed_links: IntCounterVec,
    pub(super) joints_over_limit: IntCounter,
    pub(super) uncertain: IntCounterVec,
    pub(super) reversed: IntCounterVec,
    pub(super) label_conflicts: IntCounterVec,
    pub(super) stub_gaps_joined: IntCounter,
    pub(super) coarse_paths: IntCounter,
    pub(super) parent_cycles: IntCounter,
}

/// How late events and closings were.
#[derive(Debug)]
pub(super) struct TimeMetrics {
    pub(super) late: Histogram,
    pub(super) late_extension: HistogramVec,
    pub(super) close_lag: Histogram,
}

/// Requests, what they were told, and what the program is.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    pub(super) answered: IntCounterVec,
    /// Those of requests that were answered with success, by [`Transport`]; each is there from the first one on.
    pub(super) succeeded: [OnceLock<IntCounter>; Transport::ALL.len()],
    pub(super) refused: IntCounterVec,
    pub(super) push_warnings: IntCounterVec,
    pub(super) flows_refused: IntCounter,
    pub(super) values_truncated: IntCounter,
    pub(super) overlong_keys: IntCounter,
    pub(super) series_overflow: IntCounterVec,
    pub(super) series_wanted: IntGaugeVec,
    pub(super) series_expired: IntCounter,
    pub(super) scrapes_refused: IntCounter,
    pub(super) reads_unauthenticated: IntCounter,
    pub(super) handshakes_failed: IntCounterVec,
    pub(super) secrets_succeeded: IntGaugeVec,
    pub(super) config_hash: Gauge,
    pub(super) reload_succeeded: Gauge,
    pub(super) reloaded_at: Gauge,
    pub(super) build_info: IntGaugeVec,
}

/// Connections, by the address that they were made to.
#[derive(Debug)]
pub(super) struct ConnectionsMetrics {
    pub(super) open: IntGaugeVec,
    pub(super) refused: IntCounterVec,
    pub(super) timed_out: IntCounterVec,
    pub(super) request_bytes: Gauge,
}

/// How late an event can be: from the quiet period to the hour for which keys are remembered.
const LATE_SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0];
/// Deadline to closing: a sweep runs every few milliseconds.
const LAG_SECONDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl OwnMetrics {
    /// All of them at zero; those whose labels are known in advance show it.
    pub(super) fn new() -> Self {
        let make = Maker(Registry::new());
        let metrics = OwnMetrics {
            events: EventMetrics::new(&make),
            instances: InstanceMetrics::new(&make),
            times: TimeMetrics::new(&make),
            requests: RequestMetrics::new(&make),
            connections: ConnectionsMetrics::new(&make),
            panics: Panics::new(make.counters(
                "task_panics_total",
                "Bugs of this program that ended a task; it goes on with all others.",
                &["task"],
            )),
            registry: make.0,
        };
        for reason in FailedHandshake::ALL {
            metrics.requests.handshakes_failed.with_label_values(&[reason.as_str()]).inc_by(0);
        }
        metrics.requests.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        metrics
            .registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("no other metric has the process's names");
        metrics
    }

    /// Those of the store; to be called once.
    pub(super) fn store(&self) -> StoreMetrics {
        StoreMetrics::new(&Maker(self.registry.clone()))
    }

    /// All values as the `prometheus` crate models them.
    pub(super) fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

/// The counters of all transports, which are there from the start and at hand.
fn by_transport(counters: &IntCounterVec) -> [IntCounter; Transport::ALL.len()] {
    Transport::ALL.map(|transport| counters.with_label_values(&[transport.as_str()]))
}

/// The same of all outcomes.
fn by_outcome(counters: &IntCounterVec) -> [IntCounter; Outcome::ALL.len()] {
    Outcome::ALL.map(|outcome| counters.with_label_values(&[outcome.as_str()]))
}

impl EventMetrics {
    fn new(make: &Maker) -> Self {
        EventMetrics {
            received: by_transport(&make.counters(
                "events_received_total",
                "Events in decoded requests.",
                &["transport"],
            )),
            rejected: make.counters("events_rejected_total", "Events refused as invalid.", &["reason"]),
            duplicate: make.counter("events_duplicate_total", "Events that had come before."),
            conflict: make.counter("events_conflict_total", "Duplicate events whose content differs."),
            unmatched: make.counter("events_unmatched_total", "Events that belong to no flow."),
            ignored: make.counter(
                "events_ignored_total",
                "Spans dropped by an ignore condition, when their trace closed.",
            ),
            over_limit: make.counter(
                "events_over_limit_total",
                "Events beyond the cap on instances or on events of an instance.",
            ),
            closed: make.counter("events_closed_total", "Events of closed flow instances."),
            open: make.gauge("events_open", "Events of open instances."),
            late: make.counters(
                "late_events_total",
                "Events of instances that were closed already.",
                &["flow", "stage"],
            ),
            sampled: make
                .counter("sampled_spans_total", "Spans whose tracestate says that they were sampled."),
            skewed: make
                .counter("skewed_spans_total", "Spans that ended before they started; they count as 0 s."),
            after_folding: make.counter(
                "matches_after_folding_total",
                "Events that would have changed the flow of a folded instance.",
            ),
        }
    }
}

impl InstanceMetrics {
    fn new(make: &Maker) -> Self {
        InstanceMetrics {
            opened: make.counter("instances_opened_total", "Instances opened, of a flow or not."),
            closed: by_outcome(&make.counters(
                "instances_closed_total",
                "Flow instances closed.",
                &["outcome"],
            )),
            unmatched: make.counter("instances_unmatched_total", "Traces closed that no flow wanted."),
            open: make.gauges("open_instances", "Open instances by how they are kept.", &["tier"]),
            tombstones: make.gauge("tombstones", "Closed instances that are still remembered in detail."),
            memory: make.gauge("memory_bytes", "Bytes of all that is kept of open and closed instances."),
            memory_limit: make.gauge("memory_limit_bytes", "How many bytes may be kept of them."),
            degraded: make.gauge(
                "degraded",
                "What is done for want of room: 0 nothing, 1 requests are refused, 2 instances are evicted as well.",
            ),
            tombstones_evicted: make
                .counter("tombstones_evicted_total", "Tombstones that made room before they expired."),
            orphan_roots: make.counters(
                "orphan_roots_total",
                "Closed instances whose root never came.",
                &["flow"],
            ),
            unanswered_producers: make.counters(
                "unanswered_producers_total",
                "Closed instances with a PRODUCER span whose consumer never came.",
                &["flow"],
            ),
            merged: make.counter(
                "instances_merged_total",
                "Instances that ended as part of another, joined by a link or a key's value.",
            ),
            unseen_links: make.counters(
                "unseen_links_total",
                "Closed instances linked to a trace of which nothing came within async_wait.",
                &["flow"],
            ),
            missed_links: make.counters(
                "missed_links_total",
                "Closed instances linked to a trace whose instance was over already.",
                &["flow"],
            ),
            uncertain: make.counters(
                "uncertain_latencies_total",
                "Closed instances in which clocks disagree: a served call does not lie within the call that waited for it.",
                &["flow"],
            ),
            joints_over_limit: make.counter(
                "links_over_limit_total",
                "Links and key values beyond the caps on links of a trace and traces of an instance.",
            ),
            reversed: make.counters(
                "reversed_flows_total",
                "Closed instances, not observed, whose configured end lies before their start.",
                &["flow"],
            ),
            label_conflicts: make.counters(
                "label_conflicts_total",
                "Closed instances whose events disagreed about a label, or named more labels than may be.",
                &["flow"],
            ),
            coarse_paths: make.counter(
                "coarse_paths_total",
                "Critical paths known by stages only, of instances that were folded.",
            ),
            parent_cycles: make
                .counter("parent_cycles_total", "Parents on critical paths that led in a circle."),
            stub_gaps_joined: make
                .counter("stub_gaps_joined_total", "Gaps inside stages that stubs lost for want of room."),
        }
    }
}

impl InstanceMetrics {
    /// Shows the counters of a flow at zero.
    pub(super) fn expose(&self, flow: &str) {
        for counter in [
            &self.reversed,
            &self.orphan_roots,
            &self.unanswered_producers,
            &self.unseen_links,
            &self.missed_links,
            &self.uncertain,
            &self.label_conflicts,
        ] {
            counter.with_label_values(&[flow]).inc_by(0);
        }
    }
}

impl TimeMetrics {
    fn new(make: &Maker) -> Self {
        TimeMetrics {
            late: make.histogram(
                "late_seconds",
                "How long after the closing late events came.",
                &LATE_SECONDS,
            ),
            late_extension: make.histograms(
                "late_extension_seconds",
                "By how much late events would have lengthened the flow.",
                &["flow"],
                &LATE_SECONDS,
            ),
            close_lag: make.histogram(
                "close_lag_seconds",
                "From an instance's deadline to its closing.",
                &LAG_SECONDS,
            ),
        }
    }
}

impl RequestMetrics {
    fn new(make: &Maker) -> Self {
        RequestMetrics {
            answered: make.counters(
                "requests_total",
                "Requests by way in and by answer.",
                &["transport", "code"],
            ),
            succeeded: Default::default(),
            push_warnings: make.counters("push_warnings_total", "Warnings in replies to pushes.", &["kind"]),
            refused: make.counters(
                "requests_refused_total",
                "Requests of which nothing was taken, by reason.",
                &["reason"],
            ),
            flows_refused: make.counter(
                "push_flows_refused_total",
                "Pushes refused because pushes have created as many flows as they may.",
            ),
            values_truncated: make.counter(
                "label_values_truncated_total",
                "Label and stage values cut to the longest allowed, each distinct combination once.",
            ),
            overlong_keys: make.counter(
                "overlong_key_values_total",
                "Values of business keys longer than 256 bytes: their spans were taken without them.",
            ),
            series_overflow: make.counters(
                "series_overflow_total",
                "Values that went to an overflow series for want of room.",
                &["family"],
            ),
            series_wanted: make.gauges(
                "series_wanted",
                "How many series there would be without limits, roughly.",
                &["family"],
            ),
            series_expired: make.counter(
                "series_expired_total",
                "Series that went into an overflow series because nothing was added to them for long.",
            ),
            scrapes_refused: make
                .counter("scrapes_refused_total", "Scrapes refused because as many as may be were under way, or given up for another because they were not being read."),
            reads_unauthenticated: make.counter(
                "reads_unauthenticated_total",
                "Requests for metrics or the API that were refused because they carried no token of ours.",
            ),
            handshakes_failed: make.counters(
                "tls_handshakes_failed_total",
                "Connections that ended before their TLS handshake did.",
                &["reason"],
            ),
            secrets_succeeded: make.gauges(
                "secrets_last_reload_successful",
                "Whether what the files of a secret hold could be taken: 1, or 0 while older content is in force.",
                &["secret"],
            ),
            config_hash: make.gauge("config_hash", "Fingerprint of the config that was taken last, with settings that need a restart."),
            reload_succeeded: make.gauge(
                "config_last_reload_successful",
                "Whether the last config that was read could be taken: 1, or 0 while an older one is in force.",
            ),
            reloaded_at: make.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the config in force was taken, in Unix time.",
            ),
            build_info: make.gauges("build_info", "Version of the program.", &["version"]),
        }
    }
}

impl ConnectionsMetrics {
    fn new(make: &Maker) -> Self {
        ConnectionsMetrics {
            open: make.gauges("connections", "Connections that are open.", &["listener"]),
            refused: make.counters(
                "connections_refused_total",
                "Connections closed at once because as many as may be were open.",
                &["listener"],
            ),
            request_bytes: make.gauge(
                "request_bytes_in_flight",
                "Bytes of all requests under way, on the wire and decompressed.",
            ),
            timed_out: make.counters(
                "connections_timed_out_total",
                "Connections ended because a request's headers did not come, an answer was not taken, or nothing came.",
                &["listener", "reason"],
            ),
        }
    }
}

/// Creates and registers metrics with the program's prefix.
struct Maker(Registry);

/// Holds for every call of [`Maker`]: the names are literals of this file.
const VALID: &str = "own metrics have valid and distinct names";

impl Maker {
    fn register<C: Collector + Clone + 'static>(&self, metric: Result<C, prometheus::Error>) -> C {
        let metric = metric.expect(VALID);
        self.0.register(Box::new(metric.clone())).expect(VALID);
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(options(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(options(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(options(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(options(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(histogram_options(name, help, bounds)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
        self.register(HistogramVec::new(histogram_options(name, help, bounds), labels))
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("latency_aggregator_{name}"), help)
}

fn histogram_options(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::from(options(name, help)).buckets(bounds.to_vec())
}

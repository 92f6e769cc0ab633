//! Puts a pipeline together as a config describes it.

use std::sync::Arc;

use crate::aggregator::{self, Aggregator, Budget, Seed};
use crate::config::{Config, ConfigError, Loaded};
use crate::domain::catalog::{self, Catalog};
use crate::domain::flow::Flow;
use crate::domain::time::{Arrival, Now};
use crate::mapping::admission::{Rejection, TimeLimits};
use crate::mapping::facts::SpanRules;
use crate::mapping::flows::{Compiled, History};
use crate::mapping::push::PushLimits;
use crate::memory;
use crate::metrics::{Metrics, Settings};
use crate::pipeline::{InForce, Pipeline, wall};
use crate::recent::Recent;

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
        fold_from: config.limits.fold_from,
        explained_events: if config.api.recent == 0 { 0 } else { config.api.recent_events },
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
    let buckets: Arc<[f64]> = config.defaults.buckets.bounds().into();
    let settings = Settings {
        zero_first: config.metrics.zero_first,
        series_per_family: config.metrics.series_per_family,
        values_per_label: config.metrics.values_per_label,
        pushed_lines: config.push.series,
        idle: Some(config.metrics.idle).filter(|idle| !idle.is_zero()),
        histograms: config.metrics.histograms,
        native_factor: config.metrics.native_factor,
        native_buckets: config.metrics.native_buckets,
        buckets: Arc::clone(&buckets),
        ancestor_gauge: config.push.ancestor_gauge,
        critical_path_histogram: config.metrics.critical_path_histogram,
        rejection_reasons: Rejection::ALL.map(Rejection::as_str).to_vec(),
    };
    let metrics = Metrics::new(settings, &catalog, now);
    metrics.config_in_force(loaded.fingerprint);
    let time = TimeLimits { max_future: config.ingest.max_future, max_past: config.ingest.max_past };
    let limits = PushLimits { time, value_bytes: config.limits.value_bytes };
    let rules = rules.with_value_bytes(config.limits.value_bytes);
    let recent = Recent::new(config.api.recent);
    let in_force = InForce { catalog, rules, buckets };
    Pipeline::new(in_force, limits, aggregator, metrics, recent)
}

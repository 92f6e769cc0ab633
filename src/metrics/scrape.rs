//! All families as they stand at one moment, those of the flows and the program's own.
//!
//! Invariant: numbers are copied under short locks, and formatted by others, outside of them.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Metrics;
use super::flows::{FlowMetrics, Shared};
use super::snapshot::{Family, Kind};
use crate::aggregator::{Population, Pressure};
use crate::domain::flow::Origin;
use crate::domain::names::overlap;
use crate::domain::time::{Arrival, Now};

impl Metrics {
    /// All families as they stand at `now`. Shown values never depend on how often they are looked at.
    pub fn snapshot(&self, now: Now, population: Population) -> Vec<Family> {
        let mut flows: Vec<_> =
            self.flows.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        flows.sort_by_key(|metrics| (metrics.flow().id, Arc::clone(&metrics.flow().name)));
        let end = Arrival::since_origin(Duration::MAX);
        let now = if self.show_all.load(Relaxed) { Now { arrival: end, ..now } } else { now };
        let shared = Shared::ALL.into_iter().map(|family| Family {
            name: family.name().into(),
            help: family.help().into(),
            kind: family.kind(),
            series: flows.iter().fold(Vec::new(), |all, metrics| joined(all, metrics.series(family, now))),
        });
        let mut families: Vec<Family> = shared.collect();
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A name is of the flow that has it now, or else had it last.
        let claim = |metrics: &FlowMetrics| {
            let flow = metrics.flow();
            let since = retired.get(&flow.name).copied();
            (since.is_none(), flow.id.generation, since, flow.id)
        };
        for metrics in &flows {
            let is_retired = retired.contains_key(&metrics.flow().name);
            let own = metrics.flow().metric.as_ref().filter(|_| is_retired);
            let mut stronger = flows.iter().filter(|other| claim(other) > claim(metrics));
            let is_taken = own.is_some_and(|own| {
                stronger.any(|other| other.flow().metric.as_ref().is_some_and(|metric| overlap(metric, own)))
            });
            if !is_taken {
                self.own_names(metrics, now, &mut families);
            }
        }
        self.refresh(population, &flows);
        families.extend(self.own_families());
        families.retain(|family| !family.series.is_empty());
        families
    }

    /// The families that one flow has for itself.
    fn own_names(&self, metrics: &FlowMetrics, now: Now, families: &mut Vec<Family>) {
        let flow = metrics.flow();
        let (Some(name), Some((histogram, last))) = (&flow.metric, metrics.own(now)) else {
            return;
        };
        let help = flow.help.get().cloned();
        let help = help
            .unwrap_or_else(|| format!("End-to-end latency of the flow {} in seconds.", flow.name).into());
        families.push(Family {
            name: Arc::clone(name),
            help: Arc::clone(&help),
            kind: Kind::Histogram,
            series: histogram,
        });
        if self.settings.ancestor_gauge && flow.origin == Origin::Pushed {
            let name = format!("{name}_total").into();
            families.push(Family { name, help, kind: Kind::Gauge, series: last });
        }
    }

    /// Brings the values up to date that are read, not counted.
    fn refresh(&self, population: Population, flows: &[Arc<FlowMetrics>]) {
        let own = &self.own;
        // Of two scrapes at once only one may count what has overflown.
        let mut seen = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let detailed = population.open.saturating_sub(population.stubs);
        own.instances.open.with_label_values(&["detailed"]).set(i64::try_from(detailed).unwrap_or(i64::MAX));
        own.instances
            .open
            .with_label_values(&["stub"])
            .set(i64::try_from(population.stubs).unwrap_or(i64::MAX));
        own.connections.request_bytes.set(self.bytes_in_flight.get() as f64);
        own.events.open.set(population.events as f64);
        own.instances.tombstones.set(population.tombstones as f64);
        own.instances.memory.set(population.memory_bytes as f64);
        own.instances.memory_limit.set(population.memory_limit_bytes as f64);
        own.instances.degraded.set(match population.pressure {
            Pressure::None => 0.0,
            Pressure::Refusing => 1.0,
            Pressure::Evicting => 2.0,
        });
        let mut demand: HashMap<&str, (u64, u64)> = HashMap::new();
        for metrics in flows {
            for (family, refused, wanted) in metrics.demand() {
                let before = seen.insert((Arc::clone(&metrics.flow().name), family), refused).unwrap_or(0);
                // A flow whose series have begun anew counts from 0.
                let more = if refused >= before { refused - before } else { refused };
                let sums = demand.entry(family).or_default();
                *sums = (sums.0 + more, sums.1 + wanted);
            }
        }
        for (family, (more, wanted)) in demand {
            own.requests.series_overflow.with_label_values(&[family]).inc_by(more);
            let gauge = own.requests.series_wanted.with_label_values(&[family]);
            gauge.set(i64::try_from(wanted).unwrap_or(i64::MAX));
        }
    }
}

/// Both lists. Most of the time one of them is empty, and the other one long.
fn joined<T>(mut all: Vec<T>, mut more: Vec<T>) -> Vec<T> {
    if all.is_empty() {
        return more;
    }
    all.append(&mut more);
    all
}

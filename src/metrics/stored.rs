//! What the metrics have counted, as it is stored.
//!
//! The flows' series are stored as they are. Of the program's own metrics those are stored that follow from what was
//! received ([`CARRIED`]): what they stood at is carried, and added to what is counted since. All others are about the
//! process, and begin with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use super::Metrics;
use super::flows::{FlowMetrics, Gauges};
use super::snapshot::{Family, HistogramValue, Kind, Series, Sum, Value};
use crate::domain::catalog::Catalog;
use crate::domain::ids::FlowId;
use crate::domain::instance::Rules;
use crate::domain::labels::Label;
use crate::domain::names::is_of_the_process;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_fields};
use crate::domain::time::{Arrival, EventTime, Now};

/// What the program's own metrics stood at when the process started, and since when they count.
#[derive(Debug, Default)]
pub(super) struct Carried {
    since: Option<EventTime>,
    families: BTreeMap<Arc<str>, CarriedFamily>,
}

#[derive(Debug, Clone, PartialEq)]
struct CarriedFamily {
    help: Arc<str>,
    is_histogram: bool,
    series: Vec<CarriedSeries>,
}

#[derive(Debug, Clone, PartialEq)]
struct CarriedSeries {
    labels: Vec<Label>,
    count: CarriedCount,
}

#[derive(Debug, Clone, PartialEq)]
enum CarriedCount {
    Number(f64),
    Histogram { bounds: Arc<[f64]>, counts: Vec<u64>, sum: f64 },
}

/// The families that follow from what was received, without the prefix.
const CARRIED: [&str; 33] = [
    "events_received_total",
    "events_rejected_total",
    "events_duplicate_total",
    "events_conflict_total",
    "events_unmatched_total",
    "events_ignored_total",
    "events_over_limit_total",
    "events_closed_total",
    "late_events_total",
    "sampled_spans_total",
    "skewed_spans_total",
    "matches_after_folding_total",
    "instances_opened_total",
    "instances_closed_total",
    "instances_unmatched_total",
    "tombstones_evicted_total",
    "orphan_roots_total",
    "unanswered_producers_total",
    "instances_merged_total",
    "unseen_links_total",
    "missed_links_total",
    "links_over_limit_total",
    "uncertain_latencies_total",
    "reversed_flows_total",
    "label_conflicts_total",
    "coarse_paths_total",
    "parent_cycles_total",
    "stub_gaps_joined_total",
    "late_seconds",
    "late_extension_seconds",
    "close_lag_seconds",
    "overlong_key_values_total",
    "series_expired_total",
];

/// Whether the family of this name follows from what was received.
fn is_carried(name: &str) -> bool {
    name.strip_prefix("latency_aggregator_").is_some_and(|name| CARRIED.contains(&name))
}

/// Whether a family depends on what the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// It does: it may be shown when the log is on the disk.
    Settled,
    /// It is about the process.
    Fresh,
}

/// Of the family of this name.
pub fn stability(name: &str) -> Stability {
    let is_own = name.starts_with("latency_aggregator_") || is_of_the_process(name);
    if is_own && !is_carried(name) { Stability::Fresh } else { Stability::Settled }
}

impl Metrics {
    /// The program's own families, with what they were before.
    pub(super) fn own_families(&self) -> Vec<Family> {
        let carried = lock(&self.carried);
        let since = carried.since.unwrap_or(self.started);
        let family = |family: &prometheus::proto::MetricFamily| {
            let since = if is_carried(family.name()) { since } else { self.started };
            let family = from_prometheus(family, since);
            (Arc::clone(&family.name), family)
        };
        let mut families: BTreeMap<Arc<str>, Family> = self.own.gather().iter().map(family).collect();
        for (name, before) in &carried.families {
            let family = families.entry(Arc::clone(name)).or_insert_with(|| before.without_series(name));
            before.series.iter().for_each(|series| series.add_to(family, since));
            family.series.sort_by(|a, b| (*a.labels).cmp(&b.labels));
        }
        families.into_values().collect()
    }

    /// Writes down what has been counted.
    pub fn store(&self, to: &mut Encoder<'_>) {
        let since = lock(&self.carried).since;
        since.unwrap_or(self.started).write(to);
        let own = self.own_families().into_iter().filter(|family| is_carried(&family.name));
        let own: BTreeMap<Arc<str>, CarriedFamily> =
            own.map(|family| (Arc::clone(&family.name), CarriedFamily::of(&family))).collect();
        own.write(to);
        let gauges = lock(&self.gauges);
        let mut gauges: Vec<(&Arc<str>, &Arc<Gauges>)> = gauges.iter().collect();
        gauges.sort_by_key(|(name, _)| Arc::clone(name));
        to.number(gauges.len() as u128);
        for (name, gauges) in gauges {
            name.write(to);
            gauges.as_ref().write(to);
        }
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        let mut flows: Vec<&Arc<FlowMetrics>> = flows.values().collect();
        flows.sort_by_key(|metrics| metrics.flow().id);
        to.number(flows.len() as u128);
        for metrics in flows {
            metrics.flow().id.write(to);
            metrics.store(to);
        }
        let retired: BTreeMap<_, _> = lock(&self.retired).iter().map(|(n, at)| (n.clone(), *at)).collect();
        retired.write(to);
        let late: BTreeMap<Arc<str>, std::collections::BTreeSet<Arc<str>>> = lock(&self.late_stages)
            .iter()
            .map(|(flow, stages)| (Arc::clone(flow), stages.iter().map(Arc::clone).collect()))
            .collect();
        late.write(to);
        lock(&self.expired).write(to);
    }

    /// Reads it again, for the flows of `catalog`. What cannot go on, for its buckets are others now, begins anew, and is
    /// named.
    pub fn restore(&self, catalog: &Catalog, now: Now, from: &mut Decoder<'_>) -> Result<(), Damaged> {
        *lock(&self.carried) = Carried { since: Some(Stored::read(from)?), families: Stored::read(from)? };
        let gauges: Vec<(Arc<str>, Gauges)> = Stored::read(from)?;
        *lock(&self.gauges) = gauges.into_iter().map(|(name, gauges)| (name, Arc::new(gauges))).collect();
        let count: usize = from.number()?;
        let mut restored = Vec::new();
        for _ in 0..count {
            restored.push(self.restore_flow(catalog, now, from)?);
        }
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        for metrics in restored {
            flows.insert(Arc::clone(&metrics.flow().name), Arc::new(metrics));
        }
        *lock(&self.retired) = BTreeMap::<Arc<str>, Arrival>::read(from)?.into_iter().collect();
        let late: Vec<(Arc<str>, Vec<Arc<str>>)> = Stored::read(from)?;
        let late = late.into_iter().map(|(flow, stages)| (flow, stages.into_iter().collect()));
        *lock(&self.late_stages) = late.collect();
        *lock(&self.expired) = Stored::read(from)?;
        Ok(())
    }

    fn restore_flow(
        &self,
        catalog: &Catalog,
        now: Now,
        from: &mut Decoder<'_>,
    ) -> Result<FlowMetrics, Damaged> {
        let flow = catalog.flow(FlowId::read(from)?);
        let fresh = self.fresh(&flow, now);
        let gauges = Arc::clone(lock(&self.gauges).entry(Arc::clone(&flow.name)).or_default());
        let (limits, shares) = (self.limits_of(&flow), self.settings.critical_path_histogram);
        let restored = FlowMetrics::restore(Arc::clone(&flow), gauges, &limits, shares, from)?;
        if restored.is_like(&fresh) {
            return Ok(restored);
        }
        warn!(flow = &*flow.name, "its histograms are kept in another way now: its series begin anew at 0");
        Ok(fresh)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The `prometheus` crate's model in ours.
fn from_prometheus(family: &prometheus::proto::MetricFamily, started: EventTime) -> Family {
    use prometheus::proto::MetricType;
    let kind = match family.get_field_type() {
        MetricType::COUNTER => Kind::Counter,
        MetricType::HISTOGRAM => Kind::Histogram,
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => Kind::Gauge,
    };
    let series = family.get_metric().iter().map(|metric| {
        let labels =
            metric.get_label().iter().map(|label| (label.name().into(), label.value().into())).collect();
        let value = match kind {
            Kind::Counter => Value::Float(metric.get_counter().get_value()),
            Kind::Gauge => Value::Float(metric.get_gauge().get_value()),
            Kind::Histogram => Value::Histogram(histogram_from_prometheus(metric.get_histogram())),
        };
        Series { labels, created: Some(started), value }
    });
    Family { name: family.name().into(), help: family.help().into(), kind, series: series.collect() }
}

fn histogram_from_prometheus(histogram: &prometheus::proto::Histogram) -> HistogramValue {
    let finite = || histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let mut counts = Vec::new();
    let mut before = 0;
    for cumulated in finite().map(|bucket| bucket.cumulative_count()).chain([histogram.get_sample_count()]) {
        counts.push(cumulated.saturating_sub(before));
        before = cumulated;
    }
    let bounds = finite().map(|bucket| bucket.upper_bound()).collect();
    let sum = Sum::Float(histogram.get_sample_sum());
    let counts = counts.into();
    HistogramValue { bounds, counts, sum, exemplars: Vec::new(), shows_classic: true, native: None }
}

impl CarriedFamily {
    fn of(family: &Family) -> Self {
        let is_histogram = family.kind == Kind::Histogram;
        let series = family.series.iter().filter_map(CarriedSeries::of).collect();
        CarriedFamily { help: Arc::clone(&family.help), is_histogram, series }
    }

    fn without_series(&self, name: &Arc<str>) -> Family {
        let kind = if self.is_histogram { Kind::Histogram } else { Kind::Counter };
        Family { name: Arc::clone(name), help: Arc::clone(&self.help), kind, series: Vec::new() }
    }
}

impl CarriedSeries {
    fn of(series: &Series) -> Option<Self> {
        let count = match &series.value {
            Value::Float(number) => CarriedCount::Number(*number),
            Value::Histogram(HistogramValue { bounds, counts, sum: Sum::Float(sum), .. }) => {
                CarriedCount::Histogram { bounds: Arc::clone(bounds), counts: counts.to_vec(), sum: *sum }
            }
            Value::Histogram(_) | Value::Integer(_) | Value::Nanoseconds(_) => return None,
        };
        Some(CarriedSeries { labels: series.labels.to_vec(), count })
    }

    /// Adds it to what has been counted since.
    fn add_to(&self, family: &mut Family, since: EventTime) {
        match family.series.iter_mut().find(|series| *series.labels == *self.labels) {
            Some(series) => self.count.add_to(&mut series.value),
            None => family.series.push(Series {
                labels: self.labels.iter().cloned().collect(),
                created: Some(since),
                value: self.count.value(),
            }),
        }
    }
}

impl CarriedCount {
    fn add_to(&self, value: &mut Value) {
        match (value, self) {
            (Value::Float(number), CarriedCount::Number(before)) => *number += before,
            (Value::Histogram(histogram), CarriedCount::Histogram { bounds, counts, sum })
                if histogram.bounds == *bounds =>
            {
                let both = histogram.counts.iter().zip(counts).map(|(count, before)| count + before);
                histogram.counts = both.collect::<Vec<_>>().into();
                if let Sum::Float(total) = &mut histogram.sum {
                    *total += sum;
                }
            }
            _ => {}
        }
    }

    fn value(&self) -> Value {
        match self {
            CarriedCount::Number(number) => Value::Float(*number),
            CarriedCount::Histogram { bounds, counts, sum } => Value::Histogram(HistogramValue {
                bounds: Arc::clone(bounds),
                counts: counts.clone().into(),
                sum: Sum::Float(*sum),
                exemplars: Vec::new(),
                shows_classic: true,
                native: None,
            }),
        }
    }
}

stored_fields!(CarriedFamily { help, is_histogram, series });
stored_fields!(CarriedSeries { labels, count });

impl Stored for CarriedCount {
    fn write(&self, to: &mut Encoder<'_>) {
        match self {
            CarriedCount::Number(number) => (0_u8, *number).write(to),
            CarriedCount::Histogram { bounds, counts, sum } => {
                1_u8.write(to);
                bounds.write(to);
                counts.write(to);
                sum.write(to);
            }
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        match u8::read(from)? {
            0 => Stored::read(from).map(CarriedCount::Number),
            1 => Ok(CarriedCount::Histogram {
                bounds: Stored::read(from)?,
                counts: Stored::read(from)?,
                sum: Stored::read(from)?,
            }),
            _ => Err(Damaged),
        }
    }
}

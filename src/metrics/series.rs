//! The series of one family and flow: created at zero, bounded in number.
//!
//! Invariant: totals are exact. What does not fit is counted in a series that keeps the closed labels (outcome,
//! reason ...) and replaces the open-valued ones by `otel_metric_overflow="true"`; a new series shows zero for one
//! scrape interval, because a rate cannot see a first value, and its true value after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::domain::labels::Label;
use crate::domain::time::Arrival;

/// The label that stands for all label sets that found no room.
pub(super) const OVERFLOW_LABEL: &str = "otel_metric_overflow";

/// The open-valued labels of a series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Open {
    /// Their values.
    Labels(Arc<[Label]>),
    /// There was no room for them.
    Overflow,
}

impl Open {
    /// The labels as they are shown.
    pub(super) fn shown(&self) -> Vec<Label> {
        match self {
            Open::Labels(labels) => labels.to_vec(),
            Open::Overflow => vec![(Arc::from(OVERFLOW_LABEL), Arc::from("true"))],
        }
    }
}

/// The series of one family and flow, by closed labels `C` and open ones.
#[derive(Debug)]
pub(super) struct SeriesMap<C, V> {
    series: HashMap<(C, Open), Entry<V>>,
    limit: usize,
    refused: u64,
}

#[derive(Debug)]
struct Entry<V> {
    visible_from: Arrival,
    value: V,
}

impl<C: Copy + Eq + Hash + Ord, V> SeriesMap<C, V> {
    /// At most `limit` series with open labels of their own.
    pub(super) fn new(limit: usize) -> Self {
        SeriesMap { series: HashMap::new(), limit, refused: 0 }
    }

    /// The value of a series, created if it is new; its zero is shown until `visible_from` then.
    pub(super) fn get(
        &mut self,
        closed: C,
        labels: &Arc<[Label]>,
        visible_from: Arrival,
        create: impl FnOnce() -> V,
    ) -> &mut V {
        let mut key = (closed, Open::Labels(Arc::clone(labels)));
        if self.series.len() >= self.limit && !self.series.contains_key(&key) {
            key.1 = Open::Overflow;
            self.refused += 1;
        }
        let entry = self.series.entry(key).or_insert_with(|| Entry { visible_from, value: create() });
        &mut entry.value
    }

    /// Whether the series exists by its own labels.
    pub(super) fn contains(&self, closed: C, labels: &Arc<[Label]>) -> bool {
        self.series.contains_key(&(closed, Open::Labels(Arc::clone(labels))))
    }

    /// How many times a value went to the overflow series.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// All series in a stable order, with whether they still show zero at `now`.
    pub(super) fn sorted(&self, now: Arrival) -> Vec<(C, &Open, &V, bool)> {
        let mut series: Vec<_> = (self.series.iter())
            .map(|((closed, open), entry)| (*closed, open, &entry.value, now < entry.visible_from))
            .collect();
        series.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        series
    }
}

//! A histogram of times with exact sums.
//!
//! Invariant: the counts only rise, every observation is in exactly one bucket, and the sum is kept in whole
//! nanoseconds, so that it does not depend on the order of the observations.

use std::sync::Arc;

use super::snapshot::{HistogramValue, Sum};
use crate::domain::result::Latency;

/// Bounds in both units: to compare with, and to show.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bounds {
    seconds: Arc<[f64]>,
    nanoseconds: Arc<[u64]>,
}

impl Bounds {
    /// From bounds in seconds, which must be finite and rising.
    pub(super) fn from_seconds(seconds: &[f64]) -> Self {
        // A bound is a decimal number of seconds; a saturating cast is right for those beyond 584 years.
        let nanoseconds = seconds.iter().map(|bound| (bound * 1e9).round().max(0.0) as u64).collect();
        Bounds { seconds: seconds.into(), nanoseconds }
    }
}

/// Counts observations of one series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    bounds: Bounds,
    counts: Box<[u64]>,
    nanoseconds: u128,
}

impl Histogram {
    /// An empty histogram.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let counts = vec![0; bounds.seconds.len() + 1].into();
        Histogram { bounds: bounds.clone(), counts, nanoseconds: 0 }
    }

    /// Counts one latency.
    pub(super) fn observe(&mut self, latency: Latency) {
        let (bucket, nanoseconds) = match latency {
            Latency::Finite(nanoseconds) => {
                (self.bounds.nanoseconds.partition_point(|&bound| bound < nanoseconds), nanoseconds)
            }
            Latency::Infinite(nanoseconds) => (self.counts.len() - 1, nanoseconds),
            Latency::Unobserved => return,
        };
        self.counts[bucket] += 1;
        self.nanoseconds += u128::from(nanoseconds);
    }

    /// What a scrape shows; `hidden`: as if nothing had been observed.
    pub(super) fn value(&self, hidden: bool) -> HistogramValue {
        let bounds = Arc::clone(&self.bounds.seconds);
        if hidden {
            return HistogramValue { bounds, counts: vec![0; self.counts.len()], sum: Sum::Nanoseconds(0) };
        }
        HistogramValue { bounds, counts: self.counts.to_vec(), sum: Sum::Nanoseconds(self.nanoseconds) }
    }
}

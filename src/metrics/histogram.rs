//! A histogram of times with exact sums.
//!
//! Invariant: the counts only rise, every observation is in exactly one bucket, and the sum is kept in whole
//! nanoseconds, so that it does not depend on the order of the observations.

mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::series::Accumulate;
use super::snapshot::{Exemplar, HistogramValue, NativeHistogram, SideBySide, Sum};
use crate::domain::ids::TraceId;
use crate::domain::result::Latency;
use crate::domain::time::EventTime;

/// How the histograms of a flow are kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) bounds: Bounds,
    /// Whether formats that can show native histograms show the buckets as well.
    pub(super) shows_classic: bool,
    /// How fine native buckets are, and how many there may be; `None`: there are none.
    pub(super) native: Option<NativeLayout>,
}

impl Layout {
    /// How many lines of the page a histogram takes: its buckets, the one without a bound, the sum and the count.
    pub(super) fn lines(&self) -> usize {
        self.bounds.seconds.len() + 3
    }
}

/// How native buckets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NativeLayout {
    schema: i32,
    limit: usize,
}

impl NativeLayout {
    /// The coarsest buckets whose bounds grow by at most `factor`, which is more than 1, and at most `limit` of them.
    pub(super) fn new(factor: f64, limit: usize) -> Self {
        let fits = |schema: &i32| 2_f64.powf(2_f64.powi(-schema)) <= factor;
        let schema = (MIN_SCHEMA..=MAX_SCHEMA).find(fits).unwrap_or(MAX_SCHEMA);
        NativeLayout { schema, limit }
    }
}

/// The range of schemas in the specification of native histograms.
const MIN_SCHEMA: i32 = -4;
const MAX_SCHEMA: i32 = 8;
/// What client_golang takes as well.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

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

    fn bucket_of(&self, nanoseconds: u64) -> usize {
        self.nanoseconds.partition_point(|&bound| bound < nanoseconds)
    }
}

/// Counts observations of one series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    bounds: Bounds,
    shows_classic: bool,
    counts: Box<[u64]>,
    nanoseconds: u128,
    native: Option<Native>,
    /// One for each bucket, where exemplars are wanted.
    exemplars: Box<[Option<Kept>]>,
}

/// An observation that stands for its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    trace: TraceId,
    nanoseconds: u64,
    at: EventTime,
}

/// For how long an observation stands for its bucket, even if none was slower since.
const EXEMPLAR_AGE: Duration = Duration::from_secs(300);

impl Histogram {
    /// An empty histogram.
    pub(super) fn new(layout: &Layout) -> Self {
        let counts = vec![0; layout.bounds.seconds.len() + 1].into();
        Histogram {
            bounds: layout.bounds.clone(),
            shows_classic: layout.shows_classic,
            counts,
            nanoseconds: 0,
            native: layout.native.map(Native::new),
            exemplars: Box::default(),
        }
    }

    /// Counts one latency as often as it stands for.
    pub(super) fn observe(&mut self, latency: Latency, weight: u64) {
        let (bucket, nanoseconds) = match latency {
            Latency::Finite(nanoseconds) => (self.bounds.bucket_of(nanoseconds), nanoseconds),
            Latency::Infinite(nanoseconds) => (self.counts.len() - 1, nanoseconds),
            Latency::Unobserved => return,
        };
        self.counts[bucket] += weight;
        self.nanoseconds += u128::from(nanoseconds) * u128::from(weight);
        if let Some(native) = &mut self.native {
            native.observe(latency, weight);
        }
    }

    /// Lets a latency stand for its bucket, if it is the slowest there in the last minutes. One that never ended has no
    /// value that would lie in its bucket.
    pub(super) fn exemplify(&mut self, latency: Latency, trace: TraceId, at: EventTime) {
        let Latency::Finite(nanoseconds) = latency else { return };
        if self.exemplars.is_empty() {
            self.exemplars = vec![None; self.counts.len()].into();
        }
        let kept = &mut self.exemplars[self.bounds.bucket_of(nanoseconds)];
        let stays =
            kept.is_some_and(|kept| kept.nanoseconds > nanoseconds && at < kept.at.plus(EXEMPLAR_AGE));
        if !stays {
            *kept = Some(Kept { trace, nanoseconds, at });
        }
    }

    /// What a scrape shows at `now`; `hidden`: as if nothing had been observed. The counts go to `counts`.
    pub(super) fn value(&self, hidden: bool, now: EventTime, counts: &mut SideBySide) -> HistogramValue {
        let is_fresh = |kept: &&Kept| !hidden && now < kept.at.plus(EXEMPLAR_AGE);
        let kept = self.exemplars.iter().enumerate();
        let exemplar = |(bucket, kept): (usize, &Kept)| Exemplar {
            bucket,
            trace: kept.trace,
            nanoseconds: kept.nanoseconds,
            at: kept.at,
        };
        let fresh = kept.filter_map(|(bucket, kept)| Some((bucket, kept.as_ref().filter(is_fresh)?)));
        HistogramValue {
            bounds: Arc::clone(&self.bounds.seconds),
            counts: counts.add(self.counts.iter().map(|count| if hidden { 0 } else { *count })),
            sum: Sum::Nanoseconds(if hidden { 0 } else { self.nanoseconds }),
            exemplars: fresh.map(exemplar).collect(),
            shows_classic: self.shows_classic,
            native: self.native.as_ref().map(|native| native.value(hidden).into()),
        }
    }
}

impl Accumulate for Histogram {
    fn add(&mut self, other: &Self, _: bool) {
        debug_assert_eq!(self.bounds, other.bounds, "buckets of one kind only are added up");
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.nanoseconds += other.nanoseconds;
        if let (Some(native), Some(other)) = (&mut self.native, &other.native) {
            native.add(other);
        }
    }
}

/// The same observations in exponential buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Native {
    schema: i32,
    limit: usize,
    zero: u64,
    buckets: BTreeMap<i32, u64>,
}

impl Native {
    fn new(layout: NativeLayout) -> Self {
        Native { schema: layout.schema, limit: layout.limit, zero: 0, buckets: BTreeMap::new() }
    }

    fn observe(&mut self, latency: Latency, weight: u64) {
        let index = match latency {
            Latency::Finite(nanoseconds) => {
                let seconds = nanoseconds as f64 / 1e9;
                if seconds <= ZERO_THRESHOLD {
                    self.zero += weight;
                    return;
                }
                index(seconds, self.schema)
            }
            // The bucket for +Inf is the one after that of the largest number.
            Latency::Infinite(_) => index(f64::MAX, self.schema) + 1,
            Latency::Unobserved => return,
        };
        *self.buckets.entry(index).or_default() += weight;
        self.coarsen();
    }

    /// Halves the resolution until there are few enough buckets: every second bound goes, and no observation is lost.
    fn coarsen(&mut self) {
        while self.buckets.len() > self.limit && self.schema > MIN_SCHEMA {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.schema -= 1;
        let mut halved: BTreeMap<i32, u64> = BTreeMap::new();
        for (index, count) in std::mem::take(&mut self.buckets) {
            *halved.entry((index + 1) >> 1).or_default() += count;
        }
        self.buckets = halved;
    }

    fn add(&mut self, other: &Native) {
        let mut other = other.clone();
        while other.schema > self.schema {
            other.halve();
        }
        while self.schema > other.schema {
            self.halve();
        }
        self.zero += other.zero;
        for (index, count) in other.buckets {
            *self.buckets.entry(index).or_default() += count;
        }
        self.coarsen();
    }

    fn value(&self, hidden: bool) -> NativeHistogram {
        NativeHistogram {
            schema: self.schema,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: if hidden { 0 } else { self.zero },
            buckets: if hidden {
                Vec::new()
            } else {
                self.buckets.iter().map(|(&index, &count)| (index, count)).collect()
            },
        }
    }
}

/// The bucket of a positive number: the least index whose bound 2^(index / 2^schema) is not below it. As client_golang
/// computes it, so that bounds that are powers of two are exact.
fn index(value: f64, schema: i32) -> i32 {
    // The number is fraction * 2^exponent with a fraction from 0.5 to below 1; it is not subnormal.
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
    let fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1022 << 52));
    if schema > 0 {
        let parts = 1 << schema;
        let bound = |part: &i32| 0.5 * 2_f64.powf(f64::from(*part) / f64::from(parts));
        let part = (0..parts).take_while(|part| bound(part) < fraction).count() as i32;
        return part + (exponent - 1) * parts;
    }
    let power = if fraction == 0.5 { exponent - 1 } else { exponent };
    let merged = 1 << -schema;
    (power + merged - 1) >> -schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_buckets_have_the_bounds_of_the_specification() {
        for schema in MIN_SCHEMA..=MAX_SCHEMA {
            for nanoseconds in
                [1_u64, 999, 1_000_000, 250_000_000, 1_000_000_000, 3_000_000_000, 600_000_000_000, u64::MAX]
            {
                let seconds = nanoseconds as f64 / 1e9;
                let index = f64::from(index(seconds, schema));
                let bound = |index: f64| 2_f64.powf(index * 2_f64.powi(-schema));
                // Computed in another way, so that the last digit may differ.
                assert!(seconds <= bound(index) * (1.0 + 1e-12), "{seconds} in {schema}");
                assert!(seconds > bound(index - 1.0) * (1.0 - 1e-12), "{seconds} in {schema}");
            }
        }
        assert_eq!(index(1.0, 3), 0);
        assert_eq!(index(2.0, 3), 8);
        assert_eq!(index(2.1, 0), 2);
    }

    #[test]
    fn the_factor_is_an_upper_bound() {
        for (factor, schema) in [(1.1, 3), (2.0, 0), (1.0001, 8), (100_000.0, -4)] {
            assert_eq!(NativeLayout::new(factor, 160).schema, schema, "{factor}");
        }
    }

    #[test]
    fn too_many_buckets_become_coarser_and_lose_no_observation() {
        let mut fine = Native::new(NativeLayout { schema: 8, limit: 20 });
        let mut coarse = Native::new(NativeLayout { schema: 0, limit: 1000 });
        for exponent in 0..60 {
            fine.observe(Latency::Finite(1 << exponent), 2);
            coarse.observe(Latency::Finite(1 << exponent), 2);
        }
        fine.observe(Latency::Infinite(1), 1);
        assert!(fine.buckets.len() <= 20);
        assert_eq!(fine.buckets.values().sum::<u64>(), 121);
        while coarse.schema > fine.schema {
            coarse.halve();
        }
        let finite: Vec<_> = fine.buckets.iter().take(fine.buckets.len() - 1).collect();
        assert_eq!(finite, coarse.buckets.iter().collect::<Vec<_>>());
        let mut sum = coarse.clone();
        sum.add(&fine);
        assert_eq!(sum.buckets.values().sum::<u64>(), 241);
    }
}

//! What one scrape shows, as plain values: the one model that every exposition format is written from.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::domain::ids::TraceId;
use crate::domain::labels::Label;
use crate::domain::time::EventTime;

/// All series of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name; a counter's ends in `_total`.
    pub name: Arc<str>,
    /// What it says, for people.
    pub help: Arc<str>,
    /// What its values are.
    pub kind: Kind,
    /// Its series, label sets unique.
    pub series: Vec<Series>,
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// One label set and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels in the order in which they are shown.
    pub labels: Labels,
    /// When it began at zero, by our wall clock; for counters and histograms.
    pub created: Option<EventTime>,
    /// Its value.
    pub value: Value,
}

/// The labels of a series, which stay the same from one scrape to the next, and as text once they have been written. They
/// stand among those of others: to have hold of one is to have hold of all of these.
#[derive(Clone)]
pub struct Labels {
    among: Arc<[Written]>,
    place: usize,
}

struct Written {
    labels: Box<[Label]>,
    text: OnceLock<Box<str>>,
}

impl Labels {
    /// Those of several series.
    pub(super) fn side_by_side(each: Vec<Vec<Label>>) -> impl Iterator<Item = Labels> {
        let written = |labels: Vec<Label>| Written { labels: labels.into(), text: OnceLock::new() };
        let among: Arc<[Written]> = each.into_iter().map(written).collect();
        (0..among.len()).map(move |place| Labels { among: Arc::clone(&among), place })
    }

    /// Them as text, which `write` makes of them if it is not known yet.
    pub(super) fn text(&self, write: impl FnOnce(&[Label]) -> String) -> &str {
        let Written { labels, text } = &self.among[self.place];
        text.get_or_init(|| write(labels).into())
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let written = Written { labels: labels.into_iter().collect(), text: OnceLock::new() };
        Labels { among: [written].into(), place: 0 }
    }
}

impl Deref for Labels {
    type Target = [Label];

    fn deref(&self) -> &[Label] {
        &self.among[self.place].labels
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The value of a series.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// Any number.
    Float(f64),
    /// A time, exact; shown in seconds.
    Nanoseconds(u128),
    /// Observations by size.
    Histogram(HistogramValue),
}

/// Observations by size.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramValue {
    /// Upper bounds of the buckets without +Inf, rising.
    pub bounds: Arc<[f64]>,
    /// Observations in each bucket, not cumulated; one more than bounds, for +Inf.
    pub counts: Counts,
    /// Sum of all observations.
    pub sum: Sum,
    /// At most one for each bucket, by bucket.
    pub exemplars: Vec<Exemplar>,
    /// Whether formats that can show native histograms show the buckets above as well.
    pub shows_classic: bool,
    /// The same observations in exponential buckets, if that is wanted.
    pub native: Option<Box<NativeHistogram>>,
}

/// The counts of the buckets of a histogram. They stand among those of others: to take and to give back thousands of small
/// pieces of memory, on two threads, takes as long as all the rest of a reading.
#[derive(Clone)]
pub struct Counts {
    among: Arc<OnceLock<Vec<u64>>>,
    first: usize,
    length: usize,
}

impl Deref for Counts {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        debug_assert!(self.among.get().is_some(), "counts are seen before all are there");
        let all = self.among.get().map_or(&[][..], Vec::as_slice);
        all.get(self.first..self.first + self.length).unwrap_or_default()
    }
}

impl From<Vec<u64>> for Counts {
    fn from(counts: Vec<u64>) -> Self {
        let length = counts.len();
        Counts { among: Arc::new(OnceLock::from(counts)), first: 0, length }
    }
}

impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Where the counts of several histograms are put side by side. They are seen when all are there.
#[derive(Debug, Default)]
pub(super) struct SideBySide {
    counts: Vec<u64>,
    among: Arc<OnceLock<Vec<u64>>>,
}

impl SideBySide {
    /// Adds those of one more histogram.
    pub(super) fn add(&mut self, counts: impl ExactSizeIterator<Item = u64>) -> Counts {
        let (first, length) = (self.counts.len(), counts.len());
        self.counts.extend(counts);
        Counts { among: Arc::clone(&self.among), first, length }
    }

    /// Shows all that have been added, and begins anew.
    pub(super) fn show(&mut self) {
        let capacity = self.counts.len();
        let counts = std::mem::replace(&mut self.counts, Vec::with_capacity(capacity));
        let shown = std::mem::take(&mut self.among).set(counts);
        debug_assert_eq!(shown, Ok(()), "they are shown once");
    }
}

/// An observation that stands for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// The place of its bucket.
    pub bucket: usize,
    /// The trace in which it was observed.
    pub trace: TraceId,
    /// What was observed.
    pub nanoseconds: u64,
    /// When, by our wall clock.
    pub at: EventTime,
}

/// Observations in buckets that grow by a constant factor.
/// <https://prometheus.io/docs/specs/native_histograms/>
#[derive(Debug, Clone, PartialEq)]
pub struct NativeHistogram {
    /// Each power of two is divided into 2^schema buckets.
    pub schema: i32,
    /// What is not larger than this is in the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// Buckets with observations, by index; the upper bound of index i is 2^(i / 2^schema).
    pub buckets: Vec<(i32, u64)>,
}

/// A sum of observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sum {
    /// Exact, of times.
    Nanoseconds(u128),
    /// Of anything else.
    Float(f64),
}

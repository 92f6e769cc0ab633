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

/// The labels of a series, which stay the same from one scrape to the next, and as text once they have been written.
#[derive(Clone)]
pub struct Labels(Arc<Written>);

struct Written {
    labels: Box<[Label]>,
    text: OnceLock<Box<str>>,
}

impl Labels {
    /// Them as text, which `write` makes of them if it is not known yet.
    pub(super) fn text(&self, write: impl FnOnce(&[Label]) -> String) -> &str {
        self.0.text.get_or_init(|| write(&self.0.labels).into())
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Labels(Arc::new(Written { labels: labels.into_iter().collect(), text: OnceLock::new() }))
    }
}

impl Deref for Labels {
    type Target = [Label];

    fn deref(&self) -> &[Label] {
        &self.0.labels
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.0.labels == other.0.labels
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.labels.fmt(f)
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
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: Sum,
    /// At most one for each bucket, by bucket.
    pub exemplars: Vec<Exemplar>,
    /// Whether formats that can show native histograms show the buckets above as well.
    pub shows_classic: bool,
    /// The same observations in exponential buckets, if that is wanted.
    pub native: Option<Box<NativeHistogram>>,
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

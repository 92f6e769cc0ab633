//! What one scrape shows, as plain values: the one model that every exposition format is written from.

use std::sync::Arc;

use crate::domain::labels::Label;

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
    pub labels: Vec<Label>,
    /// Its value.
    pub value: Value,
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
}

/// A sum of observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sum {
    /// Exact, of times.
    Nanoseconds(u128),
    /// Of anything else.
    Float(f64),
}

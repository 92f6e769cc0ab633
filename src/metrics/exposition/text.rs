//! Prometheus text format 0.0.4, written from the snapshot.
//!
//! Knows nothing of what the families mean. Every label value and help text is escaped here and nowhere else.

use std::fmt::Write;
use std::sync::Arc;

use crate::domain::labels::Label;
use crate::domain::time::EventTime;
use crate::metrics::snapshot::{Family, HistogramValue, Kind, Series, Sum, Value};

/// Writes all families.
pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::with_capacity(64 * 1024);
    let mut bounds = BoundTexts::default();
    for family in families {
        let name = &family.name;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        escape(&mut text, &family.help, false);
        text.push_str("\n# TYPE ");
        text.push_str(name);
        text.push(' ');
        text.push_str(kind);
        text.push('\n');
        for series in &family.series {
            write_series(&mut text, &Sample::new(name, &series.labels), series, &mut bounds);
        }
    }
    text
}

fn write_series(text: &mut String, sample: &Sample<'_>, series: &Series, bounds: &mut BoundTexts) {
    match &series.value {
        Value::Integer(value) => sample.write(text, "", None, itoa::Buffer::new().format(*value), ""),
        Value::Float(value) => sample.write(text, "", None, &float(*value), ""),
        Value::Nanoseconds(value) => sample.write(text, "", None, &sum_text(Sum::Nanoseconds(*value)), ""),
        Value::Histogram(value) => write_histogram(text, sample, value, bounds),
    }
}

fn write_histogram(text: &mut String, sample: &Sample<'_>, value: &HistogramValue, bounds: &mut BoundTexts) {
    let (mut cumulated, mut digits) = (0, itoa::Buffer::new());
    for (bound, count) in bounds.of(&value.bounds).iter().zip(&value.counts) {
        cumulated += count;
        sample.write(text, "_bucket", Some(bound), digits.format(cumulated), "");
    }
    sample.write(text, "_sum", None, &sum_text(value.sum), "");
    sample.write(text, "_count", None, digits.format(cumulated), "");
}

/// The bounds of buckets as text, +Inf last. Most histograms of a page have the same.
#[derive(Default)]
pub(super) struct BoundTexts {
    bounds: Option<Arc<[f64]>>,
    texts: Vec<String>,
}

impl BoundTexts {
    pub(super) fn of(&mut self, bounds: &Arc<[f64]>) -> &[String] {
        if !self.bounds.as_ref().is_some_and(|known| Arc::ptr_eq(known, bounds)) {
            self.texts = bounds.iter().copied().chain([f64::INFINITY]).map(bound_text).collect();
            self.bounds = Some(Arc::clone(bounds));
        }
        &self.texts
    }
}

/// What the lines of one series have in common.
pub(super) struct Sample<'s> {
    name: &'s str,
    /// As they stand in the braces.
    labels: String,
}

impl<'s> Sample<'s> {
    pub(super) fn new(name: &'s str, labels: &[Label]) -> Self {
        let mut sample = Sample { name, labels: String::with_capacity(64) };
        push_labels(&mut sample.labels, labels);
        sample
    }

    /// One line: name, labels and a bucket's bound, value, and what else comes after it.
    pub(super) fn write(
        &self,
        text: &mut String,
        suffix: &str,
        bound: Option<&str>,
        value: &str,
        rest: &str,
    ) {
        text.push_str(self.name);
        text.push_str(suffix);
        match bound {
            Some(bound) => {
                text.push('{');
                text.push_str(&self.labels);
                text.push_str(if self.labels.is_empty() { "le=\"" } else { ",le=\"" });
                text.push_str(bound);
                text.push_str("\"}");
            }
            None if self.labels.is_empty() => {}
            None => {
                text.push('{');
                text.push_str(&self.labels);
                text.push('}');
            }
        }
        text.push(' ');
        text.push_str(value);
        text.push_str(rest);
        text.push('\n');
    }
}

/// Labels as they stand in their braces.
pub(super) fn push_labels(text: &mut String, labels: &[Label]) {
    for (place, (label, value)) in labels.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(label);
        text.push_str("=\"");
        escape(text, value, true);
        text.push('"');
    }
}

pub(super) fn escape(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

/// A bucket bound as every format shows it: always with a decimal point or an exponent, so that `1` and `1.0` are
/// never two series.
fn bound_text(bound: f64) -> String {
    let text = float(bound);
    if text.contains(['.', 'e', 'I']) { text } else { text + ".0" }
}

/// A number as Go's `%g` with the shortest exact digits writes it.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}

/// Seconds, exact.
pub(super) fn sum_text(sum: Sum) -> String {
    match sum {
        Sum::Float(value) => float(value),
        Sum::Nanoseconds(nanoseconds) => {
            let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
            let mut text = seconds.to_string();
            if fraction != 0 {
                // Writing to a String cannot fail.
                write!(text, ".{fraction:09}").unwrap_or_default();
                text.truncate(text.trim_end_matches('0').len());
            }
            text
        }
    }
}

/// A moment in seconds since 1970, to the millisecond.
pub(super) fn seconds_text(time: EventTime) -> String {
    let milliseconds = time.unix_nanoseconds() / 1_000_000;
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_the_same_way_in_every_format() {
        for (bound, expected) in [
            (0.005, "0.005"),
            (1.0, "1.0"),
            (10.0, "10.0"),
            (600.0, "600.0"),
            (0.00001, "1e-05"),
            (1e6, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (1e21, "1e+21"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(bound_text(bound), expected);
        }
    }

    #[test]
    fn sums_are_exact() {
        for (nanoseconds, expected) in
            [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (3_000_000_000, "3")]
        {
            assert_eq!(sum_text(Sum::Nanoseconds(nanoseconds)), expected);
        }
    }

    #[test]
    fn hostile_label_values_stay_inside_their_quotes() {
        let mut text = String::new();
        let labels = [("a".into(), "x\"} 1\nm{a=\"\\".into())];
        Sample::new("m", &labels).write(&mut text, "", None, "1", "");
        assert_eq!(text, "m{a=\"x\\\"} 1\\nm{a=\\\"\\\\\"} 1\n");
    }
}

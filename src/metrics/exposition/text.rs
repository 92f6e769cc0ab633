//! Prometheus text format 0.0.4, written from the snapshot.
//!
//! Knows nothing of what the families mean. Every label value and help text is escaped here and nowhere else.

use std::fmt::Write;
use std::sync::Arc;

use super::pieces::Pieces;
use crate::domain::labels::Label;
use crate::domain::time::EventTime;
use crate::metrics::snapshot::{Exemplar, Family, HistogramValue, Kind, Labels, Series, Sum, Value};

/// Writes all families.
pub(super) fn render(families: &[Family], page: &mut Pieces) {
    let mut lines = Lines::default();
    for family in families {
        let name = &family.name;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let text = page.text(2 * name.len() + family.help.len());
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        escape(text, &family.help, false);
        text.push_str("\n# TYPE ");
        text.push_str(name);
        text.push(' ');
        text.push_str(kind);
        text.push('\n');
        for Series { labels, value, .. } in &family.series {
            match value {
                Value::Histogram(value) => lines.histogram(page, name, labels, value, |_, _| {}),
                value => lines.sample(page, name, "", labels, |text| push_value(text, value)),
            }
        }
    }
}

/// Writes the lines of one series after the other.
#[derive(Default)]
pub(super) struct Lines {
    bounds: Option<Arc<[f64]>>,
    /// The bounds of buckets, +Inf last, as they stand behind the labels. Most histograms of a page have the same.
    bound_texts: Vec<String>,
    /// What the lines of one histogram's buckets begin with.
    prefix: String,
}

/// What a line takes beside the name and the labels: the bound, the value, and an exemplar without its labels.
const LINE_BYTES: usize = 128;

impl Lines {
    /// One line: name, labels and value.
    pub(super) fn sample(
        &self,
        page: &mut Pieces,
        name: &str,
        suffix: &str,
        labels: &Labels,
        value: impl FnOnce(&mut String),
    ) {
        let labels = labels.text(text_of);
        let text = page.text(name.len() + labels.len() + LINE_BYTES);
        push_name(text, name, suffix, labels);
        value(text);
        text.push('\n');
    }

    /// The lines of a histogram; `rest` writes what comes behind a bucket's value.
    pub(super) fn histogram(
        &mut self,
        page: &mut Pieces,
        name: &str,
        labels: &Labels,
        value: &HistogramValue,
        mut rest: impl FnMut(&mut String, usize),
    ) {
        self.find_bounds(&value.bounds);
        let labels = labels.text(text_of);
        self.prefix.clear();
        self.prefix.extend([name, "_bucket{", labels, if labels.is_empty() { "le=\"" } else { ",le=\"" }]);
        let text = page.text((value.counts.len() + 2) * (self.prefix.len() + LINE_BYTES));
        let (mut cumulated, mut digits) = (0, itoa::Buffer::new());
        let mut shown = digits.format(cumulated);
        for (place, (bound, count)) in self.bound_texts.iter().zip(&*value.counts).enumerate() {
            // Most buckets are empty: what comes out of it is what came out of the one before.
            if *count > 0 {
                cumulated += count;
                shown = digits.format(cumulated);
            }
            text.push_str(&self.prefix);
            text.push_str(bound);
            text.push_str(shown);
            rest(text, place);
            text.push('\n');
        }
        push_name(text, name, "_sum", labels);
        push_sum(text, value.sum);
        text.push('\n');
        push_name(text, name, "_count", labels);
        text.push_str(shown);
        text.push('\n');
    }

    fn find_bounds(&mut self, bounds: &Arc<[f64]>) {
        if !self.bounds.as_ref().is_some_and(|known| Arc::ptr_eq(known, bounds)) {
            let bound_text = |bound| bound_text(bound) + "\"} ";
            self.bound_texts = bounds.iter().copied().chain([f64::INFINITY]).map(bound_text).collect();
            self.bounds = Some(Arc::clone(bounds));
        }
    }
}

/// What stands before a value.
fn push_name(text: &mut String, name: &str, suffix: &str, labels: &str) {
    text.push_str(name);
    text.push_str(suffix);
    if !labels.is_empty() {
        text.push('{');
        text.push_str(labels);
        text.push('}');
    }
    text.push(' ');
}

/// The value of what is no histogram.
pub(super) fn push_value(text: &mut String, value: &Value) {
    match value {
        Value::Integer(value) => text.push_str(itoa::Buffer::new().format(*value)),
        Value::Float(value) => push_float(text, *value),
        Value::Nanoseconds(value) => push_sum(text, Sum::Nanoseconds(*value)),
        Value::Histogram(_) => {}
    }
}

/// Labels as they stand in their braces.
fn text_of(labels: &[Label]) -> String {
    let mut text =
        String::with_capacity(labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
    for (place, (label, value)) in labels.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(label);
        text.push_str("=\"");
        escape(&mut text, value, true);
        text.push('"');
    }
    text
}

pub(super) fn escape(text: &mut String, value: &str, quotes: bool) {
    // Hardly any value has such a character: what lies between them is copied at once.
    let mut rest = value;
    while let Some(place) = rest.find(|c| matches!(c, '\\' | '\n') || (c == '"' && quotes)) {
        text.push_str(&rest[..place]);
        text.push_str(match rest.as_bytes()[place] {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            _ => "\\\"",
        });
        rest = &rest[place + 1..];
    }
    text.push_str(rest);
}

/// A bucket bound as every format shows it: always with a decimal point or an exponent, so that `1` and `1.0` are
/// never two series.
fn bound_text(bound: f64) -> String {
    let mut text = String::new();
    push_float(&mut text, bound);
    if text.contains(['.', 'e', 'I']) { text } else { text + ".0" }
}

/// A number as Go's `%g` with the shortest exact digits writes it.
fn push_float(text: &mut String, value: f64) {
    let magnitude = value.abs();
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let digits = format!("{value:e}");
        let (digits, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        // Writing to a String cannot fail.
        write!(text, "{digits}e{sign}{exponent:0>2}").unwrap_or_default();
    } else {
        write!(text, "{value}").unwrap_or_default();
    }
}

/// Seconds, exact.
pub(super) fn push_sum(text: &mut String, sum: Sum) {
    match sum {
        Sum::Float(value) => push_float(text, value),
        Sum::Nanoseconds(nanoseconds) => push_nanoseconds(text, nanoseconds),
    }
}

fn push_nanoseconds(text: &mut String, nanoseconds: u128) {
    const SECOND: u64 = 1_000_000_000;
    // Most fit into half the bits, which are divided much faster.
    let (seconds, fraction) = match u64::try_from(nanoseconds) {
        Ok(nanoseconds) => (u128::from(nanoseconds / SECOND), nanoseconds % SECOND),
        Err(_) => (nanoseconds / u128::from(SECOND), (nanoseconds % u128::from(SECOND)) as u64),
    };
    let mut digits = itoa::Buffer::new();
    text.push_str(digits.format(seconds));
    if fraction > 0 {
        text.push('.');
        // The 1 in front keeps the zeros behind it.
        text.push_str(digits.format(SECOND + fraction)[1..].trim_end_matches('0'));
    }
}

/// A moment in seconds since 1970, to the millisecond.
pub(super) fn push_time(text: &mut String, time: EventTime) {
    let milliseconds = time.unix_nanoseconds() / 1_000_000;
    let mut digits = itoa::Buffer::new();
    text.push_str(digits.format(milliseconds / 1000));
    text.push('.');
    text.push_str(&digits.format(1000 + milliseconds % 1000)[1..]);
}

/// ` # {trace_id="..."} 0.25 1700000000.123`
pub(super) fn push_exemplar(text: &mut String, exemplar: &Exemplar) {
    write!(text, " # {{trace_id=\"{}\"}} ", exemplar.trace).unwrap_or_default();
    push_nanoseconds(text, exemplar.nanoseconds.into());
    text.push(' ');
    push_time(text, exemplar.at);
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
        for (nanoseconds, expected) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (3_000_000_000, "3"),
            (u128::from(u64::MAX), "18446744073.709551615"),
            (10_u128.pow(29) + 20, "100000000000000000000.00000002"),
        ] {
            let mut text = String::new();
            push_sum(&mut text, Sum::Nanoseconds(nanoseconds));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn hostile_label_values_stay_inside_their_quotes() {
        let labels = [("a".into(), "x\"} 1\nm{a=\"\\".into()), ("b".into(), "ä\n".into())];
        assert_eq!(text_of(&labels), "a=\"x\\\"} 1\\nm{a=\\\"\\\\\",b=\"ä\\n\"");
    }
}

//! OpenMetrics text 1.0.0, written from the snapshot.
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
//!
//! It differs from Prometheus' text in the names of counters, in units, exemplars, creation times and its last line.

use super::text::{BoundTexts, Sample, escape, float, push_labels, seconds_text, sum_text};
use crate::metrics::snapshot::{Exemplar, Family, HistogramValue, Kind, Series, Sum, Value};

/// Writes all families.
pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::with_capacity(64 * 1024);
    let mut bounds = BoundTexts::default();
    for family in families {
        let name = family_name(family);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        text.push_str(&format!("# TYPE {name} {kind}\n"));
        if let Some(unit) = unit(family_name(family)) {
            text.push_str(&format!("# UNIT {name} {unit}\n"));
        }
        text.push_str(&format!("# HELP {name} "));
        escape(&mut text, &family.help, true);
        text.push('\n');
        for series in &family.series {
            write_series(&mut text, name, family.kind, series, &mut bounds);
        }
    }
    text.push_str("# EOF\n");
    text
}

/// A counter's family is called without `_total`, its sample with it.
fn family_name(family: &Family) -> &str {
    match family.kind {
        Kind::Counter => family.name.strip_suffix("_total").unwrap_or(&family.name),
        Kind::Gauge | Kind::Histogram => &family.name,
    }
}

/// A unit has to be the end of the family's name.
fn unit(name: &str) -> Option<&'static str> {
    ["seconds", "bytes", "ratio"]
        .into_iter()
        .find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
}

fn write_series(text: &mut String, name: &str, kind: Kind, series: &Series, bounds: &mut BoundTexts) {
    let sample = Sample::new(name, &series.labels);
    let suffix = if kind == Kind::Counter { "_total" } else { "" };
    match &series.value {
        Value::Integer(value) => sample.write(text, suffix, None, itoa::Buffer::new().format(*value), ""),
        Value::Float(value) => sample.write(text, suffix, None, &float(*value), ""),
        Value::Nanoseconds(value) => {
            sample.write(text, suffix, None, &sum_text(Sum::Nanoseconds(*value)), "");
        }
        Value::Histogram(value) => write_histogram(text, &sample, value, bounds),
    }
    if let Some(created) = series.created.filter(|_| kind != Kind::Gauge) {
        sample.write(text, "_created", None, &seconds_text(created), "");
    }
}

fn write_histogram(text: &mut String, sample: &Sample<'_>, value: &HistogramValue, bounds: &mut BoundTexts) {
    let (mut cumulated, mut digits) = (0, itoa::Buffer::new());
    for (place, (bound, count)) in bounds.of(&value.bounds).iter().zip(&value.counts).enumerate() {
        cumulated += count;
        let exemplar = value.exemplars.iter().find(|exemplar| exemplar.bucket == place);
        let exemplar = exemplar.map_or(String::new(), exemplar_text);
        sample.write(text, "_bucket", Some(bound), digits.format(cumulated), &exemplar);
    }
    sample.write(text, "_sum", None, &sum_text(value.sum), "");
    sample.write(text, "_count", None, digits.format(cumulated), "");
}

/// ` # {trace_id="..."} 0.25 1700000000.123`
fn exemplar_text(exemplar: &Exemplar) -> String {
    let mut text = " # {".to_owned();
    push_labels(&mut text, &[("trace_id".into(), exemplar.trace_id.as_str().into())]);
    text.push('}');
    let value = sum_text(Sum::Nanoseconds(exemplar.nanoseconds.into()));
    text.push_str(&format!(" {value} {}", seconds_text(exemplar.at)));
    text
}

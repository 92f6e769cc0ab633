//! OpenMetrics text 1.0.0, written from the snapshot.
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
//!
//! It differs from Prometheus' text in the names of counters, in units, exemplars, creation times and its last line.

use super::pieces::Pieces;
use super::text::{Lines, escape, push_exemplar, push_time, push_value};
use crate::metrics::snapshot::{Family, HistogramValue, Kind, Series, Value};

/// Writes all families.
pub(super) fn render(families: &[Family], page: &mut Pieces) {
    let mut lines = Lines::default();
    for family in families {
        let name = family_name(family);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let text = page.text(3 * name.len() + family.help.len());
        text.push_str(&format!("# TYPE {name} {kind}\n"));
        if let Some(unit) = unit(name) {
            text.push_str(&format!("# UNIT {name} {unit}\n"));
        }
        text.push_str(&format!("# HELP {name} "));
        escape(text, &family.help, true);
        text.push('\n');
        for series in &family.series {
            write_series(page, name, family.kind, series, &mut lines);
        }
    }
    page.text(0).push_str("# EOF\n");
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

fn write_series(page: &mut Pieces, name: &str, kind: Kind, series: &Series, lines: &mut Lines) {
    let Series { labels, created, value } = series;
    let suffix = if kind == Kind::Counter { "_total" } else { "" };
    match value {
        Value::Histogram(value) => lines.histogram(page, name, labels, value, exemplars_of(value)),
        value => lines.sample(page, name, suffix, labels, |text| push_value(text, value)),
    }
    if let Some(created) = created.filter(|_| kind != Kind::Gauge) {
        lines.sample(page, name, "_created", labels, |text| push_time(text, created));
    }
}

/// Writes the exemplar of one bucket after the other.
fn exemplars_of(value: &HistogramValue) -> impl FnMut(&mut String, usize) {
    let mut exemplars = value.exemplars.iter().peekable();
    move |text, bucket| {
        if let Some(exemplar) = exemplars.next_if(|exemplar| exemplar.bucket == bucket) {
            push_exemplar(text, exemplar);
        }
    }
}

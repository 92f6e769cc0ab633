//! The text formats beside the same written at first go, each line by itself.

use std::sync::Arc;

use super::*;
use crate::domain::ids::TraceId;
use crate::domain::labels::Label;
use crate::domain::time::EventTime;
use crate::metrics::snapshot::{Exemplar, HistogramValue, Kind, Series, Sum, Value};

const HOSTILE: [&str; 8] =
    ["", "plain", "\"", "\\", "\n", "a\"b\\c\nd", "grün \"und\" blau", "\\\\n\"\"\n\n"];

/// Shown as 0.000.
const MOMENT: EventTime = EventTime::EPOCH;

fn histogram(bounds: &Arc<[f64]>, seed: u64) -> HistogramValue {
    let counts: Vec<u64> =
        (0..=bounds.len() as u64).map(|bucket| (bucket + seed) % 3 * seed * 1000).collect();
    let exemplar =
        |bucket| Exemplar { bucket, trace: TraceId([seed as u8; 16]), nanoseconds: 250_000_000, at: MOMENT };
    HistogramValue {
        bounds: Arc::clone(bounds),
        counts: counts.into(),
        sum: Sum::Nanoseconds(u128::from(seed) * 1_000_000_000),
        exemplars: (0..=bounds.len())
            .filter(|bucket| bucket % 2 == seed as usize % 2)
            .map(exemplar)
            .collect(),
        shows_classic: true,
        native: None,
    }
}

/// Enough for several pieces.
fn families() -> Vec<Family> {
    let labels = |number: usize, seed: usize| -> Vec<Label> {
        let label =
            |place: usize| (format!("l{place}").into(), HOSTILE[(seed + place) % HOSTILE.len()].into());
        (0..number).map(label).collect()
    };
    let bounds: [Arc<[f64]>; 3] =
        [[0.25, 0.5].into(), [].into(), (1..=40).map(|bound| f64::from(bound) + 0.5).collect()];
    let family = |name: &str, kind, value: &dyn Fn(u64) -> Value| Family {
        name: name.into(),
        help: HOSTILE[5].into(),
        kind,
        series: (0..200)
            .map(|seed| Series {
                labels: labels(seed % 5, seed).into_iter().collect(),
                created: (seed % 2 == 0).then_some(MOMENT),
                value: value(seed as u64),
            })
            .collect(),
    };
    vec![
        family("a_seconds", Kind::Histogram, &|seed| {
            Value::Histogram(histogram(&bounds[seed as usize % 3], seed))
        }),
        family("b_total", Kind::Counter, &Value::Integer),
        family("c", Kind::Gauge, &|seed| Value::Float(seed as f64 + 0.5)),
    ]
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn line(name: &str, labels: &[Label], le: Option<&str>, value: &str) -> String {
    let labels = labels.iter().map(|(name, value)| (&**name, escaped(value)));
    let all: Vec<String> = labels
        .chain(le.map(|le| ("le", le.to_owned())))
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let braces = if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) };
    format!("{name}{braces} {value}\n")
}

/// The lines of a series; in OpenMetrics with exemplars and when it began.
fn lines(name: &str, kind: Kind, Series { labels, created, value }: &Series, is_open: bool) -> String {
    let base = name.strip_suffix("_total").unwrap_or(name);
    let mut text = String::new();
    match value {
        Value::Histogram(histogram) => {
            let mut sum = 0;
            for (place, count) in histogram.counts.iter().enumerate() {
                sum += count;
                let bound = histogram.bounds.get(place).map_or("+Inf".to_owned(), f64::to_string);
                let exemplar =
                    histogram.exemplars.iter().find(|exemplar| is_open && exemplar.bucket == place);
                let exemplar = exemplar.map_or(String::new(), |exemplar| {
                    format!(" # {{trace_id=\"{}\"}} 0.25 0.000", exemplar.trace)
                });
                text += &line(&format!("{name}_bucket"), labels, Some(&bound), &format!("{sum}{exemplar}"));
            }
            let Sum::Nanoseconds(nanoseconds) = histogram.sum else { panic!() };
            text += &line(&format!("{name}_sum"), labels, None, &(nanoseconds / 1_000_000_000).to_string());
            text += &line(&format!("{name}_count"), labels, None, &sum.to_string());
        }
        Value::Integer(value) => text += &line(name, labels, None, &value.to_string()),
        Value::Float(value) => text += &line(name, labels, None, &value.to_string()),
        Value::Nanoseconds(_) => panic!(),
    }
    if is_open && created.is_some() && kind != Kind::Gauge {
        text += &line(&format!("{base}_created"), labels, None, "0.000");
    }
    text
}

fn check(accept: &str, heads: [&str; 3], is_open: bool, end: &str) {
    let families = families();
    let mut expected = String::new();
    for (family, head) in families.iter().zip(heads) {
        expected += head;
        family
            .series
            .iter()
            .for_each(|series| expected += &lines(&family.name, family.kind, series, is_open));
    }
    expected += end;
    // The second time their labels are known.
    for _ in 0..2 {
        let pieces = Format::negotiate(accept).render(&families);
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let page = String::from_utf8(pieces.concat()).unwrap();
        let differing = page.lines().zip(expected.lines()).find(|(one, other)| one != other);
        assert_eq!(differing, None);
        assert_eq!(page, expected);
    }
}

#[test]
fn the_text_is_what_it_would_be_line_by_line() {
    let heads = [
        "# HELP a_seconds a\"b\\\\c\\nd\n# TYPE a_seconds histogram\n",
        "# HELP b_total a\"b\\\\c\\nd\n# TYPE b_total counter\n",
        "# HELP c a\"b\\\\c\\nd\n# TYPE c gauge\n",
    ];
    check("", heads, false, "");
}

#[test]
fn openmetrics_is_what_it_would_be_line_by_line() {
    let heads = [
        "# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n# HELP a_seconds a\\\"b\\\\c\\nd\n",
        "# TYPE b counter\n# HELP b a\\\"b\\\\c\\nd\n",
        "# TYPE c gauge\n# HELP c a\\\"b\\\\c\\nd\n",
    ];
    check("application/openmetrics-text", heads, true, "# EOF\n");
}

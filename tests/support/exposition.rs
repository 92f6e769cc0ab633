//! A strict reader of the Prometheus text format 0.0.4: what it accepts, every Prometheus accepts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Label names and values, by name.
pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// A metrics page that keeps the rules.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page {
    pub families: Vec<Family>,
}

impl Page {
    /// Reads a page; panics with the first rule that it breaks.
    pub(crate) fn parse(text: &str) -> Page {
        assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
        let mut families: Vec<Family> = Vec::new();
        for line in text.split_terminator('\n') {
            assert!(!line.ends_with('\r'), "a carriage return ends {line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                families.push(Family {
                    name: name.to_owned(),
                    kind: String::new(),
                    help: unescape(help, false),
                    samples: Vec::new(),
                });
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type behind the name");
                let family = families.last_mut().expect("HELP comes before TYPE");
                assert_eq!(family.name, name, "HELP and TYPE are together");
                assert!(family.kind.is_empty(), "one TYPE for {name}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                kind.clone_into(&mut family.kind);
            } else {
                assert!(!line.starts_with('#') && !line.is_empty(), "an odd line: {line:?}");
                let family = families.last_mut().expect("a family before its samples");
                family.samples.push(parse_sample(line));
            }
        }
        let page = Page { families };
        page.check();
        page
    }

    fn check(&self) {
        let mut names = HashSet::new();
        let mut series = HashSet::new();
        let mut sample_names: BTreeMap<&str, &str> = BTreeMap::new();
        for family in &self.families {
            let name = &family.name;
            assert!(names.insert(name), "family {name} comes twice");
            assert!(!family.kind.is_empty(), "family {name} has no TYPE");
            assert!(!family.help.is_empty(), "family {name} has no help");
            assert!(is_name(name, true), "{name:?} is no metric name");
            for sample in &family.samples {
                let belongs = match sample.name.strip_prefix(name.as_str()) {
                    Some("") => family.kind != "histogram",
                    Some("_bucket" | "_sum" | "_count") => family.kind == "histogram",
                    _ => false,
                };
                assert!(belongs, "{sample:?} is in family {name}");
                assert!(series.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
                let owner = sample_names.entry(&sample.name).or_insert(name);
                assert_eq!(owner, name, "{} is in two families", sample.name);
                let negative = family.kind != "gauge" && (sample.value < 0.0 || sample.value.is_nan());
                assert!(!negative, "{sample:?}");
            }
            if family.kind == "histogram" {
                check_histogram(family);
            }
        }
    }

    pub(crate) fn family(&self, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.name == name)
    }

    /// The samples of this name that have these labels among theirs.
    pub(crate) fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        // Prometheus does not tell an absent label from an empty one.
        let label = |sample: &Sample, name: &str| sample.labels.get(name).cloned().unwrap_or_default();
        let has = |sample: &&Sample| labels.iter().all(|(name, value)| label(sample, name) == *value);
        let all = self.families.iter().flat_map(|family| &family.samples);
        all.filter(|sample| sample.name == name).filter(has).collect()
    }

    /// The sum over the samples of this name that have at least these labels; 0 without any.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).iter().fold(0.0, |sum, sample| sum + sample.value)
    }

    /// The only sample of this name with at least these labels.
    #[track_caller]
    pub(crate) fn only(&self, name: &str, labels: &[(&str, &str)]) -> &Sample {
        let samples = self.samples(name, labels);
        assert_eq!(samples.len(), 1, "{name} {labels:?}: {samples:?}\n{}", self.interesting());
        samples[0]
    }

    /// What is not zero, for messages.
    pub(crate) fn interesting(&self) -> String {
        let samples = self.families.iter().flat_map(|family| &family.samples);
        let lines = samples
            .filter(|sample| sample.value != 0.0 && !sample.name.starts_with("process_"))
            .map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.value));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// All samples whose names do not begin with one of these, to be compared with those of another scrape.
    pub(crate) fn without(&self, prefixes: &[&str]) -> Vec<Sample> {
        let samples = self.families.iter().flat_map(|family| &family.samples);
        let kept = samples.filter(|sample| !prefixes.iter().any(|prefix| sample.name.starts_with(prefix)));
        kept.cloned().collect()
    }
}

fn check_histogram(family: &Family) {
    let name = &family.name;
    let mut groups: BTreeMap<Labels, Vec<&Sample>> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        groups.entry(labels).or_default().push(sample);
    }
    for (labels, samples) in groups {
        let one = |suffix: &str| {
            let mut found = samples.iter().filter(|sample| sample.name == format!("{name}{suffix}"));
            let first = found.next().unwrap_or_else(|| panic!("{name} {labels:?} has no {suffix}"));
            assert!(found.next().is_none(), "{name} {labels:?} has two {suffix}");
            first.value
        };
        let count = one("_count");
        let sum = one("_sum");
        assert!(sum.is_finite(), "{name} {labels:?}: sum {sum}");
        let buckets = samples.iter().filter(|sample| sample.name == format!("{name}_bucket"));
        let (mut last_bound, mut last_value) = (f64::NEG_INFINITY, 0.0);
        for bucket in buckets {
            let bound = number(bucket.labels.get("le").expect("a bucket has a bound"));
            assert!(bound > last_bound, "{name} {labels:?}: bounds rise");
            assert!(bucket.value >= last_value, "{name} {labels:?}: buckets are cumulative");
            assert_eq!(bucket.value.fract(), 0.0, "{name} {labels:?}: counts are whole");
            (last_bound, last_value) = (bound, bucket.value);
        }
        assert_eq!(last_bound, f64::INFINITY, "{name} {labels:?} has no +Inf bucket");
        assert_eq!(last_value, count, "{name} {labels:?}: +Inf is the count");
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(allowed)
}

fn parse_sample(line: &str) -> Sample {
    let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value behind the name"));
    assert!(is_name(name, true), "{line}");
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest, line),
        None => (Labels::new(), rest),
    };
    let value = value.strip_prefix(' ').expect("one space before the value");
    Sample { name: name.to_owned(), labels, value: number(value) }
}

fn parse_labels<'a>(mut rest: &'a str, line: &str) -> (Labels, &'a str) {
    let mut labels = Labels::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return (labels, rest);
        }
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label in {line}"));
        assert!(is_name(name, false), "{name:?} is no label name: {line}");
        assert!(!name.starts_with("__"), "{name:?} is reserved: {line}");
        let mut escaped = false;
        let end = after.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.unwrap_or_else(|| panic!("an open value in {line}"));
        let earlier = labels.insert(name.to_owned(), unescape(&after[..end], true));
        assert!(earlier.is_none(), "label {name} comes twice: {line}");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn unescape(text: &str, quotes: bool) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some('\\') => plain.push('\\'),
                Some('"') if quotes => plain.push('"'),
                other => panic!("an unknown escape {other:?} in {text:?}"),
            },
            other => plain.push(other),
        }
    }
    plain
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => {
            let digits = text.chars().all(|c| c.is_ascii_digit() || ".eE+-".contains(c));
            assert!(digits, "{text:?} is no number");
            text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
        }
    }
}

/// The names of all labels that the samples of a name have.
pub(crate) fn label_names(samples: &[&Sample]) -> BTreeSet<String> {
    samples.iter().flat_map(|sample| sample.labels.keys().cloned()).collect()
}

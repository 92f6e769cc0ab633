//! Flows as the config writes them.
//!
//! Knows what may be written and what holds if nothing is; not what it means for a span.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::domain::flow::Timers;

/// What holds for every flow that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// From the last new event to closing without evidence of the end.
    #[serde(with = "humantime_serde")]
    pub quiet_period: Duration,
    /// From the last new event to closing with evidence of the end.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// From the first event to closing whatever is missing.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// How long a missing parent span that may be in another process is waited for.
    #[serde(with = "humantime_serde")]
    pub parent_wait: Duration,
    /// How long the consumer of a PRODUCER span is waited for.
    #[serde(with = "humantime_serde")]
    pub async_wait: Duration,
    /// How long late spans of a closed instance are recognised in detail.
    #[serde(with = "humantime_serde")]
    pub tombstone: Duration,
    /// How far a served call may be moved into the call that waited for it, for the critical path; 0: not at all.
    #[serde(with = "humantime_serde")]
    pub max_clock_skew: Duration,
    /// `count` or `weight`.
    pub sampling: SamplingName,
    /// The share of traces that a sampler lets through, where the traces do not say; for `sampling: weight`.
    pub sampling_ratio: f64,
    /// `extent` or `root`.
    pub measure: MeasureName,
    /// `inf`, `elapsed` or `drop`.
    pub on_incomplete: OnIncompleteName,
    /// Bucket bounds in seconds, or a preset: `http`, `queue` or `batch`.
    pub buckets: Buckets,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            quiet_period: Duration::from_secs(10),
            linger: Duration::from_secs(10),
            max_age: Duration::from_secs(600),
            parent_wait: Duration::from_secs(60),
            async_wait: Duration::from_secs(60),
            tombstone: Duration::from_secs(300),
            max_clock_skew: Duration::from_secs(1),
            sampling: SamplingName::Count,
            sampling_ratio: 1.0,
            measure: MeasureName::Extent,
            on_incomplete: OnIncompleteName::Inf,
            buckets: Buckets::Bounds(DEFAULT_BUCKETS.to_vec()),
        }
    }
}

impl Defaults {
    /// The timers of a flow that sets none.
    pub fn timers(&self) -> Timers {
        Timers {
            quiet_period: self.quiet_period,
            linger: self.linger,
            max_age: self.max_age,
            parent_wait: self.parent_wait,
            async_wait: self.async_wait,
            tombstone: self.tombstone,
        }
    }
}

/// Up to the default `max_age`.
const DEFAULT_BUCKETS: [f64; 19] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 7.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];
const HTTP_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const QUEUE_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
const BATCH_BUCKETS: [f64; 13] =
    [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0];

/// Bucket bounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Buckets {
    /// In seconds, rising.
    Bounds(Vec<f64>),
    /// A named list.
    Preset(Preset),
}

/// Named bucket bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 5 ms to 10 s.
    Http,
    /// 10 ms to 30 min.
    Queue,
    /// 1 s to a day.
    Batch,
}

impl Buckets {
    /// The bounds in seconds.
    pub fn bounds(&self) -> &[f64] {
        match self {
            Buckets::Bounds(bounds) => bounds,
            Buckets::Preset(Preset::Http) => &HTTP_BUCKETS,
            Buckets::Preset(Preset::Queue) => &QUEUE_BUCKETS,
            Buckets::Preset(Preset::Batch) => &BATCH_BUCKETS,
        }
    }
}

/// How many bucket bounds a histogram may have.
pub const MAX_BUCKETS: usize = 200;

/// What is wrong with bucket bounds, if anything is.
pub fn check_buckets(bounds: &[f64]) -> Result<(), String> {
    if bounds.len() > MAX_BUCKETS {
        return Err(format!("{} bucket bounds are more than the {MAX_BUCKETS} allowed", bounds.len()));
    }
    if let Some(bound) = bounds.iter().find(|bound| !bound.is_finite() || **bound <= 0.0) {
        return Err(format!(
            "bucket bound {bound} is not a positive number of seconds (+Inf is added by itself)"
        ));
    }
    match bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!("bucket bounds must rise, but {} comes before {}", pair[0], pair[1])),
        None => Ok(()),
    }
}

/// `measure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasureName {
    /// Latest end minus earliest start.
    Extent,
    /// The root span's own duration.
    Root,
}

/// The least share of traces that can be made up for.
pub const MIN_SAMPLING_RATIO: f64 = 1e-6;

/// `sampling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplingName {
    /// The instances that come.
    Count,
    /// Those for which they stand.
    Weight,
}

/// `on_incomplete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnIncompleteName {
    /// Into the +Inf bucket.
    Inf,
    /// With the time that passed.
    Elapsed,
    /// Not at all.
    Drop,
}

/// One flow as the config writes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// The value of the label `flow`.
    pub name: String,
    /// What its metrics say about it.
    #[serde(default)]
    pub help: Option<String>,
    /// Which spans it matches; without it, only pushes that name it.
    #[serde(default, rename = "match")]
    pub matches: Option<String>,
    /// What its instances are found by: expressions, the first that has a value counts, and `trace_id`.
    #[serde(default)]
    pub key: OneOrMany<String>,
    /// Whether it sees every trace beside the flow that takes the trace.
    #[serde(default)]
    pub also: bool,
    /// The stage of a span; default: its `service.name`.
    #[serde(default)]
    pub stage: Option<String>,
    /// What begins it; default: the earliest event.
    #[serde(default)]
    pub start: Option<BoundaryConfig>,
    /// What ends it; default: the latest event.
    #[serde(default)]
    pub end: OneOrMany<BoundaryConfig>,
    /// Stages that every instance should reach.
    #[serde(default)]
    pub expect: Vec<String>,
    /// When a span makes it fail.
    #[serde(default)]
    pub error_if: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, LabelConfig>,
    /// What its users were promised.
    #[serde(default)]
    pub slo: Option<SloConfig>,
    /// Bucket bounds in seconds, or a preset.
    #[serde(default)]
    pub buckets: Option<Buckets>,
    /// Bucket bounds of single stages, or presets.
    #[serde(default)]
    pub stage_buckets: BTreeMap<String, Buckets>,
    /// The name of a histogram of its own.
    #[serde(default)]
    pub metric: Option<String>,
    /// See [`Defaults`].
    #[serde(default)]
    pub sampling: Option<SamplingName>,
    /// See [`Defaults`].
    #[serde(default)]
    pub sampling_ratio: Option<f64>,
    /// See [`Defaults`].
    #[serde(default)]
    pub measure: Option<MeasureName>,
    /// See [`Defaults`].
    #[serde(default)]
    pub on_incomplete: Option<OnIncompleteName>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub quiet_period: Option<Duration>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub linger: Option<Duration>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub max_age: Option<Duration>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub parent_wait: Option<Duration>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub async_wait: Option<Duration>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub tombstone: Option<Duration>,
    /// See [`Defaults`].
    #[serde(default, with = "humantime_serde")]
    pub max_clock_skew: Option<Duration>,
}

/// `start`, or one alternative of `end`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundaryConfig {
    /// The stage it happens in.
    #[serde(default)]
    pub stage: Option<String>,
    /// A condition on the span.
    #[serde(default)]
    pub when: Option<String>,
    /// Which moment of the span counts.
    #[serde(default)]
    pub at: Option<AtName>,
    /// What ending this way means; for `end` only.
    #[serde(default)]
    pub outcome: Option<OutcomeName>,
}

/// `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtName {
    /// The span's start.
    Start,
    /// The span's end.
    End,
}

/// `outcome` of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeName {
    /// As the spans say.
    Ok,
    /// An error, whatever the spans say.
    Error,
}

/// One label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelConfig {
    /// Where its candidates come from.
    pub from: String,
    /// Which candidate wins.
    pub pick: PickName,
    /// Its value when no event says anything.
    pub default: String,
}

/// `pick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented at domain::flow::Pick")]
pub enum PickName {
    First,
    Last,
    Root,
    Max,
    Min,
    Join,
}

/// `slo`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SloConfig {
    /// An instance is good when it ends `ok` within this time.
    #[serde(with = "humantime_serde")]
    pub latency: Duration,
    /// The share of good instances that was promised, in per cent.
    pub objective: f64,
}

/// A list, where a single element may stand for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one element or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(text.into_deserializer()).map(|one| OneOrMany(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<'de> Deserialize<'de> for LabelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            from: String,
            #[serde(default)]
            pick: Option<PickName>,
            #[serde(default)]
            default: String,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = LabelConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an expression, or {from, pick, default}")
            }
            fn visit_str<E: de::Error>(self, from: &str) -> Result<LabelConfig, E> {
                Ok(LabelConfig { from: from.to_owned(), pick: PickName::First, default: String::new() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LabelConfig, A::Error> {
                let Full { from, pick, default } = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LabelConfig { from, pick: pick.unwrap_or(PickName::First), default })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Buckets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of seconds, or one of http, queue, batch")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Buckets, E> {
                Preset::deserialize(name.into_deserializer()).map(Buckets::Preset)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Buckets, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Buckets::Bounds)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

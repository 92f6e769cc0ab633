//! What the config says about flows, and how it becomes rules.
//!
//! [`compile`] is the only way from one to the other: it either returns rules that cannot fail at run time, or an
//! error that names the flow, the key and the place in the expression.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::condition::{Condition, ExpressionError, PathTable, ValueExpression};
use super::facts::{FlowRule, SpanRules};
use crate::domain::flow::{
    At, Boundary, EndAlternative, Flow, LabelRule, Labels, Measure, OnIncomplete, Origin, Pick, Slo, Timers,
};
use crate::domain::ids::FlowId;
use crate::domain::names::{check_label_name, check_metric_name, overlap};

/// The name of the flow that takes every trace no other flow takes.
pub const TRACE_FLOW: &str = "trace";

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
    /// What its instances are found by.
    #[serde(default)]
    pub key: OneOrMany<String>,
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
    /// The name of a histogram of its own.
    #[serde(default)]
    pub metric: Option<String>,
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

/// Where in the config something is wrong with a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowError {
    /// The place of the flow in file order; `None`: the list `ignore`.
    pub flow: Option<usize>,
    /// The key, as a path from the flow.
    pub key: String,
    /// The expression that cannot be read, and where.
    pub expression: Option<Box<(String, ExpressionError)>>,
    /// What is wrong.
    pub message: String,
}

/// The flows and the rules by which spans are mapped to them.
#[derive(Debug)]
pub struct Compiled {
    /// The configured flows in file order, then the built-in one.
    pub flows: Vec<Arc<Flow>>,
    /// What is read of each span.
    pub rules: SpanRules,
}

/// Turns what the config says into rules.
pub fn compile(
    configs: &[FlowConfig],
    defaults: &Defaults,
    ignore: &[String],
    trace_flow: bool,
) -> Result<Compiled, FlowError> {
    let mut table = PathTable::default();
    let mut flows: Vec<Arc<Flow>> = Vec::new();
    let mut rules = Vec::new();
    for (place, config) in configs.iter().enumerate() {
        let fail = |(key, message)| FlowError { flow: Some(place), key, expression: None, message };
        check_names(config, &flows, trace_flow).map_err(fail)?;
        let mut compiler = Compiler { flow: Some(place), table: &mut table };
        let (flow, rule) = compiler.flow(FlowId(place as u32), config, defaults)?;
        flows.push(Arc::new(flow));
        rules.push(rule);
    }
    let ignored = (ignore.iter().enumerate())
        .map(|(place, text)| {
            Compiler { flow: None, table: &mut table }.condition(&format!("ignore[{place}]"), text)
        })
        .collect::<Result<_, _>>()?;
    let built_in = trace_flow.then(|| {
        let flow = built_in(FlowId(flows.len() as u32), defaults);
        let id = flow.id;
        flows.push(Arc::new(flow));
        id
    });
    Ok(Compiled { flows, rules: SpanRules::new(table, rules, ignored, built_in) })
}

fn check_names(config: &FlowConfig, earlier: &[Arc<Flow>], trace_flow: bool) -> Result<(), (String, String)> {
    let fail = |key: &str, message: String| Err((key.to_owned(), message));
    if config.name.is_empty() || config.name.len() > 128 {
        return fail("name", "a flow's name has 1 to 128 bytes".to_owned());
    }
    if earlier.iter().any(|flow| *flow.name == *config.name) {
        return fail("name", format!("there is a flow {:?} already; names must differ", config.name));
    }
    if trace_flow && config.name == TRACE_FLOW {
        return fail(
            "name",
            "this is the built-in flow's name; choose another one or set `trace_flow: false`".to_owned(),
        );
    }
    if let Some(metric) = &config.metric {
        if let Err(error) = check_metric_name(metric) {
            return fail("metric", format!("{metric:?} cannot be a metric's name: {}", error.as_str()));
        }
        if let Some(other) =
            earlier.iter().filter_map(|flow| flow.metric.as_ref()).find(|other| overlap(metric, other))
        {
            return fail("metric", format!("{metric:?} gets in the way of the metric {other:?}"));
        }
    }
    for name in config.labels.keys() {
        if let Err(error) = check_label_name(name) {
            return fail(
                &format!("labels.{name}"),
                format!("{name:?} cannot be a label's name: {}", error.as_str()),
            );
        }
    }
    Ok(())
}

/// Reads the expressions of one flow into the paths that all flows share.
struct Compiler<'a> {
    flow: Option<usize>,
    table: &'a mut PathTable,
}

impl Compiler<'_> {
    fn flow(
        &mut self,
        id: FlowId,
        config: &FlowConfig,
        defaults: &Defaults,
    ) -> Result<(Flow, FlowRule), FlowError> {
        self.check_key(config)?;
        let buckets = config.buckets.as_ref().unwrap_or(&defaults.buckets).bounds();
        check_buckets(buckets).map_err(|message| self.error("buckets", message))?;
        if config.expect.len() > Flow::MAX_EXPECTED {
            return Err(self.error("expect", format!("more than {} expected stages", Flow::MAX_EXPECTED)));
        }
        if config.end.0.len() > Flow::MAX_ENDS {
            return Err(self.error("end", format!("more than {} alternatives", Flow::MAX_ENDS)));
        }
        let start =
            config.start.as_ref().map(|start| self.boundary("start", start, At::Start)).transpose()?;
        if config.start.as_ref().is_some_and(|start| start.outcome.is_some()) {
            return Err(self.error("start.outcome", "only an `end` has an outcome".to_owned()));
        }
        let mut ends = Vec::new();
        let mut end_conditions = Vec::new();
        for (place, end) in config.end.0.iter().enumerate() {
            let (boundary, condition) = self.boundary(&format!("end[{place}]"), end, At::End)?;
            ends.push(EndAlternative { boundary, is_error: end.outcome == Some(OutcomeName::Error) });
            end_conditions.push(condition);
        }
        let (labels, sources) = self.labels(config)?;
        let (start, start_condition) = start.unzip();
        let rule = FlowRule {
            id,
            matches: self.optional("match", config.matches.as_deref())?,
            stage: config.stage.as_deref().map(|text| self.value("stage", text)).transpose()?,
            start: start_condition.flatten(),
            ends: end_conditions,
            error_if: self.optional("error_if", config.error_if.as_deref())?,
            labels: sources,
        };
        let flow = Flow {
            id,
            name: config.name.as_str().into(),
            origin: Origin::Configured,
            timers: timers(config, defaults),
            start,
            ends,
            expect: config.expect.iter().map(|stage| stage.as_str().into()).collect(),
            labels: Labels::Declared(labels),
            measure: measure(config.measure.unwrap_or(defaults.measure)),
            on_incomplete: on_incomplete(config.on_incomplete.unwrap_or(defaults.on_incomplete)),
            slo: config.slo.map(|slo| self.slo(slo)).transpose()?,
            metric: config.metric.as_deref().map(Arc::from),
            help: config.help.as_deref().map_or_else(OnceLock::new, |help| OnceLock::from(Arc::from(help))),
            buckets: OnceLock::from(Arc::from(buckets)),
        };
        Ok((flow, rule))
    }

    fn check_key(&self, config: &FlowConfig) -> Result<(), FlowError> {
        match config.key.0.iter().find(|key| *key != "trace_id") {
            None => Ok(()),
            Some(key) => {
                Err(self.error("key", format!("{key:?} is not supported: instances are found by trace_id")))
            }
        }
    }

    fn boundary(
        &mut self,
        key: &str,
        config: &BoundaryConfig,
        at: At,
    ) -> Result<(Boundary, Option<Condition>), FlowError> {
        if config.stage.is_none() && config.when.is_none() {
            return Err(self.error(key, "needs a `stage`, a `when` condition, or both".to_owned()));
        }
        let condition = self.optional(&format!("{key}.when"), config.when.as_deref())?;
        let at = match config.at {
            None => at,
            Some(AtName::Start) => At::Start,
            Some(AtName::End) => At::End,
        };
        let stage = config.stage.as_deref().map(Arc::from);
        Ok((Boundary { stage, conditional: condition.is_some(), at }, condition))
    }

    fn labels(&mut self, config: &FlowConfig) -> Result<(Vec<LabelRule>, Vec<ValueExpression>), FlowError> {
        let mut rules = Vec::new();
        let mut sources = Vec::new();
        for (name, label) in &config.labels {
            let pick = match label.pick {
                PickName::First => Pick::First,
                PickName::Last => Pick::Last,
                PickName::Root => Pick::Root,
                PickName::Max => Pick::Max,
                PickName::Min => Pick::Min,
                PickName::Join => Pick::Join,
            };
            rules.push(LabelRule {
                name: name.as_str().into(),
                pick,
                default: label.default.as_str().into(),
            });
            sources.push(self.value(&format!("labels.{name}"), &label.from)?);
        }
        Ok((rules, sources))
    }

    fn slo(&self, config: SloConfig) -> Result<Slo, FlowError> {
        let is_share = config.objective > 0.0 && config.objective < 100.0;
        if !is_share {
            let message =
                format!("{} is no share in per cent between 0 and 100, such as 99.9", config.objective);
            return Err(self.error("slo.objective", message));
        }
        // Through decimal digits, so that 99.9 % is shown as 0.999.
        let objective =
            format!("{:.12}", config.objective / 100.0).parse().unwrap_or(config.objective / 100.0);
        Ok(Slo { latency: config.latency, objective })
    }

    fn optional(&mut self, key: &str, text: Option<&str>) -> Result<Option<Condition>, FlowError> {
        text.map(|text| self.condition(key, text)).transpose()
    }

    fn condition(&mut self, key: &str, text: &str) -> Result<Condition, FlowError> {
        Condition::parse(text, self.table).map_err(|error| self.bad_expression(key, text, error))
    }

    fn value(&mut self, key: &str, text: &str) -> Result<ValueExpression, FlowError> {
        ValueExpression::parse(text, self.table).map_err(|error| self.bad_expression(key, text, error))
    }

    fn bad_expression(&self, key: &str, text: &str, error: ExpressionError) -> FlowError {
        let message = error.to_string();
        FlowError {
            flow: self.flow,
            key: key.to_owned(),
            expression: Some(Box::new((text.to_owned(), error))),
            message,
        }
    }

    fn error(&self, key: &str, message: String) -> FlowError {
        FlowError { flow: self.flow, key: key.to_owned(), expression: None, message }
    }
}

fn timers(config: &FlowConfig, defaults: &Defaults) -> Timers {
    Timers {
        quiet_period: config.quiet_period.unwrap_or(defaults.quiet_period),
        linger: config.linger.unwrap_or(defaults.linger),
        max_age: config.max_age.unwrap_or(defaults.max_age),
        parent_wait: config.parent_wait.unwrap_or(defaults.parent_wait),
        async_wait: config.async_wait.unwrap_or(defaults.async_wait),
        tombstone: config.tombstone.unwrap_or(defaults.tombstone),
    }
}

fn measure(name: MeasureName) -> Measure {
    match name {
        MeasureName::Extent => Measure::Extent,
        MeasureName::Root => Measure::Root,
    }
}

fn on_incomplete(name: OnIncompleteName) -> OnIncomplete {
    match name {
        OnIncompleteName::Inf => OnIncomplete::Inf,
        OnIncompleteName::Elapsed => OnIncomplete::Elapsed,
        OnIncompleteName::Drop => OnIncomplete::Drop,
    }
}

/// The flow that takes every trace no other flow takes.
fn built_in(id: FlowId, defaults: &Defaults) -> Flow {
    let label = |name: &str| LabelRule { name: name.into(), pick: Pick::Root, default: "".into() };
    Flow {
        id,
        name: TRACE_FLOW.into(),
        origin: Origin::BuiltIn,
        timers: defaults.timers(),
        start: None,
        ends: Vec::new(),
        expect: Vec::new(),
        labels: Labels::Declared(vec![label("root_name"), label("root_service")]),
        measure: measure(defaults.measure),
        on_incomplete: on_incomplete(defaults.on_incomplete),
        slo: None,
        metric: None,
        help: OnceLock::from(Arc::from("Traces that belong to no configured flow.")),
        buckets: OnceLock::from(Arc::from(defaults.buckets.bounds())),
    }
}

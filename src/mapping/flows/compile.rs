//! From what the config says about flows to rules that cannot fail at run time.

mod stored;

use std::sync::{Arc, OnceLock};

use super::TRACE_FLOW;
use super::config::{
    AtName, BoundaryConfig, Defaults, FlowConfig, MIN_SAMPLING_RATIO, MeasureName, OnIncompleteName,
    OutcomeName, PickName, SamplingName, SloConfig, check_buckets,
};
use crate::domain::flow::{
    At, Boundary, EndAlternative, Flow, Keys, LabelRule, Labels, Measure, OnIncomplete, Origin, Pick,
    Sampling, Slo, Timers,
};
use crate::domain::ids::FlowId;
use crate::domain::names::{check_label_name, check_metric_name, overlap};
use crate::mapping::condition::{Condition, ExpressionError, PathTable, ValueExpression};
use crate::mapping::facts::{FlowRule, Generation, KeyRule, SpanRules};

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

pub use stored::{Numbers, compile_again};

/// The flows and the rules by which spans are mapped to them.
#[derive(Debug)]
pub struct Compiled {
    /// The configured flows in file order, then the built-in one.
    pub flows: Vec<Arc<Flow>>,
    /// What is read of each span.
    pub rules: SpanRules,
    /// The configs that are in force for some instance, this one last.
    pub history: History,
}

/// The configs under which instances may have been opened: their flows go on serving these.
#[derive(Debug, Clone, Default)]
pub struct History {
    generations: Vec<Generation>,
    versions: Vec<Version>,
}

/// A version of a flow, and what it came from.
#[derive(Debug, Clone)]
struct Version {
    flow: Arc<Flow>,
    /// None: the built-in flow.
    config: Option<FlowConfig>,
    defaults: Defaults,
}

impl History {
    /// The most configs that are kept beside the one in force. Instances that are older still only get spans of flows
    /// that have not changed since.
    const MAX_EARLIER: usize = 16;

    /// How often the config has been reloaded.
    pub fn generation(&self) -> u32 {
        self.generations.last().map_or(0, |generation| generation.number)
    }

    /// How often it will have been with the config that comes next; 0 for the first one.
    fn next(&self) -> u32 {
        self.generations.last().map_or(0, |generation| generation.number + 1)
    }

    /// The flows of the config in force.
    fn now(&self) -> impl Iterator<Item = &Version> {
        let flows = self.generations.last().map_or(&[][..], |generation| &generation.flows);
        flows.iter().filter_map(|flow| self.versions.iter().find(|version| version.flow.id == *flow))
    }

    /// Versions of flows that the config in force has not.
    pub fn earlier(&self) -> impl Iterator<Item = &Arc<Flow>> {
        let is_now = |flow: &FlowId| self.generations.last().is_some_and(|now| now.flows.contains(flow));
        self.versions.iter().map(|version| &version.flow).filter(move |flow| !is_now(&flow.id))
    }

    /// Forgets the first configs, of generations below `number`, and too many.
    pub fn forget_before(&mut self, number: u32) {
        let surplus = self.generations.len().saturating_sub(Self::MAX_EARLIER + 1);
        self.generations.drain(..surplus);
        let now = self.generation();
        self.generations.retain(|generation| generation.number >= number || generation.number == now);
        let generations = &self.generations;
        let is_in_force =
            |version: &Version| generations.iter().any(|config| config.flows.contains(&version.flow.id));
        self.versions.retain(is_in_force);
    }

    /// The id of a version of the flow `name` at `place`, and that of its first version, or the version itself if it
    /// has not changed.
    fn number(
        &self,
        name: &str,
        place: usize,
        config: Option<&FlowConfig>,
        defaults: &Defaults,
    ) -> Result<Arc<Flow>, (FlowId, FlowId)> {
        let id = FlowId { place: u32::try_from(place).unwrap_or(u32::MAX), generation: self.next() };
        let same = |version: &&Version| version.config.as_ref() == config && version.defaults == *defaults;
        let known = self.now().filter(|version| *version.flow.name == *name);
        if let Some(version) = known.filter(same).find(|version| version.flow.id.place == id.place) {
            return Ok(Arc::clone(&version.flow));
        }
        let versions = self.versions.iter().filter(|version| *version.flow.name == *name);
        let versions = versions.filter(|version| version.config.is_some() == config.is_some());
        Err((id, versions.map(|version| version.flow.home).min().unwrap_or(id)))
    }
}

/// Turns what the config says into rules.
pub fn compile(
    configs: &[FlowConfig],
    defaults: &Defaults,
    ignore: &[String],
    trace_flow: bool,
) -> Result<Compiled, FlowError> {
    compile_after(History::default(), configs, defaults, ignore, trace_flow)
}

/// The same for a config that takes the place of others: flows that have not changed stay the same, and those that have
/// go on serving the instances that were opened under them.
pub fn compile_after(
    history: History,
    configs: &[FlowConfig],
    defaults: &Defaults,
    ignore: &[String],
    trace_flow: bool,
) -> Result<Compiled, FlowError> {
    let number = |history: &History, name: &str, place, config: Option<&FlowConfig>| {
        history.number(name, place, config, defaults)
    };
    let next = history.next();
    compile_numbered(history, configs, defaults, ignore, trace_flow, next, number)
}

/// What a version of a flow is: one that is known, or one with these two ids, its own and that of its first version.
type Numbered = Result<Arc<Flow>, (FlowId, FlowId)>;

/// The same with the number of the config, and those of its flows, as given.
fn compile_numbered(
    mut history: History,
    configs: &[FlowConfig],
    defaults: &Defaults,
    ignore: &[String],
    trace_flow: bool,
    generation: u32,
    number: impl Fn(&History, &str, usize, Option<&FlowConfig>) -> Numbered,
) -> Result<Compiled, FlowError> {
    let mut table = PathTable::default();
    let mut flows: Vec<Arc<Flow>> = Vec::new();
    let mut rules = Vec::new();
    let mut versions = Vec::new();
    for (place, config) in configs.iter().enumerate() {
        let fail = |(key, message)| FlowError { flow: Some(place), key, expression: None, message };
        check_names(config, &flows, trace_flow).map_err(fail)?;
        let known = number(&history, &config.name, place, Some(config));
        let (id, home) = known.as_ref().map_or_else(|numbers| *numbers, |flow| (flow.id, flow.home));
        let mut compiler = Compiler { flow: Some(place), table: &mut table };
        let (flow, rule) = compiler.flow(id, home, config, defaults)?;
        let flow = known.unwrap_or_else(|_| Arc::new(flow));
        let (config, defaults) = (Some(config.clone()), defaults.clone());
        versions.push(Version { flow: Arc::clone(&flow), config, defaults });
        flows.push(flow);
        rules.push(rule);
    }
    if trace_flow {
        let known = number(&history, TRACE_FLOW, configs.len(), None);
        let flow = known.unwrap_or_else(|(id, home)| Arc::new(built_in(id, home, defaults)));
        versions.push(Version { flow: Arc::clone(&flow), config: None, defaults: defaults.clone() });
        flows.push(flow);
    }
    for earlier in history.versions.iter().filter(|earlier| !flows.iter().any(|f| f.id == earlier.flow.id)) {
        let (flow, Some(config)) = (&earlier.flow, &earlier.config) else { continue };
        let mut compiler = Compiler { flow: None, table: &mut table };
        let (_, rule) = compiler.flow(flow.id, flow.home, config, &earlier.defaults)?;
        rules.push(rule);
    }
    let ignored = (ignore.iter().enumerate())
        .map(|(place, text)| {
            Compiler { flow: None, table: &mut table }.condition(&format!("ignore[{place}]"), text)
        })
        .collect::<Result<_, _>>()?;
    let in_force = Generation { number: generation, flows: flows.iter().map(|flow| flow.id).collect() };
    history.generations.push(in_force);
    history.versions.retain(|earlier| !flows.iter().any(|flow| flow.id == earlier.flow.id));
    history.versions.extend(versions);
    let built_in = history.versions.iter().filter(|version| version.config.is_none());
    let built_in = built_in.map(|version| version.flow.id).collect();
    let generations = history.generations.clone();
    let rules = SpanRules::new(table, rules, ignored, built_in, generations).with_keys(|table| {
        let homes = flows.iter().map(|flow| flow.home);
        let keys = configs
            .iter()
            .zip(homes)
            .enumerate()
            .map(|(place, (config, home))| Compiler { flow: Some(place), table }.keys(home, config));
        Ok(keys.collect::<Result<Vec<_>, _>>()?.concat())
    })?;
    Ok(Compiled { flows, rules, history })
}

/// The key that is no expression.
const TRACE_ID: &str = "trace_id";
/// How many keys a flow may have.
const MAX_KEYS: usize = 8;

fn keys(config: &FlowConfig) -> Keys {
    let is_trace_id = |key: &String| key.trim() == TRACE_ID;
    match (config.key.0.iter().all(is_trace_id), config.key.0.iter().any(is_trace_id)) {
        (true, _) => Keys::Trace,
        (false, true) => Keys::ValueOrTrace,
        (false, false) => Keys::Value,
    }
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
        home: FlowId,
        config: &FlowConfig,
        defaults: &Defaults,
    ) -> Result<(Flow, FlowRule), FlowError> {
        let buckets = config.buckets.as_ref().unwrap_or(&defaults.buckets).bounds();
        check_buckets(buckets).map_err(|message| self.error("buckets", message))?;
        let mut bounds = buckets.to_vec();
        if let Some(slo) = &config.slo {
            add_bound(&mut bounds, slo.latency.as_secs_f64());
        }
        let stage_buckets = config
            .stage_buckets
            .iter()
            .map(|(stage, buckets)| {
                let key = format!("stage_buckets.{stage}");
                check_buckets(buckets.bounds()).map_err(|message| self.error(&key, message))?;
                Ok((stage.as_str().into(), buckets.bounds().into()))
            })
            .collect::<Result<_, _>>()?;
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
            home,
            also: config.also,
            matches: self.optional("match", config.matches.as_deref())?,
            stage: config.stage.as_deref().map(|text| self.value("stage", text)).transpose()?,
            start: start_condition.flatten(),
            ends: end_conditions,
            error_if: self.optional("error_if", config.error_if.as_deref())?,
            labels: sources,
        };
        let flow = Flow {
            id,
            home,
            name: config.name.as_str().into(),
            origin: Origin::Configured,
            keys: keys(config),
            also: config.also,
            timers: timers(config, defaults),
            max_clock_skew: config.max_clock_skew.unwrap_or(defaults.max_clock_skew),
            sampling: self.sampling(config, defaults)?,
            start,
            ends,
            expect: config.expect.iter().map(|stage| stage.as_str().into()).collect(),
            labels: Labels::Declared(labels),
            measure: measure(config.measure.unwrap_or(defaults.measure)),
            on_incomplete: on_incomplete(config.on_incomplete.unwrap_or(defaults.on_incomplete)),
            slo: config.slo.map(|slo| self.slo(slo)).transpose()?,
            metric: config.metric.as_deref().map(Arc::from),
            help: config.help.as_deref().map_or_else(OnceLock::new, |help| OnceLock::from(Arc::from(help))),
            stage_buckets,
            buckets: OnceLock::from(Arc::from(bounds)),
        };
        Ok((flow, rule))
    }

    fn sampling(&self, config: &FlowConfig, defaults: &Defaults) -> Result<Sampling, FlowError> {
        let ratio = config.sampling_ratio.unwrap_or(defaults.sampling_ratio);
        if !(MIN_SAMPLING_RATIO..=1.0).contains(&ratio) {
            let problem = format!("{ratio} is not a share between {MIN_SAMPLING_RATIO} and 1");
            return Err(self.error("sampling_ratio", problem));
        }
        Ok(sampling(config.sampling.unwrap_or(defaults.sampling), ratio))
    }

    /// The business keys of a flow.
    fn keys(&mut self, flow: FlowId, config: &FlowConfig) -> Result<Vec<KeyRule>, FlowError> {
        let keys = &config.key.0;
        if keys.len() > MAX_KEYS {
            return Err(self.error("key", format!("more than {MAX_KEYS} keys")));
        }
        if keys.iter().rev().skip(1).any(|key| key.trim() == TRACE_ID) {
            let problem =
                "`trace_id` comes last: every span has one, so keys after it would never be looked at";
            return Err(self.error("key", problem.to_owned()));
        }
        let values = keys.iter().filter(|key| key.trim() != TRACE_ID);
        let rule = |(rank, text): (usize, &String)| {
            let value = self.value("key", text)?;
            Ok(KeyRule { flow, rank: rank as u8, value, also: config.also })
        };
        values.enumerate().map(rule).collect()
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

fn sampling(name: SamplingName, ratio: f64) -> Sampling {
    match name {
        SamplingName::Count => Sampling::Count,
        SamplingName::Weight => Sampling::Weight { ratio },
    }
}

/// Makes sure that a bucket ends where the promise does, so that the share of kept promises is exact.
fn add_bound(bounds: &mut Vec<f64>, bound: f64) {
    let place = bounds.partition_point(|known| *known < bound);
    if bound > 0.0 && bounds.get(place) != Some(&bound) {
        bounds.insert(place, bound);
    }
}

/// The flow that takes every trace no other flow takes.
fn built_in(id: FlowId, home: FlowId, defaults: &Defaults) -> Flow {
    let label = |name: &str| LabelRule { name: name.into(), pick: Pick::Root, default: "".into() };
    Flow {
        id,
        home,
        name: TRACE_FLOW.into(),
        origin: Origin::BuiltIn,
        keys: Keys::Trace,
        also: false,
        timers: defaults.timers(),
        max_clock_skew: defaults.max_clock_skew,
        sampling: sampling(defaults.sampling, defaults.sampling_ratio),
        start: None,
        ends: Vec::new(),
        expect: Vec::new(),
        labels: Labels::Declared(vec![label("root_name"), label("root_service")]),
        measure: measure(defaults.measure),
        on_incomplete: on_incomplete(defaults.on_incomplete),
        slo: None,
        metric: None,
        help: OnceLock::from(Arc::from("Traces that belong to no configured flow.")),
        stage_buckets: Vec::new(),
        buckets: OnceLock::from(Arc::from(defaults.buckets.bounds())),
    }
}

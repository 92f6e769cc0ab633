//! One instance in words and numbers: why it belongs to its flow, what it consists of, where its time went, and why it
//! ended or what it waits for.
//!
//! The same [`Explanation`] is the body of the API's answers and what `replay` prints. Knows results only, and neither
//! how they came about nor who asks.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::domain::event::{Event, Facts, Flags, Kind};
use crate::domain::flow::{Flow, Keys, Origin};
use crate::domain::ids::Key;
use crate::domain::result::{Await, Closed, Forecast, Latency, PathStep};
use crate::domain::time::{Arrival, EventTime};

/// One instance, open or closed. Durations are seconds, moments are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Its flow.
    pub flow: String,
    /// What it was found by: a trace id in hexadecimal, the `id` of a push, or the value of a business key.
    pub key: String,
    /// `open` or `closed`.
    pub state: &'static str,
    /// Why it belongs to its flow.
    pub matched_by: String,
    /// How it ended for its user; absent while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// Why it was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What the histogram got, or so far; absent if it is not observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// It never ended: it is in the +Inf bucket, and its latency is the time that passed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never_ended: bool,
    /// When its first event began, by the sender's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it was closed, by our clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<String>,
    /// What it waits for, if it is open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// When it will be looked at again, from now, if nothing comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked_at_again_in_seconds: Option<f64>,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Its traces, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<String>,
    /// Where its time went, from the start to the end; the seconds sum to the latency.
    pub critical_path: Vec<Step>,
    /// Its stages by name.
    pub stages: Vec<Stage>,
    /// How long it took from stage to stage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Pair>,
    /// Expected stages that never came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_stages: Vec<String>,
    /// By how much clocks seem to disagree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clock_skews: Vec<Pair>,
    /// What else is odd about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How many events it has.
    pub event_count: u64,
    /// Its events in the order of their start; none if it was folded.
    pub events: Vec<EventLine>,
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// One stretch of the critical path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The stage; empty for what cannot be attributed.
    pub stage: String,
    /// `work`, `wait` or `unknown`.
    pub kind: &'static str,
    /// The span that worked, or that was waited for; empty where only stages are known.
    pub name: String,
    /// How long.
    pub seconds: f64,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name.
    pub stage: String,
    /// Time in which something was active in it; absent for a stage of pushes only, or one that others observe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside_seconds: Option<f64>,
    /// From the start of the flow until it was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_seconds: Option<f64>,
}

/// What is between two stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The stage that handed over or waited.
    pub from: String,
    /// The stage that took over or served.
    pub to: String,
    /// How long.
    pub seconds: f64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventLine {
    /// Its trace; absent if the instance has only the one that it is found by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Its span id; absent for a push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Its parent's span id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// `internal`, `server`, `client`, `producer`, `consumer` or `push`.
    pub kind: &'static str,
    /// The step of the flow.
    pub stage: String,
    /// The span's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// From the instance's first event.
    pub start_seconds: f64,
    /// How long.
    pub seconds: f64,
    /// Its status is error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub error: bool,
    /// It only holds others together: ignored, or part of another instance.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
}

/// A key as people write it.
pub fn key_text(key: &Key) -> String {
    match key {
        Key::Trace(trace) | Key::Also { trace, .. } => trace.to_string(),
        Key::Named { id, .. } => id.to_string(),
    }
}

impl Explanation {
    /// What became of an instance that was closed at `closed_at`.
    pub fn of_closed(closed: &Closed, closed_at: EventTime) -> Self {
        Explanation {
            state: "closed",
            outcome: Some(closed.outcome.as_str()),
            reason: Some(closed.reason.as_str()),
            closed_at: timestamp(closed_at),
            notes: notes(closed),
            ..Self::new(closed)
        }
    }

    /// How an open instance stands.
    pub fn of_open(forecast: &Forecast, now: Arrival) -> Self {
        let closed = &forecast.closed;
        Explanation {
            waits_for: forecast.awaits.iter().map(|awaited| awaited_text(awaited, &closed.flow)).collect(),
            looked_at_again_in_seconds: Some(forecast.until.since(now).as_secs_f64()),
            ..Self::new(closed)
        }
    }

    fn new(closed: &Closed) -> Self {
        let (latency, never_ended) = match closed.latency {
            Latency::Finite(nanoseconds) => (Some(nanoseconds), false),
            Latency::Infinite(nanoseconds) => (Some(nanoseconds), true),
            Latency::Unobserved => (None, false),
        };
        let detail = &closed.detail;
        let first = detail.events.iter().map(|event| event.start).min();
        let label = |(name, value): &(Arc<str>, Arc<str>)| Label { name: text(name), value: text(value) };
        let several = detail.traces.len() > 1;
        Explanation {
            flow: text(&closed.flow.name),
            key: key_text(&closed.key),
            state: "open",
            matched_by: matched_by(closed),
            outcome: None,
            reason: None,
            latency_seconds: latency.map(seconds),
            never_ended,
            started_at: first.and_then(timestamp),
            closed_at: None,
            waits_for: Vec::new(),
            looked_at_again_in_seconds: None,
            labels: closed.labels.iter().map(label).collect(),
            traces: if several { detail.traces.iter().map(key_text).collect() } else { Vec::new() },
            critical_path: critical_path(closed),
            stages: closed.stages.iter().map(stage).collect(),
            transitions: closed
                .transitions
                .iter()
                .map(|way| pair(&way.from, &way.to, way.nanoseconds))
                .collect(),
            missing_stages: closed.missing_stages.iter().map(text).collect(),
            clock_skews: closed
                .skews
                .iter()
                .map(|skew| pair(&skew.from, &skew.to, skew.nanoseconds))
                .collect(),
            notes: Vec::new(),
            event_count: closed.notes.events,
            events: events(closed, first.unwrap_or_default()),
        }
    }
}

fn text(name: &Arc<str>) -> String {
    name.to_string()
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn timestamp(time: EventTime) -> Option<String> {
    let nanoseconds = i128::from(time.unix_nanoseconds());
    Some(jiff::Timestamp::from_nanosecond(nanoseconds).ok()?.to_string())
}

fn pair(from: &Arc<str>, to: &Arc<str>, nanoseconds: u64) -> Pair {
    Pair { from: text(from), to: text(to), seconds: seconds(nanoseconds) }
}

fn stage(stage: &crate::domain::result::StageTime) -> Stage {
    Stage {
        stage: text(&stage.name),
        inside_seconds: stage.inside.map(seconds),
        offset_seconds: stage.offset.map(seconds),
    }
}

/// The path from start to end, neighbours of one event as one. Without steps, its shares by stage.
fn critical_path(closed: &Closed) -> Vec<Step> {
    let name = |step: &PathStep| {
        let event = step.event.and_then(|event| closed.detail.events.get(event));
        event.map_or(String::new(), |event| text(&event.facts.name))
    };
    let stage_of = |step: &PathStep| closed.detail.stage(step).map(text).unwrap_or_default();
    let mut path: Vec<(Option<usize>, Step, u64)> = Vec::new();
    for step in closed.detail.steps.iter().rev() {
        match path.last_mut() {
            Some((event, known, length))
                if *event == step.event
                    && known.kind == step.kind.as_str()
                    && known.stage == stage_of(step) =>
            {
                *length += step.nanoseconds();
            }
            _ => {
                let (stage, kind) = (stage_of(step), step.kind.as_str());
                path.push((
                    step.event,
                    Step { stage, kind, name: name(step), seconds: 0.0 },
                    step.nanoseconds(),
                ));
            }
        }
    }
    if path.is_empty() {
        let share = |share: &crate::domain::result::PathShare| Step {
            stage: text(&share.stage),
            kind: share.kind.as_str(),
            name: String::new(),
            seconds: seconds(share.nanoseconds),
        };
        return closed.path.iter().map(share).collect();
    }
    path.into_iter().map(|(_, step, length)| Step { seconds: seconds(length), ..step }).collect()
}

fn events(closed: &Closed, first: EventTime) -> Vec<EventLine> {
    let traces = &closed.detail.traces;
    let line = |event: &Event| {
        let view = event.facts.view(closed.flow.id);
        let trace = traces.get(usize::from(event.member)).filter(|_| traces.len() > 1);
        let id = |span: crate::domain::ids::SpanId| span.is_some().then(|| format!("{:016x}", span.0));
        EventLine {
            trace_id: trace.map(key_text),
            span_id: id(event.span),
            parent_span_id: id(event.parent),
            kind: kind(event.kind),
            stage: text(view.map_or(&event.facts.service, |view| &view.stage)),
            name: text(&event.facts.name),
            start_seconds: seconds(event.start.nanoseconds_since(first)),
            seconds: seconds(event.end.nanoseconds_since(event.start)),
            error: event.flags.has(Flags::ERROR),
            ignored: event.flags.has(Flags::IGNORED) || view.is_none(),
        }
    };
    closed.detail.events.iter().map(line).collect()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Internal => "internal",
        Kind::Server => "server",
        Kind::Client => "client",
        Kind::Producer => "producer",
        Kind::Consumer => "consumer",
        Kind::Push => "push",
    }
}

fn matched_by(closed: &Closed) -> String {
    let flow = &closed.flow;
    let by_value = matches!(closed.key, Key::Named { .. }) && flow.keys != Keys::Trace;
    let key = if by_value { ", found by the value of its business key" } else { "" };
    let events = || closed.detail.events.iter();
    let pushed = events().find(|event| event.facts.push.as_ref().is_some_and(|push| push.home == flow.home));
    let lens = flow.also.then_some(flow.home);
    let matches = |facts: &Facts| facts.matched_through(lens, flow.id.generation) == Some(flow.id);
    let matching = events().find(|event| matches(&event.facts));
    match (flow.origin, pushed, matching) {
        (Origin::Pushed, ..) => "pushes with its name".to_owned(),
        (_, Some(push), _) => format!("a push that names it, of stage {:?}{key}", &*push.facts.service),
        (Origin::BuiltIn, ..) => {
            "the built-in flow, as no configured one matches any of its spans".to_owned()
        }
        (Origin::Configured, _, Some(span)) => {
            format!("the span {:?} of {:?}{key}", &*span.facts.name, &*span.facts.service)
        }
        (Origin::Configured, ..) => format!("a span that is not kept any more{key}"),
    }
}

fn awaited_text(awaited: &Await, flow: &Flow) -> String {
    let times = &flow.timers;
    let wait = |duration: std::time::Duration| humantime::format_duration(duration);
    match awaited {
        Await::Start => "its start".to_owned(),
        Await::End => format!("its end, for {} after its first event", wait(times.max_age)),
        Await::Stage(stage) => format!("the expected stage {:?}", &**stage),
        Await::LocalParent => "the parent of a span in the same process, which is still running".to_owned(),
        Await::RemoteParent => {
            format!("the parent of a span, for {} after its last event", wait(times.parent_wait))
        }
        Await::Consumer => {
            format!("the consumer of a PRODUCER span, for {} after its last event", wait(times.async_wait))
        }
        Await::Link => {
            format!("a trace that it is linked to, for {} after its last event", wait(times.async_wait))
        }
    }
}

fn notes(closed: &Closed) -> Vec<String> {
    let notes = &closed.notes;
    let said = [
        (notes.reversed, "its end lies before its start: it is not observed"),
        (notes.orphan_root, "its root never came: its earliest orphan stood in for it"),
        (notes.unanswered, "the consumer of a PRODUCER span never came"),
        (notes.unseen_link, "a trace that it is linked to never came"),
        (notes.missed_link, "a trace that it is linked to was over already"),
        (notes.label_conflict, "its events disagree about a label"),
        (notes.skewed > 0, "a span ends before it starts: it counts as 0 s"),
        (notes.cycles > 0, "parents lead in a circle"),
        (notes.coarse_path, "it was folded: its critical path is known by stages only"),
        (!closed.skews.is_empty(), "clocks disagree: who worked when is uncertain"),
    ];
    said.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note.to_owned()).collect()
}

impl fmt::Display for Explanation {
    /// For people: a headline, and what belongs to it indented below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.unwrap_or(self.state);
        write!(f, "{} {}: {outcome}", self.flow, self.key)?;
        if let Some(latency) = self.latency_seconds {
            let verb = if self.never_ended { "never ended, seen for" } else { "in" };
            write!(f, " {verb} {} s", decimal(latency))?;
        }
        if let Some(reason) = self.reason {
            write!(f, ", closed by {reason}")?;
        }
        writeln!(f, "\n  matched by {}; {} events", self.matched_by, self.event_count)?;
        for label in self.labels.iter().filter(|label| !label.value.is_empty()) {
            writeln!(f, "  {} = {}", label.name, label.value)?;
        }
        if !self.critical_path.is_empty() {
            writeln!(f, "  critical path:")?;
        }
        for Step { stage, kind, name, seconds } in &self.critical_path {
            writeln!(f, "    {:>12} s  {kind:<7} {stage}  {name}", decimal(*seconds))?;
        }
        if !self.stages.is_empty() {
            writeln!(f, "  stages:")?;
        }
        for Stage { stage, inside_seconds, offset_seconds } in &self.stages {
            let inside = inside_seconds.map_or("-".to_owned(), decimal);
            let offset = offset_seconds.map_or("-".to_owned(), decimal);
            writeln!(f, "    {inside:>12} s inside, reached after {offset} s  {stage}")?;
        }
        for Pair { from, to, seconds } in &self.transitions {
            writeln!(f, "  from {from} to {to}: {} s", decimal(*seconds))?;
        }
        for Pair { from, to, seconds } in &self.clock_skews {
            writeln!(f, "  clocks of {from} and {to} differ by about {} s", decimal(*seconds))?;
        }
        for stage in &self.missing_stages {
            writeln!(f, "  never came: {stage}")?;
        }
        for awaited in &self.waits_for {
            writeln!(f, "  waits for {awaited}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

/// Up to nine places, without zeros at the end.
fn decimal(seconds: f64) -> String {
    let full = format!("{seconds:.9}");
    full.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One flow at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowOverview {
    /// Its name.
    pub flow: String,
    /// `configured`, `built_in` or `pushed`.
    pub origin: &'static str,
    /// Instances in flight.
    pub open: u64,
    /// Of these, for longer than promised; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overdue: Option<u64>,
}

impl FlowOverview {
    /// A flow with `open` instances, `overdue` of which are over their time.
    pub fn new(flow: &Flow, open: u64, overdue: u64) -> Self {
        let origin = match flow.origin {
            Origin::Configured => "configured",
            Origin::BuiltIn => "built_in",
            Origin::Pushed => "pushed",
        };
        FlowOverview { flow: text(&flow.name), origin, open, overdue: flow.slo.map(|_| overdue) }
    }
}

/// An instance that was closed, at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Closing {
    /// What it was found by.
    pub key: String,
    /// How it ended for its user.
    pub outcome: &'static str,
    /// Why it was closed.
    pub reason: &'static str,
    /// What the histogram got; absent if it was not observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// When it was closed, by our clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<String>,
}

impl Closing {
    /// An instance that was closed at `at`.
    pub fn new(closed: &Closed, at: EventTime) -> Self {
        Closing {
            key: key_text(&closed.key),
            outcome: closed.outcome.as_str(),
            reason: closed.reason.as_str(),
            latency_seconds: match closed.latency {
                Latency::Finite(nanoseconds) | Latency::Infinite(nanoseconds) => Some(seconds(nanoseconds)),
                Latency::Unobserved => None,
            },
            closed_at: timestamp(at),
        }
    }
}

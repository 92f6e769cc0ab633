//! Spans to events: reads what the rules need while a decoder walks over a request.
//!
//! Knows neither the encoding nor what becomes of the events. A span that cannot be right (no valid id, an end far
//! from now) is refused alone, counted by reason.

mod stored;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::condition::{Path, Question, Slot, Slots, Value, text_of};
use super::facts::{CACHED_BYTES, Interned, KeyRule, SpanRules};
use super::otlp::{self, SpanFields, Text, TraceVisitor};
use crate::domain::batch::Batch;
use crate::domain::event::{Event, Flags, Kind};
use crate::domain::ids::{FlowId, Key, SpanId, TraceId};
use crate::domain::joining::Joint;
use crate::domain::time::{EventTime, Now};

/// How far from now an event's end may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// How far ahead.
    pub max_future: Duration,
    /// How far behind.
    pub max_past: Duration,
}

impl TimeLimits {
    /// When events may end that come at `now`.
    pub fn around(&self, now: Now) -> TimeWindow {
        TimeWindow { first: now.wall.minus(self.max_past), last: now.wall.plus(self.max_future) }
    }
}

/// When events may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    first: EventTime,
    last: EventTime,
}

impl TimeWindow {
    /// Whether an event may end at `end`.
    pub fn admit(&self, end: EventTime) -> Result<(), Rejection> {
        if end > self.last {
            Err(Rejection::TooFarAhead)
        } else if end < self.first {
            Err(Rejection::TooFarBehind)
        } else {
            Ok(())
        }
    }
}

/// Why a span or a push is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// Its trace id is not 16 bytes, or all zero.
    TraceId,
    /// Its span id is not 8 bytes, or all zero.
    SpanId,
    /// Its parent's span id is not 8 bytes.
    ParentSpanId,
    /// It ends too far ahead of now.
    TooFarAhead,
    /// It ended too long ago.
    TooFarBehind,
    /// It is no valid push.
    Push,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Rejection; 6] = [
        Rejection::TraceId,
        Rejection::SpanId,
        Rejection::ParentSpanId,
        Rejection::TooFarAhead,
        Rejection::TooFarBehind,
        Rejection::Push,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::TraceId => "trace_id",
            Rejection::SpanId => "span_id",
            Rejection::ParentSpanId => "parent_span_id",
            Rejection::TooFarAhead => "too_far_ahead",
            Rejection::TooFarBehind => "too_far_behind",
            Rejection::Push => "push",
        }
    }

    /// What is wrong, and what would be right, for the sender.
    fn explain(self) -> &'static str {
        match self {
            Rejection::TraceId => "trace_id is not 16 bytes with one of them not zero",
            Rejection::SpanId => "span_id is not 8 bytes with one of them not zero",
            Rejection::ParentSpanId => "parent_span_id is neither empty nor 8 bytes",
            Rejection::TooFarAhead => "the end lies further ahead of now than ingest.max_future allows",
            Rejection::TooFarBehind => "the end lies further behind now than ingest.max_past allows",
            Rejection::Push => "not a valid push",
        }
    }
}

/// What a request held, as events.
#[derive(Debug, Default)]
pub struct MappedSpans {
    /// The events and their instances.
    pub events: Batch,
    /// How many spans the request held.
    pub received: u64,
    /// Spans refused, by reason, without the reasons that did not occur.
    pub rejected: Vec<(Rejection, u64)>,
    /// Spans whose tracestate says that they were sampled.
    pub sampled: u64,
    /// Values of business keys that were too long to find anything by.
    pub overlong_keys: u64,
}

impl MappedSpans {
    /// How many spans were refused.
    pub fn rejected_spans(&self) -> u64 {
        self.rejected.iter().map(|(_, count)| count).sum()
    }

    /// What was refused and why, for the sender; empty if nothing was.
    pub fn explain(&self) -> String {
        let parts: Vec<String> = self
            .rejected
            .iter()
            .map(|(reason, count)| format!("{count} rejected: {}", reason.explain()))
            .collect();
        parts.join("; ")
    }
}

/// Takes what a decoder reports and makes events of it.
#[derive(Debug)]
pub struct SpanMapper<'r> {
    rules: &'r SpanRules,
    limits: TimeWindow,
    resource: Values,
    scope: Values,
    span: Values,
    /// How often the resource or the scope has changed.
    scopes: u32,
    /// The fingerprint of the span that was asked for last; it begins with that of its resource and scope.
    fingerprint: Vec<u8>,
    /// How long that beginning is, and after how many changes it was made.
    shared: (usize, u32),
    /// What has been asked for in this request: nobody else waits for it.
    lately: [Option<Lately>; LATELY],
    links: Vec<Joint>,
    also: Vec<FlowId>,
    mapped: MappedSpans,
    counts: [u64; Rejection::ALL.len()],
}

impl<'r> SpanMapper<'r> {
    /// Makes room for the spans of a request of this many bytes.
    #[must_use]
    pub fn for_bytes(mut self, bytes: usize) -> Self {
        // Smaller ones are rare; for these it grows.
        const SPAN_BYTES: usize = 256;
        self.mapped.events.reserve(bytes / SPAN_BYTES);
        self
    }

    /// A mapper for one request that arrives at `now`.
    pub fn new(rules: &'r SpanRules, limits: TimeLimits, now: Now) -> Self {
        let values = || Values::new(rules.interned());
        SpanMapper {
            rules,
            limits: limits.around(now),
            resource: values(),
            scope: values(),
            span: values(),
            scopes: 0,
            fingerprint: Vec::new(),
            shared: (0, 0),
            lately: [const { None }; LATELY],
            links: Vec::new(),
            also: rules.also().collect(),
            mapped: MappedSpans::default(),
            counts: [0; Rejection::ALL.len()],
        }
    }

    /// What the request held.
    pub fn finish(mut self) -> MappedSpans {
        let counted = Rejection::ALL.into_iter().zip(self.counts);
        self.mapped.rejected = counted.filter(|(_, count)| *count > 0).collect();
        self.mapped
    }

    fn map(&mut self, span: &SpanFields<'_>) -> Result<(TraceId, Event), Rejection> {
        let trace = <[u8; 16]>::try_from(span.trace_id).map_err(|_| Rejection::TraceId)?;
        let id = <[u8; 8]>::try_from(span.span_id).map_err(|_| Rejection::SpanId)?;
        if trace == [0; 16] {
            return Err(Rejection::TraceId);
        }
        if id == [0; 8] {
            return Err(Rejection::SpanId);
        }
        let parent = match span.parent_span_id {
            [] => SpanId::NONE,
            bytes => SpanId(u64::from_be_bytes(bytes.try_into().map_err(|_| Rejection::ParentSpanId)?)),
        };
        let end = EventTime::from_unix_nanoseconds(span.end_time_unix_nano);
        self.limits.admit(end)?;
        let start = EventTime::from_unix_nanoseconds(span.start_time_unix_nano);
        let kind = kind(span.kind);
        let threshold =
            if span.trace_state.is_empty() { 0 } else { rejection_threshold(&span.trace_state.read()) };
        self.mapped.sampled += u64::from(threshold > 0);
        let (facts, ignored) = self.facts(span, kind, !parent.is_some(), threshold);
        let skewed = start > end;
        // The end has been checked against our clock, the start has not; a start of 0 was never set.
        let start = if skewed || span.start_time_unix_nano == 0 { end } else { start };
        let flags = Flags::ERROR
            .when(span.status_code == STATUS_CODE_ERROR)
            .with(Flags::PARENT_IS_LOCAL.when(parent.is_some() && parent_is_local(span.flags)))
            .with(Flags::SKEWED.when(skewed))
            .with(Flags::FORWARDS.when(kind == Kind::Producer && !self.links.is_empty()))
            .with(Flags::IGNORED.when(ignored));
        let span = SpanId(u64::from_be_bytes(id));
        let event = Event { end, start, span, parent, kind, flags, facts, member: 0 };
        Ok((TraceId(trace), event))
    }

    /// Whether the span takes work off a queue, by the semantic conventions of messaging.
    fn takes_message(&self) -> bool {
        let mut operations = self.rules.operations().iter().filter_map(|slot| self.span.find(slot.index()));
        operations.any(|operation| matches!(operation.compared(), Value::Str("receive" | "process")))
    }

    /// Hands an event over: to its trace, and as a copy to each flow that is `also` there.
    fn deliver(&mut self, trace: TraceId, event: Event) {
        let takes_work = event.kind == Kind::Consumer
            || !event.parent.is_some()
            || (!self.links.is_empty() && self.takes_message());
        if !takes_work {
            self.links.clear();
        }
        // Within its own trace a span is told by its parent.
        self.links.retain(|link| !matches!(link, Joint::Link { trace: to, .. } if *to == trace));
        for &flow in &self.also {
            let (values, overlong) =
                keys_of(self.rules, |key| key.flow == flow, &self.span, [&self.scope, &self.resource]);
            self.mapped.overlong_keys += overlong;
            let joints = self.links.iter().cloned().chain(values).collect();
            let copy = Event { flags: event.flags.with(Flags::COPY), ..event.clone() };
            self.mapped.events.push(Key::Also { flow, trace }, copy, joints);
        }
        if self.links.is_empty() && self.rules.keys().is_empty() {
            self.mapped.events.push(Key::Trace(trace), event, Box::default());
            return;
        }
        let (values, overlong) =
            keys_of(self.rules, |key| !key.also, &self.span, [&self.scope, &self.resource]);
        self.mapped.overlong_keys += overlong;
        let joints = match (self.links.is_empty(), values.is_empty()) {
            (true, true) => Box::default(),
            _ => self.links.drain(..).chain(values).collect(),
        };
        self.mapped.events.push(Key::Trace(trace), event, joints);
    }

    /// What the rules say about the span whose attributes have been read.
    fn facts(&mut self, span: &SpanFields<'_>, kind: Kind, is_root: bool, threshold: u64) -> Interned {
        for (slot, path) in &self.rules.index().fields {
            match path {
                Path::SpanName => self.span.set(*slot, otlp::Value::Str(span.name), self.rules),
                Path::SpanKind => self.span.set(*slot, otlp::Value::Int(span.kind.into()), self.rules),
                Path::StatusCode => {
                    self.span.set(*slot, otlp::Value::Int(span.status_code.into()), self.rules)
                }
                Path::StatusMessage => {
                    self.span.set(*slot, otlp::Value::Str(span.status_message), self.rules)
                }
                Path::ResourceAttribute(_)
                | Path::ScopeName
                | Path::ScopeVersion
                | Path::SpanAttribute(_) => {}
            }
        }
        let is_entry = is_root || matches!(kind, Kind::Server | Kind::Consumer);
        for values in [&mut self.resource, &mut self.scope, &mut self.span] {
            values.answer(self.rules);
        }
        let kind = SpanKind { scope: self.scopes, is_root, is_entry, threshold };
        if self.span.interned.0.len() > CACHED_BYTES {
            return self.learn(kind, None);
        }
        let place = place_of(&self.span.interned, is_root);
        let is_same = |lately: &&Lately| lately.kind == kind && lately.values == self.span.interned;
        if let Some(lately) = self.lately[place].as_ref().filter(is_same) {
            return lately.outcome.clone();
        }
        let outcome = self.look_up(kind);
        match &mut self.lately[place] {
            Some(lately) => {
                lately.kind = kind;
                lately.values.0.clone_from(&self.span.interned.0);
                lately.outcome = outcome.clone();
            }
            none => {
                let values = self.span.interned.clone();
                *none = Some(Lately { kind, values, outcome: outcome.clone() });
            }
        }
        outcome
    }

    /// What the rules say, if it is known, or else by asking them.
    fn look_up(&mut self, kind: SpanKind) -> Interned {
        let all = [&self.resource, &self.scope, &self.span];
        if all.iter().map(|values| values.interned.0.len()).sum::<usize>() > CACHED_BYTES {
            return self.learn(kind, None);
        }
        self.write_fingerprint(kind);
        let known = self.rules.known(&self.fingerprint);
        known.unwrap_or_else(|| self.learn(kind, Some(&self.fingerprint)))
    }

    /// Writes what tells the span apart from all others for which the rules may say something else.
    fn write_fingerprint(&mut self, kind: SpanKind) {
        // No values begin like the end of the ones before them.
        let write = |values: &Values, fingerprint: &mut Vec<u8>| {
            fingerprint.extend_from_slice(&values.interned.0);
            fingerprint.extend_from_slice(&END);
        };
        if self.shared.1 != self.scopes {
            self.fingerprint.clear();
            write(&self.resource, &mut self.fingerprint);
            write(&self.scope, &mut self.fingerprint);
            self.shared = (self.fingerprint.len(), self.scopes);
        }
        self.fingerprint.truncate(self.shared.0);
        self.fingerprint.extend([u8::from(kind.is_root), u8::from(kind.is_entry)]);
        self.fingerprint.extend_from_slice(&kind.threshold.to_le_bytes());
        write(&self.span, &mut self.fingerprint);
    }

    /// Asks the rules. `fingerprint` is not given for what is too long to be remembered.
    fn learn(&self, kind: SpanKind, fingerprint: Option<&[u8]>) -> Interned {
        let all = [&self.span, &self.scope, &self.resource];
        let value = |slot| all.iter().find_map(|values| values.get(slot)).map(Read::compared);
        let values: Vec<Option<Value<'_>>> = (0..self.rules.interned()).map(value).collect();
        let slots = Slots { values: &values, is_root_span: kind.is_root };
        self.rules.learn(fingerprint, &slots, kind.is_entry, kind.threshold)
    }
}

impl TraceVisitor for SpanMapper<'_> {
    fn resource(&mut self) {
        self.resource.clear();
        self.scope.clear();
        self.span.clear();
        self.scopes += 1;
    }

    fn resource_attribute(&mut self, key: Text<'_>, value: otlp::Value<'_>) {
        if let Some(slot) = self.rules.index().resource_attribute(key.as_bytes()) {
            self.scopes += 1;
            self.resource.set(slot, value, self.rules);
        }
    }

    fn scope(&mut self, name: Text<'_>, version: Text<'_>) {
        self.scope.clear();
        self.span.clear();
        self.scopes += 1;
        for (slot, path) in &self.rules.index().fields {
            match path {
                Path::ScopeName => self.scope.set(*slot, otlp::Value::Str(name), self.rules),
                Path::ScopeVersion => self.scope.set(*slot, otlp::Value::Str(version), self.rules),
                _ => {}
            }
        }
    }

    fn span_attribute(&mut self, key: Text<'_>, value: otlp::Value<'_>) {
        if let Some(slot) = self.rules.index().span_attribute(key.as_bytes()) {
            self.span.set(slot, value, self.rules);
        }
    }

    fn span_link(&mut self, trace_id: &[u8], span_id: &[u8]) {
        // A link that names no span links nothing; its span is none the worse for it.
        let ids = <[u8; 16]>::try_from(trace_id).ok().zip(<[u8; 8]>::try_from(span_id).ok());
        if let Some((trace, span)) = ids.filter(|(trace, span)| *trace != [0; 16] && *span != [0; 8]) {
            let span = SpanId(u64::from_be_bytes(span));
            self.links.push(Joint::Link { trace: TraceId(trace), span });
        }
    }

    fn span(&mut self, span: SpanFields<'_>) {
        self.mapped.received += 1;
        match self.map(&span) {
            Ok((trace, event)) => self.deliver(trace, event),
            Err(rejection) => {
                let place = Rejection::ALL.iter().position(|known| *known == rejection).unwrap_or_default();
                self.counts[place] += 1;
            }
        }
        self.links.clear();
        self.span.clear();
    }
}

/// How many kinds of spans a mapper has at hand. Most requests come from one service, whose spans are of few kinds.
const LATELY: usize = 32;

/// Where the outcome is kept that was found out last for such values. A root and what it calls in other services often
/// have the same.
fn place_of(values: &Copied, is_root: bool) -> usize {
    let hash = foldhash::fast::FixedState::default().hash_one(&*values.0) as usize;
    hash.wrapping_add(usize::from(is_root)) % LATELY
}

/// The longest value of a business key, as for the `id` of a push. Longer ones are not cut, for that would join what
/// does not belong together.
const MAX_KEY_BYTES: usize = 256;

/// The values of business keys, and how many were too long.
fn keys_of(
    rules: &SpanRules,
    wanted: impl Fn(&KeyRule) -> bool,
    span: &Values,
    others: [&Values; 2],
) -> (Vec<Joint>, u64) {
    let (mut joints, mut overlong) = (Vec::new(), 0);
    if rules.keys().is_empty() {
        return (joints, overlong);
    }
    let no_paths = Slots { values: &[], is_root_span: false };
    for key in rules.keys().iter().filter(|key| wanted(key)) {
        let slot = key.value.slot().map(Slot::index);
        let of_span = slot.and_then(|slot| span.find(slot));
        let of_others = || slot.and_then(|slot| others.iter().find_map(|values| values.get(slot)));
        let value = match slot {
            Some(_) => of_span.as_ref().or_else(of_others).map(Read::compared),
            None => key.value.value(&no_paths),
        };
        match value.map(text_of).filter(|value| !value.is_empty()) {
            Some(value) if value.len() > MAX_KEY_BYTES => overlong += 1,
            Some(value) => {
                joints.push(Joint::Value { flow: key.flow, rank: key.rank, value: Arc::from(&*value) });
            }
            None => {}
        }
    }
    (joints, overlong)
}

/// `STATUS_CODE_ERROR` of the OTLP trace proto.
const STATUS_CODE_ERROR: i32 = 2;

fn kind(kind: i32) -> Kind {
    // SpanKind of the OTLP trace proto; unspecified and unknown kinds say no more than INTERNAL.
    match kind {
        2 => Kind::Server,
        3 => Kind::Client,
        4 => Kind::Producer,
        5 => Kind::Consumer,
        _ => Kind::Internal,
    }
}

/// SpanFlags of the OTLP trace proto: whether the sender knows, and whether the parent is remote.
fn parent_is_local(flags: u32) -> bool {
    const HAS_IS_REMOTE: u32 = 0x100;
    const IS_REMOTE: u32 = 0x200;
    flags & (HAS_IS_REMOTE | IS_REMOTE) == HAS_IS_REMOTE
}

/// The rejection threshold that a sampler left in the tracestate, `ot=th:` and up to 14 hexadecimal digits of which
/// zeros at the end are left out, in units of 2^-56; 0 if there is none.
/// <https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/#sampling-threshold-value-th>
fn rejection_threshold(trace_state: &str) -> u64 {
    let members = trace_state.split(',').filter_map(|member| member.trim().strip_prefix("ot="));
    let mut thresholds =
        members.flat_map(|value| value.split(';')).filter_map(|field| field.strip_prefix("th:"));
    let digits = thresholds.next().filter(|digits| (1..=14).contains(&digits.len()));
    let number =
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok().map(|number| (number, digits)));
    number.map_or(0, |(number, digits)| number << (4 * (14 - digits.len())))
}

/// What was asked for about a span, and the answer.
#[derive(Debug)]
struct Lately {
    kind: SpanKind,
    values: Copied,
    outcome: Interned,
}

/// What the outcome depends on beside the values of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SpanKind {
    /// After how many changes of resource and scope it came.
    scope: u32,
    is_root: bool,
    is_entry: bool,
    threshold: u64,
}

/// Values copied out of the request.
#[derive(Debug)]
struct Values {
    /// The values that the interned outcome depends on, and answers about others.
    interned: Copied,
    /// How many slots these have; what comes behind is read for keys and links only.
    interned_slots: usize,
    /// Those.
    others: Copied,
    /// Interned values of which the outcome depends on answers only.
    asked: Copied,
    /// Whether all that is asked about these has been answered.
    is_answered: bool,
    /// All of them by slot, once somebody had to know: those of a resource are many spans'.
    read: OnceCell<Vec<Option<Read<'static>>>>,
}

/// Values as they came, one behind the other: of each its slot, its type and its length, then itself. No two sets of values
/// and answers look the same, though one set may look different when its values came in another order, or twice. Whether a text is
/// UTF-8 is only asked when it is read.
#[derive(Debug, Clone, Default, PartialEq)]
struct Copied(Vec<u8>);

/// What stands before each value.
const HEAD_BYTES: usize = 8;
/// Where the slot of one more value would stand.
const END: [u8; HEAD_BYTES] = [0xff; HEAD_BYTES];

/// The types of values; an empty text and empty bytes are not the same.
const TEXT: u8 = 1;
const BYTES: u8 = 2;
const BOOL: u8 = 3;
const INT: u8 = 4;
const DOUBLE: u8 = 5;
const OTHER: u8 = 6;
/// Answers instead of a value, a bit each.
const ANSWERS: u8 = 7;

impl Copied {
    fn add(&mut self, slot: usize, kind: u8, value: &[u8]) {
        // Slots are few and values shorter than a request.
        let head = slot as u64 & 0xff_ffff | u64::from(kind) << 24 | (value.len() as u64) << 32;
        self.0.extend_from_slice(&head.to_le_bytes());
        self.0.extend_from_slice(value);
    }

    fn add_value(&mut self, slot: usize, value: otlp::Value<'_>) {
        match value {
            otlp::Value::Str(text) => self.add(slot, TEXT, text.as_bytes()),
            otlp::Value::Bytes(bytes) => self.add(slot, BYTES, bytes),
            otlp::Value::Bool(value) => self.add(slot, BOOL, &[u8::from(value)]),
            otlp::Value::Int(value) => self.add(slot, INT, &value.to_le_bytes()),
            otlp::Value::Double(value) => self.add(slot, DOUBLE, &value.to_le_bytes()),
            otlp::Value::Other => self.add(slot, OTHER, &[]),
        }
    }

    /// The slots and values in the order in which they came.
    fn each(&self) -> impl Iterator<Item = (usize, otlp::Value<'_>)> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (head, behind) = rest.split_first_chunk::<HEAD_BYTES>()?;
            let head = u64::from_le_bytes(*head);
            let (value, behind) = behind.split_at_checked((head >> 32) as usize)?;
            rest = behind;
            let number = || value.first_chunk().copied().unwrap_or_default();
            let value = match (head >> 24) as u8 {
                TEXT => otlp::Value::Str(Text::new(value)),
                BYTES => otlp::Value::Bytes(value),
                BOOL => otlp::Value::Bool(value == [1]),
                INT => otlp::Value::Int(i64::from_le_bytes(number())),
                DOUBLE => otlp::Value::Double(f64::from_le_bytes(number())),
                _ => otlp::Value::Other,
            };
            Some(((head & 0xff_ffff) as usize, value))
        })
    }

    /// The value of a slot; of several the last wins.
    fn get(&self, slot: usize) -> Option<otlp::Value<'_>> {
        self.each().filter(|(known, _)| *known == slot).last().map(|(_, value)| value)
    }
}

impl Values {
    /// Values, of whose slots the first ones are interned.
    fn new(interned_slots: usize) -> Self {
        let copied = Copied::default;
        let (interned, others, asked) = (copied(), copied(), copied());
        Values { interned, interned_slots, others, asked, is_answered: true, read: OnceCell::new() }
    }

    fn clear(&mut self) {
        self.interned.0.clear();
        self.others.0.clear();
        self.asked.0.clear();
        self.is_answered = true;
        self.read.take();
    }

    fn set(&mut self, slot: usize, value: otlp::Value<'_>, rules: &SpanRules) {
        if slot >= self.interned_slots {
            self.others.add_value(slot, value);
        } else if rules.questions(slot).is_some() {
            self.is_answered = false;
            self.asked.add_value(slot, value);
        } else {
            self.interned.add_value(slot, value);
        }
    }

    /// Answers what is asked about the values that came, of several for one slot about the last.
    fn answer(&mut self, rules: &SpanRules) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let mut last: SmallVec<[(usize, otlp::Value<'_>); 4]> = SmallVec::new();
        for (slot, value) in self.asked.each() {
            match last.iter_mut().find(|(known, _)| *known == slot) {
                Some(known) => known.1 = value,
                None => last.push((slot, value)),
            }
        }
        for (slot, value) in last {
            let read = Read::of(value);
            let questions = rules.questions(slot).unwrap_or_default();
            let bit = |(bit, question): (usize, &Question)| u64::from(question.holds(read.compared())) << bit;
            let answers = questions.iter().enumerate().map(bit).fold(0, |answers, bit| answers | bit);
            self.interned.add(slot, ANSWERS, &answers.to_le_bytes());
        }
    }

    /// The value of a slot, for whoever asks once: all that came is looked through.
    fn find(&self, slot: usize) -> Option<Read<'_>> {
        let found = match slot < self.interned_slots {
            // A value may be a key and asked about as well.
            true => self.asked.get(slot).or_else(|| self.interned.get(slot)),
            false => self.others.get(slot),
        };
        found.map(Read::of)
    }

    /// The value of a slot, for many spans.
    fn get(&self, slot: usize) -> Option<&Read<'static>> {
        let read = || {
            let mut last: Vec<Option<otlp::Value<'_>>> = Vec::new();
            // Those that are asked about come behind what stands for them.
            for (slot, value) in self.interned.each().chain(self.others.each()).chain(self.asked.each()) {
                last.resize(last.len().max(slot + 1), None);
                last[slot] = Some(value);
            }
            last.into_iter().map(|value| value.map(|value| Read::of(value).into_owned())).collect()
        };
        self.read.get_or_init(read).get(slot)?.as_ref()
    }
}

/// A value as it is read: its text repaired where it is no UTF-8.
#[derive(Debug, Clone)]
enum Read<'v> {
    Text(Cow<'v, str>),
    Bytes(Cow<'v, [u8]>),
    Other(Value<'static>),
}

impl<'v> Read<'v> {
    fn of(value: otlp::Value<'v>) -> Self {
        match value {
            otlp::Value::Str(text) => Read::Text(text.read()),
            otlp::Value::Bytes(bytes) => Read::Bytes(Cow::Borrowed(bytes)),
            otlp::Value::Bool(value) => Read::Other(Value::Bool(value)),
            otlp::Value::Int(value) => Read::Other(Value::Int(value)),
            otlp::Value::Double(value) => Read::Other(Value::Double(value)),
            otlp::Value::Other => Read::Other(Value::Other),
        }
    }

    fn into_owned(self) -> Read<'static> {
        match self {
            Read::Text(text) => Read::Text(Cow::Owned(text.into_owned())),
            Read::Bytes(bytes) => Read::Bytes(Cow::Owned(bytes.into_owned())),
            Read::Other(value) => Read::Other(value),
        }
    }

    /// As conditions compare it.
    fn compared(&self) -> Value<'_> {
        match self {
            Read::Text(text) => Value::Str(text),
            Read::Bytes(bytes) => Value::Bytes(bytes),
            Read::Other(value) => *value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Facts;
    use crate::domain::time::Arrival;
    use crate::mapping::flows::{Defaults, FlowConfig, compile};

    /// The facts of spans with these values of `url.path`, by rules that read and ask about it as written.
    fn facts_of(flows: &str, ignore: &str, paths: &[&str]) -> Vec<(Arc<Facts>, bool)> {
        let configs: Vec<FlowConfig> = serde_saphyr::from_str(flows).expect("flows");
        let compiled = compile(&configs, &Defaults::default(), &[ignore.to_owned()], true).expect("rules");
        let limits = TimeLimits { max_future: Duration::MAX, max_past: Duration::MAX };
        let mut mapper = SpanMapper::new(
            &compiled.rules,
            limits,
            Now { arrival: Arrival::ORIGIN, wall: EventTime::EPOCH },
        );
        mapper.resource();
        mapper.scope(Text::default(), Text::default());
        for path in paths {
            mapper.span_attribute(Text::from("url.path"), otlp::Value::Str(Text::from(*path)));
            mapper.span(SpanFields { trace_id: &[1; 16], span_id: &[1; 8], ..SpanFields::default() });
        }
        let events = mapper.finish().events.into_incoming();
        let said = |event: Event| (Arc::clone(&event.facts), event.flags.has(Flags::IGNORED));
        events.map(|incoming| said(incoming.event)).collect()
    }

    #[test]
    fn values_that_conditions_only_ask_about_do_not_tell_spans_apart() {
        const HEALTH: &str = r#"IsMatch(span.attributes["url.path"], "^/health$")"#;
        const ORDERS: &str = r#"[{name: orders, match: '"/orders/4" < span.attributes["url.path"]'}]"#;
        let paths = ["/orders/1", "/orders/2", "/health", "/orders/5", "/orders/6", "/health"];
        let facts = facts_of(ORDERS, HEALTH, &paths);
        let same = |a: usize, b: usize| Arc::ptr_eq(&facts[a].0, &facts[b].0);
        assert!(same(0, 1) && same(3, 4) && same(2, 5));
        assert!(!same(0, 2) && !same(0, 3) && !same(2, 3));
        assert_eq!(
            facts.iter().map(|(_, ignored)| *ignored).collect::<Vec<_>>(),
            [false, false, true, false, false, true]
        );
        let taken = |facts: &Facts| facts.matches.first.is_some_and(|flow| flow.place == 0);
        assert_eq!([0, 3].map(|place| taken(&facts[place].0)), [false, true]);
    }

    #[test]
    fn what_a_resource_says_is_read_once_however_long_it_is() {
        // Read for each span, this would be a terabyte.
        const SERVICE_BYTES: usize = 16 << 20;
        const SPANS: usize = 60_000;
        const NEVER: &str = r#"span.attributes["url.path"] == span.name"#;
        let key =
            r#"[{name: orders, match: 'span.name == "x"', key: 'resource.attributes["service.name"]'}]"#;
        let configs: Vec<FlowConfig> = serde_saphyr::from_str(key).expect("flows");
        let compiled = compile(&configs, &Defaults::default(), &[NEVER.to_owned()], true).expect("rules");
        let limits = TimeLimits { max_future: Duration::MAX, max_past: Duration::MAX };
        let now = Now { arrival: Arrival::ORIGIN, wall: EventTime::EPOCH };
        let mut mapper = SpanMapper::new(&compiled.rules, limits, now);
        mapper.resource();
        let service = "a".repeat(SERVICE_BYTES);
        for _ in 0..2 {
            mapper.resource_attribute(Text::from("service.name"), otlp::Value::Str(Text::from(&*service)));
        }
        mapper.scope(Text::default(), Text::default());
        for number in 0..SPANS {
            let name = number.to_string();
            let span = SpanFields { trace_id: &[1; 16], span_id: &[1; 8], ..SpanFields::default() };
            mapper.span(SpanFields { name: Text::from(&*name), ..span });
        }
        let mapped = mapper.finish();
        assert_eq!((mapped.events.len(), mapped.overlong_keys), (SPANS, SPANS as u64));
    }

    #[test]
    fn values_that_are_read_or_compared_with_others_tell_spans_apart() {
        const NEVER: &str = r#"span.attributes["url.path"] == span.name"#;
        const LABEL: &str = r#"[{name: orders, labels: {path: 'span.attributes["url.path"]'}}]"#;
        for (flows, ignore) in [("[]", NEVER), (LABEL, r#"span.name == "x""#)] {
            let facts = facts_of(flows, ignore, &["/1", "/2", "/1"]);
            assert!(!Arc::ptr_eq(&facts[0].0, &facts[1].0), "{flows} {ignore}");
            assert!(Arc::ptr_eq(&facts[0].0, &facts[2].0), "{flows} {ignore}");
        }
    }

    #[test]
    fn a_sampling_threshold_is_found_among_other_vendors_state() {
        for (state, threshold) in [
            ("", 0),
            ("ot=th:8", 1 << 55),
            ("vendor=x, ot=rv:1;th:c", 3 << 54),
            ("ot=th:ffffffffffffff", (1 << 56) - 1),
            ("ot=th:0", 0),
            ("ot=rv:abc", 0),
            ("not=th:8", 0),
            ("ot=th:xyz", 0),
            ("ot=th:", 0),
            ("ot=th:123456789abcdef", 0),
        ] {
            assert_eq!(rejection_threshold(state), threshold, "{state}");
        }
    }

    #[test]
    fn a_parent_is_local_only_when_the_sender_says_so() {
        for (flags, local) in [(0, false), (0x100, true), (0x300, false), (0x200, false), (0x101, true)] {
            assert_eq!(parent_is_local(flags), local, "{flags:#x}");
        }
    }
}

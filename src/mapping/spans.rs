//! Spans to events: reads what the rules need while a decoder walks over a request.
//!
//! Knows neither the encoding nor what becomes of the events. A span that cannot be right (no valid id, an end far
//! from now) is refused alone, counted by reason.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::condition::{Path, Slots, Value, text_of};
use super::facts::{Interned, KeyRule, SpanRules};
use super::otlp::{self, SpanFields, Text, TraceVisitor};
use crate::domain::event::{Event, Flags, Incoming, Kind};
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
    pub events: Vec<Incoming>,
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
    /// What has been asked for in this request: nobody else waits for it.
    lately: [Option<Lately>; LATELY],
    links: Vec<Joint>,
    also: Vec<FlowId>,
    mapped: MappedSpans,
    counts: [u64; Rejection::ALL.len()],
}

impl<'r> SpanMapper<'r> {
    /// A mapper for one request that arrives at `now`.
    pub fn new(rules: &'r SpanRules, limits: TimeLimits, now: Now) -> Self {
        let values = || Values::new(rules.paths().len(), rules.interned());
        SpanMapper {
            rules,
            limits: limits.around(now),
            resource: values(),
            scope: values(),
            span: values(),
            scopes: 0,
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
        let event = Event { end, start, span, parent, kind, flags, facts };
        Ok((TraceId(trace), event))
    }

    /// Hands an event over: to its trace, and as a copy to each flow that is `also` there.
    fn deliver(&mut self, trace: TraceId, event: Event) {
        let takes_work = event.kind == Kind::Consumer
            || !event.parent.is_some()
            || (!self.links.is_empty() && self.rules.takes_message(|slot| self.span.get(slot)));
        if !takes_work {
            self.links.clear();
        }
        // Within its own trace a span is told by its parent.
        self.links.retain(|link| !matches!(link, Joint::Link { trace: to, .. } if *to == trace));
        for &flow in &self.also {
            let (values, overlong) =
                keys_of(self.rules, |key| key.flow == flow, [&self.span, &self.scope, &self.resource]);
            self.mapped.overlong_keys += overlong;
            let joints = self.links.iter().cloned().chain(values).collect();
            let copy = Event { flags: event.flags.with(Flags::COPY), ..event.clone() };
            self.mapped.events.push(Incoming { key: Key::Also { flow, trace }, event: copy, joints });
        }
        let (values, overlong) =
            keys_of(self.rules, |key| !key.also, [&self.span, &self.scope, &self.resource]);
        self.mapped.overlong_keys += overlong;
        let joints = self.links.drain(..).chain(values).collect();
        self.mapped.events.push(Incoming { key: Key::Trace(trace), event, joints });
    }

    /// What the rules say about the span whose attributes have been read.
    fn facts(&mut self, span: &SpanFields<'_>, kind: Kind, is_root: bool, threshold: u64) -> Interned {
        for (slot, path) in &self.rules.index().fields {
            match path {
                Path::SpanName => self.span.set_text(*slot, span.name),
                Path::SpanKind => self.span.set(*slot, Stored::Int(span.kind.into())),
                Path::StatusCode => self.span.set(*slot, Stored::Int(span.status_code.into())),
                Path::StatusMessage => self.span.set_text(*slot, span.status_message),
                Path::ResourceAttribute(_)
                | Path::ScopeName
                | Path::ScopeVersion
                | Path::SpanAttribute(_) => {}
            }
        }
        let is_entry = is_root || matches!(kind, Kind::Server | Kind::Consumer);
        let is = u8::from(is_root) | u8::from(is_entry) << 1;
        let place = hash_of(&self.span.interned) as usize % self.lately.len();
        let is_same = |lately: &&Lately| {
            (lately.scope, lately.is, lately.threshold) == (self.scopes, is, threshold)
                && lately.span == self.span.interned
        };
        if let Some(lately) = self.lately[place].as_ref().filter(is_same) {
            return lately.outcome.clone();
        }
        let outcome = self.known_or_learnt(is_root, is_entry, threshold);
        let span = self.span.interned.clone();
        self.lately[place] =
            Some(Lately { scope: self.scopes, is, threshold, span, outcome: outcome.clone() });
        outcome
    }

    /// What all rules say about the span.
    fn known_or_learnt(&self, is_root: bool, is_entry: bool, threshold: u64) -> Interned {
        let mut fingerprint = Vec::new();
        // No values begin like the end of the ones before them.
        for values in [&self.resource, &self.scope, &self.span] {
            fingerprint.extend_from_slice(&values.interned);
            fingerprint.extend_from_slice(&END_OF_VALUES.to_le_bytes());
        }
        fingerprint.extend([u8::from(is_root), u8::from(is_entry)]);
        fingerprint.extend_from_slice(&threshold.to_le_bytes());
        if let Some(known) = self.rules.known(&fingerprint) {
            return known;
        }
        let all = [&self.span, &self.scope, &self.resource];
        let values: Vec<Option<Value<'_>>> =
            (0..self.rules.interned()).map(|slot| all.iter().find_map(|values| values.get(slot))).collect();
        let slots = Slots { values: &values, is_root_span: is_root };
        self.rules.learn(&fingerprint, &slots, is_entry, threshold)
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
            self.resource.set_value(slot, value);
        }
    }

    fn scope(&mut self, name: Text<'_>, version: Text<'_>) {
        self.scope.clear();
        self.span.clear();
        self.scopes += 1;
        for (slot, path) in &self.rules.index().fields {
            match path {
                Path::ScopeName => self.scope.set_text(*slot, name),
                Path::ScopeVersion => self.scope.set_text(*slot, version),
                _ => {}
            }
        }
    }

    fn span_attribute(&mut self, key: Text<'_>, value: otlp::Value<'_>) {
        if let Some(slot) = self.rules.index().span_attribute(key.as_bytes()) {
            self.span.set_value(slot, value);
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

/// Tells fingerprints apart well enough to find a place for each.
fn hash_of(fingerprint: &[u8]) -> u64 {
    foldhash::fast::FixedState::default().hash_one(fingerprint)
}

/// The longest value of a business key, as for the `id` of a push. Longer ones are not cut, for that would join what
/// does not belong together.
const MAX_KEY_BYTES: usize = 256;

/// The values of business keys, and how many were too long.
fn keys_of(rules: &SpanRules, wanted: impl Fn(&KeyRule) -> bool, values: [&Values; 3]) -> (Vec<Joint>, u64) {
    let (mut joints, mut overlong) = (Vec::new(), 0);
    if rules.keys().is_empty() {
        return (joints, overlong);
    }
    let no_paths = Slots { values: &[], is_root_span: false };
    for key in rules.keys().iter().filter(|key| wanted(key)) {
        let value = match key.value.slot() {
            Some(slot) => values.iter().find_map(|values| values.get(slot.index())),
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
    /// Of its resource and scope.
    scope: u32,
    is: u8,
    threshold: u64,
    span: Vec<u8>,
    outcome: Interned,
}

/// Values by slot, copied out of the request.
#[derive(Debug)]
struct Values {
    stored: Vec<Stored>,
    /// Slots in use, so that clearing costs what was set.
    used: Vec<usize>,
    /// The values that the interned outcome depends on, each with its slot and its type in front: no two sets of values
    /// look the same. (One set may look different when its values came in another order, or twice.)
    interned: Vec<u8>,
    /// How many slots these have; what comes behind is read for keys and links only.
    slots: usize,
    /// The texts and bytes of those.
    others: Vec<u8>,
}

/// Where the slot of one more value would stand.
const END_OF_VALUES: u32 = u32::MAX;

#[derive(Debug, Clone)]
enum Stored {
    None,
    Str(Range<usize>),
    Bytes(Range<usize>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Other,
}

/// The types of values; an empty text and empty bytes are not the same.
const TEXT: u32 = 1;
const BYTES: u32 = 2;

impl Stored {
    fn tag(&self) -> u32 {
        match self {
            Stored::None => 0,
            Stored::Str(_) => TEXT,
            Stored::Bytes(_) => BYTES,
            Stored::Bool(_) => 3,
            Stored::Int(_) => 4,
            Stored::Double(_) => 5,
            Stored::Other => 6,
        }
    }
}

impl Values {
    /// Values of so many slots, of which the first ones are interned.
    fn new(slots: usize, interned: usize) -> Self {
        let (used, others) = Default::default();
        Values { stored: vec![Stored::None; slots], used, interned: Vec::new(), slots: interned, others }
    }

    fn clear(&mut self) {
        for slot in self.used.drain(..) {
            self.stored[slot] = Stored::None;
        }
        self.interned.clear();
        self.others.clear();
    }

    /// Sets a slot to what is no text.
    fn set(&mut self, slot: usize, value: Stored) {
        let number = match value {
            Stored::Bool(value) => u64::from(value),
            Stored::Int(value) => value.cast_unsigned(),
            Stored::Double(value) => value.to_bits(),
            Stored::None | Stored::Str(_) | Stored::Bytes(_) | Stored::Other => 0,
        };
        self.note(slot, value.tag(), number);
        self.put(slot, value);
    }

    /// Begins a value among the interned ones, if it is one; for text and bytes `number` is the length.
    fn note(&mut self, slot: usize, tag: u32, number: u64) {
        if slot < self.slots {
            let head = u64::from(slot as u32) | u64::from(tag) << 32;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&head.to_le_bytes());
            bytes[8..].copy_from_slice(&number.to_le_bytes());
            self.interned.extend_from_slice(&bytes);
        }
    }

    /// Of several values for one attribute the last wins.
    fn put(&mut self, slot: usize, value: Stored) {
        if matches!(self.stored[slot], Stored::None) {
            self.used.push(slot);
        }
        self.stored[slot] = value;
    }

    fn set_text(&mut self, slot: usize, text: Text<'_>) {
        // Most are, and need no further look to be valid.
        let is_plain = text.as_bytes().is_ascii();
        let read;
        let bytes = if is_plain {
            text.as_bytes()
        } else {
            read = text.read();
            read.as_bytes()
        };
        let range = self.copy(slot, TEXT, bytes);
        self.put(slot, Stored::Str(range));
    }

    fn set_value(&mut self, slot: usize, value: otlp::Value<'_>) {
        let stored = match value {
            otlp::Value::Str(text) => return self.set_text(slot, text),
            otlp::Value::Bytes(bytes) => {
                let range = self.copy(slot, BYTES, bytes);
                return self.put(slot, Stored::Bytes(range));
            }
            otlp::Value::Bool(value) => Stored::Bool(value),
            otlp::Value::Int(value) => Stored::Int(value),
            otlp::Value::Double(value) => Stored::Double(value),
            otlp::Value::Other => Stored::Other,
        };
        self.set(slot, stored);
    }

    /// Copies the bytes of a value of this type to where those of the slot are.
    fn copy(&mut self, slot: usize, tag: u32, bytes: &[u8]) -> Range<usize> {
        self.note(slot, tag, bytes.len() as u64);
        let buffer = if slot < self.slots { &mut self.interned } else { &mut self.others };
        let start = buffer.len();
        buffer.extend_from_slice(bytes);
        start..buffer.len()
    }

    fn bytes(&self, slot: usize, range: &Range<usize>) -> &[u8] {
        let buffer = if slot < self.slots { &self.interned } else { &self.others };
        &buffer[range.clone()]
    }

    fn get(&self, slot: usize) -> Option<Value<'_>> {
        Some(match &self.stored[slot] {
            Stored::None => return None,
            // What was copied from a str is one.
            Stored::Str(range) => {
                Value::Str(std::str::from_utf8(self.bytes(slot, range)).unwrap_or_default())
            }
            Stored::Bytes(range) => Value::Bytes(self.bytes(slot, range)),
            Stored::Bool(value) => Value::Bool(*value),
            Stored::Int(value) => Value::Int(*value),
            Stored::Double(value) => Value::Double(*value),
            Stored::Other => Value::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

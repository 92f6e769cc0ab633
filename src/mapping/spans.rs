//! Spans to events: reads what the rules need while a decoder walks over a request.
//!
//! Knows neither the encoding nor what becomes of the events. A span that cannot be right (no valid id, an end far
//! from now) is refused alone, counted by reason.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::condition::{Path, Slots, Value, text_of};
use super::facts::{CACHED_BYTES, Interned, KeyRule, SpanRules};
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
        let values = || Values::new(rules.paths().len(), rules.interned());
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
        let all = [&self.resource, &self.scope, &self.span];
        let kind = SpanKind { scope: self.scopes, is_root, is_entry, threshold };
        if all.iter().map(|values| values.interned.len()).sum::<usize>() > CACHED_BYTES {
            return self.learn(kind, None);
        }
        let place = hash_of(&self.span.interned) as usize % self.lately.len();
        let is_same = |lately: &&Lately| lately.kind == kind && lately.values == self.span.interned;
        if let Some(lately) = self.lately[place].as_ref().filter(is_same) {
            return lately.outcome.clone();
        }
        self.write_fingerprint(kind);
        let known = self.rules.known(&self.fingerprint);
        let outcome = known.unwrap_or_else(|| self.learn(kind, Some(&self.fingerprint)));
        match &mut self.lately[place] {
            Some(lately) => {
                lately.kind = kind;
                lately.values.copy_from(&self.span.interned);
                lately.outcome = outcome.clone();
            }
            none => {
                let values = self.span.interned.clone();
                *none = Some(Lately { kind, values, outcome: outcome.clone() });
            }
        }
        outcome
    }

    /// Writes what tells the span apart from all others for which the rules may say something else.
    fn write_fingerprint(&mut self, kind: SpanKind) {
        // No values begin like the end of the ones before them.
        let write = |values: &Values, fingerprint: &mut Vec<u8>| {
            fingerprint.extend_from_slice(&values.interned.heads);
            fingerprint.extend_from_slice(&END_OF_HEADS.to_le_bytes());
            fingerprint.extend_from_slice(values.interned.texts.as_bytes());
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
        let values: Vec<Option<Value<'_>>> =
            (0..self.rules.interned()).map(|slot| all.iter().find_map(|values| values.get(slot))).collect();
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

/// Tells values apart well enough to find a place for each.
fn hash_of(values: &Copied) -> u64 {
    foldhash::fast::FixedState::default().hash_one((&*values.heads, &*values.texts))
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

/// Values by slot, copied out of the request.
#[derive(Debug)]
struct Values {
    stored: Vec<Stored>,
    /// Slots in use, so that clearing costs what was set.
    used: Vec<usize>,
    /// The values that the interned outcome depends on.
    interned: Copied,
    /// How many slots these have; what comes behind is read for keys and links only.
    interned_slots: usize,
    /// Those.
    others: Copied,
}

/// Values as they came. No two sets of values look the same, though one set may look different when its values came in
/// another order, or twice.
#[derive(Debug, Clone, Default, PartialEq)]
struct Copied {
    /// Of each value its slot, its type, and itself or its length; behind that bytes that are no text.
    heads: Vec<u8>,
    /// The texts one behind the other.
    texts: String,
}

impl Copied {
    fn clear(&mut self) {
        self.heads.clear();
        self.texts.clear();
    }

    fn len(&self) -> usize {
        self.heads.len() + self.texts.len()
    }

    fn copy_from(&mut self, other: &Copied) {
        self.heads.clone_from(&other.heads);
        self.texts.clone_from(&other.texts);
    }

    fn add_head(&mut self, slot: usize, tag: u32, number: u64) {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&(u64::from(slot as u32) | u64::from(tag) << 32).to_le_bytes());
        head[8..].copy_from_slice(&number.to_le_bytes());
        self.heads.extend_from_slice(&head);
    }
}

/// Where the slot of one more value would stand.
const END_OF_HEADS: u32 = u32::MAX;

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
        let (used, copied) = (Vec::new(), Copied::default());
        let stored = vec![Stored::None; slots];
        Values { stored, used, interned: copied.clone(), interned_slots: interned, others: copied }
    }

    fn copied(&mut self, slot: usize) -> &mut Copied {
        if slot < self.interned_slots { &mut self.interned } else { &mut self.others }
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
        self.copied(slot).add_head(slot, value.tag(), number);
        self.put(slot, value);
    }

    /// Of several values for one attribute the last wins.
    fn put(&mut self, slot: usize, value: Stored) {
        if matches!(self.stored[slot], Stored::None) {
            self.used.push(slot);
        }
        self.stored[slot] = value;
    }

    fn set_text(&mut self, slot: usize, text: Text<'_>) {
        let repaired;
        let text = match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => text,
            Err(_) => {
                repaired = text.read();
                &*repaired
            }
        };
        let copied = self.copied(slot);
        copied.add_head(slot, TEXT, text.len() as u64);
        let start = copied.texts.len();
        copied.texts.push_str(text);
        let range = start..copied.texts.len();
        self.put(slot, Stored::Str(range));
    }

    fn set_value(&mut self, slot: usize, value: otlp::Value<'_>) {
        let stored = match value {
            otlp::Value::Str(text) => return self.set_text(slot, text),
            otlp::Value::Bytes(bytes) => {
                let copied = self.copied(slot);
                copied.add_head(slot, BYTES, bytes.len() as u64);
                let start = copied.heads.len();
                copied.heads.extend_from_slice(bytes);
                let range = start..copied.heads.len();
                return self.put(slot, Stored::Bytes(range));
            }
            otlp::Value::Bool(value) => Stored::Bool(value),
            otlp::Value::Int(value) => Stored::Int(value),
            otlp::Value::Double(value) => Stored::Double(value),
            otlp::Value::Other => Stored::Other,
        };
        self.set(slot, stored);
    }

    fn get(&self, slot: usize) -> Option<Value<'_>> {
        let copied = if slot < self.interned_slots { &self.interned } else { &self.others };
        Some(match &self.stored[slot] {
            Stored::None => return None,
            Stored::Str(range) => Value::Str(&copied.texts[range.clone()]),
            Stored::Bytes(range) => Value::Bytes(&copied.heads[range.clone()]),
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

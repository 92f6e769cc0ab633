//! Spans to events: reads what the rules need while a decoder walks over a request.
//!
//! Knows neither the encoding nor what becomes of the events. A span that cannot be right (no valid id, an end far
//! from now) is refused alone, counted by reason.

mod stored;
mod values;

use std::cell::Cell;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::admission::{Rejection, TimeLimits, TimeWindow};
use super::condition::{Lasting, Path, Slot, Slots, Value, text_up_to};
use super::facts::{CACHED_BYTES, Interned, KeyRule, SpanRules};
use super::otlp::{self, SpanFields, Text, TraceVisitor};
use crate::domain::batch::{Batch, Run};
use crate::domain::event::{Event, Flags, Kind};
use crate::domain::ids::{FlowId, Key, SpanId, TraceId};
use crate::domain::joining::Joint;
use crate::domain::time::{EventTime, Now};
use values::{Copied, END, Read, Values};

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
pub struct SpanMapper<'r> {
    rules: &'r SpanRules,
    room: Option<&'r mut dyn FnMut(usize) -> bool>,
    /// What has been taken of memory and not been asked for yet, in bytes, roughly.
    taken: Cell<usize>,
    /// There was no room: nothing more is kept.
    is_full: bool,
    limits: TimeWindow,
    resource: Values,
    scope: Values,
    span: Values,
    lasting: Lasting<'r>,
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

impl fmt::Debug for SpanMapper<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SpanMapper").field("mapped", &self.mapped).finish_non_exhaustive()
    }
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

    /// Asks for room for so many bytes more now and then. When there is none, nothing more is kept, and what has been is of
    /// no use.
    #[must_use]
    pub fn within(self, room: &'r mut dyn FnMut(usize) -> bool) -> Self {
        SpanMapper { room: Some(room), ..self }
    }

    /// A mapper for one request that arrives at `now`.
    pub fn new(rules: &'r SpanRules, limits: TimeLimits, now: Now) -> Self {
        let values = || Values::new(rules.interned());
        SpanMapper {
            rules,
            room: None,
            taken: Cell::new(0),
            is_full: false,
            limits: limits.around(now),
            resource: values(),
            scope: values(),
            span: values(),
            lasting: Lasting::of(rules.lasting()),
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

    /// To be called when the resource or the scope becomes another one.
    fn changed(&mut self) {
        self.scopes += 1;
        self.lasting.forget();
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
            let joints: Box<[Joint]> = self.links.iter().cloned().chain(values).collect();
            self.taken.update(|taken| taken + EVENT_BYTES + bytes_of(&joints));
            let copy = Event { flags: event.flags.with(Flags::COPY), ..event.clone() };
            self.mapped.events.push(Key::Also { flow, trace }, copy, joints);
        }
        self.taken.update(|taken| taken + EVENT_BYTES);
        if self.links.is_empty() && self.rules.keys().is_empty() {
            self.mapped.events.push(Key::Trace(trace), event, Box::default());
            return;
        }
        let (values, overlong) =
            keys_of(self.rules, |key| !key.also, &self.span, [&self.scope, &self.resource]);
        self.mapped.overlong_keys += overlong;
        let joints: Box<[Joint]> = match (self.links.is_empty(), values.is_empty()) {
            (true, true) => Box::default(),
            _ => self.links.drain(..).chain(values).collect(),
        };
        self.taken.update(|taken| taken + bytes_of(&joints));
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
        let is_entry = is_root || kind.is_entry();
        for values in [&mut self.resource, &mut self.scope, &mut self.span] {
            values.answer(self.rules);
        }
        let kind = SpanKind { scope: self.scopes, is_root, is_entry, threshold };
        if self.span.interned.as_bytes().len() > CACHED_BYTES {
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
                lately.values.assign(&self.span.interned);
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
        if all.iter().map(|values| values.interned.as_bytes().len()).sum::<usize>() > CACHED_BYTES {
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
            fingerprint.extend_from_slice(values.interned.as_bytes());
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
        let slots = Slots { values: &values, is_root_span: kind.is_root, lasting: Some(&self.lasting) };
        let learned = self.rules.learn(fingerprint, &slots, kind.is_entry, kind.threshold);
        self.taken.update(|taken| taken + learned.0.bytes_held());
        learned
    }

    /// Asks for room for what has been taken, if that is much.
    fn ask_for_room(&mut self) {
        if self.is_full {
            return;
        }
        /// A request that takes less is one of many.
        const STEP: usize = 1 << 20;
        let taken = self.taken.get();
        if let Some(room) = self.room.as_mut().filter(|_| taken >= STEP) {
            self.taken.set(0);
            self.is_full = !room(taken);
        }
    }
}

impl TraceVisitor for SpanMapper<'_> {
    fn resource(&mut self) {
        self.resource.clear();
        self.scope.clear();
        self.span.clear();
        self.changed();
    }

    fn resource_attribute(&mut self, key: Text<'_>, value: otlp::Value<'_>) {
        if let Some(slot) = self.rules.index().resource_attribute(key.as_bytes()) {
            self.changed();
            self.resource.set(slot, value, self.rules);
        }
    }

    fn scope(&mut self, name: Text<'_>, version: Text<'_>) {
        self.scope.clear();
        self.span.clear();
        self.changed();
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
        self.ask_for_room();
        if self.is_full {
            self.links.clear();
            self.span.clear();
            return;
        }
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

/// What an event takes in a batch, beside its facts.
const EVENT_BYTES: usize = size_of::<Option<Event>>() + size_of::<Run>();

/// What joints take in a batch, roughly.
fn bytes_of(joints: &[Joint]) -> usize {
    const COUNTS: usize = 16;
    let value = |joint: &Joint| match joint {
        Joint::Value { value, .. } => COUNTS + value.len(),
        Joint::Link { .. } => 0,
    };
    joints.iter().map(|joint| size_of::<Joint>() + value(joint)).sum()
}

/// How many kinds of spans a mapper has at hand. Most requests come from one service, whose spans are of few kinds.
const LATELY: usize = 32;

/// Where the outcome is kept that was found out last for such values. A root and what it calls in other services often
/// have the same.
fn place_of(values: &Copied, is_root: bool) -> usize {
    let hash = foldhash::fast::FixedState::default().hash_one(values.as_bytes()) as usize;
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
    let no_paths = Slots { values: &[], is_root_span: false, lasting: None };
    for key in rules.keys().iter().filter(|key| wanted(key)) {
        let slot = key.value.slot().map(Slot::index);
        let of_span = slot.and_then(|slot| span.find(slot));
        let of_others = || slot.and_then(|slot| others.iter().find_map(|values| values.get(slot)));
        let value = match slot {
            Some(_) => of_span.as_ref().or_else(of_others).map(Read::compared),
            None => key.value.value(&no_paths),
        };
        let text = value.map(|value| text_up_to(value, MAX_KEY_BYTES));
        match text.filter(|value| !value.is_empty()) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        // Read for each span, this would be hundreds of gigabytes.
        const SERVICE_BYTES: usize = 4 << 20;
        const SPANS: usize = 60_000;
        const NEVER: &str = r#"span.attributes["url.path"] == span.name"#;
        const ORDERS: &str = r#"
            - name: orders
              match: 'IsMatch(resource.attributes["service.name"], "61$|a$")'
              key: 'resource.attributes["service.name"]'
              labels: {store: 'resource.attributes["service.name"]'}
        "#;
        let configs: Vec<FlowConfig> = serde_saphyr::from_str(ORDERS).expect("flows");
        let compiled = compile(&configs, &Defaults::default(), &[NEVER.to_owned()], true).expect("rules");
        let limits = TimeLimits { max_future: Duration::MAX, max_past: Duration::MAX };
        let now = Now { arrival: Arrival::ORIGIN, wall: EventTime::EPOCH };
        let service = "a".repeat(SERVICE_BYTES);
        for value in [otlp::Value::Str(Text::from(&*service)), otlp::Value::Bytes(service.as_bytes())] {
            let mut mapper = SpanMapper::new(&compiled.rules, limits, now);
            mapper.resource();
            for _ in 0..2 {
                mapper.resource_attribute(Text::from("service.name"), value);
            }
            mapper.scope(Text::default(), Text::default());
            for number in 0..SPANS {
                let name = number.to_string();
                let span = SpanFields { trace_id: &[1; 16], span_id: &[1; 8], ..SpanFields::default() };
                mapper.span(SpanFields { name: Text::from(&*name), ..span });
            }
            let mapped = mapper.finish();
            assert_eq!((mapped.events.len(), mapped.overlong_keys), (SPANS, SPANS as u64));
            let matches = |event: &Event| event.facts.matches.first.is_some_and(|flow| flow.place == 0);
            assert!(mapped.events.into_incoming().all(|incoming| matches(&incoming.event)));
        }
    }

    #[test]
    fn what_was_found_in_one_resource_is_not_taken_for_another() {
        const ENDS: &str = r#"[{name: orders, match: 'IsMatch(resource.attributes["host"], "b$")'}]"#;
        let configs: Vec<FlowConfig> = serde_saphyr::from_str(ENDS).expect("flows");
        let compiled = compile(&configs, &Defaults::default(), &[], true).expect("rules");
        let limits = TimeLimits { max_future: Duration::MAX, max_past: Duration::MAX };
        let now = Now { arrival: Arrival::ORIGIN, wall: EventTime::EPOCH };
        let mut mapper = SpanMapper::new(&compiled.rules, limits, now);
        for end in ["a", "b", "a"] {
            let host = format!("{}{end}", "x".repeat(5000));
            mapper.resource();
            mapper.resource_attribute(Text::from("host"), otlp::Value::Str(Text::from(&*host)));
            mapper.scope(Text::default(), Text::default());
            for name in ["1", "2"] {
                let span = SpanFields { trace_id: &[1; 16], span_id: &[1; 8], ..SpanFields::default() };
                mapper.span(SpanFields { name: Text::from(name), ..span });
            }
        }
        let first = |event: &Event| event.facts.matches.first.map(|flow| flow.place);
        let found: Vec<_> =
            mapper.finish().events.into_incoming().map(|incoming| first(&incoming.event)).collect();
        assert_eq!(found, [Some(1), Some(1), Some(0), Some(0), Some(1), Some(1)]);
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

//! Values of attributes and fields, copied out of a request: compared as they came, and read where somebody has to know.

use std::borrow::Cow;
use std::cell::OnceCell;

use smallvec::SmallVec;

use crate::mapping::condition::{Question, Value};
use crate::mapping::facts::SpanRules;
use crate::mapping::otlp::{self, Text};

/// Values copied out of the request.
#[derive(Debug)]
pub(super) struct Values {
    /// The values that the interned outcome depends on, and answers about others.
    pub(super) interned: Copied,
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
pub(super) struct Copied(Vec<u8>);

/// What stands before each value.
const HEAD_BYTES: usize = 8;
/// Where the slot of one more value would stand.
pub(super) const END: [u8; HEAD_BYTES] = [0xff; HEAD_BYTES];

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
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Becomes the same as `other`, in the room that it has.
    pub(super) fn assign(&mut self, other: &Copied) {
        self.0.clone_from(&other.0);
    }

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
    pub(super) fn new(interned_slots: usize) -> Self {
        let copied = Copied::default;
        let (interned, others, asked) = (copied(), copied(), copied());
        Values { interned, interned_slots, others, asked, is_answered: true, read: OnceCell::new() }
    }

    pub(super) fn clear(&mut self) {
        self.interned.0.clear();
        self.others.0.clear();
        self.asked.0.clear();
        self.is_answered = true;
        self.read.take();
    }

    pub(super) fn set(&mut self, slot: usize, value: otlp::Value<'_>, rules: &SpanRules) {
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
    pub(super) fn answer(&mut self, rules: &SpanRules) {
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
    pub(super) fn find(&self, slot: usize) -> Option<Read<'_>> {
        let found = match slot < self.interned_slots {
            // A value may be a key and asked about as well.
            true => self.asked.get(slot).or_else(|| self.interned.get(slot)),
            false => self.others.get(slot),
        };
        found.map(Read::of)
    }

    /// The value of a slot, for many spans.
    pub(super) fn get(&self, slot: usize) -> Option<&Read<'static>> {
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
pub(super) enum Read<'v> {
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
    pub(super) fn compared(&self) -> Value<'_> {
        match self {
            Read::Text(text) => Value::Str(text),
            Read::Bytes(bytes) => Value::Bytes(bytes),
            Read::Other(value) => *value,
        }
    }
}

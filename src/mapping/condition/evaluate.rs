//! Owns the bound form of a condition and what it means: nil, comparison across types, matching, and the text of values.
//!
//! It does not know the syntax. Invariant: evaluation allocates nothing for strings, takes time bounded by the
//! condition and its values, and cannot fail: what cannot be compared is unequal and not in any order, as in OTTL.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;

use super::path::Slot;

/// A value as conditions compare it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// True or false.
    Bool(bool),
    /// A whole number; also enums.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Present, but an array or a map: comparable with nil only.
    Other,
}

/// What the paths of a [`PathTable`](super::PathTable) hold for one span.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'slots, 'value> {
    /// The value of each path, by the index of its slot; none is nil, and so is everything past the end.
    pub values: &'slots [Option<Value<'value>>],
    /// Whether the span has no parent.
    pub is_root_span: bool,
}

impl<'value> Slots<'_, 'value> {
    /// The value in that slot, none for nil.
    pub fn value(&self, slot: Slot) -> Option<Value<'value>> {
        self.values.get(slot.index()).copied().flatten()
    }
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, left: Option<Value<'_>>, right: Option<Value<'_>>) -> bool {
        let order = order(left, right);
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// How two values stand to each other, none if they cannot be compared. Nil equals nil and nothing else; integers meet
/// floats as floats; false is less than true; strings and bytes are ordered by their bytes.
fn order(left: Option<Value<'_>>, right: Option<Value<'_>>) -> Option<Ordering> {
    let (left, right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (None, None) => return Some(Ordering::Equal),
        (Some(_), None) | (None, Some(_)) => return None,
    };
    match (left, right) {
        (Value::Str(left), Value::Str(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(&right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(&right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(&right),
        (Value::Int(left), Value::Double(right)) => (left as f64).partial_cmp(&right),
        (Value::Double(left), Value::Int(right)) => left.partial_cmp(&(right as f64)),
        (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// A value written in the expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Nil,
    Str(Box<str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Box<[u8]>),
}

impl Literal {
    pub(super) fn value(&self) -> Option<Value<'_>> {
        match self {
            Self::Nil => None,
            Self::Str(text) => Some(Value::Str(text)),
            Self::Bool(flag) => Some(Value::Bool(*flag)),
            Self::Int(number) => Some(Value::Int(*number)),
            Self::Double(number) => Some(Value::Double(*number)),
            Self::Bytes(bytes) => Some(Value::Bytes(bytes)),
        }
    }
}

/// One side of a comparison.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Slot(Slot),
    Literal(Literal),
    Test(Box<Test>),
}

impl Operand {
    pub(super) fn value<'v>(&'v self, slots: &Slots<'_, 'v>) -> Option<Value<'v>> {
        match self {
            Self::Slot(slot) => slots.value(*slot),
            Self::Literal(literal) => literal.value(),
            Self::Test(test) => Some(Value::Bool(test.holds(slots))),
        }
    }
}

/// Something that holds for a span or does not.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Constant(bool),
    /// The value is the boolean true.
    Flag(Slot),
    Compare(Operand, Comparison, Operand),
    Matches(Slot, Regex),
    RootSpan,
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

impl Test {
    pub(super) fn holds(&self, slots: &Slots<'_, '_>) -> bool {
        match self {
            Self::Constant(flag) => *flag,
            Self::Flag(slot) => matches!(slots.value(*slot), Some(Value::Bool(true))),
            Self::Compare(left, comparison, right) => comparison.holds(left.value(slots), right.value(slots)),
            Self::Matches(slot, regex) => matches(slots.value(*slot), regex),
            Self::RootSpan => slots.is_root_span,
            Self::Not(test) => !test.holds(slots),
            Self::All(tests) => tests.iter().all(|test| test.holds(slots)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(slots)),
        }
    }
}

impl Test {
    /// Calls `found` with each slot in it, and with the test of that slot's value alone, in which the slot is the first one;
    /// `None` where the value is compared with another one.
    pub(super) fn each_slot(&self, found: &mut impl FnMut(Slot, Option<Test>)) {
        let alone = Operand::Slot(Slot::FIRST);
        match self {
            Self::Constant(_) | Self::RootSpan => {}
            Self::Flag(slot) => found(*slot, Some(Self::Flag(Slot::FIRST))),
            Self::Matches(slot, regex) => found(*slot, Some(Self::Matches(Slot::FIRST, regex.clone()))),
            Self::Compare(Operand::Slot(slot), comparison, literal @ Operand::Literal(_)) => {
                found(*slot, Some(Self::Compare(alone, *comparison, literal.clone())));
            }
            Self::Compare(literal @ Operand::Literal(_), comparison, Operand::Slot(slot)) => {
                found(*slot, Some(Self::Compare(literal.clone(), *comparison, alone)));
            }
            Self::Compare(left, _, right) => {
                for operand in [left, right] {
                    match operand {
                        Operand::Slot(slot) => found(*slot, None),
                        Operand::Literal(_) => {}
                        Operand::Test(test) => test.each_slot(found),
                    }
                }
            }
            Self::Not(test) => test.each_slot(found),
            Self::All(tests) | Self::Any(tests) => tests.iter().for_each(|test| test.each_slot(found)),
        }
    }
}

/// Numbers, booleans and bytes match by their text; nil, arrays and maps never match.
fn matches(value: Option<Value<'_>>, regex: &Regex) -> bool {
    match value {
        None | Some(Value::Other) => false,
        Some(Value::Str(text)) => regex.is_match(text),
        Some(value) => regex.is_match(&text_of(value)),
    }
}

/// The text of a value, as OTTL's `String()` writes it: integers in decimal, floats as in JSON, bytes as lower-case
/// hexadecimal digits. An array or a map has the empty text. What JSON cannot write is `NaN`, `+Inf` or `-Inf`.
pub fn text_of(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Str(text) => Cow::Borrowed(text),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Int(number) => Cow::Owned(number.to_string()),
        Value::Double(number) => text_of_double(number),
        Value::Bytes(bytes) => Cow::Owned(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Value::Other => Cow::Borrowed(""),
    }
}

/// Where JSON, and so OTTL, changes to the notation with an exponent.
const SMALLEST_WITHOUT_EXPONENT: f64 = 1e-6;
const LARGEST_WITHOUT_EXPONENT: f64 = 1e21;

fn text_of_double(number: f64) -> Cow<'static, str> {
    let magnitude = number.abs();
    if number.is_nan() {
        Cow::Borrowed("NaN")
    } else if number.is_infinite() {
        Cow::Borrowed(if number > 0.0 { "+Inf" } else { "-Inf" })
    } else if magnitude == 0.0 || (SMALLEST_WITHOUT_EXPONENT..LARGEST_WITHOUT_EXPONENT).contains(&magnitude) {
        Cow::Owned(number.to_string())
    } else {
        let text = format!("{number:e}");
        Cow::Owned(if magnitude > 1.0 { text.replace('e', "e+") } else { text })
    }
}

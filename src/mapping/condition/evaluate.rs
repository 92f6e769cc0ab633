//! Owns the bound form of a condition and what it means: nil, comparison across types, matching, and the text of values.
//!
//! It does not know the syntax. Invariant: evaluation allocates nothing for strings, takes time bounded by the
//! condition and its values, and cannot fail: what cannot be compared is unequal and not in any order, as in OTTL.

use std::borrow::Cow;
use std::cell::RefCell;
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
    /// What was found out about values that other spans have as well.
    pub lasting: Option<&'slots Lasting<'slots>>,
}

/// What was found out about long values that many spans have in common: without it, each of a million spans could have the
/// same megabyte searched.
#[derive(Debug)]
pub struct Lasting<'s> {
    /// By slot: whether its value is the same for all spans of a resource and a scope.
    slots: &'s [bool],
    /// Each with the slot and the expression that was searched for, which is told by its place in memory.
    found: RefCell<Vec<(Slot, *const Regex, bool)>>,
}

impl<'s> Lasting<'s> {
    /// Values of fewer bytes are searched each time.
    const LONG: usize = 256;

    /// Nothing yet about the values of these slots.
    pub fn of(slots: &'s [bool]) -> Self {
        Lasting { slots, found: RefCell::default() }
    }

    /// To be called when any of the values becomes another one.
    pub fn forget(&mut self) {
        self.found.get_mut().clear();
    }

    fn concerns(&self, slot: Slot, value: Option<Value<'_>>) -> bool {
        let bytes = match value {
            Some(Value::Str(text)) => text.len(),
            Some(Value::Bytes(bytes)) => bytes.len(),
            _ => 0,
        };
        bytes >= Self::LONG && self.slots.get(slot.index()) == Some(&true)
    }

    fn matches(&self, slot: Slot, value: Option<Value<'_>>, regex: &Regex) -> bool {
        let is_it = |known: &&(Slot, *const Regex, bool)| known.0 == slot && std::ptr::eq(known.1, regex);
        if let Some((_, _, found)) = self.found.borrow().iter().find(is_it) {
            return *found;
        }
        let found = matches(value, regex);
        self.found.borrow_mut().push((slot, regex, found));
        found
    }
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
            Self::Matches(slot, regex) => {
                let value = slots.value(*slot);
                match slots.lasting.filter(|lasting| lasting.concerns(*slot, value)) {
                    Some(lasting) => lasting.matches(*slot, value, regex),
                    None => matches(value, regex),
                }
            }
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
        Value::Bytes(bytes) => Cow::Owned(hexadecimal(bytes)),
        Value::Other => Cow::Borrowed(""),
    }
}

/// The same for who needs no more than its first `most` bytes, and whether there are more: of long bytes no more is written.
pub fn text_up_to(value: Value<'_>, most: usize) -> Cow<'_, str> {
    match value {
        Value::Bytes(bytes) => Cow::Owned(hexadecimal(&bytes[..bytes.len().min(most / 2 + 1)])),
        other => text_of(other),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
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

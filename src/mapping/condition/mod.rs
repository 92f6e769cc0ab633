//! Owns the expressions of the configuration, a subset of OTTL: parsing them, and evaluating them for a span.
//!
//! It does not know spans: the caller reads the paths of a [`PathTable`] from each span, once for all expressions, and
//! hands over the values as [`Slots`]. Invariant: an expression that parsed can be evaluated for any values, and one
//! that did not parse has changed nothing.

mod error;
mod evaluate;
mod lexer;
mod message;
mod names;
mod parser;
mod path;
#[cfg(test)]
mod tests;

pub use self::error::ExpressionError;
pub use self::evaluate::{Lasting, Slots, Value, text_of, text_up_to};
pub use self::parser::{MAXIMUM_EXPRESSION_BYTES, MAXIMUM_NESTING, MAXIMUM_REGEX_BYTES};
pub use self::path::{Path, PathTable, Slot};

use self::evaluate::{Operand, Test};

/// A condition on a span, bound to the slots of one [`PathTable`].
///
/// A missing attribute is nil, which equals nil and nothing else and has no order to anything else. Integers and floats
/// compare as numbers; other values of different types are unequal and have no order. Two conditions are equal when
/// their texts are; only conditions of the same table may be compared.
#[derive(Debug, Clone)]
pub struct Condition {
    source: Box<str>,
    test: Test,
    reads_only_resource: bool,
}

impl Condition {
    /// Parses `text` and numbers its paths in `table`.
    ///
    /// # Errors
    ///
    /// The first mistake in `text`; `table` is then unchanged.
    pub fn parse(text: &str, table: &mut PathTable) -> Result<Self, ExpressionError> {
        let length = table.paths().len();
        let parsed = parser::parse_condition(text, table).inspect_err(|_| table.truncate(length))?;
        Ok(Self { source: text.into(), test: parsed.bound, reads_only_resource: parsed.reads_only_resource })
    }

    /// Whether the condition holds for the span whose values these are.
    pub fn holds(&self, slots: &Slots<'_, '_>) -> bool {
        self.test.holds(slots)
    }

    /// The text the condition was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the condition is the same for all spans of a resource, so that it can be evaluated once for them.
    pub fn reads_only_resource(&self) -> bool {
        self.reads_only_resource
    }
}

/// What a condition asks about the value of one slot, apart from all others.
#[derive(Debug, Clone)]
pub struct Question(Test);

impl Question {
    /// The answer for a value.
    pub fn holds(&self, value: Value<'_>) -> bool {
        self.0.holds(&Slots { values: &[Some(value)], is_root_span: false, lasting: None })
    }
}

impl Condition {
    /// Calls `ask` with each slot whose value the condition depends on, and with what it asks about that value: `None` if it
    /// compares it with another one. Two values for which all answers are the same are the same to it.
    pub fn questions(&self, ask: &mut impl FnMut(Slot, Option<Question>)) {
        self.test.each_slot(&mut |slot, test| ask(slot, test.map(Question)));
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Condition {}

/// A value taken from a span, or a string that is the same for all: a path bound to a slot, or a string literal.
///
/// Two of them are equal when their texts are; only expressions of the same table may be compared.
#[derive(Debug, Clone)]
pub struct ValueExpression {
    source: Box<str>,
    operand: Operand,
    reads_only_resource: bool,
}

impl ValueExpression {
    /// Parses `text`, a path or a string in double quotes, and numbers its path in `table`.
    ///
    /// # Errors
    ///
    /// The first mistake in `text`; `table` is then unchanged.
    pub fn parse(text: &str, table: &mut PathTable) -> Result<Self, ExpressionError> {
        let length = table.paths().len();
        let parsed = parser::parse_value(text, table).inspect_err(|_| table.truncate(length))?;
        Ok(Self {
            source: text.into(),
            operand: parsed.bound,
            reads_only_resource: parsed.reads_only_resource,
        })
    }

    /// The value for the span whose values these are, none for nil.
    pub fn value<'value>(&'value self, slots: &Slots<'_, 'value>) -> Option<Value<'value>> {
        self.operand.value(slots)
    }

    /// The slot of its path, if it is one.
    pub fn slot(&self) -> Option<Slot> {
        match self.operand {
            Operand::Slot(slot) => Some(slot),
            Operand::Literal(_) | Operand::Test(_) => None,
        }
    }

    /// The text the expression was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the value is the same for all spans of a resource, so that it can be read once for them.
    pub fn reads_only_resource(&self) -> bool {
        self.reads_only_resource
    }
}

impl PartialEq for ValueExpression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for ValueExpression {}

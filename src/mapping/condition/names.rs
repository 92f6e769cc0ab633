//! Owns the words of the language: keywords, constants, functions and enums.
//!
//! It does not know where a word may stand. Invariant: no word is in two of the tables, and none is a path.

use super::evaluate::Literal;

pub(super) const KEYWORDS: [&str; 3] = ["and", "or", "not"];
pub(super) const CONSTANTS: [&str; 3] = ["true", "false", "nil"];
pub(super) const FUNCTIONS: [&str; 2] = ["IsMatch", "IsRootSpan"];

/// The names of OTTL for the numbers of the OTLP schema.
pub(super) const ENUMS: [(&str, i64); 9] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

pub(super) fn enum_value(name: &str) -> Option<i64> {
    ENUMS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

pub(super) fn named_literal(word: &str) -> Option<Literal> {
    match word {
        "nil" => Some(Literal::Nil),
        "true" => Some(Literal::Bool(true)),
        "false" => Some(Literal::Bool(false)),
        _ => enum_value(word).map(Literal::Int),
    }
}

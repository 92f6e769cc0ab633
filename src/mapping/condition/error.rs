//! Owns the one error of expressions and the arithmetic of its position.
//!
//! It does not know the grammar, nor which file the expression stands in: the configuration adds that. Invariant:
//! `offset` is within the expression and on a character boundary, and line and column are derived from it alone.

/// A mistake in an expression, with the place it was found at. Never worth a retry: the expression has to be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}column {column}: {message}", line_prefix(*.line))]
pub struct ExpressionError {
    /// Bytes before the mistake, counted from the start of the expression.
    pub offset: usize,
    /// Line of the mistake within the expression, the first is 1.
    pub line: usize,
    /// Column of the mistake in characters, the first is 1.
    pub column: usize,
    /// What was found, what was expected and, where it helps, what was probably meant.
    pub message: String,
}

impl ExpressionError {
    /// The error at byte `offset` of `text`; an offset inside a character or past the end moves back to the nearest
    /// boundary.
    pub(super) fn at(text: &str, offset: usize, message: String) -> Self {
        let offset = (0..=offset).rev().find(|offset| text.is_char_boundary(*offset)).unwrap_or(0);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |line_break| line_break + 1);
        Self {
            offset,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }
}

/// Most expressions are one line, where naming it would only be noise.
fn line_prefix(line: usize) -> String {
    if line == 1 { String::new() } else { format!("line {line}, ") }
}

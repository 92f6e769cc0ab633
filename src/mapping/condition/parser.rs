//! Owns the grammar: it turns the text of an expression into a [`Test`] or an [`Operand`] bound to slots.
//!
//! It does not know what a test means. Invariant: recursion is bounded by [`MAXIMUM_NESTING`], and every refusal says
//! what stands there and what could have stood there instead.
//!
//! ```text
//! any     = all { "or" all }
//! all     = test { "and" test }
//! test    = "not" test | "(" any ")" | operand comparison operand | flag
//! operand = path | literal | enum | call
//! flag    = a path of an attribute | "true" | "false" | call
//! path    = word { "." word } [ "[" string "]" ]
//! call    = "IsMatch" "(" path "," string ")" | "IsRootSpan" "(" ")"
//! ```

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::error::ExpressionError;
use super::evaluate::{Literal, Operand, Test};
use super::lexer::{Kind, Lexer, Token};
use super::message::{did_you_mean, expectation, found_text, guess_enum, guess_path, guess_word, shown};
use super::names::{FUNCTIONS, KEYWORDS, enum_value, named_literal};
use super::path::{Field, Path, PathTable, Slot};
use crate::mapping::spelling::closest;

/// Bytes of an expression. A longer one is refused.
pub const MAXIMUM_EXPRESSION_BYTES: usize = 16 * 1024;

/// Parentheses and `not`s around one another. A deeper expression is refused.
pub const MAXIMUM_NESTING: usize = 64;

/// Bytes of memory of one compiled regular expression. A larger one is refused.
pub const MAXIMUM_REGEX_BYTES: usize = 4 * 1024 * 1024;

const AN_OPERAND: &str = "a path, a literal, an enum, IsMatch(...) or IsRootSpan()";
const A_TEST: &str = "a condition: \"not\", \"(\", a path, a literal, an enum, IsMatch(...) or IsRootSpan()";
const A_PATH_OR_STRING: &str = "a path or a string in double quotes";
const A_COMPARISON: &str = "one of == != < <= > >=";
const THE_END: &str = "the end of the expression";
const THE_PATHS: &str = "one of resource.attributes[\"key\"], span.attributes[\"key\"], span.name, span.kind, \
    span.status.code, span.status.message, instrumentation_scope.name, instrumentation_scope.version";

/// The test that `text` spells. Its paths are added to `table`, even if a mistake is found after them.
pub(super) fn parse_condition(text: &str, table: &mut PathTable) -> Result<Parsed<Test>, ExpressionError> {
    let mut parser = Parser::new(text, table)?;
    let test = parser.any()?;
    if parser.next.kind != Kind::End {
        return Err(parser.unexpected("\"and\", \"or\" or the end of the expression", &["and", "or"]));
    }
    Ok(Parsed { bound: test, reads_only_resource: parser.reads_only_resource })
}

/// The path or string literal that `text` spells. A path is added to `table`, even if a mistake is found after it.
pub(super) fn parse_value(text: &str, table: &mut PathTable) -> Result<Parsed<Operand>, ExpressionError> {
    let mut parser = Parser::new(text, table)?;
    let meaning = match &parser.next.kind {
        Kind::Str(string) => {
            let literal = Literal::Str(string.as_str().into());
            parser.advance();
            Meaning::Literal(literal)
        }
        Kind::Word => Meaning::Path(parser.path(A_PATH_OR_STRING)?),
        _ => return Err(parser.unexpected(A_PATH_OR_STRING, &[])),
    };
    if parser.next.kind != Kind::End {
        return Err(parser.unexpected(THE_END, &[]));
    }
    let bound = parser.bind(meaning);
    Ok(Parsed { bound, reads_only_resource: parser.reads_only_resource })
}

/// A bound expression and what the parser learned about it.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    pub(super) bound: T,
    pub(super) reads_only_resource: bool,
}

/// One side of a comparison before it is bound, with where it stands in the expression.
struct Side<'t> {
    offset: usize,
    source: &'t str,
    meaning: Meaning,
}

enum Meaning {
    Path(Path),
    Literal(Literal),
    Test(Test),
}

struct Parser<'t, 'p> {
    text: &'t str,
    lexer: Lexer<'t>,
    next: Token<'t>,
    /// Where the token before `next` ends.
    end: usize,
    nesting: usize,
    table: &'p mut PathTable,
    reads_only_resource: bool,
}

impl<'t, 'p> Parser<'t, 'p> {
    fn new(text: &'t str, table: &'p mut PathTable) -> Result<Self, ExpressionError> {
        if text.len() > MAXIMUM_EXPRESSION_BYTES {
            let message = format!(
                "found an expression of {} bytes, expected at most {MAXIMUM_EXPRESSION_BYTES}",
                text.len()
            );
            return Err(ExpressionError::at(text, MAXIMUM_EXPRESSION_BYTES, message));
        }
        let mut lexer = Lexer::new(text);
        let next = lexer.next_token();
        Ok(Self { text, lexer, next, end: 0, nesting: 0, table, reads_only_resource: true })
    }

    fn any(&mut self) -> Result<Test, ExpressionError> {
        let first = self.all()?;
        if !self.is_at("or") {
            return Ok(first);
        }
        let mut tests = vec![first];
        while self.is_at("or") {
            self.advance();
            tests.push(self.all()?);
        }
        Ok(Test::Any(tests))
    }

    fn all(&mut self) -> Result<Test, ExpressionError> {
        let first = self.test()?;
        if !self.is_at("and") {
            return Ok(first);
        }
        let mut tests = vec![first];
        while self.is_at("and") {
            self.advance();
            tests.push(self.test()?);
        }
        Ok(Test::All(tests))
    }

    fn test(&mut self) -> Result<Test, ExpressionError> {
        if self.is_at("not") {
            self.enter()?;
            let negated = self.test()?;
            self.nesting -= 1;
            return Ok(Test::Not(Box::new(negated)));
        }
        if self.next.kind == Kind::LeftParenthesis {
            self.enter()?;
            let test = self.any()?;
            if self.next.kind != Kind::RightParenthesis {
                return Err(self.unexpected("\"and\", \"or\" or \")\"", &["and", "or"]));
            }
            self.advance();
            self.nesting -= 1;
            return Ok(test);
        }
        self.comparison_or_flag()
    }

    /// Takes the token that opens a level of nesting, if one more is allowed.
    fn enter(&mut self) -> Result<(), ExpressionError> {
        if self.nesting == MAXIMUM_NESTING {
            let message = format!(
                "found \"{}\" {} levels deep, expected at most {MAXIMUM_NESTING}",
                self.next.source,
                self.nesting + 1
            );
            return Err(self.refused(self.next.offset, message));
        }
        self.nesting += 1;
        self.advance();
        Ok(())
    }

    fn comparison_or_flag(&mut self) -> Result<Test, ExpressionError> {
        let left = self.side(A_TEST)?;
        let Kind::Comparison(comparison) = self.next.kind else {
            return self.flag(left.meaning);
        };
        self.advance();
        let right = self.side(AN_OPERAND)?;
        self.refuse_wrong_type(&left, &right)?;
        self.refuse_wrong_type(&right, &left)?;
        Ok(Test::Compare(self.bind(left.meaning), comparison, self.bind(right.meaning)))
    }

    /// What stands alone as a condition. The paths that are never booleans are refused: a comparison was forgotten.
    fn flag(&mut self, meaning: Meaning) -> Result<Test, ExpressionError> {
        let is_boolean = match &meaning {
            Meaning::Path(path) => matches!(path, Path::ResourceAttribute(_) | Path::SpanAttribute(_)),
            Meaning::Literal(literal) => matches!(literal, Literal::Bool(_)),
            Meaning::Test(_) => true,
        };
        if !is_boolean {
            return Err(self.unexpected(A_COMPARISON, &[]));
        }
        let is_complete = matches!(self.next.kind, Kind::End | Kind::RightParenthesis)
            || self.is_at("and")
            || self.is_at("or");
        if !is_complete {
            return Err(self.unexpected("\"and\", \"or\" or one of == != < <= > >=", &["and", "or"]));
        }
        Ok(match self.bind(meaning) {
            Operand::Slot(slot) => Test::Flag(slot),
            Operand::Literal(literal) => Test::Constant(literal == Literal::Bool(true)),
            Operand::Test(test) => *test,
        })
    }

    fn side(&mut self, expected: &str) -> Result<Side<'t>, ExpressionError> {
        let offset = self.next.offset;
        let literal = match &self.next.kind {
            Kind::Str(text) => Some(Literal::Str(text.as_str().into())),
            Kind::Bytes(bytes) => Some(Literal::Bytes(bytes.as_slice().into())),
            Kind::Int(number) => Some(Literal::Int(*number)),
            Kind::Double(number) => Some(Literal::Double(*number)),
            Kind::Word => named_literal(self.next.source),
            _ => return Err(self.unexpected(expected, &[])),
        };
        let meaning = if let Some(literal) = literal {
            self.advance();
            Meaning::Literal(literal)
        } else if KEYWORDS.contains(&self.next.source) {
            return Err(self.unexpected(expected, &[]));
        } else if self.is_at_call() {
            Meaning::Test(self.call()?)
        } else {
            Meaning::Path(self.path(expected)?)
        };
        Ok(Side { offset, source: &self.text[offset..self.end], meaning })
    }

    /// A function's name alone is a call as well, one that lacks its parentheses.
    fn is_at_call(&self) -> bool {
        FUNCTIONS.contains(&self.next.source) || self.lexer.clone().next_token().kind == Kind::LeftParenthesis
    }

    fn call(&mut self) -> Result<Test, ExpressionError> {
        let name = self.next.source;
        if !FUNCTIONS.contains(&name) {
            let found = format!("the function \"{}\"", shown(name));
            let hint = closest(name, &FUNCTIONS).map(did_you_mean);
            let message = expectation(&found, "IsMatch or IsRootSpan", hint);
            return Err(self.refused(self.next.offset, message));
        }
        self.advance();
        self.expect(&Kind::LeftParenthesis, "\"(\"")?;
        let test = if name == "IsRootSpan" {
            self.reads_only_resource = false;
            Test::RootSpan
        } else {
            self.match_arguments()?
        };
        self.expect(&Kind::RightParenthesis, "\")\"")?;
        Ok(test)
    }

    fn match_arguments(&mut self) -> Result<Test, ExpressionError> {
        if self.next.kind != Kind::Word {
            return Err(self.unexpected("a path", &[]));
        }
        let path = self.path("a path")?;
        self.expect(&Kind::Comma, "\",\" and a regular expression")?;
        let Kind::Str(pattern) = &self.next.kind else {
            return Err(self.unexpected("a regular expression in double quotes", &[]));
        };
        let regex = compile(pattern).map_err(|message| self.refused(self.next.offset, message))?;
        self.advance();
        Ok(Test::Matches(self.slot(path), regex))
    }

    /// The path at the next token, a word. What else could stand here is named for a word that begins no path.
    fn path(&mut self, expected: &str) -> Result<Path, ExpressionError> {
        let mut segments = vec![self.advance()];
        while self.next.kind == Kind::Dot {
            self.advance();
            if self.next.kind != Kind::Word {
                return Err(self.unexpected("the name of a field", &[]));
            }
            segments.push(self.advance());
        }
        let names: Vec<&str> = segments.iter().map(|segment| segment.source).collect();
        match Field::spelled(&names.join(".")) {
            Some(Field::Whole(path)) if self.next.kind == Kind::LeftBracket => {
                let message = expectation("\"[\"", &format!("no key after {path}"), None);
                Err(self.refused(self.next.offset, message))
            }
            Some(Field::Whole(path)) => Ok(path),
            Some(Field::ResourceAttributes) => self.key().map(Path::ResourceAttribute),
            Some(Field::SpanAttributes) => self.key().map(Path::SpanAttribute),
            None => Err(self.unknown_path(&segments, &names, expected)),
        }
    }

    fn key(&mut self) -> Result<Arc<str>, ExpressionError> {
        self.expect(&Kind::LeftBracket, "a key, as in attributes[\"key\"]")?;
        let Kind::Str(key) = &self.next.kind else {
            return Err(self.unexpected("a key in double quotes", &[]));
        };
        let key = Arc::from(key.as_str());
        self.advance();
        self.expect(&Kind::RightBracket, "\"]\"")?;
        if self.next.kind == Kind::LeftBracket {
            let message = expectation("a second key", "one, as values within values are not supported", None);
            return Err(self.refused(self.next.offset, message));
        }
        Ok(key)
    }

    /// Points at the first segment that cannot be right, or at the whole path if it only ends too early.
    fn unknown_path(&self, segments: &[Token<'_>], names: &[&str], expected: &str) -> ExpressionError {
        let spellings = Field::spellings();
        let begins_path = |length: &usize| {
            let beginning = names[..*length].join(".");
            spellings.iter().any(|spelling| {
                spelling.strip_prefix(&beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let wrong = (1..=names.len()).find(|length| !begins_path(length)).map_or(0, |length| length - 1);
        let path = names.join(".");
        let message = if names.len() == 1 && !path.starts_with(|first: char| first.is_ascii_lowercase()) {
            expectation(&format!("\"{}\"", shown(&path)), expected, guess_word(&path))
        } else {
            expectation(&format!("the path \"{}\"", shown(&path)), THE_PATHS, guess_path(&path, names))
        };
        self.refused(segments[wrong].offset, message)
    }

    /// Refuses to compare a path whose type is fixed with a literal of another: it would never be equal.
    fn refuse_wrong_type(&self, path: &Side<'_>, literal: &Side<'_>) -> Result<(), ExpressionError> {
        let (Meaning::Path(path), Meaning::Literal(value)) = (&path.meaning, &literal.meaning) else {
            return Ok(());
        };
        let enum_prefix = match path {
            Path::ResourceAttribute(_) | Path::SpanAttribute(_) => return Ok(()),
            Path::ScopeName | Path::ScopeVersion | Path::SpanName | Path::StatusMessage => None,
            Path::SpanKind => Some("SPAN_KIND_"),
            Path::StatusCode => Some("STATUS_CODE_"),
        };
        let names_an_enum = enum_value(literal.source).is_some();
        let (fits, expected) = match enum_prefix {
            None => (matches!(value, Literal::Str(_)), "a string".to_owned()),
            Some(prefix) if names_an_enum => (literal.source.starts_with(prefix), format!("a {prefix}...")),
            Some(prefix) => {
                (matches!(value, Literal::Int(_) | Literal::Double(_)), format!("a {prefix}... or a number"))
            }
        };
        if fits || *value == Literal::Nil {
            return Ok(());
        }
        let hint = match (enum_prefix, value) {
            (Some(prefix), Literal::Str(text)) => guess_enum(text, prefix).map(did_you_mean),
            _ => None,
        };
        let found = found_text(literal.source);
        let message = expectation(&found, &format!("{expected} to compare with {path}"), hint);
        Err(self.refused(literal.offset, message))
    }

    fn bind(&mut self, meaning: Meaning) -> Operand {
        match meaning {
            Meaning::Path(path) => Operand::Slot(self.slot(path)),
            Meaning::Literal(literal) => Operand::Literal(literal),
            Meaning::Test(test) => Operand::Test(Box::new(test)),
        }
    }

    fn slot(&mut self, path: Path) -> Slot {
        self.reads_only_resource &= matches!(path, Path::ResourceAttribute(_));
        self.table.slot(path)
    }

    fn is_at(&self, keyword: &str) -> bool {
        self.next.kind == Kind::Word && self.next.source == keyword
    }

    fn advance(&mut self) -> Token<'t> {
        let following = self.lexer.next_token();
        let token = std::mem::replace(&mut self.next, following);
        self.end = token.offset + token.source.len();
        token
    }

    fn expect(&mut self, kind: &Kind, expected: &str) -> Result<(), ExpressionError> {
        if self.next.kind != *kind {
            return Err(self.unexpected(expected, &[]));
        }
        self.advance();
        Ok(())
    }

    /// The error for a next token that does not fit; one of `keywords` is suggested if the token looks like it.
    fn unexpected(&self, expected: &str, keywords: &[&str]) -> ExpressionError {
        let hint = match &self.next.kind {
            Kind::Malformed { offset, message } => return self.refused(*offset, message.clone()),
            Kind::End => return self.refused(self.next.offset, expectation(THE_END, expected, None)),
            Kind::Foreign(hint) => hint.map(str::to_owned),
            Kind::Word => closest(self.next.source, keywords).map(did_you_mean),
            Kind::Comparison(_) if !keywords.is_empty() => Some("comparisons cannot be chained".to_owned()),
            _ => None,
        };
        self.refused(self.next.offset, expectation(&found_text(self.next.source), expected, hint))
    }

    fn refused(&self, offset: usize, message: String) -> ExpressionError {
        ExpressionError::at(self.text, offset, message)
    }
}

/// Compiles a pattern; the error is the last line of the regex crate's own, which says what is wrong in a line.
fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(MAXIMUM_REGEX_BYTES).build().map_err(|error| {
        let report = error.to_string();
        let reason = report.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        format!("found a bad regular expression: {reason}")
    })
}

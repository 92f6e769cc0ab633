//! Owns the places of a span that expressions can read, how they are spelled, and their numbering.
//!
//! It does not know where the values come from or how they are compared. Invariant: a path has exactly one slot in a
//! table, and slots count up from 0 without gaps, so that a plain slice can hold the values of one span.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A place in a span that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Path {
    /// `resource.attributes["key"]`
    ResourceAttribute(Arc<str>),
    /// `instrumentation_scope.name` or `scope.name`, a string
    ScopeName,
    /// `instrumentation_scope.version` or `scope.version`, a string
    ScopeVersion,
    /// `span.attributes["key"]` or `attributes["key"]`
    SpanAttribute(Arc<str>),
    /// `span.name` or `name`, a string
    SpanName,
    /// `span.kind` or `kind`, the number of the kind in the OTLP schema
    SpanKind,
    /// `span.status.code` or `status.code`, the number of the code in the OTLP schema
    StatusCode,
    /// `span.status.message` or `status.message`, a string
    StatusMessage,
}

impl fmt::Display for Path {
    /// Writes the path as an expression spells it, with its context.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResourceAttribute(key) => write!(formatter, "resource.attributes[{}]", quoted(key)),
            Self::ScopeName => formatter.write_str("instrumentation_scope.name"),
            Self::ScopeVersion => formatter.write_str("instrumentation_scope.version"),
            Self::SpanAttribute(key) => write!(formatter, "span.attributes[{}]", quoted(key)),
            Self::SpanName => formatter.write_str("span.name"),
            Self::SpanKind => formatter.write_str("span.kind"),
            Self::StatusCode => formatter.write_str("span.status.code"),
            Self::StatusMessage => formatter.write_str("span.status.message"),
        }
    }
}

/// `text` as a string literal of the expression language.
pub(super) fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            '\n' => literal.push_str("\\n"),
            _ => literal.push(character),
        }
    }
    literal.push('"');
    literal
}

/// The number of a path in its [`PathTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(usize);

impl Slot {
    /// The first of a table.
    pub(super) const FIRST: Slot = Slot(0);

    /// Position of the path's value in [`Slots::values`](super::Slots) and of the path in [`PathTable::paths`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Every path that the expressions parsed with this table read, each numbered once.
///
/// Its size is bounded by the expressions that fill it; a refused expression leaves it as it was.
#[derive(Debug, Clone, Default)]
pub struct PathTable {
    paths: Vec<Path>,
    slots: HashMap<Path, Slot>,
}

impl PathTable {
    /// The paths in the order of their slots.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// The slot of `path`, a new one at the end if the table did not have it.
    pub fn slot(&mut self, path: Path) -> Slot {
        if let Some(slot) = self.slots.get(&path) {
            return *slot;
        }
        let slot = Slot(self.paths.len());
        self.paths.push(path.clone());
        self.slots.insert(path, slot);
        slot
    }

    /// Forgets the paths after the first `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        self.paths.truncate(length);
        self.slots.retain(|_, slot| slot.0 < length);
    }
}

/// What a dotted spelling stands for: attributes need a key to become a path.
#[derive(Debug, Clone)]
pub(super) enum Field {
    ResourceAttributes,
    SpanAttributes,
    Whole(Path),
}

impl Field {
    /// The field of that spelling, none if it is no path of a span.
    pub(super) fn spelled(spelling: &str) -> Option<Self> {
        SPELLINGS.iter().find(|(known, _)| *known == spelling).map(|(_, field)| field.clone())
    }

    /// All spellings of all fields, the preferred one of each path first.
    pub(super) fn spellings() -> Vec<&'static str> {
        SPELLINGS.iter().map(|(spelling, _)| *spelling).collect()
    }
}

/// The ones without a context are those of older OTTL, and `scope` is that of the newest.
static SPELLINGS: [(&str, Field); 15] = [
    ("resource.attributes", Field::ResourceAttributes),
    ("span.attributes", Field::SpanAttributes),
    ("instrumentation_scope.name", Field::Whole(Path::ScopeName)),
    ("instrumentation_scope.version", Field::Whole(Path::ScopeVersion)),
    ("span.name", Field::Whole(Path::SpanName)),
    ("span.kind", Field::Whole(Path::SpanKind)),
    ("span.status.code", Field::Whole(Path::StatusCode)),
    ("span.status.message", Field::Whole(Path::StatusMessage)),
    ("scope.name", Field::Whole(Path::ScopeName)),
    ("scope.version", Field::Whole(Path::ScopeVersion)),
    ("attributes", Field::SpanAttributes),
    ("name", Field::Whole(Path::SpanName)),
    ("kind", Field::Whole(Path::SpanKind)),
    ("status.code", Field::Whole(Path::StatusCode)),
    ("status.message", Field::Whole(Path::StatusMessage)),
];

//! Owns the wording of mistakes: what was found, what was expected, and a guess at what was meant.
//!
//! It does not know the grammar or positions. Invariant: a message is one line, however long the expression.

use super::names::{CONSTANTS, ENUMS, FUNCTIONS, KEYWORDS};
use super::path::{Field, quoted};
use crate::mapping::spelling::closest;

/// Characters of the expression that a message repeats at most.
const MAXIMUM_SHOWN_CHARACTERS: usize = 48;

/// The message that all mistakes share.
pub(super) fn expectation(found: &str, expected: &str, hint: Option<String>) -> String {
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("found {found}, expected {expected}{hint}")
}

pub(super) fn did_you_mean(guess: &str) -> String {
    format!("did you mean \"{guess}\"?")
}

/// Literals carry quotes of their own.
pub(super) fn found_text(source: &str) -> String {
    if source.starts_with(['"', '\'']) { shown(source) } else { format!("\"{}\"", shown(source)) }
}

/// `source` cut to what fits in a message of one line.
pub(super) fn shown(source: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    let mut shown: String = source.chars().take(MAXIMUM_SHOWN_CHARACTERS).map(printable).collect();
    if source.chars().nth(MAXIMUM_SHOWN_CHARACTERS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// What a word that is no path was probably meant to be: a constant, an enum or a function.
pub(super) fn guess_word(word: &str) -> Option<String> {
    let names = ENUMS.iter().map(|(name, _)| *name);
    let known: Vec<&str> = KEYWORDS.into_iter().chain(CONSTANTS).chain(FUNCTIONS).chain(names).collect();
    let is_null = ["null", "none", "undefined"].iter().any(|other| word.eq_ignore_ascii_case(other));
    let guess = if is_null { Some("nil") } else { guess_enum(word, "").or_else(|| closest(word, &known)) };
    guess.filter(|guess| *guess != word).map(did_you_mean)
}

/// The enum with that prefix whose name, or the end of whose name, is `word`.
pub(super) fn guess_enum(word: &str, prefix: &str) -> Option<&'static str> {
    let word = word.to_ascii_uppercase();
    let names: Vec<&'static str> =
        ENUMS.iter().map(|(name, _)| *name).filter(|name| name.starts_with(prefix)).collect();
    let ends_alike = |name: &&&str| name.strip_suffix(word.as_str()).is_some_and(|rest| rest.ends_with('_'));
    names.iter().find(ends_alike).copied().or_else(|| closest(&word, &names))
}

/// What an unknown path, made of `names`, was probably meant to be: another path, an attribute or no path at all.
pub(super) fn guess_path(path: &str, names: &[&str]) -> Option<String> {
    let dotted_key = ["resource.attributes", "span.attributes", "attributes"]
        .into_iter()
        .find_map(|attributes| Some((attributes, path.strip_prefix(attributes)?.strip_prefix('.')?)));
    if let Some((attributes, key)) = dotted_key {
        return Some(format!("did you mean {attributes}[{}]?", quoted(&shown(key))));
    }
    let guess = closest(path, &Field::spellings()).map(did_you_mean);
    let bare_word = || (names.len() == 1).then(|| "strings need double quotes".to_owned());
    guess.or_else(|| guess_word(path)).or_else(bare_word)
}

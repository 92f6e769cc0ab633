//! Owns the guess at what a misspelled word was meant to be.
//!
//! It does not know the grammar: callers hand in the words that would have been right. Invariant: a guess is always one
//! of those words, and no guess is better than a far-fetched one.

/// A longer word is not a slip of the finger, and comparing it would cost time for nothing.
const MAXIMUM_WORD_CHARACTERS: usize = 64;

/// The candidate nearest to `word`, ignoring case, if it is near enough to be what was meant.
pub(super) fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let word: Vec<char> = word.to_lowercase().chars().take(MAXIMUM_WORD_CHARACTERS + 1).collect();
    if word.len() > MAXIMUM_WORD_CHARACTERS {
        return None;
    }
    candidates
        .iter()
        .map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().collect();
            (edit_distance(&word, &letters), letters.len(), *candidate)
        })
        .filter(|(distance, length, _)| *distance <= (length / 3).max(1))
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
fn edit_distance(from: &[char], to: &[char]) -> usize {
    let mut before_previous: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let substituted = previous[column] + usize::from(letter != other);
            let mut best = substituted.min(previous[column + 1] + 1).min(current[column] + 1);
            let swapped = row > 0 && column > 0 && *letter == to[column - 1] && from[row - 1] == *other;
            if swapped {
                best = best.min(before_previous[column - 1] + 1);
            }
            current.push(best);
        }
        before_previous = std::mem::replace(&mut previous, current);
    }
    previous[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_guessed() {
        let candidates = ["span.attributes", "and", "true", "SPAN_KIND_SERVER"];
        for (word, expected) in [
            ("span.atributes", Some("span.attributes")),
            ("span.attribtues", Some("span.attributes")),
            ("AND", Some("and")),
            ("adn", Some("and")),
            ("True", Some("true")),
            ("SPAN_KIND_SERVR", Some("SPAN_KIND_SERVER")),
            ("x", None),
            ("", None),
            ("something.else.entirely", None),
        ] {
            assert_eq!(closest(word, &candidates), expected, "{word}");
        }
        assert_eq!(closest(&"a".repeat(10_000), &candidates), None);
    }
}

//! JSON objects and arrays that are read as they come, `null` in place of either, and where errors are.
//!
//! Owns how keys are told apart and how an error names them. Does not know any key.
//!
//! Invariant: the message of every error ends with its position in the text that was read, which is how
//! serde_json carries positions through messages that are not its own.

use super::scalar::Characters;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// A value in an error message can be as long as the request, and so can the keys on the way to it: of a
/// longer message only the start and the end, which says what was expected, are kept, this much of each.
const PROBLEM_CHARS: usize = 120;

/// A JSON object that fills `self`.
pub(super) trait Object<'de> {
    /// The keys that are not ignored; at most 32.
    const KEYS: &'static [&'static str];

    /// Reads the value of a `key` that is one of [`Self::KEYS`]; the last of them needs no comparison.
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

pub(super) struct Fields<'o, T>(pub(super) &'o mut T);

impl<'de, T: Object<'de>> DeserializeSeed<'de> for Fields<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for Fields<'_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0_u32;
        while let Some(key) = map.next_key_seed(Characters)? {
            let Some(index) = T::KEYS.iter().position(|known| known.as_bytes() == &*key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let key = T::KEYS[index];
            if seen & (1 << index) != 0 {
                return Err(A::Error::custom(format_args!("{key}: expected this key once in an object")));
            }
            seen |= 1 << index;
            self.0.read(key, &mut map).map_err(|error| under_key(key, error))?;
        }
        Ok(())
    }
}

/// One element after the other of a JSON array.
pub(super) trait Element<'de> {
    /// Reads the next element; false when there was none.
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error>;
}

pub(super) struct Each<T>(pub(super) T);

impl<'de, T: Element<'de>> DeserializeSeed<'de> for Each<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Element<'de>> Visitor<'de> for Each<T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while self.0.read(&mut list)? {}
        Ok(())
    }
}

/// What `S` reads, or none for `null`.
pub(super) struct Optional<S>(pub(super) S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

pub(super) fn read_or_default<'de, A, S>(map: &mut A, seed: S) -> Result<S::Value, A::Error>
where
    A: MapAccess<'de>,
    S: DeserializeSeed<'de>,
    S::Value: Default,
{
    map.next_value_seed(Optional(seed)).map(Option::unwrap_or_default)
}

/// Reads the value of `key`, which was set aside as a `part` of `whole`. Positions in its errors, which
/// count from the start of the part, are moved to count from the start of the whole.
pub(super) fn read_part<'de, S, E>(
    key: &str,
    part: &'de RawValue,
    whole: &str,
    seed: S,
) -> Result<S::Value, E>
where
    S: DeserializeSeed<'de>,
    E: Error,
{
    let part = part.get();
    seed.deserialize(&mut serde_json::Deserializer::from_str(part)).map_err(|error| {
        let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        let (line, column) = position(whole.as_bytes().get(..start).unwrap_or_default());
        let column = if error.line() == 1 { column + error.column() } else { error.column() };
        let line = line + error.line() - 1;
        under_key(key, format_args!("{} at line {line} column {column}", problem(&error)))
    })
}

/// The line of the byte behind `read`, counted from 1, and how many bytes of it come before.
pub(super) fn position(read: &[u8]) -> (usize, usize) {
    let line = 1 + read.iter().filter(|&&byte| byte == b'\n').count();
    (line, read.iter().rev().take_while(|&&byte| byte != b'\n').count())
}

/// The message of `error` without the position that ends it.
pub(super) fn problem(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if error.line() > 0
        && let Some(end) = message.rfind(" at line ")
    {
        message.truncate(end);
    }
    message
}

/// An error on the value of `key`. The position that ends its message is kept: serde_json reads it there.
fn under_key<E: Error>(key: &str, error: impl fmt::Display) -> E {
    E::custom(shortened(format!("{key}: {error}")))
}

pub(super) fn shortened(message: String) -> String {
    let start = message.char_indices().nth(PROBLEM_CHARS);
    let end = message.char_indices().nth_back(PROBLEM_CHARS);
    match (start, end) {
        (Some((start, _)), Some((end, _))) if start < end => {
            format!("{} ... {}", &message[..start], &message[end..])
        }
        _ => message,
    }
}

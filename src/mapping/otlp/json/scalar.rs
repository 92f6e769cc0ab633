//! The scalars of proto3 JSON, in all the ways that it lets them be written, and the ids of OTLP.
//!
//! Owns no keys and no `null`: both are settled before a scalar is read.
//!
//! Invariant: a number outside the range of its field, or with a fraction where an integer belongs, is an
//! error, never cut to fit.

use crate::mapping::otlp::UNREADABLE_ID;
use serde::de::{DeserializeSeed, Deserializer, Error, Expected, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Text of any characters. Read as bytes, so that a lone surrogate costs a character and not the request.
pub(super) struct Characters;

impl<'de> DeserializeSeed<'de> for Characters {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Characters {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_bytes<E: Error>(self, text: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_vec()))
    }
}

/// The bytes of a trace id or span id; 16 are the most that any id has.
#[derive(Clone, Copy, Default)]
pub(super) struct Id {
    bytes: [u8; 16],
    length: u8,
}

impl Id {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn unreadable() -> Self {
        let mut id = Self::default();
        id.bytes[..UNREADABLE_ID.len()].copy_from_slice(UNREADABLE_ID);
        id.length = UNREADABLE_ID.len() as u8;
        id
    }

    /// Appends a byte; none when the id is full.
    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(usize::from(self.length))? = byte;
        self.length += 1;
        Some(())
    }

    fn from_hexadecimal(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (pairs, []) = text.as_chunks() else {
            return None;
        };
        let mut id = Self::default();
        for &[high, low] in pairs {
            id.push((digit(high)? << 4 | digit(low)?) as u8)?;
        }
        Some(id)
    }
}

pub(super) struct Hexadecimal;

impl<'de> DeserializeSeed<'de> for Hexadecimal {
    type Value = Id;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Id, D::Error> {
        let text = Characters.deserialize(deserializer)?;
        Ok(Id::from_hexadecimal(&text).unwrap_or_else(Id::unreadable))
    }
}

/// An integer as JSON may write it. `T` is any integer type up to 64 bits.
pub(super) struct Integer<T>(PhantomData<T>);

impl<T> Integer<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: TryFrom<i128>> DeserializeSeed<'de> for Integer<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for Integer<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "an integer in the range of {}, as a number or decimal text",
            std::any::type_name::<T>()
        )
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        in_range(Some(i128::from(number)), &self)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        in_range(Some(i128::from(number)), &self)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        in_range(integer_of_double(number), &self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        in_range(integer_of_text(text), &self)
    }
}

/// An enum is written as its number: unlike [`Integer`] it has no textual form.
pub(super) struct EnumNumber;

impl<'de> DeserializeSeed<'de> for EnumNumber {
    type Value = i32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i32, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for EnumNumber {
    type Value = i32;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the number of an enum, not its name")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<i32, E> {
        in_range(Some(i128::from(number)), &self)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i32, E> {
        in_range(Some(i128::from(number)), &self)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<i32, E> {
        in_range(integer_of_double(number), &self)
    }
}

fn in_range<T: TryFrom<i128>, E: Error>(number: Option<i128>, expected: &dyn Expected) -> Result<T, E> {
    let in_range = number.and_then(|number| T::try_from(number).ok());
    in_range.ok_or_else(|| E::custom(format_args!("expected {expected}")))
}

fn integer_of_double(number: f64) -> Option<i128> {
    // Up to 2^64 a double without a fraction is an integer exactly; no field is wider.
    (number.fract() == 0.0 && number.abs() <= 2_f64.powi(64)).then_some(number as i128)
}

fn integer_of_text(text: &str) -> Option<i128> {
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"-+.eE".contains(&byte));
    if !decimal || text.starts_with('+') {
        return None;
    }
    text.parse().ok().or_else(|| integer_of_double(text.parse().ok()?))
}

pub(super) struct Double;

impl<'de> DeserializeSeed<'de> for Double {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Double {
    type Value = f64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, decimal text, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            // Rust reads more words for these than JSON has.
            _ if text.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E')) => {
                Err(())
            }
            _ => text.parse().map_err(drop),
        }
        .map_err(|()| E::custom(format_args!("expected {}", &self as &dyn Expected)))
    }
}

pub(super) struct Base64;

impl<'de> DeserializeSeed<'de> for Base64 {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Characters.deserialize(deserializer)?;
        bytes_of_base64(&text).ok_or_else(|| D::Error::custom("expected base64"))
    }
}

/// Bytes of base64 in the standard or the URL-safe alphabet, padded or not.
pub(crate) fn bytes_of_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] if text.len().is_multiple_of(4) => digits,
        _ => text,
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            bits = bits << 6 | base64_digit(digit)?;
        }
        bits <<= 6 * (4 - group.len());
        // 2, 3 and 4 digits hold 1, 2 and 3 bytes; a single digit holds not even one.
        if group.len() == 1 {
            return None;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

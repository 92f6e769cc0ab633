//! A JSON value that borrows its texts from the request it came in, which it does not outlive.
//!
//! Invariant: it says the same as `serde_json::Value` would. Of two fields of one name the last one counts, and fields are
//! in the order of their names.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Object<'a>),
}

/// The fields of a JSON object.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

/// As many fields as most pushes have at most.
const USUAL_FIELDS: usize = 8;

impl Value<'_> {
    /// The number that it is, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => number.as_f64(),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl<'a> Object<'a> {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        // Few fields are found sooner by looking at each.
        if self.0.len() <= 2 * USUAL_FIELDS {
            return self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        }
        let place = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.0[place].1)
    }

    /// The value of a field whose name is one of lower case; as long as there is none, that of one which is written otherwise.
    pub fn get_in_any_case(&self, name: &str) -> Option<&Value<'a>> {
        let is_it = |(known, _): &&(Cow<'a, str>, Value<'a>)| known.eq_ignore_ascii_case(name);
        self.get(name).or_else(|| self.0.iter().rfind(is_it).map(|(_, value)| value))
    }

    /// The fields in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// From fields in the order in which they came.
    fn new(mut fields: Vec<(Cow<'a, str>, Value<'a>)>) -> Self {
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        fields.dedup_by(|later, kept| {
            let is_again = later.0 == kept.0;
            if is_again {
                std::mem::swap(&mut later.1, &mut kept.1);
            }
            is_again
        });
        Object(fields)
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = values.next_element()? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(name) = fields.next_key_seed(Name)? {
            if all.is_empty() {
                all.reserve(USUAL_FIELDS);
            }
            all.push((name, fields.next_value()?));
        }
        Ok(Value::Object(Object::new(all)))
    }
}

/// A field's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both read the same of a text, or refuse it with the same words.
    #[track_caller]
    fn check(text: &str) {
        let ours = serde_json::from_str::<Value<'_>>(text).map(|value| value.to_string());
        let theirs = serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string());
        assert_eq!(
            ours.map_err(|error| error.to_string()),
            theirs.map_err(|error| error.to_string()),
            "{text}"
        );
    }

    #[test]
    fn it_says_what_serde_json_says() {
        for text in [
            "null",
            " [true, false, 0, -1, 18446744073709551615, -9223372036854775808, 1e3, 1.50, 1e-400, []] ",
            r#"{"b": {"y": 1, "x": {}}, "a": "plain", "c": "escaped \" \u00e9 \n"}"#,
            r#"{"twice": 1, "a": 0, "twice": {"x": [2]}, "b": 0, "tw\u0069ce": 3}"#,
            "",
            "{",
            "{\"a\"}",
            "{\"a\": 1,}",
            "{1: 2}",
            "[1 2]",
            "1e999",
            "\"\\ud800\"",
            "{} x",
            &"[".repeat(1000),
            &format!("{}{}", "{\"a\":".repeat(1000), "}".repeat(1000)),
        ] {
            check(text);
        }
    }

    #[test]
    fn a_field_is_found_among_few_and_among_many() {
        for count in [0, 1, 16, 17, 400] {
            let fields: Vec<String> =
                (0..count).rev().map(|number| format!("\"{number}\":{number}")).collect();
            let text = format!("{{{}}}", fields.join(","));
            let Ok(Value::Object(object)) = serde_json::from_str(&text) else { panic!("{text}") };
            for number in 0..count {
                assert_eq!(object.get(&number.to_string()), Some(&Value::Number(number.into())));
            }
            assert_eq!(object.get("none"), None);
        }
    }

    proptest! {
        #[test]
        fn it_says_of_any_object_what_serde_json_says(fields in prop::collection::vec(("[a-d]{0,2}", -3_i32..3), 0..40)) {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            check(&format!("{{{}}}", fields.join(",")));
        }
    }
}

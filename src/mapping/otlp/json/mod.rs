//! Walks the OTLP/JSON encoding of an `ExportTraceServiceRequest`.
//!
//! Owns the JSON mapping: proto3 JSON, except that ids are hexadecimal and enums are numbers. Does not know
//! what the fields are for.
//!
//! - Keys are lowerCamelCase; every other key is unknown and ignored with all that is in it.
//! - `null` is the default of what it stands for, in an array too: a `null` span is a span with no fields.
//! - An integer is a number or decimal text, and may have a fraction of zero or an exponent (`1.0`, `1e9`);
//!   those are read as a double, so beyond 2^53 they are as exact as a double is.
//! - An enum is a number. Its name is an error; a number without a name is kept.
//! - An id that is not hexadecimal becomes [`UNREADABLE_ID`](super::UNREADABLE_ID): its span is bad, not the
//!   request.
//! - A key that comes twice in one object is an error: readers disagree on which of the two counts.
//! - Of several values in one attribute the last counts, as in protobuf.
//! - Text may hold a lone surrogate escape, which is read as U+FFFD, but the body must be UTF-8, with no byte
//!   order mark and nothing behind the request.
//!
//! The keys of an object come in any order, so a resource may stand behind its spans: a first pass over an
//! envelope only finds where its parts lie. Nothing is collected: memory follows the longest text of a request,
//! not the number of its spans.
//!
//! Invariant: nesting that this walker reads is at most 128 levels deep (the limit of `serde_json`), which
//! allows less than the protobuf encoding of the same request; ignored parts are skipped without recursion.

mod object;
mod scalar;

pub(crate) use scalar::bytes_of_base64;

use super::{DecodeError, SpanFields, Text, TraceVisitor, Value};
use object::{Each, Element, Fields, Object, Optional, read_or_default, read_part};
use scalar::{Base64, Characters, Double, EnumNumber, Hexadecimal, Id, Integer};
use serde::de::{Deserializer, MapAccess, SeqAccess};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reports every span of the JSON object in `body` to `visitor`, and what belongs to it.
///
/// # Errors
/// When the bytes are not the JSON of an `ExportTraceServiceRequest`. Visits may have happened by then; they
/// must not be used.
pub fn walk(body: &[u8], visitor: &mut impl TraceVisitor) -> Result<(), DecodeError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let (line, column) = object::position(&body[..error.valid_up_to()]);
        DecodeError::Json { line, column: column + 1, problem: "expected UTF-8".to_owned() }
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Fields(&mut Request { visitor, text })).and_then(|()| json.end()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        DecodeError::Json { line, column, problem: object::shortened(object::problem(&error)) }
    })
}

struct Request<'v, 'de, V> {
    visitor: &'v mut V,
    text: &'de str,
}

impl<'de, V: TraceVisitor> Object<'de> for Request<'_, 'de, V> {
    const KEYS: &'static [&'static str] = &["resourceSpans"];

    fn read<A: MapAccess<'de>>(&mut self, _key: &str, map: &mut A) -> Result<(), A::Error> {
        let list = ResourceSpansList { visitor: self.visitor, whole: self.text };
        map.next_value_seed(Optional(Each(list))).map(drop)
    }
}

struct ResourceSpansList<'v, 'de, V> {
    visitor: &'v mut V,
    /// The text that the positions in errors refer to.
    whole: &'de str,
}

impl<'de, V: TraceVisitor> Element<'de> for ResourceSpansList<'_, 'de, V> {
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut envelope = ResourceSpans::default();
        if list.next_element_seed(Optional(Fields(&mut envelope)))?.is_none() {
            return Ok(false);
        }
        self.visitor.resource();
        if let Some(part) = envelope.resource {
            read_part("resource", part, self.whole, Fields(&mut Resource { visitor: &mut *self.visitor }))?;
        }
        if let Some(part) = envelope.scope_spans {
            let list = ScopeSpansList { visitor: &mut *self.visitor, whole: part.get() };
            read_part("scopeSpans", part, self.whole, Each(list))?;
        }
        Ok(true)
    }
}

#[derive(Default)]
struct ResourceSpans<'de> {
    resource: Option<&'de RawValue>,
    scope_spans: Option<&'de RawValue>,
}

impl<'de> Object<'de> for ResourceSpans<'de> {
    const KEYS: &'static [&'static str] = &["resource", "scopeSpans"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "resource" => self.resource = map.next_value()?,
            _ => self.scope_spans = map.next_value()?,
        }
        Ok(())
    }
}

struct Resource<'v, V> {
    visitor: &'v mut V,
}

impl<'de, V: TraceVisitor> Object<'de> for Resource<'_, V> {
    const KEYS: &'static [&'static str] = &["attributes"];

    fn read<A: MapAccess<'de>>(&mut self, _key: &str, map: &mut A) -> Result<(), A::Error> {
        let report = |key: Text<'_>, value: Value<'_>| self.visitor.resource_attribute(key, value);
        map.next_value_seed(Optional(Each(Attributes { report }))).map(drop)
    }
}

struct ScopeSpansList<'v, 'de, V> {
    visitor: &'v mut V,
    whole: &'de str,
}

impl<'de, V: TraceVisitor> Element<'de> for ScopeSpansList<'_, 'de, V> {
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut envelope = ScopeSpans::default();
        if list.next_element_seed(Optional(Fields(&mut envelope)))?.is_none() {
            return Ok(false);
        }
        self.visitor.scope(Text::new(&envelope.scope.name), Text::new(&envelope.scope.version));
        if let Some(part) = envelope.spans {
            read_part("spans", part, self.whole, Each(Spans { visitor: &mut *self.visitor }))?;
        }
        Ok(true)
    }
}

#[derive(Default)]
struct ScopeSpans<'de> {
    scope: Scope<'de>,
    spans: Option<&'de RawValue>,
}

impl<'de> Object<'de> for ScopeSpans<'de> {
    const KEYS: &'static [&'static str] = &["scope", "spans"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "scope" => map.next_value_seed(Optional(Fields(&mut self.scope))).map(drop)?,
            _ => self.spans = map.next_value()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Scope<'de> {
    name: Cow<'de, [u8]>,
    version: Cow<'de, [u8]>,
}

impl<'de> Object<'de> for Scope<'de> {
    const KEYS: &'static [&'static str] = &["name", "version", "attributes"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => self.name = read_or_default(map, Characters)?,
            "version" => self.version = read_or_default(map, Characters)?,
            _ => map.next_value_seed(Optional(Each(Attributes { report: ignore }))).map(drop)?,
        }
        Ok(())
    }
}

struct Spans<'v, V> {
    visitor: &'v mut V,
}

impl<'de, V: TraceVisitor> Element<'de> for Spans<'_, V> {
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut span = Span::new(&mut *self.visitor);
        if list.next_element_seed(Optional(Fields(&mut span)))?.is_none() {
            return Ok(false);
        }
        span.report();
        Ok(true)
    }
}

struct Span<'v, 'de, V> {
    visitor: &'v mut V,
    trace_id: Id,
    span_id: Id,
    parent_span_id: Id,
    trace_state: Cow<'de, [u8]>,
    name: Cow<'de, [u8]>,
    kind: i32,
    flags: u32,
    start_time_unix_nano: u64,
    end_time_unix_nano: u64,
    status: Status<'de>,
}

impl<'v, V: TraceVisitor> Span<'v, '_, V> {
    fn new(visitor: &'v mut V) -> Self {
        Self {
            visitor,
            trace_id: Id::default(),
            span_id: Id::default(),
            parent_span_id: Id::default(),
            trace_state: Cow::default(),
            name: Cow::default(),
            kind: 0,
            flags: 0,
            start_time_unix_nano: 0,
            end_time_unix_nano: 0,
            status: Status::default(),
        }
    }

    fn report(self) {
        self.visitor.span(SpanFields {
            trace_id: self.trace_id.as_bytes(),
            span_id: self.span_id.as_bytes(),
            parent_span_id: self.parent_span_id.as_bytes(),
            trace_state: Text::new(&self.trace_state),
            name: Text::new(&self.name),
            kind: self.kind,
            flags: self.flags,
            start_time_unix_nano: self.start_time_unix_nano,
            end_time_unix_nano: self.end_time_unix_nano,
            status_code: self.status.code,
            status_message: Text::new(&self.status.message),
        });
    }
}

impl<'de, V: TraceVisitor> Object<'de> for Span<'_, 'de, V> {
    const KEYS: &'static [&'static str] = &[
        "traceId",
        "spanId",
        "parentSpanId",
        "traceState",
        "name",
        "kind",
        "flags",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "links",
        "status",
    ];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "traceId" => self.trace_id = read_or_default(map, Hexadecimal)?,
            "spanId" => self.span_id = read_or_default(map, Hexadecimal)?,
            "parentSpanId" => self.parent_span_id = read_or_default(map, Hexadecimal)?,
            "traceState" => self.trace_state = read_or_default(map, Characters)?,
            "name" => self.name = read_or_default(map, Characters)?,
            "kind" => self.kind = read_or_default(map, EnumNumber)?,
            "flags" => self.flags = read_or_default(map, Integer::new())?,
            "startTimeUnixNano" => self.start_time_unix_nano = read_or_default(map, Integer::new())?,
            "endTimeUnixNano" => self.end_time_unix_nano = read_or_default(map, Integer::new())?,
            "attributes" => {
                let report = |key: Text<'_>, value: Value<'_>| self.visitor.span_attribute(key, value);
                map.next_value_seed(Optional(Each(Attributes { report }))).map(drop)?;
            }
            "links" => {
                map.next_value_seed(Optional(Each(Links { visitor: &mut *self.visitor }))).map(drop)?
            }
            _ => map.next_value_seed(Optional(Fields(&mut self.status))).map(drop)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Status<'de> {
    code: i32,
    message: Cow<'de, [u8]>,
}

impl<'de> Object<'de> for Status<'de> {
    const KEYS: &'static [&'static str] = &["code", "message"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "code" => self.code = read_or_default(map, EnumNumber)?,
            _ => self.message = read_or_default(map, Characters)?,
        }
        Ok(())
    }
}

struct Links<'v, V> {
    visitor: &'v mut V,
}

impl<'de, V: TraceVisitor> Element<'de> for Links<'_, V> {
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut link = Link::default();
        if list.next_element_seed(Optional(Fields(&mut link)))?.is_none() {
            return Ok(false);
        }
        self.visitor.span_link(link.trace_id.as_bytes(), link.span_id.as_bytes());
        Ok(true)
    }
}

#[derive(Default)]
struct Link {
    trace_id: Id,
    span_id: Id,
}

impl<'de> Object<'de> for Link {
    const KEYS: &'static [&'static str] = &["traceId", "spanId"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "traceId" => self.trace_id = read_or_default(map, Hexadecimal)?,
            _ => self.span_id = read_or_default(map, Hexadecimal)?,
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Attributes<F> {
    report: F,
}

/// For attributes that are read for their form only.
fn ignore(_key: Text<'_>, _value: Value<'_>) {}

impl<'de, F: FnMut(Text<'_>, Value<'_>)> Element<'de> for Attributes<F> {
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut attribute = KeyValue::default();
        if list.next_element_seed(Optional(Fields(&mut attribute)))?.is_none() {
            return Ok(false);
        }
        (self.report)(Text::new(&attribute.key), attribute.value.as_value());
        Ok(true)
    }
}

#[derive(Default)]
struct KeyValue<'de> {
    key: Cow<'de, [u8]>,
    value: AnyValue<'de>,
}

impl<'de> Object<'de> for KeyValue<'de> {
    const KEYS: &'static [&'static str] = &["key", "value"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "key" => self.key = read_or_default(map, Characters)?,
            _ => map.next_value_seed(Optional(Fields(&mut self.value))).map(drop)?,
        }
        Ok(())
    }
}

#[derive(Default)]
enum AnyValue<'de> {
    Str(Cow<'de, [u8]>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    #[default]
    Other,
}

impl AnyValue<'_> {
    fn as_value(&self) -> Value<'_> {
        match self {
            Self::Str(text) => Value::Str(Text::new(text)),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(integer) => Value::Int(*integer),
            Self::Double(double) => Value::Double(*double),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Other => Value::Other,
        }
    }
}

impl<'de> Object<'de> for AnyValue<'de> {
    const KEYS: &'static [&'static str] =
        &["stringValue", "boolValue", "intValue", "doubleValue", "bytesValue", "arrayValue", "kvlistValue"];

    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let value = match key {
            "stringValue" => map.next_value_seed(Optional(Characters))?.map(Self::Str),
            "boolValue" => map.next_value::<Option<bool>>()?.map(Self::Bool),
            "intValue" => map.next_value_seed(Optional(Integer::new()))?.map(Self::Int),
            "doubleValue" => map.next_value_seed(Optional(Double))?.map(Self::Double),
            "bytesValue" => map.next_value_seed(Optional(Base64))?.map(Self::Bytes),
            "arrayValue" => {
                let array = &mut HasValues(Elements);
                map.next_value_seed(Optional(Fields(array)))?.map(|()| Self::Other)
            }
            _ => {
                let pairs = &mut HasValues(Attributes { report: ignore });
                map.next_value_seed(Optional(Fields(pairs)))?.map(|()| Self::Other)
            }
        };
        if let Some(value) = value {
            *self = value;
        }
        Ok(())
    }
}

/// An `ArrayValue` or a `KeyValueList`.
struct HasValues<T>(T);

impl<'de, T: Element<'de> + Clone> Object<'de> for HasValues<T> {
    const KEYS: &'static [&'static str] = &["values"];

    fn read<A: MapAccess<'de>>(&mut self, _key: &str, map: &mut A) -> Result<(), A::Error> {
        map.next_value_seed(Optional(Each(self.0.clone()))).map(drop)
    }
}

/// The values of an array, read for their form only.
#[derive(Clone)]
struct Elements;

impl<'de> Element<'de> for Elements {
    fn read<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut value = AnyValue::default();
        Ok(list.next_element_seed(Optional(Fields(&mut value)))?.is_some())
    }
}

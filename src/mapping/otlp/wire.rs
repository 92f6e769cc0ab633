//! Walks the protobuf encoding of an `ExportTraceServiceRequest` where it lies, without copying it.
//!
//! Owns the wire format and the field numbers of `opentelemetry/proto/trace/v1/trace.proto`. Does not know
//! what the fields are for.
//!
//! A protobuf message is a run of fields. A field is a key, `number << 3 | wire type`, and a payload whose
//! size the wire type tells, so that unknown fields can be skipped:
//!
//! | wire type | payload |
//! |---|---|
//! | 0 | a varint: 7 bits a byte, lowest first, while the high bit is set; at most 10 bytes, 64 bits |
//! | 1 | 8 bytes, little endian |
//! | 2 | a varint length and as many bytes: text, bytes, or a message |
//! | 3, 4 | start and end of a group: fields between two keys of the same number (obsolete, still legal) |
//! | 5 | 4 bytes, little endian |
//!
//! Fields come in any order. A scalar that comes twice counts the last time; a message that comes twice is
//! merged, as if its bytes were joined. So the resource of a `ResourceSpans` may stand behind its spans, or
//! in two places: these envelopes are read twice, first for their head, then for their contents.
//!
//! Invariant: whatever this walker refuses, a full decoder refuses too. It accepts more in two places only:
//! text is not checked for UTF-8, and events, link attributes and entity references are skipped unread.

use super::{DecodeError, SpanFields, Text, TraceVisitor, Value};

/// Messages and groups nested deeper than this are refused, with the request itself at depth 0. It is the
/// limit of prost, which peers decode with, so that what is accepted here can be passed on to them.
const DEPTH_LIMIT: u32 = 100;

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("expected more bytes, the message ends inside a field")]
    Truncated,
    #[error("expected a number of at most 10 bytes and 64 bits")]
    Varint,
    #[error("expected a field number from 1 to 536870911")]
    FieldNumber,
    #[error("expected a wire type from 0 to 5")]
    WireType,
    #[error("expected another wire type for this field")]
    UnexpectedWireType,
    #[error("expected no end of a group that has not begun")]
    GroupEnd,
    #[error("expected at most 100 levels of nesting")]
    TooDeep,
}

/// Reports every span of `request` to `visitor`, and what belongs to it.
///
/// # Errors
/// When the bytes are not an `ExportTraceServiceRequest`. Visits may have happened by then; they must not
/// be used.
pub fn walk(request: &[u8], visitor: &mut impl TraceVisitor) -> Result<(), DecodeError> {
    let fields = Fields { rest: request, end: request.len() };
    walk_request(fields, visitor)
        .map_err(|Fault { offset, problem }| DecodeError::Protobuf { offset, problem })
}

/// The key of a field, as it stands before its payload.
const fn key(number: u32, wire_type: u32) -> u32 {
    number << 3 | wire_type
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

fn walk_request(mut fields: Fields<'_>, visitor: &mut impl TraceVisitor) -> Result<(), Fault> {
    const RESOURCE_SPANS: u32 = key(1, LENGTH);
    while fields.remain() {
        match fields.key()? {
            RESOURCE_SPANS => walk_resource_spans(fields.message()?, visitor)?,
            other => fields.skip_unknown(other, 1, 0)?,
        }
    }
    Ok(())
}

/// At depth 1.
fn walk_resource_spans(envelope: Fields<'_>, visitor: &mut impl TraceVisitor) -> Result<(), Fault> {
    const RESOURCE: u32 = key(1, LENGTH);
    const SCOPE_SPANS: u32 = key(2, LENGTH);
    const SCHEMA_URL: u32 = key(3, LENGTH);
    visitor.resource();
    let mut fields = envelope;
    while fields.remain() {
        match fields.key()? {
            RESOURCE => walk_resource(fields.message()?, visitor)?,
            SCOPE_SPANS | SCHEMA_URL => fields.skip_bytes()?,
            other => fields.skip_unknown(other, 3, 1)?,
        }
    }
    let mut fields = envelope;
    while fields.remain() {
        match fields.key()? {
            SCOPE_SPANS => walk_scope_spans(fields.message()?, visitor)?,
            other => fields.skip(other, 1)?,
        }
    }
    Ok(())
}

/// At depth 2.
fn walk_resource(mut fields: Fields<'_>, visitor: &mut impl TraceVisitor) -> Result<(), Fault> {
    const ATTRIBUTES: u32 = key(1, LENGTH);
    const DROPPED_ATTRIBUTES: u32 = key(2, VARINT);
    const ENTITY_REFS: u32 = key(3, LENGTH);
    while fields.remain() {
        match fields.key()? {
            ATTRIBUTES => {
                visit_attribute(fields.message()?, 3, |key, value| visitor.resource_attribute(key, value))?;
            }
            DROPPED_ATTRIBUTES => fields.skip_varint()?,
            ENTITY_REFS => fields.skip_bytes()?,
            other => fields.skip_unknown(other, 3, 2)?,
        }
    }
    Ok(())
}

/// At depth 2.
fn walk_scope_spans(envelope: Fields<'_>, visitor: &mut impl TraceVisitor) -> Result<(), Fault> {
    const SCOPE: u32 = key(1, LENGTH);
    const SPANS: u32 = key(2, LENGTH);
    const SCHEMA_URL: u32 = key(3, LENGTH);
    let (mut name, mut version) = (Text::default(), Text::default());
    let mut fields = envelope;
    while fields.remain() {
        match fields.key()? {
            SPANS | SCHEMA_URL => fields.skip_bytes()?,
            SCOPE => read_scope(fields.message()?, &mut name, &mut version)?,
            other => fields.skip_unknown(other, 3, 2)?,
        }
    }
    visitor.scope(name, version);
    let mut fields = envelope;
    while fields.remain() {
        match fields.key()? {
            SPANS => walk_span(fields.message()?, visitor)?,
            other => fields.skip(other, 2)?,
        }
    }
    Ok(())
}

/// At depth 3. Nobody asks for the attributes of a scope; they are read for their depth.
fn read_scope<'a>(mut fields: Fields<'a>, name: &mut Text<'a>, version: &mut Text<'a>) -> Result<(), Fault> {
    const NAME: u32 = key(1, LENGTH);
    const VERSION: u32 = key(2, LENGTH);
    const ATTRIBUTES: u32 = key(3, LENGTH);
    const DROPPED_ATTRIBUTES: u32 = key(4, VARINT);
    while fields.remain() {
        match fields.key()? {
            NAME => *name = Text::new(fields.bytes()?),
            VERSION => *version = Text::new(fields.bytes()?),
            ATTRIBUTES => visit_attribute(fields.message()?, 4, |_, _| {})?,
            DROPPED_ATTRIBUTES => fields.skip_varint()?,
            other => fields.skip_unknown(other, 4, 3)?,
        }
    }
    Ok(())
}

/// At depth 3. Enums are the low 32 bits of their varint, as protobuf has it.
fn walk_span(mut fields: Fields<'_>, visitor: &mut impl TraceVisitor) -> Result<(), Fault> {
    const TRACE_ID: u32 = key(1, LENGTH);
    const SPAN_ID: u32 = key(2, LENGTH);
    const TRACE_STATE: u32 = key(3, LENGTH);
    const PARENT_SPAN_ID: u32 = key(4, LENGTH);
    const NAME: u32 = key(5, LENGTH);
    const KIND: u32 = key(6, VARINT);
    const START_TIME_UNIX_NANO: u32 = key(7, FIXED64);
    const END_TIME_UNIX_NANO: u32 = key(8, FIXED64);
    const ATTRIBUTES: u32 = key(9, LENGTH);
    const DROPPED_ATTRIBUTES: u32 = key(10, VARINT);
    const EVENTS: u32 = key(11, LENGTH);
    const DROPPED_EVENTS: u32 = key(12, VARINT);
    const LINKS: u32 = key(13, LENGTH);
    const DROPPED_LINKS: u32 = key(14, VARINT);
    const STATUS: u32 = key(15, LENGTH);
    const FLAGS: u32 = key(16, FIXED32);
    let mut span = SpanFields::default();
    while fields.remain() {
        match fields.key()? {
            ATTRIBUTES => {
                visit_attribute(fields.message()?, 4, |key, value| visitor.span_attribute(key, value))?;
            }
            TRACE_ID => span.trace_id = fields.bytes()?,
            SPAN_ID => span.span_id = fields.bytes()?,
            TRACE_STATE => span.trace_state = Text::new(fields.bytes()?),
            PARENT_SPAN_ID => span.parent_span_id = fields.bytes()?,
            NAME => span.name = Text::new(fields.bytes()?),
            KIND => span.kind = fields.varint()? as i32,
            START_TIME_UNIX_NANO => span.start_time_unix_nano = u64::from_le_bytes(fields.fixed()?),
            END_TIME_UNIX_NANO => span.end_time_unix_nano = u64::from_le_bytes(fields.fixed()?),
            EVENTS => fields.skip_bytes()?,
            LINKS => {
                let (trace_id, span_id) = read_link(fields.message()?)?;
                visitor.span_link(trace_id, span_id);
            }
            STATUS => read_status(fields.message()?, &mut span)?,
            FLAGS => span.flags = u32::from_le_bytes(fields.fixed()?),
            DROPPED_ATTRIBUTES | DROPPED_EVENTS | DROPPED_LINKS => fields.skip_varint()?,
            other => fields.skip_unknown(other, 16, 3)?,
        }
    }
    visitor.span(span);
    Ok(())
}

/// At depth 4.
fn read_status<'a>(mut fields: Fields<'a>, span: &mut SpanFields<'a>) -> Result<(), Fault> {
    const RESERVED: u32 = 1;
    const MESSAGE: u32 = key(2, LENGTH);
    const CODE: u32 = key(3, VARINT);
    while fields.remain() {
        match fields.key()? {
            MESSAGE => span.status_message = Text::new(fields.bytes()?),
            CODE => span.status_code = fields.varint()? as i32,
            other if other >> 3 == RESERVED => fields.skip(other, 4)?,
            other => fields.skip_unknown(other, 3, 4)?,
        }
    }
    Ok(())
}

/// The trace id and span id of a link, at depth 4.
fn read_link(mut fields: Fields<'_>) -> Result<(&[u8], &[u8]), Fault> {
    const TRACE_ID: u32 = key(1, LENGTH);
    const SPAN_ID: u32 = key(2, LENGTH);
    const TRACE_STATE: u32 = key(3, LENGTH);
    const ATTRIBUTES: u32 = key(4, LENGTH);
    const DROPPED_ATTRIBUTES: u32 = key(5, VARINT);
    const FLAGS: u32 = key(6, FIXED32);
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    while fields.remain() {
        match fields.key()? {
            TRACE_ID => trace_id = fields.bytes()?,
            SPAN_ID => span_id = fields.bytes()?,
            TRACE_STATE | ATTRIBUTES => fields.skip_bytes()?,
            known @ (DROPPED_ATTRIBUTES | FLAGS) => fields.skip(known, 4)?,
            other => fields.skip_unknown(other, 6, 4)?,
        }
    }
    Ok((trace_id, span_id))
}

/// Reports the key and value of a `KeyValue` at `depth`.
///
/// Nearly all are a short key, then a message with one short value, as encoders write them: those are read without a
/// loop. Each way hands over its own value, for a value that goes through a result is copied by pieces on its way, which
/// takes as long as reading it. The keys are those of [`read_any_attribute`] and [`read_value`]: 0x0a, 0x10, 0x18 for
/// text, bool and integer.
#[inline]
fn visit_attribute<'a>(
    fields: Fields<'a>,
    depth: u32,
    visit: impl FnOnce(Text<'a>, Value<'a>),
) -> Result<(), Fault> {
    match split_short_attribute(fields.rest).filter(|_| depth < DEPTH_LIMIT) {
        Some((name, [0x0a, length @ 0..0x80, text @ ..])) if usize::from(*length) == text.len() => {
            visit(Text::new(name), Value::Str(Text::new(text)));
        }
        Some((name, [0x10, bit @ 0..=1])) => visit(Text::new(name), Value::Bool(*bit == 1)),
        Some((name, [0x18, low @ 0..0x80])) => visit(Text::new(name), Value::Int(i64::from(*low))),
        Some((name, [0x18, low @ 0x80..=0xff, high @ 0..0x80])) => {
            visit(Text::new(name), Value::Int(i64::from(low & 0x7f) | i64::from(*high) << 7));
        }
        _ => {
            let (name, value) = read_any_attribute(fields, depth)?;
            visit(name, value);
        }
    }
    Ok(())
}

/// The key and the bytes of the value of an attribute that is nothing but these two, both short and in this order: 0x0a
/// and 0x12.
#[inline]
fn split_short_attribute(attribute: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, length @ 0..0x80, rest @ ..] = attribute else {
        return None;
    };
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    match rest {
        [0x12, length @ 0..0x80, value @ ..] if usize::from(*length) == value.len() => Some((name, value)),
        _ => None,
    }
}

fn read_any_attribute(mut fields: Fields<'_>, depth: u32) -> Result<(Text<'_>, Value<'_>), Fault> {
    const KEY: u32 = key(1, LENGTH);
    const VALUE: u32 = key(2, LENGTH);
    const KEY_STRING_INDEX: u32 = key(3, VARINT);
    let (mut name, mut value) = (Text::default(), Value::Other);
    while fields.remain() {
        match fields.key()? {
            KEY => name = Text::new(fields.bytes()?),
            VALUE => read_value(fields.nested(depth)?, &mut value, depth + 1)?,
            KEY_STRING_INDEX => fields.skip_varint()?,
            other => fields.skip_unknown(other, 3, depth)?,
        }
    }
    Ok((name, value))
}

/// An `AnyValue` at `depth`, merged into `value`: an empty one leaves it as it is.
#[inline]
fn read_value<'a>(mut fields: Fields<'a>, value: &mut Value<'a>, depth: u32) -> Result<(), Fault> {
    const STRING: u32 = key(1, LENGTH);
    const BOOL: u32 = key(2, VARINT);
    const INT: u32 = key(3, VARINT);
    const DOUBLE: u32 = key(4, FIXED64);
    const ARRAY: u32 = key(5, LENGTH);
    const KEY_VALUE_LIST: u32 = key(6, LENGTH);
    const BYTES: u32 = key(7, LENGTH);
    const STRING_INDEX: u32 = key(8, VARINT);
    while fields.remain() {
        *value = match fields.key()? {
            STRING => Value::Str(Text::new(fields.bytes()?)),
            BOOL => Value::Bool(fields.varint()? != 0),
            INT => Value::Int(fields.varint()?.cast_signed()),
            DOUBLE => Value::Double(f64::from_le_bytes(fields.fixed()?)),
            ARRAY => {
                check_array(fields.nested(depth)?, depth + 1)?;
                Value::Other
            }
            KEY_VALUE_LIST => {
                check_pairs(fields.nested(depth)?, depth + 1)?;
                Value::Other
            }
            BYTES => Value::Bytes(fields.bytes()?),
            STRING_INDEX => {
                fields.skip_varint()?;
                Value::Other
            }
            other => {
                fields.skip_unknown(other, 8, depth)?;
                continue;
            }
        }
    }
    Ok(())
}

/// An `ArrayValue` at `depth`: nothing of it is reported, but what is accepted must be decodable.
fn check_array(mut fields: Fields<'_>, depth: u32) -> Result<(), Fault> {
    const VALUES: u32 = key(1, LENGTH);
    while fields.remain() {
        match fields.key()? {
            VALUES => read_value(fields.nested(depth)?, &mut Value::Other, depth + 1)?,
            other => fields.skip_unknown(other, 1, depth)?,
        }
    }
    Ok(())
}

/// A `KeyValueList` at `depth`, checked like an array.
fn check_pairs(mut fields: Fields<'_>, depth: u32) -> Result<(), Fault> {
    const VALUES: u32 = key(1, LENGTH);
    while fields.remain() {
        match fields.key()? {
            VALUES => visit_attribute(fields.nested(depth)?, depth + 1, |_, _| {})?,
            other => fields.skip_unknown(other, 1, depth)?,
        }
    }
    Ok(())
}

/// A problem and where it is. Small, since every read may return it.
#[derive(Debug, Clone, Copy)]
struct Fault {
    offset: usize,
    problem: Problem,
}

/// What is left of the fields of one message. Reading never goes beyond the end of the message.
#[derive(Debug, Clone, Copy)]
struct Fields<'a> {
    rest: &'a [u8],
    /// Where `rest` ends, in bytes from the start of the request.
    end: usize,
}

impl<'a> Fields<'a> {
    #[inline]
    fn remain(&self) -> bool {
        !self.rest.is_empty()
    }

    #[cold]
    fn fault(&self, problem: Problem) -> Fault {
        Fault { offset: self.end - self.rest.len(), problem }
    }

    /// The key of the next field: a known key can be matched as it is, others are checked when skipped.
    #[inline]
    fn key(&mut self) -> Result<u32, Fault> {
        if let [first @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u32::from(*first));
        }
        let key = self.long_varint()?;
        u32::try_from(key).map_err(|_| self.fault(Problem::FieldNumber))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Fault> {
        if let [first @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        self.long_varint()
    }

    /// A varint of any length. Apart from [`Self::varint`], to keep that one small enough to inline.
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has room for one bit of 64.
                if index == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        let problem = if self.rest.len() < 10 { Problem::Truncated } else { Problem::Varint };
        Err(self.fault(problem))
    }

    /// A length and as many bytes.
    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.varint()?;
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((bytes, rest)) = split else {
            return Err(self.fault(Problem::Truncated));
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// A message whose depth is known to be within the limit.
    #[inline]
    fn message(&mut self) -> Result<Fields<'a>, Fault> {
        let rest = self.bytes()?;
        Ok(Fields { rest, end: self.end - self.rest.len() })
    }

    /// A message inside a message at `depth`.
    #[inline]
    fn nested(&mut self, depth: u32) -> Result<Fields<'a>, Fault> {
        if depth >= DEPTH_LIMIT {
            return Err(self.fault(Problem::TooDeep));
        }
        self.message()
    }

    #[inline]
    fn fixed<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], Fault> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(self.fault(Problem::Truncated));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn skip_varint(&mut self) -> Result<(), Fault> {
        self.varint().map(drop)
    }

    #[inline]
    fn skip_bytes(&mut self) -> Result<(), Fault> {
        self.bytes().map(drop)
    }

    /// Skips the payload behind a key that no field of its message has, in a message at `depth`, whose
    /// fields are numbered up to `highest`: a known number here means a wrong wire type.
    #[cold]
    fn skip_unknown(&mut self, key: u32, highest: u32, depth: u32) -> Result<(), Fault> {
        if (1..=highest).contains(&(key >> 3)) {
            return Err(self.fault(Problem::UnexpectedWireType));
        }
        self.skip(key, depth)
    }

    /// Skips the payload behind any key, in a message or group at `depth`.
    fn skip(&mut self, key: u32, depth: u32) -> Result<(), Fault> {
        if key >> 3 == 0 {
            return Err(self.fault(Problem::FieldNumber));
        }
        if depth >= DEPTH_LIMIT {
            return Err(self.fault(Problem::TooDeep));
        }
        match key & 7 {
            VARINT => self.skip_varint(),
            FIXED64 => self.fixed::<8>().map(drop),
            LENGTH => self.skip_bytes(),
            GROUP_START => self.skip_group(key >> 3, depth),
            GROUP_END => Err(self.fault(Problem::GroupEnd)),
            FIXED32 => self.fixed::<4>().map(drop),
            _ => Err(self.fault(Problem::WireType)),
        }
    }

    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), Fault> {
        loop {
            match self.key()? {
                end if end == key(number, GROUP_END) => return Ok(()),
                inner => self.skip(inner, depth + 1)?,
            }
        }
    }
}

//! What bytes are: how a file is laid out, told by its start, and what one part of it holds, told by its keys.
//!
//! Does not read. Invariant: the answer depends on the bytes alone, and every start has one answer. A line feed is
//! white space before JSON and the key of a `ResourceSpans` in protobuf, so JSON is looked for first: no protobuf
//! has a quote and a printable character where JSON has its first key.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

use super::input::{PREFIX_BYTES, ZSTD_MAGIC};
use super::{Place, Problem};

/// How much of what nobody knows is shown.
const SHOWN_CHARS: usize = 40;
const SHOWN_BYTES: usize = 8;

/// What some editors put before text.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// The key of `resource_spans`, the only field of a request.
pub(super) const RESOURCE_SPANS: u8 = 0x0a;

/// What a file consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// JSON objects.
    Objects,
    /// The fields of one protobuf request.
    Fields,
    /// Messages behind their lengths.
    Messages,
}

/// The layout of a file with this start, of [`PREFIX_BYTES`] unless the file is shorter.
pub(super) fn layout(prefix: &[u8], piece_limit: usize) -> Result<Layout, Problem> {
    let is_blank = prefix.trim_ascii_start().is_empty();
    if is_blank && prefix.len() < PREFIX_BYTES {
        Err(Problem::Empty)
    } else if is_blank || begins_object(&prefix[mark_length(prefix)..]) {
        Ok(Layout::Objects)
    } else if begins_request(prefix, u64::MAX) {
        Ok(Layout::Fields)
    } else if begins_messages(prefix, piece_limit) {
        Ok(Layout::Messages)
    } else {
        let place = if shown_text(prefix).is_some() { Place::Line(1) } else { Place::Byte(0) };
        Err(Problem::Unknown { place, found: describe(prefix) })
    }
}

/// How many bytes of a text come before its first character.
pub(super) fn mark_length(text: &[u8]) -> usize {
    if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
}

fn begins_object(bytes: &[u8]) -> bool {
    let Some(behind) = bytes.trim_ascii_start().strip_prefix(b"{") else { return false };
    match behind.trim_ascii_start() {
        [] | [b'"'] | [b'}', ..] => true,
        [b'"', next, ..] => *next >= b' ',
        _ => false,
    }
}

/// Whether a message of this `length` that begins with `bytes` may be a request with a `ResourceSpans`. All that
/// one of those has are fields with a length, in any order.
fn begins_request(bytes: &[u8], length: u64) -> bool {
    let Some((RESOURCE_SPANS, resource_spans, inside)) = field(bytes, length) else { return false };
    resource_spans == 0 || field(inside, resource_spans).is_some_and(|(key, ..)| key & 7 == 2 && key > 7)
}

/// The key of the field at the start of a message of this `length`, how long the field is, and its first bytes.
fn field(bytes: &[u8], length: u64) -> Option<(u8, u64, &[u8])> {
    const VARINT_BYTES: usize = 5;
    let (&key, mut rest) = bytes.split_first()?;
    let mut field = 0;
    for shift in (0..VARINT_BYTES).map(|index| 7 * index) {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        field |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let before = (bytes.len() - rest.len()) as u64;
            return (field <= length.checked_sub(before)?).then_some((key, field, rest));
        }
    }
    None
}

/// Whether the first message that is not empty is one.
fn begins_messages(prefix: &[u8], piece_limit: usize) -> bool {
    let mut rest = prefix;
    while let Some((length, message)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length);
        if length > 0 {
            let is_request = begins_request(message, length.into());
            let is_known = is_request || message.starts_with(&ZSTD_MAGIC) || begins_object(message);
            return is_known && length as usize <= piece_limit;
        }
        rest = message;
    }
    false
}

/// What one part of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A request, as protobuf.
    Protobuf,
    /// A request, as JSON.
    Json,
    /// A request with logs, metrics or profiles, as JSON: one file exporter may serve several pipelines.
    OtherSignal,
    /// The answer of Jaeger's query service, or one trace of it.
    JaegerExport,
}

/// What a part is that was found at `place` of a file with this layout.
pub(super) fn of(layout: Layout, place: Place, part: &[u8]) -> Result<Content, Problem> {
    let is_json = match layout {
        Layout::Objects => true,
        Layout::Fields => false,
        Layout::Messages => begins_object(part),
    };
    if !is_json {
        return Ok(Content::Protobuf);
    }
    let mut first = None;
    match first_key(part).and_then(of_key).or_else(|| of_keys(part, &mut first)) {
        Some(content) => Ok(content),
        None => unknown_keys(place, part, first),
    }
}

fn of_key(key: &str) -> Option<Content> {
    match key {
        "resourceSpans" => Some(Content::Json),
        "resourceLogs" | "resourceMetrics" | "resourceProfiles" => Some(Content::OtherSignal),
        "data" | "spans" | "processes" => Some(Content::JaegerExport),
        _ => None,
    }
}

/// The first key, if it is spelled without escapes. It tells enough of nearly all files.
fn first_key(object: &[u8]) -> Option<&str> {
    let behind = object.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let key = behind.split(|&byte| byte == b'"').next()?;
    std::str::from_utf8(key).ok()
}

/// What the first key says that says anything, and the first key of all. Behind a mistake nobody looks.
fn of_keys(object: &[u8], first: &mut Option<String>) -> Option<Content> {
    let mut keys = Keys { first, content: None };
    // Of JSON that is wrong the keys before the mistake are known; its decoder will name the mistake.
    serde_json::Deserializer::from_slice(object).deserialize_map(&mut keys).unwrap_or_default();
    keys.content
}

struct Keys<'k> {
    first: &'k mut Option<String>,
    content: Option<Content>,
}

impl<'de> Visitor<'de> for &mut Keys<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            self.content = self.content.or_else(|| of_key(&key));
            self.first.get_or_insert_with(|| key.into_owned());
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// An object without any key is a request without spans, which the file exporter writes too.
fn unknown_keys(place: Place, part: &[u8], first: Option<String>) -> Result<Content, Problem> {
    let found = match first.as_deref() {
        None if is_empty_object(part) => return Ok(Content::Json),
        None => describe(part),
        Some("resource_spans") => {
            "the key \"resource_spans\", which OTLP JSON spells \"resourceSpans\"".to_owned()
        }
        Some(key) => format!(
            "an object that begins with the key {:?}",
            key.chars().take(SHOWN_CHARS).collect::<String>()
        ),
    };
    Err(Problem::Unknown { place, found })
}

fn is_empty_object(object: &[u8]) -> bool {
    object
        .trim_ascii_start()
        .strip_prefix(b"{")
        .is_some_and(|behind| behind.trim_ascii_start().starts_with(b"}"))
}

/// The start of something, for people: as text, or in hexadecimal.
pub(super) fn describe(bytes: &[u8]) -> String {
    shown_text(bytes).map_or_else(
        || {
            let hexadecimal = |byte: &u8| format!(" {byte:02x}");
            let shown: String = bytes.iter().take(SHOWN_BYTES).map(hexadecimal).collect();
            format!("the bytes{shown}")
        },
        |text| format!("the text {text:?}"),
    )
}

/// The first characters, if they are text.
fn shown_text(bytes: &[u8]) -> Option<String> {
    const LONGEST_CHAR: usize = 4;
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_CHAR * SHOWN_CHARS)]);
    let shown: String = start.chars().take(SHOWN_CHARS).collect();
    let is_text = |c: char| c != char::REPLACEMENT_CHARACTER && (c.is_whitespace() || !c.is_control());
    shown.chars().all(is_text).then_some(shown)
}

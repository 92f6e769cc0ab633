//! OTLP traces as visits: what the two decoders, [`wire`] for protobuf and [`json`] for OTLP/JSON, report
//! of an `ExportTraceServiceRequest`, and nothing of it that the program does not use.
//!
//! Knows neither flows nor stages, and does not judge spans: an id of the wrong length, a span that ends
//! before it starts and a repeated attribute key are reported as they came.
//!
//! Invariant: the same request in either encoding gives the same visits in the same order, and only
//! `Ok` from a decoder means that all of it was visited. After `Err` the visits so far must be thrown away.

pub mod json;
pub mod wire;

use std::borrow::Cow;
use std::fmt;

/// What a decoder reports: a resource, its attributes, then its scopes, each followed by its spans. The
/// attributes and links of a span come before the span, which ends them.
pub trait TraceVisitor {
    /// A new `ResourceSpans` begins. It may turn out to hold no attributes, no scopes and no spans.
    fn resource(&mut self);

    /// One attribute of the resource that began last. A repeated key is reported again: the last one counts.
    fn resource_attribute(&mut self, key: Text<'_>, value: Value<'_>);

    /// A new `ScopeSpans` begins; name and version are empty where the request has none.
    fn scope(&mut self, name: Text<'_>, version: Text<'_>);

    /// One attribute of the span that [`Self::span`] reports next, in the order of the request.
    fn span_attribute(&mut self, key: Text<'_>, value: Value<'_>);

    /// One link of the span that [`Self::span`] reports next. The ids are as unchecked as those of a span.
    fn span_link(&mut self, trace_id: &[u8], span_id: &[u8]);

    /// A span, after all its attributes and links.
    fn span(&mut self, span: SpanFields<'_>);
}

/// The scalar fields of one span, at their protobuf default where the request has none.
///
/// Ids are the bytes as they came, of any length; a good trace id has 16, a good span id 8, and neither is
/// all zero. An empty `parent_span_id` means a root. Protobuf enums are open: `kind` and `status_code` may
/// hold numbers that have no name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanFields<'a> {
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub parent_span_id: &'a [u8],
    pub trace_state: Text<'a>,
    pub name: Text<'a>,
    pub kind: i32,
    pub flags: u32,
    /// Nanoseconds since 1970 by the sender's clock; any value may come.
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970 by the sender's clock; may lie before the start.
    pub end_time_unix_nano: u64,
    pub status_code: i32,
    pub status_message: Text<'a>,
}

/// Stands for an id that is written in a way nobody can read (in JSON: not hexadecimal, or longer than any
/// id). Its length is that of no id, so that whoever judges ids refuses the span; it is not empty, since an
/// empty parent would make the span a root.
pub const UNREADABLE_ID: &[u8] = &[0];

/// An attribute value, as far as it can be compared with anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Str(Text<'a>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// An array, a list of pairs, a reference into a string table, or no value at all.
    Other,
}

/// Text of a request that nobody has checked yet.
///
/// Checking UTF-8 costs more than all the rest of decoding a span, and few of its texts are ever looked at:
/// compare and intern the bytes, and read the text at first sight only.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Text that should be UTF-8; it need not be.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes as they came. Equal texts have equal bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text, borrowed when it is UTF-8; else a copy with U+FFFD for what is not.
    pub fn read(self) -> Cow<'a, str> {
        match std::str::from_utf8(self.0) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(self.0),
        }
    }

    /// Whether there is no text.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(formatter)
    }
}

/// Why a request cannot be decoded. Sending the same bytes again gives the same error: never retryable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// `offset` is the byte of the request, counted from 0, where reading stopped.
    #[error("decoding OTLP protobuf at byte {offset}: {problem}")]
    Protobuf { offset: usize, problem: wire::Problem },
    /// `line` and `column` count from 1; `problem` leads with the JSON keys on the way there.
    #[error("decoding OTLP JSON at line {line} column {column}: {problem}")]
    Json { line: usize, column: usize, problem: String },
}

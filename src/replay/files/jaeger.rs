//! Jaeger's JSON export as OTLP: `{"data": [TRACE...]}` as the query service answers and its UI downloads it, or
//! one trace of that alone.
//!
//! Follows the OpenTelemetry specification's "OpenTelemetry to Jaeger Transformation" and "Transformation to
//! non-OTLP Formats" backwards, and where they leave a choice, the Collector's `pkg/translator/jaeger`. What no
//! decoder here reports (logs, warnings) is left out. Does not judge: a span with ids that nobody can read is
//! translated with ids that nobody takes, so that it is counted and refused where all spans are.
//!
//! Invariant: every span of a trace becomes one span.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, Status, TracesData};
use prost::Message;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Piece, Place, Problem, Request};
use crate::mapping::otlp::UNREADABLE_ID;
use crate::mapping::otlp::json::bytes_of_base64;

/// The most of a JSON decoder's message that is shown: it may quote the file.
const SHOWN_CHARS: usize = 200;

/// The name that stands for none: the Collector writes it where a resource has no attributes.
const NO_SERVICE_NAME: &str = "OTLPResourceNoServiceName";

/// An export whose traces are translated one by one.
#[derive(Debug)]
pub(super) struct Export {
    text: Vec<u8>,
    /// The line on which the text begins.
    line: u64,
    /// Where the traces stand in the text.
    traces: std::vec::IntoIter<Range<usize>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Option<Vec<&'a RawValue>>,
    /// Those of one trace, without the envelope.
    #[serde(borrow)]
    spans: Option<&'a RawValue>,
}

impl Export {
    /// The export that begins at `place`.
    pub(super) fn new(place: Place, text: Vec<u8>) -> Result<Self, Problem> {
        // Of a message behind a length no line is known; it is text all the same, and has lines of its own.
        let line = if let Place::Line(line) = place { line } else { 1 };
        let traces = match serde_json::from_slice::<Answer<'_>>(&text) {
            Ok(Answer { data: Some(traces), .. }) => {
                traces.into_iter().map(|trace| range(trace, &text)).collect()
            }
            Ok(Answer { spans: Some(_), .. }) => std::iter::once(0..text.len()).collect(),
            // What Jaeger answers when it finds nothing.
            Ok(Answer { .. }) => Vec::new(),
            Err(error) => return Err(problem(&error, line, &text, 0)),
        };
        Ok(Export { text, line, traces: traces.into_iter() })
    }

    /// The next trace as a request.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Problem> {
        let Some(range) = self.traces.next() else { return Ok(None) };
        let start = range.start;
        let trace: Trace<'_> = serde_json::from_slice(&self.text[range])
            .map_err(|error| problem(&error, self.line, &self.text, start))?;
        let place = Place::Line(self.line + line_breaks(&self.text[..start]));
        Ok(Some(Piece { place, request: Request::Protobuf(trace.translate().encode_to_vec()) }))
    }
}

/// Where a part of `text` stands in it.
fn range(part: &RawValue, text: &[u8]) -> Range<usize> {
    let start = part.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.get().len()
}

/// An error in the part of `text` from `start` on, with its place in the file.
fn problem(error: &serde_json::Error, line: u64, text: &[u8], start: usize) -> Problem {
    let before = &text[..start];
    let indent = before.iter().rev().take_while(|&&byte| byte != b'\n').count();
    let column = error.column() + if error.line() == 1 { indent } else { 0 };
    let line = line + line_breaks(before) + (error.line() as u64).saturating_sub(1);
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    Problem::Jaeger { line, column, found: message.chars().take(SHOWN_CHARS).collect() }
}

fn line_breaks(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[derive(Deserialize)]
struct Trace<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    spans: Vec<Span<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    processes: BTreeMap<Cow<'a, str>, Process<'a>>,
}

#[derive(Default, Deserialize)]
struct Process<'a> {
    #[serde(borrow, default, rename = "serviceName")]
    service_name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    tags: Vec<Tag<'a>>,
}

#[derive(Deserialize)]
struct Span<'a> {
    #[serde(borrow, rename = "traceID")]
    trace_id: Cow<'a, str>,
    #[serde(borrow, rename = "spanID")]
    span_id: Cow<'a, str>,
    /// Old exports have it instead of a reference.
    #[serde(borrow, default, rename = "parentSpanID")]
    parent_span_id: Cow<'a, str>,
    #[serde(borrow, rename = "operationName")]
    operation_name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    references: Vec<Reference<'a>>,
    /// Microseconds since 1970.
    #[serde(rename = "startTime")]
    start_time: u64,
    /// Microseconds.
    duration: u64,
    #[serde(borrow, default, deserialize_with = "or_default")]
    tags: Vec<Tag<'a>>,
    #[serde(borrow, default, rename = "processID")]
    process_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow, rename = "refType")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "traceID")]
    trace_id: Cow<'a, str>,
    #[serde(borrow, rename = "spanID")]
    span_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    value: serde_json::Value,
}

/// Go writes a list that was never made as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The spans of one scope, by its name and version.
type Scopes = BTreeMap<(String, String), Vec<otlp::Span>>;

impl<'a> Trace<'a> {
    fn translate(self) -> TracesData {
        let mut resources: BTreeMap<Cow<'a, str>, Scopes> = BTreeMap::new();
        for span in self.spans {
            let process_id = span.process_id.clone();
            let (scope, span) = span.translate();
            resources.entry(process_id).or_default().entry(scope).or_default().push(span);
        }
        let mut processes = self.processes;
        let resource_spans = resources.into_iter().map(|(process_id, scopes)| ResourceSpans {
            resource: Some(processes.remove(&process_id).unwrap_or_default().translate()),
            scope_spans: scopes.into_iter().map(scope_spans).collect(),
            ..ResourceSpans::default()
        });
        TracesData { resource_spans: resource_spans.collect() }
    }
}

fn scope_spans(((name, version), spans): ((String, String), Vec<otlp::Span>)) -> ScopeSpans {
    let scope = InstrumentationScope { name, version, ..InstrumentationScope::default() };
    ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }
}

impl Process<'_> {
    fn translate(self) -> Resource {
        let has_name = !self.service_name.is_empty() && self.service_name != NO_SERVICE_NAME;
        let name = Value::StringValue(self.service_name.into_owned());
        let name = has_name.then(|| attribute("service.name".to_owned(), name));
        let attributes = name.into_iter().chain(self.tags.into_iter().map(Tag::translate)).collect();
        Resource { attributes, ..Resource::default() }
    }
}

impl Span<'_> {
    /// The scope and the span.
    fn translate(self) -> ((String, String), otlp::Span) {
        const NANOSECONDS: u64 = 1000;
        let (parent_span_id, links) = self.relatives();
        let told = Told::by(self.tags);
        let span = otlp::Span {
            trace_id: trace_id(&self.trace_id),
            span_id: span_id(&self.span_id),
            parent_span_id,
            trace_state: told.trace_state,
            name: self.operation_name.into_owned(),
            kind: told.kind.into(),
            start_time_unix_nano: self.start_time.saturating_mul(NANOSECONDS),
            end_time_unix_nano: self.start_time.saturating_add(self.duration).saturating_mul(NANOSECONDS),
            attributes: told.attributes,
            links,
            status: Some(Status { code: told.status.into(), message: told.status_message }),
            ..otlp::Span::default()
        };
        (told.scope, span)
    }

    /// The parent's id, empty if there is none, and links to whatever else the span refers to.
    fn relatives(&self) -> (Vec<u8>, Vec<Link>) {
        let parent = self.parent();
        let others = self.references.iter().enumerate().filter(|(index, _)| Some(*index) != parent);
        let links = others.map(|(_, reference)| Link {
            trace_id: trace_id(&reference.trace_id),
            span_id: span_id(&reference.span_id),
            ..Link::default()
        });
        let parent = parent.map_or(&self.parent_span_id, |index| &self.references[index].span_id);
        let mut parent = span_id(parent);
        // Jaeger's ids are numbers, and 0 is none.
        if parent == [0; 8] {
            parent.clear();
        }
        (parent, links.collect())
    }

    /// Which reference is the parent: the first to a span that waits for this one, or else to one that this one
    /// comes after, in the same trace.
    fn parent(&self) -> Option<usize> {
        let trace = trace_id(&self.trace_id);
        let first = |kind| {
            let is_it =
                |reference: &Reference<'_>| reference.kind == kind && trace_id(&reference.trace_id) == trace;
            self.references.iter().position(is_it)
        };
        first("CHILD_OF").or_else(|| first("FOLLOWS_FROM"))
    }
}

/// What the tags of a span say.
#[derive(Default)]
struct Told {
    kind: SpanKind,
    status: StatusCode,
    status_message: String,
    trace_state: String,
    scope: (String, String),
    /// What nothing else is made of.
    attributes: Vec<KeyValue>,
}

impl Told {
    fn by(tags: Vec<Tag<'_>>) -> Self {
        let mut told = Told::default();
        for tag in tags {
            if !told.take(&tag) {
                told.attributes.push(tag.translate());
            }
        }
        told
    }

    /// Whether the tag is no attribute but something that OTLP has a field for.
    fn take(&mut self, tag: &Tag<'_>) -> bool {
        let text = tag.value.as_str();
        let take = |field: &mut String| text.map(|text| text.clone_into(field)).is_some();
        match &*tag.key {
            "span.kind" => text.and_then(span_kind).map(|kind| self.kind = kind).is_some(),
            "otel.scope.name" | "otel.library.name" => take(&mut self.scope.0),
            "otel.scope.version" | "otel.library.version" => take(&mut self.scope.1),
            "otel.status_description" => take(&mut self.status_message),
            "w3c.tracestate" => take(&mut self.trace_state),
            "otel.status_code" => text.and_then(status_code).map(|code| self.set_status(code)).is_some(),
            "error" => {
                tag.says_true() && {
                    self.set_status(StatusCode::Error);
                    true
                }
            }
            _ => false,
        }
    }

    /// Sets the status, whichever of two tags comes first: an error stays one.
    fn set_status(&mut self, code: StatusCode) {
        if self.status != StatusCode::Error {
            self.status = code;
        }
    }
}

fn span_kind(text: &str) -> Option<SpanKind> {
    match text {
        "internal" => Some(SpanKind::Internal),
        "server" => Some(SpanKind::Server),
        "client" => Some(SpanKind::Client),
        "producer" => Some(SpanKind::Producer),
        "consumer" => Some(SpanKind::Consumer),
        _ => None,
    }
}

fn status_code(text: &str) -> Option<StatusCode> {
    match text.to_ascii_uppercase().as_str() {
        "OK" => Some(StatusCode::Ok),
        "ERROR" => Some(StatusCode::Error),
        _ => None,
    }
}

impl Tag<'_> {
    /// Old clients write `error` as text, and the UI takes it.
    fn says_true(&self) -> bool {
        self.value == true || self.value == "true"
    }

    fn translate(self) -> KeyValue {
        let value = match self.value {
            serde_json::Value::Bool(bool) => Value::BoolValue(bool),
            serde_json::Value::Number(number) => number_value(&number, &self.kind),
            serde_json::Value::String(text) => text_value(text, &self.kind),
            other => Value::StringValue(other.to_string()),
        };
        attribute(self.key.into_owned(), value)
    }
}

/// A `float64` without a fraction is written like an integer.
fn number_value(number: &serde_json::Number, kind: &str) -> Value {
    let integer = number.as_i64().filter(|_| kind != "float64").map(Value::IntValue);
    let double = || number.as_f64().map(Value::DoubleValue);
    integer.or_else(double).unwrap_or_else(|| Value::StringValue(number.to_string()))
}

/// Integers beyond 2^53, which JavaScript cannot hold, are written as text, bytes in base64, and in Elasticsearch's
/// documents everything is text.
fn text_value(text: String, kind: &str) -> Value {
    let typed = match kind {
        "int64" => text.parse().ok().map(Value::IntValue),
        "float64" => text.parse().ok().map(Value::DoubleValue),
        "bool" => text.parse().ok().map(Value::BoolValue),
        "binary" => bytes_of_base64(text.as_bytes()).map(Value::BytesValue),
        _ => None,
    };
    typed.unwrap_or(Value::StringValue(text))
}

fn attribute(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn trace_id(text: &str) -> Vec<u8> {
    id::<16>(text)
}

fn span_id(text: &str) -> Vec<u8> {
    id::<8>(text)
}

/// A hexadecimal number as bytes. Jaeger leaves out the upper half of a 64-bit trace id, and used to leave out all
/// leading zeros.
fn id<const BYTES: usize>(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let is_id = text.len() <= 2 * BYTES && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(number) if is_id => number.to_be_bytes()[16 - BYTES..].to_vec(),
        _ => UNREADABLE_ID.to_vec(),
    }
}

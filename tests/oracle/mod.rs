//! What the two OTLP decoders should report, told by prost and `opentelemetry-proto`, which decode everything into
//! structs. Used by the tests of the decoders and by the fuzz targets.
//!
//! Two oracles are used for protobuf. The full one is the generated `ExportTraceServiceRequest`. The pruned
//! one has the same fields, but bytes where the full one has text or a message that the walker skips: it is
//! what the walker is allowed to accept, exactly.

#![allow(dead_code, reason = "each test and each fuzz target uses its own part")]

use latency_aggregator::mapping::otlp::{DecodeError, SpanFields, Text, TraceVisitor, Value, json, wire};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

// What was seen, in a form that can be compared.

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct SeenResource {
    pub(crate) attributes: Vec<(String, SeenValue)>,
    pub(crate) scopes: Vec<SeenScope>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct SeenScope {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) spans: Vec<SeenSpan>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct SeenSpan {
    pub(crate) attributes: Vec<(String, SeenValue)>,
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) ids: [Vec<u8>; 3],
    /// Trace state, name, status message.
    pub(crate) texts: [String; 3],
    pub(crate) kind: i32,
    pub(crate) flags: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) status: i32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SeenValue {
    Str(String),
    Bool(bool),
    Int(i64),
    /// The bits, so that NaN equals itself.
    Double(u64),
    Bytes(Vec<u8>),
    Other,
}

impl From<Value<'_>> for SeenValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Str(text) => Self::Str(text.read().into_owned()),
            Value::Bool(bool) => Self::Bool(bool),
            Value::Int(integer) => Self::Int(integer),
            Value::Double(double) => Self::Double(double.to_bits()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Value::Other => Self::Other,
        }
    }
}

/// Panics when the visits do not come in the promised order.
#[derive(Default)]
struct Recorder {
    resources: Vec<SeenResource>,
    next: SeenSpan,
}

impl Recorder {
    fn resource(&mut self) -> &mut SeenResource {
        assert_eq!(self.next, SeenSpan::default(), "attributes or links without a span");
        self.resources.last_mut().expect("a resource is reported before what it holds")
    }
}

impl TraceVisitor for Recorder {
    fn resource(&mut self) {
        assert_eq!(self.next, SeenSpan::default(), "attributes or links without a span");
        self.resources.push(SeenResource::default());
    }

    fn resource_attribute(&mut self, key: Text<'_>, value: Value<'_>) {
        let resource = Self::resource(self);
        assert!(resource.scopes.is_empty(), "a resource is reported whole before its scopes");
        resource.attributes.push((key.read().into_owned(), value.into()));
    }

    fn scope(&mut self, name: Text<'_>, version: Text<'_>) {
        let (name, version) = (name.read().into_owned(), version.read().into_owned());
        Self::resource(self).scopes.push(SeenScope { name, version, spans: Vec::new() });
    }

    fn span_attribute(&mut self, key: Text<'_>, value: Value<'_>) {
        self.next.attributes.push((key.read().into_owned(), value.into()));
    }

    fn span_link(&mut self, trace_id: &[u8], span_id: &[u8]) {
        self.next.links.push((trace_id.to_vec(), span_id.to_vec()));
    }

    fn span(&mut self, span: SpanFields<'_>) {
        let seen = SeenSpan {
            ids: [span.trace_id, span.span_id, span.parent_span_id].map(<[u8]>::to_vec),
            texts: [span.trace_state, span.name, span.status_message].map(|text| text.read().into_owned()),
            kind: span.kind,
            flags: span.flags,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            status: span.status_code,
            ..std::mem::take(&mut self.next)
        };
        let scope = Self::resource(self).scopes.last_mut().expect("a scope is reported before its spans");
        scope.spans.push(seen);
    }
}

pub(crate) fn walk_wire(request: &[u8]) -> Result<Vec<SeenResource>, DecodeError> {
    let mut recorder = Recorder::default();
    wire::walk(request, &mut recorder)?;
    Ok(recorder.resources)
}

pub(crate) fn walk_json(body: impl AsRef<[u8]>) -> Result<Vec<SeenResource>, DecodeError> {
    let mut recorder = Recorder::default();
    json::walk(body.as_ref(), &mut recorder)?;
    Ok(recorder.resources)
}

// What should be seen, by the generated structs.

pub(crate) fn expected(request: &ExportTraceServiceRequest) -> Vec<SeenResource> {
    let scope = |scope_spans: &ScopeSpans| SeenScope {
        name: scope_spans.scope.as_ref().map(|scope| scope.name.clone()).unwrap_or_default(),
        version: scope_spans.scope.as_ref().map(|scope| scope.version.clone()).unwrap_or_default(),
        spans: scope_spans.spans.iter().map(expected_span).collect(),
    };
    let resource = |resource_spans: &ResourceSpans| SeenResource {
        attributes: resource_spans
            .resource
            .as_ref()
            .map(|resource| expected_attributes(&resource.attributes))
            .unwrap_or_default(),
        scopes: resource_spans.scope_spans.iter().map(scope).collect(),
    };
    request.resource_spans.iter().map(resource).collect()
}

fn expected_span(span: &Span) -> SeenSpan {
    let status = span.status.clone().unwrap_or_default();
    SeenSpan {
        attributes: expected_attributes(&span.attributes),
        links: span.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone())).collect(),
        ids: [span.trace_id.clone(), span.span_id.clone(), span.parent_span_id.clone()],
        texts: [span.trace_state.clone(), span.name.clone(), status.message],
        kind: span.kind,
        flags: span.flags,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        status: status.code,
    }
}

fn expected_attributes(attributes: &[KeyValue]) -> Vec<(String, SeenValue)> {
    let value = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.clone()) {
        Some(any_value::Value::StringValue(text)) => SeenValue::Str(text),
        Some(any_value::Value::BoolValue(bool)) => SeenValue::Bool(bool),
        Some(any_value::Value::IntValue(integer)) => SeenValue::Int(integer),
        Some(any_value::Value::DoubleValue(double)) => SeenValue::Double(double.to_bits()),
        Some(any_value::Value::BytesValue(bytes)) => SeenValue::Bytes(bytes),
        Some(
            any_value::Value::ArrayValue(_)
            | any_value::Value::KvlistValue(_)
            | any_value::Value::StringValueStrindex(_),
        )
        | None => SeenValue::Other,
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

/// The request as the walker may read it: text need not be UTF-8, skipped messages need not be messages.
mod pruned {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(crate) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(crate) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) scope_spans: Vec<ScopeSpans>,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) schema_url: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(crate) attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "2")]
        pub(crate) dropped_attributes_count: u32,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(crate) entity_refs: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ScopeSpans {
        #[prost(message, optional, tag = "1")]
        pub(crate) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) spans: Vec<Span>,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) schema_url: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Scope {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) version: Vec<u8>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "4")]
        pub(crate) dropped_attributes_count: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) trace_state: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(crate) parent_span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "5")]
        pub(crate) name: Vec<u8>,
        #[prost(int32, tag = "6")]
        pub(crate) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(crate) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")]
        pub(crate) end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")]
        pub(crate) attributes: Vec<KeyValue>,
        #[prost(uint32, tag = "10")]
        pub(crate) dropped_attributes_count: u32,
        #[prost(bytes = "vec", repeated, tag = "11")]
        pub(crate) events: Vec<Vec<u8>>,
        #[prost(uint32, tag = "12")]
        pub(crate) dropped_events_count: u32,
        #[prost(message, repeated, tag = "13")]
        pub(crate) links: Vec<Link>,
        #[prost(uint32, tag = "14")]
        pub(crate) dropped_links_count: u32,
        #[prost(message, optional, tag = "15")]
        pub(crate) status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub(crate) flags: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Link {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) trace_state: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(crate) attributes: Vec<Vec<u8>>,
        #[prost(uint32, tag = "5")]
        pub(crate) dropped_attributes_count: u32,
        #[prost(fixed32, tag = "6")]
        pub(crate) flags: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Status {
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) message: Vec<u8>,
        #[prost(int32, tag = "3")]
        pub(crate) code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct KeyValue {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) key: Vec<u8>,
        #[prost(message, optional, tag = "2")]
        pub(crate) value: Option<AnyValue>,
        #[prost(int32, tag = "3")]
        pub(crate) key_strindex: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct AnyValue {
        #[prost(oneof = "OneValue", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
        pub(crate) value: Option<OneValue>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum OneValue {
        #[prost(bytes, tag = "1")]
        String(Vec<u8>),
        #[prost(bool, tag = "2")]
        Bool(bool),
        #[prost(int64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(message, tag = "5")]
        Array(ArrayValue),
        #[prost(message, tag = "6")]
        Pairs(KeyValueList),
        #[prost(bytes, tag = "7")]
        Bytes(Vec<u8>),
        #[prost(int32, tag = "8")]
        StringIndex(i32),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ArrayValue {
        #[prost(message, repeated, tag = "1")]
        pub(crate) values: Vec<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct KeyValueList {
        #[prost(message, repeated, tag = "1")]
        pub(crate) values: Vec<KeyValue>,
    }
}

fn expected_of_pruned(request: &pruned::Request) -> Vec<SeenResource> {
    let scope = |scope_spans: &pruned::ScopeSpans| {
        let scope = scope_spans.scope.clone().unwrap_or_default();
        let spans = scope_spans.spans.iter().map(expected_of_pruned_span).collect();
        SeenScope { name: replaced(&scope.name), version: replaced(&scope.version), spans }
    };
    let resource = |resource_spans: &pruned::ResourceSpans| SeenResource {
        attributes: expected_of_pruned_attributes(
            &resource_spans.resource.clone().unwrap_or_default().attributes,
        ),
        scopes: resource_spans.scope_spans.iter().map(scope).collect(),
    };
    request.resource_spans.iter().map(resource).collect()
}

fn expected_of_pruned_span(span: &pruned::Span) -> SeenSpan {
    let status = span.status.clone().unwrap_or_default();
    SeenSpan {
        attributes: expected_of_pruned_attributes(&span.attributes),
        links: span.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone())).collect(),
        ids: [span.trace_id.clone(), span.span_id.clone(), span.parent_span_id.clone()],
        texts: [replaced(&span.trace_state), replaced(&span.name), replaced(&status.message)],
        kind: span.kind,
        flags: span.flags,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        status: status.code,
    }
}

fn expected_of_pruned_attributes(attributes: &[pruned::KeyValue]) -> Vec<(String, SeenValue)> {
    use pruned::OneValue;
    let value = |attribute: &pruned::KeyValue| match attribute.value.clone().and_then(|value| value.value) {
        Some(OneValue::String(text)) => SeenValue::Str(replaced(&text)),
        Some(OneValue::Bool(bool)) => SeenValue::Bool(bool),
        Some(OneValue::Int(integer)) => SeenValue::Int(integer),
        Some(OneValue::Double(double)) => SeenValue::Double(double.to_bits()),
        Some(OneValue::Bytes(bytes)) => SeenValue::Bytes(bytes),
        Some(OneValue::Array(_) | OneValue::Pairs(_) | OneValue::StringIndex(_)) | None => SeenValue::Other,
    };
    attributes.iter().map(|attribute| (replaced(&attribute.key), value(attribute))).collect()
}

fn replaced(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// The one rule for protobuf: exactly what the pruned request is, and all that the full request is.
pub(crate) fn check_wire(request: &[u8]) {
    let walked = walk_wire(request);
    match pruned::Request::decode(request) {
        Ok(pruned) => assert_eq!(walked.as_ref(), Ok(&expected_of_pruned(&pruned)), "pruned, {request:02x?}"),
        Err(error) => assert!(walked.is_err(), "prost refuses ({error}) what was walked: {request:02x?}"),
    }
    if let Ok(full) = ExportTraceServiceRequest::decode(request) {
        assert_eq!(walked, Ok(expected(&full)), "full, {request:02x?}");
    }
}

/// The one rule for any bytes as JSON: an error has a place in them. Returns what was seen without one.
pub(crate) fn check_json(body: &[u8]) -> Option<Vec<SeenResource>> {
    match walk_json(body) {
        Ok(seen) => Some(seen),
        Err(DecodeError::Json { line, column, .. }) => {
            let lines = 1 + body.iter().filter(|&&byte| byte == b'\n').count();
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!(column <= body.len() + 1, "column {column} of {}", body.len());
            None
        }
        Err(other) => panic!("not a JSON error: {other}"),
    }
}

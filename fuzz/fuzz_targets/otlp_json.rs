//! OTLP/JSON: an error has a place in the body, and what is accepted is what the same request is in protobuf, and
//! in the JSON that `opentelemetry-proto` writes of it.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use latency_aggregator::mapping::otlp::UNREADABLE_ID;
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use oracle::{SeenResource, SeenScope, SeenSpan, SeenValue, check_json, expected, walk_json, walk_wire};
use prost::Message;

fuzz_target!(|body: &[u8]| {
    let Some(seen) = check_json(body) else { return };
    let request = request(&seen);
    assert_eq!(walk_wire(&request.encode_to_vec()).as_ref(), Ok(&seen));
    assert_eq!(expected(&request), seen);
    if are_doubles_exact(&seen) {
        let written = serde_json::to_vec(&request).expect("the request has a JSON form");
        assert_eq!(walk_json(&written).as_ref(), Ok(&seen));
    }
    if let Ok(theirs) = serde_json::from_slice::<ExportTraceServiceRequest>(body) {
        assert_eq!(seen, without_unreadable_ids(expected(&theirs), &seen));
    }
});

/// Ids that nobody can read are one and the same here, and may be something there: long ones, and those behind `0x`.
fn without_unreadable_ids(mut theirs: Vec<SeenResource>, seen: &[SeenResource]) -> Vec<SeenResource> {
    let ours = seen.iter().flat_map(|seen| &seen.scopes).flat_map(|scope| &scope.spans).flat_map(ids);
    let spans = theirs.iter_mut().flat_map(|seen| &mut seen.scopes).flat_map(|scope| &mut scope.spans);
    let ids = spans.flat_map(|span| {
        let of_links = span.links.iter_mut().flat_map(|(trace_id, span_id)| [trace_id, span_id]);
        span.ids.iter_mut().chain(of_links)
    });
    for (id, _) in ids.zip(ours).filter(|(_, ours)| *ours == UNREADABLE_ID) {
        *id = UNREADABLE_ID.to_vec();
    }
    theirs
}

fn ids(span: &SeenSpan) -> impl Iterator<Item = &Vec<u8>> {
    span.ids.iter().chain(span.links.iter().flat_map(|(trace_id, span_id)| [trace_id, span_id]))
}

/// Whether every double is the same in binary and decimal, whoever converts it.
fn are_doubles_exact(seen: &[SeenResource]) -> bool {
    let spans = seen.iter().flat_map(|resource| &resource.scopes).flat_map(|scope| &scope.spans);
    let attributes =
        seen.iter().map(|resource| &resource.attributes).chain(spans.map(|span| &span.attributes));
    attributes.flatten().all(|(_, value)| match value {
        SeenValue::Double(bits) => {
            let eighths = f64::from_bits(*bits) * 8.0;
            eighths.fract() == 0.0 && eighths.abs() < f64::from(i32::MAX)
        }
        _ => true,
    })
}

/// A request in which this is seen.
fn request(seen: &[SeenResource]) -> ExportTraceServiceRequest {
    let resource_spans = seen.iter().map(|seen| ResourceSpans {
        resource: Some(Resource { attributes: attributes(&seen.attributes), ..Resource::default() }),
        scope_spans: seen.scopes.iter().map(scope_spans).collect(),
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn scope_spans(seen: &SeenScope) -> ScopeSpans {
    let scope = InstrumentationScope {
        name: seen.name.clone(),
        version: seen.version.clone(),
        ..InstrumentationScope::default()
    };
    ScopeSpans { scope: Some(scope), spans: seen.spans.iter().map(span).collect(), ..ScopeSpans::default() }
}

fn span(seen: &SeenSpan) -> Span {
    let [trace_id, span_id, parent_span_id] = seen.ids.clone();
    let [trace_state, name, message] = seen.texts.clone();
    let link = |(trace_id, span_id): &(Vec<u8>, Vec<u8>)| Link {
        trace_id: trace_id.clone(),
        span_id: span_id.clone(),
        ..Link::default()
    };
    Span {
        trace_id,
        span_id,
        parent_span_id,
        trace_state,
        name,
        kind: seen.kind,
        flags: seen.flags,
        start_time_unix_nano: seen.start,
        end_time_unix_nano: seen.end,
        attributes: attributes(&seen.attributes),
        links: seen.links.iter().map(link).collect(),
        status: Some(Status { message, code: seen.status }),
        ..Span::default()
    }
}

fn attributes(seen: &[(String, SeenValue)]) -> Vec<KeyValue> {
    let value = |value: &SeenValue| match value {
        SeenValue::Str(text) => Some(Value::StringValue(text.clone())),
        SeenValue::Bool(bool) => Some(Value::BoolValue(*bool)),
        SeenValue::Int(integer) => Some(Value::IntValue(*integer)),
        SeenValue::Double(bits) => Some(Value::DoubleValue(f64::from_bits(*bits))),
        SeenValue::Bytes(bytes) => Some(Value::BytesValue(bytes.clone())),
        SeenValue::Other => None,
    };
    let attribute = |(key, seen): &(String, SeenValue)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue { value: value(seen) }),
        ..KeyValue::default()
    };
    seen.iter().map(attribute).collect()
}

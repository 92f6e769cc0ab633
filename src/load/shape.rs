//! What is sent: requests that are encoded once, and the places of the ids that each of them gets anew.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// How the spans of traces lie in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Whole traces, one behind the other.
    Adjacent,
    /// Whole traces, the first spans of all, then the second ones, and so on.
    Interleaved,
    /// Each span of a trace in a request of its own.
    Split,
}

/// Requests to send over and over.
#[derive(Debug)]
pub(super) struct Shape {
    /// What brings whole traces: each of these as often as there are chunks, and then the next one.
    requests: Vec<Template>,
    /// How many chunks of traces are open at once.
    chunks: u64,
    /// How many traces a chunk has.
    traces: u64,
    events: u64,
    run: u32,
}

#[derive(Debug)]
struct Template {
    body: Vec<u8>,
    /// Where a trace id stands, and which of the group's it is.
    ids: Vec<(usize, u64)>,
}

/// Stands for the first bytes of a trace id, until it is known; nothing else in a request looks like it.
const MARK: &[u8; 12] = b"\xff\xfemark of id";
/// How long pushed ids are.
const ID_DIGITS: usize = 32;

impl Shape {
    /// OTLP requests of `spans` spans, of traces with `trace_spans` each. Of split traces `open` are open at once, or as
    /// many as a request has spans.
    pub(super) fn spans(spans: usize, trace_spans: usize, layout: Layout, open: usize) -> Self {
        let trace_spans = trace_spans.max(1);
        let traces = match layout {
            Layout::Split => spans,
            Layout::Adjacent | Layout::Interleaved => spans.div_ceil(trace_spans),
        };
        let parts = match layout {
            Layout::Split => trace_spans,
            Layout::Adjacent | Layout::Interleaved => 1,
        };
        let request = |part: usize| {
            let place = |place: usize| match layout {
                Layout::Adjacent => (place / trace_spans, place % trace_spans),
                Layout::Interleaved => (place % traces, place / traces),
                Layout::Split => (place, part),
            };
            // The last trace of a request may be cut: then its root would be missing.
            let total = match layout {
                Layout::Split => spans,
                Layout::Adjacent | Layout::Interleaved => traces * trace_spans,
            };
            let spans = (0..total).map(place).map(|(trace, part)| span(trace, part, trace_spans)).collect();
            Template::new(export(spans).encode_to_vec())
        };
        let requests: Vec<Template> = (0..parts).map(request).collect();
        let events = requests.first().map_or(0, |request| request.ids.len() as u64);
        let chunks = if layout == Layout::Split { open.div_ceil(spans).max(1) as u64 } else { 1 };
        Shape { requests, chunks, traces: traces as u64, events, run: run() }
    }

    /// Pushes of a flow `load` with `stages` events, of which the last ends it.
    pub(super) fn pushes(stages: usize) -> Self {
        let push = |stage: usize| {
            let id = "0".repeat(ID_DIGITS);
            let end = if stage + 1 == stages { ",\"final\":true" } else { "" };
            let body =
                format!(r#"{{"id":"{id}","name":"load","stage":"stage-{stage}","life_span":10{end}}}"#);
            Template { body: body.into_bytes(), ids: vec![(r#"{"id":""#.len(), 0)] }
        };
        Shape { requests: (0..stages).map(push).collect(), chunks: 1, traces: 1, events: 1, run: run() }
    }

    /// Whether all traces are whole that have been begun before the request with this number.
    pub(super) fn is_whole_before(&self, number: u32) -> bool {
        u64::from(number).is_multiple_of(self.group())
    }

    /// How many requests bring whole traces.
    fn group(&self) -> u64 {
        self.requests.len() as u64 * self.chunks
    }

    /// How many events a request has.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The request with this number of a worker. No two requests of a run have a trace in common but those of a group.
    pub(super) fn request(&self, worker: u32, number: u32) -> Vec<u8> {
        let number = u64::from(number);
        let (group, place) = (number / self.group(), number % self.group());
        let template = &self.requests[(place / self.chunks) as usize];
        let first = (group * self.chunks + place % self.chunks) * self.traces;
        let mut body = template.body.clone();
        for (place, trace) in &template.ids {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&self.run.to_be_bytes());
            id[4..8].copy_from_slice(&worker.to_be_bytes());
            id[8..].copy_from_slice(&(first + trace + 1).to_be_bytes());
            if body[*place..].starts_with(MARK) {
                body[*place..place + 16].copy_from_slice(&id);
            } else {
                let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                body[*place..place + ID_DIGITS].copy_from_slice(digits.as_bytes());
            }
        }
        body
    }
}

impl Template {
    fn new(body: Vec<u8>) -> Self {
        let marks = body.windows(MARK.len()).enumerate().filter(|(_, bytes)| bytes == MARK);
        let ids = marks.map(|(place, _)| {
            let number = &body[place + MARK.len()..place + 16];
            (place, number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        });
        Template { ids: ids.collect(), body }
    }
}

/// Tells runs apart, so that no trace of an earlier one is met again.
fn run() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// Span `part` of `parts` of a trace; the last one is the root, for it ends last.
fn span(trace: usize, part: usize, parts: usize) -> Span {
    let id = |part: usize| (part as u64 + 1).to_be_bytes().to_vec();
    let is_root = part + 1 == parts;
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let length = (part as u64 + 1) * 10_000_000;
    let mut trace_id = MARK.to_vec();
    trace_id.extend((trace as u32).to_be_bytes());
    Span {
        trace_id,
        span_id: id(part),
        parent_span_id: if is_root { Vec::new() } else { id(parts - 1) },
        name: if is_root { "POST /orders" } else { "SELECT orders" }.to_owned(),
        kind: if is_root { SpanKind::Server } else { SpanKind::Client }.into(),
        start_time_unix_nano: end - length,
        end_time_unix_nano: end,
        attributes: vec![
            text("http.request.method", "POST"),
            text("http.route", "/orders/{id}/items"),
            attribute("http.response.status_code", Value::IntValue(200)),
            text("server.address", "orders.shop.svc.cluster.local"),
            attribute("server.port", Value::IntValue(8080)),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
            text("url.path", "/orders/4711/items"),
        ],
        ..Span::default()
    }
}

fn export(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "orders"),
            text("service.version", "1.4.2"),
            text("host.name", "worker-3"),
            text("telemetry.sdk.language", "rust"),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "load".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn decode(body: &[u8]) -> Vec<Span> {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }

    #[test]
    fn every_layout_brings_whole_traces_and_no_two_workers_the_same() {
        let layouts =
            [(Layout::Adjacent, 0), (Layout::Interleaved, 0), (Layout::Split, 0), (Layout::Split, 24)];
        for (layout, open) in layouts {
            let shape = Shape::spans(12, 4, layout, open);
            let mut traces: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
            let mut spans = 0;
            for (worker, number) in (0..2).flat_map(|worker| (0..8).map(move |number| (worker, number))) {
                let request = decode(&shape.request(worker, number));
                assert_eq!(request.len() as u64, shape.events(), "{layout:?}");
                for span in request {
                    spans += 1;
                    traces.entry(span.trace_id).or_default().insert(span.span_id);
                }
            }
            assert_eq!(traces.len() * 4, spans, "{layout:?}");
            assert!(traces.values().all(|spans| spans.len() == 4), "{layout:?}");
        }
    }

    #[test]
    fn pushes_of_a_flow_share_their_id_and_the_last_ends_it() {
        let shape = Shape::pushes(2);
        let push = |number| serde_json::from_slice::<serde_json::Value>(&shape.request(3, number)).unwrap();
        assert_eq!(push(0)["id"], push(1)["id"]);
        assert_ne!(push(1)["id"], push(2)["id"]);
        assert_eq!((push(0).get("final"), &push(1)["final"]), (None, &serde_json::json!(true)));
    }
}

//! OTLP protobuf: the walker accepts and reports what prost does, apart from what it documents, and what it reports
//! becomes the same events as what prost has read and written again.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use std::sync::{Arc, LazyLock};

use latency_aggregator::domain::time::{Arrival, EventTime, Now};
use latency_aggregator::mapping::otlp::wire;
use latency_aggregator::mapping::spans::{MappedSpans, SpanMapper};
use latency_aggregator::pipeline::Pipeline;
use latency_aggregator_fuzz::pipeline;
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

static PIPELINE: LazyLock<Arc<Pipeline>> = LazyLock::new(pipeline);

/// What the spans end around; how far from it they may end is bounded by the config.
const NOW: Now = Now { arrival: Arrival::ORIGIN, wall: EventTime::EPOCH };

fuzz_target!(|request: &[u8]| {
    oracle::check_wire(request);
    let Ok(seen) = oracle::walk_wire(request) else { return };
    let spans = seen.iter().flat_map(|resource| &resource.scopes).map(|scope| scope.spans.len() as u64).sum();
    let mapped = map(request);
    assert_eq!(mapped.received, spans, "every span that was seen was mapped");
    assert!(mapped.rejected_spans() <= spans);
    if let Ok(decoded) = ExportTraceServiceRequest::decode(request) {
        let again = map(&decoded.encode_to_vec());
        assert_eq!(format!("{mapped:?}"), format!("{again:?}"));
    }
});

fn map(request: &[u8]) -> MappedSpans {
    let in_force = PIPELINE.in_force();
    let mut mapper = SpanMapper::new(&in_force.rules, PIPELINE.limits.time, NOW);
    wire::walk(request, &mut mapper).expect("what was walked once can be walked again");
    mapper.finish()
}

//! Three services with queues in between, instrumented with the OpenTelemetry SDK and its default batch processor.
//!
//! The root span ends after 50 ms, when the gateway has put the order on a queue; the order is shipped two seconds
//! later. Start the aggregator with `cargo run --release`, then `cargo run --example otlp [OTLP_HTTP_URL]`.

#![allow(clippy::print_stdout, clippy::disallowed_types, reason = "an example talks to people, in real time")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use opentelemetry::trace::{Span, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

/// A service: its own process in real life, its own tracer provider here.
struct Service(SdkTracerProvider);

impl Service {
    fn new(name: &'static str, url: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{url}/v1/traces"))
            .build()?;
        let resource = Resource::builder().with_service_name(name).build();
        Ok(Service(
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build(),
        ))
    }

    /// A span of `kind` that takes `time`. What travels with the message or request is its context.
    fn work(
        &self,
        name: &'static str,
        kind: SpanKind,
        caller: Option<SpanContext>,
        time: Duration,
    ) -> SpanContext {
        let caller =
            caller.map_or_else(Context::new, |caller| Context::new().with_remote_span_context(caller));
        let tracer = self.0.tracer("order");
        let mut span = tracer.span_builder(name).with_kind(kind).start_with_context(&tracer, &caller);
        span.set_attribute(KeyValue::new("http.request.method", "POST"));
        span.set_attribute(KeyValue::new("http.route", "/orders"));
        sleep(time);
        span.end();
        span.span_context().clone()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:4318".to_owned());
    let millis = Duration::from_millis;
    let [gateway, payment, shipping] = ["gateway", "payment", "shipping"]
        .map(|name| Service::new(name, &url).map_err(|error| error.to_string()));
    let (gateway, payment, shipping) = (gateway?, payment?, shipping?);

    let started = Instant::now();
    let request = gateway.work("POST /orders", SpanKind::Server, None, millis(40));
    let placed = gateway.work("orders publish", SpanKind::Producer, Some(request), millis(10));
    let root = started.elapsed();
    sleep(millis(1000)); // in the queue
    let paid = payment.work("orders process", SpanKind::Consumer, Some(placed), millis(300));
    let to_ship = payment.work("shipments publish", SpanKind::Producer, Some(paid), millis(10));
    sleep(millis(500)); // in the next queue
    let shipped = shipping.work("shipments process", SpanKind::Consumer, Some(to_ship), millis(200));
    println!("the gateway answered after {root:.3?}; the order was shipped after {:.3?}", started.elapsed());
    println!("trace {}", shipped.trace_id());

    // At exit each service flushes what its batch processor still holds; it would every five seconds anyway.
    for service in [gateway, payment, shipping] {
        service.0.shutdown()?;
    }
    println!(
        "the flow is over in about ten seconds; flow_latency_seconds in /metrics shows it after half a minute"
    );
    Ok(())
}

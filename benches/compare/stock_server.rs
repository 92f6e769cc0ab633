//! The same work as one would write it first: tonic's generated service, prost's structs, and a DashMap from trace id to the
//! bounds of the trace, which a timer task looks through.
//!
//!     stock_server GRPC_ADDRESS HTTP_ADDRESS METRICS_ADDRESS

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use dashmap::DashMap;
use latency_aggregator::listener;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus::{Encoder, HistogramOpts, HistogramVec, Registry, TextEncoder};
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

const LARGEST_REQUEST: usize = 64 * 1024 * 1024;
/// The program's own defaults.
const LINGER: Duration = Duration::from_secs(10);
const LOOK_THROUGH_EVERY: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [grpc, http, metrics] =
        addresses.try_into().map_err(|_| "usage: stock_server GRPC_ADDRESS HTTP_ADDRESS METRICS_ADDRESS")?;
    let (grpc, http) = (listener::bind("grpc", &grpc).await?, listener::bind("http", &http).await?);
    let metrics = listener::bind("metrics", &metrics).await?;
    let (_stop, stopped) = watch::channel(false);
    let server = Arc::new(Server::new()?);
    let service = TraceServiceServer::from_arc(Arc::clone(&server))
        .max_decoding_message_size(LARGEST_REQUEST)
        .accept_compressed(CompressionEncoding::Gzip);
    let by_http = Router::new()
        .route("/v1/traces", post(traces))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .with_state(Arc::clone(&server));
    let page = Router::new().route("/metrics", get(page)).with_state(Arc::clone(&server));
    tokio::spawn(look_through(server));
    tokio::join!(
        listener::serve(grpc, Router::new().fallback_service(service), None, stopped.clone(), Duration::ZERO),
        listener::serve(http, by_http, None, stopped.clone(), Duration::ZERO),
        listener::serve(metrics, page, None, stopped, Duration::ZERO),
    );
    Ok(())
}

struct Server {
    traces: DashMap<Vec<u8>, Trace>,
    durations: HistogramVec,
    registry: Registry,
}

struct Trace {
    start: u64,
    end: u64,
    service: String,
    spans: usize,
    touched: Instant,
}

impl Server {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let options = HistogramOpts::new("trace_duration_seconds", "Durations of traces.");
        let durations = HistogramVec::new(options, &["service"])?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Server { traces: DashMap::new(), durations, registry })
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        let now = Instant::now();
        for resource_spans in request.resource_spans {
            let service = service_of(resource_spans.resource.as_ref());
            for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let mut trace = self.traces.entry(span.trace_id).or_insert_with(|| Trace {
                    start: u64::MAX,
                    end: 0,
                    service: service.clone(),
                    spans: 0,
                    touched: now,
                });
                trace.start = trace.start.min(span.start_time_unix_nano);
                trace.end = trace.end.max(span.end_time_unix_nano);
                trace.spans += 1;
                trace.touched = now;
                if span.parent_span_id.is_empty() {
                    trace.service.clone_from(&service);
                }
            }
        }
    }

    fn close_due(&self) {
        self.traces.retain(|_, trace| {
            let is_open = trace.touched.elapsed() < LINGER;
            if !is_open {
                let seconds = trace.end.saturating_sub(trace.start) as f64 / 1e9;
                self.durations.with_label_values(&[&trace.service]).observe(seconds);
            }
            is_open
        });
    }
}

fn service_of(resource: Option<&Resource>) -> String {
    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    let service = attributes.iter().find(|attribute| attribute.key == "service.name");
    match service.and_then(|service| service.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => "unknown_service".to_owned(),
    }
}

async fn look_through(server: Arc<Server>) {
    let mut interval = tokio::time::interval(LOOK_THROUGH_EVERY);
    loop {
        interval.tick().await;
        server.close_due();
    }
}

#[tonic::async_trait]
impl TraceService for Server {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn traces(State(server): State<Arc<Server>>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    server.take(request);
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

async fn page(State(server): State<Arc<Server>>) -> Result<Vec<u8>, StatusCode> {
    let mut page = Vec::new();
    let encoded = TextEncoder::new().encode(&server.registry.gather(), &mut page);
    encoded.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(page)
}

"""Services that already emit OTLP: Python's OpenTelemetry SDK with its default batching."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, set_span_in_context

from lib import aggregator, eventually, expect, expect_close, expect_equal

RUNS_OF_ORDERS = 4
RUNS_OF_CATALOG = 3
SERVICES = ["gateway", "payment", "shipping"]

CHECKOUT = {
    "name": "checkout",
    "match": 'resource.attributes["service.name"] == "gateway" and span.name == "POST /orders"',
    "expect": SERVICES,
    "labels": {"tenant": 'span.attributes["tenant"]'},
}


def check_grpc_spans_of_three_services_are_one_latency():
    with aggregator(flows=[CHECKOUT]) as running:
        exercise(running, lambda: GrpcExporter(endpoint=running.otlp_grpc, insecure=True))


def check_http_spans_of_three_services_are_one_latency():
    with aggregator(flows=[CHECKOUT]) as running:
        url = f"http://{running.otlp_http}/v1/traces"
        exercise(running, lambda: HttpExporter(endpoint=url, compression=Compression.Gzip))


def exercise(running, new_exporter):
    """Sends orders, of the configured flow, and catalog requests, of the flow `trace`."""
    services = {name: Service(name, new_exporter()) for name in SERVICES}
    with ThreadPoolExecutor() as pool:
        orders = list(pool.map(partial(business_flow, services), ["POST /orders"] * RUNS_OF_ORDERS))
        catalog = list(
            pool.map(partial(business_flow, services), ["GET /catalog"] * RUNS_OF_CATALOG)
        )

    # Nothing is flushed: the spans arrive whenever the processors' own timers send them,
    # those of the consumers up to five seconds after the root.
    expected_events = sum(flow.spans for flow in orders + catalog)
    eventually(
        lambda: running.scrape().received(), expected_events, "events received", alive=running
    )
    eventually(
        lambda: running.scrape().total("flow_latency_seconds_count"),
        RUNS_OF_ORDERS + RUNS_OF_CATALOG,
        "flows observed",
        timeout=40,
        alive=running,
    )
    scrape = running.settle()
    expect_observed(scrape, orders, flow="checkout", outcome="ok", tenant="blue")
    expect_observed(scrape, catalog, flow="trace", outcome="ok", root_service="gateway")
    expect_equal(scrape.total("flow_closed_total"), len(orders + catalog), "closed instances")
    expect_equal(scrape.total("latency_aggregator_late_events_total"), 0, "late events")
    expect_equal(scrape.unaccounted(), 0, "events that are counted nowhere or twice")
    for service in services.values():
        service.shut_down()


def expect_observed(scrape, flows, **labels):
    """The histogram holds exactly these flows, from the first span's start to the last's end."""
    count = scrape.total("flow_latency_seconds_count", **labels)
    latency = scrape.total("flow_latency_seconds_sum", **labels)
    expect_equal(count, len(flows), f"observations with {labels}")
    extent = sum(flow.extent for flow in flows)
    expect_close(latency, extent, 0.001, f"sum of latencies with {labels}, from the spans' times")
    expect_path(scrape, flows, labels["flow"], latency)
    wall = sum(flow.wall for flow in flows)
    expect_close(latency, wall, 0.1 * len(flows), f"sum of latencies with {labels}, from a clock")
    root = sum(flow.root for flow in flows)
    expect(latency > 2 * root, f"latencies {latency} do not reach beyond the root spans {root}")


def expect_path(scrape, flows, flow, latency):
    """The critical path accounts for the whole latency, and the queue for its part of it."""
    path = "flow_critical_path_seconds_total"
    expect_close(scrape.total(path, flow=flow), latency, 1e-6, f"the path of {flow}")
    queued = scrape.total(path, flow=flow, stage="shipping", kind="wait")
    expect(queued >= 0.4 * len(flows), f"only {queued} s of waiting for shipping in {flow}")
    pair = {"flow": flow, "from": "payment", "to": "shipping"}
    count = scrape.total("flow_transition_seconds_count", **pair)
    expect_equal(count, len(flows), f"ways from payment to shipping in {flow}")
    expect(
        scrape.total("flow_transition_seconds_sum", **pair) >= 0.4 * len(flows),
        f"the queue of {flow} is too short",
    )


class Service:
    """One service: a tracer provider of its own, with the SDK's default batch processor."""

    def __init__(self, name, exporter):
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("blackbox")

    def shut_down(self):
        self.provider.shutdown()


class FlowRun:
    """What the senders know of one run, in seconds."""

    def __init__(self, spans, wall):
        self.spans = len(spans)
        self.wall = wall
        self.extent = (max(s.end_time for s in spans) - min(s.start_time for s in spans)) / 1e9
        self.root = next((s.end_time - s.start_time) / 1e9 for s in spans if s.parent is None)


def business_flow(services, root_name):
    """gateway calls payment, payment sends a message, shipping works on it after the root ended.

    Contexts go from service to service as headers, as they would over a network.
    """
    began = time.monotonic()
    spans = []

    def start(service, name, kind, parent=None):
        span = services[service].tracer.start_span(
            name, context=parent, kind=kind, attributes={"tenant": "blue"}
        )
        spans.append(span)
        return span

    root = start("gateway", root_name, SpanKind.SERVER)
    call = start("gateway", "charge", SpanKind.CLIENT, set_span_in_context(root))
    charge = start("payment", "POST /charge", SpanKind.SERVER, carried(call))
    time.sleep(0.05)
    publish = start("payment", "orders publish", SpanKind.PRODUCER, set_span_in_context(charge))
    message = carried(publish)
    for span in (publish, charge, call):
        span.end()
    time.sleep(0.05)
    root.end()

    time.sleep(0.4)  # The message waits in the queue.

    process = start("shipping", "orders process", SpanKind.CONSUMER, message)
    store = start("shipping", "INSERT shipment", SpanKind.CLIENT, set_span_in_context(process))
    time.sleep(0.1)
    store.end()  # Exported before its parent ends, and then its parent is missing for a while.
    time.sleep(0.2)
    process.end()
    return FlowRun(spans, time.monotonic() - began)


def carried(span):
    """The context of `span` as it arrives in another service."""
    headers = {}
    propagate.inject(headers, context=set_span_in_context(span))
    return propagate.extract(headers)

"""The Collector project's own load generator: everything that it sends is counted, once."""

from lib import aggregator, eventually, expect_equal, telemetrygen

TRACES = 500
SPANS_PER_TRACE = 4


def check_grpc_counts_every_trace_and_span():
    with aggregator() as running:
        telemetrygen(running.otlp_grpc, TRACES, child_spans=SPANS_PER_TRACE - 1)
        expect_all_counted(running)


def check_http_counts_every_trace_and_span():
    with aggregator() as running:
        telemetrygen(running.otlp_http, TRACES, child_spans=SPANS_PER_TRACE - 1, http=True)
        expect_all_counted(running)


def expect_all_counted(running):
    # telemetrygen has returned, so every span is acknowledged and must be counted by now.
    eventually(
        lambda: running.scrape().received(), TRACES * SPANS_PER_TRACE, "events received", timeout=5
    )
    eventually(
        lambda: running.scrape().total("flow_latency_seconds_count", flow="trace"),
        TRACES,
        "traces observed",
        alive=running,
    )
    scrape = running.settle()
    of_telemetrygen = {"flow": "trace", "outcome": "ok", "root_service": "telemetrygen"}
    expect_equal(scrape.total("flow_latency_seconds_count", **of_telemetrygen), TRACES, "ok traces")
    expect_equal(scrape.total("flow_closed_total"), TRACES, "closed instances")
    expect_equal(scrape.unaccounted(), 0, "events that are counted nowhere or twice")
    expect_equal(scrape.total("latency_aggregator_events_rejected_total"), 0, "rejected events")
    expect_equal(scrape.total("latency_aggregator_late_events_total"), 0, "late events")
    expect_equal(scrape.total("latency_aggregator_events_duplicate_total"), 0, "duplicates")

"""The example configurations, started by a real OpenTelemetry Collector."""

from contextlib import contextmanager

from lib import (
    EXAMPLES,
    Aggregator,
    Process,
    aggregator,
    eventually,
    expect,
    expect_equal,
    free_port,
    telemetrygen,
    tool,
)

TRACES = 400
SPANS_PER_TRACE = 2


def check_a_fork_ahead_of_tail_sampling_sees_every_trace():
    # A second aggregator stands for the tracing backend, since it counts traces.
    with aggregator() as running, Aggregator(name="backend") as backend:
        environment = {
            "AGGREGATOR_ENDPOINT": running.otlp_grpc,
            "TRACING_BACKEND": backend.otlp_grpc,
            "DECISION_WAIT": "1s",
        }
        with collector("collector.yaml", environment) as endpoints:
            telemetrygen(endpoints.grpc, TRACES)
            telemetrygen(endpoints.http, TRACES, http=True)
            failed = 5
            telemetrygen(endpoints.grpc, failed, extra=["--status-code=Error"])
            sent = 2 * TRACES + failed
            eventually(lambda: observed(running), sent, "traces at the aggregator", alive=running)
            # Failed traces are always kept: once they are all there, sampling has decided.
            eventually(
                lambda: backend.scrape().total("flow_latency_seconds_count", outcome="error"),
                failed,
                "failed traces at the backend",
                alive=backend,
            )
            expect_equal(running.settle().received(), sent * SPANS_PER_TRACE, "events received")
            kept = backend.settle().total("flow_latency_seconds_count")
            expect(kept < sent / 5, f"tail sampling kept {kept} of {sent} traces")


def check_load_balancing_keeps_every_trace_on_one_replica():
    with Aggregator(name="replica-1") as first, Aggregator(name="replica-2") as second:
        environment = {"REPLICA_1": first.otlp_grpc, "REPLICA_2": second.otlp_grpc}
        with collector("collector-loadbalancing.yaml", environment) as endpoints:
            telemetrygen(endpoints.grpc, TRACES)
            # A trace that was cut would be observed on both replicas.
            eventually(
                lambda: observed(first) + observed(second), TRACES, "traces on both replicas"
            )
            scrapes = [first.settle(), second.settle()]
            received = [scrape.received() for scrape in scrapes]
            expect_equal(sum(received), TRACES * SPANS_PER_TRACE, "events on both replicas")
            expect_equal(observed(first) + observed(second), TRACES, "traces on both replicas")
            for scrape in scrapes:
                whole = scrape.total("flow_latency_seconds_count", outcome="ok")
                expect_equal(whole * SPANS_PER_TRACE, scrape.received(), "spans of whole traces")
            expect(min(received) > 0, f"one replica received nothing: {received}")


def observed(running):
    return running.scrape().total("flow_latency_seconds_count", flow="trace")


class Endpoints:
    def __init__(self):
        self.grpc = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"


@contextmanager
def collector(example, environment):
    """A Collector that runs the example as it is, but for addresses and times."""
    endpoints = Endpoints()
    addresses = {"COLLECTOR_OTLP_GRPC": endpoints.grpc, "COLLECTOR_OTLP_HTTP": endpoints.http}
    with Process(
        "collector",
        [tool("COLLECTOR"), "--config", EXAMPLES / example],
        environment={**environment, **addresses},
    ) as running:
        eventually(
            lambda: "Everything is ready" in running.output(),
            True,
            "ready Collector",
            alive=running,
        )
        yield endpoints

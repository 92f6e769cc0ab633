"""More than there is room for: ten million traces, and one trace of ten million spans.

In their short form some hundred thousand, as CI has them.
"""

import http.client
import os
import time
from collections import Counter
from contextlib import closing

from lib import Aggregator, eventually, expect, expect_equal
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from procfs import Usage

FULL, SHORT = 10_000_000, 300_000
# From so many seconds on that a scenario may take, it takes all.
FULL_SECONDS = 60

SPANS_PER_REQUEST = 1000
# How long a client waits that was told to: stock clients wait as long as they are told. And how
# long one does that goes on all the same.
WAIT_SECONDS, PAUSE_SECONDS = 0.1, 0.005
# How long senders are kept waiting before instances are evicted instead, and a little more.
PATIENCE_SECONDS = 35

# What the budget does not count: a tenth for what an allocator rounds up, and the program itself
# with requests under way.
MORE_SHARE, MORE_MIB = 0.1, 96
SECOND = 1_000_000_000


def size(seconds):
    return FULL if seconds >= FULL_SECONDS else SHORT


def budget_mib(seconds):
    return 256 if seconds >= FULL_SECONDS else 64


def scenario_held_traces(seconds):
    """Traces whose parents never come, from a client that never stops.

    It is refused, and after a while some traces are evicted instead.
    """
    traces, mebibytes = size(seconds), budget_mib(seconds)
    # Held for so long that nothing but the budget lets go of them.
    timers = {"quiet_period": "1m", "parent_wait": "5m", "max_age": "5m", "tombstone": "2s"}
    with flooded(mebibytes, timers) as running:
        usage, began = Usage(running.process_id), time.monotonic()
        answers = Counter()
        with closing(Client(running)) as client:
            for body in Requests(traces, is_root=False):
                answers[client.send(body)] += 1
                if answers[503]:
                    time.sleep(PAUSE_SECONDS)
        took = time.monotonic() - began
        expect_equal(set(answers) - {200, 503}, set(), "other answers")
        expect(answers[503] > 0, "nobody was told to wait")
        scrape = counted(running, answers[200] * SPANS_PER_REQUEST)
        is_open = scrape.total("latency_aggregator_open_instances")
        evicted = scrape.total("latency_aggregator_instances_closed_total", outcome="evicted")
        # For longer than senders are kept waiting nobody is.
        expect(evicted > 0 or took < PATIENCE_SECONDS, "nothing was evicted")
        used = scrape.total("latency_aggregator_memory_bytes")
        expect(used <= (mebibytes << 20) * (1 + MORE_SHARE), f"{used} bytes are kept")
        peak = expect_within(usage, mebibytes)
    return (
        f"{traces:,} traces offered in {took:.0f} s, {answers[200]} requests taken, "
        f"{answers[503]} refused; {is_open:g} open in {used / 2**20:.0f} of {mebibytes} MiB, "
        f"{used / is_open:.0f} bytes each, {evicted:g} evicted; RSS at most {peak:.0f} MiB"
    )


def scenario_ended_traces(seconds):
    """Traces that end at once, from a client that sends again what was refused.

    Each is observed once.
    """
    traces, mebibytes = size(seconds), budget_mib(seconds)
    with flooded(mebibytes, {"quiet_period": "1s", "linger": "1s", "tombstone": "2s"}) as running:
        usage, began = Usage(running.process_id), time.monotonic()
        refused = 0
        with closing(Client(running)) as client:
            for body in Requests(traces, is_root=True):
                while client.send(body) == 503:
                    refused += 1
                    time.sleep(WAIT_SECONDS)
        took = time.monotonic() - began
        scrape = settled(running, received=traces, closed=traces)
        observed = scrape.total("flow_latency_seconds_count", flow="trace", outcome="ok")
        evicted = scrape.total("flow_closed_total", outcome="evicted")
        expect_equal(observed, traces - evicted, "traces observed")
        peak = expect_within(usage, mebibytes)
    return (
        f"{traces:,} traces in {took:.0f} s, {refused} requests sent again, {observed:g} observed "
        f"once, {evicted:g} evicted; RSS at most {peak:.0f} MiB, {mebibytes} for instances"
    )


def scenario_giant_trace(seconds):
    """One trace of more spans than are kept of one.

    It is one flow, as long as all of it, and counted once.
    """
    spans, mebibytes, kept = size(seconds), 64, 10_000
    config = {
        "defaults": {"quiet_period": "5s", "linger": "5s", "max_age": "10m"},
        "limits": {"memory_bytes": mebibytes << 20, "events_per_instance": kept},
        "flows": [{"name": "giant", "match": 'span.name == "GET /"'}],
    }
    with Aggregator(config) as running:
        usage, began = Usage(running.process_id), time.monotonic()
        with closing(Client(running)) as client:
            for body in Requests(spans, is_root=True, trace=os.urandom(16)):
                expect_equal(client.send(body), 200, "answer")
        took = time.monotonic() - began
        peak = expect_within(usage, mebibytes)
        expect_equal(running.scrape().total("flow_open", flow="giant"), 1, "open flows")
        scrape = settled(running, received=spans, closed=1)
        over_limit = scrape.total("latency_aggregator_events_over_limit_total")
        expect_equal(over_limit, spans - kept, "events over the limit")
        expect_equal(scrape.total("latency_aggregator_events_closed_total"), kept, "events kept")
        expect_equal(scrape.total("flow_closed_total", flow="giant"), 1, "flows closed")

        eventually(
            lambda: [
                running.scrape().total(f"flow_latency_seconds_{what}", flow="giant")
                for what in ["count", "sum"]
            ],
            [1, Requests.LATENCY_SECONDS],
            "latency",
            alive=running,
        )
    return (
        f"{spans:,} spans in {took:.0f} s are one flow, {over_limit:g} over the limit; "
        f"RSS at most {peak:.0f} MiB"
    )


def flooded(mebibytes, timers):
    return Aggregator({"defaults": timers, "limits": {"memory_bytes": mebibytes << 20}})


def counted(running, received, more=lambda _: (), expected=()):
    """A scrape on which everything is accounted for.

    What is just being closed is nowhere for a moment.
    """
    scrapes = []

    def look():
        scrapes.append(running.scrape())
        last = scrapes[-1]
        return last.received(), last.unaccounted(), last.unaccounted_instances(), *more(last)

    what = "received, events and instances counted nowhere or twice, and what is left"
    eventually(look, (received, 0, 0, *expected), what, alive=running)
    return scrapes[-1]


def settled(running, received, closed):
    """The same when all has been closed."""

    def left(scrape):
        return scrape.total("latency_aggregator_open_instances"), scrape.total("flow_closed_total")

    return counted(running, received, left, (0, closed))


def expect_within(usage, mebibytes):
    peak, most = usage.peak_rss_mib(), mebibytes * (1 + MORE_SHARE) + MORE_MIB
    expect(peak <= most, f"RSS came to {peak:.0f} MiB, {most:.0f} are allowed")
    return peak


class Client:
    """One connection for OTLP over HTTP."""

    def __init__(self, running):
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", running.ports["otlp_http"], timeout=60
        )

    def send(self, body):
        """Returns the status; whoever is told to wait is told for how long."""
        self._connection.request(
            "POST", "/v1/traces", body, {"content-type": "application/x-protobuf"}
        )
        reply = self._connection.getresponse()
        reply.read()
        expect(reply.status != 503 or reply.getheader("retry-after"), "503 without Retry-After")
        return reply.status

    def close(self):
        self._connection.close()


class Requests:
    """Encoded exports with so many spans, each of a trace of its own unless `trace` names one.

    All of a kind: one is encoded, and ids take the places of its ids.
    """

    # From the start of the first span to the end of the last one of all.
    LATENCY_SECONDS = 4

    def __init__(self, spans, is_root, trace=None):
        self._count, rest = divmod(spans, SPANS_PER_REQUEST)
        expect_equal(rest, 0, "spans that do not fill a request")
        self._is_root, self._trace = is_root, trace
        self._base = time.time_ns() - 60 * SECOND

    def __iter__(self):
        for number in range(self._count):
            ends = 1 if number + 1 < self._count else self.LATENCY_SECONDS
            if number in (0, self._count - 1):
                template, places = self._template(0 if ends == 1 else 1, ends)
            spans = os.urandom(8 * SPANS_PER_REQUEST)
            traces = os.urandom(16 * SPANS_PER_REQUEST)
            for place, (trace_at, span_at) in enumerate(places):
                template[span_at : span_at + 8] = spans[8 * place : 8 * place + 8]
                if self._trace is None:
                    template[trace_at : trace_at + 16] = traces[16 * place : 16 * place + 16]
            yield bytes(template)

    def _template(self, starts, ends):
        """The bytes of a request, and where in them the ids of its spans are."""
        base = self._base
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        marks = []
        for _ in range(SPANS_PER_REQUEST):
            marks.append((self._trace or os.urandom(16), os.urandom(8)))
            span = spans.add(name="GET /", kind=2)
            span.trace_id, span.span_id = marks[-1]
            span.parent_span_id = b"" if self._is_root else b"\x02" * 8
            span.start_time_unix_nano = base + starts * SECOND
            span.end_time_unix_nano = base + ends * SECOND
        encoded = bytearray(request.SerializeToString())
        places, at = [], 0
        for trace, span in marks:
            trace_at = encoded.index(trace, at)
            at = encoded.index(span, trace_at)
            places.append((trace_at, at))
        return encoded, places

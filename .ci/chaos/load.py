"""A load whose results are known: flows of every kind, and the requests that they come in.

A flow is complete when all of its requests were acknowledged. Its label values, its outcome and its
latency are ours to choose, so that counts and sums of /metrics can be told in advance.
"""

import itertools
import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

# Short timers: an instance with all it needs is closed half a second later.
CONFIG = {
    "defaults": {"quiet_period": "500ms", "linger": "500ms", "max_age": "5m", "parent_wait": "3m"},
    # Each is found by what a request brings first, and waits for what is missing.
    "flows": [
        {
            "name": "checkout",
            "match": 'resource.attributes["service.name"] == "gateway"',
            "expect": ["gateway", "shipping"],
            "labels": {"tenant": 'span.attributes["tenant"]'},
        },
        {
            "name": "parcel",
            "match": 'resource.attributes["service.name"] == "warehouse"',
            "key": ['span.attributes["parcel"]'],
            "expect": ["warehouse", "courier"],
        },
        {
            "name": "order",
            "end": [{"stage": "shipped"}],
            "labels": {"store": 'span.attributes["x"]'},
        },
    ],
    # The wall clock of the server may be set.
    "ingest": {"max_future": "2h"},
}

FLOWS_OF_A_BATCH = 10
GATEWAY, SHIPPING = "gateway", "shipping"
CLIENT, SERVER, CONSUMER = 3, 2, 5


@dataclass(frozen=True)
class Series:
    """Where a flow is counted."""

    flow: str
    outcome: str
    labels: frozenset


@dataclass
class Batch:
    """Some flows, and the requests that bring them."""

    requests: list = field(default_factory=list)
    # The series and the latency in milliseconds of each.
    flows: list = field(default_factory=list)
    events: int = 0


class Traces:
    """OTLP: traces of the built-in flow, of `checkout`, and pairs of them that are one `parcel`."""

    def __init__(self, is_split):
        self._is_split = is_split
        self._numbers = itertools.count()

    def batch(self):
        """If split, the roots and the last stages come in a second request."""
        batch = Batch()
        requests = [Export(), Export()]
        for _ in range(FLOWS_OF_A_BATCH):
            number = next(self._numbers)
            number, kind = divmod(number, 3)
            add = [self._add_trace, self._add_checkout, self._add_parcel][kind]
            batch.flows.append(add(number, *requests))
        batch.events = sum(request.spans for request in requests)
        if self._is_split:
            batch.requests = [request.encoded() for request in requests]
        else:
            batch.requests = [b"".join(request.encoded() for request in requests)]
        return batch

    def _add_trace(self, number, first, second):
        trace, milliseconds = os.urandom(16), 5 + number % 400
        service, is_error = f"shop-{number % 3}", number % 5 == 0
        end = time.time_ns()
        start = end - milliseconds * 1_000_000
        for child in (2, 3):
            first.add(service, trace, child, 1, "SELECT", CLIENT, start + child, end - child)
        second.add(service, trace, 1, 0, "GET /items", SERVER, start, end, is_error=is_error)
        labels = {"root_service": service, "root_name": "GET /items"}
        return series("trace", "error" if is_error else "ok", labels), milliseconds

    def _add_checkout(self, number, first, second):
        trace, milliseconds, tenant = os.urandom(16), 5 + number % 400, f"tenant-{number % 4}"
        end = time.time_ns()
        start = end - milliseconds * 1_000_000
        middle = (start + end) // 2
        labels = {"tenant": tenant}
        first.add(GATEWAY, trace, 1, 0, "POST /orders", SERVER, start, middle, labels)
        first.add(GATEWAY, trace, 2, 1, "charge", CLIENT, start + 1, middle - 1, labels)
        second.add(SHIPPING, trace, 3, 1, "ship", CONSUMER, middle, end, labels)
        return series("checkout", "ok", labels), milliseconds

    def _add_parcel(self, number, first, second):
        """Two traces with nothing in common but a value."""
        key, milliseconds = {"parcel": os.urandom(8).hex()}, 5 + number % 400
        end = time.time_ns()
        start = end - milliseconds * 1_000_000
        middle = (start + end) // 2
        first.add("warehouse", os.urandom(16), 1, 0, "pack", SERVER, start, middle, key)
        second.add("courier", os.urandom(16), 1, 0, "deliver", SERVER, middle, end, key)
        return series("parcel", "ok", {}), milliseconds


class Export:
    """An export request under construction."""

    def __init__(self):
        self._request = ExportTraceServiceRequest()
        self._spans = {}
        self.spans = 0

    def add(
        self, service, trace, span, parent, name, kind, start, end, attributes=(), is_error=False
    ):
        self.spans += 1
        added = self._spans_of(service).add()
        added.trace_id, added.span_id = trace, span.to_bytes(8, "big")
        added.parent_span_id = parent.to_bytes(8, "big") if parent else b""
        added.name, added.kind = name, kind
        added.start_time_unix_nano, added.end_time_unix_nano = start, end
        for key, value in dict(attributes).items():
            attribute = added.attributes.add()
            attribute.key, attribute.value.string_value = key, value
        if is_error:
            added.status.code = Status.STATUS_CODE_ERROR

    def encoded(self):
        return self._request.SerializeToString()

    def _spans_of(self, service):
        if service not in self._spans:
            resource_spans = self._request.resource_spans.add()
            attribute = resource_spans.resource.attributes.add()
            attribute.key, attribute.value.string_value = "service.name", service
            self._spans[service] = resource_spans.scope_spans.add().spans
        return self._spans[service]


class Pushes:
    """Native pushes: a configured flow of two stages, and one that they create."""

    def __init__(self, is_split):
        self._is_split = is_split
        self._numbers = itertools.count()
        self._run = os.urandom(4).hex()

    def batch(self):
        batch = Batch()
        first, second = [], []
        for _ in range(FLOWS_OF_A_BATCH):
            number = next(self._numbers)
            add = self._add_quick if number % 2 else self._add_order
            batch.flows.append(add(number, first, second))
        batch.events = len(first) + len(second)
        bodies = [first, second] if self._is_split else [first + second]
        batch.requests = [json.dumps(body).encode() for body in bodies]
        return batch

    def _add_order(self, number, first, second):
        milliseconds, store = 5 + number % 400, f"store-{number % 4}"
        push = self._push("order", number, {"store": store})
        end = time.time_ns() // 1_000_000
        first.append(push | {"stage": "placed", "created_at": rfc3339(end - milliseconds)})
        second.append(push | {"stage": "shipped", "created_at": rfc3339(end)})
        return series("order", "ok", {"store": store}), milliseconds

    def _add_quick(self, number, first, _second):
        region, is_error = f"region-{number % 3}", number % 7 == 0
        push = self._push("quick_order", number, {"region": region})
        first.append(push | {"final": True, "status": "error" if is_error else "ok"})
        outcome = "error" if is_error else "ok"
        return series("quick_order", outcome, {"region": region}), 0

    def _push(self, name, number, labels):
        return {"id": f"{self._run}-{number}", "name": name, "label_values": labels}


def rfc3339(milliseconds):
    """Exact to the millisecond, which a float is not."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


def series(flow, outcome, labels):
    return Series(flow, outcome, frozenset(labels.items()))

"""Requests whose content means harm: nested without end, text to be escaped, chosen ids."""

import http.client
import json
import random
import socket
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import http2
from attacks import attacked, withstood
from check_bombs import post, varint
from check_formats import scrapecheck
from check_promtool import expect_clean
from lib import eventually, expect, expect_equal, get
from procfs import Usage

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

# What a label's value may be, as bytes of UTF-8 or what claims to be that.
HOSTILE_VALUES = [
    b'quote " backslash \\ newline \n end',
    b"\\",
    b"\\n",
    b'"} 1\nup 1\n# EOF\n',
    b"carriage \r return, tab \t, NUL \0, ESC \x1b[31m, BEL \a",
    "four bytes \U0001f980, separators \u2028\u2029, BOM \ufeff, right to left \u202e".encode(),
    "last of its kind \U0010ffff, not a character \ufffe".encode(),
    # Invalid: a lone byte, a surrogate, an overlong slash, one cut at the end.
    b"lone \xff",
    b"surrogate \xed\xa0\x80",
    b"overlong \xc0\xaf",
    b"cut \xf0\x9f\xa6",
    b"x" * 100_000,
    "\U0001f980".encode() * 1000,
]


def check_deep_nesting_is_no_depth_of_calls():
    """Half a million levels within each other, in what is read and in what is skipped."""
    depth = 500_000
    brackets = b"[" * depth + b"]" * depth
    braces = b'{"a":' * depth + b"1" + b"}" * depth
    arrays = b'{"arrayValue":{"values":[' * depth + b"]}}" * depth
    attribute = (
        b'{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":%s}]}}]}'
    )
    with attacked() as running, withstood(running, "deep nesting", rss_mib=256, cpu_seconds=8):
        for body in [brackets, braces, b'{"id":"1","name":"order","label_values":%s}' % braces]:
            status, reply = post(running.ports["http"], "/", JSON, "identity", body)
            # An array is answered for each of its elements.
            refused = status == 400 or json.loads(reply)["accepted"] == 0
            expect(refused, f"status {status} of the push {body[:30]}, reply {reply[:200]}")
        for body in [brackets, braces, attribute % arrays, b'{"unknown":%s}' % brackets]:
            status, _ = post(running.ports["otlp_http"], "/v1/traces", JSON, "identity", body)
            expect(status in (200, 400), f"status {status} of the export {body[:30]}")
        for tags in [b"\x2a\x0a", b"\x32\x0a\x12"]:
            body = export_with_attribute(nested_value(tags, depth))
            status, _ = post(running.ports["otlp_http"], "/v1/traces", PROTOBUF, "identity", body)
            expect(status in (200, 400), f"status {status} of nested {tags}")
            block = http2.export_block()
            message = b"\0" + len(body).to_bytes(4, "big") + body
            reply = http2.request(running.ports["otlp_grpc"], block, message)
            expect(reply.get("grpc-status") in ("0", "3"), f"reply {reply}")


def nested_value(tags, depth):
    """An AnyValue that holds an ArrayValue (or a KeyValueList) of one AnyValue, and so on."""
    # From within: each level begins with its tags and how long the rest is, innermost tag last.
    parts, length = [], 0
    for _ in range(depth):
        for tag in reversed(tags):
            head = bytes([tag]) + varint(length)
            parts.append(head)
            length += len(head)
    return b"".join(reversed(parts))


def export_with_attribute(value):
    """One span with this encoded AnyValue as its attribute and its resource's."""
    attribute = field(1, b"service.name") + field(2, value)
    span = field(1, b"\x01" * 16) + field(2, b"\x02" * 8) + field(9, attribute)
    return field(1, field(1, field(1, attribute)) + field(2, field(2, span)))


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def check_hostile_values_come_out_of_every_format():
    """As they went in where they are text, and as text where they are not."""
    flow = {
        "name": "hostile",
        "match": "IsRootSpan()",
        "labels": {"tenant": 'span.attributes["tenant"]'},
    }
    with attacked(flows=[flow], metrics={"zero_first": "0s", "histograms": "both"}) as running:
        for number, value in enumerate(HOSTILE_VALUES):
            body = export(number, name=b"GET /" + value, tenant=value)
            status, reply = post(
                running.ports["otlp_http"], "/v1/traces", PROTOBUF, "identity", body
            )
            expect_equal(status, 200, f"status of the value {value[:40]}, reply {reply[:200]}")
        scrape = running.settle()
        expect_equal(scrape.unaccounted(), 0, "events that are counted nowhere or twice")
        expect_clean(running)
        scrapecheck(running)
        count = "flow_latency_seconds_count"
        shown = {
            sample.labels["tenant"]: sample.value for sample in scrape.series(count, flow="hostile")
        }
        rejected = scrape.total("latency_aggregator_events_rejected_total")
        print(f"     {len(shown)} values shown, {rejected:g} spans rejected")
        expect_equal(
            sum(shown.values()) + rejected, len(HOSTILE_VALUES), "values shown or rejected"
        )
        for value in HOSTILE_VALUES:
            text = value.decode(errors="ignore")
            if text.encode() == value and len(value) <= 256:
                expect_equal(shown.get(text), 1, f"observations with {text!r}")
        expect(max(map(len, shown)) <= 256, "a value is longer than limits.value_bytes")
        # The page is text, whatever came.
        get(running.metrics_url)[1].encode()


def export(number, name, tenant):
    """One span whose text is given as bytes, which the generated code would not take."""
    now = time.time_ns()
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = (number + 1).to_bytes(16, "big"), b"\x01" * 8
    span.kind, span.start_time_unix_nano, span.end_time_unix_nano = 2, now - 10**9, now
    attribute = field(1, b"tenant") + field(2, field(1, tenant))
    encoded = span.SerializeToString() + field(5, name) + field(9, attribute)
    return field(1, field(2, field(2, encoded)))


MARK = "mark-of-an-intruder"
INJECTED = f"\n2026-01-01T00:00:00Z ERROR {MARK}\x1b]0;{MARK}\a\x1b[2J\r\n{MARK}"


def check_nothing_that_clients_send_is_a_line_of_the_log():
    for log_format in ["human", "json"]:
        with attacked(log={"level": "trace", "format": log_format}) as running:
            send_to_be_logged(running)
            running.settle()
            output = running.output()
        # The program itself may colour its lines, though not where they go to a file.
        expect("\x1b" not in output, f"ESC in the {log_format} log: {around(output, chr(27))}")
        for character in "\a\r\0":
            expect(character not in output, f"{character!r} in the {log_format} log")
        lines = [
            line for line in output.splitlines() if line.startswith((MARK, "2026-01-01T00:00:00Z"))
        ]
        expect_equal(lines, [], f"lines of the {log_format} log that a client wrote")
        print(
            f"     {log_format}: {len(output.splitlines())} lines, {output.count(MARK)} of the mark"
        )


def send_to_be_logged(running):
    """The text wherever there is room for it; what a protocol forbids is sent as it is, too."""
    for number in range(3):
        body = export(number, INJECTED.encode(), INJECTED.encode())
        post(running.ports["otlp_http"], "/v1/traces", PROTOBUF, "identity", body)
        block = http2.export_block()
        http2.request(
            running.ports["otlp_grpc"], block, b"\0" + len(body).to_bytes(4, "big") + body
        )
    for push in [
        {"id": INJECTED, "name": "order", "stage": INJECTED, "final": True},
        {"id": "1", "name": INJECTED, "stage": "x"},
        {
            "id": "2",
            "name": "order",
            INJECTED: 1,
            "label_values": {"tenant": INJECTED, INJECTED: "x"},
        },
        {"id": "3", "name": "other", "help": INJECTED, "final": True},
        {"id": "3", "name": "other", "help": "x", "buckets": [1], "created_at": INJECTED},
    ]:
        running.push(push)
    escaped = "".join(f"%{byte:02x}" for byte in INJECTED.encode())
    for name in ["http", "otlp_http", "otlp_grpc"]:
        for request in [
            f"GET /{INJECTED} HTTP/1.1\r\nhost: x\r\n\r\n",
            f"GET / HTTP/1.1\r\nhost: x\r\nx-a: {INJECTED}\r\n\r\n",
            f"{INJECTED} / HTTP/1.1\r\nhost: x\r\n\r\n",
            f"GET /{escaped} HTTP/1.1\r\nhost: {escaped}\r\ncontent-encoding: {escaped}\r\n\r\n",
        ]:
            send_raw(running.ports[name], request.encode())
        block = http2.header_block("GET", "/" + INJECTED, ("x-a", INJECTED), (INJECTED, "x"))
        http2.request(running.ports[name], block, timeout=2)
    for path in [f"/api/flows/{escaped}/{escaped}", f"/api/flows/order/{escaped}"]:
        get(running.http + path)


def send_raw(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(data)
        try:
            connection.recv(4096)
        except OSError:
            pass


def around(text, what):
    place = text.find(what)
    return repr(text[max(0, place - 100) : place + 100])


IDS = 100_000
IDS_OF_A_REQUEST = 1000
ROUNDS = 2
# What regular ids may cost, as a multiple of what random ones do: not half the throughput.
MOST_TIMES = 2.0
# Processor time is counted in hundredths of a second.
GRAIN_SECONDS = 0.1


def check_regular_trace_ids_cost_no_more_than_random_ones():
    """Ids are what strangers choose: maps that trust them become lists."""
    chosen = random.Random(1)
    shapes = {
        "random": lambda n: chosen.getrandbits(128),
        "sequential": lambda n: n + 1,
        "equal in their low 64 bits": lambda n: n + 1 << 64,
        "equal in all but 17 bits in the middle": lambda n: (n + 1) << 56 | 1 << 127 | 1,
        "multiples of 2^20": lambda n: n + 1 << 20,
        "with the low half the high one": lambda n: (n + 1) << 64 | (n + 1),
        "bits in reverse": lambda n: int(f"{n + 1:0128b}"[::-1], 2),
    }
    seconds = {}
    for shape, make in shapes.items():
        requests = list(requests_of([make(number) for number in range(IDS)]))
        seconds[shape] = min(processor_seconds(requests) for _ in range(ROUNDS))
        print(f"     {shape}: {seconds[shape]:.2f} s of processor time", flush=True)
    for shape, took in seconds.items():
        most = MOST_TIMES * seconds["random"] + GRAIN_SECONDS
        expect(
            took <= most, f"ids {shape} take {took:.2f} s, random ones {seconds['random']:.2f} s"
        )


MEMORY_MIB = 64
FLOOD_REQUESTS = 1000
# What is not accounted for: the program itself, requests under way, what an allocator rounds up.
UNACCOUNTED_MIB = 96


def check_a_flood_of_traces_stays_within_its_memory():
    """A million traces whose parents never come; senders are told to wait, then some are let go."""
    chosen = random.Random(2)
    limits = {"memory_bytes": MEMORY_MIB << 20}
    # Held for so long that nothing but the budget lets go of them.
    defaults = {"quiet_period": "20s", "parent_wait": "20s", "max_age": "25s", "tombstone": "2s"}
    with attacked(limits=limits, defaults=defaults) as running:
        usage = Usage(running.process_id)
        connection = http.client.HTTPConnection("127.0.0.1", running.ports["otlp_http"], timeout=60)
        statuses = []
        for _ in range(FLOOD_REQUESTS):
            ids = [chosen.getrandbits(128) for _ in range(IDS_OF_A_REQUEST)]
            for body in requests_of(ids, parent=b"\x02" * 8):
                connection.request("POST", "/v1/traces", body, {"content-type": PROTOBUF})
                reply = connection.getresponse()
                reply.read()
                statuses.append(reply.status)
                told = reply.status != 503 or reply.getheader("retry-after")
                expect(told, "503 without Retry-After")
        connection.close()
        scrape = running.scrape()
        used, limit, degraded = (
            scrape.total(f"latency_aggregator_{name}")
            for name in ["memory_bytes", "memory_limit_bytes", "degraded"]
        )
        evicted = scrape.total("flow_closed_total", outcome="evicted", reason="capacity")
        print(
            f"     {statuses.count(200)} requests taken, {statuses.count(503)} refused, "
            f"{evicted:g} traces evicted, {used / 2**20:.0f} of {limit / 2**20:.0f} MiB accounted, "
            f"RSS {usage.peak_rss_mib():.0f} MiB"
        )
        expect_equal(set(statuses) - {200, 503}, set(), "other answers")
        expect(503 in statuses, "nobody was told to wait")
        expect_equal(limit, MEMORY_MIB << 20, "the limit")
        # Requests are refused; for longer than senders are kept waiting, some traces are evicted as well.
        expect(degraded in (1, 2), f"degraded is {degraded}")
        expect(used <= limit * 1.05, f"{used} bytes are accounted, {limit} allowed")
        rss = usage.peak_rss_mib()
        expect(rss <= MEMORY_MIB + UNACCOUNTED_MIB, f"RSS came to {rss:.0f} MiB")
        expect_equal(running.settle().unaccounted(), 0, "events that are counted nowhere or twice")
        eventually(
            lambda: running.push({"id": "1", "name": "order", "final": True})[0],
            200,
            "a push again",
        )


def requests_of(ids, parent=b""):
    """Encoded exports of one span for each id."""
    now = time.time_ns()
    template = ExportTraceServiceRequest()
    span = template.resource_spans.add().scope_spans.add().spans.add()
    span.span_id, span.name, span.kind = b"\x01" * 8, "GET /", 2
    span.parent_span_id = parent
    span.start_time_unix_nano, span.end_time_unix_nano = now - 10**9, now
    rest = span.SerializeToString()
    for first in range(0, len(ids), IDS_OF_A_REQUEST):
        some = ids[first : first + IDS_OF_A_REQUEST]
        spans = b"".join(field(2, field(1, each.to_bytes(16, "big")) + rest) for each in some)
        yield field(1, field(2, spans))


def processor_seconds(requests):
    """Of a fresh server, from the first request until all that they opened is closed."""
    with attacked(defaults={"linger": "1s", "quiet_period": "1s"}) as running:
        usage = Usage(running.process_id)
        connection = http.client.HTTPConnection("127.0.0.1", running.ports["otlp_http"], timeout=60)
        before = usage.cpu_seconds()
        for body in requests:
            connection.request("POST", "/v1/traces", body, {"content-type": PROTOBUF})
            reply = connection.getresponse()
            expect_equal((reply.status, reply.read()), (200, b""), "reply")
        connection.close()
        closed = "latency_aggregator_instances_closed_total"
        eventually(lambda: running.scrape().total(closed), IDS, closed, alive=running)
        return usage.cpu_seconds() - before

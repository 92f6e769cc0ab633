"""HTTP/2 used against the server: floods of frames, headers that grow, readers that do not read."""

import struct
import time
from contextlib import ExitStack, contextmanager

import hpack
import http2
from attacks import attacked, widened, withstood
from lib import eventually, expect, expect_equal
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

STREAMS = 128
HEADER_LIST_BYTES = 16 * 1024
# How often an attack is made, so that a healthy client has the time to feel it.
ROUNDS = 10
# Frames are sent so many at a time, so that Python is not the slower side.
BATCH = 1000


def check_rapid_resets_end_the_connection():
    """CVE-2023-44487: streams that are cancelled as soon as they are opened."""
    block = http2.export_block()
    sent = 0
    with attacked() as running, withstood(running, "rapid resets"):
        for _ in range(ROUNDS):
            with http2.Connection(running.ports["otlp_grpc"]) as connection:
                for batch in range(20):
                    sent += BATCH
                    if not connection.send(opened_and_cancelled(block, batch)):
                        break
                expect_calmed(connection, "20,000 rapid resets")
        print(f"     at most {sent} streams were sent before the connections ended")


def opened_and_cancelled(block, batch):
    cancel = struct.pack(">I", http2.CANCEL)
    frames = []
    for stream in range(batch * BATCH * 2 + 1, (batch + 1) * BATCH * 2, 2):
        frames.append(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block))
        frames.append(http2.frame(http2.RST_STREAM, 0, stream, cancel))
    return b"".join(frames)


def check_endless_continuations_end_the_connection():
    """CVE-2024-27316: headers that never end, of nothing, and of fields that are not kept."""
    fields = hpack.Encoder().encode([("x-padding", "x" * 100)] * 100, huffman=False)
    for what, piece in [("empty", b""), ("full", fields[:10_000])]:
        with attacked() as running, withstood(running, f"{what} continuations"):
            flood_until_it_ends(
                running,
                http2.frame(http2.HEADERS, 0, 1, http2.export_block()),
                http2.frame(http2.CONTINUATION, 0, 1, piece),
                f"{what} continuations",
            )


def check_a_flood_of_empty_data_ends_the_connection():
    """Frames without any byte of a body, which no window holds back."""
    with attacked() as running, withstood(running, "empty DATA frames"):
        flood_until_it_ends(
            running,
            http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.export_block()),
            http2.frame(http2.DATA, 0, 1),
            "empty DATA frames",
        )


def flood_until_it_ends(running, first, repeated, what, batches=1000):
    """Up to a million frames, on every port."""
    batch = repeated * max(1, min(BATCH, 1_000_000 // len(repeated)))
    for name in ["otlp_grpc", "otlp_http", "http"] * ROUNDS:
        with http2.Connection(running.ports[name]) as connection:
            connection.send(first)
            for _ in range(batches):
                if not connection.send(batch):
                    break
            expect_calmed(connection, f"{what} at {name}")


def expect_calmed(connection, what):
    """It was told why before it was closed, unless its own frames were in the way."""
    connection.wait(lambda: connection.ended)
    expect(connection.ended, f"the connection outlived {what}")
    told = {None, http2.ENHANCE_YOUR_CALM, http2.PROTOCOL_ERROR, http2.COMPRESSION_ERROR}
    expect(connection.goaway in told, f"GOAWAY after {what} says {connection.goaway}")


def check_floods_of_settings_and_pings_are_answered_in_no_more_memory():
    """Each wants an answer. Who does not read the answers is not read from any further.

    Two million frames are more than fit into the buffers of a socket.
    """
    resized = struct.pack(">HIHI", 1, 0, 1, 4096)
    for what, repeated in [
        ("SETTINGS", http2.frame(http2.SETTINGS)),
        ("SETTINGS that resize a table", http2.frame(http2.SETTINGS, payload=resized)),
        ("PING", http2.frame(http2.PING, payload=bytes(8))),
    ]:
        with (
            attacked() as running,
            withstood(running, f"floods of {what}, read and unread", cpu_seconds=16),
        ):
            for reads in [True, False]:
                port = running.ports["otlp_grpc"]
                with http2.Connection(port, reads=reads, timeout=1) as connection:
                    batches = 0
                    while batches < 2000 and connection.send(repeated * BATCH):
                        batches += 1
                    print(
                        f"     {batches * BATCH} {what} were taken, {'read' if reads else 'unread'}"
                    )


def check_headers_are_bounded_when_they_are_unpacked():
    """An HPACK bomb: one entry of the table, which one byte each repeats."""
    encoder = hpack.Encoder()
    first = encoder.encode([("x-bomb", "x" * 4000)], huffman=False)
    again = encoder.encode([("x-bomb", "x" * 4000)], huffman=False)
    expect_equal(len(again), 1, "bytes that repeat an entry")
    block = http2.export_block() + first + again * 14_000
    with attacked() as running, withstood(running, "HPACK bombs of 56 MB"):
        for name in ["otlp_grpc", "otlp_http", "http"]:
            for _ in range(10):
                with http2.Connection(running.ports[name]) as connection:
                    for stream in range(1, 21, 2):
                        end = http2.END_HEADERS | http2.END_STREAM
                        connection.send(http2.frame(http2.HEADERS, end, stream, block[:16_000]))
                    connection.wait(lambda c=connection: c.is_answered(1))
                    status = connection.statuses.get(1, {}).get(":status")
                    refused = status == "431" or 1 in connection.resets or connection.ended
                    expect(refused, f"a header list of 56 MB was answered with {status}")


def check_header_lists_beyond_the_limit_are_refused():
    with attacked() as running, withstood(running, "header lists beyond 16 KiB"):
        for bytes_of_value, is_refused in [(8_000, False), (HEADER_LIST_BYTES, True)]:
            block = http2.header_block("POST", "/v1/traces", ("x-long", "x" * bytes_of_value))
            reply = http2.request(running.ports["otlp_http"], block, b"\n\0")
            refused = reply.get(":status", "431") == "431"
            expect_equal(refused, is_refused, f"refusal of {bytes_of_value} bytes, reply {reply}")


def check_no_more_streams_than_allowed_are_open_on_a_connection():
    """Those beyond are refused, and may come again; those within are not."""
    block = http2.export_block()
    with attacked() as running, withstood(running, "1,000 open streams"):
        with http2.Connection(running.ports["otlp_grpc"]) as connection:
            connection.wait(lambda: http2.SETTINGS in connection.frames)
            streams = range(1, 2001, 2)
            frames = (http2.frame(http2.HEADERS, http2.END_HEADERS, s, block) for s in streams)
            connection.send(b"".join(frames))
            connection.wait(lambda: connection.ended or len(connection.resets) >= 1000 - STREAMS)
            expect(
                not connection.resets.keys() & set(streams[:STREAMS]), "an allowed one was refused"
            )
            open_streams = len(streams) - len(connection.resets)
            expect(connection.ended or open_streams <= STREAMS, f"{open_streams} streams are open")


READERS = 4
PAGES_OF_A_READER = 50
# How many pages there may be in memory for readers, being made and waiting to be read.
MOST_PAGES = 40


def check_an_upload_that_is_given_up_is_not_taken_for_a_whole_one():
    """A stream may be reset with the code that says that nothing is wrong."""
    body = one_span()
    block = http2.header_block(
        "POST",
        "/v1/traces",
        ("content-type", "application/x-protobuf"),
        ("content-length", str(2 * len(body))),
    )
    with attacked() as running:
        with http2.Connection(running.ports["otlp_http"]) as connection:
            connection.send(
                http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block)
                + http2.frame(http2.DATA, 0, 1, body)
                + http2.frame(http2.RST_STREAM, 0, 1, bytes(4))
            )
            refused = "latency_aggregator_requests_refused_total"
            eventually(lambda: running.scrape().total(refused), 1, "requests refused")
        expect_equal(running.scrape().received(), 0, "events received")


def one_span():
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = b"\x01" * 16, b"\x01" * 8
    span.end_time_unix_nano = time.time_ns()
    return request.SerializeToString()


def check_pages_that_nobody_reads_are_few():
    """Each stream asks for /metrics and gives the server no window to send it in."""
    with attacked() as running:
        page = widened(running)
        with withstood(
            running,
            f"{READERS * PAGES_OF_A_READER} pages of {page:.1f} MiB, unread",
            rss_mib=page * MOST_PAGES + 32,
            cpu_seconds=16,
        ):
            with ask_without_reading(running):
                # Those that are refused are answered at once, the others are in the making.
                time.sleep(2)


def check_pages_that_nobody_reads_are_given_up():
    with attacked(limits={"response_timeout": "2s"}) as running:
        widened(running)
        with withstood(running, "pages unread until a timeout", rss_mib=2048, cpu_seconds=16):
            with ask_without_reading(running) as connections:
                for connection in connections:
                    connection.wait(lambda c=connection: is_over(c))
                    expect(is_over(connection), "pages that nobody reads are kept")


@contextmanager
def ask_without_reading(running):
    no_window = struct.pack(">HI", 4, 0)
    block = http2.header_block("GET", "/metrics")
    ends = http2.END_HEADERS | http2.END_STREAM
    with ExitStack() as stack:
        connections = [
            stack.enter_context(http2.Connection(running.ports["http"], settings=no_window))
            for _ in range(READERS)
        ]
        for number in range(PAGES_OF_A_READER):
            for connection in connections:
                connection.send(http2.frame(http2.HEADERS, ends, 2 * number + 1, block))
            # One after the other, so that a bound on pages in the making does not help.
            time.sleep(0.05)
        yield connections


def is_over(connection):
    """All requests were refused, or given up."""
    return connection.ended or len(connection.resets) + connection.refused() >= PAGES_OF_A_READER

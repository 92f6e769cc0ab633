"""Small requests that become large, on every way in: refused early, and felt by nobody else."""

import http.client
import threading
import time

import bombs
import http2
from attacks import attacked, withstood
from lib import expect, expect_equal

MIB = bombs.MIB
# What the bombs expand to, far beyond limits.request_bytes, and how often each is sent.
BOMB_BYTES = 1 << 30
TIMES = 4
# The defaults of limits.request_bytes and push.request_bytes.
OTLP_MIB = 64
PUSH_MIB = 4
# What grows is copied to twice its size, and the allocator gives back what is free after a while.
COPIES = 6
# In a request that holds up others they wait for most of a second.
FELT_MS = 300

TOO_LARGE = 413
RESOURCE_EXHAUSTED = "8"


def check_bombs_in_otlp_over_http_are_refused():
    for content_type in ["application/x-protobuf", "application/json"]:
        for encoding, bomb in all_bombs():
            with (
                attacked() as running,
                withstood(
                    running, f"{encoding} bombs as {content_type}", rss_mib=OTLP_MIB * COPIES
                ),
            ):
                for _ in range(TIMES):
                    expect_too_large(
                        running.ports["otlp_http"], "/v1/traces", content_type, encoding, bomb
                    )


def check_bombs_in_pushes_are_refused():
    for encoding, bomb in all_bombs():
        with (
            attacked() as running,
            withstood(
                running,
                f"{encoding} bombs as pushes",
                rss_mib=PUSH_MIB * COPIES + 32,
                cpu_seconds=2,
            ),
        ):
            for _ in range(TIMES):
                expect_too_large(running.ports["http"], "/", "application/json", encoding, bomb)


def check_bombs_in_otlp_over_grpc_are_refused():
    for encoding in ["gzip", "zstd"]:
        bomb = bombs.COMPRESSED[encoding](BOMB_BYTES)
        with (
            attacked() as running,
            withstood(running, f"{encoding} bombs over gRPC", rss_mib=OTLP_MIB * COPIES),
        ):
            for _ in range(TIMES):
                reply = grpc_export(running, bomb, encoding)
                expect_equal(reply.get("grpc-status"), RESOURCE_EXHAUSTED, f"reply {reply}")
                # Nothing that invites a client to send it again.
                expect("grpc-status-details-bin" not in reply, f"details in {reply}")


def check_a_bomb_within_a_bomb_is_not_opened():
    """Only the outer compression is undone; what then is left is neither protobuf nor JSON."""
    inner = bombs.gzip(BOMB_BYTES)
    with attacked() as running, withstood(running, "a bomb within a bomb", cpu_seconds=2):
        for encoding in bombs.COMPRESSED:
            body = bombs.compressed(encoding, inner)
            for port, path in [("otlp_http", "/v1/traces"), ("http", "/")]:
                status, _ = post(running.ports[port], path, "application/json", encoding, body)
                expect_equal(status, 400, f"status of {encoding} within {encoding} at {path}")
        # One coding is undone, never a list of them.
        body = bombs.compressed("gzip", inner)
        status, _ = post(running.ports["http"], "/", "application/json", "gzip, gzip", body)
        expect_equal(status, 415, "status of two codings")


def check_floods_of_empty_spans_within_the_limit_hold_up_nobody():
    """Half the limit full of the smallest things there are, in a few kilobytes, by two clients."""
    room = OTLP_MIB // 2 * MIB
    objects = b",".join([b"{}"] * (room // 3))
    spans_of_json = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}' % objects
    for what, content_type, plain in [
        ("empty spans", "application/x-protobuf", resource_spans(room // 2 * b"\x12\x00")),
        ("empty resources", "application/x-protobuf", room // 2 * b"\x0a\x00"),
        ("empty spans", "application/json", spans_of_json),
        ("empty resources", "application/json", b'{"resourceSpans":[%s]}' % objects),
    ]:
        body = bombs.compressed("zstd", plain)
        with attacked() as running:
            send = (running.ports["otlp_http"], "/v1/traces", content_type, "zstd", body)
            expect_not_felt(running, f"{what} as {content_type}", send, OTLP_MIB * COPIES)


def check_floods_of_empty_pushes_within_the_limit_hold_up_nobody():
    for element in [b"{}", b"0", b'""', b"[]"]:
        room = PUSH_MIB * MIB // (len(element) + 1)
        body = bombs.compressed("gzip", b"[%s]" % b",".join([element] * (room - 1)))
        with attacked() as running:
            send = (running.ports["http"], "/", "application/json", "gzip", body)
            expect_not_felt(running, f"{room} times {element.decode()} as a push", send, 256)


def expect_not_felt(running, what, request, rss_mib):
    """Two clients send it four times each, and a third is answered as if they were not there."""
    replies = []
    with withstood(running, what, rss_mib, cpu_seconds=16, p99_ms=FELT_MS):
        at_once(2, lambda: replies.extend(post(*request) for _ in range(TIMES)))
    for status, reply in replies:
        expect_equal(status, 200, f"status of {what}, reply {reply[:200]}")
        expect(len(reply) < 100_000, f"a reply of {len(reply)} bytes")


BUDGET_MIB = 64
SENDERS = 32


def check_many_bombs_at_once_share_one_budget():
    """Each of them is just small enough; together they would take a gigabyte."""
    # An unknown field, which is skipped: nothing of it stays.
    plain = b"\xfa\x01" + varint(BUDGET_MIB // 2 * MIB) + bytes(BUDGET_MIB // 2 * MIB)
    request = ("/v1/traces", "application/x-protobuf", "gzip", bombs.compressed("gzip", plain))
    replies = []
    with (
        budgeted() as running,
        withstood(
            running,
            f"{SENDERS} bombs at once",
            rss_mib=BUDGET_MIB * COPIES,
            cpu_seconds=60,
            p99_ms=10_000,
        ),
    ):
        port = running.ports["otlp_http"]
        at_once(SENDERS, lambda: replies.extend(post(port, *request) for _ in range(TIMES)))
    statuses = [status for status, _ in replies]
    print(f"     {statuses.count(200)} were taken, {statuses.count(503)} told to come again")
    expect_equal(set(statuses), {200, 503}, "answers")


def check_many_large_bodies_at_once_share_one_budget():
    """Plain bodies, sent but for their last byte: what was read of them has to be kept."""
    with (
        budgeted() as running,
        withstood(
            running,
            f"{SENDERS} bodies of 16 MiB at once",
            rss_mib=BUDGET_MIB * COPIES,
            cpu_seconds=30,
            p99_ms=10_000,
        ),
    ):
        at_once(SENDERS, lambda: send_most_of_a_body(running.ports["otlp_http"], 16))


def budgeted():
    return attacked(limits={"request_bytes": 48 * MIB, "bytes_in_flight": BUDGET_MIB * MIB})


def send_most_of_a_body(port, mib):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/v1/traces")
    connection.putheader("content-type", "application/x-protobuf")
    connection.putheader("content-length", str(mib * MIB + 1))
    connection.endheaders()
    try:
        for _ in range(mib):
            connection.send(bytes(MIB))
        # The others are as far by then.
        time.sleep(2)
    except OSError:
        pass  # It was refused, and the rest is not wanted.
    finally:
        connection.close()


def at_once(count, action):
    threads = [threading.Thread(target=action, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        expect(not thread.is_alive(), "a client is not done after a minute")


def all_bombs():
    return [(encoding, make(BOMB_BYTES)) for encoding, make in bombs.COMPRESSED.items()]


def expect_too_large(port, path, content_type, encoding, bomb):
    status, reply = post(port, path, content_type, encoding, bomb)
    expect_equal(status, TOO_LARGE, f"status of a {encoding} bomb, reply {reply[:200]}")


def post(port, path, content_type, encoding, body):
    """The status and the body of the reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"content-type": content_type, "content-encoding": encoding}
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def grpc_export(running, message, encoding):
    """One export of a message that is compressed already; returns the reply's fields."""
    block = http2.export_block(("grpc-encoding", encoding))
    body = b"\x01" + len(message).to_bytes(4, "big") + message
    return http2.request(running.ports["otlp_grpc"], block, body)


def resource_spans(spans):
    """An export request with these encoded spans in one scope."""
    scope_spans = b"\x12" + varint(len(spans)) + spans
    return b"\x0a" + varint(len(scope_spans)) + scope_spans


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(encoded) + bytes([number])

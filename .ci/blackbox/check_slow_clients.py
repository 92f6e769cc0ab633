"""Clients that take their time: they are let go after a while, and meanwhile nobody else waits."""

import time
from contextlib import ExitStack

import http2
from attacks import Crowd, attacked, widened, withstood
from lib import eventually, expect, expect_equal, get
from procfs import Usage

CROWD = 100
TIMEOUT_SECONDS = 2
# For how long the rest of a body that was refused is read, so that its client hears of it.
DRAIN_SECONDS = 10
# How much longer than a timeout a connection may stay: on a busy machine, and where steps add up.
LATE_SECONDS = 8
PORTS = ("http", "otlp_http", "otlp_grpc")


def check_headers_that_drip_are_not_waited_for():
    """A byte of a header now and then, for as long as the server listens."""
    seconds = TIMEOUT_SECONDS
    begin = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n"
    with serving(header_timeout=seconds) as running, withstood(running, "dripping headers"):
        expect_let_go(running, [(name, begin) for name in PORTS], b"x-a: b\r\n", seconds)


def check_connections_that_send_nothing_are_not_waited_for():
    both = {"header_timeout": TIMEOUT_SECONDS, "idle_timeout": TIMEOUT_SECONDS}
    begins = [b"", b"P", b"PRI * HTTP/2.0\r\n", b"POST / HT"]
    with serving(**both) as running, withstood(running, "connections that send next to nothing"):
        shapes = [(name, begin) for name in PORTS for begin in begins]
        expect_let_go(running, shapes, b"", TIMEOUT_SECONDS)


def check_bodies_that_drip_are_not_waited_for():
    head = (
        b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 100000\r\n\r\n["
    )
    shapes = [("http", head % b"/"), ("otlp_http", head % b"/v1/traces")]
    both = {"body_timeout": TIMEOUT_SECONDS, "idle_timeout": TIMEOUT_SECONDS}
    with serving(**both) as running, withstood(running, "dripping bodies", cpu_seconds=8):
        expect_let_go(running, shapes, b" ", TIMEOUT_SECONDS + DRAIN_SECONDS)


def check_bodies_that_drip_over_http2_are_not_waited_for():
    """The connection may stay, its streams may not."""
    headers = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.export_block())
    drip = http2.frame(http2.DATA, 0, 1, b"\0")
    with serving(body_timeout=TIMEOUT_SECONDS) as running, withstood(running, "dripping DATA"):
        with http2.Connection(running.ports["otlp_grpc"]) as connection:
            connection.send(headers)
            deadline = time.monotonic() + TIMEOUT_SECONDS + LATE_SECONDS
            while not connection.is_answered(1):
                expect(time.monotonic() < deadline, "a stream that drips is still open")
                connection.send(drip)
                time.sleep(0.2)


def check_idle_connections_are_closed():
    """Of a client that asked once and then no more; over HTTP/2 also if it answers pings."""
    ask = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving(idle_timeout=TIMEOUT_SECONDS) as running, withstood(running, "idle connections"):
        expect_let_go(running, [("http", ask)], b"", TIMEOUT_SECONDS)
        with http2.Connection(running.ports["otlp_grpc"]) as connection:
            timeout = TIMEOUT_SECONDS + LATE_SECONDS
            expect(connection.wait(lambda: connection.ended, timeout), "an idle one is still open")


def check_headers_that_stall_over_http2_are_not_waited_for():
    """A header block that was begun is no request that is under way."""
    begun = http2.frame(http2.HEADERS, 0, 1, http2.export_block())
    with serving(idle_timeout=TIMEOUT_SECONDS) as running, withstood(running, "stalled HEADERS"):
        with http2.Connection(running.ports["otlp_grpc"]) as connection:
            connection.send(begun)
            timeout = TIMEOUT_SECONDS + LATE_SECONDS
            expect(connection.wait(lambda: connection.ended, timeout), "it is still open")


def check_readers_of_metrics_that_do_not_read_are_given_up():
    ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    # Some are refused at once, and are idle then.
    both = {"response_timeout": TIMEOUT_SECONDS, "idle_timeout": TIMEOUT_SECONDS}
    with serving(**both) as running:
        page = widened(running)
        what = f"{CROWD} readers that do not read {page:.1f} MiB"
        with withstood(running, what, rss_mib=page * 32 + 32, cpu_seconds=16):
            before = Usage(running.process_id).descriptors()
            with Crowd(running.ports["http"], CROWD, receive_bytes=4096) as crowd:
                crowd.send(ask)
                eventually(
                    lambda: Usage(running.process_id).descriptors() <= before + 2,
                    True,
                    "connections of readers that do not read are closed",
                    timeout=TIMEOUT_SECONDS + LATE_SECONDS,
                )
        expect(get(running.metrics_url)[0] == 200, "a scrape after that")


def check_connections_beyond_the_limit_are_closed_and_counted():
    with attacked(limits={"connections": 50}) as running:
        for name in PORTS:
            refused = refused_connections(running, name)
            with Crowd(running.ports[name], 200) as crowd:
                eventually(lambda c=crowd: c.read() <= 50, True, f"connections to {name} are few")
                expect(crowd.read() >= 40, f"only {crowd.read()} connections to {name} were taken")
            more = refused_connections(running, name) - refused
            expect(
                150 <= more <= 160, f"{more} of 200 connections to {name} were counted as refused"
            )
        # Others are taken again once these have gone.
        expect_equal(running.push({"id": "1", "name": "order", "final": True})[0], 200, "a push")


def refused_connections(running, name):
    """Of the listener whose label names this setting."""
    counter = "latency_aggregator_connections_refused_total"
    scrapes = []
    # While all connections are taken nobody can scrape either.
    eventually(lambda: scrapes.append(running.scrape()) is None, True, "a scrape")
    return sum(s.value for s in scrapes[-1].series(counter) if name in s.labels["listener"])


def serving(**seconds):
    """A server with these limits in seconds."""
    known = {name: f"{value}s" for name, value in seconds.items()}
    return attacked(limits=known)


def expect_let_go(running, shapes, drip, seconds):
    """Crowds begin so at these ports, and drip; all of them are closed within the time."""
    with ExitStack() as stack:
        crowds = []
        for name, begin in shapes:
            crowd = stack.enter_context(Crowd(running.ports[name], CROWD))
            crowd.send(begin)
            crowds.append((name, begin, crowd))
        deadline = time.monotonic() + seconds + LATE_SECONDS
        while still := [each for each in crowds if each[2].read()]:
            name, begin, crowd = still[0]
            expect(
                time.monotonic() < deadline,
                f"{crowd.read()} of {CROWD} connections to {name} that began with {begin[:20]!r} "
                f"are still open after {seconds + LATE_SECONDS} s",
            )
            for _, _, crowd in still:
                crowd.send(drip)
            time.sleep(0.2)

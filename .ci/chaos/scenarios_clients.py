"""What clients do: too many connections, too slow, garbage, everything three times."""

import os
import random
import resource
import socket
import time

from attacks import Crowd, widened
from ledger import Ledger, eventually_same
from lib import Aggregator, eventually, expect, expect_equal, get
from load import CONFIG, Pushes, Traces
from procfs import Usage
from senders import Senders

PORTS = ("http", "otlp_grpc", "otlp_http")
# Of a healthy client, while others do their worst.
MOST_P99_MS = 1000


def scenario_resends(seconds):
    """Every request comes three times, as after lost acknowledgements."""
    ledger, times = Ledger(), 3
    with Aggregator(CONFIG) as running:
        with Senders(running.ports, ledger, times=times) as senders:
            time.sleep(seconds)
        senders.finish()
        page = eventually_same(ledger, running)
    senders.expect_no_retries("although nothing was wrong")
    received = page.total("events_received_total")
    expect_equal(received, times * ledger.events, "events received")
    duplicates, late = page.total("events_duplicate_total"), page.total("late_events_total")
    expect_equal(duplicates + late, (times - 1) * ledger.events, "duplicates and late events")
    return (
        f"{received:g} events received, {duplicates:g} duplicates, {late:g} late; "
        f"{ledger.flows} flows, 0 lost, 0 counted twice"
    )


DESCRIPTORS = 256
CONNECTIONS = 1000


def scenario_descriptors(seconds):
    """More connections than descriptors: old ones go on, new ones come when others have gone."""
    ledger = Ledger()
    with Aggregator(CONFIG) as running:
        usage = Usage(running.process_id)
        resource.prlimit(running.process_id, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with Senders(running.ports, ledger) as senders:
            eventually(lambda: senders.requests > 30, True, "the first requests", alive=running)
            processor, before, began = usage.cpu_seconds(), senders.requests, time.monotonic()
            most = rounds = 0
            while time.monotonic() < began + seconds:
                most = max(most, occupied(running, usage, began + seconds))
                rounds += 1
            meanwhile = senders.requests - before
            processor = (usage.cpu_seconds() - processor) / (time.monotonic() - began)
            eventually(
                lambda: get(running.http + "/readyz")[0], 200, "a new connection", timeout=10
            )
        senders.finish()
        eventually_same(ledger, running)
        lines = len(running.output().splitlines())
    senders.expect_no_retries("on connections that were there before")
    expect(meanwhile > 0, "nobody got anything through meanwhile")
    expect(processor < 0.6, f"it took {processor:.0%} of a core")
    expect(lines < 40 * seconds + 100, f"{lines} lines of log")
    return (
        f"{rounds} times {CONNECTIONS} connections for {most} of {DESCRIPTORS} descriptors; "
        f"meanwhile {meanwhile} requests, p99 {senders.p99():.0f} ms, {processor:.0%} of a core, "
        f"{lines} lines of log; "
        f"{ledger.flows} flows, 0 lost, 0 counted twice"
    )


# They send nothing, for which the server may close them after ten seconds.
OCCUPIED_SECONDS = 8


def occupied(running, usage, deadline):
    """Takes all descriptors for a while; returns how many the server had open."""
    with Crowd(running.ports["otlp_http"], CONNECTIONS):
        few = DESCRIPTORS - 16
        eventually(lambda: usage.descriptors() >= few, True, "descriptors are used up", timeout=10)
        time.sleep(max(0, min(OCCUPIED_SECONDS, deadline - time.monotonic())))
        return usage.descriptors()


READERS = 20
# How long a reader may take; and how much later there is room for others.
RESPONSE_SECONDS, SCRAPE_PATIENCE_SECONDS = 2, 6


def scenario_stalled_scrapers(seconds):
    """Half of them read nothing, half a byte a second; another one is served after a while."""
    ledger, ask = Ledger(), b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    limits = {"limits": {"response_timeout": f"{RESPONSE_SECONDS}s"}}
    with Aggregator(CONFIG | limits) as running:
        page = widened(running)
        usage = Usage(running.process_id)
        usage.forget_peak()
        before, slowest = usage.rss_mib(), 0.0
        with (
            Senders(running.ports, ledger) as senders,
            Crowd(running.ports["http"], READERS // 2, receive_bytes=4096) as still,
            Crowd(running.ports["http"], READERS // 2, receive_bytes=4096) as slow,
        ):
            deadline = time.monotonic() + seconds
            still.send(ask)
            # Scrapes at once are bounded: not all in the same moment.
            time.sleep(0.5)
            slow.send(ask)
            while time.monotonic() < deadline:
                slow.read(1)
                asked = time.monotonic()
                eventually(
                    lambda: get(running.metrics_url)[0],
                    200,
                    "a scrape beside stalled ones",
                    timeout=RESPONSE_SECONDS + SCRAPE_PATIENCE_SECONDS,
                )
                slowest = max(slowest, time.monotonic() - asked)
                time.sleep(1)
        senders.finish()
        grown = usage.peak_rss_mib() - before
        eventually_same(ledger, running, foreign=True)
    senders.expect_no_retries("while scrapers stalled")
    most = page * (READERS + 12) + 64
    expect(grown < most, f"memory grew by {grown:.0f} MiB, at most {most:.0f}")
    expect_bounded_p99(senders)
    return (
        f"{READERS} readers of {page:.1f} MiB, RSS {grown:+.0f} MiB (at most {most:.0f}); "
        f"the slowest scrape beside them {slowest * 1000:.0f} ms; {ledger.flows} flows, "
        f"p99 {senders.p99():.0f} ms, 0 lost, 0 counted twice"
    )


SLOW = 500
HTTP_HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\n"
BODY = b"content-type: application/json\r\ncontent-length: 1000000\r\n\r\n["


def scenario_slow_clients(seconds):
    """Some drip headers, some bodies, some nothing at all; whoever is let go comes again."""
    ledger, let_go = Ledger(), 0
    with Aggregator(CONFIG) as running:
        shapes = [
            ("http", HTTP_HEAD % b"/", b"x-a: b\r\n"),
            ("http", HTTP_HEAD % b"/" + BODY, b" "),
            ("otlp_http", HTTP_HEAD % b"/v1/traces" + BODY, b" "),
            ("otlp_http", b"", b""),
            ("otlp_grpc", b"PRI * HTTP/2.0\r\n", b""),
        ]
        with Senders(running.ports, ledger) as senders:
            crowds = [
                (name, begin, drip, begun(running, name, begin)) for name, begin, drip in shapes
            ]
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                for index, (name, begin, drip, crowd) in enumerate(crowds):
                    crowd.send(drip)
                    crowd.read()
                    if crowd.ended > SLOW // len(shapes) // 2:
                        let_go += crowd.ended
                        crowd.close()
                        crowds[index] = (name, begin, drip, begun(running, name, begin))
                time.sleep(0.25)
            for _, _, _, crowd in crowds:
                let_go += crowd.ended
                crowd.close()
        senders.finish()
        eventually_same(ledger, running)
        usage = Usage(running.process_id)
        eventually(lambda: usage.descriptors() < 40, True, "their descriptors are free again")
    senders.expect_no_retries("while others were slow")
    expect_bounded_p99(senders)
    return (
        f"{SLOW} slow connections, {let_go} let go; {ledger.flows} flows in {senders.requests} "
        f"requests, healthy p99 {senders.p99():.0f} ms, 0 lost, 0 counted twice"
    )


def begun(running, name, begin):
    crowd = Crowd(running.ports[name], SLOW // 5)
    if begin:
        crowd.send(begin)
    return crowd


# A damaged request may open flows that wait for what nobody sends; they are to end as well.
SHORT_WAITS = {"defaults": CONFIG["defaults"] | {"max_age": "20s", "parent_wait": "10s"}}


def scenario_hostile_bytes(seconds):
    """Garbage, and what is almost a request, on every port."""
    seed = int.from_bytes(os.urandom(4), "big")
    chosen = random.Random(seed)
    ledger, sent = Ledger(), 0
    with Aggregator(CONFIG | SHORT_WAITS) as running:
        with Senders(running.ports, ledger) as senders:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                send_hostile(running.ports[chosen.choice(PORTS)], hostile(chosen))
                sent += 1
            expect(running.exit_code() is None, f"it exited (seed {seed})")
        senders.finish()
        eventually_same(ledger, running, foreign=True)
        output = running.output()
    senders.expect_no_retries(f"beside hostile bytes (seed {seed})")
    expect("panicked" not in output, f"a panic (seed {seed}): {output[-2000:]}")
    expect_bounded_p99(senders)
    return (
        f"{sent} hostile connections (seed {seed}); {ledger.flows} flows in {senders.requests} "
        f"requests, p99 {senders.p99():.0f} ms, 0 lost, 0 counted twice"
    )


def hostile(chosen):
    """Bytes that begin like something, up to a point."""
    garbage = chosen.randbytes(chosen.choice([1, 10, 100, 1000, 20_000]))
    body = chosen.choice([b"", garbage, damaged(chosen)])
    path = chosen.choice([b"/", b"/v1/traces", b"/metrics", b"/api/flows", garbage[:20]])
    kind = chosen.choice([b"application/json", b"application/x-protobuf", garbage[:10]])
    encoding = chosen.choice([b"identity", b"gzip", b"zstd", b"deflate"])
    head = (
        b"%s %s HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\ncontent-encoding: %s\r\n"
        b"content-length: %d\r\n\r\n"
        % (chosen.choice([b"POST", b"GET", b"PUT"]), path, kind, encoding, len(body))
    )
    http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)
    whole = chosen.choice([garbage, head + body, http2 + garbage, http2 + framed(chosen, garbage)])
    return whole if chosen.random() < 0.5 else whole[: chosen.randrange(len(whole) + 1)]


def framed(chosen, garbage):
    """Whole frames of HTTP/2, of any kind, on any stream."""
    frames = []
    while garbage and len(frames) < 50:
        payload, garbage = garbage[:50], garbage[50:]
        head = [chosen.randrange(12), chosen.randrange(256), 0, 0, 0, chosen.randrange(6)]
        frames.append(len(payload).to_bytes(3, "big") + bytes(head) + payload)
    return b"".join(frames)


def damaged(chosen):
    """A good request with some bytes changed, of series that the ledger does not count."""
    make = chosen.choice([Traces, Pushes])
    body = bytearray(chosen.choice(make(is_split=False).batch().requests))
    for _ in range(chosen.randrange(1, 10)):
        body[chosen.randrange(len(body))] = chosen.randrange(256)
    for ours in [b"shop-", b"gateway", b"warehouse", b"store-", b"quick_order"]:
        body = body.replace(ours, b"x" * len(ours))
    return bytes(body)


def send_hostile(port, data):
    """What the server says to it, or whether it says anything, does not matter here."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(0.01)
            connection.recv(1000)
        except OSError:
            pass


def expect_bounded_p99(senders):
    expect(senders.p99() < MOST_P99_MS, f"p99 of healthy clients is {senders.p99():.0f} ms")

"""What happens to the server: restarts, reloads, and clocks that are set."""

import json
import os
import re
import signal
import tempfile
import time
from pathlib import Path

from environment import TARGET
from ledger import Ledger, eventually_same, expect_same
from lib import (
    SHORT_TIMERS,
    Aggregator,
    eventually,
    expect,
    expect_close,
    expect_equal,
    free_port,
    get,
)
from load import CONFIG, rfc3339
from senders import Senders

PORTS = ("http", "otlp_grpc", "otlp_http")


def scenario_restarts(seconds):
    """SIGTERM again and again, on the same ports. Whole flows come in one request each.

    Each process shows its last values before it ends, new series among them, for which
    metrics.zero_first is as long as it is by default.
    """
    ports = {name: free_port() for name in PORTS}
    listen = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    config = {
        **CONFIG,
        "listen": listen,
        "metrics": {},
        "shutdown": {"grace": "10s", "linger": "15s"},
    }
    ledger, last_scrapes, ends = Ledger(), [], []
    deadline = time.monotonic() + seconds
    senders = Senders(ports, ledger, is_split=False)
    running = Aggregator(config).__enter__()
    try:
        with senders:
            while time.monotonic() < deadline:
                time.sleep(1)
                last, took = restarted(running)
                last_scrapes.append(last)
                ends.append(took)
                running = Aggregator(config).__enter__()
        senders.finish()
        last, took = restarted(running)
        last_scrapes.append(last)
    finally:
        running.stop()
    page = expect_same(ledger, last_scrapes)
    evicted = sum(each.total("flow_closed_total", outcome="evicted") for each in last_scrapes)
    expect_equal(evicted, 0, "flows that were evicted although they had ended")
    return (
        f"{len(last_scrapes)} processes, the slowest end took {max(ends):.2f} s; "
        f"{ledger.flows} flows, {page.total('events_received_total'):g} events received, "
        f"{len(senders.retries)} requests sent again, 0 refused, 0 lost, 0 counted twice"
    )


def restarted(running):
    """Ends a process; returns its last scrape and how many seconds its end took."""
    running.terminate()
    began, last = time.monotonic(), None
    while running.exit_code() is None:
        expect(time.monotonic() - began < 12, "no end within the grace period")
        try:
            last = running.scrape()
        except OSError:
            pass  # It has ended meanwhile.
        time.sleep(0.02)
    expect_equal(running.exit_code(), 0, "exit code after SIGTERM")
    expect(last is not None, "no scrape was answered after SIGTERM")
    took = time.monotonic() - began
    running.__exit__(None, None, None)
    return last, took


RELOADS = 1000
# Every so many, a reload is waited for, and every so many the config is a wrong one.
LOOK_EVERY, WRONG_EVERY = 20, 10


def scenario_reloads(seconds):
    """A thousand configs under load, some of them wrong; flows that go on are not to notice."""
    base = {**SHORT_TIMERS, **CONFIG}
    ledger, refused = Ledger(), 0
    with Aggregator(base) as running:
        path = running.directory / "config.yaml"
        with Senders(running.ports, ledger) as senders:
            began = time.monotonic()
            for number in range(RELOADS):
                is_wrong = number % WRONG_EVERY == WRONG_EVERY - 1
                text = "flows: [" if is_wrong else json.dumps(changed(base, number))
                replace(path, text)
                running.signal(signal.SIGHUP)
                refused += is_wrong
                if number % LOOK_EVERY == 0:
                    wait_until_taken(running)
                pause = began + seconds * (number + 1) / RELOADS - time.monotonic()
                time.sleep(max(pause, 0.002))
            replace(path, json.dumps(base))
            running.signal(signal.SIGHUP)
        senders.finish()
        eventually_same(ledger, running)
        expect(running.exit_code() is None, "it has ended")
        taken = running.output().count("the config was reloaded")
    senders.expect_no_retries("during reloads")
    expect(taken >= RELOADS / LOOK_EVERY, f"only {taken} of {RELOADS} configs were taken")
    return (
        f"{RELOADS} configs, {taken} taken, {refused} wrong; {ledger.flows} flows in "
        f"{senders.requests} requests, p99 {senders.p99():.0f} ms, no connection dropped, "
        "0 lost, 0 counted twice"
    )


def changed(base, number):
    """What changes are timers, flows that nothing belongs to, and a version of `checkout`."""
    checkout, *others = base["flows"]
    extra = [
        {"name": f"extra_{n}", "match": f'span.name == "extra {n}"'} for n in range(number % 7)
    ]
    linger = f"{500 + number % 3 * 50}ms"
    return {
        **base,
        "defaults": {**base["defaults"], "quiet_period": linger},
        "flows": [*extra[:3], {**checkout, "linger": linger}, *extra[3:], *others],
    }


def replace(path, text):
    """As editors do it: never half a file."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


def wait_until_taken(running):
    """The config that is there was right, and is in force."""
    deadline = time.monotonic() + 10
    name = "latency_aggregator_config_last_reload_successful"
    while running.scrape().total(name) != 1:
        expect(time.monotonic() < deadline, "a right config is not taken")
        running.signal(signal.SIGHUP)
        time.sleep(0.02)


HELD = 200
HOUR = 3600
# Of this flow only the beginning comes while clocks are set.
HELD_FLOW = {"name": "held", "end": [{"stage": "done"}]}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def scenario_clock(seconds):
    """The wall clock of the server jumps by an hour, forwards and backwards.

    Its monotonic clock does not: nothing may be closed because of it.
    """
    library = faketime_library()
    config = {**CONFIG, "flows": [*CONFIG["flows"], HELD_FLOW]}
    ledger, jumps = Ledger(), 0
    with tempfile.TemporaryDirectory() as directory:
        clock = Path(directory) / "clock"
        clock.write_text("+0")
        faked = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with Aggregator(config, environment=faked) as running:
            push_held(running, "placed")
            with Senders(running.ports, ledger) as senders:
                eventually(
                    lambda: created(running, CHECKOUT) is not None, True, "a series", alive=running
                )
                began_at = created(running, CHECKOUT)
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    for offset in [HOUR, 0, -HOUR, 0]:
                        replace(clock, f"{offset:+d}")
                        jumps += 1
                        expect_clock(running, jumps, offset)
                        time.sleep(min(1, seconds / 8))
                        still = running.scrape().total("flow_open", flow="held")
                        expect_equal(still, HELD, f"open flows after a jump to {offset:+d} s")
                expect_equal(created(running, CHECKOUT), began_at, "start timestamp of a series")
            senders.finish()
            push_held(running, "done")
            eventually_same(ledger, running, foreign=True)
            scrape = running.scrape()
            expect_equal(scrape.total("flow_closed_total", flow="held"), HELD, "held flows closed")
            expect_equal(scrape.total("latency_aggregator_late_events_total"), 0, "late events")
    senders.expect_no_retries("while clocks were set")
    return (
        f"{jumps} jumps by an hour; {HELD} open flows stayed open; {ledger.flows} flows, "
        f"p99 {senders.p99():.0f} ms, 0 lost, 0 counted twice"
    )


CHECKOUT = 'flow="checkout".*tenant="tenant-1"'


def faketime_library():
    named = os.environ.get("FAKETIME_LIBRARY")
    found = (
        [Path(named)]
        if named
        else list(TARGET.glob("ci/faketime/usr/lib/*/faketime/libfaketimeMT.so.1"))
    )
    expect(found and found[0].exists(), "libfaketime is missing; `bash .ci/run tools` installs it")
    return found[0]


def push_held(running, stage):
    pushes = [{"id": f"held-{n}", "name": "held", "stage": stage} for n in range(HELD)]
    now = rfc3339(time.time_ns() // 1_000_000)
    status, reply = running.push([push | {"created_at": now} for push in pushes])
    expect_equal((status, reply["status"]), (200, "ok"), f"reply to the pushes: {reply}")


def expect_clock(running, jump, offset):
    """The jump has arrived: a series that begins now says that it began at that time."""
    labels = {"jump": str(jump)}
    push = {"id": str(jump), "name": "probe", "final": True, "label_values": labels}
    status, reply = running.push(push | {"created_at": rfc3339(time.time_ns() // 1_000_000)})
    expect_equal((status, reply["status"]), (200, "ok"), f"reply to the push: {reply}")
    eventually(
        lambda: created(running, f'flow="probe".*jump="{jump}"') is not None,
        True,
        "a new series",
        alive=running,
    )
    ahead = created(running, f'flow="probe".*jump="{jump}"') - time.time()
    expect_close(ahead, offset, 30, "seconds that the server's wall clock is ahead")


def created(running, labels):
    """When the server says that a series of flow_closed_total began."""
    _, text = get(running.metrics_url, headers=OPENMETRICS)
    line = re.search(rf"^flow_closed_created\{{.*{labels}.*\}} (\S+)", text, re.MULTILINE)
    return float(line.group(1)) if line else None

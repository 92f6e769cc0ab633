"""Kills and full disks, with a store: what was acknowledged outlives them, and no counter falls."""

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from ledger import Ledger, eventually_same
from lib import (
    Aggregator,
    CheckFailed,
    Scrape,
    eventually,
    expect,
    expect_equal,
    free_port,
    get,
    run,
)
from load import CONFIG
from prometheus import Prometheus
from senders import Senders

PORTS = ("http", "otlp_grpc", "otlp_http")
# A process lives for a random time up to this; KILLS ends the run, by default time does.
LIFE_SECONDS = 0.8
KILLS = int(os.environ.get("KILLS", "0"))

# What follows from what was received. All else is about the process, and begins with it.
DURABLE = (
    "flow_",
    "quick_order",
    "latency_aggregator_events_",
    "latency_aggregator_instances_",
    "latency_aggregator_late_",
    "latency_aggregator_close_lag_",
)
RISING = ("_total", "_count", "_sum", "_bucket")
# Gauges, of which one has a name like these.
FALLING = ("latency_aggregator_events_open",)


def scenario_kills(seconds):
    """SIGKILL again and again, at random moments. Half of the requests come twice."""
    with ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="chaos-store-")
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        ports = {name: free_port() for name in PORTS}
        config = stored(directory, ports)
        ledger, kills, recoveries = Ledger(), 0, []
        running = Aggregator(config).__enter__()
        watch = Watch(f"http://127.0.0.1:{ports['http']}/metrics")
        stack.enter_context(watch)
        server = stack.enter_context(Prometheus(running)) if "PROMETHEUS" in os.environ else None
        once, twice = Senders(ports, ledger), Senders(ports, ledger, times=2)
        began = time.monotonic()
        try:
            with once, twice:
                while kills < KILLS if KILLS else time.monotonic() - began < seconds:
                    time.sleep(random.uniform(0, LIFE_SECONDS))
                    running.signal(signal.SIGKILL)
                    running.wait(10)
                    running.__exit__(None, None, None)
                    running = Aggregator(config).__enter__()
                    kills += 1
                    recoveries.append(recovery_seconds(running))
            once.finish()
            twice.finish()
            page = eventually_same(ledger, running)
            expect_equal(watch.fallen, [], "counters that fell, as /metrics showed them")
            expect(watch.scrapes > kills, "hardly any scrape was answered")
            resets = resets_seen(server, began) if server else "not asked"
        finally:
            running.stop()
    duplicates = page.total("events_duplicate_total")
    late = page.total("late_events_total")
    return (
        f"{kills} kills; {ledger.flows} flows, {page.total('events_received_total'):g} events "
        f"received, of which {duplicates:g} duplicates and {late:g} late; "
        f"{len(once.retries) + len(twice.retries)} requests sent again, 0 lost, 0 counted twice, "
        f"0 counters fell in {watch.scrapes} scrapes, resets() of Prometheus: {resets}; "
        f"the slowest recovery took {max(recoveries):.2f} s"
    )


def stored(directory, ports, **more):
    store = {"fsync": os.environ.get("FSYNC", "1s"), "checkpoint_bytes": 1 << 20, **more}
    return {
        **CONFIG,
        "listen": {name: f"127.0.0.1:{port}" for name, port in ports.items()},
        "metrics": {"zero_first": "1s"},
        "store": {"path": directory, **store},
    }


DISK_MIB = 24


def scenario_full_disk(seconds):
    """A small disk that somebody else fills up, and frees again, with kills in between."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="chaos-disk-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", directory]
        code, output = run(command)
        if code != 0:
            return f"skipped, for no small disk may be mounted here: {output.strip()}"
        stack.callback(run, ["umount", "-l", directory])
        ports = {name: free_port() for name in PORTS}
        config = stored(str(directory / "store"), ports, free_bytes=1 << 20)
        ledger, fills, kills = Ledger(), 0, 0
        running = Aggregator(config).__enter__()
        watch = stack.enter_context(Watch(f"http://127.0.0.1:{ports['http']}/metrics"))
        senders, began = Senders(ports, ledger), time.monotonic()
        try:
            with senders:
                while time.monotonic() - began < seconds:
                    time.sleep(random.uniform(0.5, 1.5))
                    ready = running.http + "/readyz"
                    fill_up(directory / "filler")
                    eventually(lambda: get(ready)[0], 503, "readyz when full", alive=running)
                    scraped = running.scrape()
                    expect_equal(scraped.total("latency_aggregator_store_up"), 0, "store_up")
                    expect(scraped.has("flow_closed_total"), "flows are shown while the disk is full")
                    time.sleep(random.uniform(0, 1))
                    if fills % 3 == 2:
                        running.signal(signal.SIGKILL)
                        running.wait(10)
                        running.__exit__(None, None, None)
                        (directory / "filler").unlink()
                        running = Aggregator(config).__enter__()
                        kills += 1
                    else:
                        (directory / "filler").unlink()
                    eventually(lambda: get(ready)[0], 200, "readyz with room again", alive=running)
                    fills += 1
            senders.finish()
            eventually_same(ledger, running)
            expect_equal(watch.fallen, [], "counters that fell")
            expect(running.exit_code() is None, "it has ended")
        finally:
            running.stop()
    return (
        f"{fills} times full, {kills} kills then; {ledger.flows} flows, {len(senders.retries)} "
        f"requests sent again, 0 lost, 0 counted twice, 0 counters fell in {watch.scrapes} scrapes"
    )


def fill_up(path):
    """To the last byte."""
    with open(path, "wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError:
                continue


def recovery_seconds(running):
    return running.scrape().total("latency_aggregator_store_recovery_seconds")


def resets_seen(server, began):
    """By a real Prometheus, of every counter that must not fall."""
    # What is not scraped at this moment is not known at this moment.
    eventually(lambda: server.query("min(up)"), 1, "a scrape that worked")
    window = f"[{int(time.monotonic() - began) + 60}s]"
    names = "|".join(f"{prefix}.*({'|'.join(RISING)})" for prefix in DURABLE)
    known = server.series(f'count by (__name__) ({{__name__=~"{names}"}})')
    expect(len(known) > 20, f"Prometheus knows {len(known)} counters only")
    seen = {}
    for name in (series["metric"]["__name__"] for series in known):
        if name not in FALLING and (resets := server.query(f"sum(resets({name}{window}))")):
            seen[name] = resets
    expect_equal(seen, {}, "resets that Prometheus saw")
    return f"0 of {len(known)} counters"


class Watch(threading.Thread):
    """Reads /metrics all the time, and compares each page with the ones before."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self._url, self._stopped = url, threading.Event()
        self._seen, self.fallen, self.scrapes = {}, [], 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self._stopped.set()
        self.join(20)

    def run(self):
        while not self._stopped.wait(0.05):
            try:
                status, text = get(self._url, timeout=5)
            except (OSError, CheckFailed):
                continue
            except Exception:  # A page that was cut off by a kill.
                continue
            if status == 200:
                self._compare(Scrape(text))

    def _compare(self, scrape):
        self.scrapes += 1
        for sample in scrape.samples:
            name = sample.name
            if not name.startswith(DURABLE) or not name.endswith(RISING) or name in FALLING:
                continue
            where = (name, frozenset(sample.labels.items()))
            before = self._seen.get(where, 0)
            if sample.value < before and len(self.fallen) < 5:
                self.fallen.append((name, sample.labels, before, sample.value))
            self._seen[where] = sample.value

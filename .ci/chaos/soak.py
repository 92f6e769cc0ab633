"""Hours of a steady load: do memory or open descriptors grow, and is everything counted once?

    python3 .ci/chaos/soak.py --minutes 60 [--binary target/release/latency-aggregator]

2,000 spans a second over gRPC on one connection, 20 pushes a second on a new connection each, a
scraper every 5 s, and every 10 s requests that are refused. What the program remembers of closed
flows is bounded so low that it is full after half a minute: what grows after the warm-up grows for
another reason.
"""

import argparse
import re
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack

import environment

arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
arguments.add_argument("--minutes", type=float, default=60.0, help="for how long; default: 60")
arguments.add_argument("--binary", help="default: target/release/latency-aggregator")
arguments.add_argument("--spans-per-second", type=int, default=2000, help="default: 2000")
arguments.add_argument("--pushes-per-second", type=int, default=20, help="default: 20")
if __name__ == "__main__":
    OPTIONS = arguments.parse_args()
    environment.prepare(OPTIONS.binary)


import lib  # noqa: E402
from lib import Aggregator, Process, expect, expect_equal, get, post_json, tool  # noqa: E402
from procfs import Usage  # noqa: E402

SAMPLE_SECONDS = 10
SCRAPE_SECONDS = 5
REFUSED_SECONDS = 10
# Whole traces, so that each of them ends by its root.
SPANS_PER_TRACE = 8
SPANS_PER_REQUEST = 25 * SPANS_PER_TRACE
# In which memory may still find its size: a share of the time, at least and at most seconds.
WARM_UP = (0.25, 90, 900)
# What an hour may add. Over less than half an hour noise adds more, and nothing is concluded.
MOST_MIB_PER_HOUR = 4
MOST_DESCRIPTORS_PER_HOUR = 4
LEAST_MINUTES_TO_CONCLUDE = 30
# Of the server and all that it is fed by: a soak runs beside other work.
MOST_OF_ONE_CORE = 0.3

STAGES = ("placed", "shipped")
STORES = 7

CONFIG = {
    "defaults": {"quiet_period": "2s", "linger": "2s", "tombstone": "15s"},
    "limits": {"remembered": 5000},
    "reload": {"interval": "0s"},
}


def main(options):
    # What was started is ended also then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    minutes = f"{options.minutes:g}m" if options.minutes >= 1 else f"{options.minutes * 60:.0f}s"
    with ExitStack() as stack:
        server = stack.enter_context(Aggregator(CONFIG))
        load = stack.enter_context(Process("load", load_command(server, options, minutes)))
        stopped = threading.Event()
        pushes = Repeated(stopped, 1 / options.pushes_per_second, Pushes(server))
        scrapes = Repeated(
            stopped, SCRAPE_SECONDS, lambda: expect_equal(get(server.metrics_url)[0], 200, "scrape")
        )
        refused = Repeated(stopped, REFUSED_SECONDS, lambda: send_what_is_refused(server))
        stack.callback(stopped.set)
        workers = [pushes, scrapes, refused]
        for worker in workers:
            worker.start()
        print(f"soak for {options.minutes:g} min, process {server.process_id}", flush=True)
        samples = sample(server, load, options.minutes * 60)
        stopped.set()
        for worker in workers:
            worker.join()
            expect_equal(worker.failures, [], "failures of a client")
        expect_little_processor_time(samples)
        expect_conserved(server, load, pushes.turns)
        expect_flat(samples, options.minutes)


def load_command(server, options, duration):
    return [
        tool("AGGREGATOR_BINARY"),
        "load",
        f"--url=http://{server.otlp_grpc}",
        f"--spans={SPANS_PER_REQUEST}",
        f"--trace-spans={SPANS_PER_TRACE}",
        f"--rate={options.spans_per_second / SPANS_PER_REQUEST:g}",
        f"--duration={duration}",
        "--connections=1",
        f"--metrics={server.metrics_url}",
    ]


class Repeated(threading.Thread):
    """Does something at a steady rate until `stopped`, and keeps what went wrong."""

    def __init__(self, stopped, seconds, turn):
        super().__init__(daemon=True)
        self._stopped, self._seconds, self._turn = stopped, seconds, turn
        self.turns = 0
        self.failures = []

    def run(self):
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due += self._seconds
            try:
                self._turn()
                self.turns += 1
            except (OSError, lib.CheckFailed) as failure:
                self.failures.append(str(failure))


class Pushes:
    """Flows of two stages, the second of which ends them."""

    def __init__(self, server):
        self._server = server
        self._count = 0

    def __call__(self):
        number, is_final = divmod(self._count, 2)
        self._count += 1
        push = {"id": f"soak-{number}", "name": "soak_order", "stage": STAGES[is_final]}
        push |= {"final": bool(is_final), "label_values": {"store": f"store-{number % STORES}"}}
        status, reply = self._server.push(push)
        expect_equal((status, reply["status"]), (200, "ok"), f"reply to a push: {reply}")


def send_what_is_refused(server):
    """What cannot be decoded, what nothing is served for, and a request that breaks off."""
    expect_equal(post_json(server.http + "/", b"{")[0], 400, "a push that is no JSON")
    traces = f"http://{server.otlp_http}/v1/traces"
    expect_equal(post_json(traces, b"[")[0], 400, "an export that is no JSON")
    expect_equal(get(f"http://{server.otlp_http}/nowhere")[0], 404, "a path without anything")
    with socket.create_connection(("127.0.0.1", server.ports["http"])) as broken:
        broken.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")


class Sample:
    """Of the server, at a time in seconds since the beginning."""

    def __init__(self, usage, began):
        self.at = time.monotonic() - began
        self.rss_mib = usage.rss_mib()
        self.descriptors = usage.descriptors()
        self.cpu_seconds = usage.cpu_seconds()


def sample(server, load, seconds):
    """A sample every few seconds until the load has ended."""
    usage, began = Usage(server.process_id), time.monotonic()
    samples = [Sample(usage, began)]
    while load.exit_code() is None:
        expect(samples[-1].at < seconds + 60, "the load does not end")
        expect(server.exit_code() is None, f"the server exited with {server.exit_code()}")
        time.sleep(min(SAMPLE_SECONDS, seconds / 20))
        samples.append(Sample(usage, began))
        if len(samples) % 30 == 0:
            last = samples[-1]
            memory, descriptors = f"{last.rss_mib:7.1f} MiB", f"{last.descriptors:4d} descriptors"
            print(f"{last.at:7.0f} s  {memory}  {descriptors}", flush=True)
    return samples


def expect_little_processor_time(samples):
    """Of the server, this program, and the load, which has been waited for."""
    seconds = samples[-1].at
    server = (samples[-1].cpu_seconds - samples[0].cpu_seconds) / seconds
    load = resource.getrusage(resource.RUSAGE_CHILDREN)
    clients = (Usage("self").cpu_seconds() + load.ru_utime + load.ru_stime) / seconds
    print(f"processor: server {server:.1%}, clients {clients:.1%} of one core")
    expect(server + clients < MOST_OF_ONE_CORE, f"they took more than {MOST_OF_ONE_CORE:.0%}")


def expect_conserved(server, load, pushes):
    """What was acknowledged was counted, once: events, traces, pushed flows of each store."""
    print("\n".join("load: " + line for line in load.output().splitlines()))
    expect_equal(load.exit_code(), 0, "exit code of the load")
    found = re.search(r"accepted +(\d+) events in (\d+) requests", load.output())
    expect(found, "the load does not say what was accepted")
    spans, _ = map(int, found.groups())
    scrape = server.settle()
    expect_equal(scrape.received(), spans + pushes, "events received")
    expect_equal(scrape.unaccounted(), 0, "events that are counted nowhere or twice")
    expect_equal(scrape.unaccounted_instances(), 0, "instances that are counted nowhere or twice")
    observed = scrape.total("flow_latency_seconds_count", flow="trace", outcome="ok")
    expect_equal(observed, spans / SPANS_PER_TRACE, "traces")
    # A flow whose last stage the end came before is closed by its quiet period.
    flows = -(-pushes // 2)
    expect_equal(
        scrape.total("flow_latency_seconds_count", flow="soak_order"), flows, "pushed flows"
    )
    for store in range(STORES):
        expected = len(range(store, flows, STORES))
        expect_equal(
            scrape.total("soak_order_count", store=f"store-{store}"), expected, f"store-{store}"
        )
    traces = spans // SPANS_PER_TRACE
    print(f"conserved: {spans} spans of {traces} traces, {pushes} pushes of {flows} flows")


def expect_flat(samples, minutes):
    """The slopes after the warm-up, by least squares."""
    share, least, most = WARM_UP
    warm_up = min(max(share * minutes * 60, least), most, minutes * 30)
    steady = [sample for sample in samples if sample.at >= warm_up]
    memory = slope_per_hour(steady, lambda sample: sample.rss_mib)
    descriptors = slope_per_hour(steady, lambda sample: sample.descriptors)
    first, last = steady[0], steady[-1]
    print(
        f"after {warm_up:.0f} s of warm-up, {len(steady)} samples: "
        f"RSS {first.rss_mib:.1f} to {last.rss_mib:.1f} MiB, slope {memory:+.2f} MiB/h; "
        f"descriptors {first.descriptors} to {last.descriptors}, slope {descriptors:+.2f}/h"
    )
    if minutes < LEAST_MINUTES_TO_CONCLUDE:
        print(f"less than {LEAST_MINUTES_TO_CONCLUDE} min, too short to conclude from slopes")
        return
    expect(memory < MOST_MIB_PER_HOUR, f"memory grows by {memory:.1f} MiB/h")
    expect(descriptors < MOST_DESCRIPTORS_PER_HOUR, f"open descriptors grow by {descriptors:.1f}/h")


def slope_per_hour(samples, value):
    times = [sample.at / 3600 for sample in samples]
    values = [value(sample) for sample in samples]
    mean_time, mean_value = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - mean_time) ** 2 for at in times)
    together = sum((at - mean_time) * (y - mean_value) for at, y in zip(times, values, strict=True))
    return together / spread if spread else 0.0


if __name__ == "__main__":
    try:
        main(OPTIONS)
    except lib.CheckFailed as failure:
        raise SystemExit(f"FAIL soak: {failure}") from failure
    print("ok   soak")

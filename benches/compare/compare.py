#!/usr/bin/env python3
"""Compares latency-aggregator with others on the same load, in turns, and prints a table of ratios.

    python3 benches/compare/compare.py                      everything; takes most of an hour
    python3 benches/compare/compare.py grpc-1000 push       these comparisons only
    python3 benches/compare/compare.py --rounds 2 --seconds 3

What is compared is the processor time of the server process, user and system, for each accepted event: wall times say
nothing as long as the client may be the slower side. All contenders run all the time and are loaded one after the other, round
by round. What a load causes later (flows that are closed, garbage that is collected) counts as well: a contender that has work
left when its load is over is waited for. A ratio is taken within a round. The first round warms up and is not counted.

The rate is capped so that no more flows are open than latency-aggregator takes by default; who is slower is sent the next
request as soon as it has answered one.
"""

import argparse
import datetime
import platform
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import contenders
from contenders import COLLECTOR, COLLECTOR_BY_TRACE, NULL_SINK, PUSH_SERVER, ROTEL, STOCK, Server, ours
from load import send

# Events a second. Flows of 8 spans linger for 10 s, and `limits.instances` is 1,000,000.
SPANS_PER_SECOND = 600_000


@dataclass
class Entrant:
    """A contender and what it is sent; each has a process of its own."""

    contender: contenders.Contender
    protocol: str
    arguments: list


def spans(contender, protocol, in_request, *more, rate=SPANS_PER_SECOND):
    return Entrant(contender, protocol, ["--spans", in_request, "--rate", rate / in_request, *more])


def by_otlp(protocol, in_request):
    peers = [ours(), NULL_SINK, STOCK, ROTEL, COLLECTOR]
    return [spans(peer, protocol, in_request) for peer in peers]


def at_rate(rate):
    return [spans(peer, "grpc", 100, rate=rate) for peer in (ours(), NULL_SINK, ROTEL, COLLECTOR)]


def pushes(contender):
    return Entrant(contender, "push", ["--connections", 8, "--trace-spans", 3])


def many_open():
    """The same spans for 10,000 traces that are open at once, and for 10,000,000."""
    # No trace may be closed or folded for want of its next span, which comes after all others had one.
    config = "defaults: {quiet_period: 30m, max_age: 1h, linger: 1s}\nlimits: {instances: 20000000}\n"
    fixed = ["--spans", 1000, "--layout", "split", "--connections", 2]
    return [
        Entrant(ours(f"{count} open traces", config), "grpc", [*fixed, "--open-traces", count])
        for count in (10_000, 10_000_000)
    ]


def stored(in_request, rate=SPANS_PER_SECOND):
    """Without a store, and with one at each level of durability."""
    levels = [ours()] + [
        ours(f"store, fsync {fsync}", f"store: {{path: store-{fsync}, fsync: {fsync}}}\n")
        for fsync in ("never", "1s", "always")
    ]
    return [spans(level, "grpc", in_request, rate=rate) for level in levels]


COMPARISONS = {
    "grpc-100": lambda: by_otlp("grpc", 100),
    "grpc-1000": lambda: [*by_otlp("grpc", 1000), spans(COLLECTOR_BY_TRACE, "grpc", 1000)],
    "grpc-8192": lambda: by_otlp("grpc", 8192),
    "http-1000": lambda: by_otlp("http", 1000),
    "interleaved": lambda: [
        spans(ours(), "grpc", 1000),
        spans(ours("interleaved traces"), "grpc", 1000, "--layout", "interleaved"),
        spans(ours("split traces"), "grpc", 1000, "--layout", "split"),
    ],
    "gzip": lambda: [
        spans(ours(), "grpc", 1000),
        spans(ours("gzip over gRPC"), "grpc", 1000, "--gzip"),
        spans(ours("gzip over HTTP"), "http", 1000, "--gzip"),
    ],
    # Of what Rotel takes at most on two cores that it shares with the client, a quarter, a half and four fifths.
    "rate-110k": lambda: at_rate(110_000),
    "rate-220k": lambda: at_rate(220_000),
    "rate-350k": lambda: at_rate(350_000),
    "store-100": lambda: stored(100),
    "store-1000": lambda: stored(1000),
    "store-110k": lambda: stored(100, rate=110_000),
    "push": lambda: [pushes(ours()), pushes(NULL_SINK), pushes(PUSH_SERVER)],
    "open-traces": many_open,
}
# One round brings 80,000,000 spans.
SINGLE = {"open-traces"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("comparisons", nargs="*", metavar="COMPARISON", help=f"of {', '.join(COMPARISONS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="for how long each is loaded in a round")
    parser.add_argument("--no-build", action="store_true", help="everything has been built already")
    arguments = parser.parse_args()
    unknown = set(arguments.comparisons) - set(COMPARISONS)
    if unknown:
        parser.error(f"there is no comparison {', '.join(sorted(unknown))}; there are: {', '.join(COMPARISONS)}")
    if not arguments.no_build:
        contenders.build()
    print(setting(arguments))
    for name in arguments.comparisons or COMPARISONS:
        print(f"\n### {name}\n")
        rounds = 1 if name in SINGLE else arguments.rounds
        print(table(measure(COMPARISONS[name](), rounds, arguments.seconds)), flush=True)


def measure(entrants, rounds, seconds):
    """The processor time in nanoseconds for an event, by entrant and round."""
    with tempfile.TemporaryDirectory() as directory:
        servers = [Server(entrant.contender, Path(directory)) for entrant in entrants]
        try:
            for server, entrant in zip(servers, entrants):
                server.until_listening(entrant.protocol)
            return in_turns(entrants, servers, rounds, seconds)
        finally:
            for server in servers:
                server.stop()


def in_turns(entrants, servers, rounds, seconds):
    measured = [Measured(entrant) for entrant in entrants]
    for number in range(rounds + 1):
        for own, server in zip(measured, servers):
            before = server.cpu_seconds()
            sent = send(server, own.entrant.protocol, own.entrant.arguments, seconds)
            resident = server.resident_bytes()
            time.sleep(own.entrant.contender.settle)
            if number > 0:
                own.costs.append((server.cpu_seconds() - before) / sent.accepted * 1e9)
                own.sent.append(sent)
                own.resident.append(resident)
    return measured


@dataclass
class Measured:
    """What was measured of an entrant, by round."""

    entrant: Entrant
    costs: list = field(default_factory=list)  # nanoseconds of processor time for an event
    sent: list = field(default_factory=list)
    resident: list = field(default_factory=list)  # bytes at the end of the load


def table(measured):
    """In Markdown, as ratios to the first entrant."""
    lines = [
        "| | ns of CPU for an event | times the first, median (range) | events a CPU-second | events/s | p99 ms | RSS MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for own in measured:
        ratios = [cost / first for cost, first in zip(own.costs, measured[0].costs)]
        cost = statistics.median(own.costs)
        rate = statistics.median(load.rate for load in own.sent)
        late = statistics.median(load.waits["p99"] for load in own.sent)
        resident = statistics.median(own.resident)
        lines.append(
            f"| {own.entrant.contender.name} | {cost:,.0f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {1e9 / cost:,.0f} | {rate:,.0f} | {late:.1f} | {resident / 2**20:,.0f} |"
        )
    return "\n".join(lines)


def setting(arguments):
    """Where and of what this was measured."""
    processor = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine()
    )
    cores = sum(line.startswith("processor") for line in open("/proc/cpuinfo"))
    version = subprocess.run([contenders.OURS, "--version"], capture_output=True, text=True).stdout.strip()
    return (
        f"{datetime.date.today()}, {processor}, {cores} cores, Linux {platform.release()}; {version}, Rotel "
        f"{contenders.ROTEL_VERSION}, Collector 0.161.0; {arguments.rounds} rounds of {arguments.seconds:g} s each."
    )


if __name__ == "__main__":
    main()

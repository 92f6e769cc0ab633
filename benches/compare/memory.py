#!/usr/bin/env python3
"""What open instances cost in resident memory, with their spans and as stubs, and what is given back of it.

    python3 benches/compare/memory.py                10,000, 100,000, 1,000,000 and 10,000,000 instances of 8 spans
    python3 benches/compare/memory.py 1000000
"""

import sys
import tempfile
import time
from pathlib import Path

from contenders import Server, ours
from load import send

SPANS_PER_SECOND = 600_000
# Nothing ends while it is measured.
OPEN = "defaults: {quiet_period: 2h, linger: 2h, max_age: 3h}\nlimits: {instances: 20000000}\n"
# The same for instances that wait for a stage that never comes, and are folded.
FOLDED = """
defaults: {quiet_period: 2s, linger: 2h, max_age: 3h}
limits: {instances: 20000000, fold_from: 1}
flows:
  - {name: orders, match: 'resource.attributes["service.name"] == "orders"', expect: [never]}
"""
# The default timers, and a tombstone that is gone soon.
BURST = "defaults: {tombstone: 10s}\nlimits: {instances: 20000000, remembered: 100000}\n"


def main():
    counts = [int(count) for count in sys.argv[1:]] or [10_000, 100_000, 1_000_000, 10_000_000]
    print("| open instances of 8 spans | resident bytes for each | as a stub | after they were closed and forgotten, MiB |")
    print("|---|---|---|---|")
    for count in counts:
        found = while_open(count, OPEN), while_open(count, FOLDED), after_closing(count)
        print(f"| {count:,} | {' | '.join(f'{one:,.0f}' for one in found)} |", flush=True)


def while_open(count, config):
    """Bytes for an open instance, beyond those of an idle process."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(ours(config=config), Path(directory)).until_listening("grpc")
        try:
            idle = server.resident_bytes()
            fill(server, count)
            while config == FOLDED and 'open_instances{tier="detailed"} 0\n' not in server.page():
                time.sleep(1)
            # What was freed is given back after a while.
            time.sleep(5)
            return (server.resident_bytes() - idle) / server.own("open_instances")
        finally:
            server.stop()


def after_closing(count):
    """MiB that are resident when all has been closed, and its tombstones have expired."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(ours(config=BURST), Path(directory)).until_listening("grpc")
        try:
            fill(server, count)
            while server.own("open_instances") + server.own("tombstones") > 0:
                time.sleep(1)
            time.sleep(15)
            return server.resident_bytes() / 2**20
        finally:
            server.stop()


def fill(server, count):
    rate = SPANS_PER_SECOND / 1000
    sent = send(server, "grpc", ["--spans", 1000, "--rate", rate], count * 8 / SPANS_PER_SECOND)
    if sent.accepted < 0.95 * count * 8:
        raise SystemExit(f"only {sent.accepted:,} spans could be sent in time: choose a lower SPANS_PER_SECOND")


if __name__ == "__main__":
    main()

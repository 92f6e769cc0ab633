#!/usr/bin/env python3
"""What a scrape costs, and whether those who send feel it.

    python3 benches/compare/scrape.py           10,000 and 100,000 lines of histograms

Alternates loads with and without a scraper that comes every second.
"""

import json
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from contenders import Server, address, ours
from load import send

ROUNDS = 3
SECONDS = 5
# A histogram with the default buckets has 22 lines, and each label set has one by the flow and one by the metric's own name.
LINES_PER_VALUE = 44
CONFIG = "metrics: {series_per_family: 100000, values_per_label: 100000, zero_first: 0s}\n"


def main():
    for lines in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as directory:
            server = Server(ours(config=CONFIG), Path(directory)).until_listening("push")
            try:
                measure(server, lines)
            finally:
                server.stop()


def measure(server, lines):
    fill(server, lines // LINES_PER_VALUE)
    server.until_listening("grpc")
    page = server.page().count("\n")
    # The system counts in hundredths of a second.
    scrapes = 4_000_000 // page
    before = server.cpu_seconds()
    for _ in range(scrapes):
        scrape(server)
    each = (server.cpu_seconds() - before) / scrapes
    print(f"\n{page:,} lines: {each * 1e3:.1f} ms of CPU a scrape, {each / page * 1e9:.0f} ns a line\n")
    print("| | p50 ms | p90 ms | p99 ms | p99.9 ms | max ms |")
    print("|---|---|---|---|---|---|")
    loads = {"without a scraper": [], "scraped every second": []}
    for _ in range(ROUNDS):
        for name, found in loads.items():
            found.append(load(server, name != "without a scraper"))
    for name, found in loads.items():
        waits = [f"{statistics.median(one.waits[p] for one in found):.2f}" for p in ("p50", "p90", "p99", "p99.9", "max")]
        print(f"| {name} | {' | '.join(waits)} |", flush=True)


def fill(server, values):
    """Creates series: instances of a pushed flow with a label value each."""
    for first in range(0, values, 1000):
        pushes = [
            {"id": f"{value}", "name": "orders", "stage": "placed", "life_span": 1, "final": True,
             "label_values": {"customer": f"customer-{value}"}}
            for value in range(first, min(first + 1000, values))
        ]  # fmt: skip
        request = urllib.request.Request(
            f"http://{address(server.ports.web)}/", json.dumps(pushes).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()
    while server.own("instances_closed_total") < values:
        time.sleep(0.2)


def load(server, is_scraped):
    """A load at a fifth of what is possible, 1,000 requests a second."""
    url = f"http://{address(server.ports.web)}/metrics"
    command = ["sh", "-c", f"while sleep 1; do curl -s -o /dev/null {url}; done"]
    scraper = subprocess.Popen(command) if is_scraped else None
    try:
        return send(server, "grpc", ["--spans", 100, "--rate", 1000], SECONDS)
    finally:
        if scraper:
            scraper.kill()
            scraper.wait()


def scrape(server):
    subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://{address(server.ports.web)}/metrics"], check=True)


if __name__ == "__main__":
    main()

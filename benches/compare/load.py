"""One run of `latency-aggregator load` against a server."""

import re
import subprocess
from dataclasses import dataclass

from contenders import OURS, address


@dataclass
class Sent:
    """What became of a load."""

    accepted: int
    seconds: float
    waits: dict  # percentile -> milliseconds
    unsent: int

    @property
    def rate(self):
        return self.accepted / self.seconds


def send(server, protocol, arguments, seconds):
    """Sends for so long; fails when anything was refused, or was not counted once by who counts."""
    command = [OURS, "load", "--protocol", protocol, "--url", f"http://{address(server.port(protocol))}"]
    command += ["--duration", f"{int(seconds * 1000)}ms", *arguments]
    if server.contender.counts:
        command += ["--metrics", f"http://{address(server.ports.web)}/metrics"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0 or "refused" in done.stdout or "rejected" in done.stdout:
        raise SystemExit(f"{server.contender.name}: {done.stdout}{done.stderr}")
    if "over_limit" in done.stdout:
        raise SystemExit(f"{server.contender.name}: not everything was taken: {done.stdout}")
    accepted, taken = re.search(r"accepted +(\d+) events in \d+ requests, ([\d.]+) s", done.stdout).groups()
    unsent = re.search(r"not sent +(\d+)", done.stdout)
    waits = {name: float(value) for name, value in re.findall(r"(p[\d.]+|max) ([\d.]+) ms", done.stdout)}
    return Sent(int(accepted), float(taken), waits, int(unsent[1]) if unsent else 0)

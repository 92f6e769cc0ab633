"""Who is compared: how each is built, started, and told what to listen on. Everything listens on loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILT = TARGET / "compare"
OURS = TARGET / "release" / "latency-aggregator"
ROTEL_VERSION = "0.0.1a15"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def build():
    """Builds ours and all peers. Needs cargo, Go and pip."""
    BUILT.mkdir(parents=True, exist_ok=True)
    run = lambda *command, **how: subprocess.run(command, check=True, **how)
    examples = ["--example", "null_sink", "--example", "stock_server"]
    run("cargo", "build", "--release", "--locked", "--bin", "latency-aggregator", *examples, cwd=ROOT)
    run("go", "build", "-buildvcs=false", "-ldflags=-s", "-o", f"{BUILT}/", "./collector", "./pushserver", cwd=HERE / "peers")
    if not rotel_agent():
        run(sys.executable, "-m", "venv", str(BUILT / "venv"))
        run(str(BUILT / "venv/bin/pip"), "install", "--quiet", "--disable-pip-version-check", f"rotel=={ROTEL_VERSION}")


def rotel_agent():
    """The program inside the wheel, if it is installed."""
    return next(BUILT.glob("venv/lib/python*/site-packages/rotel/rotel-agent"), None)


@dataclass
class Ports:
    grpc: int
    http: int
    web: int

    @staticmethod
    def free():
        sockets = [socket.socket() for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = Ports(*(each.getsockname()[1] for each in sockets))
        for each in sockets:
            each.close()
        return ports


# For as long as this program waits by default for what comes late, and a little more.
LINGER = 12


def address(port):
    return f"127.0.0.1:{port}"


@dataclass
class Contender:
    """A kind of server. `command` takes its ports and a directory for files."""

    name: str
    command: callable
    counts: bool = False  # whether its metrics page says that everything was counted once
    settle: float = 1  # seconds after a load in which it may still have work with it


def ours(name="latency-aggregator", config=""):
    def command(ports, directory):
        file = directory / f"{name.replace(' ', '-')}.yaml"
        listen = f"listen: {{http: '{address(ports.web)}', otlp_grpc: '{address(ports.grpc)}', otlp_http: '{address(ports.http)}'}}\n"
        file.write_text(listen + "log: {level: warn}\n" + config)
        return [OURS, "--config", file]

    return Contender(name, command, counts=True, settle=LINGER)


def collector(name, config, settle=1):
    def command(ports, _):
        return [
            "env",
            f"GRPC={address(ports.grpc)}",
            f"HTTP={address(ports.http)}",
            f"METRICS={address(ports.web)}",
            BUILT / "collector",
            "--config",
            HERE / "peers/collector" / config,
        ]

    return Contender(name, command, settle=settle)


def rotel(ports, _):
    return [
        rotel_agent(), "start", "--exporter", "blackhole",
        "--otlp-grpc-endpoint", address(ports.grpc), "--otlp-http-endpoint", address(ports.http),
        "--otlp-grpc-max-recv-msg-size-mib", "64",
    ]  # fmt: skip


NULL_SINK = Contender(
    "null sink",
    lambda ports, _: [TARGET / "release/examples/null_sink", address(ports.grpc), address(ports.http)],
)
STOCK = Contender(
    "stock server",
    lambda ports, _: [TARGET / "release/examples/stock_server", *map(address, (ports.grpc, ports.http, ports.web))],
    settle=LINGER,
)
ROTEL = Contender("Rotel, blackhole", rotel)
COLLECTOR = collector("Collector, spanmetrics", "spanmetrics.yaml")
COLLECTOR_BY_TRACE = collector("Collector, groupbytrace, spanmetrics", "groupbytrace.yaml", settle=LINGER)
PUSH_SERVER = Contender(
    "Go push server", lambda ports, _: [BUILT / "pushserver", "-listen", address(ports.http)], settle=LINGER
)


class Server:
    """A contender that runs, until it is stopped."""

    def __init__(self, contender, directory):
        self.contender = contender
        self.ports = Ports.free()
        log = (directory / f"{re.sub('[^a-z]+', '-', contender.name.lower())}.log").open("w")
        command = [str(part) for part in contender.command(self.ports, directory)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.log = log.name

    def until_listening(self, protocol):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port(protocol)), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.contender.name} does not listen:\n{Path(self.log).read_text()[-2000:]}")

    def port(self, protocol):
        """Where it takes a protocol."""
        if protocol == "push" and self.contender.counts:
            return self.ports.web
        return self.ports.grpc if protocol == "grpc" else self.ports.http

    def cpu_seconds(self):
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def page(self):
        """The text of /metrics."""
        with urllib.request.urlopen(f"http://{address(self.ports.web)}/metrics", timeout=30) as answer:
            return answer.read().decode()

    def own(self, name):
        """The sum of one of the program's own metrics."""
        lines = (line for line in self.page().splitlines() if re.match(rf"latency_aggregator_{name}[ {{]", line))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

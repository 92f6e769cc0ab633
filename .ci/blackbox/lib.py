"""What the checks share: starting programs, waiting for them, and reading /metrics.

Every program that is started here is ended here, by its own process id. Nothing sleeps for
a guessed time: `eventually` polls until the expected state is there or a deadline passes.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"

# Timers so short that a check takes seconds. JSON is YAML too, so a config is a dict here.
SHORT_TIMERS = {
    "listen": {"http": "127.0.0.1:0", "otlp_grpc": "127.0.0.1:0", "otlp_http": "127.0.0.1:0"},
    "defaults": {"quiet_period": "2s", "linger": "2s"},
    "metrics": {"zero_first": "1s"},
    "shutdown": {"linger": "0s"},
}

ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")


class CheckFailed(Exception):
    """An expectation that did not hold."""


def expect(condition, message):
    if not condition:
        raise CheckFailed(message)


def expect_equal(actual, expected, what):
    expect(actual == expected, f"{what}: expected {expected!r}, got {actual!r}")


def expect_close(actual, expected, tolerance, what):
    expect(
        actual is not None and abs(actual - expected) <= tolerance,
        f"{what}: expected {expected} +- {tolerance}, got {actual}",
    )


def eventually(question, expected=True, what="", timeout=30.0, alive=None):
    """Asks until the answer is `expected`; a failure reports the last answer.

    `alive`, a Process, ends the wait early when that program has died.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = question()
        except (OSError, CheckFailed) as error:
            answer = error
        if not isinstance(answer, Exception) and answer == expected:
            return answer
        if alive is not None and alive.exit_code() is not None:
            raise CheckFailed(f"{what}: {alive.name} exited with {alive.exit_code()}")
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"{what}: expected {expected!r} within {timeout:g} s, last: {answer!r}"
            )
        time.sleep(0.05)


def tool(variable):
    """The path of a program that `.ci/run` installed. A missing one fails the check."""
    path = os.environ.get(variable)
    found = path and shutil.which(path)
    expect(found, f"{variable} must name an executable program, it is {path!r}")
    return found


def free_port():
    """A port that nothing listens on now; for programs that cannot report a port they chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A program in a directory of its own, with its output in a file there."""

    def __init__(self, name, command, files=None, environment=None):
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"blackbox-{name}-"))
        for file_name, content in (files or {}).items():
            (self.directory / file_name).write_text(content)
        self._output_path = self.directory / "output.txt"
        with open(self._output_path, "wb") as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, _traceback):
        if error_type is not None:
            print(f"    --- last output of {self.name}:")
            for line in self.output().splitlines()[-25:]:
                print(f"    | {line}")
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def output(self):
        return self._output_path.read_text(errors="replace")

    def exit_code(self):
        return self._popen.poll()

    @property
    def process_id(self):
        return self._popen.pid

    def terminate(self):
        self.signal(signal.SIGTERM)

    def signal(self, number):
        self._popen.send_signal(number)

    def wait(self, timeout):
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as late:
            raise CheckFailed(f"{self.name} still runs after {timeout} s") from late

    def stop(self):
        if self.exit_code() is None:
            self.terminate()
            try:
                self._popen.wait(15)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


class Aggregator(Process):
    """A running latency-aggregator on ports of its own choice."""

    scheme = "http"

    def __init__(self, config=None, name="aggregator", files=None, environment=None):
        config = json.dumps({**SHORT_TIMERS, **(config or {})}, indent=2)
        super().__init__(
            name,
            [tool("AGGREGATOR_BINARY"), "--config", "config.yaml"],
            files={"config.yaml": config, **(files or {})},
            environment=environment,
        )

    def __enter__(self):
        try:
            self.ports = eventually_ports(self)
            ready = self.http + "/readyz"
            eventually(lambda: self.get(ready)[0], 200, "readyz", timeout=10, alive=self)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def get(self, url):
        """A GET as those send it who may read everything."""
        return get(url)

    @property
    def http(self):
        return f"{self.scheme}://127.0.0.1:{self.ports['http']}"

    @property
    def metrics_url(self):
        port = self.ports.get("metrics", self.ports["http"])
        return f"{self.scheme}://127.0.0.1:{port}/metrics"

    @property
    def otlp_grpc(self):
        return f"127.0.0.1:{self.ports['otlp_grpc']}"

    @property
    def otlp_http(self):
        return f"127.0.0.1:{self.ports['otlp_http']}"

    def scrape(self):
        status, text = self.get(self.metrics_url)
        expect_equal(status, 200, "status of /metrics")
        return Scrape(text)

    def push(self, body):
        """POSTs a push (or an array of them) and returns the status and the decoded reply."""
        status, text = post_json(self.http + "/", json.dumps(body).encode())
        return status, json.loads(text)

    def settle(self, timeout=60.0):
        """Waits until no instance is open and returns a scrape taken after that."""
        eventually(
            lambda: self.scrape().total("latency_aggregator_open_instances"),
            0,
            "open instances",
            timeout=timeout,
            alive=self,
        )
        return self.scrape()


def eventually_ports(process):
    """Reads which address listens for what from the start-up lines."""
    ports = {}

    def announced():
        ports.update(announced_ports(process.output()))
        return {"http", "otlp_grpc", "otlp_http"} <= ports.keys()

    eventually(announced, True, "start-up lines with the three addresses", 20, alive=process)
    return ports


def announced_ports(output):
    """Of each start-up line, the first name on it says what its address is for.

    The lines are for people, so only their names are relied on: otlp_grpc, otlp_http,
    metrics, and push or http. The first line of a name wins, since the line to try repeats
    an address.
    """
    names = re.compile(r"otlp.?grpc|otlp.?http|push|metrics|\bhttp(?!s?:)", re.IGNORECASE)
    ports = {}
    for line in output.splitlines():
        address, name = ADDRESS.search(line), names.search(line)
        if not (address and name):
            continue
        word = name.group().lower()
        if word.startswith("otlp"):
            word = "otlp_grpc" if word.endswith("grpc") else "otlp_http"
        elif word == "push":
            word = "http"
        ports.setdefault(word, int(address.group(1)))
    return ports


class Scrape:
    """One reading of /metrics, parsed by the parser of the official Python client.

    That parser shares no code with the product or with Prometheus, and it raises on text
    that it cannot read.
    """

    def __init__(self, text):
        self.text = text
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, name, **labels):
        """The sum over all series of `name` that carry these labels; 0 without any."""
        return sum(sample.value for sample in self.series(name, **labels))

    def series(self, name, **labels):
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def has(self, name, **labels):
        return bool(self.series(name, **labels))

    def received(self):
        """How many events came in, over all transports."""
        return self.total("latency_aggregator_events_received_total")

    def unaccounted(self):
        """Received events that are in none of the places where an event can end; must be 0."""
        places = [
            "events_open",
            "events_closed_total",
            "events_unmatched_total",
            "events_ignored_total",
            "events_duplicate_total",
            "events_over_limit_total",
            "events_rejected_total",
            "late_events_total",
        ]
        return self.received() - sum(self.total(f"latency_aggregator_{place}") for place in places)

    def unaccounted_instances(self):
        """Opened instances that are in none of the places where an instance can be; must be 0."""
        places = [
            "open_instances",
            "instances_closed_total",
            "instances_merged_total",
            "instances_unmatched_total",
        ]
        opened = self.total("latency_aggregator_instances_opened_total")
        return opened - sum(self.total(f"latency_aggregator_{place}") for place in places)


@contextmanager
def aggregator(**config):
    """`with aggregator(flows=[...]) as running:`; keys of the config override SHORT_TIMERS."""
    with Aggregator(config) as running:
        yield running


def push_flow(running, name, identity, seconds, **fields):
    """Pushes two stages of one flow, `seconds` apart, of which the second ends it."""
    placed = int(time.time()) - 60
    common = {"id": identity, "name": name, **fields}
    status, reply = running.push(
        [
            {**common, "stage": "placed", "created_at": rfc3339(placed)},
            {**common, "stage": "shipped", "created_at": rfc3339(placed + seconds), "final": True},
        ]
    )
    expect_equal((status, reply["status"], reply["accepted"]), (200, "ok", 2), f"reply {reply}")


def rfc3339(seconds):
    """A time in seconds since 1970 as pushes carry it, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def get(url, timeout=10.0, headers=None, context=None):
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def post_json(url, body, timeout=10.0):
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def run(command, timeout=60.0, stdin=None, environment=None):
    """Runs a program to its end; returns its exit code and its output of both kinds."""
    finished = subprocess.run(
        [str(part) for part in command],
        check=False,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
    )
    return finished.returncode, finished.stdout


def printed(command, config):
    """What a command of the program prints for a config."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(json.dumps(config))
        code, output = run([tool("AGGREGATOR_BINARY"), command, "--config", path])
    expect_equal(code, 0, f"exit code of {command}, which said:\n{output}")
    return output


def telemetrygen(endpoint, traces, child_spans=1, http=False, extra=()):
    """Sends `traces` traces of 1 + `child_spans` spans; returns when all are acknowledged."""
    code, output = run(
        [
            tool("TELEMETRYGEN"),
            "traces",
            f"--otlp-endpoint={endpoint}",
            "--otlp-insecure",
            f"--traces={traces}",
            f"--child-spans={child_spans}",
            "--rate=0",
            *(["--otlp-http"] if http else []),
            *extra,
        ]
    )
    expect_equal(code, 0, f"exit code of telemetrygen, which said:\n{output}")

"""Runs tests/otlp_conformance.rs against this program and against an OpenTelemetry Collector.

    COLLECTOR=target/ci/bin/collector python3 .ci/conformance.py

It prints what both did with each test, why the Collector did otherwise, and how many lines both
keep. What the Collector fails is no failure here; that this program fails nothing, and that both
runs come to their end, is demanded.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = ["cargo", "test", "--locked", "--test", "otlp_conformance", "--no-run"]
LINES = range(1, 46)
SECONDS_TO_START = 20
SECONDS_FOR_A_RUN = 90

# Small enough that tests can send more, and large enough for those that send much else.
MEBIBYTES = 8
COLLECTOR_CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "{grpc}", max_recv_msg_size_mib: {mebibytes}}}
      http: {{endpoint: "{http}", max_request_body_size: {bytes}}}
exporters:
  nop:
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [nop]}}
"""

# How binding a line is: the word behind the number in the name of a test. What the server "chooses"
# is left open by the specification, so another choice is no fault.
LEVELS = ["must", "should", "may", "chooses"]


def main():
    suite = built()
    names = listed(suite)
    ours = run(suite, {})
    version, theirs = run_against_collector(suite)
    for who, results in (("this program", ours), ("the Collector", theirs)):
        missing = sorted(names - results.keys())
        if missing:
            sys.exit(f"the run against {who} did not come to {', '.join(missing)}")
    print_table(version, ours, theirs)
    print_reasons(version, theirs)
    print_totals(version, ours, theirs)
    failed = [name for name, result in ours.items() if result.word == "FAILED"]
    if failed:
        print("\n".join(f"{name}: {ours[name].why}" for name in failed))
        sys.exit(f"{len(failed)} tests fail against this program")


class Result:
    def __init__(self, word, why=""):
        self.word = word
        self.why = why


def built():
    """The path of the suite's program."""
    command = [*BUILD, "--message-format=json"]
    output = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in output.stdout.splitlines()]
    [suite] = [
        message["executable"]
        for message in messages
        if message["reason"] == "compiler-artifact"
        and message["target"]["name"] == "otlp_conformance"
    ]
    return suite


def listed(suite):
    """The names of the numbered tests."""
    output = subprocess.run(
        [suite, "line_", "--list"], stdout=subprocess.PIPE, text=True, check=True
    )
    return set(re.findall(r"^(line_\w+): test$", output.stdout, re.MULTILINE))


def run(suite, environment):
    """Name and result of each test."""
    finished = subprocess.run(
        [suite, "line_", "--test-threads=4"],
        cwd=REPOSITORY,
        env={**os.environ, "RUST_BACKTRACE": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS_FOR_A_RUN,
    )
    if not re.search(r"^test result: ", finished.stdout, re.MULTILINE):
        sys.exit(f"the suite did not run:\n{finished.stdout}\n{finished.stderr}")
    reasons = dict(re.findall(r"^not applicable: (\w+): (.*)$", finished.stderr, re.MULTILINE))
    said = dict(panics(finished.stdout))
    results = {}
    for name, word in re.findall(r"^test (line_\w+) \.\.\. (\w+)$", finished.stdout, re.MULTILINE):
        if word == "ok" and name in reasons:
            results[name] = Result("n/a", reasons[name])
        else:
            results[name] = Result(word, said.get(name, ""))
    return results


def panics(output):
    """Name and message of each test that failed."""
    for block in output.split("\n---- ")[1:]:
        name, _, text = block.partition(" stdout ----\n")
        yield name, shortened(text.partition("\n\nfailures:")[0])


def shortened(panic):
    """What a test said when it failed, in one line, with bodies as text."""
    _, _, message = panic.strip().partition("\n")
    message = message.partition("\nnote: run with")[0]
    message = re.sub(r"\[((?:\s*\d+,?)+\s*)\]", lambda found: as_text(found.group(1)), message)
    message = " ".join(message.split())
    return message if len(message) <= 400 else message[:400] + " ..."


def as_text(numbers):
    values = [int(number) for number in re.findall(r"\d+", numbers)]
    return repr(bytes(values).decode(errors="replace")) if max(values) < 256 else f"[{numbers}]"


def run_against_collector(suite):
    """The Collector's version, and name and result of each test."""
    collector = os.environ["COLLECTOR"]
    version = subprocess.run(
        [collector, "--version"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()[-1]
    addresses = {"grpc": f"127.0.0.1:{free_port()}", "http": f"127.0.0.1:{free_port()}"}
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        config, log = Path(directory, "config.yaml"), Path(directory, "log.txt")
        config.write_text(
            COLLECTOR_CONFIG.format(**addresses, mebibytes=MEBIBYTES, bytes=MEBIBYTES << 20)
        )
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [collector, "--config", config], stdout=output, stderr=subprocess.STDOUT
            )
        try:
            wait_until_ready(process, log)
            results = run(
                suite,
                {
                    "OTLP_CONFORMANCE_GRPC": addresses["grpc"],
                    "OTLP_CONFORMANCE_HTTP": addresses["http"],
                    "OTLP_CONFORMANCE_REQUEST_BYTES": str(MEBIBYTES << 20),
                },
            )
            if process.poll() is not None:
                sys.exit(f"the Collector ended during the run:\n{log.read_text()[-2000:]}")
        finally:
            process.terminate()
            process.wait(20)
    return version, results


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(process, log):
    deadline = time.monotonic() + SECONDS_TO_START
    while "Everything is ready" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the Collector did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def parts(name):
    """Number, level and sentence of a test."""
    _, number, level, sentence = name.split("_", 3)
    return int(number), level, sentence.replace("_", " ")


def in_order(results):
    """By line, and what is more binding first."""
    return sorted(results, key=lambda name: (parts(name)[0], LEVELS.index(parts(name)[1]), name))


def print_table(version, ours, theirs):
    print(f"line  ours    Collector {version}")
    for name in in_order(ours):
        number, level, sentence = parts(name)
        words = f"{ours[name].word:6}  {fair(level, theirs[name].word):7}"
        print(f"{number:4}  {words}  {level:7} {sentence}")
    untested = sorted(set(LINES) - {parts(name)[0] for name in ours})
    print(f"lines without a test here: {', '.join(map(str, untested)) or 'none'}")


def fair(level, word):
    """What another server may do otherwise, it does not fail."""
    return "differs" if word == "FAILED" and level in ("may", "chooses") else word


def print_reasons(version, theirs):
    print(f"\nwhere Collector {version} does otherwise, or cannot be asked:")
    for name in in_order(theirs):
        number, level, sentence = parts(name)
        if theirs[name].word != "ok":
            print(f"{number:4}  {level} {sentence}")
            print(f"      {fair(level, theirs[name].word)}: {theirs[name].why}")


def print_totals(version, ours, theirs):
    print(f"\nlines kept  ours            Collector {version}")
    for level in LEVELS:
        print(f"{level:10}  {score(ours, level):14}  {score(theirs, level)}")


def score(results, level):
    """How many lines keep every test of this level, among those of which any can be asked."""
    asked, failed, named = set(), set(), set()
    for name, result in results.items():
        number, its_level, _ = parts(name)
        if its_level == level:
            named.add(number)
            if result.word != "n/a":
                asked.add(number)
            if result.word == "FAILED":
                failed.add(number)
    rest = f", {len(named - asked)} n/a" if named - asked else ""
    return f"{len(asked - failed)} of {len(asked)}{rest}"


if __name__ == "__main__":
    main()

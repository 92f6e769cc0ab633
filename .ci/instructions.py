"""Counts the instructions of the benchmarks in benches/pipeline.rs and compares them with those on record.

    python3 .ci/instructions.py BENCHMARK            counts, and fails where a count is far above the one on record
    python3 .ci/instructions.py BENCHMARK --record   counts, and puts that on record

BENCHMARK is the executable that `cargo bench --bench pipeline --no-run` names. Needs valgrind. Instructions are the
same on a busy machine and on an idle one, so that two commits can be compared; how long they take is another matter.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

RECORD = Path(__file__).parent / "instructions.json"

# Name of the benchmark, and how many spans, instances or events it processes.
CASES = {
    "walk/96": 96,
    "map/1 flow/96": 96,
    "map/20 flows/96": 96,
    "ingest/10000 open": 1000,
    "close/1000 of 8 spans": 1000,
    "critical path/1000": 1000,
    "joined/chain/100": 100,
    "joined/batch/20": 1039,
    "joined/values of 10 traces/100": 1000,
    "joined/values of one trace/100": 1000,
}

# A count this many times the one on record is a mistake: compilers and machines explain less than that.
TOLERATED = 1.5


def instructions(benchmark, case):
    """The instructions of one round, without those that make it ready."""
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=*measured*",
        benchmark,
    ]
    ran = subprocess.run(
        command,
        env={**os.environ, "COUNT": case},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    collected = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode != 0 or not collected or int(collected[1]) == 0:
        sys.exit(f"{case}: nothing was counted\n{ran.stderr}")
    return int(collected[1])


def main():
    benchmark, *options = sys.argv[1:]
    on_record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    counts, failed = {}, []
    for case, elements in CASES.items():
        counts[case] = round(instructions(benchmark, case) / elements)
        known = on_record.get(case)
        ratio = counts[case] / known if known else None
        print(f"{case:34} {counts[case]:>9} instructions each", end="")
        print(f", {ratio:.2f} of what is on record" if ratio else ", not on record", flush=True)
        if ratio is None or ratio > TOLERATED:
            failed.append(case)
    if "--record" in options:
        RECORD.write_text(json.dumps(counts, indent=2) + "\n")
    elif failed:
        sys.exit(f"more than {TOLERATED} times the instructions on record, or none on record: {failed}")


if __name__ == "__main__":
    main()

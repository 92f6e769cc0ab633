"""Runs the black-box checks against real peers and prints one line for each.

    python run.py               all checks
    python run.py sdk promtool  those whose name contains one of the words

A check is a function `check_...` in a file `check_*.py` beside this one. The environment names
the programs: AGGREGATOR_BINARY, TELEMETRYGEN, COLLECTOR, PROMETHEUS, PROMETHEUS_CURRENT,
SCRAPECHECK, PROMTOOL, RABBITMQ, EPMD, OPENSSL (`.ci/run blackbox` sets them).
"""

import importlib
import sys
from pathlib import Path

from attempts import attempt_all

SECONDS_PER_CHECK = 180


def main(words):
    checks = [check for check in find_checks() if not words or any(w in check[0] for w in words)]
    if not checks:
        sys.exit(f"no check is named like {' or '.join(words)}")
    return attempt_all("black-box checks", checks, SECONDS_PER_CHECK)


def find_checks():
    """Names and functions, in the order of the files and of the lines in them."""
    for path in sorted(Path(__file__).parent.glob("check_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("check_") and getattr(function, "__module__", "") == path.stem:
                yield f"{path.stem.removeprefix('check_')}: {name.removeprefix('check_')}", function


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

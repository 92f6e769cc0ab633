"""Runs the black-box checks against real peers and prints one line for each.

    python run.py               all checks
    python run.py sdk promtool  those whose name contains one of the words

A check is a function `check_...` in a file `check_*.py` beside this one. The environment names
the programs: AGGREGATOR_BINARY, TELEMETRYGEN, COLLECTOR, PROMETHEUS, PROMETHEUS_CURRENT,
SCRAPECHECK, PROMTOOL, RABBITMQ, EPMD, OPENSSL (`.ci/run blackbox` sets them).
"""

import importlib
import signal
import sys
import time
import traceback
from pathlib import Path

import lib

SECONDS_PER_CHECK = 180


def main(words):
    checks = [check for check in find_checks() if not words or any(w in check[0] for w in words)]
    if not checks:
        sys.exit(f"no check is named like {' or '.join(words)}")
    signal.signal(signal.SIGALRM, time_is_up)
    # What was started is ended also then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    started = time.monotonic()
    results = [run_check(name, function) for name, function in checks]
    failed = results.count(False)
    print(f"black-box checks took {time.monotonic() - started:.0f} s")
    print(f"{len(results) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def find_checks():
    """Names and functions, in the order of the files and of the lines in them."""
    for path in sorted(Path(__file__).parent.glob("check_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("check_") and getattr(function, "__module__", "") == path.stem:
                yield f"{path.stem.removeprefix('check_')}: {name.removeprefix('check_')}", function


def run_check(name, function):
    print(f"... {name}", flush=True)
    started = time.monotonic()
    signal.alarm(SECONDS_PER_CHECK)
    try:
        function()
    except lib.CheckFailed as failure:
        print(f"FAIL {name}: {failure}", flush=True)
        return False
    except Exception:  # A bug in a check must not hide the results of the others.
        print(f"FAIL {name}:", flush=True)
        traceback.print_exc(file=sys.stdout)
        return False
    finally:
        signal.alarm(0)
    print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
    return True


class TimeIsUp(Exception):
    """Not a CheckFailed, since `lib.eventually` takes that for an answer and asks again."""


def time_is_up(_signal, _frame):
    raise TimeIsUp(f"not done after {SECONDS_PER_CHECK} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

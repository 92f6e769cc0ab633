"""Functions that are tried one after the other: each in bounded time, whatever became of the others."""

import signal
import sys
import time
import traceback

from lib import CheckFailed


class TimeIsUp(Exception):
    """Not a CheckFailed, since `lib.eventually` takes that for an answer and asks again."""


def attempt_all(what, attempts, seconds):
    """Tries named functions for so many seconds each, and prints a line for each, with what it returns. Returns the
    exit code."""

    def time_is_up(_signal, _frame):
        raise TimeIsUp(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, time_is_up)
    # What was started is ended also then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    started = time.monotonic()
    results = [attempt(name, function, seconds) for name, function in attempts]
    failed = results.count(False)
    print(f"{what} took {time.monotonic() - started:.0f} s")
    print(f"{len(results) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def attempt(name, function, seconds):
    print(f"... {name}", flush=True)
    started = time.monotonic()
    signal.alarm(seconds)
    try:
        said = function()
    except CheckFailed as failure:
        print(f"FAIL {name}: {failure}", flush=True)
        return False
    except Exception:  # A bug in one must not hide the results of the others.
        print(f"FAIL {name}:", flush=True)
        traceback.print_exc(file=sys.stdout)
        return False
    finally:
        signal.alarm(0)
    figures = f": {said}" if said else ""
    print(f"ok   {name} ({time.monotonic() - started:.1f} s){figures}", flush=True)
    return True

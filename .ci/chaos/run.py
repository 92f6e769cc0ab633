"""Faults under load, and a ledger of what was acknowledged: nothing is lost, nothing counted twice.

    python3 .ci/chaos/run.py                        all scenarios, 60 s each
    python3 .ci/chaos/run.py --short                all of them within three minutes, as CI does
    python3 .ci/chaos/run.py --minutes 30 restarts  these, half an hour together

A scenario is a function `scenario_...` in a file `scenarios_*.py` beside this one. It is given how
many seconds the fault should last, and returns what its line says. AGGREGATOR_BINARY names the
program, by default target/release/latency-aggregator.
"""

import argparse
import importlib
import signal
import sys
import time
import traceback
from pathlib import Path

import environment

SECONDS = 60
SHORT_SECONDS = 10
# What comes before and after the fault: starting, settling, ending.
MORE_SECONDS = 120


def main(options):
    scenarios = {name: run for name, run in find_scenarios()}
    unknown = [name for name in options.scenario if name not in scenarios]
    if unknown:
        sys.exit(f"no scenario is called {unknown[0]}; there are: {', '.join(scenarios)}")
    chosen = options.scenario or list(scenarios)
    seconds = SECONDS
    if options.short:
        seconds = SHORT_SECONDS
    elif options.minutes:
        seconds = options.minutes * 60 / len(chosen)
    signal.signal(signal.SIGALRM, time_is_up)
    # What was started is ended also then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    began = time.monotonic()
    results = [run_scenario(name, scenarios[name], seconds) for name in chosen]
    failed = results.count(False)
    print(f"chaos took {time.monotonic() - began:.0f} s")
    print(f"{len(results) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def find_scenarios():
    for path in sorted(Path(__file__).parent.glob("scenarios_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("scenario_") and function.__module__ == path.stem:
                yield name.removeprefix("scenario_"), function


def run_scenario(name, scenario, seconds):
    import lib

    began = time.monotonic()
    signal.alarm(round(seconds) + MORE_SECONDS)
    try:
        said = scenario(seconds)
    except lib.CheckFailed as failure:
        print(f"FAIL {name}: {failure}", flush=True)
        return False
    except Exception:  # A bug in a scenario must not hide the results of the others.
        print(f"FAIL {name}:", flush=True)
        traceback.print_exc(file=sys.stdout)
        return False
    finally:
        signal.alarm(0)
    print(f"ok   {name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    return True


class TimeIsUp(Exception):
    """Not a CheckFailed, since `lib.eventually` takes that for an answer and asks again."""


def time_is_up(_signal, _frame):
    raise TimeIsUp("not done in time")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("scenario", nargs="*", metavar="SCENARIO", help="default: all")
    arguments.add_argument("--minutes", type=float, help="for all scenarios together")
    arguments.add_argument("--short", action="store_true", help="within three minutes")
    parsed = arguments.parse_args()
    environment.prepare()
    sys.exit(main(parsed))

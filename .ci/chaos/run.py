"""Faults under load, and a ledger of what was acknowledged: nothing is lost, nothing counted twice.

    python3 .ci/chaos/run.py                        all scenarios, 60 s each
    python3 .ci/chaos/run.py --short                all of them within four minutes, as CI does
    python3 .ci/chaos/run.py --minutes 30 restarts  these, half an hour together

A scenario is a function `scenario_...` in a file `scenarios_*.py` beside this one. It is given how
many seconds the fault should last, and returns what its line says. AGGREGATOR_BINARY names the
program, by default target/release/latency-aggregator.
"""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path

import environment

SECONDS = 60
SHORT_SECONDS = 10
# What comes before and after the fault: starting, settling, ending.
MORE_SECONDS = 120


def main(options):
    # Found once the environment is prepared.
    from attempts import attempt_all

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
    runs = [(name, partial(scenarios[name], seconds)) for name in chosen]
    return attempt_all("chaos", runs, round(seconds) + MORE_SECONDS)


def find_scenarios():
    for path in sorted(Path(__file__).parent.glob("scenarios_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("scenario_") and function.__module__ == path.stem:
                yield name.removeprefix("scenario_"), function


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("scenario", nargs="*", metavar="SCENARIO", help="default: all")
    arguments.add_argument("--minutes", type=float, help="for all scenarios together")
    arguments.add_argument("--short", action="store_true", help="within four minutes")
    parsed = arguments.parse_args()
    environment.prepare()
    sys.exit(main(parsed))

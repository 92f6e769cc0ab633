"""Where the checks' library is, and a Python that has its packages.

    import environment; environment.prepare(binary)

comes before `import lib`. What `.ci/run tools` installed is found in target/ci.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).resolve()


def prepare(binary=None):
    """Makes `lib` importable and names the binary; goes on in the tools' Python if need be."""
    python = TARGET / "ci" / "venv" / "bin" / "python"
    if find_spec("prometheus_client") is None:
        if not python.exists() or sys.prefix == str(python.parents[1]):
            sys.exit(f"{sys.executable} lacks prometheus_client; `bash .ci/run tools` installs it")
        os.execv(python, [python, *sys.argv])
    sys.path.insert(0, str(REPOSITORY / ".ci" / "blackbox"))
    sys.dont_write_bytecode = True
    default = TARGET / "release" / "latency-aggregator"
    os.environ["AGGREGATOR_BINARY"] = str(
        Path(binary).resolve() if binary else os.environ.get("AGGREGATOR_BINARY", default)
    )

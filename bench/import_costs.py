"""What an import costs: `python -m bench.import_costs` (or `python bench/import_costs.py`).

Two ratios, each of two things measured in turn in fresh processes of one run, so that a busy
machine slows both:

* importing a queue's declaration beside importing a module that holds one plain pydantic model
  (limit 1.25): what a producer pays for declaring its payloads with Corral;
* `corral --help` beside `import click, pydantic` (limit 1.5), whole processes: what everybody pays
  who types `corral`.

The figures are printed and never asserted; `tests/unit/test_imports.py` holds what makes them so.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 15
"""Fresh processes per figure: enough that one disturbed by something else does not show in the
median.
"""

PLAIN = """
from pydantic import BaseModel

class ReportExport(BaseModel):
    user_id: str
    report_id: str
"""

DECLARATION = """
from corral import Payload, Queue, hookimpl

class ReportExport(Payload):
    user_id: str
    report_id: str

report_exports = Queue("report-exports", ReportExport)

@hookimpl
def corral_queues() -> list[Queue]:
    return [report_exports]
"""

TIMED_IMPORT = """
import time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started)
"""


def import_ms(module: str, folder: Path) -> float:
    """Import a module of `folder` in a fresh process; the interpreter's own start is not counted."""
    printed = subprocess.run(
        [sys.executable, "-c", TIMED_IMPORT.format(module=module)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return float(printed) * 1000


def process_ms(*arguments: str) -> float:
    """Run the interpreter on `arguments`; everything from start to exit is counted."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started) * 1000


def beside(
    name: str, ours: Callable[[], float], plain_name: str, plain: Callable[[], float], limit: float
) -> None:
    """Print the medians of both, measured in turn, and their ratio beside its limit."""
    ours(), plain()  # the first run compiles, and reads from the disk
    rounds = [(ours(), plain()) for _ in range(ROUNDS)]
    ours_ms, plain_ms = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{name:<36} {ours_ms:6.1f} ms")
    print(
        f"{plain_name:<36} {plain_ms:6.1f} ms   ratio {ours_ms / plain_ms:.2f} (limit {limit:.2f})"
    )


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="corral-imports-") as made:
        folder = Path(made)
        (folder / "plain_model.py").write_text(PLAIN, "utf-8")
        (folder / "queue_declaration.py").write_text(DECLARATION, "utf-8")
        print(f"median of {ROUNDS} fresh processes, Python {sys.version.split()[0]}\n")
        beside(
            "import a queue's declaration",
            lambda: import_ms("queue_declaration", folder),
            "import one plain pydantic model",
            lambda: import_ms("plain_model", folder),
            limit=1.25,
        )
        beside(
            "corral --help",
            lambda: process_ms("-m", "corral", "--help"),
            'python -c "import click, pydantic"',
            lambda: process_ms("-c", "import click, pydantic"),
            limit=1.5,
        )


if __name__ == "__main__":
    main()

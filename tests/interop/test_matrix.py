"""The matrix is whole: each of its rows has a test with each other side."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interop.matrix import ROWS, Matrix
from interop.peers import KINDS, NO_API

HERE = Path(__file__).parent
COLLECT = """
import sys
import pytest

class Collected:
    def pytest_collection_finish(self, session):
        from interop.matrix import cells  # imports corral, and pytest must import that first

        self.cells = {cell for item in session.items for cell in cells(item)}

collected = Collected()
pytest.main(["--collect-only", "-qq", "--no-summary", sys.argv[1]], plugins=[collected])
print(sorted(collected.cells))
"""


def test_every_row_has_a_test_with_each_other_side() -> None:
    """In a process of its own: of this run, somebody may have selected a part."""
    ran = subprocess.run(
        [sys.executable, "-c", COLLECT, str(HERE)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "PYTEST_ADDOPTS": ""},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    collected = set(ast.literal_eval(ran.stdout.splitlines()[-1]))
    assert collected == {(row, peer) for row in ROWS for peer in KINDS}


@pytest.mark.parametrize(
    ("outcomes", "cell"),
    [
        ([], "not run"),
        (["passed"], "pass"),
        (["passed", "no API"], "pass*"),
        (["no API"], "no API yet"),
        (["skipped"], "not run"),
        (["passed", "failed", "no API"], "FAIL"),
    ],
)
def test_a_cell_says_the_worst_that_was_seen(outcomes: list[str], cell: str) -> None:
    matrix = Matrix()
    for outcome in outcomes:
        reason = f"Skipped: {NO_API}it has none" if outcome == "no API" else "Skipped: no Node"
        longrepr = ("a file", 1, reason) if outcome in {"no API", "skipped"} else None
        kind = "skipped" if longrepr else outcome
        matrix.pytest_runtest_logreport(
            pytest.TestReport(
                "a test",
                ("", 0, ""),
                {},
                kind,
                longrepr,
                "call",
                user_properties=[("matrix", "7 node5")],
            )
        )
    assert matrix.cell(7, "node5") == cell
    assert matrix.cell(7, "python") == "not run"

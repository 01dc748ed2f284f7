"""`bench/HISTORY.md` and the line that a run adds to it."""

from __future__ import annotations

from pathlib import Path

from bench.history import FIGURES, RATIOS, history_line
from bench.instructions import CASES
from bench.sections import ADD, CPU, DRAIN
from bench.table import Row

HISTORY = Path(__file__).parents[3] / "bench" / "HISTORY.md"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_a_line_has_what_was_measured_and_dashes() -> None:
    rows = [Row("drain 100", "no-op", [30, 40, 50], [10, 20, 10]), Row("pick-up p50", "p50", [0.8])]
    line = cells(
        history_line("2026-11-30", "abc1234", rows, {"drain 1": 621_601, "add 500": 109_980})
    )
    assert line[:5] == ["2026-11-30", "abc1234", "…", "3.00", "-"]
    assert line[3 + len(RATIOS)] == "0.80"
    assert line[-2:] == ["622 / - / -", "- / - / 110"]
    assert len(line) == 3 + len(RATIOS) + len(FIGURES) + 2


def test_every_line_of_the_file_has_the_columns_of_a_run() -> None:
    table = HISTORY.read_text("utf-8").partition("| date | commit |")[2].splitlines()
    columns = len(cells(history_line("", "", [], {})))
    assert len(table) > 2, "a heading, a rule, and what was measured"
    assert {len(cells(line)) for line in table[1:]} == {columns}
    assert len(cells(f"| date | commit |{table[0]}")) == columns


def test_what_the_history_keeps_is_measured() -> None:
    """A key that is misspelled would be a dash for ever."""
    measured = {each.key for each in (*DRAIN, *ADD, *CPU)}
    assert set(RATIOS) - measured == {"best Python", "best Python at 100"}
    assert {each.case for each in (*DRAIN, *ADD, *CPU)} - {""} <= {case.name for case in CASES}

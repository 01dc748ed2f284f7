"""The line of `bench/HISTORY.md` that a run makes. The columns stand here, and are explained there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.table import Row, number

RATIOS = (
    "drain 100",
    "drain 10",
    "drain 1",
    "drain 1 KB",
    "drain 1 ms",
    "add bulk",
    "add 100",
    "add 1",
    "store CPU",
    "best Python",
    "best Python at 100",
)
"""Rows whose ratio is kept."""
FIGURES = ("pick-up p50", "pick-up p99", "worker MiB", "worker ready", "enqueue")
"""Rows whose own figure is kept."""
CASES = ("drain 1", "drain 10", "drain 50", "add 1", "add 50", "add 500")
"""Cases of `bench.instructions`."""
UNKNOWN = "-"


def history_line(
    date: str, commit: str, rows: Iterable[Row], instructions: Mapping[str, float]
) -> str:
    """One line of the table: what this run did not measure is a dash; `step` is for the person who adds
    it.
    """
    by_key = {row.key: row for row in rows}
    ratios = [by_key[key].ratio if key in by_key else None for key in RATIOS]
    figures = [by_key[key].figure if key in by_key else None for key in FIGURES]
    cells = [
        date,
        commit,
        "…",
        *(UNKNOWN if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        *(number(figure) or UNKNOWN for figure in figures),
        " / ".join(thousands(instructions.get(case)) for case in CASES[:3]),
        " / ".join(thousands(instructions.get(case)) for case in CASES[3:]),
    ]
    return f"| {' | '.join(cells)} |"


def thousands(instructions: float | None) -> str:
    """A count in thousands."""
    return UNKNOWN if instructions is None else f"{instructions / 1000:.0f}"

"""The table's pure parts: what a row is, whether it holds its goal, and how it is printed.

Nothing is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HEADING = (
    f"{'':43} {'Corral':>9} {'peer':>9}  {'ratio (min-max)':20} {'goal':>9}  {'floor':9} {'verdict':12} "
    f"{'k instr/job':>11}"
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row should reach.

    Attributes:
        bound: The number, itself included.
        is_least: Whether a row should have at least `bound`; else at most.
        of_ratio: Whether it is about Corral's figure divided by the peer's; else about Corral's
        figure alone.
        unit: What stands behind the number.
    """

    bound: float
    is_least: bool
    of_ratio: bool = True
    unit: str = ""

    def is_held_by(self, figure: float) -> bool:
        """Whether a figure reaches it."""
        return figure >= self.bound if self.is_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}{'x' if self.of_ratio else ''}{self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Figures are taken in rounds; the same place in two lists is the same
    round.

    Attributes:
        key: Names it in `bench/HISTORY.md`.
        name: What it is about, with its unit.
        ours: Corral's figure in each round; empty where it was not measured.
        theirs: The peer's, or empty.
        goal: What it should reach, or None.
        floor: What is possible at best, as far as that is known.
        instructions: What one job costs the store in this row, by `bench.instructions`; None where
        not counted.
        note: Why it was not measured, or what else a reader must know.
    """

    key: str
    name: str
    ours: Sequence[float] = ()
    theirs: Sequence[float] = ()
    goal: Goal | None = None
    floor: str = ""
    instructions: float | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Corral's figure divided by the peer's, round by round."""
        return ratios(self.ours, self.theirs)

    @property
    def ratio(self) -> float | None:
        """The median of `ratios`."""
        return statistics.median(self.ratios) if self.theirs else None

    @property
    def figure(self) -> float | None:
        """The median of `ours`."""
        return statistics.median(self.ours) if self.ours else None

    @property
    def verdict(self) -> str:
        """`held` or `missed`, by what is printed; empty without a goal; `not measured` where a goal
        has no figure.
        """
        if self.goal is None:
            return "" if self.ours else "not measured"
        measured = self.ratio if self.goal.of_ratio else self.figure
        if measured is None:
            return "not measured"
        return "held" if self.goal.is_held_by(round(measured, 2)) else "missed"

    def __str__(self) -> str:
        columns = (
            f"{self.name:41}",
            f"{number(self.figure):>9}",
            f"{number(statistics.median(self.theirs) if self.theirs else None):>9} ",
            f"{spread(self.ratios):20}",
            f"{'' if self.goal is None else str(self.goal):>9} ",
            f"{self.floor:9}",
            f"{self.verdict:12}",
            f"{'' if self.instructions is None else f'{self.instructions / 1000:.0f}':>11}",
        )
        return (" ".join(columns).rstrip() + (f"  ({self.note})" if self.note else "")).rstrip()


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one heading.

    Attributes:
        title: Says what the peer's column is.
        rows: Its rows.
        notes: Lines below them.
    """

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())

    def __str__(self) -> str:
        return "\n".join(
            [
                self.title,
                *(f"  {row}" for row in self.rows),
                *(f"    {note}" for note in self.notes),
            ]
        )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Our figure divided by theirs, of each round; empty where they have none.

    Raises:
        ValueError: The lists are of different lengths: they are not of the same rounds.
    """
    return [mine / other for mine, other in zip(ours, theirs, strict=True)] if theirs else []


def spread(taken: Sequence[float]) -> str:
    """The median, and between which figures it lies."""
    if not taken:
        return ""
    return f"{statistics.median(taken):.2f} ({min(taken):.2f}-{max(taken):.2f})"


def number(figure: float | None) -> str:
    """A figure with about three digits."""
    if figure is None:
        return ""
    if figure >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 20 else f"{figure:.2f}"


def best_of(rates: Mapping[str, Sequence[float]]) -> str:
    """The name with the highest median.

    Raises:
        ValueError: There is none.
    """
    return max(rates, key=lambda name: statistics.median(rates[name]))

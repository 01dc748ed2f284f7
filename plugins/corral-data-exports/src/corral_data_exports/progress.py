"""How far an export is, in percent: by records if all counts are known, else by record sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Progress"]

LAST: Final = 99
"""What all records are: the hundredth percent is the archive's, when it can be seen."""


class Progress:
    """Counts, and reports each whole percent once.

    What it reports only grows, whatever participants announced.

    Args:
        expected: How many records each set says it has, in their order; None for those that do not
        know.
        on_progress: Called with whole percents, from 0 to 99.
    """

    def __init__(
        self, expected: Sequence[int | None], on_progress: Callable[[int], object]
    ) -> None:
        known = [rows for rows in expected if rows is not None]
        by_rows = len(known) == len(expected) and sum(known) > 0
        total = sum(known) if by_rows else len(expected)
        self._shares = [(rows or 0) / total if by_rows else 1 / total for rows in expected]
        self._expected = list(expected)
        self._done = 0
        self._before = 0.0
        self._reported = -1
        self._on_progress = on_progress
        self._report(0.0)

    def record_rows(self, rows: int) -> None:
        """Record how many records of the present set are written."""
        expected = self._expected[self._done]
        if expected:
            self._report(self._before + self._shares[self._done] * min(1.0, rows / expected))

    def finish_set(self) -> None:
        """Record that the present set is written, and begin the next one."""
        self._before += self._shares[self._done]
        self._done += 1
        self._report(self._before)

    def _report(self, share: float) -> None:
        percent = min(
            LAST, int(share * LAST + 1e-9)
        )  # shares are fractions, and their sum may fall short of a whole
        if percent > self._reported:
            self._reported = percent
            self._on_progress(percent)

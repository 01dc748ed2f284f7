"""How far an export is, in percent: by records if all counts are known, else by record sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Progress"]

LAST: Final = 99
"""What all records are: the hundredth percent is the archive's, when it can be seen."""


class Progress:
    """Counts, and tells each whole percent once.

    What it tells only grows, whatever participants announced.

    Args:
        expected: How many records each set says it has, in their order; None for those that do not
        know.
        tell: Is told whole percents, from 0 to 99.
    """

    def __init__(self, expected: Sequence[int | None], tell: Callable[[int], object]) -> None:
        known = [rows for rows in expected if rows is not None]
        by_rows = len(known) == len(expected) and sum(known) > 0
        total = sum(known) if by_rows else len(expected)
        self._shares = [(rows or 0) / total if by_rows else 1 / total for rows in expected]
        self._expected = list(expected)
        self._done = 0
        self._before = 0.0
        self._told = -1
        self._tell = tell
        self._say(0.0)

    def moved(self, rows: int) -> None:
        """So many records of the present set are written."""
        expected = self._expected[self._done]
        if expected:
            self._say(self._before + self._shares[self._done] * min(1.0, rows / expected))

    def set_done(self) -> None:
        """The present set is written, and the next one begins."""
        self._before += self._shares[self._done]
        self._done += 1
        self._say(self._before)

    def _say(self, share: float) -> None:
        percent = min(
            LAST, int(share * LAST + 1e-9)
        )  # shares are fractions, and their sum may fall short of a whole
        if percent > self._told:
            self._told = percent
            self._tell(percent)

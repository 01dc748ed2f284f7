"""What becomes of worker processes that end: decisions only.

`corral.app.worker_processes` starts them and acts on these.

It knows exit codes and times; it knows no process, no signal and no store.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

__all__ = ["IN_ORDER", "Restarts", "exit_code", "told_end"]

FIRST_SECONDS, LONGEST_SECONDS = 0.2, 30.0
"""The waits before a restart: the first is short, since a process that was killed once can start
again at once.
"""
HEALTHY_SECONDS = 10.0
"""A process that lived for so long did start: whatever ended it, the waits begin anew."""
IN_ORDER = frozenset({0, 5})
"""Exit codes of a worker that drained: it was told to, or a burst was over."""
REFUSED = frozenset({2, 3})
"""Exit codes of a worker whose configuration or catalog was refused: the next one will say the
same.
"""
REFUSED_STARTS = 3
"""How many refusals in a row are believed where workers have started before: an upgrade may be
under way.
"""


class Restarts:
    """One place for a worker process: whether, and when, it is filled again."""

    def __init__(self) -> None:
        self._tries = 0
        self._refusals = 0
        self._was_healthy = False

    def ended(self, code: int, lived_seconds: float, chance: float) -> float | None:
        """The process of this place has ended, and nobody had asked for that.

        Args:
            code: Its exit code, negative for a signal.
            lived_seconds: How long it lived.
            chance: From 0 to 1, evenly: keeps the places of a fleet apart.

        Returns:
            How many seconds the next one must wait, or None: there is no use in a next one.
        """
        if lived_seconds >= HEALTHY_SECONDS:
            self._was_healthy, self._tries = True, 0
        self._refusals = self._refusals + 1 if code in REFUSED else 0
        if self._refusals >= (REFUSED_STARTS if self._was_healthy else 1):
            return None
        if code in IN_ORDER:
            return 0.0  # somebody told this one process to stop: a rolling restart
        longest: float = min(FIRST_SECONDS * 2**self._tries, LONGEST_SECONDS)
        self._tries = min(self._tries + 1, 16)
        return longest * (0.5 + chance / 2)


def exit_code(codes: Iterable[int]) -> int:
    """The exit code of a parent: the worst of its last processes'; the jobs of one that was killed
    are handed back.
    """
    return max((5 if code < 0 else code for code in codes), default=0)


def told_end(code: int) -> str:
    """How a process ended, for a log line."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

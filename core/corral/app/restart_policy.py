"""Whether and when a parent replaces a worker process that has ended: decisions only.

`corral.app.parent_process` starts the processes and acts on these decisions. This module knows exit
codes and times, and no process, no signal and no store.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

__all__ = ["ORDERLY_EXIT_CODES", "RestartPolicy", "describe_exit", "exit_code"]

FIRST_SECONDS, LONGEST_SECONDS = 0.2, 30.0
"""The waits before a restart, doubled each time. The first is short: a process that was killed once
can usually start again at once.
"""
HEALTHY_SECONDS = 10.0
"""A process that lived as long did start; whatever ended it, the waits begin anew."""
ORDERLY_EXIT_CODES = frozenset({0, 5})
"""Exit codes of a worker that drained: it was asked to stop, or its burst was over."""
REFUSED = frozenset({2, 3})
"""Exit codes of a worker whose configuration or catalog was refused: the next one would be refused,
too.
"""
REFUSED_STARTS = 3
"""After so many refusals in a row no other process is started, if one did start before. An upgrade
of the installed packages may be under way, so that the first refusals mean nothing.
"""


class RestartPolicy:
    """Decides about one place for a worker process: whether, and when, another one is started."""

    def __init__(self) -> None:
        self._tries = 0
        self._refusals = 0
        self._was_healthy = False

    def next_start(self, code: int, lived_seconds: float, chance: float) -> float | None:
        """Decide when to replace a process that ended without being asked to.

        Args:
            code: Its exit code, negative for a signal.
            lived_seconds: How long it lived.
            chance: A random number from 0 to 1, so that a fleet's processes do not start together.

        Returns:
            The seconds to wait before the next start; None if another start would be refused, too.
        """
        if lived_seconds >= HEALTHY_SECONDS:
            self._was_healthy, self._tries = True, 0
        self._refusals = self._refusals + 1 if code in REFUSED else 0
        if self._refusals >= (REFUSED_STARTS if self._was_healthy else 1):
            return None
        if code in ORDERLY_EXIT_CODES:
            return 0.0  # this one process was asked to stop, as in a rolling restart
        longest: float = min(FIRST_SECONDS * 2**self._tries, LONGEST_SECONDS)
        self._tries = min(self._tries + 1, 16)
        return longest * (0.5 + chance / 2)


def exit_code(codes: Iterable[int]) -> int:
    """The exit code of a parent: the worst of its last processes' exit codes.

    A process that was killed counts as 5, "jobs handed back": its parent has done that.
    """
    return max((5 if code < 0 else code for code in codes), default=0)


def describe_exit(code: int) -> str:
    """How a process ended, for a log line: `exit code 3` or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

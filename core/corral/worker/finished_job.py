"""`FinishedJob`: a job whose processor is done with it, and what the log says of that."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral.loggers import Logger, fields_of
from corral.outcome import (
    Completed,
    Failed,
    HandedBack,
    LeaseLost,
    Outcome,
    RateLimited,
    Retried,
    Snoozed,
    TimedOut,
)
from corral.worker.execution import Running
from corral.worker.leases import Lease

__all__ = ["FinishedJob", "least_level", "level_of"]

log = Logger("corral.worker")

DROPPED = {
    -1: "job was removed while it ran: the result is dropped",
    -3: "job was moved by somebody else while it ran: the result is dropped",
}
"""What happened where the store refused an ending (wire § 5.7) although nobody else has the lock."""


_LEVELS: Final[Mapping[type[Outcome], int]] = {
    Completed: logging.DEBUG,
    Snoozed: logging.DEBUG,
    RateLimited: logging.DEBUG,
    Retried: logging.INFO,
    HandedBack: logging.INFO,
    TimedOut: logging.INFO,
    Failed: logging.ERROR,
}
"""The level of an outcome's line, or the lower of two that it may have.

What is not named here is a warning.
"""


@dataclass(slots=True, eq=False)
class FinishedJob:
    """A job whose ending is to be written.

    Attributes:
        running: The job.
        lease: Its lock.
        outcome: How it ended.
        unwritable: Whether the store failed over this ending alone.
    """

    running: Running
    lease: Lease
    outcome: Outcome
    unwritable: bool = False

    @property
    def size(self) -> int:
        """About how many bytes it adds to a call."""
        if isinstance(self.outcome, Completed):
            return len(self.outcome.returnvalue)
        return len(self.running.fetched.stacktrace) + len(getattr(self.outcome, "traceback", ""))

    def tell(self, outcome: Outcome, code: int = 0) -> None:
        """Log an ending that the store has.

        Args:
            outcome: `self.outcome`, or what the store has made of it.
            code: Why the store refused it, or 0.
        """
        job = self.running.job
        known = {
            **fields_of(job),
            "duration_ms": round((time.monotonic() - self.running.started) * 1000),
        }
        match outcome:
            case Failed(reason, trace) | TimedOut(reason, None, trace):
                log.error(
                    "job failed", reason=reason, **known, **({"exception": trace} if trace else {})
                )
            case Retried(reason, delay_ms) | TimedOut(reason, int(delay_ms)):
                log.info("job will be retried", reason=reason, delay_ms=delay_ms, **known)
            case LeaseLost():
                log.warning(DROPPED.get(code, "lock lost: the result is dropped"), **known)
            case HandedBack():
                log.info("job handed back", **known)
            case _:
                log.debug("job ended", outcome=type(outcome).__name__, **known)


def level_of(outcome: Outcome) -> int:
    """The level of the line that `FinishedJob.tell` writes, one of `logging`'s numbers."""
    return _LEVELS.get(type(outcome), logging.WARNING)


def least_level() -> int:
    """The lowest level of which lines are written, one of `logging`'s numbers; WARNING where it is
    a higher one.

    A batch of endings asks once: nothing is prepared for lines that are not written.

    Raises:
        Exception: The program's own logging is broken.
    """
    return next(
        (level for level in (logging.DEBUG, logging.INFO) if log.is_enabled_for(level)),
        logging.WARNING,
    )

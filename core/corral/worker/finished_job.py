"""`FinishedJob`: a job whose run has ended, and the log line that says how."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral.loggers import Logger, job_fields
from corral.outcome import (
    Completed,
    Failed,
    HandedBack,
    LeaseLost,
    Outcome,
    QueueLimited,
    Retried,
    Snoozed,
    TimedOut,
)
from corral.worker.execution import ActiveJob
from corral.worker.leases import Lease

__all__ = ["FinishedJob", "least_level", "level_of"]

log = Logger("corral.worker")

DROPPED = {
    -1: "job was removed while it ran: the result is dropped",
    -3: "job was moved by another client while it ran: the result is dropped",
}
"""What happened if the store refused an ending although no other worker has the lock, by code.

See wire § 5.7.
"""


_LEVELS: Final[Mapping[type[Outcome], int]] = {
    Completed: logging.DEBUG,
    Snoozed: logging.DEBUG,
    QueueLimited: logging.DEBUG,
    Retried: logging.INFO,
    HandedBack: logging.INFO,
    TimedOut: logging.INFO,
    Failed: logging.ERROR,
}
"""The level of an outcome's log line, or the lower of two that it may have.

An outcome that is not listed is logged as a warning.
"""


@dataclass(slots=True, eq=False)
class FinishedJob:
    """A job whose run has ended, and whose ending is still to be written to the store.

    Attributes:
        active: The job, as it ran.
        lease: Its lock.
        outcome: How it ended.
        unwritable: Whether the script failed although this ending was the only one of its call.
    """

    active: ActiveJob
    lease: Lease
    outcome: Outcome
    unwritable: bool = False

    @property
    def size(self) -> int:
        """The approximate number of bytes that it adds to a call."""
        if isinstance(self.outcome, Completed):
            return len(self.outcome.returnvalue)
        return len(self.active.fetched.stacktrace) + len(getattr(self.outcome, "traceback", ""))

    def log_ending(self, outcome: Outcome, code: int = 0) -> None:
        """Log how the job ended, after the store has written or refused the ending.

        Args:
            outcome: `self.outcome`, or another one if the store has changed it.
            code: The code with which the store refused it, or 0.
        """
        job = self.active.job
        known = {
            **job_fields(job),
            "duration_ms": round((time.monotonic() - self.active.started) * 1000),
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
            case Snoozed(reason=str(reason)) | QueueLimited(reason=str(reason)) if reason:
                log.debug("job ended", outcome=type(outcome).__name__, reason=reason, **known)
            case _:
                log.debug("job ended", outcome=type(outcome).__name__, **known)


def level_of(outcome: Outcome) -> int:
    """Return the level of the line that `log_ending` writes, one of `logging`'s numbers."""
    return _LEVELS.get(type(outcome), logging.WARNING)


def least_level() -> int:
    """Return the lowest level that is logged, one of `logging`'s numbers; at most WARNING.

    It is read once per batch of endings, so that no line is prepared that is not written.

    Raises:
        Exception: The program's own logging is broken.
    """
    return next(
        (level for level in (logging.DEBUG, logging.INFO) if log.is_enabled_for(level)),
        logging.WARNING,
    )

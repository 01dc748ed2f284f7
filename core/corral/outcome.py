"""`Outcome`: how a run of a job ended.

One union, from the processor's ending to the store's script to the `corral_job_ended` hook to the
metric's label: nothing is translated on the way. An outcome is already a decision: whether a failed
attempt is retried, and when, was settled by whoever made it (`worker.execution`).

Every outcome says whether it is `final`: no further attempt follows. Those of a failed attempt
carry the exception, for error trackers: in this process only, it is never written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "Completed",
    "Failed",
    "HandedBack",
    "LeaseLost",
    "Outcome",
    "RateLimited",
    "Retried",
    "Snoozed",
    "TimedOut",
]


@dataclass(frozen=True, slots=True)
class Completed:
    """The processor returned.

    Attributes:
        returnvalue: Its result as strict JSON text, `b"null"` for None.
    """

    returnvalue: bytes = b"null"

    @property
    def final(self) -> bool:
        """True: the job is completed."""
        return True


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is failed for good: its attempts are spent, or no further attempt can help.

    Attributes:
        reason: `TypeName: message`, at most 1 KiB.
        traceback: The traceback's text, one entry of the job's stack traces.
        error: What the processor raised, as it raised it and with its traceback, or None where
            nothing was raised. Nothing in it is masked. It is never written to the store, and no
            part of a comparison or of the repr.
    """

    reason: str
    traceback: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def final(self) -> bool:
        """True: the job is failed for good."""
        return True


@dataclass(frozen=True, slots=True)
class Retried:
    """The attempt failed and the job is tried again.

    Attributes:
        reason: `TypeName: message`, at most 1 KiB.
        delay_ms: The wait before the next attempt; 0 puts the job back into the waiting list at
        once.
        traceback: The traceback's text, one entry of the job's stack traces.
        error: What the processor raised, as it raised it and with its traceback, or None where
            nothing was raised. Nothing in it is masked. It is never written to the store, and no
            part of a comparison or of the repr.
    """

    reason: str
    delay_ms: int
    traceback: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def final(self) -> bool:
        """False: another attempt follows."""
        return False


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The processor ran longer than its queue's `timeout`: a failed attempt.

    Attributes:
        reason: `TimeoutError: …`.
        delay_ms: The wait before the next attempt, or None where this was the last one.
        traceback: The traceback's text, one entry of the job's stack traces.
        error: What the processor raised when it was interrupted, mostly a `CancelledError` whose
            traceback shows where it was, or None where it returned. Otherwise as `Failed.error`.
    """

    reason: str
    delay_ms: int | None
    traceback: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def final(self) -> bool:
        """Whether this was the last attempt."""
        return self.delay_ms is None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The processor asked to be run again later; no attempt is spent.

    Attributes:
        delay_ms: The wait.
    """

    delay_ms: int

    @property
    def final(self) -> bool:
        """False: the job is started again."""
        return False


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The processor asked the whole queue to wait; the job goes back unspent.

    Attributes:
        delay_ms: How long no worker starts a job of this queue.
    """

    delay_ms: int

    @property
    def final(self) -> bool:
        """False: the job is started again."""
        return False


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker shut down before the processor ended; the job goes back unspent, to run next."""

    @property
    def final(self) -> bool:
        """False: the job is started again."""
        return False


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The job's lock went to somebody else; whatever this run produced is dropped, nothing is
    written.
    """

    @property
    def final(self) -> bool:
        """False: how the job ends is told by another run of it."""
        return False


Outcome = Completed | Failed | Retried | TimedOut | Snoozed | RateLimited | HandedBack | LeaseLost

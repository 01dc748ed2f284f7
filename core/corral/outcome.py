"""`Outcome`: how one run of a job ended.

The worker makes it from what the processor returned or raised, the store's script writes it,
`corral_job_ended` receives it, and its class name is the label of a metric. It is already a
decision: `worker.execution` has settled whether a failed attempt is retried, and when.

Every outcome has `final`: whether no further attempt follows. The outcomes of a failed attempt also
carry the exception, for error trackers in this process. It is never written to the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "Completed",
    "Failed",
    "HandedBack",
    "LeaseLost",
    "Outcome",
    "QueueLimited",
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
        error: The exception that the processor raised, with its traceback, or None if nothing was
            raised. Nothing in it is masked. It is not written to the store, and it is left out of
            comparisons and of the repr.
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
        error: The exception that the processor raised, as in `Failed.error`.
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
        delay_ms: The wait before the next attempt, or None if this was the last one.
        traceback: The traceback's text, one entry of the job's stack traces.
        error: The exception that the processor raised when it was interrupted, or None if it
            returned. It is mostly a `CancelledError`, whose traceback shows what was interrupted.
            Otherwise as in `Failed.error`.
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
    """The processor raised `Snooze`: the job runs again later, and no attempt is spent.

    Attributes:
        delay_ms: The wait.
        reason: The reason that the processor gave, at most 1 KiB, or empty.
    """

    delay_ms: int
    reason: str = ""

    @property
    def final(self) -> bool:
        """False: the job is started again."""
        return False


@dataclass(frozen=True, slots=True)
class QueueLimited:
    """The processor raised `RateLimited`: the whole queue waits, and no attempt is spent.

    Attributes:
        delay_ms: How long no worker starts a job of this queue.
        reason: The reason that the processor gave, at most 1 KiB, or empty.
    """

    delay_ms: int
    reason: str = ""

    @property
    def final(self) -> bool:
        """False: the job is started again."""
        return False


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker shut down before the processor ended.

    The job goes back to the front of its queue, and no attempt is spent.
    """

    @property
    def final(self) -> bool:
        """False: the job is started again."""
        return False


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another worker has the job's lock: the result of this run is dropped, nothing is written."""

    @property
    def final(self) -> bool:
        """False: another run of the job decides how it ends."""
        return False


Outcome = Completed | Failed | Retried | TimedOut | Snoozed | QueueLimited | HandedBack | LeaseLost
"""How one run of a job ended: one of these."""

"""Errors of refused operations, one class per reason. The refused operation changed nothing."""

from __future__ import annotations

from corral.errors import CorralError

__all__ = [
    "CurrentIteration",
    "DamagedKey",
    "JobLocked",
    "JobNotFound",
    "PayloadChanged",
    "WrongState",
]

MOST_NAMED = 5
"""The most damaged keys that one error message names."""


class _Refused(CorralError):
    """An operation on one job was refused.

    Attributes:
        queue: The queue's name.
        job_id: The job's id.
    """

    def __init__(self, message: str, queue: str, job_id: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.queue = queue
        self.job_id = job_id


class JobNotFound(_Refused):
    """The queue has no job with this id."""

    def __init__(self, queue: str, job_id: str, *, hint: str | None = None) -> None:
        hint = hint or "it may have ended and been removed by its retention"
        super().__init__(f"queue {queue!r} has no job {job_id!r}", queue, job_id, hint=hint)


class JobLocked(_Refused):
    """A worker is running the job or one of its children (wire § 6.17)."""

    def __init__(self, queue: str, job_id: str) -> None:
        message = f"job {job_id!r} of queue {queue!r} is held by a worker, or a child of it is"
        super().__init__(message, queue, job_id, hint="wait until it has ended")


class PayloadChanged(_Refused):
    """Somebody else has changed the job's payload since it was read."""

    def __init__(self, queue: str, job_id: str) -> None:
        message = f"the payload of job {job_id!r} of queue {queue!r} was changed meanwhile"
        super().__init__(message, queue, job_id, hint="read the job again, and repeat the edit")


class WrongState(_Refused):
    """The operation is not possible in the state that the job is in (wire § 5.7, code -3)."""

    def __init__(self, queue: str, job_id: str, wanted: str) -> None:
        hint = f"corral job show {queue} {job_id}"
        super().__init__(
            f"job {job_id!r} of queue {queue!r} is not {wanted}", queue, job_id, hint=hint
        )


class CurrentIteration(_Refused):
    """The job is the next iteration of a schedule (wire § 5.7, code -8).

    Without it the schedule would end.
    """

    def __init__(self, queue: str, job_id: str) -> None:
        message = f"job {job_id!r} of queue {queue!r} is the next run of a schedule"
        super().__init__(message, queue, job_id, hint="remove the schedule instead")


class DamagedKey(CorralError):
    """A key that the operation needs is of the wrong type.

    Attributes:
        damaged: One text for each damaged key: `<key> is a <type>, not a <type>`.
        done: How many jobs an operation on many jobs has changed all the same: those that do not
            need the damaged keys.
    """

    def __init__(self, *damaged: str, done: int = 0, hint: str | None = None) -> None:
        named = "; ".join(f"the key {each}" for each in damaged[:MOST_NAMED])
        more = f"; and {len(damaged) - MOST_NAMED} more" if len(damaged) > MOST_NAMED else ""
        hint = hint or (
            "look at it with redis-cli, and repair it or rename it away; "
            "nothing was changed by this"
        )
        super().__init__(f"{named}{more}", hint=hint)
        self.damaged = damaged
        self.done = done

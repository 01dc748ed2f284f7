"""Why an operation on one job was refused: one type per condition. Nothing was changed."""

from __future__ import annotations

from corral.errors import CorralError

__all__ = ["CurrentIteration", "JobLocked", "JobNotFound", "WrongState"]


class _Refused(CorralError):
    """An operation on one job that was refused.

    Attributes:
        queue: The queue's name.
        job_id: The job's id.
    """

    def __init__(self, message: str, queue: str, job_id: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.queue = queue
        self.job_id = job_id


class JobNotFound(_Refused):
    """No job of that id is in the queue."""

    def __init__(self, queue: str, job_id: str) -> None:
        hint = "it may have ended and been removed by its retention"
        super().__init__(f"queue {queue!r} has no job {job_id!r}", queue, job_id, hint=hint)


class JobLocked(_Refused):
    """A worker is running the job, or a job that was added below it (wire § 6.17)."""

    def __init__(self, queue: str, job_id: str) -> None:
        message = f"job {job_id!r} of queue {queue!r} is held by a worker, or a child of it is"
        super().__init__(message, queue, job_id, hint="wait until it has ended")


class WrongState(_Refused):
    """The job is not in a state in which the operation makes sense (wire § 5.7, code -3)."""

    def __init__(self, queue: str, job_id: str, wanted: str) -> None:
        hint = f"corral job show {queue} {job_id}"
        super().__init__(f"job {job_id!r} of queue {queue!r} is not {wanted}", queue, job_id, hint=hint)


class CurrentIteration(_Refused):
    """The job is the iteration that a schedule waits for; without it the schedule would end (wire § 5.7, code -8)."""

    def __init__(self, queue: str, job_id: str) -> None:
        message = f"job {job_id!r} of queue {queue!r} is the next run of a schedule"
        super().__init__(message, queue, job_id, hint="remove the schedule instead")

"""`Outbox`: enqueues in the caller's transaction.

If the transaction is rolled back, the job was never enqueued; if it is committed, it will be. This
module writes rows; `OutboxRelay` carries them to the store. It knows how a row is written, and
nothing of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

from pydantic_core import from_json, to_json
from sqlalchemy import insert

from corral.errors import JobRefused
from corral.jobs import CheckedJob, CheckedSchedule, JobChecks, JobScheduler, Written
from corral.queue import Queue
from corral.sql.engines import Connection, connection_of
from corral.sql.tables import IF_FAILED, now_ms, outbox
from corral.store.codec import JobEncoder, NewJob

__all__ = ["Outbox"]


_INSERT: Final = insert(outbox).inline().values(created_ms=now_ms(), refused=False)
"""Inline: the number that the row gets is not read back."""


class Outbox:
    """Enqueues in a transaction: `await Outbox(jobs).within(connection).enqueue(emails, …)`.

    Args:
        jobs: What `corral.connect()` yields, or a worker's `deps.jobs`. It checks the jobs and
            makes their ids. It does not write them, so the store may be away.
    """

    def __init__(self, jobs: JobScheduler) -> None:
        if not isinstance(jobs, JobScheduler) or jobs.prefix is None:
            raise TypeError(
                f"{type(jobs).__name__} writes to no store: Outbox takes corral.connect()'s"
            )
        self._jobs = jobs
        self._prefix = jobs.prefix

    def within(self, connection: Connection) -> JobScheduler:
        """A `JobScheduler` that enqueues in a transaction.

        Pass it to code that enqueues and need not know of the transaction.

        It refuses what the scheduler of this outbox refuses. An id is final at once, and a `delay`
        counts from the call, not from the relay. `Enqueued.created` is always true: whether a job
        with an id of the caller's exists is found out by the relay, which leaves that job as it
        is, or lets it run again (`if_failed`).

        Its `schedule` and `unschedule` raise `JobRefused`: a schedule is in the store at once, and
        no rollback would take it back.

        Args:
            connection: The caller's connection or session, in its transaction.
        """
        return _Transaction(self._jobs, self._prefix, connection)


class _Transaction(JobScheduler):
    """Writes rows in one transaction."""

    def __init__(self, jobs: JobScheduler, store_prefix: str, connection: Connection) -> None:
        self._jobs = jobs
        self._store_prefix = store_prefix
        self._connection = connection

    def _checks(self) -> JobChecks:
        return self._jobs._checks()  # noqa: SLF001  # the same port

    async def _write(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        self._jobs._leave_to_outbox(queue, jobs)  # noqa: SLF001  # the same port
        rows = [self._row(queue.name, job) for job in map(JobEncoder(queue.name).encode, jobs)]
        await (await connection_of(self._connection)).execute(_INSERT, rows)
        return [True] * len(rows)

    def _row(self, queue: str, job: NewJob) -> dict[str, Any]:
        return {
            "prefix": self._store_prefix,
            "queue": queue,
            "job_id": job.id,
            "name": job.name,
            "data": job.data.decode(),
            "opts": _options_of(job),
            "delay_ms": job.delay_ms,
            "priority": job.priority,
            "lifo": job.lifo,
            "nonce": job.nonce,
        }

    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:  # noqa: ARG002  # of the base class
        _refuse_schedule(schedule.id)

    async def _end_schedule(self, queue: Queue[Any], schedule_id: str) -> bool:  # noqa: ARG002  # of the base class
        _refuse_schedule(schedule_id)


def _options_of(job: NewJob) -> str:
    if not job.retries_failed:
        return job.opts.decode()
    return to_json({**from_json(job.opts), IF_FAILED: "retry"}).decode()


def _refuse_schedule(schedule_id: str) -> NoReturn:
    raise JobRefused(
        f"schedule {schedule_id!r} cannot be made or ended in a transaction of the database",
        hint="call the scheduler of corral.connect(), after the commit",
    )

"""`Outbox`: enqueues in the caller's transaction. What is rolled back was never enqueued, what is committed will be.

It writes a row; `OutboxRelay` carries it to the store. It knows how a row is written, and nothing of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, overload, runtime_checkable

from sqlalchemy import insert
from typing_extensions import Unpack

from corral.errors import JobRefused
from corral.job import P
from corral.jobs import Enqueued, EnqueueOptions, Entry, JobScheduler, with_options
from corral.queue import Queue
from corral.schedule import Cron, Every
from corral.sql.engines import Connection, connected
from corral.sql.tables import now_ms, outbox
from corral.store.codec import NewJob

__all__ = ["Outbox"]


_INSERT: Final = insert(outbox).inline().values(created_ms=now_ms(), refused=False)
"""Inline: nobody asks for the number that the row gets."""


@runtime_checkable
class _Prepares(Protocol):
    """A scheduler that can say what it would write."""

    def prepared(
        self, queue: Queue[Any] | str, payload: Any, options: EnqueueOptions
    ) -> tuple[str, str, NewJob]: ...  # pragma: no cover


class Outbox:
    """Enqueues in a transaction of the SQL database: `await Outbox(jobs).enqueue(connection, emails, EmailJob(…))`.

    Args:
        jobs: What `corral.connect()` yields, or a worker's `deps.jobs`. It checks and numbers the jobs; it is not asked
            to write them, so the store need not even be there.
    """

    def __init__(self, jobs: JobScheduler) -> None:
        if not isinstance(jobs, _Prepares):
            raise TypeError(f"{type(jobs).__name__} cannot say what it would write: Outbox takes corral.connect()'s")
        self._jobs = jobs

    def within(self, connection: Connection) -> JobScheduler:
        """A `JobScheduler` that enqueues in a transaction: for code that enqueues, and need not know of one.

        Its `enqueue` and `enqueue_many` are those of this outbox. Its `schedule` and `unschedule` refuse: a schedule is
        in the store at once, and no rollback would take it back.

        Args:
            connection: The caller's connection or session, in its transaction.
        """
        return _Within(self, connection)

    @overload
    async def enqueue(
        self, connection: Connection, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    @overload
    async def enqueue(
        self,
        connection: Connection,
        queue: Queue[Any] | str,
        payload: Mapping[str, Any],
        **options: Unpack[EnqueueOptions],
    ) -> Enqueued: ...

    async def enqueue(
        self, connection: Connection, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]
    ) -> Enqueued:
        """Write one job, in the caller's transaction. A `delay` counts from here, not from the relay.

        Args:
            connection: The caller's connection or session, in its transaction.
            queue: As `JobScheduler.enqueue`.
            payload: As `JobScheduler.enqueue`.
            options: As `JobScheduler.enqueue`.

        Returns:
            The id that the job will have. Its `created` is true: whether a job of an id of your own exists already is
            found out later, and such a job is left as it is.

        Raises:
            UnknownQueue: As `JobScheduler.enqueue`, like all of these.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id, an option or the size was refused.
        """
        row = self._row(queue, payload, options)
        await (await connected(connection)).execute(_INSERT, row)
        return Enqueued(row["job_id"])

    @overload
    async def enqueue_many(
        self,
        connection: Connection,
        queue: Queue[P],
        payloads: Iterable[P | Entry[P]],
        **options: Unpack[EnqueueOptions],
    ) -> Sequence[Enqueued]: ...

    @overload
    async def enqueue_many(
        self,
        connection: Connection,
        queue: Queue[Any] | str,
        payloads: Iterable[Mapping[str, Any] | Entry[Mapping[str, Any]]],
        **options: Unpack[EnqueueOptions],
    ) -> Sequence[Enqueued]: ...

    async def enqueue_many(
        self,
        connection: Connection,
        queue: Queue[Any] | str,
        payloads: Iterable[Any],
        **options: Unpack[EnqueueOptions],
    ) -> Sequence[Enqueued]:
        """Write many jobs of one queue, in the caller's transaction; all are checked before the first is written.

        Args:
            connection: As `enqueue`.
            queue: As `enqueue`.
            payloads: What `enqueue` takes, one per job; or `Entry` objects, which have options of their own.
            options: Hold for all jobs, unless their entry says otherwise; `job_id` is refused.

        Returns:
            One `Enqueued` per payload, in order.

        Raises:
            JobRefused: As `enqueue`, like its other refusals.
        """
        rows = [self._row(queue, payload, own) for payload, own in with_options(payloads, options)]
        if rows:
            await (await connected(connection)).execute(_INSERT, rows)
        return [Enqueued(row["job_id"]) for row in rows]

    def _row(self, queue: Queue[Any] | str, payload: Any, options: EnqueueOptions) -> dict[str, Any]:
        prefix, name, job = self._jobs.prepared(queue, payload, options)
        return {
            "prefix": prefix,
            "queue": name,
            "job_id": job.id,
            "name": job.name,
            "data": job.data.decode(),
            "opts": job.opts.decode(),
            "delay_ms": job.delay_ms,
            "priority": job.priority,
            "lifo": job.lifo,
            "nonce": job.nonce,
        }


class _Within:
    """An outbox and the transaction that it writes in."""

    def __init__(self, outbox: Outbox, connection: Connection) -> None:
        self._outbox = outbox
        self._connection = connection

    async def enqueue(self, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]) -> Enqueued:
        return await self._outbox.enqueue(self._connection, queue, payload, **options)

    async def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Any], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]:
        return await self._outbox.enqueue_many(self._connection, queue, payloads, **options)

    async def schedule(self, queue: Queue[Any] | str, payload: Any, when: Cron | Every, *, id: str) -> datetime:  # noqa: A002, ARG002  # as in the port
        raise _no_transaction(id)

    async def unschedule(self, id: str) -> bool:  # noqa: A002  # as in the port
        raise _no_transaction(id)


def _no_transaction(schedule_id: str) -> JobRefused:
    return JobRefused(
        f"schedule {schedule_id!r} cannot be made or ended in a transaction of the database",
        hint="call the scheduler of corral.connect(), after the commit",
    )

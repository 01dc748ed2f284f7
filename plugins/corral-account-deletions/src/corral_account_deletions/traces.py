"""What the queues still hold of somebody: jobs that have not run, jobs that have, and events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from corral import JobScheduler, JobState
from corral.errors import StoreUnavailable, UnknownQueue
from corral.inspector import (
    CurrentIteration,
    DamagedKey,
    JobInspector,
    JobLocked,
    JobNotFound,
    StoredJob,
)
from corral.sql import outbox
from corral_account_deletions import account_deletions
from corral_account_deletions.person import Person

__all__ = ["Swept", "Traces", "take_back"]

log = logging.getLogger("corral_account_deletions")

PAGE: Final = 100
"""Jobs per call: what the inspector reads at once."""

MOST_UNDECLARED: Final = 1000
"""More queues than any store of ours has; each is looked through."""

ARCHIVES_QUEUE: Final = "data-exports"
"""Its plugin deletes archives by `account_deletions_purge`: where it is missing, they are left."""

UNSTARTED: Final[tuple[JobState, ...]] = (
    JobState.DELAYED,
    JobState.WAITING_CHILDREN,
    JobState.PRIORITIZED,
    JobState.WAITING,
)
"""In the order of a job's life: one that moves on meanwhile is met again."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was done in one round.

    Attributes:
        scrubbed: How many finished jobs were emptied.
        removed: How many jobs that were for later were removed.
        left: How many are addressed to them and will end soon, or run, or have failed at them and
        are tried again.
        shared: How many finished jobs have the address and are another account's.
        undeclared: Queues of the store that no plugin of this worker declares.
        uncleared: Those of them that hold unfinished jobs about the person, that cannot be read, or
        whose plugin would have deleted archives.
    """

    scrubbed: int = 0
    removed: int = 0
    left: int = 0
    shared: int = 0
    undeclared: tuple[str, ...] = ()
    uncleared: tuple[str, ...] = ()

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            self.scrubbed + other.scrubbed,
            self.removed + other.removed,
            self.left + other.left,
            self.shared + other.shared,
            self.undeclared + other.undeclared,
            self.uncleared + other.uncleared,
        )


class Traces:
    """All queues of the store: those of the catalog, and those that no plugin here declares.

    Args:
        inspector: Looks into them.
        jobs: Ends schedules.
    """

    def __init__(self, inspector: JobInspector, jobs: JobScheduler) -> None:
        self._inspector = inspector
        self._jobs = jobs

    async def erase(self, person: Person) -> Swept:
        """Remove jobs that are due later and addressed to a person; clear finished jobs about them.

        What is due, or has begun, is left to end, whatever it is for: it may be the only notice of
        a payment.
        A job that runs while this looks has moved on to where it is looked at next, or is counted
        as left.
        """
        swept = Swept()
        for queue in self._inspector.queues:
            for state in UNSTARTED:
                async for job in _list_jobs(self._inspector, queue, state):
                    taken = await self._take_out(job, person)
                    swept += taken
                    if taken.removed:
                        log.info(
                            "a job for a deleted account is removed: %s of queue %s", job.id, queue
                        )
            if queue != account_deletions.name:  # of which we are one, and no other one says more
                async for job in _list_jobs(self._inspector, queue, JobState.ACTIVE):
                    swept += Swept(left=person.is_in(job))
            swept += await _clear_finished(self._inspector, queue, person)
        for queue in await self._inspector.find_undeclared(MOST_UNDECLARED, scans=None):
            swept += await self._erase_undeclared(queue, person)
        return swept

    async def _erase_undeclared(self, queue: str, person: Person) -> Swept:
        """Clear the finished jobs of a queue that no plugin here declares.

        Its unfinished jobs are left alone: nobody here knows what they are for, or whether a worker
        will ever come for them, so that nobody waits for them either.
        """
        try:
            inspector = await self._inspector.including_undeclared(queue)
        except UnknownQueue:  # it has gone since it was found
            return Swept()
        try:
            unfinished = False
            for state in (*UNSTARTED, JobState.ACTIVE):
                async for job in _list_jobs(inspector, queue, state):
                    unfinished |= person.is_meant_in(job.data) or person.is_in(job)
            cleared = await _clear_finished(inspector, queue, person)
        except DamagedKey as error:
            log.warning("the undeclared queue %s cannot be looked through: %s", queue, error)
            return Swept(undeclared=(queue,), uncleared=(queue,))
        except StoreUnavailable as error:
            await self._inspector.counts(account_deletions.name)  # raises where the store is away
            log.warning("the undeclared queue %s cannot be looked through: %s", queue, error)
            return Swept(undeclared=(queue,), uncleared=(queue,))
        is_uncleared = unfinished or queue == ARCHIVES_QUEUE
        return cleared + Swept(undeclared=(queue,), uncleared=(queue,) if is_uncleared else ())

    async def _take_out(self, job: StoredJob, person: Person) -> Swept:
        if not person.is_meant_in(job.data):
            said = (job.failed_reason, job.stacktrace, job.progress)
            # it failed at them, and does something for others, too
            return Swept(left=person.is_meant_in(job.data, *said))
        if job.state != "delayed" or job.attempts_started:
            return Swept(left=1)
        try:
            try:
                await self._inspector.remove(job.queue, job.id)
            except CurrentIteration:
                await self._jobs.unschedule(job.queue, str(job.schedule_id))
                await self._inspector.remove(job.queue, job.id)
        except JobLocked:
            return Swept(left=1)
        except JobNotFound:
            return Swept()
        return Swept(removed=1)


async def _list_jobs(
    inspector: JobInspector, queue: str, state: JobState
) -> AsyncIterator[StoredJob]:
    """List from the end: jobs that leave at the front then repeat others, and hide none."""
    total = (await inspector.counts(queue))[state]
    for start in range((total - 1) // PAGE * PAGE, -1, -PAGE):
        for job in (await inspector.list(queue, state, start=start, limit=PAGE)).jobs:
            yield job


async def _clear_finished(inspector: JobInspector, queue: str, person: Person) -> Swept:
    """Empty a queue's finished jobs about a person, and drop events that have the address."""
    shared: set[str] = set()

    def is_theirs(job: StoredJob) -> bool:
        if person.shares(job):
            shared.add(job.id)
        return person.is_in(job)

    scrubbed = await inspector.scrub(queue, is_theirs)
    await inspector.scrub_events(queue, lambda said: person.is_meant_in(_parsed(said)))
    return Swept(scrubbed=scrubbed, shared=len(shared))


async def take_back(connection: AsyncConnection, person: Person) -> int:
    """Delete jobs for a person that are due later or refused from the outbox, in this transaction.

    Returns:
        How many other jobs in it are addressed to them: a relay will carry them to the store, where
        they are found.
    """
    # a backlog need not fit into memory
    rows = await connection.stream(
        select(outbox.c.id, outbox.c.data, outbox.c.delay_ms, outbox.c.refused)
    )
    theirs = [row async for row in rows if person.is_meant_in(_parsed(row.data))]
    gone = [row.id for row in theirs if row.refused or row.delay_ms]
    if gone:
        await connection.execute(delete(outbox).where(outbox.c.id.in_(gone)))
    return len(theirs) - len(gone)


def _parsed(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:  # somebody wrote what is no JSON: a relay sets it aside, and it stays there
        return text

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
from corral.inspector import CurrentIteration, JobInspector, JobLocked, JobNotFound, StoredJob
from corral.sql import outbox
from corral_account_deletions import account_deletions
from corral_account_deletions.person import Person

__all__ = ["Swept", "Traces", "take_back"]

log = logging.getLogger("corral_account_deletions")

PAGE: Final = 100
"""Jobs per call: what the inspector reads at once."""

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
    """

    scrubbed: int = 0
    removed: int = 0
    left: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            self.scrubbed + other.scrubbed, self.removed + other.removed, self.left + other.left
        )


class Traces:
    """The queues of a catalog, all of them.

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
                async for job in self._list_jobs(queue, state):
                    taken = await self._take_out(job, person)
                    swept += taken
                    if taken.removed:
                        log.info(
                            "a job for a deleted account is removed: %s of queue %s", job.id, queue
                        )
            if queue != account_deletions.name:  # of which we are one, and no other one says more
                async for job in self._list_jobs(queue, JobState.ACTIVE):
                    swept += Swept(left=person.is_in(job))
            swept += Swept(scrubbed=await self._inspector.scrub(queue, person.is_in))
            await self._inspector.scrub_events(queue, person.is_addressed_in)
        return swept

    async def _list_jobs(self, queue: str, state: JobState) -> AsyncIterator[StoredJob]:
        """List from the end: jobs that leave at the front then repeat others, and hide none."""
        total = (await self._inspector.counts(queue))[state]
        for start in range((total - 1) // PAGE * PAGE, -1, -PAGE):
            for job in (await self._inspector.list(queue, state, start=start, limit=PAGE)).jobs:
                yield job

    async def _take_out(self, job: StoredJob, person: Person) -> Swept:
        if not person.is_addressed_in(job.data):
            said = [job.failed_reason, job.stacktrace, job.progress]
            return Swept(
                left=person.is_addressed_in(said)
            )  # it failed at them, and does something for others, too
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
    theirs = [row async for row in rows if person.is_addressed_in(_parsed(row.data))]
    gone = [row.id for row in theirs if row.refused or row.delay_ms]
    if gone:
        await connection.execute(delete(outbox).where(outbox.c.id.in_(gone)))
    return len(theirs) - len(gone)


def _parsed(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:  # somebody wrote what is no JSON: a relay sets it aside, and it stays there
        return text

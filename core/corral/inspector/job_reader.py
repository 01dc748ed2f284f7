"""The reading half of `JobInspector`: jobs, counts, limits, failures, timelines, workers.

Every method makes a bounded number of store calls, and each call looks at a bounded number of jobs:
a queue with 100,000 jobs costs as much as one with 1,000. Each method says what it costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from corral.errors import ConfigurationError
from corral.inspector.damage import report_damage
from corral.inspector.limits import LIMIT_FIELDS, Limits, decode_limits
from corral.inspector.orphans import OrphanedQueues, OrphanSearch, declared_names
from corral.inspector.quarantine import MOST_START, QuarantinePage, read_quarantine
from corral.inspector.queue_access import QueueAccess
from corral.inspector.refusals import JobNotFound
from corral.inspector.search import MAX_PAGE, SearchResult, search
from corral.inspector.sizes import (
    QueueSizes,
    decode_damaged_keys,
    read_all_sizes,
    read_counts,
    read_sizes,
)
from corral.inspector.stored_job import CONTAINER, StoredJob, decode_listed, decode_shown
from corral.inspector.summary import (
    FailureGroup,
    QueueSummary,
    read_failures,
    read_summaries,
    read_summary,
)
from corral.inspector.timeline import TimelineEntry, read_timeline
from corral.inspector.workers import WorkerStatus, read_workers
from corral.job_state import JobState
from corral.queue import Queue
from corral.store.keys import LOGS, META
from corral.store.queue_search import QueueSearch
from corral.store.scripts import call_again

__all__ = ["JobPage", "JobReader"]

SCANS = 50
"""The most SCAN calls that look for undeclared queues: 50,000 keys, some 20 ms of the store."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of the jobs in one state.

    Attributes:
        jobs: The jobs: those that run next first, or those that finished last first.
        total: How many jobs are in that state.
        start: The index of the first job of the page.
        damaged: One text for each job that is left out because its key is damaged:
            `<key> is a <type>, not a <type>`.
        is_bound: Whether `total` is a lower bound: only `list_retrying` does not look at all jobs.
    """

    jobs: Sequence[StoredJob]
    total: int
    start: int
    damaged: Sequence[str] = ()
    is_bound: bool = False


class JobReader:
    """The reading methods of `JobInspector`, whose docstring says what holds for all of them."""

    _access: QueueAccess

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of all queues of the catalog."""
        return tuple(self._access.catalog.entries)

    async def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        await self._access.link.close()

    def report_damage(self, *queues: Queue[Any] | str) -> AbstractAsyncContextManager[None]:
        """Raise `DamagedKey` for wrong-type errors of other calls that are made in this context."""
        return self._access.report_damage(*queues)

    async def counts(
        self, queue: Queue[Any] | str, states: Collection[JobState] = tuple(JobState)
    ) -> dict[JobState, int]:
        """Count the jobs in each state, in one store call.

        Jobs that BullMQ 5 moves aside while the queue is paused count as waiting.

        Args:
            queue: The queue.
            states: The states to count.

        Raises:
            DamagedKey: The key of one of these states is damaged. `sizes` counts the others.
        """
        return await read_counts(self._access, queue, states)

    async def sizes(self, queue: Queue[Any] | str) -> QueueSizes:
        """Count the jobs in each state and in quarantine, and read the limits, in one store call.

        Damaged keys are named in the result, and everything else is counted.
        """
        return await read_sizes(self._access, queue)

    async def all_sizes(self) -> dict[str, QueueSizes]:
        """Read the `sizes` of every queue, by name, one store call each.

        A queue that the store's user may not read is reported like a damaged one.
        """
        return await read_all_sizes(self._access)

    async def list(
        self,
        queue: Queue[Any] | str,
        state: JobState,
        *,
        start: int = 0,
        limit: int = 20,
        newest_first: bool = False,
    ) -> JobPage:
        """Read a page of the jobs in one state, in one store call.

        Queues move on: a job that moves between two calls may be on both pages, or on none.

        Args:
            queue: The queue.
            state: The state.
            start: How many jobs to skip.
            limit: How many jobs to read, at most `MAX_PAGE`.
            newest_first: List the jobs that arrived last first, in every state; of delayed jobs,
                those that are due last.

        Raises:
            ConfigurationError: `start` or `limit` is out of bounds.
        """
        return await self._read_page(queue, state, start, limit, "1" if newest_first else "", "")

    async def list_retrying(
        self, queue: Queue[Any] | str, *, start: int = 0, limit: int = 20
    ) -> JobPage:
        """Read a page of the delayed jobs that have failed attempts, in one store call.

        They wait for another attempt. Those that are due first come first, and only the 2,000
        delayed jobs that are due first are looked at.

        Args:
            queue: The queue.
            start: How many of these jobs to skip.
            limit: How many jobs to read, at most `MAX_PAGE`.

        Raises:
            ConfigurationError: `start` or `limit` is out of bounds.
        """
        return await self._read_page(queue, JobState.DELAYED, start, limit, "", "1")

    async def _read_page(
        self, queue: Queue[Any] | str, state: JobState, start: int, limit: int, *how: str
    ) -> JobPage:
        if start < 0 or not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(f"a page has 1 to {MAX_PAGE} jobs and starts at 0 or later")
        name = self._access.name(queue)
        _, total, jobs, left, more = await self._access.run(
            "page", queue, CONTAINER[state], start, limit, *how
        )
        return JobPage(
            [decode_listed(name, state, row) for row in jobs],
            total,
            start,
            decode_damaged_keys(left),
            is_bound=more == 1,
        )

    async def get(self, queue: Queue[Any] | str, job_id: str) -> StoredJob:
        """Read everything that is stored of one job, in one store call.

        Raises:
            JobNotFound: The queue has no job with this id.
        """
        reply = await self._read_reply(queue, job_id)
        return decode_shown(self._access.name(queue), job_id, reply)

    async def _read_reply(self, queue: Queue[Any] | str, job_id: str) -> Sequence[Any]:
        """Run job.lua; `decode_shown` and `payload_text` read its reply."""
        reply = await self._access.run("job", queue, self._access.job_id(queue, job_id))
        if not reply:
            raise JobNotFound(self._access.name(queue), job_id)
        return cast("Sequence[Any]", reply)

    async def logs(
        self, queue: Queue[Any] | str, job_id: str, *, start: int = 0, limit: int = 1000
    ) -> Sequence[str]:
        """Read a job's log lines, the oldest first, in two store calls.

        Args:
            queue: The queue.
            job_id: The job.
            start: How many lines to skip; if negative, start this many lines before the end.
            limit: How many lines to read.

        Raises:
            JobNotFound: The queue has no job with this id.
        """
        name = self._access.name(queue)
        key = self._access.base(queue) + self._access.job_id(queue, job_id)
        if not await call_again(lambda: self._access.link.call("EXISTS", key)):
            raise JobNotFound(name, job_id)
        last = start + limit - 1 if start >= 0 else min(start + limit - 1, -1)
        async with report_damage(self._access.link, self._access.prefix, name, job_id=job_id):
            lines = await self._access.link.call("LRANGE", key + LOGS, start, last)
        return [line.decode(errors="replace") for line in lines]

    async def list_quarantined(
        self, queue: Queue[Any] | str, *, start: int = 0, limit: int = MAX_PAGE
    ) -> QuarantinePage:
        """Read a page of the quarantine, in one store call.

        Workers move ids there that cannot be processed as jobs.

        Args:
            queue: The queue.
            start: How many ids to skip, at most 10,000.
            limit: How many ids to read, at most `MAX_PAGE`.

        Raises:
            ConfigurationError: `start` or `limit` is out of bounds.
        """
        if not 0 <= start <= MOST_START or not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(
                f"a page has 1 to {MAX_PAGE} jobs and starts at 0 to {MOST_START:,}"
            )
        return await read_quarantine(self._access, queue, start, limit)

    async def limits(self, queue: Queue[Any] | str) -> Limits:
        """Read the queue's limits, in one store call."""
        return decode_limits(
            await self._access.call(queue, "HMGET", self._access.base(queue) + META, *LIMIT_FIELDS)
        )

    async def is_paused(self, queue: Queue[Any] | str) -> bool:
        """Whether the queue is paused, in one store call."""
        return (await self.limits(queue)).paused

    async def summary(self, queue: Queue[Any] | str) -> QueueSummary:
        """Read the summary of one queue, in one store call.

        It looks at some 160 jobs at most, and at the 2,000 delayed jobs that are due first.
        """
        return await read_summary(self._access, queue)

    async def summaries(self) -> Sequence[QueueSummary]:
        """Read the summaries of all queues, in the catalog's order, one store call each."""
        return await read_summaries(self._access)

    async def failures(self, queue: Queue[Any] | str) -> Sequence[FailureGroup]:
        """Group the queue's failed jobs by their reasons, the most frequent first.

        One store call, which looks at the reasons of the 500 jobs that failed last.
        """
        return await read_failures(self._access, queue)

    async def timeline(self, queue: Queue[Any] | str, job: StoredJob) -> Sequence[TimelineEntry]:
        """List what happened to a job, in order.

        The sources are the job's own fields, and the queue's events as far as they reach back. One
        store call looks at 1,000 events after the job was added. If there are more, another one
        looks at 1,000 events before the job's end, or before now.

        Args:
            queue: The queue.
            job: The job, as `get` returned it.
        """
        return await read_timeline(self._access, queue, job)

    async def search(
        self,
        queue: Queue[Any] | str,
        text: str = "",
        *,
        field: tuple[str, str] | None = None,
        states: Collection[JobState] = tuple(JobState),
        match: Callable[[StoredJob], bool] | None = None,
        after: str | None = None,
        limit: int = 50,
        share: float = 1.0,
    ) -> SearchResult:
        """Find jobs: failed ones first, then active, waiting and completed ones.

        Within a state, the newest come first. A search makes three store calls, and as many short
        scripts as it takes to look at 3,400 jobs with payloads of 300 bytes, or at 2,300 jobs with
        payloads of 1 kB. If those are not all jobs, the result says so, and where to continue.

        Args:
            queue: The queue.
            text: A job's id, or a part of the payload (as JSON spells it or as it is) or of the
                failed reason. The search is literal and case-sensitive. Empty: every job.
            field: The JSON name of a member of the payload, with dots for nested members, and its
                value: a text, or a number, `true`, `false` or `null` as JSON spells it.
            states: The states to search.
            match: Called for each candidate after all other conditions; decides whether it matches.
            after: The `next` of an earlier result of the same search, to continue there.
            limit: How many jobs to find, at most `MAX_PAGE`.
            share: The part of the above cost that this search may use, from 0 to 1: less than 1
                where one page searches several queues.

        Raises:
            ConfigurationError: `text` or `field` is too long, `limit` is out of bounds, or `after`
                is not the `next` of a result.
        """
        return await search(self._access, queue, text, field, states, match, after, limit, share)

    async def workers(self) -> Sequence[WorkerStatus]:
        """List the workers, and the jobs that each of them runs.

        Five store calls, and one for each queue, which looks at the 100 active jobs that started
        first.
        """
        return await read_workers(self._access)

    async def find_undeclared(self, most: int = 100, *, scans: int | None = SCANS) -> Sequence[str]:
        """Find queues of this prefix that the catalog does not declare.

        They belong to another application, or nobody uses them any more. Each store call looks at
        about 1,000 keys: in a store with more keys than `scans` allows some queues may be missed.

        Args:
            most: The most names to return.
            scans: The most store calls; None to look at all keys.

        Returns:
            The queues' names, sorted.
        """
        access = self._access
        search = QueueSearch(access.prefix, tuple(access.catalog.entries), most=most)
        for _ in itertools.count() if scans is None else range(scans):
            scan = search.next_command(0.0)
            if scan is None:
                break
            search.take(scan, await call_again(partial(access.link.call, *scan)), 0.0)
        return search.names[:most]

    async def find_orphaned(self) -> OrphanedQueues:
        """Find the queues of this prefix that nobody declares, and count their jobs.

        Unlike `find_undeclared`, it looks at the whole store, leaves out disabled plugins' queues
        and those that another running process of ours declares. It makes a store call for every
        1,000 keys of the store, and one for each queue that it finds.
        """
        access = self._access
        search = OrphanSearch(access.prefix, declared_names(access.catalog))
        return await search.read(access.link, whole=True)

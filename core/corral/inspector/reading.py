"""The reading half of the operator's port: what a queue holds, and what is known of it.

Whatever a page shows is read in a bounded number of calls, each of which looks at a bounded number
of jobs: a queue with 100,000 of them costs what one with 1,000 does. Each method says what it
costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from corral.errors import ConfigurationError
from corral.inspector.calls import Calls
from corral.inspector.damage import naming_damage
from corral.inspector.limits import LIMIT_FIELDS, Limits, decode_limits
from corral.inspector.quarantine import MOST_START, QuarantinePage, quarantined
from corral.inspector.refusals import JobNotFound
from corral.inspector.search import MAX_PAGE, Found, search
from corral.inspector.sizes import Sizes, all_sizes, counts, damaged_in, sizes
from corral.inspector.stored import CONTAINER, STATES, State, StoredJob, decode_listed, decode_shown
from corral.inspector.summary import FailureGroup, Summary, failures, summaries, summary
from corral.inspector.timeline import Occurrence, timeline
from corral.inspector.workers import WorkerSeen, workers
from corral.queue import Queue
from corral.store.scripts import call_again

__all__ = ["JobReader", "Page"]

GLOB = re.compile(r"[*?\[\]\\^]")
SCANS = 50
"""Calls that look for queues that nobody declares: 50,000 keys, some 20 ms of the store."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs of one state.

    Attributes:
        jobs: In the order that matters: what runs next first, what finished last first.
        total: How many jobs are in that state.
        start: The place of the first one.
        damaged: What is wrong with the keys of those that are left out, each as `<key> is a <type>,
        not a <type>`.
    """

    jobs: Sequence[StoredJob]
    total: int
    start: int
    damaged: Sequence[str] = ()


class JobReader:
    """What `JobInspector` reads; it says what holds for every method."""

    _calls: Calls

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of all queues."""
        return tuple(self._calls.catalog.entries)

    async def close(self) -> None:
        """Close the connection; a later call opens another."""
        await self._calls.link.close()

    def naming_damage(self, *queues: Queue[Any] | str) -> AbstractAsyncContextManager[None]:
        """Let what is done to queues by other means raise `DamagedKey`, too, where a key is of the
        wrong type.
        """
        return self._calls.naming(*queues)

    async def counts(
        self, queue: Queue[Any] | str, states: Collection[State] = STATES
    ) -> dict[State, int]:
        """How many jobs are in each state, in one store call; what BullMQ 5 puts aside while it is
        paused waits.

        Args:
            queue: The queue.
            states: Which states.

        Raises:
            DamagedKey: Of one of the states nobody can tell; see `sizes`.
        """
        return await counts(self._calls, queue, states)

    async def sizes(self, queue: Queue[Any] | str) -> Sizes:
        """As `counts`, in one store call, with how many are in quarantine and what holds the queue
        back.

        Where keys are damaged, it says which, and tells of the rest.
        """
        return await sizes(self._calls, queue)

    async def all_sizes(self) -> dict[str, Sizes]:
        """As `sizes`, of every queue, by name.

        One that the store's user may not read is told of as a damaged one.
        """
        return await all_sizes(self._calls)

    async def list(
        self,
        queue: Queue[Any] | str,
        state: State,
        *,
        start: int = 0,
        limit: int = 20,
        newest_first: bool = False,
    ) -> Page:
        """One page of a state's jobs.

        A page is a place in a queue that moves on: a job that moves between two calls may be on
        both pages or none.

        Args:
            queue: The queue.
            state: The state.
            start: How many jobs to leave out.
            limit: How many to read, at most `MAX_PAGE`.
            newest_first: What came last first, in every state; of delayed jobs, what is due last.

        Raises:
            ConfigurationError: `start` or `limit` is out of bounds.
        """
        if start < 0 or not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(f"a page has 1 to {MAX_PAGE} jobs and starts at 0 or later")
        name = self._calls.name(queue)
        _, total, jobs, left = await self._calls.run(
            "page", queue, CONTAINER[state], start, limit, "1" if newest_first else ""
        )
        return Page(
            [decode_listed(name, state, row) for row in jobs], total, start, damaged_in(left)
        )

    async def get(self, queue: Queue[Any] | str, job_id: str) -> StoredJob:
        """All of one job.

        Raises:
            JobNotFound: There is none of that id.
        """
        name = self._calls.name(queue)
        reply = await self._calls.run("show", queue, self._calls.job_id(queue, job_id))
        if not reply:
            raise JobNotFound(name, job_id)
        return decode_shown(name, job_id, reply)

    async def logs(
        self, queue: Queue[Any] | str, job_id: str, *, start: int = 0, limit: int = 1000
    ) -> Sequence[str]:
        """A job's log lines, the oldest first.

        Args:
            queue: The queue.
            job_id: The job.
            start: How many lines to leave out; negative: so many from the end.
            limit: How many to read.

        Raises:
            JobNotFound: There is no such job.
        """
        name = self._calls.name(queue)
        key = self._calls.base(queue) + self._calls.job_id(queue, job_id)
        if not await call_again(lambda: self._calls.link.call("EXISTS", key)):
            raise JobNotFound(name, job_id)
        last = start + limit - 1 if start >= 0 else min(start + limit - 1, -1)
        async with naming_damage(self._calls.link, self._calls.prefix, name, job_id=job_id):
            lines = await self._calls.link.call("LRANGE", f"{key}:logs", start, last)
        return [line.decode(errors="replace") for line in lines]

    async def quarantined(
        self, queue: Queue[Any] | str, *, start: int = 0, limit: int = MAX_PAGE
    ) -> QuarantinePage:
        """What workers have put aside because it cannot be a job as it stands: one page, in one
        store call.

        Args:
            queue: The queue.
            start: How many to leave out, at most 10,000.
            limit: How many to read, at most `MAX_PAGE`.

        Raises:
            ConfigurationError: `start` or `limit` is out of bounds.
        """
        if not 0 <= start <= MOST_START or not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(
                f"a page has 1 to {MAX_PAGE} jobs and starts at 0 to {MOST_START:,}"
            )
        return await quarantined(self._calls, queue, start, limit)

    async def limits(self, queue: Queue[Any] | str) -> Limits:
        """What holds the queue back."""
        return decode_limits(
            await self._calls.call(queue, "HMGET", self._calls.base(queue) + "meta", *LIMIT_FIELDS)
        )

    async def is_paused(self, queue: Queue[Any] | str) -> bool:
        """Whether no job of the queue starts."""
        return (await self.limits(queue)).paused

    async def summary(self, queue: Queue[Any] | str) -> Summary:
        """One queue at a glance: one store call, which looks at some 80 jobs at most."""
        return await summary(self._calls, queue)

    async def summaries(self) -> Sequence[Summary]:
        """All queues at a glance, in the catalog's order: one store call for each."""
        return await summaries(self._calls)

    async def failures(self, queue: Queue[Any] | str) -> Sequence[FailureGroup]:
        """Why the queue's jobs failed lately, what failed most often first.

        One store call, which looks at the reasons of the 500 jobs that failed last.
        """
        return await failures(self._calls, queue)

    async def timeline(self, queue: Queue[Any] | str, job: StoredJob) -> Sequence[Occurrence]:
        """What happened to a job, in order: from its own fields, and from the queue's log as far as
        that reaches.

        One store call, which looks at 1,000 events after the job was added; and where there are
        more, another, which looks at 1,000 before its end, or now.

        Args:
            queue: The queue.
            job: As `get` gave it.
        """
        return await timeline(self._calls, queue, job)

    async def search(
        self,
        queue: Queue[Any] | str,
        text: str = "",
        *,
        field: tuple[str, str] | None = None,
        states: Collection[State] = STATES,
        match: Callable[[StoredJob], bool] | None = None,
        after: str | None = None,
        limit: int = 50,
        share: float = 1.0,
    ) -> Found:
        """Find jobs, in each state the newest first: what has failed, then what is at work, waits,
        or is completed.

        Three store calls, and at most as many short scripts as it takes to look at 3,400 jobs with
        payloads of 300 bytes, or at 2,300 of 1 kB; where that was not all, the answer says so, and
        where to go on.

        Args:
            queue: The queue.
            text: An id, or a part of the payload, as JSON spells it or as it is, or of the failed
                reason. It is looked for literally, and upper and lower case differ. Empty: every
                job.
            field: A member of the payload by its JSON name, dotted where it is inside of others,
                and its value: a text, or a number, `true`, `false` or `null` as JSON spells it.
            states: Where to look.
            match: Is asked last whether a job is meant.
            after: The `next` of an earlier answer to the same question.
            limit: How many jobs to find, at most `MAX_PAGE`.
            share: How much of that it may cost: less than 1 where several queues are searched for
            one page.

        Raises:
            ConfigurationError: `text` or `field` is too long, `limit` is out of bounds, or `after`
            is no such place.
        """
        return await search(self._calls, queue, text, field, states, match, after, limit, share)

    async def workers(self) -> Sequence[WorkerSeen]:
        """Who works, and at what.

        Five store calls and one for each queue, which looks at the 100 active jobs that started
        first.
        """
        return await workers(self._calls)

    async def undeclared(self, most: int = 100) -> Sequence[str]:
        """Queues of this prefix that the catalog does not declare, by name: another application's,
        or orphans.

        At most `SCANS` store calls, which look at about 1,000 keys each: in a larger store some may
        be missed.

        Args:
            most: How many names.
        """
        found: set[str] = set()
        literal = GLOB.sub(r"\\\g<0>", self._calls.prefix)
        cursor, pattern = b"0", f"{literal}:*:meta"
        for _ in range(SCANS):
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            cursor, keys = await call_again(partial(self._calls.link.call, *scan))
            names = (
                key.decode(errors="replace")[len(self._calls.prefix) + 1 : -len(":meta")]
                for key in keys
            )
            found.update(name for name in names if name not in self._calls.catalog.entries)
            if int(cursor) == 0 or len(found) >= most:
                break
        return sorted(found)[:most]

"""`JobInspector`: one object for all queues of a catalog.

It refuses a name that the catalog does not declare.

What it reads is in `reading.py`; here is what it changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic_core import to_json

from corral.catalog import Catalog
from corral.errors import ConfigurationError
from corral.inspector.audit import Audit
from corral.inspector.bulk import Told, promote_all, retry_failed, scrub, scrub_events, sweep
from corral.inspector.calls import Calls, Change
from corral.inspector.quarantine import ReturnedJob, discard, discard_all, return_all, return_jobs
from corral.inspector.reading import JobReader
from corral.inspector.refusals import (
    CurrentIteration,
    DamagedKey,
    JobLocked,
    JobNotFound,
    WrongState,
)
from corral.inspector.sizes import damaged_in
from corral.inspector.stored import State, StoredJob
from corral.options import milliseconds
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.connection import Link

__all__ = ["CLEANABLE", "JobInspector", "drained_states"]

BACK_FROM_PAUSE = 5000
"""Ids that one call brings back from the list in which BullMQ 5 puts them aside."""
REFUSED = "payload refused:"
"""How the failed reason of a job begins whose payload a worker could not read."""
CLEANABLE: Final[tuple[State, ...]] = (
    "waiting",
    "active",
    "prioritized",
    "delayed",
    "completed",
    "failed",
)
"""The states that `clean` knows: BullMQ cleans no parents that wait for their children."""


def drained_states(*, delayed: bool) -> tuple[State, ...]:
    """The states that `JobInspector.drain` empties."""
    return ("waiting", "prioritized", "delayed") if delayed else ("waiting", "prioritized")


class JobInspector(JobReader):
    """Looks at the jobs of a catalog's queues, and changes them.

    A queue is given as its object or by its name; one that the catalog does not declare is refused
    with `UnknownQueue`. Every method raises `StoreUnavailable` where the store is away; all may
    then be called again. It raises `DamagedKey` where a key that it needs is of another type than
    it must be, and has then changed nothing. What is done to many jobs leaves those that are
    damaged, and says so in the log.

    Args:
        catalog: The queues.
        link: The connection; `close` closes it.
        prefix: The first part of the keys.
        clock: Moves the store's time, in tests.
        who: In whose name things are changed, for the audit; None: this process's,
        `process:<login>@<host>`.
    """

    def __init__(
        self,
        catalog: Catalog,
        link: Link,
        *,
        prefix: str,
        clock: Clock | None = None,
        who: str | None = None,
    ) -> None:
        self._calls = Calls(catalog, link, prefix, clock, who)

    @property
    def audit(self) -> Audit:
        """What was changed, and by whom. Whatever an inspector changes is in there by itself."""
        return self._calls.audit

    def acting_as(self, who: str) -> JobInspector:
        """An inspector on the same connection, whose changes are told in that name."""
        calls = self._calls
        acting = JobInspector(
            calls.catalog, calls.link, prefix=calls.prefix, clock=calls.clock, who=who
        )
        acting._calls.refused = calls.refused
        return acting

    async def remove(self, queue: Queue[Any] | str, job_id: str) -> None:
        """Remove a job with all of its keys, and the jobs that were added below it (wire § 6.17).

        A parent that waited for it only goes on; a deduplication id that it owns is free.

        Raises:
            JobNotFound: There is no such job.
            JobLocked: A worker runs it, or one below it.
            CurrentIteration: A schedule waits for it.
        """
        (code,) = await self._calls.change(
            "remove", "remove", queue, self._calls.job_id(queue, job_id)
        )
        if code == 0:
            raise JobLocked(self._calls.name(queue), job_id)
        self._check(code, queue, job_id, "")

    async def retry(self, queue: Queue[Any] | str, job_id: str, *, reset: bool = False) -> None:
        """Make a failed or completed job wait again (wire § 6.16).

        Its priority and `lifo` are honoured. Its attempts count on, as in BullMQ: one that has
        spent them all is tried once more.

        Args:
            queue: The queue.
            job_id: The job.
            reset: Whether attempts and starts count from zero.

        Raises:
            JobNotFound: There is no such job.
            WrongState: It has not finished.
        """
        known = self._calls.job_id(queue, job_id)
        (code,) = await self._calls.change("retry", "retry", queue, "1" if reset else "", known)
        self._check(code, queue, job_id, "failed or completed")

    async def promote(self, queue: Queue[Any] | str, job_id: str) -> None:
        """Let a delayed job wait from now on, by its priority (wire § 6.15).

        Raises:
            JobNotFound: There is no such job.
            WrongState: It is not delayed.
        """
        (code,) = await self._calls.change(
            "promote", "run_now", queue, 0, 0, self._calls.job_id(queue, job_id)
        )
        self._check(code, queue, job_id, "delayed")

    async def edit(self, queue: Queue[Any] | str, job_id: str, payload: Mapping[str, Any]) -> None:
        """Give a job another payload: one that waits, in whatever order, is delayed or has failed.

        The audit is told the names of the fields that differ, and no value.

        Args:
            queue: The queue.
            job_id: The job.
            payload: With the fields' names as JSON spells them. What the queue's model does not
                know, because another release wrote it, is kept.

        Raises:
            JobNotFound: There is no such job.
            PayloadRefused: It has not the queue's shape.
            JobLocked: A worker runs it, and has read its payload.
            WrongState: It is completed.
        """
        declared = self._calls.catalog.get(queue).queue
        stored = (await self.get(queue, job_id)).data
        before: dict[str, Any] = stored if isinstance(stored, dict) else {}
        known = {field.alias or name for name, field in declared.payload.model_fields.items()}
        unknown = {name: value for name, value in before.items() if name not in known}
        validated = declared.validated(payload)
        dumped = declared.dumped(validated)
        declared.ensure_survives(validated, dumped)
        after = json.loads(dumped) | unknown
        changed = sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        arguments = (job_id, to_json(after) if unknown else dumped, to_json(changed))
        code = await self._calls.change("edit", "edit", queue, *arguments)
        if code == 0:
            raise JobLocked(self._calls.name(queue), job_id)
        self._check(code, queue, job_id, "waiting, prioritized, delayed or failed")

    async def retry_all_failed(
        self, queue: Queue[Any] | str, *, reset: bool = False, told: Told | None = None
    ) -> int:
        """Make all jobs wait again that have failed until now, the oldest first.

        As BullMQ's bulk retry, but each job's priority and `lifo` are honoured as in `retry` (trap
        T16).

        Args:
            queue: The queue.
            reset: As in `retry`.
            told: Hears of each batch.

        Returns:
            How many wait again.
        """
        return await retry_failed(self._change("retry_all_failed", queue), "", reset, told)

    async def retry_refused(
        self, queue: Queue[Any] | str, *, reset: bool = False, told: Told | None = None
    ) -> int:
        """As `retry_all_failed`, for the jobs whose payload a worker could not read: after a deploy
        that can.
        """
        return await retry_failed(self._change("retry_refused", queue), REFUSED, reset, told)

    async def promote_all(self, queue: Queue[Any] | str, *, told: Told | None = None) -> int:
        """Let all delayed jobs wait from now on, those due first first.

        BullMQ's bulk promotion ignores priority and leaves the job's `delay` (trap T16); here each
        is as in `promote`.

        Returns:
            How many wait now.
        """
        return await promote_all(self._change("promote_all", queue), told)

    async def pause(self, queue: Queue[Any] | str) -> bool:
        """Let no job of the queue start, by any worker; what runs goes on (wire § 6.14).

        What waits is put aside as BullMQ 5 does it, unless BullMQ 6 has the queue alone; it counts
        as waiting.

        Returns:
            Whether it was not paused before.
        """
        return bool(await self._calls.change("pause", "pause", queue))

    async def resume(self, queue: Queue[Any] | str) -> bool:
        """Let the queue's jobs start again; jobs that BullMQ 5 has put aside come back to the
        front.

        Returns:
            Whether it was paused.
        """
        async with self._change("resume", queue) as change:
            resumed, left = await change.run("resume", BACK_FROM_PAUSE)
            while left:
                _, left = await change.run("resume", BACK_FROM_PAUSE)
        return bool(resumed)

    async def set_concurrency(self, queue: Queue[Any] | str, limit: int | None) -> None:
        """Say how many of the queue's jobs run at once, over all workers; None: as many as the
        workers take.
        """
        if limit is not None and limit < 1:
            raise ConfigurationError(
                f"{limit} jobs at once would be none", hint="pause the queue instead"
            )
        await self._calls.change(
            "set_concurrency", "limit", queue, "concurrency", "" if limit is None else limit
        )

    async def set_rate_limit(
        self, queue: Queue[Any] | str, limit: int | None, per: timedelta | None = None
    ) -> None:
        """Say how many of the queue's jobs start in a while, over all workers; None: any number
        (wire § 6.19).

        Args:
            queue: The queue.
            limit: How many.
            per: The length of the window, at least a millisecond.

        Raises:
            ConfigurationError: A limit without a window, or one of nothing.
        """
        window = 0 if per is None else milliseconds(per)
        if limit is not None and (limit < 1 or window < 1):
            raise ConfigurationError("a rate limit lets at least 1 job start in at least 1 ms")
        pairs: tuple[int | str, ...] = ("max", limit or "", "duration", window if limit else "")
        await self._calls.change("set_rate_limit", "limit", queue, *pairs)

    async def drain(
        self, queue: Queue[Any] | str, *, delayed: bool = False, told: Told | None = None
    ) -> int:
        """Remove all jobs that wait, and with `delayed` those that are delayed (wire § 6.17).

        The next runs of schedules stay, wherever they wait: BullMQ's own may lose one there (trap
        T13). A parent in the same queue that waited for a drained job only is drained with it, one
        in another queue goes on.

        Returns:
            How many jobs are gone, without such parents.
        """
        containers = ["wait", "paused", "prioritized", *(["delayed"] if delayed else [])]
        return await sweep(
            self._change("drain", queue), containers, age_ms=None, limit=None, told=told
        )

    async def clean(
        self,
        queue: Queue[Any] | str,
        state: State,
        older_than: timedelta,
        *,
        limit: int | None = None,
        told: Told | None = None,
    ) -> int:
        """Remove jobs of a state that are old enough (wire § 6.17).

        The age of a finished job counts from its end, that of another from its last start, else
        from its making. Active jobs go only where no worker holds them; the next runs of schedules
        stay.

        Args:
            queue: The queue.
            state: One of `CLEANABLE`.
            older_than: How old.
            limit: How many to remove at most, or None.
            told: Hears of each batch.

        Returns:
            How many jobs are gone.
        """
        if state not in CLEANABLE:
            raise ConfigurationError(
                f"jobs that are {state} are not cleaned", hint=f"these are: {', '.join(CLEANABLE)}"
            )
        containers = ["wait", "paused"] if state == "waiting" else [state]
        age_ms = milliseconds(older_than)
        return await sweep(
            self._change("clean", queue), containers, age_ms=age_ms, limit=limit, told=told
        )

    async def scrub(
        self,
        queue: Queue[Any] | str,
        match: str | Callable[[StoredJob], bool],
        *,
        told: Told | None = None,
    ) -> int:
        """Take the contents out of finished jobs: payload, result, progress, failed reason, stack
        traces, log lines.

        The jobs stay, with their times and counts. Events that hold the text, or that tell what
        these jobs said, go, too. What has not finished is left alone, because it needs its payload;
        so are ids and deduplication ids.

        Args:
            queue: The queue.
            match: A text that such a job contains (a user's id, say), as it is or as JSON spells
                it; or a function that says whether a job is one: it is given all of it, `logs` and
                `child_results` included.
            told: Hears of each batch.

        Returns:
            How many jobs were scrubbed.

        Raises:
            ConfigurationError: The text is empty, which every job contains.
            DamagedKey: Some finished jobs are damaged, so that nobody can look through them; its
                `done` says how many of the others were scrubbed.
        """
        return await scrub(self._change("scrub", queue), match, told)

    async def scrub_events(self, queue: Queue[Any] | str, match: Callable[[str], bool]) -> int:
        """Drop events that tell what a processor said, of jobs that are gone, too: `scrub` cannot
        ask about those.

        Args:
            queue: The queue.
            match: Says whether a text (a result as JSON, a failed reason, a progress) makes its
            event one.

        Returns:
            How many events are gone.
        """
        return await scrub_events(self._change("scrub_events", queue), match)

    async def return_quarantined(
        self, queue: Queue[Any] | str, ids: Sequence[str]
    ) -> Sequence[ReturnedJob]:
        """Let jobs come back from the quarantine: each waits, behind all others of its priority.

        What is kept of a job becomes its own key again. A job whose id is a key of the queue
        (`completed`) comes back as `returned-completed`. Refused is one of which no hash is kept,
        and one whose name is taken by now. One of which nothing was kept comes back where somebody
        has repaired its own key in place.

        Args:
            queue: The queue.
            ids: As `quarantined` spells them.

        Returns:
            What became of each, in the same order.
        """
        async with self._change("return_quarantined", queue) as change:
            return await return_jobs(change, ids)

    async def return_all_quarantined(self, queue: Queue[Any] | str) -> Sequence[ReturnedJob]:
        """As `return_quarantined`, for all that are in quarantine now."""
        return await return_all(self._change("return_quarantined", queue))

    async def discard_quarantined(
        self, queue: Queue[Any] | str, ids: Sequence[str]
    ) -> Sequence[str]:
        """Remove jobs from the quarantine, with what is kept of them.

        Args:
            queue: The queue.
            ids: As `quarantined` spells them.

        Returns:
            Those that were there, as they were given.
        """
        async with self._change("discard_quarantined", queue) as change:
            return await discard(change, ids)

    async def discard_all_quarantined(self, queue: Queue[Any] | str) -> int:
        """As `discard_quarantined`, for all that are in quarantine now; returns how many."""
        return await discard_all(self._change("discard_quarantined", queue))

    def _change(self, what: str, queue: Queue[Any] | str) -> Change:
        return Change(self._calls, what, queue)

    def _check(self, code: int | bytes, queue: Queue[Any] | str, job_id: str, wanted: str) -> None:
        name = self._calls.name(queue)
        if isinstance(code, bytes):
            raise DamagedKey(*damaged_in([code]))
        if code == -1:
            raise JobNotFound(name, job_id)
        if code == -3:
            raise WrongState(name, job_id, wanted)
        if code == -8:
            raise CurrentIteration(name, job_id)

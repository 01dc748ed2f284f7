"""`JobInspector`: the operator's access to all queues of a catalog.

Its changing methods are in this module, its reading methods in `job_reader.py`. It refuses the name
of a queue that the catalog does not declare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic_core import to_json

from corral.catalog import Catalog
from corral.errors import ConfigurationError
from corral.inspector.audit import Audit
from corral.inspector.bulk import (
    ProgressCallback,
    promote_all,
    retry_failed,
    scrub_events,
    scrub_jobs,
    sweep,
)
from corral.inspector.job_reader import JobReader
from corral.inspector.payload_edit import edit_payload, is_same_json
from corral.inspector.quarantine import ReturnedJob, discard, discard_all, return_all, return_jobs
from corral.inspector.queue_access import AuditedOperation, QueueAccess
from corral.inspector.refusals import (
    CurrentIteration,
    DamagedKey,
    JobLocked,
    JobNotFound,
    PayloadChanged,
    WrongState,
)
from corral.inspector.sizes import decode_damaged_keys
from corral.inspector.stored_job import StoredJob, decode_shown, payload_text
from corral.job_state import JobState
from corral.options import milliseconds
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.connection import Link

__all__ = ["CLEANABLE", "JobInspector", "drained_states"]

BACK_FROM_PAUSE = 5000
"""Ids per call that are moved back from `paused`, where BullMQ 5 keeps them during a pause."""
REFUSED = "payload refused:"
"""The beginning of the failed reason of a job whose payload a worker could not read."""
CLEANABLE: Final[tuple[JobState, ...]] = (
    JobState.WAITING,
    JobState.ACTIVE,
    JobState.PRIORITIZED,
    JobState.DELAYED,
    JobState.COMPLETED,
    JobState.FAILED,
)
"""The states that `clean` accepts: BullMQ does not clean parents that wait for their children."""


def drained_states(*, delayed: bool) -> tuple[JobState, ...]:
    """The states that `JobInspector.drain` empties."""
    states = (JobState.WAITING, JobState.PRIORITIZED)
    return (*states, JobState.DELAYED) if delayed else states


class JobInspector(JobReader):
    """Reads and changes the jobs of a catalog's queues.

    A queue is given as an object or by its name; a queue that the catalog does not declare is
    refused with `UnknownQueue`; see `including_undeclared`. Every method raises `StoreUnavailable`
    if the store is away, and may then be called again. It raises `DamagedKey` if a key that it
    needs has the wrong type, and has then changed nothing. Operations on many jobs skip damaged
    jobs, and log them.

    Args:
        catalog: The queues.
        link: The connection; `close` closes it.
        prefix: The first part of the keys.
        clock: Shifts the store's time, in tests.
        who: The name under which changes are recorded in the audit; None: that of this process,
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
        self._access = QueueAccess(catalog, link, prefix, clock, who)

    @property
    def audit(self) -> Audit:
        """The audit of all changes. The inspector records its own changes there."""
        return self._access.audit

    def acting_as(self, who: str) -> JobInspector:
        """An inspector on the same connection, whose changes are recorded under that name."""
        return self._copy(who, self._access.undeclared)

    def _copy(self, who: str, undeclared: frozenset[str]) -> JobInspector:
        access = self._access
        made = JobInspector(
            access.catalog, access.link, prefix=access.prefix, clock=access.clock, who=who
        )
        made._access.refused, made._access.undeclared = access.refused, undeclared
        return made

    async def including_undeclared(self, *queues: str) -> JobInspector:
        """An inspector on the same connection that also takes queues which nobody declares.

        Its methods take their names, too, except `edit`, which needs the model of the payload.

        Args:
            queues: Names of queues in the store, such as `find_orphaned` returns.

        Raises:
            UnknownQueue: Neither the catalog nor the store has such a queue.
            StoreUnavailable: The store is away.
        """
        access = self._access
        for queue in queues:
            await access.ensure_in_store(queue)
        undeclared = frozenset(queues).difference(access.catalog.entries)
        return self._copy(access.who, access.undeclared | undeclared)

    async def remove(self, queue: Queue[Any] | str, job_id: str) -> None:
        """Remove a job with all of its keys, and its children (wire § 6.17).

        If it was the last job that its parent waited for, the parent runs next. Its deduplication
        id becomes free.

        Raises:
            JobNotFound: The queue has no job with this id.
            JobLocked: A worker is running the job or one of its children.
            CurrentIteration: It is the next iteration of a schedule.
        """
        (code,) = await self._access.change(
            "remove", "remove", queue, self._access.job_id(queue, job_id)
        )
        if code == 0:
            raise JobLocked(self._access.name(queue), job_id)
        self._raise_refusal(code, queue, job_id, "")

    async def retry(self, queue: Queue[Any] | str, job_id: str, *, reset: bool = False) -> None:
        """Move a failed or completed job back to waiting (wire § 6.16).

        Its priority and `lifo` are respected. As in BullMQ, the attempts are not reset: a job that
        has used all of them is tried once more.

        Args:
            queue: The queue.
            job_id: The job.
            reset: Count attempts and starts from zero.

        Raises:
            JobNotFound: The queue has no job with this id.
            WrongState: The job has neither failed nor completed.
        """
        known = self._access.job_id(queue, job_id)
        (code,) = await self._access.change("retry", "retry", queue, "1" if reset else "", known)
        self._raise_refusal(code, queue, job_id, "failed or completed")

    async def promote(self, queue: Queue[Any] | str, job_id: str) -> None:
        """Move a delayed job to waiting, where its priority places it (wire § 6.15).

        Raises:
            JobNotFound: The queue has no job with this id.
            WrongState: The job is not delayed.
        """
        (code,) = await self._access.change(
            "promote", "run_now", queue, 0, 0, self._access.job_id(queue, job_id)
        )
        self._raise_refusal(code, queue, job_id, "delayed")

    async def edit(
        self,
        queue: Queue[Any] | str,
        job_id: str,
        payload: Mapping[str, Any],
        *,
        before: Any = None,
    ) -> bool:
        """Replace the payload of a waiting, prioritized, delayed or failed job.

        Only what differs from the stored payload is written: all other bytes of it stay as they
        are, so that an edit of one field never changes another. The audit records the names of the
        changed fields, and no values.

        Args:
            queue: The queue.
            job_id: The job.
            payload: The new payload: all of its fields as JSON values, with their JSON names.
                Stored fields that the queue's model does not have, because another release wrote
                them, are kept.
            before: The payload that the new one was made from, as `StoredJob.data`. The edit is
                refused if another payload is stored by now. None: whatever is stored is replaced.

        Returns:
            Whether anything was changed. If the payload is the stored one, nothing is written, and
            it may be one that the queue's model refuses.

        Raises:
            JobNotFound: The queue has no job with this id.
            PayloadRefused: A worker could not read the new payload, or it has fields that the
                queue's model does not have.
            PayloadChanged: The stored payload is not `before`, or was changed by somebody else
                during this call.
            JobLocked: A worker is running the job, and has already read its payload.
            WrongState: The job is completed.
        """
        declared = self._access.catalog.get(queue).queue
        reply = await self._read_reply(queue, job_id)
        stored = decode_shown(declared.name, job_id, reply)
        if before is not None and not is_same_json(before, stored.data):
            raise PayloadChanged(declared.name, job_id)
        raw = payload_text(reply)
        text, changed = edit_payload(declared, raw, payload)
        if text == raw:
            return False
        seen = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        code = await self._access.change(
            "edit", "edit", queue, job_id, text, to_json(changed), seen
        )
        if code == 0:
            raise JobLocked(declared.name, job_id)
        if code == -11:
            raise PayloadChanged(declared.name, job_id)
        self._raise_refusal(code, queue, job_id, "waiting, prioritized, delayed or failed")
        return True

    async def retry_all_failed(
        self,
        queue: Queue[Any] | str,
        *,
        reset: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> int:
        """Move all jobs that have failed until now back to waiting, the oldest first.

        Unlike BullMQ's bulk retry, each job's priority and `lifo` are respected, as in `retry`
        (trap T16).

        Args:
            queue: The queue.
            reset: As in `retry`.
            on_progress: Called after each batch: see `corral.inspector.bulk.ProgressCallback`.

        Returns:
            How many jobs are waiting again.
        """
        return await retry_failed(
            self._operation("retry_all_failed", queue), "", reset, on_progress
        )

    async def retry_refused(
        self,
        queue: Queue[Any] | str,
        *,
        reset: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> int:
        """Move the failed jobs back to waiting whose payload a worker could not read.

        Use it after the deployment of workers that can. Arguments and result are those of
        `retry_all_failed`.
        """
        return await retry_failed(
            self._operation("retry_refused", queue), REFUSED, reset, on_progress
        )

    async def promote_all(
        self, queue: Queue[Any] | str, *, on_progress: ProgressCallback | None = None
    ) -> int:
        """Move all delayed jobs to waiting, those due first first.

        BullMQ's bulk promotion ignores the priority and keeps the job's `delay` (trap T16); here
        each job is changed as by `promote`.

        Args:
            queue: The queue.
            on_progress: Called after each batch: see `corral.inspector.bulk.ProgressCallback`.

        Returns:
            How many jobs are waiting now.
        """
        return await promote_all(self._operation("promote_all", queue), on_progress)

    async def pause(self, queue: Queue[Any] | str) -> bool:
        """Pause the queue: no worker starts its jobs; running jobs continue (wire § 6.14).

        Waiting jobs are moved to the list `paused`, as BullMQ 5 does it, unless only BullMQ 6 uses
        the queue. They still count as waiting.

        Returns:
            Whether this call paused the queue: False if it was paused already.
        """
        return bool(await self._access.change("pause", "pause", queue))

    async def resume(self, queue: Queue[Any] | str) -> bool:
        """Resume the queue: its jobs may start again.

        Jobs in BullMQ 5's list `paused` are moved to the front of the waiting list.

        Returns:
            Whether the queue was paused.
        """
        async with self._operation("resume", queue) as operation:
            resumed, left = await operation.run("resume", BACK_FROM_PAUSE)
            while left:
                _, left = await operation.run("resume", BACK_FROM_PAUSE)
        return bool(resumed)

    async def set_concurrency(self, queue: Queue[Any] | str, limit: int | None) -> None:
        """Limit how many of the queue's jobs run at once, over all workers together.

        Args:
            queue: The queue.
            limit: The most jobs, at least 1; None for no limit.

        Raises:
            ConfigurationError: The limit is less than 1.
        """
        if limit is not None and limit < 1:
            raise ConfigurationError(
                f"{limit} jobs at once would be none", hint="pause the queue instead"
            )
        await self._access.change(
            "set_concurrency", "set_limits", queue, "concurrency", "" if limit is None else limit
        )

    async def set_rate_limit(
        self, queue: Queue[Any] | str, limit: int | None, per: timedelta | None = None
    ) -> None:
        """Limit how many of the queue's jobs start within a time, over all workers (wire § 6.19).

        Args:
            queue: The queue.
            limit: The most jobs, at least 1; None for no limit.
            per: The length of the window, at least a millisecond.

        Raises:
            ConfigurationError: The limit is less than 1, or there is no window.
        """
        window = 0 if per is None else milliseconds(per)
        if limit is not None and (limit < 1 or window < 1):
            raise ConfigurationError("a rate limit lets at least 1 job start in at least 1 ms")
        pairs: tuple[int | str, ...] = ("max", limit or "", "duration", window if limit else "")
        await self._access.change("set_rate_limit", "set_limits", queue, *pairs)

    async def drain(
        self,
        queue: Queue[Any] | str,
        *,
        delayed: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> int:
        """Remove all waiting and prioritized jobs, and optionally the delayed ones (wire § 6.17).

        The next iterations of schedules are kept in every state; BullMQ may remove one (trap T13).
        If a removed job was the last that its parent waited for, the parent is removed too if it is
        in the same queue, and runs next if it is in another queue.

        Args:
            queue: The queue.
            delayed: Remove delayed jobs, too.
            on_progress: Called after each batch: see `corral.inspector.bulk.ProgressCallback`.

        Returns:
            How many jobs were removed, parents not included.
        """
        containers = ["wait", "paused", "prioritized", *(["delayed"] if delayed else [])]
        return await sweep(
            self._operation("drain", queue),
            containers,
            age_ms=None,
            limit=None,
            on_progress=on_progress,
        )

    async def clean(
        self,
        queue: Queue[Any] | str,
        state: JobState,
        older_than: timedelta,
        *,
        limit: int | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> int:
        """Remove the jobs in one state that are old enough (wire § 6.17).

        The age of a finished job counts from its end, that of any other job from its last start, or
        from when it was added. Active jobs are removed only if no worker holds their lock; the next
        iterations of schedules are kept.

        Args:
            queue: The queue.
            state: One of `CLEANABLE`.
            older_than: The least age.
            limit: The most jobs to remove, or None.
            on_progress: Called after each batch: see `corral.inspector.bulk.ProgressCallback`.

        Returns:
            How many jobs were removed.

        Raises:
            ConfigurationError: Jobs in this state cannot be cleaned.
        """
        if state not in CLEANABLE:
            raise ConfigurationError(
                f"jobs that are {state} are not cleaned", hint=f"these are: {', '.join(CLEANABLE)}"
            )
        containers = ["wait", "paused"] if state == "waiting" else [state]
        age_ms = milliseconds(older_than)
        return await sweep(
            self._operation("clean", queue),
            containers,
            age_ms=age_ms,
            limit=limit,
            on_progress=on_progress,
        )

    async def scrub(
        self,
        queue: Queue[Any] | str,
        match: str | Callable[[StoredJob], bool],
        *,
        on_progress: ProgressCallback | None = None,
    ) -> int:
        """Empty finished jobs: remove payload, result, progress, failed reason, traces, log lines.

        The jobs themselves are kept, with their times and counts. Events that hold the text, or the
        output of these jobs, are deleted. Unfinished jobs are not changed, because they need their
        payload. Ids and deduplication ids are not changed either. What workers have recorded of why
        attempts failed in the last two hours is deleted for the whole queue if any job is emptied,
        or a reason holds the text: a reason does not say whose job it was.

        Args:
            queue: The queue.
            match: A text that the jobs contain (a user's id, for example), as it is or as JSON
                spells it; or a function that is called with each finished job, including its `logs`
                and `child_results`, and decides whether it is emptied.
            on_progress: Called after each batch: see `corral.inspector.bulk.ProgressCallback`.

        Returns:
            How many jobs were scrubbed.

        Raises:
            ConfigurationError: The text is empty, which every job contains.
            DamagedKey: Some finished jobs are damaged and could not be searched; its `done` is the
                number of other jobs that were scrubbed.
        """
        return await scrub_jobs(self._operation("scrub", queue), match, on_progress)

    async def scrub_events(self, queue: Queue[Any] | str, match: Callable[[str], bool]) -> int:
        """Delete events that hold a processor's output, also those of removed jobs.

        `scrub` with a function cannot find events of jobs that no longer exist. If any event is
        deleted, or `match` selects a reason, what workers have recorded of why attempts failed is
        deleted, as in `scrub`.

        Args:
            queue: The queue.
            match: Called with each text of an event (a result as JSON, a failed reason, a
                progress); decides whether the event is deleted.

        Returns:
            How many events were deleted.
        """
        return await scrub_events(self._operation("scrub_events", queue), match)

    async def return_quarantined(
        self, queue: Queue[Any] | str, ids: Sequence[str]
    ) -> Sequence[ReturnedJob]:
        """Return jobs from the quarantine: each waits behind all other jobs of its priority.

        The kept key becomes the job's own key again. A job whose id is the name of a key of the
        queue (`completed`) gets a new id (`returned-completed`). A job is refused if its kept key
        is not a hash, or if its own key exists by now. If no key was kept, the job is returned once
        an operator has made its own key a hash.

        Args:
            queue: The queue.
            ids: The ids, spelled as in `list_quarantined`.

        Returns:
            One result for each id, in the same order.
        """
        async with self._operation("return_quarantined", queue) as operation:
            return await return_jobs(operation, ids)

    async def return_all_quarantined(self, queue: Queue[Any] | str) -> Sequence[ReturnedJob]:
        """Return all jobs that are in quarantine now; see `return_quarantined`."""
        return await return_all(self._operation("return_quarantined", queue))

    async def discard_quarantined(
        self, queue: Queue[Any] | str, ids: Sequence[str]
    ) -> Sequence[str]:
        """Remove ids from the quarantine, with the keys that are kept of them.

        Args:
            queue: The queue.
            ids: The ids, spelled as in `list_quarantined`.

        Returns:
            The ids that were in quarantine, as they were given.
        """
        async with self._operation("discard_quarantined", queue) as operation:
            return await discard(operation, ids)

    async def discard_all_quarantined(self, queue: Queue[Any] | str) -> int:
        """Remove all ids that are in quarantine now; returns how many."""
        return await discard_all(self._operation("discard_quarantined", queue))

    def _operation(self, what: str, queue: Queue[Any] | str) -> AuditedOperation:
        return AuditedOperation(self._access, what, queue)

    def _raise_refusal(
        self, code: int | bytes, queue: Queue[Any] | str, job_id: str, wanted: str
    ) -> None:
        name = self._access.name(queue)
        if isinstance(code, bytes):
            raise DamagedKey(*decode_damaged_keys([code]))
        if code == -1:
            raise JobNotFound(name, job_id)
        if code == -3:
            raise WrongState(name, job_id, wanted)
        if code == -8:
            raise CurrentIteration(name, job_id)

"""Operations on many jobs, in batches, so that no single script blocks the workers for long.

Each batch is atomic; the whole operation is not. A job that moves meanwhile may be missed, and is
never changed twice. A damaged job is skipped, its key is logged, and all other jobs are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.inspector.queue_access import AuditedOperation, QueueAccess
from corral.inspector.refusals import MOST_NAMED, DamagedKey
from corral.inspector.sizes import decode_damaged_keys
from corral.inspector.stored_job import StoredJob, decode_contents, spellings
from corral.job_state import JobState
from corral.loggers import Logger
from corral.queue import Queue
from corral.store.codec import fields_of
from corral.store.keys import EVENTS

__all__ = [
    "BATCH",
    "ProgressCallback",
    "promote_all",
    "retry_failed",
    "scrub_events",
    "scrub_jobs",
    "sweep",
]

log = Logger("corral.inspector")

BATCH = 500
"""Jobs per script call: a longer script would block the workers."""
PAGE = 100
"""Jobs per call where their contents are read: payloads may have a megabyte each."""
CONTENT_FIELDS: Final = (b"returnvalue", b"failedReason", b"data")
"""Fields of events that hold a processor's output: result, failed reason, progress (wire § 7)."""
FINISHED: Final[tuple[JobState, ...]] = (JobState.COMPLETED, JobState.FAILED)

ProgressCallback = Callable[[int, int], object]
"""Called after each batch with the number of jobs looked at so far, and the number of all jobs."""


async def retry_failed(
    operation: AuditedOperation, reason: str, reset: bool, on_progress: ProgressCallback | None
) -> int:
    """Retry the jobs that have failed until now.

    Args:
        operation: The queue, the connection, and the audit's entry, which each batch updates.
        reason: Retry only jobs whose failed reason begins with this text; empty: all.
        reset: Count attempts and starts from zero.
        on_progress: Called after each batch.

    Returns:
        How many jobs were retried.
    """
    total = await operation.access.size(operation.queue, "failed")
    looked = retried = skip = 0
    left: list[bytes] = []
    until: bytes | str = ""
    after: bytes | str = "-inf"
    async with operation:
        while True:
            arguments = (until, after, skip, BATCH, reason, "1" if reset else "")
            reply = await operation.run("retry_failed", *arguments)
            until, after, skip, seen, done, damaged = reply
            if not seen:
                break
            looked += seen
            retried += done
            left += damaged
            if on_progress:
                on_progress(looked, max(looked, total))
    _log_damaged(operation, left)
    return retried


async def promote_all(operation: AuditedOperation, on_progress: ProgressCallback | None) -> int:
    """Promote as many jobs as are delayed at the start, those due first first.

    Returns:
        How many jobs were promoted.
    """
    total = await operation.access.size(operation.queue, "delayed")
    looked = promoted = 0
    left: list[bytes] = []
    async with operation:
        while looked < total:
            codes = await operation.run("run_now", min(BATCH, total - looked), len(left))
            if not codes:
                break
            looked += len(codes)
            promoted += codes.count(1)
            left += [code for code in codes if isinstance(code, bytes)]
            if on_progress:
                on_progress(looked, total)
    _log_damaged(operation, left)
    return promoted


async def sweep(
    operation: AuditedOperation,
    containers: Sequence[str],
    *,
    age_ms: int | None,
    limit: int | None,
    on_progress: ProgressCallback | None,
) -> int:
    """Remove the jobs of some containers that are old enough.

    Args:
        operation: The queue, the connection, and the audit's entry, which each batch updates.
        containers: The containers, swept one after the other.
        age_ms: The least age, in milliseconds; None drains: any age.
        limit: The most jobs to remove, or None.
        on_progress: Called after each batch.

    Returns:
        How many jobs were removed.
    """
    access, queue = operation.access, operation.queue
    sizes = [await access.size(queue, container) for container in containers]
    looked = removed = 0
    left: list[bytes] = []
    async with operation:
        for container, size in zip(containers, sizes, strict=True):
            kept = gone = 0
            while kept + gone < size:  # jobs that arrive meanwhile are not removed
                room = BATCH if limit is None else min(BATCH, limit - removed)
                if room < 1:
                    break
                age = "" if age_ms is None else age_ms
                reply = await operation.run("sweep", container, age, kept, BATCH, room)
                seen, swept, damaged = reply
                if not seen:
                    break
                left += damaged
                kept += seen - swept
                gone += swept
                looked += seen
                removed += swept
                if on_progress:
                    on_progress(looked, max(looked, sum(sizes)))
    _log_damaged(operation, left)
    return removed


async def scrub_jobs(
    operation: AuditedOperation,
    match: str | Callable[[StoredJob], bool],
    on_progress: ProgressCallback | None,
) -> int:
    """Empty the finished jobs that match, and delete the events that hold the same content.

    Args:
        operation: The queue, the connection, and the audit's entry, which each batch updates.
        match: A text that is searched for in each job, or a function that is asked about each job.
        on_progress: Called after each batch.

    Returns:
        How many jobs were emptied.

    Raises:
        ConfigurationError: The text is empty.
        DamagedKey: Some finished jobs are damaged and could not be searched. All others were.
    """
    access, queue = operation.access, operation.queue
    texts = _all_spellings(match) if isinstance(match, str) else ()
    total = sum([await access.size(queue, state) for state in FINISHED])
    # A damaged event stream is reported before any job is scrubbed.
    await access.call(queue, "XLEN", access.base(queue) + EVENTS)
    looked = 0
    scrubbed: set[str] = set()
    left: list[bytes] = []
    async with operation:
        for state in FINISHED:
            start = 0
            while ids := await _read_finished_ids(access, queue, state, start):
                chosen = ids
                if not isinstance(match, str):
                    chosen, unread = await _select(access, queue, state, ids, match)
                    left += unread
                if chosen:
                    done, damaged = await operation.run("scrub", len(texts), *texts, *chosen)
                    scrubbed.update(job_id.decode(errors="replace") for job_id in done)
                    left += damaged
                start += len(ids)
                looked += len(ids)
                if on_progress:
                    on_progress(looked, max(looked, total))

        def holds(value: str) -> bool:
            return any(text in value for text in texts)

        deleted = 0
        if texts:
            deleted = await _delete_events(operation, lambda _, values: any(map(holds, values)))
        elif scrubbed:
            await _delete_events(operation, lambda job_id, _: job_id in scrubbed)
        await _forget_reasons(operation, holds, at_once=bool(scrubbed or deleted))
    if left:
        hint = "all other jobs were scrubbed; repair these, or remove them, and scrub again"
        raise DamagedKey(*dict.fromkeys(decode_damaged_keys(left)), done=len(scrubbed), hint=hint)
    return len(scrubbed)


async def scrub_events(operation: AuditedOperation, match: Callable[[str], bool]) -> int:
    """Delete the events that hold a matching text; returns how many."""
    async with operation:
        deleted = await _delete_events(
            operation, lambda _, values: any(map(match, values)), counted=True
        )
        await _forget_reasons(operation, match, at_once=deleted > 0)
        return deleted


async def _forget_reasons(
    operation: AuditedOperation, match: Callable[[str], bool], *, at_once: bool
) -> None:
    """Delete the record of why attempts of the queue failed if it may be about a scrubbed text.

    A reason is kept without ids and addresses, so that it does not say which jobs it is about. So
    either all reasons are deleted or none.

    Args:
        operation: The queue, the connection, and the audit's entry.
        match: Decides about a reason, and about the id of the job that failed last for it.
        at_once: Whether the queue held something about the text, so that no reason is looked at.
    """
    if not at_once:
        hours = await operation.access.run("reasons", operation.queue)
        kept = (text.decode(errors="replace") for flat in hours for text in flat)
        at_once = any(map(match, kept))
    if at_once:
        await operation.run("forget_reasons")


async def _delete_events(
    operation: AuditedOperation,
    selects: Callable[[str, Sequence[str]], bool],
    *,
    counted: bool = False,
) -> int:
    """Delete events that hold results, failed reasons or progress from the queue's event stream.

    Args:
        operation: The queue, the connection, and the audit's entry, which each batch updates.
        selects: Decides about each event with such contents, from the job's id and the values of
            all other fields.
        counted: Whether the audit counts the deleted events (or something else).

    Returns:
        How many events were deleted.
    """
    deleted = 0
    after = "-"
    access, queue = operation.access, operation.queue
    events = access.base(queue) + EVENTS
    while entries := await access.call(queue, "XRANGE", events, after, "+", "COUNT", BATCH):
        decoded = ((entry_id, fields_of(flat)) for entry_id, flat in entries)
        chosen = [
            entry_id
            for entry_id, fields in decoded
            if _has_content(fields) and selects(*_job_id_and_values(fields))
        ]
        if chosen:
            deleted += await operation.run("drop_events", "1" if counted else "", *chosen)
        after = f"({entries[-1][0].decode()}"
    return deleted


def _has_content(fields: Mapping[bytes, bytes]) -> bool:
    return any(name in fields for name in CONTENT_FIELDS)


def _job_id_and_values(fields: Mapping[bytes, bytes]) -> tuple[str, Sequence[str]]:
    job_id = fields.get(b"jobId", b"").decode(errors="replace")
    return job_id, [
        value.decode(errors="replace") for name, value in fields.items() if name != b"jobId"
    ]


def _all_spellings(text: str) -> tuple[str, ...]:
    if not text:
        raise ConfigurationError(
            "an empty text is in every job", hint="give a text to search for, such as a user's id"
        )
    return spellings(text)


async def _read_finished_ids(
    access: QueueAccess, queue: Queue[Any] | str, state: JobState, start: int
) -> Sequence[bytes]:
    """Read a page of finished jobs' ids, the newest first.

    In this order, jobs that finish meanwhile make a job appear twice, and none is missed.
    """
    key = access.base(queue) + state
    found: Sequence[bytes] = await access.call(queue, "ZREVRANGE", key, start, start + PAGE - 1)
    return found


async def _select(
    access: QueueAccess,
    queue: Queue[Any] | str,
    state: JobState,
    ids: Sequence[bytes],
    match: Callable[[StoredJob], bool],
) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The ids of the jobs that match, and the damage of those that cannot be read."""
    found, left = await access.run("job_contents", queue, *ids)
    name = access.name(queue)
    return [each[0] for each in found if match(decode_contents(name, state, each))], left


def _log_damaged(operation: AuditedOperation, left: Sequence[bytes]) -> None:
    if left:
        log.warning(
            "jobs were skipped: their keys are damaged",
            queue=operation.access.name(operation.queue),
            count=len(left),
            damaged=[*dict.fromkeys(decode_damaged_keys(left))][:MOST_NAMED],
        )

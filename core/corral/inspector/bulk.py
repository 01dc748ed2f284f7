"""What is done to many jobs: in batches, so that no script keeps the workers waiting.

Each batch is atomic; the whole is not. A job that moves meanwhile may be missed, and is never done
twice. One that is damaged is left, and the log says which key it is; it keeps no other job from
being done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.inspector.calls import Calls, Change
from corral.inspector.refusals import MOST_NAMED, DamagedKey
from corral.inspector.sizes import damaged_in
from corral.inspector.stored import State, StoredJob, decode_contents, spellings
from corral.loggers import Logger
from corral.queue import Queue
from corral.store.codec import fields_of

__all__ = ["BATCH", "Told", "promote_all", "retry_failed", "scrub", "scrub_events", "sweep"]

log = Logger("corral.inspector")

BATCH = 500
"""Jobs per script call: a longer script would keep the workers waiting."""
PAGE = 100
"""Jobs per call where their contents are read: payloads may have a megabyte each."""
SAYING: Final = (b"returnvalue", b"failedReason", b"data")
"""The fields of events that hold what a processor said (wire § 7): its result, why it failed, its
progress.
"""
FINISHED: Final[tuple[State, ...]] = ("completed", "failed")

Told = Callable[[int, int], object]
"""Is called after each batch with how many jobs were looked at, and how many there are to look at."""


async def retry_failed(operation: Change, reason: str, reset: bool, told: Told | None) -> int:
    """Retry the jobs that have failed until now, and whose failed reason begins so; returns how
    many.
    """
    total = await operation.calls.size(operation.queue, "failed")
    looked = retried = skip = 0
    left: list[bytes] = []
    until: bytes | str = ""
    after: bytes | str = "-inf"
    async with operation as change:
        while True:
            arguments = (until, after, skip, BATCH, reason, "1" if reset else "")
            until, after, skip, seen, done, damaged = await change.run("retry_failed", *arguments)
            if not seen:
                break
            looked += seen
            retried += done
            left += damaged
            if told:
                told(looked, max(looked, total))
    _tell_left(operation, left)
    return retried


async def promote_all(operation: Change, told: Told | None) -> int:
    """Promote as many jobs as are delayed now, those due first first; returns how many wait."""
    total = await operation.calls.size(operation.queue, "delayed")
    looked = promoted = 0
    left: list[bytes] = []
    async with operation as change:
        while looked < total:
            codes = await change.run("run_now", min(BATCH, total - looked), len(left))
            if not codes:
                break
            looked += len(codes)
            promoted += codes.count(1)
            left += [code for code in codes if isinstance(code, bytes)]
            if told:
                told(looked, total)
    _tell_left(operation, left)
    return promoted


async def sweep(
    operation: Change,
    containers: Sequence[str],
    *,
    age_ms: int | None,
    limit: int | None,
    told: Told | None,
) -> int:
    """Remove from containers what is old enough.

    Args:
        operation: The queue, and what this is called.
        containers: One after the other.
        age_ms: How old; None drains: any age.
        limit: How many jobs may go, or None.
        told: Hears of each batch.

    Returns:
        How many are gone.
    """
    sizes = [await operation.calls.size(operation.queue, container) for container in containers]
    looked = removed = 0
    left: list[bytes] = []
    async with operation as change:
        for container, size in zip(containers, sizes, strict=True):
            kept = gone = 0
            while kept + gone < size:  # what comes meanwhile stays
                room = BATCH if limit is None else min(BATCH, limit - removed)
                if room < 1:
                    break
                age = "" if age_ms is None else age_ms
                seen, swept, damaged = await change.run("sweep", container, age, kept, BATCH, room)
                if not seen:
                    break
                left += damaged
                kept += seen - swept
                gone += swept
                looked += seen
                removed += swept
                if told:
                    told(looked, max(looked, sum(sizes)))
    _tell_left(operation, left)
    return removed


async def scrub(
    operation: Change, match: str | Callable[[StoredJob], bool], told: Told | None
) -> int:
    """Empty the finished jobs that match, and drop the events that hold the text; returns how many
    jobs.
    """
    calls, queue = operation.calls, operation.queue
    texts = _texts(match) if isinstance(match, str) else ()
    total = sum([await calls.size(queue, state) for state in FINISHED])
    await calls.call(
        queue, "XLEN", calls.base(queue) + "events"
    )  # what is damaged is told before anything is scrubbed
    looked = 0
    scrubbed: set[str] = set()
    left: list[bytes] = []
    async with operation as change:
        for state in FINISHED:
            start = 0
            while ids := await _finished(calls, queue, state, start):
                chosen = ids
                if not isinstance(match, str):
                    chosen, unread = await _chosen(calls, queue, state, ids, match)
                    left += unread
                if chosen:
                    done, damaged = await change.run("scrub", len(texts), *texts, *chosen)
                    scrubbed.update(job_id.decode(errors="replace") for job_id in done)
                    left += damaged
                start += len(ids)
                looked += len(ids)
                if told:
                    told(looked, max(looked, total))
        if texts:
            await _drop(
                change, lambda _, said: any(text in value for value in said for text in texts)
            )
        elif scrubbed:
            await _drop(change, lambda job_id, _: job_id in scrubbed)
    if left:
        hint = "all other jobs were scrubbed; repair these, or remove them, and scrub again"
        raise DamagedKey(*dict.fromkeys(damaged_in(left)), done=len(scrubbed), hint=hint)
    return len(scrubbed)


async def scrub_events(operation: Change, match: Callable[[str], bool]) -> int:
    """Drop the events that say what matches; returns how many."""
    async with operation as change:
        return await _drop(change, lambda _, said: any(map(match, said)), counted=True)


async def _drop(
    change: Change, drops: Callable[[str, Sequence[str]], bool], *, counted: bool = False
) -> int:
    """Take events out of the queue's log: results, failed reasons and progress are in there, too.

    Args:
        change: The operation.
        drops: Is asked about each event that says something: its job's id, and the values of its
        other fields.
        counted: Whether they are what the operation counts.

    Returns:
        How many are gone.
    """
    gone = 0
    after = "-"
    events = change.calls.base(change.queue) + "events"
    while entries := await change.calls.call(
        change.queue, "XRANGE", events, after, "+", "COUNT", BATCH
    ):
        told = ((entry_id, fields_of(flat)) for entry_id, flat in entries)
        dropped = [entry_id for entry_id, fields in told if _says(fields) and drops(*_read(fields))]
        if dropped:
            gone += await change.run("drop_events", "1" if counted else "", *dropped)
        after = f"({entries[-1][0].decode()}"
    return gone


def _says(fields: Mapping[bytes, bytes]) -> bool:
    return any(name in fields for name in SAYING)


def _read(fields: Mapping[bytes, bytes]) -> tuple[str, Sequence[str]]:
    job_id = fields.get(b"jobId", b"").decode(errors="replace")
    return job_id, [
        value.decode(errors="replace") for name, value in fields.items() if name != b"jobId"
    ]


def _texts(text: str) -> tuple[str, ...]:
    if not text:
        raise ConfigurationError("an empty text is in every job", hint="give a user's id, for one")
    return spellings(text)


async def _finished(
    calls: Calls, queue: Queue[Any] | str, state: State, start: int
) -> Sequence[bytes]:
    """The newest first: what ends meanwhile shows some job twice, and hides none."""
    key = calls.base(queue) + state
    found: Sequence[bytes] = await calls.call(queue, "ZREVRANGE", key, start, start + PAGE - 1)
    return found


async def _chosen(
    calls: Calls,
    queue: Queue[Any] | str,
    state: State,
    ids: Sequence[bytes],
    match: Callable[[StoredJob], bool],
) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The ids of those that are meant; and what is damaged of those that cannot be read."""
    found, left = await calls.run("contents", queue, *ids)
    return [
        each[0] for each in found if match(decode_contents(calls.name(queue), state, each))
    ], left


def _tell_left(operation: Change, left: Sequence[bytes]) -> None:
    if left:
        name, some = (
            operation.calls.name(operation.queue),
            [*dict.fromkeys(damaged_in(left))][:MOST_NAMED],
        )
        log.warning(
            "jobs left as they were: their keys are damaged",
            queue=name,
            count=len(left),
            damaged=some,
        )

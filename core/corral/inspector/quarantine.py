"""The quarantine of a queue: list it, return jobs to the queue, or discard them.

Workers move an id to the quarantine if its own key is not a hash, or if it has the name of one of
the queue's own keys (trap T9). The ids are in the hash `corral:<prefix>:<queue>:quarantine`, and
what was the id's key is kept below that name. Ids are bytes; here they are texts with the escapes
of `corral.inspector.escapes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from corral.inspector.escapes import escaped, unescaped
from corral.inspector.queue_access import AuditedOperation, QueueAccess
from corral.inspector.stored_job import datetime_from_ms, parse_number
from corral.queue import Queue
from corral.store.keys import quarantine_key

__all__ = [
    "MOST_START",
    "QuarantinePage",
    "QuarantinedJob",
    "ReturnedJob",
    "discard",
    "discard_all",
    "read_quarantine",
    "return_all",
    "return_jobs",
]

MOST_START: Final = 10_000
"""The largest `start` of a page: the script reads all entries before it."""
RETURNED: Final = 20
"""Ids per script call: each id is searched in lists that may be long."""
DISCARDED: Final = 500
"""Ids per script call."""
SCANNED: Final = 1000
"""Ids per HSCAN call."""


@dataclass(frozen=True, slots=True)
class QuarantinedJob:
    r"""One id in quarantine.

    Attributes:
        id: The id, with escapes for bytes that are not UTF-8 or not printable (`\xff`). Pass it to
            other methods in this spelling.
        since: When it was moved to the quarantine, or None.
        origin: The container it was in: `wait`, `prioritized`, `delayed` or `active`. `key`: the id
            was not found in a container, but one of the queue's own keys of that name had the
            wrong type.
        reason: Why it was moved, in one sentence that names the key.
        key: Where the key of that id is kept now; empty if there is none.
        returns_as: The id that the returned job will have: its own, unless a key of the queue has
            that name.
        obstacle: Why it cannot be returned; empty if it can.
    """

    id: str
    since: datetime | None
    origin: str
    reason: str
    key: str
    returns_as: str
    obstacle: str


@dataclass(frozen=True, slots=True)
class QuarantinePage:
    """A page of the quarantine.

    Attributes:
        jobs: The ids; the newest first if there are not more than a thousand, else in no order.
        total: How many ids are in quarantine.
        start: The index of the first id of the page.
    """

    jobs: Sequence[QuarantinedJob]
    total: int
    start: int


@dataclass(frozen=True, slots=True)
class ReturnedJob:
    """The result of returning one id from the quarantine.

    Attributes:
        id: The id as it was given.
        job_id: The id of the job that is waiting now; None if it could not be returned.
        refused: Why it could not be returned; empty if it was.
    """

    id: str
    job_id: str | None
    refused: str


async def read_quarantine(
    access: QueueAccess, queue: Queue[Any] | str, start: int, limit: int
) -> QuarantinePage:
    """Read one page; see `JobInspector.list_quarantined`."""
    total, rows = await access.run("quarantine_page", queue, start, limit)
    return QuarantinePage([_decode_row(row) for row in rows], total, start)


async def return_jobs(operation: AuditedOperation, ids: Sequence[str]) -> Sequence[ReturnedJob]:
    """Return ids from the quarantine to the queue, and report on each, in the same order."""
    found: list[ReturnedJob] = []
    for start in range(0, len(ids), RETURNED):
        some = ids[start : start + RETURNED]
        replies = await operation.run("return_quarantined", *_pairs(some))
        found += [
            _decode_returned(job_id, reply) for job_id, reply in zip(some, replies, strict=True)
        ]
    return found


async def return_all(operation: AuditedOperation) -> Sequence[ReturnedJob]:
    """Return everything that is in quarantine now, and report on each id."""
    async with operation:
        return await return_jobs(operation, await _read_all_ids(operation))


async def discard(operation: AuditedOperation, ids: Sequence[str]) -> Sequence[str]:
    """Remove ids and their keys from the quarantine; returns the ids that were there."""
    gone: list[str] = []
    for start in range(0, len(ids), DISCARDED):
        some = ids[start : start + DISCARDED]
        codes = await operation.run("discard_quarantined", *_pairs(some))
        gone += [job_id for job_id, code in zip(some, codes, strict=True) if code == 1]
    return gone


async def discard_all(operation: AuditedOperation) -> int:
    """Remove everything that is in quarantine now; returns how many ids."""
    async with operation:
        return len(await discard(operation, await _read_all_ids(operation)))


async def _read_all_ids(operation: AuditedOperation) -> Sequence[str]:
    """Read all ids before the first one is changed, since changes disturb a running HSCAN."""
    access, queue = operation.access, operation.queue
    key = quarantine_key(access.base(queue))
    found: dict[bytes, None] = {}
    cursor = b"0"
    while True:
        cursor, held = await access.call(queue, "HSCAN", key, cursor, "COUNT", SCANNED)
        found.update(dict.fromkeys(held[::2]))
        if int(cursor) == 0:
            return [*map(escaped, found)]


def _pairs(ids: Sequence[str]) -> Sequence[bytes | str]:
    """Each id as it is stored, followed by the id as the audit shows it."""
    raw = [unescaped(job_id) for job_id in ids]
    return [part for each in raw for part in (each, escaped(each))]


def _decode_row(row: Sequence[bytes]) -> QuarantinedJob:
    job_id, at, origin, reason, key, target, obstacle = row
    return QuarantinedJob(
        id=escaped(job_id),
        since=datetime_from_ms(parse_number(at.decode(errors="replace")) or None),
        origin=origin.decode(errors="replace"),
        reason=reason.decode(errors="replace"),
        key=escaped(key),
        returns_as=escaped(target),
        obstacle=escaped(obstacle),
    )


def _decode_returned(job_id: str, reply: Sequence[Any]) -> ReturnedJob:
    code, *texts = reply
    if code == 1:
        return ReturnedJob(job_id, escaped(texts[0]), "")
    return ReturnedJob(job_id, None, escaped(texts[0]) if texts else "it is not in quarantine")

"""What workers have put aside because it cannot be a job as it stands: looked at, brought back, or
thrown away.

An id comes here whose own key is no hash, or that is the name of one of the queue's own keys (trap
T9). It is in the hash `corral:<prefix>:<queue>:quarantine`, and what was its key is kept below that
name. Ids are bytes, so they are given and taken as `corral.inspector.escapes` spells them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from corral.inspector.calls import Calls, Change
from corral.inspector.escapes import escaped, unescaped
from corral.inspector.stored import moment, number
from corral.queue import Queue

__all__ = [
    "MOST_START",
    "QuarantinePage",
    "QuarantinedJob",
    "ReturnedJob",
    "discard",
    "discard_all",
    "quarantined",
    "return_all",
    "return_jobs",
]

MOST_START: Final = 10_000
"""How far somebody may turn the pages: a script reads all that is before."""
RETURNED: Final = 20
"""Ids per script call: each is looked for in lists that may be long."""
DISCARDED: Final = 500
"""Ids per script call."""
SCANNED: Final = 1000
"""Ids that are read at once."""


@dataclass(frozen=True, slots=True)
class QuarantinedJob:
    r"""One id in quarantine.

    Attributes:
        id: The id, with escapes for what is no UTF-8 or cannot be seen (`\xff`); so spelt, it is
        found again.
        since: When it came here, or None.
        origin: Where it stood: `wait`, `prioritized`, `delayed` or `active`; `key`, where nobody
            has met the id yet, but one of the queue's own keys of that name was of the wrong type.
        reason: Why, in one sentence that names the key.
        key: Where the key of that id is kept now; empty where there is none.
        returns_as: The id that it will have when it comes back: its own, unless that is a key of
        the queue.
        obstacle: Why it cannot come back, as far as its keys tell; empty where it can.
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
    """Some of those in quarantine.

    Attributes:
        jobs: What came last first, as long as there are not more than a thousand; else in no order.
        total: How many there are.
        start: The place of the first one.
    """

    jobs: Sequence[QuarantinedJob]
    total: int
    start: int


@dataclass(frozen=True, slots=True)
class ReturnedJob:
    """What became of one id that was to come back.

    Attributes:
        id: As it was given.
        job_id: The id of the job that waits now; None where it could not come back.
        refused: Why it could not; empty where it did.
    """

    id: str
    job_id: str | None
    refused: str


async def quarantined(
    calls: Calls, queue: Queue[Any] | str, start: int, limit: int
) -> QuarantinePage:
    """One page; see `JobInspector.quarantined`."""
    total, rows = await calls.run("quarantined", queue, start, limit)
    return QuarantinePage([_decoded(row) for row in rows], total, start)


async def return_jobs(change: Change, ids: Sequence[str]) -> Sequence[ReturnedJob]:
    """Let ids come back, in the order in which they are given; what became of each."""
    found: list[ReturnedJob] = []
    for start in range(0, len(ids), RETURNED):
        some = ids[start : start + RETURNED]
        replies = await change.run("return", *_pairs(some))
        found += [_returned(job_id, reply) for job_id, reply in zip(some, replies, strict=True)]
    return found


async def return_all(operation: Change) -> Sequence[ReturnedJob]:
    """Let everything come back that is there now; what became of each."""
    async with operation as change:
        return await return_jobs(change, await _all_ids(change))


async def discard(change: Change, ids: Sequence[str]) -> Sequence[str]:
    """Remove ids, with what is kept of them; returns those that were there."""
    gone: list[str] = []
    for start in range(0, len(ids), DISCARDED):
        some = ids[start : start + DISCARDED]
        codes = await change.run("discard", *_pairs(some))
        gone += [job_id for job_id, code in zip(some, codes, strict=True) if code == 1]
    return gone


async def discard_all(operation: Change) -> int:
    """Remove everything that is there now; returns how many."""
    async with operation as change:
        return len(await discard(change, await _all_ids(change)))


async def _all_ids(change: Change) -> Sequence[str]:
    """Collected before anything is changed: a change moves what is behind it."""
    key = f"corral:{change.calls.base(change.queue)}quarantine"
    found: dict[bytes, None] = {}
    cursor = b"0"
    while True:
        cursor, held = await change.calls.call(change.queue, "HSCAN", key, cursor, "COUNT", SCANNED)
        found.update(dict.fromkeys(held[::2]))
        if int(cursor) == 0:
            return [*map(escaped, found)]


def _pairs(ids: Sequence[str]) -> Sequence[bytes | str]:
    """Each id as it is stored, and as the audit spells it."""
    raw = [unescaped(job_id) for job_id in ids]
    return [part for each in raw for part in (each, escaped(each))]


def _decoded(row: Sequence[bytes]) -> QuarantinedJob:
    job_id, at, origin, reason, key, target, obstacle = row
    return QuarantinedJob(
        id=escaped(job_id),
        since=moment(number(at.decode(errors="replace")) or None),
        origin=origin.decode(errors="replace"),
        reason=reason.decode(errors="replace"),
        key=escaped(key),
        returns_as=escaped(target),
        obstacle=escaped(obstacle),
    )


def _returned(job_id: str, reply: Sequence[Any]) -> ReturnedJob:
    code, *told = reply
    if code == 1:
        return ReturnedJob(job_id, escaped(told[0]), "")
    return ReturnedJob(job_id, None, escaped(told[0]) if told else "it is not in quarantine")

"""A queue's schedules in the store: BullMQ's job schedulers (wire § 6.21).

Their next iterations are made by whoever fetches one, inside the fetch. A script cannot read a cron expression, so the
fetch is told the coming ticks beforehand (`encode_ticks`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from corral.errors import CorralError
from corral.options import JobOptions
from corral.schedule import Cron, Every, cron_ticks, period_ms
from corral.store.codec import encode_options, integer
from corral.store.late import Late, decode_late
from corral.store.queue_store import QueueStore

__all__ = ["NewSchedule", "Schedules", "StoredSchedule", "coming_ticks", "encode_ticks"]

COMING = 8
"""How many ticks a script is told: a promoted iteration takes one, and the next call tells others."""
SLACK_MS = 2_000
"""Ticks are counted from a little before what we think the time is: the store's clock decides, and may be behind."""


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule to be ensured.

    Attributes:
        id: Unique within its queue. A declared one has the queue's name.
        name: BullMQ's name for its jobs.
        data: The payload of its jobs, strict JSON text.
        options: Of its jobs; their delay is the wait for the tick.
        when: When it runs.
    """

    id: str
    name: str
    data: bytes
    options: JobOptions
    when: Cron | Every


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A job scheduler, made by whichever client.

    Attributes:
        id: Unique within its queue.
        next_ms: The tick of its current iteration, Unix milliseconds.
        alive: Whether that iteration exists and has not ended: nobody makes the next one for a dead schedule.
        pattern: The cron expression, or None.
        tz: Its time zone, or None.
        every_ms: The interval, or None.
        iterations: How many iterations were made.
    """

    id: str
    next_ms: int
    alive: bool
    pattern: str | None
    tz: str | None
    every_ms: int | None
    iterations: int


def coming_ticks(pattern: str, tz: str, now_ms: int, count: int = COMING) -> list[int]:
    """`[from, tick, tick, …]` in Unix milliseconds: after any moment from `from` on comes the next tick in the list.

    Raises:
        ValueError: The pattern cannot be read, or names no day that comes.
    """
    start = now_ms - SLACK_MS
    ticks = cron_ticks(pattern, tz or "UTC", start, count)  # BullMQ would ask the worker's own zone: no two agree
    return [start, *ticks]


def encode_ticks(known: Mapping[tuple[str, str], Sequence[int]]) -> bytes:
    """What `coming_ticks` gave for each `(pattern, tz)`, as the scripts read it."""
    return to_json({f"{pattern}\n{tz}": ticks for (pattern, tz), ticks in known.items()})


class Schedules:
    """The schedules of one queue.

    Args:
        store: The queue.
    """

    def __init__(self, store: QueueStore) -> None:
        self._store = store

    async def ensure(self, new: NewSchedule) -> tuple[str, int]:
        """Install a schedule, or leave it exactly as it is where it is the same and alive.

        Of a changed one, a tick that is due already stays and runs; a coming one is replaced. One whose chain has
        ended is resumed.

        Returns:
            `untouched`, `made`, `changed` or `resumed`; and its next tick in Unix milliseconds.

        Raises:
            ValueError: The cron expression cannot be read, or the period is too short.
            StoreUnavailable: The store is away, or refuses to write.
        """
        when, now_ms = new.when, int(time.time() * 1000)
        opts = encode_options(new.options)
        rule: tuple[Any, ...]
        for _ in range(3):
            if isinstance(when, Every):
                rule = (period_ms(when), "", "", b"{}")
            else:
                ticks = coming_ticks(when.expression, when.tz, now_ms)
                rule = ("", when.expression, when.tz, encode_ticks({(when.expression, when.tz): ticks}))
            word, next_ms = await self._store.operate("schedule", new.id, *rule, new.name, new.data, opts)
            if word != b"unknown":
                return word.decode(), next_ms
            now_ms = next_ms  # our clock is not the store's
        raise CorralError(f"schedule {new.id!r} of queue {self._store.queue!r}: the ticks to come are all taken")

    async def remove(self, schedule_id: str) -> bool:
        """Remove a schedule and its coming iteration; one that waits or runs already is left.

        Returns:
            Whether there was one.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        return bool(await self._store.operate("unschedule", schedule_id))

    async def advance(self, late: Late) -> bool:
        """Make the next iteration of one that was fetched without it.

        Returns:
            False where the store's clock is too far from ours; ask again.

        Raises:
            ValueError: The cron expression cannot be read.
            StoreUnavailable: The store is away, or refuses to write.
        """
        ticks = encode_ticks({(late.pattern, late.tz): coming_ticks(late.pattern, late.tz, late.at_ms)})
        return not decode_late(await self._store.operate("tick", ticks, late.job_id))

    async def list(self) -> list[StoredSchedule]:
        """Every schedule of the queue, the next to run first.

        Raises:
            StoreUnavailable: The store is away.
        """
        return [_stored(*each) for each in await self._store.operate("schedules", "")]

    async def get(self, schedule_id: str) -> StoredSchedule | None:
        """One schedule, or None where there is none of this id: programs may have made thousands of others.

        Raises:
            StoreUnavailable: The store is away.
        """
        found = await self._store.operate("schedules", schedule_id)
        return _stored(*found[0]) if found else None


def _stored(schedule_id: bytes, tick: bytes, alive: int, flat: Sequence[bytes]) -> StoredSchedule:
    texts = [each.decode(errors="replace") for each in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    return StoredSchedule(
        id=schedule_id.decode(errors="replace"),
        next_ms=integer(tick),
        alive=alive == 1,
        pattern=fields.get("pattern"),
        tz=fields.get("tz"),
        every_ms=integer(fields["every"]) if "every" in fields else None,
        iterations=integer(fields.get("ic")),
    )

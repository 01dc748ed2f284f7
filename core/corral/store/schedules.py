"""A queue's schedules in the store: BullMQ's job schedulers (wire § 6.21).

Their next iterations are made by whoever fetches one, inside the fetch. A script cannot read a cron
expression, so the fetch is told the coming ticks beforehand (`encode_ticks`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic_core import to_json

from corral.errors import CorralError
from corral.options import JobOptions
from corral.schedule import Cron, Every, cron_ticks, period_ms
from corral.store.codec import encode_options, integer
from corral.store.late import Late, decode_late
from corral.store.queue_store import QueueStore
from corral.store.scripts import call_again

__all__ = [
    "PRUNED",
    "NewSchedule",
    "Overdue",
    "Schedules",
    "StoredSchedule",
    "coming_ticks",
    "encode_ticks",
    "overdue_ms",
    "removal",
]

COMING = 8
"""How many ticks a script is told: a promoted iteration takes one, and the next call tells others."""
SLACK_MS = 2_000
"""Ticks are counted from a little before what we think the time is: the store's clock decides, and
may be behind.
"""
OVERDUE_MS = 60_000
"""How late a tick must be at least before it is told, and how late where nobody can say how long
its period is.
"""
PRUNED = "prune"
"""The mark of a schedule that was removed because nobody declared it: a worker that starts and
declares it makes it again, one that was there before does not.
"""

Why = Literal["asked", "start", "check"]
"""Who wants a schedule ensured: somebody on purpose, a worker that starts, or a worker that repairs
what is gone.
"""


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
        alive: Whether that iteration exists and has not ended: nobody makes the next one for a dead
        schedule.
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


@dataclass(frozen=True, slots=True)
class Overdue:
    """A schedule without a next run: somebody has fetched the last one and made none, or it is
    gone.

    Attributes:
        id: Unique within its queue.
        tick_ms: When the run was due, Unix milliseconds.
        late_ms: How long ago that is.
        pattern: The cron expression, empty where it runs in fixed steps.
        tz: Its time zone, empty where it names none.
        gone: Whether the run is gone, or has ended: nobody will make the next one.
    """

    id: str
    tick_ms: int
    late_ms: int
    pattern: str
    tz: str
    gone: bool


def overdue_ms(overdue: Overdue) -> int:
    """How late the run of a schedule that we cannot read may be, in milliseconds: one period, else
    `OVERDUE_MS`.

    The period can be told where it is only the time zone that is not known here.
    """
    try:
        first, second = cron_ticks(overdue.pattern, "UTC", overdue.tick_ms, 2)
    except ValueError:
        return OVERDUE_MS
    return max(second - first, OVERDUE_MS)


def coming_ticks(pattern: str, tz: str, now_ms: int, count: int = COMING) -> list[int]:
    """`[from, tick, tick, …]` in Unix milliseconds: after any moment from `from` on comes the next
    tick in the list.

    Raises:
        ValueError: The pattern cannot be read, or names no day that comes.
    """
    start = now_ms - SLACK_MS
    ticks = cron_ticks(
        pattern, tz or "UTC", start, count
    )  # BullMQ would ask the worker's own zone: no two agree
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

    @property
    def removed_key(self) -> str:
        """The key of the hash that has a field for each declared schedule that an operator has
        removed.

        It is not below the queue's own keys, where BullMQ's `removeOrphanedJobs` would delete it
        (trap T11).
        """
        return f"corral:{self._store.base}removed-schedules"

    async def ensure(self, new: NewSchedule, why: Why = "asked") -> tuple[str, int]:
        """Install a schedule, or leave it exactly as it is where it is the same and alive.

        Of a changed one, a tick that is due already stays and runs; a coming one is replaced. One
        whose chain has ended is resumed. Whatever happens, no more than two iterations have not
        started: one due, and one to come.

        Args:
            new: The schedule.
            why: `asked`: whatever was removed is made again. `start`: one that an operator has
                removed stays removed, until its declaration says another time. `check`: only what
                is gone is made again, and nothing that an operator has removed.

        Returns:
            `untouched`, `made`, `changed` or `resumed`, and its next tick in Unix milliseconds; or
            `different`: in a check, one of another definition that is alive; or `removed`: by an
            operator.

        Raises:
            ValueError: The cron expression cannot be read, or the period is too short.
            CorralError: So many of its coming ticks were promoted by hand that none is left.
            StoreUnavailable: The store is away, or refuses to write.
            ResponseError: A key of the queue is damaged; it is named, and nothing was changed.
        """
        now_ms = int(time.time() * 1000)
        opts = encode_options(new.options, scheduled=True)
        # A check finds almost always what it expects, and then needs no ticks.
        ticks = b"{}" if why == "check" else _encoded_ticks(new.when, now_ms)
        for _ in range(4):
            word, next_ms = await self._store.operate(
                "schedule", new.id, *_rule(new.when), ticks, new.name, new.data, opts, why
            )
            if word != b"unknown":
                return word.decode(), next_ms
            ticks = _encoded_ticks(new.when, next_ms)  # our clock is not the store's
        raise CorralError(
            f"schedule {new.id!r} of queue {self._store.queue!r}: the ticks to come are all taken"
        )

    async def remove(self, schedule_id: str, *, mark: str = "") -> bool:
        """Remove a schedule and its coming iteration; one that waits or runs already is left.

        Args:
            schedule_id: The schedule.
            mark: `PRUNED`, or what `removal` gives: kept in the store, so that no worker takes the
                schedule for lost and makes it again. Only a declared schedule needs one.

        Returns:
            Whether there was one.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        return bool(await self._store.operate("unschedule", schedule_id, mark))

    async def overdue(self) -> list[Overdue]:
        """The schedules whose last run was due more than `OVERDUE_MS` ago, and that have no next
        one.

        Those that wait behind a backlog, in a paused queue, or have ended by their own limit are
        none.

        Raises:
            StoreUnavailable: The store is away.
            ResponseError: A key of the queue is damaged; it is named.
        """
        now_ms, found = await self._store.operate("overdue", OVERDUE_MS)
        return [
            Overdue(
                id=schedule_id.decode(errors="replace"),
                tick_ms=integer(tick),
                late_ms=now_ms - integer(tick),
                pattern=pattern.decode(errors="replace"),
                tz=tz.decode(errors="replace"),
                gone=gone == 1,
            )
            for schedule_id, tick, pattern, tz, gone in found
        ]

    async def advance(self, late: Late) -> bool:
        """Make the next iteration of one that was fetched without it.

        Returns:
            False where the store's clock is too far from ours; ask again.

        Raises:
            ValueError: The cron expression cannot be read.
            StoreUnavailable: The store is away, or refuses to write.
        """
        ticks = encode_ticks(
            {(late.pattern, late.tz): coming_ticks(late.pattern, late.tz, late.at_ms)}
        )
        return not decode_late(await self._store.operate("tick", ticks, late.job_id))

    async def list(self) -> list[StoredSchedule]:
        """Every schedule of the queue, the next to run first.

        Raises:
            StoreUnavailable: The store is away.
        """
        return [
            _stored(*each)
            for each in await call_again(lambda: self._store.operate("schedules", ""))
        ]

    async def get(self, schedule_id: str) -> StoredSchedule | None:
        """One schedule, or None where there is none of this id: programs may have made thousands of
        others.

        Raises:
            StoreUnavailable: The store is away.
        """
        found = await call_again(lambda: self._store.operate("schedules", schedule_id))
        return _stored(*found[0]) if found else None


def removal(when: Cron | Every) -> str:
    """The mark of a declared schedule that an operator has removed: it holds until the declaration
    says otherwise.
    """
    return "\n".join(["remove", *map(str, _rule(when))])


def _rule(when: Cron | Every) -> tuple[int | str, str, str]:
    """A schedule's period in milliseconds, expression and time zone, as the scripts take them."""
    return (period_ms(when), "", "") if isinstance(when, Every) else ("", when.expression, when.tz)


def _encoded_ticks(when: Cron | Every, now_ms: int) -> bytes:
    if isinstance(when, Every):
        return b"{}"
    return encode_ticks(
        {(when.expression, when.tz): coming_ticks(when.expression, when.tz, now_ms)}
    )


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

"""A queue's schedules in the store: BullMQ's job schedulers (wire § 6.21).

A fetch that takes one iteration makes the next one. A script cannot parse a cron expression, so the
worker sends the coming ticks with the fetch (`encode_ticks`).
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
from corral.store.codec import (
    PendingSuccessor,
    decode_pending_successors,
    encode_options,
    integer,
)
from corral.store.keys import removed_schedules_key
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
"""How many coming ticks a call sends: one is used at a time, and the next call sends newer ones."""
SLACK_MS = 2_000
"""From how long before our own time on the ticks are listed.

The store's clock decides which tick is next, and it may be behind ours.
"""
OVERDUE_MS = 60_000
"""How late a tick must be at least before it is reported as overdue.

It is also the limit where the length of the period cannot be computed.
"""
PRUNED = "prune"
"""The mark of a schedule that was removed because no package declares it any more.

A worker that starts and declares it makes it again; a worker that ran before does not.
"""

Why = Literal["asked", "start", "check"]
"""Why a schedule is ensured: a program asked for it, a worker starts, or a worker checks whether it
is lost.
"""


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule to be ensured.

    Attributes:
        id: Unique within its queue. A declared one has the queue's name.
        name: BullMQ's name for its jobs.
        data: The payload of its jobs, strict JSON text.
        options: Of its jobs. A delay has no meaning in them: it is the wait for the tick.
        when: When it runs.
    """

    id: str
    name: str
    data: bytes
    options: JobOptions
    when: Cron | Every


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A job scheduler, made by any client.

    Attributes:
        id: Unique within its queue.
        next_ms: The tick of its current iteration, Unix milliseconds.
        alive: Whether that iteration exists and has not ended. No client makes the next iteration
            of a schedule that is not alive.
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
    """A schedule without a next run: the last one was fetched without making it, or is gone.

    Attributes:
        id: Unique within its queue.
        tick_ms: When the run was due, Unix milliseconds.
        late_ms: How long ago that is.
        pattern: The cron expression, empty where it runs in fixed steps.
        tz: Its time zone, empty where it names none.
        gone: Whether the run is gone, or has ended: no client will make the next one.
    """

    id: str
    tick_ms: int
    late_ms: int
    pattern: str
    tz: str
    gone: bool


def overdue_ms(overdue: Overdue) -> int:
    """How late the run of a schedule that we cannot parse may be, in milliseconds.

    That is one period where only the time zone is unknown here, else `OVERDUE_MS`.
    """
    try:
        first, second = cron_ticks(overdue.pattern, "UTC", overdue.tick_ms, 2)
    except ValueError:
        return OVERDUE_MS
    return max(second - first, OVERDUE_MS)


def coming_ticks(pattern: str, tz: str, now_ms: int, count: int = COMING) -> list[int]:
    """List the coming ticks of a cron expression: `[from, tick, tick, …]` in Unix milliseconds.

    The list has every tick between `from` and its last one.

    Raises:
        ValueError: The pattern cannot be parsed, or matches no future day.
    """
    start = now_ms - SLACK_MS
    ticks = cron_ticks(
        pattern, tz or "UTC", start, count
    )  # BullMQ would ask the worker's own zone: no two agree
    return [start, *ticks]


def encode_ticks(known: Mapping[tuple[str, str], Sequence[int]]) -> bytes:
    """Encode the `coming_ticks` of each `(pattern, tz)` for the scripts, see `lua/iterate.lua`."""
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
        """The hash of the declared schedules that an operator has removed."""
        return removed_schedules_key(self._store.base)

    async def ensure(self, new: NewSchedule, why: Why = "asked") -> tuple[str, int]:
        """Install a schedule, or leave it exactly as it is where it is the same and alive.

        Where a schedule has changed, a tick that is due already stays and runs, and a coming one is
        replaced. A schedule that is not alive is resumed. At most two iterations have not started
        afterwards: one that is due, and one to come.

        Args:
            new: The schedule.
            why: `asked`: a removed schedule is made again. `start`: one that an operator has
                removed stays removed until its declaration names another time. `check`: only a
                schedule that is gone is made again, and none that an operator has removed.

        Returns:
            What was done, and the next tick in Unix milliseconds. `untouched`, `made`, `changed` or
            `resumed`; `different` where a check found a live schedule of another definition;
            `removed` where an operator has removed it.

        Raises:
            ValueError: The cron expression cannot be parsed, or the period is too short.
            CorralError: So many coming ticks were promoted by hand that none is left.
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
        """Remove a schedule and its coming iteration; one that waits or runs already stays.

        Args:
            schedule_id: The schedule.
            mark: `PRUNED`, or the mark of `removal`. It is kept in the store, so that no worker
                takes the schedule for lost and makes it again. Only a declared schedule needs one.

        Returns:
            Whether there was one.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        return bool(await self._store.operate("unschedule", schedule_id, mark))

    async def overdue(self) -> list[Overdue]:
        """The schedules without a next run whose last run was due more than `OVERDUE_MS` ago.

        A run that waits behind a backlog or in a paused queue does not count, nor does a schedule
        that has ended by its own limit.

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

    async def make_successor(self, pending: PendingSuccessor) -> bool:
        """Make the successor of an iteration that was fetched without one.

        Returns:
            False where the store's clock is too far from ours: call it again.

        Raises:
            ValueError: The cron expression cannot be parsed.
            StoreUnavailable: The store is away, or refuses to write.
        """
        rule = pending.pattern, pending.tz
        ticks = encode_ticks({rule: coming_ticks(*rule, pending.after_ms)})
        reply = await self._store.operate("tick", ticks, pending.job_id)
        return not decode_pending_successors(reply)

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
        """One schedule, without reading the others, of which there may be thousands.

        Returns:
            None where no schedule has this id.

        Raises:
            StoreUnavailable: The store is away.
        """
        found = await call_again(lambda: self._store.operate("schedules", schedule_id))
        return _stored(*found[0]) if found else None


def removal(when: Cron | Every) -> str:
    """The mark of a schedule that an operator has removed.

    It holds until the declaration names another time: the mark contains the present one.
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

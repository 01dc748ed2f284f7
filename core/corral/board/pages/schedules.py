"""`/schedules`: what runs by itself, and when next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from corral.app.scheduling import Scheduled, scheduled
from corral.board.context import BoardContext
from corral.board.messages import Page, Redirect, Request
from corral.board.rendering import span
from corral.inspector.stored import moment
from corral.schedule import Cron, Every, cron_ticks
from corral.store.schedules import StoredSchedule

__all__ = ["ShownSchedule", "prune", "show", "ticks_in_words"]

TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class ShownSchedule:
    """A schedule as the board shows it.

    Attributes:
        queue: The queue's name.
        id: Its id within the queue.
        when: In words.
        origin: `declared`, `undeclared` or `runtime`; see `corral.app.scheduling.Scheduled`.
        state: `alive`, `ended`, `removed` by an operator, `damaged`, or `new` where no worker has
            started since it was declared.
        iterations: How many runs there were.
        ticks: The next five.
        told: Why they cannot be told, or empty.
    """

    queue: str
    id: str
    when: str
    origin: str
    state: str
    iterations: int
    ticks: tuple[datetime, ...]
    told: str


async def show(_request: Request, context: BoardContext) -> Page:
    """Every schedule.

    Costs what `corral schedules` does: one read of a queue's schedules, per queue.
    """
    found = await scheduled(context.installed.catalog, context.link, context.prefix)
    return Page(
        "schedules",
        "Schedules",
        {"schedules": [*_shown(found, context)], "now": context.now},
        live=True,
    )


async def prune(_request: Request, context: BoardContext) -> Redirect:
    """Remove the schedules that their queues declare no longer; one script call for each."""
    removed = await scheduled(
        context.installed.catalog, context.link, context.prefix, prune_as=context.who
    )
    return Redirect("/schedules", "pruned", {"n": len(removed)})


def _shown(found: Iterable[Scheduled], context: BoardContext) -> Iterable[ShownSchedule]:
    for each in found:
        stored = each.stored
        if each.damaged:
            told = f"the key {each.damaged}"
            yield ShownSchedule(each.queue, each.queue, "", each.origin, "damaged", 0, (), told)
        elif stored is None:
            when = context.queue(each.queue).schedule
            ticks, told = ticks_in_words(when, context.now)
            if each.removed:
                ticks, told = (
                    (),
                    f"an operator has removed it; corral schedules restore {each.queue} makes it again",
                )
            state = "removed" if each.removed else "new"
            yield ShownSchedule(
                each.queue, each.queue, described(when), each.origin, state, 0, ticks, told
            )
        else:
            ticks, told = _ticks_of(stored, context.now)
            state = "alive" if stored.alive else "ended"
            yield ShownSchedule(
                each.queue,
                stored.id,
                _described(stored),
                each.origin,
                state,
                stored.iterations,
                ticks,
                told,
            )


def described(when: Cron | Every | None) -> str:
    """When something runs, in words."""
    if isinstance(when, Every):
        return f"every {span(when.period)}"
    return f"{when.expression} {when.tz}" if when else ""


def ticks_in_words(when: Cron | Every | None, now: datetime) -> tuple[tuple[datetime, ...], str]:
    """The next ticks of a declaration, and why there are none."""
    if isinstance(when, Cron):
        return _cron(when.expression, when.tz, now)
    return (), "its grid begins with the first worker" if when else ""


def _described(stored: StoredSchedule) -> str:
    if stored.every_ms:
        return f"every {span(stored.every_ms)}"
    return f"{stored.pattern or 'nobody knows when'} {stored.tz or 'UTC'}"


def _ticks_of(stored: StoredSchedule, now: datetime) -> tuple[tuple[datetime, ...], str]:
    if not stored.alive:
        return (), "its last run has ended and nobody made the next"
    if stored.every_ms:
        first = moment(stored.next_ms)
        try:
            step = timedelta(milliseconds=stored.every_ms)
            return tuple(first + step * number for number in range(TICKS)) if first else (), ""
        except OverflowError:
            return (), "no calendar goes so far"
    first = moment(stored.next_ms)
    after, told = _cron(stored.pattern or "", stored.tz or "UTC", max(now, first or now))
    return ((first, *after[: TICKS - 1]) if first else after), told


def _cron(pattern: str, tz: str, after: datetime) -> tuple[tuple[datetime, ...], str]:
    try:
        ticks = cron_ticks(pattern, tz, int(after.timestamp() * 1000), TICKS)
    except ValueError as error:
        return (), str(error)
    return tuple(datetime.fromtimestamp(tick / 1000, UTC) for tick in ticks), ""

"""`/schedules`: the schedules of all queues, and when each runs next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from corral.app.scheduling import ListedSchedule, read_schedules
from corral.board.board_context import BoardContext
from corral.board.messages import BoardPage, BoardRequest, Redirect
from corral.board.page_renderer import duration_in_words
from corral.inspector.stored_job import datetime_from_ms
from corral.schedule import Cron, Every, cron_ticks
from corral.store.schedules import StoredSchedule

__all__ = [
    "ScheduleRow",
    "next_ticks",
    "prune_schedules_from_page",
    "schedule_in_words",
    "show_schedules",
]

TICKS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule as the board shows it.

    Attributes:
        queue: The queue's name.
        id: Its id within the queue.
        when: When it runs, in words.
        origin: `declared`, `undeclared` or `runtime`; see `corral.app.scheduling.ListedSchedule`.
        state: `alive`; `ended`; `removed` by an operator; `damaged`; or `new` if no worker has
            started since it was declared.
        iterations: How many runs it has had.
        ticks: The next five runs.
        problem: Why the next runs are not known, or empty.
    """

    queue: str
    id: str
    when: str
    origin: str
    state: str
    iterations: int
    ticks: tuple[datetime, ...]
    problem: str


async def show_schedules(_request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show every schedule; costs one read per queue, as `corral schedules` does."""
    schedules = await read_schedules(context.installed.catalog, context.link, context.prefix)
    values = {
        "schedules": [_build_row(each, context) for each in schedules],
        "now": context.now,
    }
    return BoardPage("schedules", "Schedules", values, live=True)


async def prune_schedules_from_page(_request: BoardRequest, context: BoardContext) -> Redirect:
    """Remove the schedules that their queues no longer declare; costs one script call for each."""
    removed = await read_schedules(
        context.installed.catalog, context.link, context.prefix, prune_as=context.who
    )
    return Redirect("/schedules", "pruned", {"n": len(removed)})


def _build_row(each: ListedSchedule, context: BoardContext) -> ScheduleRow:
    if each.damaged:
        problem = f"the key {each.damaged}"
        return ScheduleRow(each.queue, each.queue, "", each.origin, "damaged", 0, (), problem)
    if each.stored is None:
        return _build_unstored_row(each, context)
    ticks, problem = _stored_ticks(each.stored, context.now)
    return ScheduleRow(
        queue=each.queue,
        id=each.stored.id,
        when=_stored_in_words(each.stored),
        origin=each.origin,
        state="alive" if each.stored.alive else "ended",
        iterations=each.stored.iterations,
        ticks=ticks,
        problem=problem,
    )


def _build_unstored_row(each: ListedSchedule, context: BoardContext) -> ScheduleRow:
    """The row of a declared schedule that is not in the store: it is new, or was removed."""
    declared = context.queue(each.queue).schedule
    ticks: tuple[datetime, ...] = ()
    if each.removed:
        state = "removed"
        problem = f"removed by an operator; to add it again: corral schedules restore {each.queue}"
    else:
        state = "new"
        ticks, problem = next_ticks(declared, context.now)
    when = schedule_in_words(declared)
    return ScheduleRow(each.queue, each.queue, when, each.origin, state, 0, ticks, problem)


def schedule_in_words(schedule: Cron | Every | None) -> str:
    """When a declared schedule runs, in words; empty without one."""
    if isinstance(schedule, Every):
        return f"every {duration_in_words(schedule.period)}"
    return f"{schedule.expression} {schedule.tz}" if schedule else ""


def next_ticks(schedule: Cron | Every | None, now: datetime) -> tuple[tuple[datetime, ...], str]:
    """The next runs of a declared schedule; if they are not known, none, and why."""
    if isinstance(schedule, Cron):
        return _cron_ticks(schedule.expression, schedule.tz, now)
    return (), "the first worker that starts decides when it runs" if schedule else ""


def _stored_in_words(stored: StoredSchedule) -> str:
    if stored.every_ms:
        return f"every {duration_in_words(stored.every_ms)}"
    return f"{stored.pattern or 'no interval and no cron expression'} {stored.tz or 'UTC'}"


def _stored_ticks(stored: StoredSchedule, now: datetime) -> tuple[tuple[datetime, ...], str]:
    """The next runs of a schedule in the store; if they are not known, none, and why."""
    if not stored.alive:
        return (), "its last run has ended, and no next run was made"
    first = datetime_from_ms(stored.next_ms)
    if stored.every_ms:
        try:
            step = timedelta(milliseconds=stored.every_ms)
            ticks = [first + step * number for number in range(TICKS_SHOWN)] if first else []
        except OverflowError:
            return (), "its next runs are later than the year 9999"
        return tuple(ticks), ""
    after, problem = _cron_ticks(stored.pattern or "", stored.tz or "UTC", max(now, first or now))
    return ((first, *after[: TICKS_SHOWN - 1]) if first else after), problem


def _cron_ticks(pattern: str, tz: str, after: datetime) -> tuple[tuple[datetime, ...], str]:
    try:
        ticks = cron_ticks(pattern, tz, int(after.timestamp() * 1000), TICKS_SHOWN)
    except ValueError as error:
        return (), str(error)
    return tuple(datetime.fromtimestamp(tick / 1000, UTC) for tick in ticks), ""

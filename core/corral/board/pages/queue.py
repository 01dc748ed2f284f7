"""`/queues/{queue}`: one queue: its figures, its failures by reason, and its jobs, a row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from corral.board.context import BoardContext
from corral.board.job_view import shown
from corral.board.messages import Page, Refused, Request, whole
from corral.board.pages.failing import failures_shown, summary_shown
from corral.board.pages.queue_status import at_work, queue_status_of, workers_seen
from corral.board.pages.searching import seek, sought
from corral.fleet.minutes import Minute
from corral.inspector import STATES, DamagedKey, State, Summary
from corral.inspector import Page as Jobs

__all__ = ["PAGE", "show"]

PAGE: Final = 50
"""Jobs on one page."""
FAILURES_SECONDS: Final = 15.0
"""How old the reasons may be: they cost the store more commands than all the rest of the page."""
FURTHEST: Final = 1_000_000
"""How far somebody may turn the pages: a number that is longer is a slip or an attack."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where in a list a page is.

    Attributes:
        start: How many jobs are before it.
        shown: How many it has.
        total: How many there are.
    """

    start: int
    shown: int
    total: int

    @property
    def before(self) -> int | None:
        """Where the page before begins, or None."""
        return max(0, self.start - PAGE) if self.start else None

    @property
    def after(self) -> int | None:
        """Where the page behind begins, or None."""
        return self.start + PAGE if self.start + self.shown < self.total else None


async def show(request: Request, context: BoardContext) -> Page:
    """A queue, and its jobs of one state.

    Costs three script calls for the figures and the reasons of failures, bounded by the last 500 of
    these, one for each reason that is shown, one for `PAGE` jobs, and what `JobInspector.workers`
    costs; a search costs what `JobInspector.search` does instead.
    """
    queue = context.queue(request.parts["queue"])
    name = queue.name
    summary = await context.recent.get(("summary", name), lambda: summary_shown(context, name))
    workers, damaged = await workers_seen(context)
    key: tuple[Any, ...] = (
        "failures",
        name,
        bool(summary.counts["failed"]),
    )  # the first failure is told of at once
    failures, others = await context.recent.get(
        key, lambda: failures_shown(context, name), seconds=FAILURES_SECONDS
    )
    queue_status = queue_status_of(
        summary, None if workers is None else at_work(workers), context.now
    )
    state = _state(request.query.get("state"), summary)
    minutes, broken = await _minutes(context, name)
    wanted = sought(request.query)
    values: dict[str, Any] = {
        "queue": name,
        "queue_status": queue_status,
        "summary": summary,
        "provider": str(context.catalog.get(name).provider),
        "failures": failures,
        "other_failures": others,
        "history": _history(summary, minutes, context.now),
        "states": STATES,
        "state": state,
        "damaged": [*summary.damaged, *damaged, *broken],
        "sought": wanted,
        "now": context.now,
    }
    if wanted:
        found = await seek(context, name, wanted, state if request.query.get("state") else None)
        values |= {"jobs": found.jobs, "found": found, "turn": None}
    else:
        start = whole(request.query.get("start", "0"), "where a page starts", most=FURTHEST)
        key = "list", name, state, start
        try:
            page = await context.recent.get(
                key, lambda: context.inspector.list(name, state, start=start, limit=PAGE)
            )
        except DamagedKey as error:
            page, values["damaged"] = (
                Jobs([], 0, start),
                [*dict.fromkeys([*values["damaged"], *error.damaged])],
            )
        jobs = [shown(each, queue, context.now) for each in page.jobs]
        values["damaged"] += page.damaged
        values |= {"jobs": jobs, "found": None, "turn": Turn(start, len(jobs), page.total)}
    return Page("queue", name, values, live=not wanted)


async def _minutes(context: BoardContext, queue: str) -> tuple[Sequence[Minute], tuple[str, ...]]:
    """How long jobs waited and ran; or nothing, and what is wrong with the key that tells it."""

    async def read() -> Sequence[Minute]:
        async with context.inspector.naming_damage(queue):
            return await context.minutes(queue)

    try:
        return await context.recent.get(("minutes", queue), read), ()
    except DamagedKey as error:
        return (), error.damaged


def _state(given: str | None, summary: Summary) -> State:
    """The state that was asked for, else that which an operator would ask for: what failed, what
    runs, what waits.
    """
    if given:
        state = next((state for state in STATES if state == given), None)
        if state is None:
            raise Refused(
                400, f"there is no state {given[:40]!r}", f"these are: {', '.join(STATES)}"
            )
        return state
    first: tuple[State, ...] = (
        "failed",
        "active",
        "waiting",
        "prioritized",
        "delayed",
        "waiting-children",
    )
    return next((state for state in first if summary.counts[state]), "completed")


def _history(summary: Summary, minutes: Any, now: datetime) -> dict[str, Any]:
    """The last hour, minute by minute, for the charts: `{from: Unix seconds of the first minute,
    lists of numbers}`.
    """
    count = len(summary.completed_per_minute)
    this = int(now.timestamp()) // 60
    by_minute = {int(each.at.timestamp()) // 60: each for each in minutes}
    spans = [by_minute.get(this - count + 1 + at) for at in range(count)]
    return {
        "from": (this - count + 1) * 60,
        "completed": list(summary.completed_per_minute),
        "failed": list(summary.failed_per_minute),
        "wait": [each and each.mean_wait_ms for each in spans],
        "run": [each and each.mean_run_ms for each in spans],
    }

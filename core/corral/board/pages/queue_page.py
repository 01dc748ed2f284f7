"""`/queues/{queue}`: one queue: its figures, its failures by reason, and its jobs, a row each."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from corral.board.board_context import BoardContext
from corral.board.job_view import build_job_view
from corral.board.messages import BoardPage, BoardRequest, RequestRefused, parse_whole_number
from corral.board.pages.failure_reasons import (
    MAX_REASONS,
    read_failure_groups,
    read_masked_summary,
)
from corral.board.pages.queue_status import build_queue_status, live_workers, read_cached_workers
from corral.board.pages.search_page import SearchQuery, parse_search_query, search_queue
from corral.fleet.minutes import Minute
from corral.inspector import DamagedKey, JobPage, QueueSummary
from corral.job_state import JobState
from corral.queue import Queue

__all__ = ["JOBS_PER_PAGE", "Pagination", "show_queue"]

JOBS_PER_PAGE: Final = 50
FAILURES_SECONDS: Final = 15.0
"""How long the reasons of failures are reused: they cost more than the rest of the page."""
RETRYING: Final = "retrying"
"""Beside the states: the delayed jobs that have failed attempts."""
MAX_START: Final = 1_000_000
"""How far into a list a page may start; a larger number is a mistake or an attack."""


@dataclass(frozen=True, slots=True)
class Pagination:
    """Which part of a list a page shows.

    Attributes:
        start: How many jobs come before this page.
        shown: How many jobs this page shows.
        total: How many jobs there are.
        is_bound: Whether there may be more.
    """

    start: int
    shown: int
    total: int
    is_bound: bool = False

    @property
    def previous(self) -> int | None:
        """The start of the previous page, or None on the first one."""
        return max(0, self.start - JOBS_PER_PAGE) if self.start else None

    @property
    def next(self) -> int | None:
        """The start of the next page, or None on the last one."""
        return self.start + JOBS_PER_PAGE if self.start + self.shown < self.total else None


async def show_queue(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show a queue, and its jobs of one state or those that a search finds.

    Costs three script calls for the figures and the reasons of the last 500 failures, one for each
    reason that is shown, and one `JobInspector.workers`. To these comes one call for
    `JOBS_PER_PAGE` jobs, or one `JobInspector.search`.
    """
    queue = context.queue(request.parts["queue"])
    name = queue.name
    summary = await context.cache.get(("summary", name), lambda: read_masked_summary(context, name))
    workers, damaged_workers = await read_cached_workers(context)
    # whether there are failures is part of the key, so that the first one is shown at once
    key = ("failures", name, bool(summary.counts[JobState.FAILED]))
    failures, other_failures = await context.cache.get(
        key, lambda: read_failure_groups(context, name), seconds=FAILURES_SECONDS
    )
    running = None if workers is None else live_workers(workers)
    search = parse_search_query(request.query)
    given = request.query.get("state")
    is_retrying = given == RETRYING and not search
    state = _choose_state("delayed" if given == RETRYING else given, summary)
    minutes, damaged_minutes = await _read_minutes(context, name)
    values: dict[str, Any] = {
        "queue": name,
        "queue_status": build_queue_status(summary, running, context.now),
        "summary": summary,
        "provider": str(context.catalog.get(name).provider),
        "failures": failures,
        "other_failures": other_failures,
        "history": _build_history(summary, minutes, context.now),
        "states": tuple(JobState),
        "state": state,
        "shown_state": RETRYING if is_retrying else state,
        "most_reasons": MAX_REASONS,
        "damaged": [*summary.damaged, *damaged_workers, *damaged_minutes],
        "search": search,
        "now": context.now,
    }
    if search:
        values |= await _search_jobs(request, context, name, search, state)
    else:
        values |= await _list_jobs(
            request, context, queue, RETRYING if is_retrying else state, values["damaged"]
        )
    return BoardPage("queue", name, values, live=not search)


async def _search_jobs(
    request: BoardRequest, context: BoardContext, name: str, search: SearchQuery, state: JobState
) -> dict[str, Any]:
    """The values of the page for a search: in one state if the address names it, else in all."""
    result = await search_queue(
        context, name, search, state if request.query.get("state") else None
    )
    return {"jobs": result.jobs, "result": result, "pagination": None}


async def _list_jobs(
    request: BoardRequest,
    context: BoardContext,
    queue: Queue[Any],
    state: str,
    damaged: Iterable[str],
) -> dict[str, Any]:
    """The values of the page for the jobs of one state, or for those that are retrying.

    There are none if the state's key is damaged.
    """
    start = parse_whole_number(
        request.query.get("start", "0"), "the start of a page", most=MAX_START
    )

    def read() -> Coroutine[Any, Any, JobPage]:
        looking, limit = context.inspector, JOBS_PER_PAGE
        if state == RETRYING:
            return looking.list_retrying(queue.name, start=start, limit=limit)
        return looking.list(queue.name, JobState(state), start=start, limit=limit)

    try:
        page = await context.cache.get(("list", queue.name, state, start), read)
    except DamagedKey as error:
        page = JobPage([], 0, start)
        damaged = dict.fromkeys([*damaged, *error.damaged])
    return {
        "jobs": [build_job_view(each, queue, context.now) for each in page.jobs],
        "result": None,
        "pagination": Pagination(start, len(page.jobs), page.total, page.is_bound),
        "damaged": [*damaged, *page.damaged],
    }


async def _read_minutes(
    context: BoardContext, queue: str
) -> tuple[Sequence[Minute], tuple[str, ...]]:
    """How long jobs waited and ran, per minute; if its key is damaged, nothing, and the key."""

    async def read() -> Sequence[Minute]:
        async with context.inspector.report_damage(queue):
            return await context.read_chart_minutes(queue)

    try:
        return await context.cache.get(("minutes", queue), read), ()
    except DamagedKey as error:
        return (), error.damaged


def _choose_state(given: str | None, summary: QueueSummary) -> JobState:
    """The state in the address; else the first of those an operator looks at that has jobs.

    Raises:
        RequestRefused: There is no state of that name.
    """
    if given:
        state = next((state for state in JobState if state == given), None)
        if state is None:
            raise RequestRefused(
                400, f"there is no state {given[:40]!r}", f"these are: {', '.join(JobState)}"
            )
        return state
    by_interest: tuple[JobState, ...] = (
        JobState.FAILED,
        JobState.ACTIVE,
        JobState.WAITING,
        JobState.PRIORITIZED,
        JobState.DELAYED,
        JobState.WAITING_CHILDREN,
    )
    return next((state for state in by_interest if summary.counts[state]), JobState.COMPLETED)


def _build_history(
    summary: QueueSummary, minutes: Sequence[Minute], now: datetime
) -> dict[str, Any]:
    """The last hour for the charts.

    Returns:
        `from`, the first minute in Unix seconds, and one list of numbers per line of a chart:
        jobs per minute, or mean milliseconds with None for a minute without a run.
    """
    count = len(summary.completed_per_minute)
    this_minute = int(now.timestamp()) // 60
    by_minute = {int(each.at.timestamp()) // 60: each for each in minutes}
    hour = [by_minute.get(this_minute - count + 1 + at) for at in range(count)]
    return {
        "from": (this_minute - count + 1) * 60,
        "completed": list(summary.completed_per_minute),
        "failed": list(summary.failed_per_minute),
        "attempts": list(summary.failed_attempts_per_minute),
        "wait": [each and each.mean_wait_ms for each in hour],
        "run": [each and each.mean_run_ms for each in hour],
    }

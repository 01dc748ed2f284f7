"""Actions on many jobs of a queue: on the selected ones, or on all that match."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from corral.board.board_context import BoardContext
from corral.board.messages import BoardPage, BoardRequest, Redirect, RequestRefused
from corral.board.pages.job_page import confirmation_values, page_path
from corral.board.pages.search_page import SearchQuery, parse_search_query, search_queue
from corral.inspector import (
    CurrentIteration,
    DamagedKey,
    JobLocked,
    JobNotFound,
    WrongState,
)
from corral.job_state import JobState

__all__ = ["promote_jobs", "remove_jobs", "retry_jobs"]

MAX_CHANGED: Final = 10_000
"""How many jobs one request changes: each is a script call, and a person waits for the answer."""
READ_AT_ONCE: Final = 100

Change = Callable[[str, str], Awaitable[None]]
"""Changes one job, by queue and id."""
ChangeAll = Callable[[str], Awaitable[int]]
"""Changes all jobs of one state in a queue; returns how many there were."""


@dataclass(frozen=True, slots=True)
class JobSelection:
    """The jobs of a queue that an action is for.

    Attributes:
        queue: The queue's name.
        ids: The ids that were selected.
        is_all: Whether it is for all jobs that match: the search, or else the state.
        search: The search, or None.
        state: The state, or None for a search in all states.
    """

    queue: str
    ids: Sequence[str]
    is_all: bool
    search: SearchQuery | None
    state: JobState | None

    @property
    def whole_state(self) -> JobState | None:
        """The state, if the action is for all of its jobs; else None."""
        return self.state if self.is_all and self.search is None else None


async def retry_jobs(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Let failed or completed jobs wait again.

    Costs a script call per job, or per 500 jobs for all that failed.
    """
    inspector = context.inspector
    at_once = {JobState.FAILED: inspector.retry_all_failed}
    return await _confirm_or_change(request, context, "Retry", inspector.retry, at_once)


async def promote_jobs(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Let delayed jobs wait from now on.

    Costs a script call per job, or per 500 jobs for all that are delayed.
    """
    inspector = context.inspector
    at_once = {JobState.DELAYED: inspector.promote_all}
    return await _confirm_or_change(request, context, "Promote", inspector.promote, at_once)


async def remove_jobs(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Remove jobs; costs a script call per job."""
    return await _confirm_or_change(request, context, "Remove", context.inspector.remove, {})


_NOTICES: Final = {"Retry": "retried", "Promote": "promoted", "Remove": "removed"}


async def _confirm_or_change(
    request: BoardRequest,
    context: BoardContext,
    verb: str,
    change: Change,
    at_once: Mapping[JobState, ChangeAll],
) -> Redirect | BoardPage:
    """Ask for confirmation; once confirmed, change the jobs.

    Args:
        request: The request.
        context: The context.
        verb: The action's name on the page.
        change: Changes one job.
        at_once: Changes all jobs of a state, by state, where there is a faster way.
    """
    selection = _parse_selection(request, context)
    if not request.first("confirmed"):
        return await _confirmation_page(request, context, selection, verb)
    state = selection.whole_state
    if state is not None and (change_all := at_once.get(state)):
        count = await change_all(selection.queue)
        return Redirect(page_path(selection.queue), _NOTICES[verb], {"n": count})
    return await _change_each(context, selection, _NOTICES[verb], change)


def _parse_selection(request: BoardRequest, context: BoardContext) -> JobSelection:
    """The selection that the form has sent.

    Raises:
        RequestRefused: It selects no job.
    """
    name = context.queue(request.parts["queue"]).name
    state = next((state for state in JobState if state == request.first("state")), None)
    is_all = bool(request.first("all"))
    search = parse_search_query({"q": request.first("q")}) if is_all else None
    ids = request.form.get("id", ())
    if not is_all and not ids:
        raise RequestRefused(400, "no job was selected", "select some jobs, or all that match")
    if is_all and search is None and state is None:
        raise RequestRefused(
            400, "all jobs were selected, but no state", "choose a state or a search"
        )
    return JobSelection(name, ids, is_all, search, state)


async def _confirmation_page(
    request: BoardRequest, context: BoardContext, selection: JobSelection, verb: str
) -> BoardPage:
    """The page that asks before anything is changed, and says how many jobs it would be."""
    queue, state = selection.queue, selection.state
    if not selection.is_all:
        count = len(selection.ids)
        which = f"{count} {'job' if count == 1 else 'jobs'} of {queue}"
    elif selection.search is not None:
        count = len(await _list_ids(context, selection))
        first = f", the first {MAX_CHANGED}" if count == MAX_CHANGED else ""
        jobs = f"{state} jobs" if state else "jobs"
        which = f"{count} {jobs} of {queue} that match \u201c{selection.search.text}\u201d{first}"
    else:
        counted = state or JobState.WAITING
        count = (await context.inspector.counts(queue, (counted,)))[counted]
        which = f"all {count} {counted} jobs of {queue}"
    values = confirmation_values(request, f"{verb} {which}?", page_path(queue), verb)
    return BoardPage("confirm", f"{verb} jobs?", values)


async def _change_each(
    context: BoardContext, selection: JobSelection, notice: str, change: Change
) -> Redirect:
    """Change one job after the other; jobs whose state has changed meanwhile are left alone."""
    changed = left = 0
    ids = await _list_ids(context, selection) if selection.is_all else selection.ids[:MAX_CHANGED]
    for job_id in ids:
        try:
            await change(selection.queue, job_id)
        except (JobNotFound, WrongState, JobLocked, CurrentIteration, DamagedKey):
            left += 1
        else:
            changed += 1
    if left and not changed:
        return Redirect(page_path(selection.queue), "left", {"n": left})
    return Redirect(page_path(selection.queue), notice, {"n": changed})


async def _list_ids(context: BoardContext, selection: JobSelection) -> Sequence[str]:
    """The ids of all jobs that match.

    They are all read before the first change: a change moves the positions of those behind it.
    """
    ids: list[str] = []
    if selection.search is not None:
        after: str | None = None
        while len(ids) < MAX_CHANGED:
            query = SearchQuery(selection.search.text, selection.search.field, after)
            result = await search_queue(context, selection.queue, query, selection.state)
            ids += [job.stored.id for job in result.jobs]
            after = result.next
            if after is None:
                break
    elif selection.state is not None:
        while len(ids) < MAX_CHANGED:
            page = await context.inspector.list(
                selection.queue, selection.state, start=len(ids), limit=READ_AT_ONCE
            )
            ids += [job.id for job in page.jobs]
            if len(page.jobs) < READ_AT_ONCE:
                break
    return ids[:MAX_CHANGED]

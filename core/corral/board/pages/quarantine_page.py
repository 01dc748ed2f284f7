"""`/queues/{queue}/quarantine`: what workers have put aside because it is not a usable job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from corral.board.board_context import BoardContext
from corral.board.messages import (
    BoardPage,
    BoardRequest,
    Redirect,
    RequestRefused,
    parse_whole_number,
)
from corral.board.pages.job_page import confirmation_values, page_path
from corral.board.pages.queue_page import JOBS_PER_PAGE, Pagination
from corral.inspector.quarantine import MOST_START
from corral.redactor import Redactor

__all__ = ["discard_quarantined_jobs", "return_quarantined_jobs", "show_quarantine"]

MAX_AT_ONCE: Final = 10_000
"""How many jobs one request returns or discards: a person waits for the answer."""


async def show_quarantine(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show one page of the quarantine, the latest entry first; costs one script call."""
    name = context.queue(request.parts["queue"]).name
    typed = request.query.get("start", "0")
    start = parse_whole_number(typed, "the start of a page", most=MOST_START)
    page = await context.inspector.list_quarantined(name, start=start, limit=JOBS_PER_PAGE)
    redactor = Redactor()  # other programs can write to this store, too
    jobs = [replace(each, reason=redactor.text(each.reason)) for each in page.jobs]
    values = {
        "queue": name,
        "jobs": jobs,
        "total": page.total,
        "pagination": Pagination(start, len(jobs), page.total),
        "now": context.now,
    }
    return BoardPage("quarantine", f"{name}: quarantine", values, live=True)


async def return_quarantined_jobs(
    request: BoardRequest, context: BoardContext
) -> Redirect | BoardPage:
    """Let jobs wait again once that is confirmed; costs a script call per 20 jobs."""
    name, ids = _parse_selection(request, context)
    path = _quarantine_path(name)
    if not request.first("confirmed"):
        question = f"Let {await _which(context, name, ids)} wait again?"
        values = confirmation_values(request, question, path, "Return")
        return BoardPage("confirm", "Return from quarantine?", values)
    inspector = context.inspector
    results = await (
        inspector.return_all_quarantined(name)
        if ids is None
        else inspector.return_quarantined(name, ids[:MAX_AT_ONCE])
    )
    returned = [each for each in results if each.job_id is not None]
    if len(results) == len(returned) == 1 and returned[0].job_id != returned[0].id:
        return Redirect(path, "renamed", {"id": str(returned[0].job_id)})
    if results and not returned:
        return Redirect(path, "stayed", {"n": len(results)})
    return Redirect(path, "returned", {"n": len(returned)})


async def discard_quarantined_jobs(
    request: BoardRequest, context: BoardContext
) -> Redirect | BoardPage:
    """Remove jobs and their keys once that is confirmed; costs a script call per 500 jobs."""
    name, ids = _parse_selection(request, context)
    path = _quarantine_path(name)
    if not request.first("confirmed"):
        question = f"Remove {await _which(context, name, ids)}, and what is kept of them?"
        values = confirmation_values(request, question, path, "Discard")
        return BoardPage("confirm", "Discard from quarantine?", values)
    inspector = context.inspector
    if ids is None:
        discarded = await inspector.discard_all_quarantined(name)
    else:
        discarded = len(await inspector.discard_quarantined(name, ids[:MAX_AT_ONCE]))
    return Redirect(path, "discarded", {"n": discarded})


def _quarantine_path(queue: str) -> str:
    return f"{page_path(queue)}/quarantine"


def _parse_selection(
    request: BoardRequest, context: BoardContext
) -> tuple[str, Sequence[str] | None]:
    """The queue's name and the selected ids; None for all.

    Raises:
        RequestRefused: No job was selected.
    """
    name = context.queue(request.parts["queue"]).name
    ids = request.form.get("id", ())
    if request.first("all"):
        return name, None
    if not ids:
        raise RequestRefused(400, "no job was selected", "select some jobs, or all")
    return name, ids


async def _which(context: BoardContext, queue: str, ids: Sequence[str] | None) -> str:
    """The selected jobs in words, for a question."""
    if ids is None:
        total = (await context.inspector.list_quarantined(queue, limit=1)).total
        return f"all {total} in quarantine of {queue}"
    return f"{len(ids)} {'job' if len(ids) == 1 else 'jobs'} in quarantine of {queue}"

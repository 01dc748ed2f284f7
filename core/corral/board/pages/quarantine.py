"""`/queues/{queue}/quarantine`: what workers have put aside because it cannot be a job as it
stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from corral.board.context import BoardContext
from corral.board.messages import Page, Redirect, Refused, Request, whole
from corral.board.pages.job import confirmation, path_of
from corral.board.pages.queue import PAGE, Turn
from corral.inspector.quarantine import MOST_START
from corral.redactor import Redactor

__all__ = ["discard_chosen", "return_chosen", "show"]

MOST: Final = 10_000
"""How many are done at once: somebody waits for the answer."""


async def show(request: Request, context: BoardContext) -> Page:
    """One page of `PAGE`, what came last first; one script call."""
    name = context.queue(request.parts["queue"]).name
    start = whole(request.query.get("start", "0"), "where a page starts", most=MOST_START)
    page = await context.inspector.quarantined(name, start=start, limit=PAGE)
    redactor = Redactor()  # whoever writes into the store may have written here, too
    jobs = [replace(each, reason=redactor.text(each.reason)) for each in page.jobs]
    turn = Turn(start, len(jobs), page.total)
    values = {"queue": name, "jobs": jobs, "total": page.total, "turn": turn, "now": context.now}
    return Page("quarantine", f"{name}: in quarantine", values, live=True)


async def return_chosen(request: Request, context: BoardContext) -> Redirect | Page:
    """Let jobs wait again, when that was confirmed; a script call per 20 jobs."""
    name, ids = _chosen(request, context)
    if not request.first("confirmed"):
        told = f"Let {await _which(context, name, ids)} wait again?"
        return Page(
            "confirm", "Return from quarantine?", confirmation(request, told, _path(name), "Return")
        )
    inspector = context.inspector
    found = await (
        inspector.return_all_quarantined(name)
        if ids is None
        else inspector.return_quarantined(name, ids[:MOST])
    )
    back = [each for each in found if each.job_id is not None]
    if len(found) == len(back) == 1 and back[0].job_id != back[0].id:
        return Redirect(_path(name), "renamed", {"id": str(back[0].job_id)})
    if found and not back:
        return Redirect(_path(name), "stayed", {"n": len(found)})
    return Redirect(_path(name), "returned", {"n": len(back)})


async def discard_chosen(request: Request, context: BoardContext) -> Redirect | Page:
    """Remove jobs, with what is kept of them, when that was confirmed; a script call per 500 jobs."""
    name, ids = _chosen(request, context)
    if not request.first("confirmed"):
        told = f"Remove {await _which(context, name, ids)} with what is kept of them?"
        return Page(
            "confirm",
            "Discard from quarantine?",
            confirmation(request, told, _path(name), "Discard"),
        )
    inspector = context.inspector
    if ids is None:
        gone = await inspector.discard_all_quarantined(name)
    else:
        gone = len(await inspector.discard_quarantined(name, ids[:MOST]))
    return Redirect(_path(name), "discarded", {"n": gone})


def _path(queue: str) -> str:
    return f"{path_of(queue)}/quarantine"


def _chosen(request: Request, context: BoardContext) -> tuple[str, Sequence[str] | None]:
    """The queue, and the ids that were ticked; None for all.

    Raises:
        Refused: Nothing was.
    """
    name = context.queue(request.parts["queue"]).name
    ids = request.form.get("id", ())
    if request.first("all"):
        return name, None
    if not ids:
        raise Refused(400, "no job was chosen", "tick some, or choose all")
    return name, ids


async def _which(context: BoardContext, queue: str, ids: Sequence[str] | None) -> str:
    if ids is None:
        return f"all {(await context.inspector.quarantined(queue, limit=1)).total} in quarantine of {queue}"
    return f"{len(ids)} {'job' if len(ids) == 1 else 'jobs'} in quarantine of {queue}"

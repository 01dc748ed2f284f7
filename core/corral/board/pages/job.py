"""`/queues/{queue}/jobs/{id}`: one job: what happened to it, what it carries, what it said."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from corral.board.context import BoardContext
from corral.board.job_view import occurrences_shown, shown, texts_shown
from corral.board.messages import Page, Redirect, Request, whole

__all__ = ["logs", "path_of", "promote", "remove", "retry", "show"]

TAIL: Final = 200
"""Log lines on the job's page: its last ones."""
MOST_LINES: Final = 1000
"""Log lines on one page of the log."""


def path_of(queue: str, job_id: str = "") -> str:
    """The path of a queue's page or, with an id, of a job's."""
    base = f"/queues/{quote(queue, safe='')}"
    return f"{base}/jobs/{quote(job_id, safe='')}" if job_id else base


async def show(request: Request, context: BoardContext) -> Page:
    """A job.

    Costs one script call, one or two reads of the event log (at most 2,000 entries), and one of
    `TAIL` log lines.
    """
    queue = context.queue(request.parts["queue"])
    stored = await context.inspector.get(queue.name, request.parts["job_id"])
    lines = (
        await context.inspector.logs(queue.name, stored.id, start=-TAIL, limit=TAIL)
        if stored.log_lines
        else []
    )
    values = {
        "queue": queue.name,
        "job": shown(stored, queue, context.now),
        "timeline": occurrences_shown(
            stored, queue, await context.inspector.timeline(queue.name, stored)
        ),
        "lines": texts_shown(stored, queue, lines),
        "first_line": max(0, (stored.log_lines or 0) - len(lines)),
        "now": context.now,
    }
    return Page("job", f"{queue.name} {stored.id}", values, live=True)


async def logs(request: Request, context: BoardContext) -> Page:
    """A job's log, `MOST_LINES` lines a page.

    Costs one script call and one read of so many lines.
    """
    queue = context.queue(request.parts["queue"])
    start = whole(request.query.get("start", "0"), "where a page starts")
    stored = await context.inspector.get(queue.name, request.parts["job_id"])
    lines = await context.inspector.logs(queue.name, stored.id, start=start, limit=MOST_LINES)
    values = {
        "queue": queue.name,
        "job": shown(stored, queue, context.now),
        "lines": texts_shown(stored, queue, lines),
        "start": start,
        "total": stored.log_lines or 0,
        "step": MOST_LINES,
    }
    return Page("logs", f"log of {stored.id}", values)


async def retry(request: Request, context: BoardContext) -> Redirect:
    """Let a failed or completed job wait again; one script call."""
    queue, job_id = _named(request, context)
    await context.inspector.retry(queue, job_id, reset=bool(request.first("reset")))
    return Redirect(path_of(queue, job_id), "retried", {"n": 1})


async def promote(request: Request, context: BoardContext) -> Redirect:
    """Let a delayed job wait from now on; one script call."""
    queue, job_id = _named(request, context)
    await context.inspector.promote(queue, job_id)
    return Redirect(path_of(queue, job_id), "promoted", {"n": 1})


async def remove(request: Request, context: BoardContext) -> Redirect | Page:
    """Remove a job, when that was confirmed; one or two script calls."""
    queue, job_id = _named(request, context)
    if not request.first("confirmed"):
        stored = await context.inspector.get(queue, job_id)
        told = f"Remove job {stored.id}, which is {stored.state or 'in no list'}?"
        return Page(
            "confirm",
            "Remove a job?",
            confirmation(request, told, path_of(queue, job_id), "Remove"),
        )
    await context.inspector.remove(queue, job_id)
    return Redirect(path_of(queue), "removed", {"n": 1})


def confirmation(request: Request, told: str, back: str, verb: str) -> dict[str, object]:
    """What the page that asks once more shows: the question, and the same form again."""
    fields = [
        (name, value) for name, values in request.form.items() if name != "csrf" for value in values
    ]
    return {"told": told, "back": back, "verb": verb, "fields": fields}


def _named(request: Request, context: BoardContext) -> tuple[str, str]:
    return context.queue(request.parts["queue"]).name, request.parts["job_id"]

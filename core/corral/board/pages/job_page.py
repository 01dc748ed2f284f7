"""`/queues/{queue}/jobs/{id}`: one job: its timeline, its payload, its errors and its log."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from corral.board.board_context import BoardContext
from corral.board.job_view import build_job_view, masked_occurrences, masked_texts
from corral.board.messages import BoardPage, BoardRequest, Redirect, parse_whole_number

__all__ = [
    "confirmation_values",
    "page_path",
    "promote_job",
    "remove_job",
    "retry_job",
    "show_job",
    "show_job_log",
]

TAIL_LINES: Final = 200
"""Log lines on the job's page: the last ones."""
LINES_PER_PAGE: Final = 1000
"""Log lines on one page of the log."""


def page_path(queue: str, job_id: str = "") -> str:
    """The path of a queue's page, or of a job's page where an id is given."""
    base = f"/queues/{quote(queue, safe='')}"
    return f"{base}/jobs/{quote(job_id, safe='')}" if job_id else base


async def show_job(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show a job.

    Costs one script call, one or two reads of the event log (at most 2,000 entries), and one read
    of `TAIL_LINES` log lines.
    """
    queue = context.queue(request.parts["queue"])
    stored = await context.inspector.get(queue.name, request.parts["job_id"])
    lines = (
        await context.inspector.logs(queue.name, stored.id, start=-TAIL_LINES, limit=TAIL_LINES)
        if stored.log_lines
        else []
    )
    timeline = await context.inspector.timeline(queue.name, stored)
    values = {
        "queue": queue.name,
        "job": build_job_view(stored, queue, context.now),
        "timeline": masked_occurrences(stored, queue, timeline),
        "lines": masked_texts(stored, queue, lines),
        "first_line": max(0, (stored.log_lines or 0) - len(lines)),
        "now": context.now,
    }
    return BoardPage("job", f"{queue.name} {stored.id}", values, live=True)


async def show_job_log(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show one page of a job's log.

    Costs one script call and one read of `LINES_PER_PAGE` lines.
    """
    queue = context.queue(request.parts["queue"])
    start = parse_whole_number(request.query.get("start", "0"), "the start of a page")
    stored = await context.inspector.get(queue.name, request.parts["job_id"])
    lines = await context.inspector.logs(queue.name, stored.id, start=start, limit=LINES_PER_PAGE)
    values = {
        "queue": queue.name,
        "job": build_job_view(stored, queue, context.now),
        "lines": masked_texts(stored, queue, lines),
        "start": start,
        "total": stored.log_lines or 0,
        "step": LINES_PER_PAGE,
    }
    return BoardPage("logs", f"log of {stored.id}", values)


async def retry_job(request: BoardRequest, context: BoardContext) -> Redirect:
    """Let a failed or completed job wait again; costs one script call."""
    queue, job_id = _job_address(request, context)
    await context.inspector.retry(queue, job_id, reset=bool(request.first("reset")))
    return Redirect(page_path(queue, job_id), "retried", {"n": 1})


async def promote_job(request: BoardRequest, context: BoardContext) -> Redirect:
    """Let a delayed job wait from now on; costs one script call."""
    queue, job_id = _job_address(request, context)
    await context.inspector.promote(queue, job_id)
    return Redirect(page_path(queue, job_id), "promoted", {"n": 1})


async def remove_job(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Remove a job once that is confirmed; costs one script call."""
    queue, job_id = _job_address(request, context)
    if not request.first("confirmed"):
        stored = await context.inspector.get(queue, job_id)
        question = f"Remove job {stored.id}, which is {stored.state or 'in no list'}?"
        values = confirmation_values(request, question, page_path(queue, job_id), "Remove")
        return BoardPage("confirm", "Remove a job?", values)
    await context.inspector.remove(queue, job_id)
    return Redirect(page_path(queue), "removed", {"n": 1})


def confirmation_values(
    request: BoardRequest, question: str, back: str, verb: str
) -> dict[str, object]:
    """The values of a page that asks for confirmation and sends the same form again.

    Args:
        request: The request whose form is sent again.
        question: What the page asks.
        back: The path to which "Cancel" leads.
        verb: The text of the button.
    """
    fields = [
        (name, value) for name, values in request.form.items() if name != "csrf" for value in values
    ]
    return {"question": question, "back": back, "verb": verb, "fields": fields}


def _job_address(request: BoardRequest, context: BoardContext) -> tuple[str, str]:
    """The queue's name and the job's id in a request's path."""
    return context.queue(request.parts["queue"]).name, request.parts["job_id"]

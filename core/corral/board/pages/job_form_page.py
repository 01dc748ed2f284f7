"""Adding a job, and editing a job's payload: a form built from the payload's model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from corral.board.board_context import BoardContext
from corral.board.job_view import build_job_view, masked_refusal
from corral.board.messages import BoardPage, BoardRequest, Redirect, RequestRefused
from corral.board.pages.job_page import page_path
from corral.board.payload_form import (
    FormField,
    build_form,
    ensure_unmasked,
    filled,
    parse_form,
    unmasked,
    with_errors,
)
from corral.errors import JobRefused, PayloadRefused
from corral.inspector import StoredJob
from corral.jobs import EnqueueOptions

__all__ = ["add_job", "edit_job", "show_add_form", "show_edit_form"]

EDITABLE: Final = ("waiting", "prioritized", "delayed", "failed")
"""An active job has read its payload already, and a completed one will not read it again."""


async def show_add_form(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show the empty form; costs the store nothing."""
    queue = context.queue(request.parts["queue"])
    return _add_page(queue.name, build_form(queue), request)


async def add_job(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Enqueue the form's payload.

    Costs one script call, and two calls for the audit log, which is checked before the job is made.
    """
    queue = context.queue(request.parts["queue"])
    data, fields = parse_form(build_form(queue), request.form)
    await context.inspector.audit.ensure_writable()
    try:
        enqueued = await context.jobs.enqueue(queue.name, data, **_parse_options(request))
    except PayloadRefused as refused:
        judged, elsewhere = with_errors(fields, masked_refusal(queue, data, refused))
        return _add_page(queue.name, judged, request, elsewhere)
    except (JobRefused, RequestRefused) as refused:
        return _add_page(queue.name, fields, request, (str(refused),))
    if enqueued.created:
        await context.inspector.audit.record_added_job(context.who, queue.name, enqueued.id)
    return Redirect(
        page_path(queue.name, enqueued.id),
        "added" if enqueued.created else "known",
        {"id": enqueued.id},
    )


async def show_edit_form(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show the form with a job's payload; costs one script call."""
    queue = context.queue(request.parts["queue"])
    job = await context.inspector.get(queue.name, request.parts["job_id"])
    data = build_job_view(job, queue, context.now).stored.data
    fields = filled(build_form(queue), data if isinstance(data, dict) else {})
    obstacle = ""
    if job.state not in EDITABLE:
        obstacle = f"the payload of a job that is {job.state} cannot be changed"
    return _edit_page(job, fields, obstacle=obstacle)


async def edit_job(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Replace a job's payload with the form's.

    Costs two script calls, and one call for the audit log.
    """
    queue = context.queue(request.parts["queue"])
    job = await context.inspector.get(queue.name, request.parts["job_id"])
    before: dict[str, Any] = job.data if isinstance(job.data, dict) else {}
    data, fields = parse_form(build_form(queue), request.form)
    kept_secrets = {
        field.name: before[field.name] for field in fields if field.secret and field.name in before
    }
    shown = build_job_view(job, queue, context.now).stored.data
    try:
        payload = kept_secrets | unmasked(data, before, shown)
        await context.inspector.edit(queue, job.id, ensure_unmasked(queue.name, payload))
    except PayloadRefused as refused:
        judged, elsewhere = with_errors(fields, masked_refusal(queue, data, refused))
        return _edit_page(job, judged, elsewhere, status=422)
    return Redirect(page_path(queue.name, job.id), "edited", {"id": job.id})


def _parse_options(request: BoardRequest) -> EnqueueOptions:
    options = EnqueueOptions()
    if job_id := request.first("job_id").strip():
        options["job_id"] = job_id
    for name in ("attempts", "priority"):
        if (number := request.number(name, status=422)) is not None:
            options[name] = number
    if (seconds := request.number("delay_seconds", status=422)) is not None:
        options["delay"] = timedelta(seconds=seconds)
    return options


def _add_page(
    queue: str, fields: Sequence[FormField], request: BoardRequest, problems: Sequence[str] = ()
) -> BoardPage:
    options = {
        name: request.first(name) for name in ("delay_seconds", "attempts", "priority", "job_id")
    }
    values = {
        "queue": queue,
        "job": None,
        "fields": fields,
        "problems": problems,
        "options": options,
        "obstacle": "",
    }
    status = 422 if request.method == "POST" else 200
    return BoardPage("form", f"Add a job to {queue}", values, status)


def _edit_page(
    job: StoredJob,
    fields: Sequence[FormField],
    problems: Sequence[str] = (),
    obstacle: str = "",
    status: int = 200,
) -> BoardPage:
    values = {
        "queue": job.queue,
        "job": job.id,
        "fields": fields,
        "problems": problems,
        "options": {},
        "obstacle": obstacle,
    }
    return BoardPage("form", f"Edit job {job.id}", values, status)

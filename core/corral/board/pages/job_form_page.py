"""Adding a job, and editing a job's payload: a form built from the payload's model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from corral.board.board_context import BoardContext
from corral.board.job_view import build_job_view, masked_refusal
from corral.board.messages import BoardPage, BoardRequest, Redirect, RequestRefused
from corral.board.pages.job_page import page_path
from corral.board.payload_form import FormField, build_form, filled, parse_form, with_errors
from corral.errors import JobRefused, PayloadRefused
from corral.inspector import PayloadChanged, StoredJob
from corral.inspector.payload_edit import members_by_field
from corral.jobs import EnqueueOptions
from corral.queue import Queue

__all__ = ["add_job", "edit_job", "show_add_form", "show_edit_form"]

EDITABLE: Final = ("waiting", "prioritized", "delayed", "failed")
"""An active job has read its payload already, and a completed one will not read it again."""
NO_OBJECT: Final = "the stored payload is not a JSON object: what is typed here replaces all of it"


async def show_add_form(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show the empty form; costs the store nothing."""
    queue = context.queue(request.parts["queue"])
    return _add_page(queue.name, build_form(queue), request)


async def add_job(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Enqueue the form's payload.

    Costs one script call, and two calls for the audit log, which is checked before the job is made.
    """
    queue = context.queue(request.parts["queue"])
    typed = parse_form(build_form(queue), request.form, {}, {})
    if typed.has_errors:
        return _add_page(queue.name, typed.fields, request)
    await context.inspector.audit.ensure_writable()
    try:
        enqueued = await context.jobs.enqueue(queue.name, typed.payload, **_parse_options(request))
    except PayloadRefused as refused:
        refusal = masked_refusal(queue, typed.payload, refused)
        judged, elsewhere = with_errors(typed.fields, refusal)
        return _add_page(queue.name, judged, request, elsewhere)
    except (JobRefused, RequestRefused) as refused:
        return _add_page(queue.name, typed.fields, request, (str(refused),))
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
    fields = filled(build_form(queue), *_members(job, queue, context))
    obstacle = ""
    if job.state not in EDITABLE:
        obstacle = f"the payload of a job that is {job.state} cannot be changed"
    problems = () if isinstance(job.data, dict) else (NO_OBJECT,)
    return _edit_page(job, fields, problems, obstacle=obstacle)


async def edit_job(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Change the fields of a job's payload that were changed in the form.

    Costs three script calls, and one call for the audit log; one script call if nothing was
    changed.
    """
    queue = context.queue(request.parts["queue"])
    job = await context.inspector.get(queue.name, request.parts["job_id"])
    data, shown = _members(job, queue, context)
    typed = parse_form(filled(build_form(queue), data, shown), request.form, data, shown)
    if not typed.is_changed:
        return Redirect(page_path(queue.name, job.id), "unchanged", {"id": job.id})
    if typed.has_errors:
        return _edit_page(job, typed.fields, status=422)
    try:
        edited = await context.inspector.edit(queue, job.id, typed.payload, before=job.data)
    except PayloadRefused as refused:
        refusal = masked_refusal(queue, typed.payload, refused)
        judged, elsewhere = with_errors(typed.fields, refusal)
        return _edit_page(job, judged, elsewhere, status=422)
    except PayloadChanged as refused:
        return _edit_page(job, typed.fields, (str(refused),), status=409)
    notice = "edited" if edited else "unchanged"
    return Redirect(page_path(queue.name, job.id), notice, {"id": job.id})


def _members(
    job: StoredJob, queue: Queue[Any], context: BoardContext
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job's payload by the names of its form's fields: as it is stored, and masked."""
    shown = build_job_view(job, queue, context.now).stored.data
    return members_by_field(queue, job.data), members_by_field(queue, shown)


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

"""Adding a job, and editing the payload of one: a form made from the payload's model, judged by it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from corral.board.context import BoardContext
from corral.board.forms import (
    Field,
    checked_whole,
    fields_of,
    filled,
    parsed,
    unmasked,
    with_errors,
)
from corral.board.job_view import refusal_shown, shown
from corral.board.messages import Page, Redirect, Refused, Request
from corral.board.pages.job import path_of
from corral.errors import JobRefused, PayloadRefused
from corral.inspector import StoredJob
from corral.jobs import EnqueueOptions

__all__ = ["add", "edit", "show", "show_edit"]

EDITABLE: Final = ("waiting", "prioritized", "delayed", "failed")
"""A job that runs has read its payload, and one that is completed will not read it again."""


async def show(request: Request, context: BoardContext) -> Page:
    """The empty form; costs nothing."""
    queue = context.queue(request.parts["queue"])
    return _adding(queue.name, fields_of(queue), request)


async def add(request: Request, context: BoardContext) -> Redirect | Page:
    """Enqueue what the form holds; one script call, and two for the audit log: it is tried before."""
    queue = context.queue(request.parts["queue"])
    data, fields = parsed(fields_of(queue), request.form)
    await context.inspector.audit.ensure_writable()
    try:
        enqueued = await context.jobs.enqueue(queue.name, data, **_options(request))
    except PayloadRefused as refused:
        judged, elsewhere = with_errors(fields, refusal_shown(queue, data, refused))
        return _adding(queue.name, judged, request, elsewhere)
    except (JobRefused, Refused) as refused:
        return _adding(queue.name, fields, request, (str(refused),))
    if enqueued.created:
        await context.inspector.audit.added(context.who, queue.name, enqueued.id)
    return Redirect(
        path_of(queue.name, enqueued.id),
        "added" if enqueued.created else "known",
        {"id": enqueued.id},
    )


async def show_edit(request: Request, context: BoardContext) -> Page:
    """The form with a job's payload; one script call."""
    queue = context.queue(request.parts["queue"])
    job = await context.inspector.get(queue.name, request.parts["job_id"])
    data = shown(job, queue, context.now).data
    fields = filled(fields_of(queue), data if isinstance(data, dict) else {})
    return _editing(
        job,
        fields,
        (),
        "" if job.state in EDITABLE else f"a job that is {job.state} keeps its payload",
    )


async def edit(request: Request, context: BoardContext) -> Redirect | Page:
    """Replace a job's payload with what the form holds; two script calls, and one for the audit
    log.
    """
    queue = context.queue(request.parts["queue"])
    job = await context.inspector.get(queue.name, request.parts["job_id"])
    before: dict[str, Any] = job.data if isinstance(job.data, dict) else {}
    data, fields = parsed(fields_of(queue), request.form)
    kept = {
        field.name: before[field.name] for field in fields if field.secret and field.name in before
    }
    try:
        whole = kept | unmasked(data, before, shown(job, queue, context.now).data)
        await context.inspector.edit(queue, job.id, checked_whole(queue.name, whole))
    except PayloadRefused as refused:
        judged, elsewhere = with_errors(fields, refusal_shown(queue, data, refused))
        return _editing(job, judged, elsewhere, status=422)
    return Redirect(path_of(queue.name, job.id), "edited", {"id": job.id})


def _options(request: Request) -> EnqueueOptions:
    options = EnqueueOptions()
    if job_id := request.first("job_id").strip():
        options["job_id"] = job_id
    for name in ("attempts", "priority"):
        if (number := request.number(name, status=422)) is not None:
            options[name] = number
    if (seconds := request.number("delay_seconds", status=422)) is not None:
        options["delay"] = timedelta(seconds=seconds)
    return options


def _adding(
    queue: str, fields: Sequence[Field], request: Request, told: Sequence[str] = ()
) -> Page:
    options = {
        name: request.first(name) for name in ("delay_seconds", "attempts", "priority", "job_id")
    }
    values = {
        "queue": queue,
        "job": None,
        "fields": fields,
        "told": told,
        "options": options,
        "refused": "",
    }
    status = 422 if request.method == "POST" else 200
    return Page("form", f"Add a job to {queue}", values, status)


def _editing(
    job: StoredJob,
    fields: Sequence[Field],
    told: Sequence[str],
    refused: str = "",
    status: int = 200,
) -> Page:
    values = {
        "queue": job.queue,
        "job": job.id,
        "fields": fields,
        "told": told,
        "options": {},
        "refused": refused,
    }
    return Page("form", f"Edit job {job.id}", values, status)

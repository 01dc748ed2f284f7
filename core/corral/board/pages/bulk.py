"""What is done to many jobs of a queue: those that were ticked, or all that match."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from corral.board.desk import Desk
from corral.board.exchange import Page, Redirect, Refused, Request
from corral.board.pages.job import confirmation, path_of
from corral.board.pages.searching import Sought, seek, sought
from corral.inspector import STATES, CurrentIteration, JobLocked, JobNotFound, State, WrongState

__all__ = ["promote", "remove", "retry"]

MOST: Final = 10_000
"""How many jobs of a search are changed at once: each is a script call, and somebody waits for the answer."""
PAGE: Final = 100

Change = Callable[[str], Awaitable[None]]


async def retry(request: Request, desk: Desk) -> Redirect | Page:
    """Let failed or completed jobs wait again; a script call per job, or per 500 where all that failed is meant."""
    name = desk.queue(request.parts["queue"]).name
    if _is_whole(request) and request.first("state") == "failed" and request.first("confirmed"):
        count = await desk.inspector.retry_all_failed(name)
        return Redirect(path_of(name), "retried", {"n": count})
    return await _changed(request, desk, name, "retried", "Retry", lambda job_id: desk.inspector.retry(name, job_id))


async def promote(request: Request, desk: Desk) -> Redirect | Page:
    """Let delayed jobs wait from now on; a script call per job, or per 500 where all that are delayed are meant."""
    name = desk.queue(request.parts["queue"]).name
    if _is_whole(request) and request.first("state") == "delayed" and request.first("confirmed"):
        count = await desk.inspector.promote_all(name)
        return Redirect(path_of(name), "promoted", {"n": count})
    return await _changed(request, desk, name, "promoted", "Promote", lambda job: desk.inspector.promote(name, job))


async def remove(request: Request, desk: Desk) -> Redirect | Page:
    """Remove jobs; a script call per job."""
    name = desk.queue(request.parts["queue"]).name
    return await _changed(request, desk, name, "removed", "Remove", lambda job: desk.inspector.remove(name, job))


def _is_whole(request: Request) -> bool:
    """Whether all jobs of a state are meant, without a search."""
    return bool(request.first("all")) and not request.first("q")


async def _changed(
    request: Request, desk: Desk, name: str, told: str, verb: str, change: Change
) -> Redirect | Page:
    """Ask first; then change one job after the other, and count."""
    state = next((state for state in STATES if state == request.first("state")), None)
    wanted = sought({"q": request.first("q")}) if request.first("all") else None
    ids = request.form.get("id", ())
    if not request.first("all") and not ids:
        raise Refused(400, "no job was chosen", "tick some, or choose all that match")
    if not request.first("confirmed"):
        question = await _question(desk, name, verb, ids, request, wanted, state)
        return Page("confirm", f"{verb} jobs?", confirmation(request, question, path_of(name), verb))
    changed = left = 0
    chosen = _every(desk, name, wanted, state) if request.first("all") else _given(ids)
    async for job_id in chosen:
        try:
            await change(job_id)
        except (JobNotFound, WrongState, JobLocked, CurrentIteration):
            left += 1
        else:
            changed += 1
        if changed + left >= MOST:
            break
    if left and not changed:
        return Redirect(path_of(name), "left", {"n": left})
    return Redirect(path_of(name), told, {"n": changed})


async def _question(
    desk: Desk,
    name: str,
    verb: str,
    ids: Sequence[str],
    request: Request,
    wanted: Sought | None,
    state: State | None,
) -> str:
    if not request.first("all"):
        return f"{verb} {len(ids)} {'job' if len(ids) == 1 else 'jobs'} of {name}?"
    if wanted is not None:
        return f"{verb} all jobs of {name} that match {wanted.text!r}, {MOST} at most?"
    if state is None:
        raise Refused(400, "all jobs of which state?")
    return f"{verb} all {(await desk.inspector.counts(name))[state]} {state} jobs of {name}?"


async def _given(ids: Sequence[str]) -> AsyncIterator[str]:
    for job_id in ids[:MOST]:
        yield job_id


async def _every(desk: Desk, name: str, wanted: Sought | None, state: State | None) -> AsyncIterator[str]:
    """The ids of all jobs of a search, or of a state: collected first, because a change moves what is behind it."""
    found: list[str] = []
    if wanted is not None:
        after: str | None = None
        while len(found) < MOST:
            page = await seek(desk, name, Sought(wanted.text, wanted.field, after), state)
            found += [job.id for job in page.jobs]
            after = page.next
            if after is None:
                break
    elif state is not None:
        while len(found) < MOST:
            jobs = (await desk.inspector.list(name, state, start=len(found), limit=PAGE)).jobs
            found += [job.id for job in jobs]
            if len(jobs) < PAGE:
                break
    for job_id in found[:MOST]:
        yield job_id

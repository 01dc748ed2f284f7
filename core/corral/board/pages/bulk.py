"""What is done to many jobs of a queue: those that were ticked, or all that match."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from corral.board.context import BoardContext
from corral.board.messages import Page, Redirect, Refused, Request
from corral.board.pages.job import confirmation, path_of
from corral.board.pages.searching import Sought, seek, sought
from corral.inspector import (
    STATES,
    CurrentIteration,
    DamagedKey,
    JobLocked,
    JobNotFound,
    State,
    WrongState,
)

__all__ = ["promote", "remove", "retry"]

MOST: Final = 10_000
"""How many jobs of a search are changed at once: each is a script call, and somebody waits for the
answer.
"""
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs of a queue are meant.

    Attributes:
        queue: The queue's name.
        ids: Those that were ticked.
        every: Whether all are meant that match: the search, or without one the state.
        wanted: The search, or None.
        state: The state, or None for all of a search.
    """

    queue: str
    ids: Sequence[str]
    every: bool
    wanted: Sought | None
    state: State | None

    @property
    def whole_state(self) -> State | None:
        """The state all of whose jobs are meant, or None."""
        return self.state if self.every and self.wanted is None else None


async def retry(request: Request, context: BoardContext) -> Redirect | Page:
    """Let failed or completed jobs wait again; a script call per job, or per 500 where all that
    failed are meant.
    """
    whole = {"failed": context.inspector.retry_all_failed}
    return await _done(request, context, "Retry", "retried", context.inspector.retry, whole)


async def promote(request: Request, context: BoardContext) -> Redirect | Page:
    """Let delayed jobs wait from now on; a script call per job, or per 500 where all that are
    delayed are meant.
    """
    whole = {"delayed": context.inspector.promote_all}
    return await _done(request, context, "Promote", "promoted", context.inspector.promote, whole)


async def remove(request: Request, context: BoardContext) -> Redirect | Page:
    """Remove jobs; a script call per job."""
    return await _done(request, context, "Remove", "removed", context.inspector.remove, {})


async def _done(  # noqa: PLR0917  # one line each, above
    request: Request,
    context: BoardContext,
    verb: str,
    told: str,
    change: Callable[[str, str], Awaitable[None]],
    whole: Mapping[str, Callable[[str], Awaitable[int]]],
) -> Redirect | Page:
    """Ask first; then do it to all of a state at once where there is a way to, else to one job
    after the other.
    """
    chosen = _chosen(request, context)
    if not request.first("confirmed"):
        return await _asked(request, context, chosen, verb)
    if at_once := whole.get(chosen.whole_state or ""):
        return Redirect(path_of(chosen.queue), told, {"n": await at_once(chosen.queue)})
    return await _changed(context, chosen, told, change)


def _chosen(request: Request, context: BoardContext) -> Chosen:
    """What the form chose.

    Raises:
        Refused: Nothing.
    """
    name = context.queue(request.parts["queue"]).name
    state = next((state for state in STATES if state == request.first("state")), None)
    every = bool(request.first("all"))
    wanted = sought({"q": request.first("q")}) if every else None
    ids = request.form.get("id", ())
    if not every and not ids:
        raise Refused(400, "no job was chosen", "tick some, or choose all that match")
    if every and wanted is None and state is None:
        raise Refused(400, "all jobs of which state?")
    return Chosen(name, ids, every, wanted, state)


async def _asked(request: Request, context: BoardContext, chosen: Chosen, verb: str) -> Page:
    """The question that is put before anything is changed: how many it is about."""
    if not chosen.every:
        which = f"{len(chosen.ids)} {'job' if len(chosen.ids) == 1 else 'jobs'} of {chosen.queue}"
    elif chosen.wanted is not None:
        count = len(await _every(context, chosen))
        most = f", the first {MOST}" if count == MOST else ""
        which = f"{count} {chosen.state or ''} jobs of {chosen.queue} that match \u201c{chosen.wanted.text}\u201d{most}"
    else:
        state = chosen.state or "waiting"
        which = f"all {(await context.inspector.counts(chosen.queue, (state,)))[state]} {state} jobs of {chosen.queue}"
    question = f"{verb} {which.replace('  ', ' ')}?"
    return Page(
        "confirm", f"{verb} jobs?", confirmation(request, question, path_of(chosen.queue), verb)
    )


async def _changed(
    context: BoardContext, chosen: Chosen, told: str, change: Callable[[str, str], Awaitable[None]]
) -> Redirect:
    """Change one job after the other, and count; what has moved on meanwhile is left."""
    changed = left = 0
    for job_id in await _every(context, chosen) if chosen.every else chosen.ids[:MOST]:
        try:
            await change(chosen.queue, job_id)
        except (JobNotFound, WrongState, JobLocked, CurrentIteration, DamagedKey):
            left += 1
        else:
            changed += 1
    if left and not changed:
        return Redirect(path_of(chosen.queue), "left", {"n": left})
    return Redirect(path_of(chosen.queue), told, {"n": changed})


async def _every(context: BoardContext, chosen: Chosen) -> Sequence[str]:
    """The ids of all jobs that match, collected before anything is changed: a change moves what is
    behind it.
    """
    found: list[str] = []
    if chosen.wanted is not None:
        after: str | None = None
        while len(found) < MOST:
            page = await seek(
                context,
                chosen.queue,
                Sought(chosen.wanted.text, chosen.wanted.field, after),
                chosen.state,
            )
            found += [job.id for job in page.jobs]
            after = page.next
            if after is None:
                break
    elif chosen.state is not None:
        while len(found) < MOST:
            page_of = await context.inspector.list(
                chosen.queue, chosen.state, start=len(found), limit=PAGE
            )
            found += [job.id for job in page_of.jobs]
            if len(page_of.jobs) < PAGE:
                break
    return found[:MOST]

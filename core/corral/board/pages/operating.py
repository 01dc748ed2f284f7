"""What is done to a whole queue: pause, resume, limits, drain, clean."""

from __future__ import annotations

from datetime import timedelta

from corral.board.context import BoardContext
from corral.board.messages import Page, Redirect, Refused, Request
from corral.board.pages.job import confirmation, path_of
from corral.inspector import CLEANABLE, drained_states

__all__ = ["clean", "drain", "limits", "pause", "resume"]


async def pause(request: Request, context: BoardContext) -> Redirect:
    """Let no job of the queue start; one script call."""
    name = context.queue(request.parts["queue"]).name
    await context.inspector.pause(name)
    return Redirect(path_of(name), "paused")


async def resume(request: Request, context: BoardContext) -> Redirect:
    """Let the queue's jobs start again; one script call, more where BullMQ 5 has put jobs aside."""
    name = context.queue(request.parts["queue"]).name
    await context.inspector.resume(name)
    return Redirect(path_of(name), "resumed")


async def limits(request: Request, context: BoardContext) -> Redirect:
    """Say how many jobs run at once and how many start in a while, over all workers; two script
    calls.
    """
    name = context.queue(request.parts["queue"]).name
    concurrency, rate, per = (
        request.number(each, least=1) for each in ("concurrency", "rate", "per_seconds")
    )
    if (rate is None) != (per is None):
        raise Refused(400, "a rate is a number of jobs and a number of seconds")
    await context.inspector.set_concurrency(name, concurrency)
    await context.inspector.set_rate_limit(
        name, rate, None if per is None else timedelta(seconds=per)
    )
    return Redirect(path_of(name), "limited")


async def drain(request: Request, context: BoardContext) -> Redirect | Page:
    """Remove all jobs that wait, when that was confirmed; a script call per 500 jobs."""
    name = context.queue(request.parts["queue"]).name
    delayed = bool(request.first("delayed"))
    if not request.first("confirmed"):
        count = sum(
            (await context.inspector.counts(name, drained_states(delayed=delayed))).values()
        )
        told = f"Remove all jobs of {name} that wait{' or are delayed' if delayed else ''}? There are {count} now."
        return Page(
            "confirm", "Drain the queue?", confirmation(request, told, path_of(name), "Drain")
        )
    removed = await context.inspector.drain(name, delayed=delayed)
    return Redirect(path_of(name), "drained", {"n": removed})


async def clean(request: Request, context: BoardContext) -> Redirect | Page:
    """Remove jobs of a state that are old enough, when that was confirmed; a script call per 500
    jobs.
    """
    name = context.queue(request.parts["queue"]).name
    hours = request.number("older_than_hours") or 0
    state = next((state for state in CLEANABLE if state == request.first("state")), None)
    if state is None:
        raise Refused(
            400, "jobs of this state are not cleaned", f"these are: {', '.join(CLEANABLE)}"
        )
    if not request.first("confirmed"):
        age = f"older than {hours} h" if hours else "of any age"
        count = (await context.inspector.counts(name, (state,)))[state]
        told = f"Remove the {state} jobs of {name} that are {age}? {count} are {state} now."
        return Page(
            "confirm", "Clean the queue?", confirmation(request, told, path_of(name), "Clean")
        )
    removed = await context.inspector.clean(name, state, timedelta(hours=hours))
    return Redirect(path_of(name), "cleaned", {"n": removed})

"""Actions on a whole queue: pause, resume, limits, drain, clean."""

from __future__ import annotations

from datetime import timedelta

from corral.board.board_context import BoardContext
from corral.board.messages import BoardPage, BoardRequest, Redirect, RequestRefused
from corral.board.pages.job_page import confirmation_values, page_path
from corral.inspector import CLEANABLE, drained_states

__all__ = ["clean_queue", "drain_queue", "pause_queue", "resume_queue", "set_limits"]


async def pause_queue(request: BoardRequest, context: BoardContext) -> Redirect:
    """Let no further job of the queue start; costs one script call."""
    name = context.queue(request.parts["queue"]).name
    await context.inspector.pause(name)
    return Redirect(page_path(name), "paused")


async def resume_queue(request: BoardRequest, context: BoardContext) -> Redirect:
    """Let the queue's jobs start again.

    Costs one script call, and more if BullMQ 5 has moved waiting jobs to its own `paused` list.
    """
    name = context.queue(request.parts["queue"]).name
    await context.inspector.resume(name)
    return Redirect(page_path(name), "resumed")


async def set_limits(request: BoardRequest, context: BoardContext) -> Redirect:
    """Set how many jobs run at once, and how many start per time, over all workers.

    Costs two script calls.
    """
    name = context.queue(request.parts["queue"]).name
    concurrency, rate, per = (
        request.number(each, least=1) for each in ("concurrency", "rate", "per_seconds")
    )
    if (rate is None) != (per is None):
        raise RequestRefused(400, "a rate is a number of jobs and a number of seconds")
    await context.inspector.set_concurrency(name, concurrency)
    await context.inspector.set_rate_limit(
        name, rate, None if per is None else timedelta(seconds=per)
    )
    return Redirect(page_path(name), "limited")


async def drain_queue(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Remove all waiting jobs once that is confirmed; costs a script call per 500 jobs."""
    name = context.queue(request.parts["queue"]).name
    delayed = bool(request.first("delayed"))
    if not request.first("confirmed"):
        counts = await context.inspector.counts(name, drained_states(delayed=delayed))
        which = "are waiting or delayed" if delayed else "are waiting"
        question = f"Remove all jobs of {name} that {which}? There are {sum(counts.values())} now."
        values = confirmation_values(request, question, page_path(name), "Drain")
        return BoardPage("confirm", "Drain the queue?", values)
    removed = await context.inspector.drain(name, delayed=delayed)
    return Redirect(page_path(name), "drained", {"n": removed})


async def clean_queue(request: BoardRequest, context: BoardContext) -> Redirect | BoardPage:
    """Remove the old jobs of a state once that is confirmed; costs a script call per 500 jobs."""
    name = context.queue(request.parts["queue"]).name
    hours = request.number("older_than_hours") or 0
    state = next((state for state in CLEANABLE if state == request.first("state")), None)
    if state is None:
        raise RequestRefused(
            400, "jobs of this state cannot be cleaned", f"these can: {', '.join(CLEANABLE)}"
        )
    if not request.first("confirmed"):
        age = f"older than {hours} h" if hours else "of any age"
        count = (await context.inspector.counts(name, (state,)))[state]
        question = f"Remove the {state} jobs of {name} that are {age}? {count} are {state} now."
        values = confirmation_values(request, question, page_path(name), "Clean")
        return BoardPage("confirm", "Clean the queue?", values)
    removed = await context.inspector.clean(name, state, timedelta(hours=hours))
    return Redirect(page_path(name), "cleaned", {"n": removed})

"""`/live`: tells an open page that something has changed, so that it asks for itself again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from corral.board.context import BoardContext
from corral.board.messages import Request, Stream
from corral.errors import StoreUnavailable
from corral.store.replies import ResponseError

__all__ = ["show"]

TICK_SECONDS: Final = 2.0
"""How often is looked, while few pages are open."""
SHARE_SECONDS: Final = 0.7
"""How much longer for each open page: one asks for up to 150 commands, and all together for less
than 200 a second.
"""
WITHOUT_SECONDS: Final = 10.0
"""Some things change without an event: a worker that comes or goes, a limit."""


async def show(request: Request, context: BoardContext) -> Stream:
    """Server-sent events: `changed`, when the queue of the page has new events, or the job new log
    lines.

    Costs one command per queue that somebody looks at and tick, however many look at it.
    """
    name, job_id = request.query.get("queue", ""), request.query.get("job", "")
    watched = [context.queue(name).name] if name else list(context.inspector.queues)
    return Stream(
        _ticks(
            context, watched, f"{context.prefix}:{name}:{job_id}:logs" if name and job_id else None
        )
    )


async def _ticks(
    context: BoardContext, watched: Sequence[str], log_key: str | None
) -> AsyncIterator[str]:
    known: object = None
    quiet = (
        WITHOUT_SECONDS  # what happened between the page and its stream is told with the first tick
    )
    yield "retry: 2000\n\n"
    with context.open_pages.one_more() as pages:
        while not pages.closing.is_set():
            try:
                seen: object = [await _last_event(context, queue) for queue in watched]
                if log_key is not None:
                    seen = seen, await context.link.call("LLEN", log_key)
            except StoreUnavailable:
                seen = "away"
            except ResponseError:
                seen = "damaged"  # the page says which key; it is made anew now and then
            tick = max(TICK_SECONDS, SHARE_SECONDS * pages.count)
            if known is not None and (seen != known or quiet >= WITHOUT_SECONDS):
                quiet = 0.0
                yield "event: changed\ndata: 1\n\n"
            else:
                yield ": \n\n"
            known = seen
            pause = (
                tick - time.monotonic() % tick
            )  # all at the same moments: what they read is read once
            try:
                await asyncio.wait_for(pages.closing.wait(), pause)
            except TimeoutError:
                quiet += pause


async def _last_event(context: BoardContext, queue: str) -> object:
    async def read() -> object:
        return await context.link.call(
            "XREVRANGE", f"{context.prefix}:{queue}:events", "+", "-", "COUNT", 1
        )

    return await context.recent.get(("event", queue), read)

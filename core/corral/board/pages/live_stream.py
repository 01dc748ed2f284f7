"""`/live`: signals an open page that something has changed, so that it reloads its content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from corral.board.board_context import BoardContext
from corral.board.messages import BoardRequest, EventStream
from corral.errors import StoreUnavailable
from corral.store.keys import EVENTS, LOGS, job_key, queue_base, queue_key
from corral.store.replies import ResponseError

__all__ = ["stream_changes"]

TICK_SECONDS: Final = 2.0
"""How often the store is asked for changes while few pages are open."""
TICK_SECONDS_PER_PAGE: Final = 0.7
"""The least tick, per open page: many pages are asked for less often.

One reload costs up to 150 commands; so all pages together stay below about 200 commands a second.
"""
RELOAD_SECONDS: Final = 10.0
"""How often a page reloads without an event: a worker or a limit changes without one."""


async def stream_changes(request: BoardRequest, context: BoardContext) -> EventStream:
    """Send `changed` when the page's queue has new events, or its job has new log lines.

    Costs one command per tick and queue, however many readers look at it.
    """
    name, job_id = request.query.get("queue", ""), request.query.get("job", "")
    queues = [context.queue(name).name] if name else list(context.inspector.queues)
    base = queue_base(context.prefix, name)
    log_key = job_key(base, job_id, LOGS) if name and job_id else None
    return EventStream(_watch(context, queues, log_key))


async def _watch(
    context: BoardContext, queues: Sequence[str], log_key: str | None
) -> AsyncIterator[str]:
    """The stream: `changed` events, and comments between them that keep the connection open."""
    previous: object = None
    # something may have changed between the page's load and its stream: the first comparison
    # sends `changed` in any case
    quiet_seconds = RELOAD_SECONDS
    yield "retry: 2000\n\n"
    with context.open_pages.count_one() as pages:
        while not pages.closing.is_set():
            try:
                current: object = [await _read_last_event(context, queue) for queue in queues]
                if log_key is not None:
                    current = current, await context.link.call("LLEN", log_key)
            except StoreUnavailable:
                current = "unavailable"
            except ResponseError:
                current = "damaged"  # the page names the key; it reloads every RELOAD_SECONDS
            tick = max(TICK_SECONDS, TICK_SECONDS_PER_PAGE * pages.count)
            if previous is not None and (current != previous or quiet_seconds >= RELOAD_SECONDS):
                quiet_seconds = 0.0
                yield "event: changed\ndata: 1\n\n"
            else:
                yield ": \n\n"
            previous = current
            # all streams wake at the same moments, so that they share what they read
            pause = tick - time.monotonic() % tick
            try:
                await asyncio.wait_for(pages.closing.wait(), pause)
            except TimeoutError:
                quiet_seconds += pause


async def _read_last_event(context: BoardContext, queue: str) -> object:
    async def read() -> object:
        return await context.link.call(
            "XREVRANGE", queue_key(context.prefix, queue, EVENTS), "+", "-", "COUNT", 1
        )

    return await context.cache.get(("event", queue), read)

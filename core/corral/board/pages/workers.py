"""`/workers`: who works, on what, since when."""

from __future__ import annotations

from corral.board.context import BoardContext
from corral.board.messages import Page, Request
from corral.board.pages.queue_status import at_work

__all__ = ["show"]


async def show(_request: Request, context: BoardContext) -> Page:
    """Every worker; costs what `JobInspector.workers` does."""
    workers = await context.recent.get("workers", context.inspector.workers)
    served = {name for worker in at_work(workers) for name in worker.queues}
    unserved = [name for name in context.inspector.queues if name not in served]
    return Page(
        "workers",
        "Workers",
        {"workers": workers, "unserved": unserved, "now": context.now},
        live=True,
    )

"""`/workers`: the workers, what each runs now, and since when."""

from __future__ import annotations

from corral.board.board_context import BoardContext
from corral.board.messages import BoardPage, BoardRequest
from corral.board.pages.queue_status import live_workers

__all__ = ["show_workers"]


async def show_workers(_request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show every worker; costs one `JobInspector.workers`."""
    workers = await context.cache.get("workers", context.inspector.workers)
    served = {name for worker in live_workers(workers) for name in worker.queues}
    unserved = [name for name in context.inspector.queues if name not in served]
    values = {"workers": workers, "unserved": unserved, "now": context.now}
    return BoardPage("workers", "Workers", values, live=True)

"""`/workers`: who works, on what, since when."""

from __future__ import annotations

from corral.board.desk import Desk
from corral.board.exchange import Page, Request
from corral.board.pages.glance import at_work

__all__ = ["show"]


async def show(_request: Request, desk: Desk) -> Page:
    """Every worker; costs what `JobInspector.workers` does."""
    workers = await desk.recent.get("workers", desk.inspector.workers)
    served = {name for worker in at_work(workers) for name in worker.queues}
    unserved = [name for name in desk.inspector.queues if name not in served]
    return Page("workers", "Workers", {"workers": workers, "unserved": unserved, "now": desk.now}, live=True)

"""`/`: every queue in one row: what waits and since when, what fails and why, and the last hour."""

from __future__ import annotations

from corral.board.context import BoardContext
from corral.board.messages import Page, Request
from corral.board.pages.failing import summaries_shown
from corral.board.pages.queue_status import QueueStatus, at_work, queue_status_of, workers_seen

__all__ = ["show"]


async def show(_request: Request, context: BoardContext) -> Page:
    """The overview.

    Costs two script calls per queue, whatever the queue's size, and what `JobInspector.workers`
    costs.
    """
    summaries = await context.recent.get("summaries", lambda: summaries_shown(context))
    workers, damaged = await workers_seen(context)
    serving = None if workers is None else at_work(workers)
    glances: list[QueueStatus] = [queue_status_of(each, serving, context.now) for each in summaries]
    values = {
        "queues": glances,
        "workers": None if serving is None else len(serving),
        "broken": len(context.problems),
        "damaged": [*damaged, *(wrong for each in summaries for wrong in each.damaged)],
        "now": context.now,
    }
    return Page("overview", "Queues", values, live=True)

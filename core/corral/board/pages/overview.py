"""`/`: every queue in one row: what waits and since when, what fails and why, and the last hour."""

from __future__ import annotations

from corral.board.desk import Desk
from corral.board.exchange import Page, Request
from corral.board.pages.failing import summaries_shown
from corral.board.pages.glance import Glance, at_work, glance_of, workers_seen

__all__ = ["show"]


async def show(_request: Request, desk: Desk) -> Page:
    """The overview.

    Costs two script calls per queue, whatever the queue's size, and what `JobInspector.workers` costs.
    """
    summaries = await desk.recent.get("summaries", lambda: summaries_shown(desk))
    workers, damaged = await workers_seen(desk)
    serving = None if workers is None else at_work(workers)
    glances: list[Glance] = [glance_of(each, serving, desk.now) for each in summaries]
    values = {
        "queues": glances,
        "workers": None if serving is None else len(serving),
        "broken": len(desk.problems),
        "damaged": [*damaged, *(wrong for each in summaries for wrong in each.damaged)],
        "now": desk.now,
    }
    return Page("overview", "Queues", values, live=True)

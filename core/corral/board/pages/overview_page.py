"""`/`: every queue in one row.

A row shows what waits and since when, what fails and why, and the last hour.
"""

from __future__ import annotations

from corral.board.board_context import BoardContext
from corral.board.messages import BoardPage, BoardRequest
from corral.board.pages.failure_reasons import read_masked_summaries
from corral.board.pages.queue_status import build_queue_status, live_workers, read_cached_workers

__all__ = ["show_overview"]


async def show_overview(_request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show the overview.

    Costs two script calls per queue, whatever the queue's size, and one `JobInspector.workers`.
    Every ten seconds also what `OrphanSearch.read` costs.
    """
    summaries = await context.cache.get("summaries", lambda: read_masked_summaries(context))
    workers, damaged = await read_cached_workers(context)
    running = None if workers is None else live_workers(workers)
    orphans = await context.read_orphans()
    values = {
        "queues": [build_queue_status(each, running, context.now) for each in summaries],
        "workers": None if running is None else len(running),
        "broken": len(context.problems),
        "damaged": [*damaged, *(key for each in summaries for key in each.damaged)],
        "orphans": orphans.with_jobs,
        "orphan_problem": orphans.problem,
        "more_orphans": orphans.is_partial and not orphans.problem,
        "now": context.now,
    }
    return BoardPage("overview", "Queues", values, live=True)

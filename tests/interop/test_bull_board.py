"""Bull Board on BullMQ's queues shows our jobs, and its buttons work on them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx2
import pytest

from board.browser.bull_board import ANSWER_SECONDS, BullBoard
from chaos.scene import Scene
from interop.peers import Peer

pytestmark = pytest.mark.asyncio


@pytest.mark.matrix(31)
async def test_bull_board_shows_our_jobs_and_acts_on_them(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """One in each state, ended by our worker; then one is tried again, one is promoted, one is
    removed.
    """
    await peer.needs("board")
    completed, failed = await scene.enqueue({"value": "done", "says": ["a line"]}, {"fails": 1})
    worker = await scene.hire()
    await all_done(completed=1, failed=1)
    worker.kill()
    (delayed,) = await scene.enqueue({}, delay=timedelta(hours=1))
    (prioritized,) = await scene.enqueue({}, priority=4)
    (waiting,) = await scene.enqueue({})
    states = {
        "completed": completed,
        "failed": failed,
        "delayed": delayed,
        "prioritized": prioritized,
        "waiting": waiting,
    }
    async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client:
        board = BullBoard(f"http://127.0.0.1:{await peer.ask('board', queues=['chaos'])}", client)
        for state, job_id in states.items():
            assert [job["id"] for job in (await board.queue("chaos", state))["jobs"]] == [job_id]
        shown = await board.job("chaos", failed)
        assert "attempt 1 fails" in shown["failedReason"]
        assert len(shown["stacktrace"]) == 1
        assert (await board.job("chaos", completed))["returnValue"] == "done"
        await board.put(f"/board/api/queues/chaos/{failed}/retry")
        await board.put(f"/board/api/queues/chaos/{delayed}/promote")
        await board.put(f"/board/api/queues/chaos/{completed}/clean")
    await scene.hire()
    await all_done(completed=4)
    ended = await scene.store.client.zrange("bull:chaos:completed", 0, -1)
    assert sorted(ended) == sorted([failed, delayed, prioritized, waiting])

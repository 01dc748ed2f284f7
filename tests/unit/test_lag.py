"""How late an event loop is: seen while it is stuck, and for a minute after."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from corral.observe import lag
from corral.observe.lag import LoopLag


@pytest.mark.asyncio
async def test_a_stuck_loop_is_seen_from_another_thread_and_remembered(
    monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    monkeypatch.setattr(lag, "BEAT_SECONDS", 0.01)
    measured = LoopLag()
    beating = asyncio.create_task(measured.measure())
    await wait_until(lambda: measured._measured, "it has beaten")
    seen: list[float] = []
    watcher = threading.Timer(0.2, lambda: seen.append(measured.seconds))
    watcher.start()
    time.sleep(0.4)  # noqa: ASYNC251  # what is measured
    assert seen
    assert seen[0] > 0.1
    await wait_until(lambda: len(measured._measured) > 5, "it beats again")
    worst = measured.worst_seconds
    assert worst >= 0.35
    monkeypatch.setattr(lag, "REMEMBERED_SECONDS", 0.0)
    assert measured.worst_seconds < worst, "that was more than a minute ago"
    beating.cancel()

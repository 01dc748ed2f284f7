"""What happened to a job, told from its own fields and from the queue's log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from corral import Fixed, Job, Queue
from corral.inspector import JobInspector

pytestmark = pytest.mark.asyncio


async def fail(job: Job[Any]) -> None:
    raise ValueError(f"no {job.attempt}")


async def test_three_failed_attempts_are_told_with_their_times_and_traces(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, {}, job_id="bad", attempts=3, backoff=Fixed(timedelta(milliseconds=20)))
    async with workshop.working(letters.processed_by(fail), name="reader-1"):
        await workshop.until(letters, "bad", "failed")
    inspector = inspect()
    found = await inspector.timeline(letters, await inspector.get(letters, "bad"))
    assert [each.what for each in found] == [
        *("added", "waiting", "active", "attempt-failed", "delayed"),
        *("waiting", "active", "attempt-failed", "delayed"),
        *("waiting", "active", "attempt-failed", "failed"),
    ]
    times = [each.at for each in found]
    assert times == sorted(times)
    failed = [each for each in found if each.what == "attempt-failed"]
    assert [each.detail for each in failed] == [f"attempt {each} of 3: ValueError: no {each}" for each in (1, 2, 3)]
    assert ["no 1" in failed[0].trace, "no 2" in failed[1].trace, "no 3" in failed[2].trace] == [True, True, True]
    assert [each.trace for each in found if each.what != "attempt-failed"] == [None] * 10
    assert found[4].detail.startswith("until 20")

"""Corral's own tasks: a job cannot cancel them, other code can."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from corral import Job, Payload, Queue
from corral.job import current_job
from corral.tasks import OwnTask, start_task
from corral.testing import job as make_job
from logged import capture_logs

pytestmark = pytest.mark.asyncio


class Nothing(Payload):
    pass


queue = Queue("nothing", Nothing)


def as_job(job: Job[Any] | None, function: Callable[[], Any]) -> Any:
    context = contextvars.copy_context()
    context.run(current_job.set, job)
    return context.run(function)


async def test_a_job_s_cancellation_is_refused_and_logged_once_and_other_code_s_is_not() -> None:
    task, job = start_task(asyncio.sleep(60), "ours"), make_job(queue, {})
    with capture_logs() as logged:
        for _ in range(3):
            assert as_job(job, task.cancel)
        await asyncio.sleep(0)
    assert not task.done()
    assert task.cancelling() == 0
    assert [(line["event"], line["task"]) for line in logged] == [
        ("a job tried to cancel tasks that are not its own: refused", "ours")
    ]
    assert task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task


async def test_a_task_that_awaits_it_cannot_be_cancelled_by_a_job_either() -> None:
    done = asyncio.Event()
    inner = start_task(done.wait(), "ours")

    async def outer() -> bool:
        return await inner

    waiting = asyncio.create_task(outer())
    await asyncio.sleep(0)
    as_job(make_job(queue, {}), waiting.cancel)
    done.set()
    assert await waiting is True

    inner = start_task(asyncio.sleep(60), "ours")
    waiting = asyncio.create_task(outer())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting, inner])
    assert (waiting.cancelled(), inner.cancelled()) == (True, True)


async def test_a_job_cancels_its_own_task_and_no_other_job_s() -> None:
    mine, other = make_job(queue, {}), make_job(queue, {})
    task: OwnTask[None] = OwnTask(asyncio.sleep(60), loop=asyncio.get_running_loop())
    task.job = mine
    as_job(other, task.cancel)
    await asyncio.sleep(0)
    assert not task.done()
    as_job(mine, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_task_that_a_job_s_code_starts_belongs_to_no_job_and_keeps_its_own_timeouts() -> (
    None
):
    seen: list[object] = []

    async def limited() -> None:
        seen.append(current_job.get())
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    task = as_job(make_job(queue, {}), lambda: start_task(limited(), "ours"))
    with pytest.raises(TimeoutError):
        await task
    assert seen == [None]
    assert current_job.get() is None

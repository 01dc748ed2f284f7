"""A job that was fetched and never started costs nothing: no stall is charged where no processor
ran.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from chaos.fixtures import is_at_length
from chaos.processes import Worker
from chaos.proxy import Proxy, every_first_try
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

FAST = {"lock_seconds": 1.0, "stalled_interval_seconds": 1.0}
PATIENT = {"lock_seconds": 3.0, "stalled_interval_seconds": 0.5}
"""The next worker has started before the locks of a hung one run out."""
HANG_MS = 1400
"""Longer than the lock."""
LATE_REPLIES = 2
MARK = "what a reply brings"
FOR_EVER_MS = 600_000


LATE = [
    pytest.param(1.6, False, False, id="late"),
    pytest.param(2.4, False, False, id="later"),
    pytest.param(1.6, True, False, id="late and cut"),
    pytest.param(2.4, False, True, id="everything late"),
    pytest.param(2.4, True, True, id="everything late and cut"),
    pytest.param(3.6, False, False, id="given up"),
]
"""Seconds; whether the connection is cut then; whether all else that goes through the proxy is held
back as well.
"""


def brings_jobs(reply: bytes) -> bool:
    """Whether a reply brings jobs that are marked so."""
    return MARK.encode() in reply


async def find_violations(scene: Scene, enqueued: list[str]) -> list[str]:
    """What is wrong with jobs that must all have run once, with no stall."""
    charged, failed = await scene.stalls(enqueued), await scene.failed()
    runs = {job: scene.journal.starts(of=job) for job in enqueued}
    wrong = [f"{job} is charged with {stalls} stalls" for job, stalls in charged.items()]
    wrong += [f"{job} has failed" for job in failed.intersection(enqueued)]
    for job, lines in runs.items():
        if len(lines) != 1:
            each = [
                f"at {line.at:.2f} by {line.pid}, {'locked' if line.locked else 'not locked'}"
                for line in lines
            ]
            wrong.append(f"{job} started {len(lines)} times: {'; '.join(each)}")
    return wrong


async def test_processors_that_hold_the_event_loop_beyond_the_lock_cost_no_job_a_stall(
    scene: Scene, at_length: bool, figure: Callable[[str], None]
) -> None:
    """Replies wait unread meanwhile, and jobs of the same reply unstarted; another worker looks for
    stalled ones.
    """
    jobs = 120 if at_length else 48
    await asyncio.gather(*(scene.hire(concurrency=16, **FAST) for _ in range(2)))
    works = [
        {"ms": 5 * (number % 12 > 0), "hangs_ms": 0 if number % 6 else HANG_MS}
        for number in range(jobs)
    ]
    enqueued = await scene.enqueue(*works)
    await scene.settled(jobs)
    charged, failed = await scene.stalls(enqueued), await scene.failed()
    figure(
        f"{jobs} jobs, every sixth holds the event loop: {len(charged)} charged with a stall, {len(failed)} failed"
    )
    assert await find_violations(scene, enqueued) == []
    await scene.completed(enqueued)


async def test_what_a_reply_brings_that_waits_unread_longer_than_the_lock_costs_nothing(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    """Another worker comes meanwhile, and looks for stalled jobs."""
    async with scene.proxy() as proxy:
        proxy.late = lambda reply: 60.0 if brings_jobs(reply) else 0.0
        await scene.hire(url=proxy.url, concurrency=12, **FAST)
        hanging = await hang_later(scene, 0, 5 * HANG_MS)
        unread = await scene.enqueue(*[{"value": MARK, "looks": True}] * 2)
        await hang_now(scene, proxy, unread, hanging, 0)
        proxy.late = lambda _: 0.0
        await scene.hire(**FAST)
        await scene.settled(3)
        charged = await scene.stalls(unread)
        figure(
            f"a reply waited {5 * HANG_MS} ms to be read: {len(charged)} of its {len(unread)} jobs charged"
        )
        assert await find_violations(scene, [hanging, *unread]) == []
        assert all(line.locked for line in scene.starts() if line.id in unread)
        await scene.completed([hanging, *unread])


def hold_back(proxy: Proxy, seconds: float, *, replies: int, all_else: bool = False) -> None:
    """Hold back so many replies that bring jobs, and with the first of them all that goes through
    the proxy.
    """
    number = count(1)

    def late(reply: bytes) -> float:
        if not brings_jobs(reply) or (place := next(number)) > replies:
            return 0.0
        if all_else and place == 1:
            proxy.hold()
            asyncio.get_running_loop().call_later(seconds, proxy.let_go)
        return seconds

    proxy.late = late


@pytest.mark.parametrize(("seconds", "cut", "all_else"), LATE if is_at_length() else LATE[::2])
async def test_what_a_late_reply_brings_runs_with_a_living_lock_or_costs_nothing(
    scene: Scene, figure: Callable[[str], None], seconds: float, cut: bool, all_else: bool
) -> None:
    """Later than the lock lives, and than a worker waits for a reply before it asks again; another
    worker is there.

    Where its renewals are held back as well, the store cannot know that the jobs did not start: a
    stall like any other.
    """
    async with scene.proxy() as proxy:
        await asyncio.gather(
            scene.hire(concurrency=10, **FAST), scene.hire(url=proxy.url, concurrency=10, **FAST)
        )
        hold_back(proxy, seconds, replies=LATE_REPLIES, all_else=all_else)
        if cut:
            proxy.cut = every_first_try("advance")
        enqueued: list[str] = []

        async def are_held() -> bool:
            if not proxy.holds_back:  # the other worker may have been quicker
                enqueued.extend(await scene.enqueue(*[{"value": MARK, "looks": True}] * 5))
            return proxy.held == LATE_REPLIES

        await scene.until(are_held, f"{LATE_REPLIES} replies are held back", every=0.02)
        await scene.settled(len(enqueued))
        await scene.until(lambda: not proxy.holds_back, "what was held back has arrived")
        fetches = [await scene.store.client.hget(f"bull:chaos:{job}", "ats") for job in enqueued]
        charged = await scene.stalls(enqueued)
        figure(
            f"{proxy.held} replies {seconds} s late, {proxy.cuts} cut: {sum(each != '1' for each in fetches)} of "
            f"{len(enqueued)} jobs handed back, {len(charged)} charged with a stall"
        )
        wrong = await find_violations(scene, enqueued)
        assert [
            each for each in wrong if not (all_else and each.endswith("is charged with 1 stalls"))
        ] == []
        assert all(line.locked for line in scene.starts())
        await scene.completed(enqueued)


async def test_jobs_whose_workers_die_before_they_read_the_reply_never_fail(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    """One worker after the other is killed while a processor holds its event loop, and a reply
    waits unread.

    The next worker is there before: it finds the jobs, and its own reply that brings them is held
    back.
    """
    max_stalled = 0
    unread: list[str] = []
    hanging: list[str] = []
    hung: list[Worker] = []
    async with scene.proxy() as proxy:
        proxy.late = lambda reply: 60.0 if brings_jobs(reply) else 0.0
        for number in range(max_stalled + 2):
            worker = await scene.hire(
                url=proxy.url, concurrency=12, max_stalled=max_stalled, **PATIENT
            )
            hanging.append(await hang_later(scene, number))
            if hung:
                hung[-1].kill()
            else:
                unread = await scene.enqueue(*[{"value": MARK}] * 2)
            await hang_now(scene, proxy, unread, hanging[-1], number)
            hung.append(worker)
        hung[-1].kill()

    await scene.hire(max_stalled=max_stalled, **FAST)
    await scene.settled(len(unread) + len(hanging))
    charged = await scene.stalls(unread)
    figure(f"{len(hung)} workers killed, {len(charged)} of {len(unread)} unread jobs charged")
    assert await find_violations(scene, unread) == []
    assert await scene.failed() <= set(hanging)


async def test_the_last_stall_of_a_job_is_never_charged_before_it_starts(scene: Scene) -> None:
    """It stalled once, and one stall is allowed: the worker that fetches it is killed before it
    reads the reply.
    """
    client = scene.store.client
    async with scene.proxy() as proxy:
        proxy.late = lambda reply: 60.0 if brings_jobs(reply) else 0.0
        worker = await scene.hire(url=proxy.url, concurrency=12, max_stalled=1, **PATIENT)
        hanging = await hang_later(scene, 0)
        await client.hset(
            f"bull:chaos:{hanging}", "stc", "1"
        )  # it is to fail at once, not to hang the next worker
        await client.hset("bull:chaos:meta", "paused", "1")
        unread = await scene.enqueue({"value": MARK})
        await client.hset(f"bull:chaos:{unread[0]}", mapping={"stc": "1", "ats": "1"})
        await client.hdel("bull:chaos:meta", "paused")
        await client.zadd("bull:chaos:marker", {"0": 0})
        await hang_now(scene, proxy, unread, hanging, 0)
        worker.kill()
    await scene.hire(max_stalled=1, **FAST)
    await scene.settled(2)
    assert await scene.failed() == {hanging}
    assert await scene.stalls(unread) == {unread[0]: 1}
    assert len(scene.journal.starts(of=unread[0])) == 1


async def test_jobs_that_a_dead_process_has_not_read_are_handed_back_by_its_parent_with_nothing_charged(
    scene: Scene,
) -> None:
    async with scene.proxy() as proxy:
        proxy.late = lambda reply: 60.0 if brings_jobs(reply) else 0.0
        parent = await scene.hire(url=proxy.url, processes=1, concurrency=12, max_stalled=0, **FAST)
        hanging = await hang_later(scene, 0)
        unread = await scene.enqueue(*[{"value": MARK}] * 2)
        await hang_now(scene, proxy, unread, hanging, 0)
        proxy.late = lambda _: 0.0
        (doomed,) = parent.children().values()
        os.kill(doomed, signal.SIGKILL)
        await scene.settled(len(unread) + 1)
        assert await find_violations(scene, unread) == []
        assert await scene.failed() == {hanging}, "no stall is allowed, and this one ran"
        parent.terminate()
        assert await parent.ended() == 0


async def hang_later(scene: Scene, number: int, milliseconds: int = FOR_EVER_MS) -> str:
    """Start a job that will hold its worker's event loop for so long; returns its id."""
    work: dict[str, Any] = {
        "waits_for": str(scene.folder / f"hang-{number}"),
        "hangs_ms": milliseconds,
    }
    (job,) = await scene.enqueue(work)
    await scene.started(job)
    return job


async def hang_now(
    scene: Scene, proxy: Proxy, unread: list[str], hanging: str, number: int
) -> None:
    """Hold the event loop; then let the reply arrive that brings the jobs, which are fetched by
    now.
    """

    async def are_fetched() -> bool:
        active = await scene.store.client.lrange("bull:chaos:active", 0, -1)
        return proxy.holds_back > 0 and set(unread) <= set(active)

    await scene.until(are_fetched, "the jobs are fetched, and the reply that says so is on its way")
    (scene.folder / f"hang-{number}").touch()
    await scene.until(
        lambda: scene.journal.first("hang", of=hanging), "the event loop does nothing any more"
    )
    proxy.let_arrive()
    await scene.until(lambda: not proxy.holds_back, "the reply waits to be read")

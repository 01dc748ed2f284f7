"""Run C: a primary dies whose link to its replica was broken for a while, and the replica takes over its address."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta

from chaos.acme_chaos import chaos
from chaos.checker import snapshot
from chaos.processes import Store, producer
from chaos.proxy import Proxy
from chaos.scene import Scene
from corral.errors import StoreUnavailable
from corral.jobs import Durability
from corral.producer import RedisJobScheduler
from corral.testing import find_leaks

PRODUCERS, WORKERS = 8, 2
NETWORK_SECONDS = 0.01
"""How long a request takes to the store; it paces the producers."""
BEFORE_SECONDS, CUT_SECONDS, DOWN_SECONDS, AFTER_SECONDS = 1.0, 1.5, 0.5, 1.5
"""How long all is well, the replica hears nothing, nobody has the address, and all is well again."""
LATER = timedelta(seconds=3)
"""The delay of every second job: one that is written while the link is cut is due only after the failover, so no
worker of the old primary can have run it."""
IN_FLIGHT_SECONDS = 0.2
"""What was acknowledged so shortly before the cut may have been on its way to the replica."""
SETTLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Failover:
    """What producers were told, and what became of it.

    Attributes:
        acked: How many jobs were acknowledged.
        lost: How many of them the new primary has not.
        never_ran: How many of those had not run to their end, either.
        older: How many of the lost ones were acknowledged before the link was cut.
        unknown: How many were told to be unknown.
        unknown_there: How many of those the new primary has.
        doubled: How many ran to their end more than once.
        recovered_seconds: From the moment at which the address answers again to the first start of a job.
        accepted_seconds: From then to the first job that is acknowledged.
    """

    acked: int
    lost: int
    never_ran: int
    older: int
    unknown: int
    unknown_there: int
    doubled: int
    recovered_seconds: float
    accepted_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.acked} acked, {self.lost} lost ({self.never_ran} of them never ran), {self.unknown} unknown "
            f"({self.unknown_there} of them there), {self.doubled} ran twice; "
            f"first start {self.recovered_seconds:.2f} s and first ack {self.accepted_seconds:.2f} s after the failover"
        )


@dataclass(slots=True)
class _Told:
    """What producers were told: the moment of each acknowledgement, Unix seconds, and the ids that are unknown."""

    acked: dict[str, float] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


async def fail_over(scene: Scene, durability: Durability | None = None) -> Failover:
    """Run it; the scene's store is its replica afterwards.

    Args:
        scene: A scene without workers.
        durability: What the producers ask for.
    """
    primary, told, over = scene.store, _Told(), asyncio.Event()
    async with AsyncExitStack() as stack:
        replica, link = await _replica_of(primary, scene, stack, "replica")
        front = await stack.enter_async_context(Proxy(scene.folder / "front", primary.socket))
        front.delay_seconds = NETWORK_SECONDS
        fast = {"lock_seconds": 1, "stalled_interval_seconds": 1, "concurrency": 20}
        workers = await asyncio.gather(*(scene.hire(url=front.url, **fast) for _ in range(WORKERS)))
        producers = [await stack.enter_async_context(producer(front.url, durability)) for _ in range(PRODUCERS)]
        loads = [asyncio.create_task(_load(jobs, told, over), name="load") for jobs in producers]

        await scene.passed(time.time() + BEFORE_SECONDS)
        cut = time.time()
        link.hold()
        await scene.passed(cut + CUT_SECONDS)
        os.kill((await primary.client.info("server"))["process_id"], signal.SIGKILL)
        await scene.passed(time.time() + DOWN_SECONDS)
        await replica.client.replicaof("NO", "ONE")
        front.redirect(replica.socket)
        back = time.time()

        scene.store = replica
        await _replica_of(
            replica, scene, stack, "spare"
        )  # as whoever fails over does; nobody could be told "replicated"
        await scene.until(lambda: max(told.acked.values()) > back, "a job is acknowledged again")
        await scene.passed(time.time() + AFTER_SECONDS)
        over.set()
        await asyncio.gather(*loads)
        await _settled(scene)
        for worker in workers:
            worker.terminate()
        assert [await worker.ended() for worker in workers] == [0] * WORKERS
        assert find_leaks(replica.url) == []
        there = (await snapshot(replica.client, "bull:chaos:")).jobs.keys()

    lost = told.acked.keys() - there
    ends = Counter(line.id for line in scene.journal.lines() if line.event == "end")
    return Failover(
        acked=len(told.acked),
        lost=len(lost),
        never_ran=len(lost - ends.keys()),
        older=sum(told.acked[job] < cut - IN_FLIGHT_SECONDS for job in lost),
        unknown=len(told.unknown),
        unknown_there=len(told.unknown & there),
        doubled=sum(count > 1 for count in ends.values()),
        recovered_seconds=scene.starts(since=back)[0].at - back,
        accepted_seconds=min(at for at in told.acked.values() if at > back) - back,
    )


async def _replica_of(store: Store, scene: Scene, stack: AsyncExitStack, name: str) -> tuple[Store, Proxy]:
    """A replica that has what the store has, and the link through which it follows."""
    (scene.folder / name).mkdir()
    replica = Store(scene.folder / name)
    link = await stack.enter_async_context(Proxy(scene.folder / "unused", store.socket, tcp=True))
    await store.client.config_set("repl-diskless-sync", "no")  # which waits for more replicas, for 5 s
    await replica.start()
    stack.push_async_callback(replica.stop)
    await replica.client.replicaof("127.0.0.1", link.port)
    await store.client.set("follows", name)

    async def follows() -> bool:
        return await replica.client.get("follows") == name

    await scene.until(follows, f"the {name} follows")
    await store.client.delete("follows")
    return replica, link


async def _load(jobs: RedisJobScheduler, told: _Told, over: asyncio.Event) -> None:
    """Enqueue one job after the other, every second one for later, whatever the store says."""
    delay = timedelta(0)
    while not over.is_set():
        delay = LATER - delay
        try:
            made = await jobs.enqueue(chaos, {"ms": 5}, delay=delay)
        except StoreUnavailable as error:
            if error.outcome == "unknown" and error.job_id:
                told.unknown.add(error.job_id)
        else:
            told.acked[made.id] = time.time()


async def _settled(scene: Scene) -> None:
    """Wait until every job has completed."""

    async def settled() -> bool:
        left = await _sizes(scene)
        return sum(left.values()) == left["completed"]

    await scene.until(settled, "every job has completed", seconds=SETTLE_SECONDS, every=0.05)


async def _sizes(scene: Scene) -> dict[str, int]:
    """How many jobs are in each container."""
    client, base = scene.store.client, "bull:chaos:"
    sizes = {name: await client.llen(base + name) for name in ("wait", "active")}
    return sizes | {name: await client.zcard(base + name) for name in ("prioritized", "delayed", "completed", "failed")}

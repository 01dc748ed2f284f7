"""Jobs from one side for a worker of the other: what is the same for both is said once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from chaos.acme_chaos import chaos
from chaos.processes import Worker
from chaos.scene import Scene
from corral import Fixed
from interop.peers import Peer

FAST_MS = {"lockDuration": 1000, "stalledInterval": 500}
"""What a worker of BullMQ is given where a test waits for locks to expire."""
FAST_SECONDS = {"lock_seconds": 1, "stalled_interval_seconds": 0.5}
"""The same for ours."""


class TheirProducer:
    """BullMQ's `Queue`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def add(self, work: dict[str, Any], **options: Any) -> str:
        """One job; delays in milliseconds."""
        if "backoff" in options:
            options["backoff"] = {"type": "fixed", "delay": options["backoff"]}
        if "job_id" in options:
            options["jobId"] = options.pop("job_id")
        (job_id,) = await self._peer.add({"data": work, "opts": options})
        return job_id


class OurProducer:
    """Our `JobScheduler`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def add(self, work: dict[str, Any], **options: Any) -> str:
        """One job; delays in milliseconds."""
        if "delay" in options:
            options["delay"] = timedelta(milliseconds=options["delay"])
        if "backoff" in options:
            options["backoff"] = Fixed(timedelta(milliseconds=options["backoff"]))
        return (await self._scene.jobs.enqueue(chaos, work, **options)).id


class Crossing:
    """A producer of one side and workers of the other.

    Args:
        scene: Where.
        peer: BullMQ.
        ours_work: Whether the jobs are theirs and the workers ours.

    Attributes:
        peer: As given.
        ours_work: As given.
        producer: Has `add`.
    """

    def __init__(self, scene: Scene, peer: Peer, *, ours_work: bool) -> None:
        self._scene = scene
        self.peer = peer
        self.ours_work = ours_work
        self.producer = TheirProducer(peer) if ours_work else OurProducer(scene)

    async def work(self, concurrency: int = 1, *, fast: bool = False) -> Worker | Peer:
        """Start a worker, `fast` to let locks expire and to take over; what has its `pid`, and can
        be killed.
        """
        if self.ours_work:
            return await self._scene.hire(concurrency=concurrency, **(FAST_SECONDS if fast else {}))
        await self.peer.work(concurrency=concurrency, **({"more": FAST_MS} if fast else {}))
        return self.peer

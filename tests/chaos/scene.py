"""One test's store, workers and producer, and waiting for what they do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.acme_chaos import chaos, chaos_threads
from chaos.checker import faults, snapshot
from chaos.journal import Journal, Line
from chaos.processes import END_SECONDS, Program, Store, Worker, producer
from chaos.proxy import Proxy
from chaos.waiting import wait_until
from corral import Queue
from corral.producer import RedisJobScheduler

BOTH = (chaos, chaos_threads)


@dataclass
class Scene:
    """What a test acts on.

    Attributes:
        folder: For sockets, files and logs; short enough for a socket.
        store: A store of this test alone.
        jobs: A producer of the plugin's queues.
        journal: What the processors of all workers write down.
        site: Where the plugin is installed.
        until: `await until(predicate, "what is awaited")`.
        hired: All workers so far, and other programs that end with the scene.
    """

    folder: Path
    store: Store
    jobs: RedisJobScheduler
    journal: Journal
    site: Path
    until: Callable[..., Any]
    hired: list[Program] = field(default_factory=list)

    def launch(self, *, url: str | None = None, **how: Any) -> Worker:
        """A worker process that may not have started yet; see `Worker`."""
        worker = Worker(
            url or self.store.url,
            site=self.site,
            folder=self.folder,
            journal=self.journal.path,
            **how,
        )
        self.hired.append(worker)
        return worker

    async def hire(self, **how: Any) -> Worker:
        """A worker process that has started; see `launch`."""
        worker = self.launch(**how)
        await self.until(lambda: worker.has_started, "the worker has started")
        return worker

    @asynccontextmanager
    async def restarted(self, **how: Any) -> AsyncIterator[None]:
        """A worker process that is started again whenever it dies, as service managers do; asked to
        stop at the end.
        """
        over = False

        async def restart() -> None:
            while not over:
                await self.launch(**how).ended(None)

        restarting = asyncio.create_task(restart(), name="the service manager")
        await self.until(lambda: self.hired, "the first worker is launched")
        try:
            yield
        finally:
            over = True
            self.hired[-1].terminate()
            await asyncio.wait_for(restarting, END_SECONDS)

    def health(self) -> int:
        """What `corral health` exits with; blocks until it does."""
        environment = {"PATH": os.environ["PATH"], "REDIS_URL": self.store.url}
        asked = [sys.executable, "-m", "corral", "health"]
        return subprocess.run(
            asked, env=environment, capture_output=True, timeout=15, check=False
        ).returncode

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[Proxy]:
        """A proxy to the store; the workers behind it are stopped before it is."""
        number = sum(1 for _ in self.folder.glob("proxy-*"))
        async with Proxy(self.folder / f"proxy-{number}", self.store.socket) as proxy:
            yield proxy
            for worker in self.hired:
                worker.close()

    async def enqueue(
        self, *works: Mapping[str, Any], queue: Queue[Any] = chaos, **options: Any
    ) -> list[str]:
        """Write jobs; returns their ids."""
        return [each.id for each in await self.jobs.enqueue_many(queue, works, **options)]

    async def passed(self, moment: float) -> None:
        """Wait until it is later than `moment`, Unix seconds."""
        seconds = moment - time.time()
        await self.until(
            lambda: time.time() >= moment, f"{seconds:.1f} s have passed", seconds=seconds + 5
        )

    async def started(self, job_id: str, *, since: float = 0.0) -> float:
        """Wait until a job has started, from a moment on; returns Unix seconds of that start."""
        await self.until(
            lambda: self.journal.starts(of=job_id, since=since), f"job {job_id} has started"
        )
        return self.journal.starts(of=job_id, since=since)[0].at

    async def runs(self, worker: Worker, count: int = 1) -> None:
        """Wait until a worker is in the middle of so many jobs."""
        await self.until(
            lambda: len(self.journal.running(worker.pid)) >= count, f"the worker runs {count} jobs"
        )

    async def idle(self, workers: int = 1) -> None:
        """Wait until so many workers wait for work, of whatever kind they are."""

        async def wait() -> bool:
            return bool((await self.store.client.info("clients"))["blocked_clients"] == workers)

        await self.until(wait, f"{workers} workers wait for work")

    async def completed(
        self, enqueued: Collection[str], *, seconds: float = 15.0, every: float = 0.02
    ) -> None:
        """Wait until exactly these jobs are completed; nothing may be out of place then."""

        async def done() -> bool:
            counts = [
                await self.store.client.zcard(f"bull:{queue.name}:completed") for queue in BOTH
            ]
            return sum(counts) == len(enqueued)

        await self.until(done, "all jobs are completed", seconds=seconds, every=every)
        left = [await snapshot(self.store.client, f"bull:{queue.name}:") for queue in BOTH]
        found = faults(left, enqueued, self.journal.lines())
        assert not found, "\n".join(found)

    async def failed(self, queue: Queue[Any] = chaos) -> set[str]:
        """The ids of the failed jobs."""
        return set(await self.store.client.zrange(f"bull:{queue.name}:failed", 0, -1))

    async def settled(self, count: int, *, seconds: float = 60.0) -> None:
        """Wait until so many jobs of the queue `chaos` have completed or failed."""

        async def done() -> bool:
            counts = [
                await self.store.client.zcard(f"bull:chaos:{place}")
                for place in ("completed", "failed")
            ]
            return sum(counts) == count

        await self.until(done, f"{count} jobs have ended", seconds=seconds, every=0.02)

    async def stalls(self, enqueued: Iterable[str], queue: Queue[Any] = chaos) -> dict[str, int]:
        """How many stalls each job is charged with; those without any are left out."""
        counts = {
            job: await self.store.client.hget(f"bull:{queue.name}:{job}", "stc") for job in enqueued
        }
        return {job: int(count) for job, count in counts.items() if count}

    def starts(self, *, since: float = 0.0) -> list[Line]:
        """All starts from a moment on, Unix seconds."""
        return self.journal.starts(since=since)

    def each_started_once(self, enqueued: Iterable[str]) -> bool:
        """Whether exactly these jobs have started, and none of them twice."""
        return sorted(line.id for line in self.starts()) == sorted(enqueued)


@asynccontextmanager
async def staged(
    site: Path, until: Callable[..., Any] = wait_until, **options: Any
) -> AsyncIterator[Scene]:
    """A `Scene` with a running store; no process is left afterwards.

    Args:
        site: Where the plugin is installed.
        until: How the scene waits.
        options: Of the store; see `Store`.
    """
    with tempfile.TemporaryDirectory(prefix="corral-chaos-") as name:
        folder = Path(name)
        store = Store(folder, **options)
        await store.start()
        try:
            async with producer(store.url) as jobs:
                scene = Scene(folder, store, jobs, Journal(folder / "journal"), site, until)
                try:
                    yield scene
                finally:
                    for worker in scene.hired:
                        worker.close()
        finally:
            await store.stop()

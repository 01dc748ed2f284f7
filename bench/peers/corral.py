"""Corral, adding and draining no-op jobs on request: its real producer, its real worker.

The queue is a plugin (`bench.peers.noop_queue`), found by its entry point as any other; the store and the prefix come
from the environment.
"""

from __future__ import annotations

import asyncio

import corral
from bench.peers.noop_queue import Numbered, noop
from bench.peers.requests import add_concurrently, answer
from corral.app import calm_collector, read_installed
from corral.observe.logs import configure_logs
from corral.observe.tally import Tally
from corral.worker.worker import Worker


async def main() -> None:
    """Serve requests until the input ends."""
    installed = read_installed("worker", [noop.name])
    settings = installed.settings
    configure_logs(settings)
    calm_collector()  # as `corral worker` does
    assert settings.redis_url is not None, "the benchmark names the store"
    url = settings.redis_url.get_secret_value()
    running: list[tuple[Worker, asyncio.Task[object]]] = []
    async with corral.connect() as jobs:

        async def add(count: int, concurrency: int) -> None:
            await add_concurrently(lambda n: jobs.enqueue(noop, Numbered(n=n)), count, concurrency)

        async def start(concurrency: int) -> None:
            processors = [entry.processor for entry in installed.catalog if entry.processor is not None]
            worker = Worker(
                processors,
                url=url,
                prefix=settings.prefix,
                settings=settings.worker,
                plugins=installed.plugins.with_own(Tally()),  # as `corral worker` does
                jobs=jobs,
                concurrency={noop.name: concurrency},
            )
            running.append((worker, asyncio.create_task(worker.run(), name="worker")))

        async def stop() -> None:
            worker, task = running.pop()
            worker.stop()
            await task

        await answer({"add": add, "start": start, "stop": stop})


if __name__ == "__main__":
    asyncio.run(main())

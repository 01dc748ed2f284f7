"""Corral, adding and draining jobs on request: its real producer, its real worker.

The queues are a plugin (`bench.peers.queues`), found by its entry points as any other; the store
and the prefix come from the environment.
"""

from __future__ import annotations

import asyncio
import platform
from importlib import metadata

import corral
from bench.peers.queues import PAYLOADS, corral_queues, numbered
from bench.peers.requests import add_concurrently, answer, batches
from corral.app import read_installed, tune_garbage_collector
from corral.observe.logs import configure_logs
from corral.observe.tally import Tally
from corral.store.scripts import script
from corral.worker.worker import Worker


async def about() -> dict[str, str]:
    """What is measured."""
    return {
        "python": platform.python_version(),
        "corral": metadata.version("corral"),
        "file": corral.__file__,
        "add": script("add").digest,
        "advance": script("advance").digest,
        "loop": type(asyncio.get_running_loop()).__module__,
    }


async def main() -> None:
    """Serve requests until the input ends."""
    queues = {queue.name: queue for queue in corral_queues()}
    installed = read_installed("worker", list(queues))
    settings = installed.settings
    configure_logs(settings)
    tune_garbage_collector()  # as `corral worker` does
    assert settings.redis_url is not None, "the benchmark names the store"
    url = settings.redis_url.get_secret_value()
    running: list[tuple[Worker, asyncio.Task[object]]] = []
    async with corral.connect() as jobs:

        async def add(kind: str, count: int, callers: int) -> None:
            queue, payload = queues[kind], PAYLOADS.get(kind, numbered)
            await add_concurrently(lambda n: jobs.enqueue(queue, payload(n)), count, callers)

        async def add_bulk(kind: str, count: int, size: int) -> None:
            queue, payload = queues[kind], PAYLOADS.get(kind, numbered)
            for batch in batches(count, size):
                await jobs.enqueue_many(queue, [payload(n) for n in batch])

        async def start(kind: str, concurrency: int) -> None:
            processors = [
                entry.processor for entry in installed.catalog if entry.processor is not None
            ]
            worker = Worker(
                [processor for processor in processors if processor.queue.name == kind],
                url=url,
                prefix=settings.prefix,
                settings=settings.worker,
                plugins=installed.plugins.with_own(Tally()),  # as `corral worker` does
                jobs=jobs,
                concurrency={kind: concurrency},
            )
            running.append((worker, asyncio.create_task(worker.run(), name="worker")))

        async def stop() -> None:
            worker, task = running.pop()
            worker.stop()
            await task

        await answer(
            {"about": about, "add": add, "add_bulk": add_bulk, "start": start, "stop": stop}
        )


if __name__ == "__main__":
    asyncio.run(main())

"""BullMQ for Python, draining no-op jobs on request: a black box, used as its documentation says.
Argument: the store.

One worker on one event loop; it has no setting but its concurrency that could make it faster.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import metadata
from typing import Any

from bullmq import Queue, Worker

from bench.peers.requests import CONCURRENCY, Stopwatch, answer, batches

KIND = "noop"
BULK = 1_000


async def about() -> dict[str, str]:
    """What is measured."""
    return {"setup": f"concurrency {CONCURRENCY}", "bullmq": metadata.version("bullmq")}


async def main(url: str) -> None:
    """Serve requests until the input ends."""
    options: Any = {"connection": url, "prefix": "python"}
    queue = Queue(KIND, options)
    watch = Stopwatch()

    async def add(count: int) -> None:
        for batch in batches(count, BULK):
            await queue.addBulk([{"name": KIND, "data": {"n": n}} for n in batch])

    async def do_nothing(_job: object, _token: str) -> None:
        watch.job()

    async def drain(count: int) -> float:
        worker = Worker(KIND, do_nothing, {**options, "concurrency": CONCURRENCY})
        seconds = await watch.seconds(count)
        await worker.close()
        return seconds

    await answer({"about": about, "add": add, "drain": drain})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

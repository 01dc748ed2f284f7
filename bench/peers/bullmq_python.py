"""BullMQ for Python, adding and draining no-op jobs on request: a black box, used as its documentation says.

Arguments: the server's socket, the prefix, the queue.
"""

from __future__ import annotations

import asyncio
import sys

from bullmq import Queue, Worker

from bench.peers.requests import add_concurrently, answer


async def main(socket: str, prefix: str, name: str) -> None:
    """Serve requests until the input ends."""
    options = {"connection": f"unix://{socket}", "prefix": prefix}
    queue = Queue(name, options)
    running: list[Worker] = []

    async def add(count: int, concurrency: int) -> None:
        await add_concurrently(lambda n: queue.add(name, {"n": n}), count, concurrency)

    async def do_nothing(job: object, token: str) -> None:
        """What all peers' jobs do."""

    async def start(concurrency: int) -> None:
        running.append(Worker(name, do_nothing, {**options, "concurrency": concurrency}))

    async def stop() -> None:
        await running.pop().close()

    await answer({"add": add, "start": start, "stop": stop})
    await queue.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

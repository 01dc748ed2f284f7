"""dramatiq on Redis, draining no-op jobs on request. Arguments: the store, the number of threads, the prefetch.

How many messages it holds at once decides how fast it is. By itself it has 8 threads and holds 16 messages, and sleeps
a while whenever it holds them all; with 200 it is some times faster, and one thread does as much as eight.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import metadata

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.requests import Stopwatch, answer


async def main(url: str, threads: str, prefetch: str) -> None:
    """Serve requests until the input ends."""
    logging.disable(logging.INFO)
    broker = RedisBroker(url=url)
    watch = Stopwatch()

    @dramatiq.actor(broker=broker)
    def do_nothing(_n: int) -> None:
        watch.job()

    async def about() -> dict[str, str]:
        setup = f"threads: {threads}, messages held: {prefetch}, no results"
        return {"setup": setup, "dramatiq": metadata.version("dramatiq")}

    async def add(count: int) -> None:
        for number in range(count):
            do_nothing.send(number)

    async def drain(count: int) -> float:
        worker = dramatiq.Worker(broker, worker_threads=int(threads))
        worker.queue_prefetch = int(prefetch)
        worker.start()
        return await watch.seconds(count)

    await answer({"about": about, "add": add, "drain": drain})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

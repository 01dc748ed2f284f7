"""dramatiq on Redis, draining no-op jobs on request. Arguments: the store, the number of threads.

How many messages it holds at once decides how fast it is: it sleeps a while whenever it holds them
all. By itself it holds two for each thread, of which it has 8, and drains 2,100 jobs per second
where one thread that holds 200 drains 10,000. More threads are not faster, nor are more messages.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import metadata

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.requests import CONNECTIONS, Stopwatch, answer

PREFETCH = 200


async def main(url: str, threads: str) -> None:
    """Serve requests until the input ends."""
    logging.disable(logging.INFO)
    broker = RedisBroker(url=f"{url}?max_connections={CONNECTIONS}")
    watch = Stopwatch()

    @dramatiq.actor(broker=broker)
    def do_nothing(_n: int) -> None:
        watch.job()

    async def about() -> dict[str, str]:
        setup = f"threads: {threads}, messages held: {PREFETCH}, no results"
        return {"setup": setup, "dramatiq": metadata.version("dramatiq")}

    async def add(count: int) -> None:
        for number in range(count):
            do_nothing.send(number)

    async def drain(count: int) -> float:
        worker = dramatiq.Worker(broker, worker_threads=int(threads))
        worker.queue_prefetch = PREFETCH
        worker.start()
        return await watch.seconds(count)

    await answer({"about": about, "add": add, "drain": drain})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

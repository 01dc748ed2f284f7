"""huey on Redis, draining no-op jobs on request. Argument: the store.

Its consumer has one thread: jobs that do nothing leave nothing for others to do, and two threads were slower.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import metadata

from huey import RedisHuey

from bench.peers.requests import Stopwatch, answer

THREADS = 1


async def about() -> dict[str, str]:
    """What is measured."""
    return {"setup": f"{THREADS} thread, no results", "huey": metadata.version("huey")}


async def main(url: str) -> None:
    """Serve requests until the input ends."""
    logging.disable(logging.INFO)
    huey = RedisHuey("huey", url=url, results=False)
    watch = Stopwatch()

    @huey.task()
    def do_nothing(_n: int) -> None:
        watch.job()

    async def add(count: int) -> None:
        for number in range(count):
            do_nothing(number)

    async def drain(count: int) -> float:
        huey.create_consumer(workers=THREADS, periodic=False).start()
        return await watch.seconds(count)

    await answer({"about": about, "add": add, "drain": drain})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""huey on Redis, draining no-op jobs on request. Arguments: the store, the number of threads.

Jobs that do nothing leave nothing for other threads to do: one drains them faster than two, eight
or a hundred. A job is taken from the store before it runs, and is lost with its process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import metadata

from huey import RedisHuey

from bench.peers.requests import CONNECTIONS, Stopwatch, answer


async def main(url: str, threads: str) -> None:
    """Serve requests until the input ends."""
    logging.disable(logging.INFO)
    huey = RedisHuey("huey", url=f"{url}?max_connections={CONNECTIONS}", results=False)
    watch = Stopwatch()

    @huey.task()
    def do_nothing(_n: int) -> None:
        watch.job()

    async def about() -> dict[str, str]:
        return {"setup": f"threads: {threads}, no results", "huey": metadata.version("huey")}

    async def add(count: int) -> None:
        for number in range(count):
            do_nothing(number)

    async def drain(count: int) -> float:
        huey.create_consumer(workers=int(threads), periodic=False).start()
        return await watch.seconds(count)

    await answer({"about": about, "add": add, "drain": drain})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

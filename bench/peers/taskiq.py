"""taskiq with Redis streams, draining no-op jobs on request. Argument: the store.

Its receiver runs 100 tasks at once. Validation of arguments is off, and the number of messages that
are read at once is the default, 100: a check of each, and more of them, were no faster.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from bench.peers.requests import CONCURRENCY, Stopwatch, add_concurrently, answer

CALLERS = 100


async def about() -> dict[str, str]:
    """What is measured."""
    setup = f"{CONCURRENCY} tasks at once, arguments not validated, no results"
    return {"setup": setup, **{name: metadata.version(name) for name in ("taskiq", "taskiq-redis")}}


async def main(url: str) -> None:
    """Serve requests until the input ends."""
    logging.disable(logging.INFO)
    broker = RedisStreamBroker(
        url, consumer_id="0"
    )  # its group begins with the first message, not with the next
    watch = Stopwatch()

    @broker.task(task_name="noop")
    async def do_nothing(_n: int) -> None:
        watch.job()

    async def add(count: int) -> None:
        await broker.startup()
        await add_concurrently(do_nothing.kiq, count, CALLERS)

    async def drain(count: int) -> float:
        with ThreadPoolExecutor(1) as threads:
            receiver = Receiver(
                broker,
                threads,
                validate_params=False,
                max_async_tasks=CONCURRENCY,
                run_startup=False,
            )
            receiving = asyncio.create_task(receiver.listen(asyncio.Event()), name="receiver")
            seconds = await watch.seconds(count)
            assert not receiving.done(), "it listens until its process is ended"
            return seconds

    await answer({"about": about, "add": add, "drain": drain})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

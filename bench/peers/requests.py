"""The Python peers' side of the protocol of `bench.peer`, and what they share."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

CONCURRENCY = 100
"""How many jobs a framework may run at once."""
CONNECTIONS = 300
"""More than their threads need. By itself, the client of the store refuses the 101st."""
POLL_SECONDS = 0.01
Operation = Callable[..., Awaitable[Any]]


async def answer(operations: Mapping[str, Operation]) -> None:
    """Do what each line of the standard input asks for.

    What an operation returns is printed as JSON; if that is None, the seconds that it took.
    """
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request: dict[str, Any] = json.loads(line)
        operation = operations[request.pop("do")]
        began = time.perf_counter()
        answer = await operation(**request)
        print(json.dumps(time.perf_counter() - began if answer is None else answer), flush=True)


async def add_concurrently(add: Callable[[int], Awaitable[Any]], count: int, callers: int) -> None:
    """So many callers, each of which adds one job after the other."""
    numbers = iter(range(count))

    async def adder() -> None:
        for number in numbers:
            await add(number)

    await asyncio.gather(*(adder() for _ in range(callers)))


def batches(count: int, size: int) -> list[range]:
    """The numbers 0 to count - 1, so many at a time."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


class Stopwatch:
    """Runs from the first job to the last, by the jobs' own word; they may be on threads.

    For peers whose store keeps no times. The acknowledgement of the last job is left out, in their
    favour.
    """

    def __init__(self) -> None:
        self._times: list[float] = []

    def job(self) -> None:
        """Called by every job."""
        self._times.append(time.perf_counter())

    async def seconds(self, count: int) -> float:
        """Wait until so many jobs have run."""
        await asyncio.get_running_loop().run_in_executor(None, self._wait, count)
        return self._times[count - 1] - self._times[0]

    def _wait(self, count: int) -> None:
        while len(self._times) < count:
            time.sleep(POLL_SECONDS)

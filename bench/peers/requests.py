"""The Python peers' side of the protocol of `bench.measure.Peer`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def answer(operations: dict[str, Callable[..., Awaitable[None]]]) -> None:
    """Do what each line of the standard input asks for, and print how many seconds it took."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request: dict[str, Any] = json.loads(line)
        operation = operations[request.pop("do")]
        began = time.perf_counter()
        await operation(**request)
        print(time.perf_counter() - began, flush=True)


async def add_concurrently(add: Callable[[int], Awaitable[Any]], count: int, concurrency: int) -> None:
    """So many callers, each of which adds one job after the other."""
    numbers = iter(range(count))

    async def adder() -> None:
        for number in numbers:
            await add(number)

    await asyncio.gather(*(adder() for _ in range(concurrency)))

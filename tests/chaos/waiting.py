"""Bounded waiting, for tests and for what runs without pytest."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

WAIT_SECONDS = 30.0
"""How long anything that is awaited may take, unless a test says otherwise: enough for two loaded
cores.
"""


async def wait_until(
    predicate: Callable[[], object],
    description: str,
    *,
    seconds: float = WAIT_SECONDS,
    every: float = 0.005,
) -> None:
    """Wait until a function, or a coroutine function, answers something true.

    Raises:
        AssertionError: It did not in so many seconds; names what was awaited.
    """
    deadline = time.monotonic() + seconds
    while True:
        met = predicate()
        if inspect.isawaitable(met):
            met = await met
        if met:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain until {description}")
        await asyncio.sleep(every)

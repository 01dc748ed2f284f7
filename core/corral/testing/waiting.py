"""`wait_until`: polls a condition for a bounded time, and fails with what it waited for."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")


async def wait_until(
    condition: Callable[[], Awaitable[T] | T],
    description: str,
    *,
    seconds: float = 30.0,
    every: float = 0.02,
) -> T:
    """Call a condition again and again until what it returns is true.

    Args:
        condition: A function or a coroutine function without parameters.
        description: What is waited for; the error ends with it.
        seconds: How long to wait.
        every: Seconds between two calls.

    Returns:
        What the condition returned last.

    Raises:
        TimeoutError: It was not true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {description}")
        await asyncio.sleep(every)

"""`run_service`: `asyncio.run` for a command that runs until it is stopped.

Unlike `asyncio.run`, it does not wait without a bound for tasks and threads that do not end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

__all__ = ["run_service"]

T = TypeVar("T")

TIDY_SECONDS: Final = 0.4
"""How long cancelled tasks may take to end, and asynchronous generators to close."""
_LEFT: Final[list[asyncio.AbstractEventLoop]] = []
"""Loops with tasks that did not end. They are kept until the process ends: if a loop were
collected, asyncio would log each of these tasks as an error.
"""


def run_service(
    main: Coroutine[Any, Any, T], new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command's coroutine on a new event loop.

    Tasks that ignore their cancellation, and threads of the loop's executor, get `TIDY_SECONDS`:
    `asyncio.run` would wait for the former without a bound and for the latter for five minutes.

    Args:
        main: The command.
        new_loop: Makes the event loop; None for Python's own.

    Returns:
        What the coroutine returned.
    """
    runner = asyncio.Runner(loop_factory=new_loop)
    try:
        return runner.run(main)
    finally:
        loop = runner.get_loop()
        if loop.run_until_complete(_tidy(loop)):
            loop.close()
        else:
            _LEFT.append(loop)


async def _tidy(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancel what is left on a loop; return whether all of it has ended."""
    pending = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in pending:
        task.cancel()
    if pending:
        ended, pending = await asyncio.wait(pending, timeout=TIDY_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # looked at, so that the loop does not report it as forgotten
    with suppress(TimeoutError):
        async with asyncio.timeout(TIDY_SECONDS):
            await loop.shutdown_asyncgens()
            return not pending
    return False

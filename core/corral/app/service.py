"""`run_service`: `asyncio.run` for a command that stays until it is stopped.

Its end waits for no task for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

__all__ = ["run_service"]

T = TypeVar("T")

TIDY_SECONDS: Final = 0.4
"""How long tasks that are left may take to end when they are cancelled, and asynchronous generators
to close.
"""
_LEFT: Final[list[asyncio.AbstractEventLoop]] = []
"""Loops with tasks that did not end: to collect them would tell of each as a mistake, just before
the process ends.
"""


def run_service(
    main: Coroutine[Any, Any, T], new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command's coroutine on a new event loop.

    Tasks that are deaf to their cancellation, and threads of the loop's executor, are not waited
    for: `asyncio.run` would, the former without an end and the latter for five minutes.

    Args:
        main: The command.
        new_loop: Makes the event loop; None: Python does.
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
    """End what is left on a loop; returns whether all of it has ended."""
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

"""What becomes of a child that a processor has forked and not ended: it must not do the worker's
work a second time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections import deque
from typing import Any, Final, NoReturn

from corral.forking import on_fork
from corral.loggers import Logger

__all__ = ["LoopGuard", "end_child"]

log = Logger("corral.worker")

LOG_SECONDS: Final = 1
"""How long the last line of a child may take: a thread that only the parent has may hold a lock of
its logs.
"""


class LoopGuard:
    """Ends a forked child before it runs anything else on the worker's event loop.

    Args:
        loop: The worker's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        on_fork(self)

    def leave_to_parent(self) -> None:
        """In a forked child: `end_child` is what the loop calls next, and whatever another thread
        would hand to it.
        """
        self._loop.call_soon(end_child)
        # No public call puts it before the steps of other jobs that are ready. uvloop shows the
        # queue to the collector alone.
        if ready := next((each for each in _held_by(self._loop) if type(each) is deque), None):
            ready.rotate(1)
        vars(self._loop)["call_soon_threadsafe"] = end_child


def _held_by(loop: asyncio.AbstractEventLoop) -> list[Any]:
    return [getattr(loop, "_ready", None), *gc.get_referents(loop)]


def end_child(
    *_called_with: object, error: BaseException | None = None, **_options: object
) -> NoReturn:
    """End this process, a forked child that has come back to the worker.

    Args:
        error: What the job raised in the child. A `SystemExit` is an end on purpose: its exit code
        is kept.
    """
    code = error.code if isinstance(error, SystemExit) else 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LOG_SECONDS)
        if not isinstance(error, SystemExit):
            hint = "end a forked child with os._exit, or let multiprocessing fork it"
            told = {} if error is None else {"error": f"{type(error).__name__}: {error}"}
            log.error("a forked child came back to the worker and is ended", hint=hint, **told)
    finally:
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

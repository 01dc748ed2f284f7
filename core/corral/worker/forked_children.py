"""Ends a child process that a processor has forked and not ended.

It must not do the worker's work a second time.
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
"""How long the child's last log line may take.

A lock of the logging may be held by a thread that exists in the parent only.
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
        """Make the loop of a forked child call `end_child` next; called in the child.

        So does everything that another thread passes to the loop.
        """
        self._loop.call_soon(end_child)
        # No public call puts it before the steps of other jobs that are ready. uvloop's queue can
        # be found through the garbage collector only.
        if ready := next((each for each in _referents_of(self._loop) if type(each) is deque), None):
            ready.rotate(1)
        vars(self._loop)["call_soon_threadsafe"] = end_child


def _referents_of(loop: asyncio.AbstractEventLoop) -> list[Any]:
    return [getattr(loop, "_ready", None), *gc.get_referents(loop)]


def end_child(
    *_called_with: object, error: BaseException | None = None, **_options: object
) -> NoReturn:
    """End this process, a forked child that has come back to the worker.

    Args:
        error: The exception that the job raised in the child. A `SystemExit` ends it on purpose:
            its exit code is kept.
    """
    code = error.code if isinstance(error, SystemExit) else 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LOG_SECONDS)
        if not isinstance(error, SystemExit):
            hint = "end a forked child with os._exit, or let multiprocessing fork it"
            reason = {} if error is None else {"error": f"{type(error).__name__}: {error}"}
            log.error("a forked child came back to the worker and is ended", hint=hint, **reason)
    finally:
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

"""Daemon threads for `def` processors, one per running job, reused.

Not an executor of the standard library: those have a limit of their own, and the interpreter joins
their threads at exit, so that one processor that never returns would keep a stopped worker alive
for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Threads"]

T = TypeVar("T")

_Call = tuple[contextvars.Context, Callable[[Any], Any], Any, asyncio.Future[Any]]


class Threads:
    """Runs functions on threads, each in a copy of its caller's context.

    Args:
        name: The first part of the threads' names.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._idle: list[SimpleQueue[_Call | None]] = []
        self._numbers = itertools.count(1)
        self._closed = False

    def start(self, function: Callable[[T], Any], argument: T) -> asyncio.Future[Any]:
        """Start a function on a thread of its own.

        Args:
            function: The function. It runs in a copy of the current context.
            argument: Its argument.

        Returns:
            A future of its result or its exception. Cancelling the future does not stop the thread:
            nothing can.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        inbox = self._idle.pop() if self._idle else self._spawn()
        inbox.put((contextvars.copy_context(), function, argument, future))
        return future

    def close(self) -> None:
        """End the idle threads; a busy one ends with its function, or with the process."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _spawn(self) -> SimpleQueue[_Call | None]:
        inbox: SimpleQueue[_Call | None] = SimpleQueue()
        name = f"{self._name}-{next(self._numbers)}"
        threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True).start()
        return inbox

    def _work(self, inbox: SimpleQueue[_Call | None]) -> None:
        while (call := inbox.get()) is not None:
            context, function, argument, future = call
            result, error = None, None
            try:
                result = context.run(function, argument)
            except BaseException as raised:  # noqa: BLE001  # even a SystemExit is only a failed attempt
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._deliver_result, inbox, future, result, error)
            except RuntimeError:  # the loop is closed: nothing waits for the result any more
                return
            # An idle thread must not keep a job alive.
            del call, context, function, argument, future, result, error

    def _deliver_result(
        self,
        inbox: SimpleQueue[_Call | None],
        future: asyncio.Future[Any],
        result: Any,
        error: BaseException | None,
    ) -> None:
        """Make the thread idle, or end it, and set the result of the call's future."""
        if self._closed:
            inbox.put(None)
        else:
            self._idle.append(inbox)
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
            return
        # A future refuses to carry a StopIteration; a coroutine replaces it in the same way.
        if issubclass(type(error), StopIteration):
            stopped, error = error, RuntimeError("the processor raised StopIteration")
            error.__cause__ = stopped
        future.set_exception(error)

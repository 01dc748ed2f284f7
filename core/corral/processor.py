"""`Processor`: a function bound to its queue. `Deps`: what a worker offers to the resources of processors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

    from pluggy import HookRelay

    from corral.inspector import JobInspector
    from corral.jobs import JobScheduler
    from corral.queue import Queue

__all__ = ["Deps", "Processor"]

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Processor:
    """A queue's processor, made by `Queue.processed_by`.

    Attributes:
        queue: The queue whose jobs it processes.
        function: `function(job)` or `function(job, resource)`; `async def` runs on the event loop, `def` on a thread.
        using: Opens the resource, once per worker, or None.
    """

    queue: Queue[Any]
    function: Callable[..., object]
    using: Callable[[Deps], AbstractAsyncContextManager[Any]] | None = None

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop: an `async def`, a partial of one, an object whose call is one."""
        function: Any = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class Deps:
    """What a worker offers to the `using` half of a processor.

    Attributes:
        jobs: Enqueues follow-up jobs.
        hook: Calls the hooks that plugins offer: `deps.hook.acme_find_user(user_id=…)`.
    """

    def __init__(
        self,
        jobs: JobScheduler,
        hook: HookRelay,
        resources: AsyncExitStack,
        inspector: JobInspector | None = None,
    ) -> None:
        import asyncio  # noqa: PLC0415  # a queue's declaration must not load it: a sixth of what it costs

        self.jobs = jobs
        self.hook = hook
        self._inspector = inspector
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._entered: dict[Callable[[Deps], Any], asyncio.Future[Any]] = {}

    @property
    def inspector(self) -> JobInspector:
        """Finds, removes and scrubs jobs of every queue.

        Raises:
            RuntimeError: Whoever made this worker gave it none; `corral worker` does.
        """
        if self._inspector is None:
            raise RuntimeError("this worker was made without an inspector")
        return self._inspector

    async def enter(self, open_resource: Callable[[Deps], AbstractAsyncContextManager[R]]) -> R:
        """A resource that several processors of this worker share.

        Args:
            open_resource: Opens it. The same function (by identity) opens once per worker; everyone after the first
                gets the same resource. It is closed after the drain, in reverse order of opening.

        Returns:
            The resource.
        """
        if (opened := self._entered.get(open_resource)) is not None:
            shared: R = await opened
            return shared
        opening: asyncio.Future[R] = self._loop.create_future()
        self._entered[open_resource] = opening
        # In the caller's own task: some context managers must be left by the task that entered them.
        try:
            resource = await self._resources.enter_async_context(open_resource(self))
        except BaseException:
            del self._entered[open_resource]
            opening.cancel()
            raise
        opening.set_result(resource)
        return resource

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the worker's event loop and block until it is done.

        For `def` processors, which run on threads: `deps.wait(deps.jobs.enqueue(queue, payload))`.

        Returns:
            What the awaitable returns.

        Raises:
            RuntimeError: Called on the event loop itself, where blocking would wait for ever.
        """
        import asyncio  # noqa: PLC0415  # as above

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(_coroutine(awaitable), self._loop).result()
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("deps.wait blocks: call it from a def processor's thread, and await elsewhere")


def _coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    async def run() -> T:
        return await awaitable

    return run()

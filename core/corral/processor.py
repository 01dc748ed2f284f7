"""`Processor`: a function bound to its queue.

`Deps`: what a worker offers to the resources of processors.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from corral.errors import SchedulerUnusable
from corral.forking import forks

if TYPE_CHECKING:
    import asyncio

    from pluggy import HookRelay

    from corral.inspector import JobInspector
    from corral.jobs import JobScheduler
    from corral.queue import Queue

__all__ = ["Deps", "Processor", "call_fault", "resource_fault"]

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Processor:
    """A queue's processor, made by `Queue.processed_by`.

    Attributes:
        queue: The queue whose jobs it processes.
        function: `function(job)` or `function(job, resource)`; `async def` runs on the event loop,
        `def` on a thread.
        using: Opens the resource, once per worker, or None.
    """

    queue: Queue[Any]
    function: Callable[..., object]
    using: Callable[[Deps], AbstractAsyncContextManager[Any]] | None = None

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop: an `async def`, a partial of one, an object whose call
        is one.
        """
        return _is(inspect.iscoroutinefunction, self.function)


def call_fault(processor: Processor) -> tuple[str, str] | None:
    """Why a worker cannot call a processor: what is wrong, as the rest of a sentence about it, and
    a hint.
    """
    function, wanted = processor.function, "(job)" if processor.using is None else "(job, resource)"
    if not callable(function):
        return (
            f"is of the type {type(function).__name__}, which cannot be called",
            "hand over a function",
        )
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        return (
            "is a generator function, of which calling it runs nothing",
            "let it return, instead of yield",
        )
    count = 1 if processor.using is None else 2
    if not _takes(function, count):
        hint = "a processor takes the job, and with `using=` the resource: async def process(job)"
        return f"cannot be called with {wanted}", hint
    return None


def resource_fault(using: Any) -> tuple[str, str] | None:
    """Why a worker cannot open a resource, as `call_fault`; what only opening it tells is left to
    that.
    """
    hint = "a function with deps as its argument, marked with @contextlib.asynccontextmanager"
    if using is None:
        return None
    if not callable(using):
        return f"has `using=` of the type {type(using).__name__}, which cannot be called", hint
    made = inspect.unwrap(using)
    if _is(inspect.isasyncgenfunction, using) or _is(inspect.isgeneratorfunction, using):
        fault = "is a generator function and makes no context manager"
    elif inspect.isgeneratorfunction(made):
        fault = "makes a context manager that is not async"
    elif _is(inspect.iscoroutinefunction, using):
        fault = "is a coroutine function and makes no context manager"
    elif isinstance(using, type) and not (
        hasattr(using, "__aenter__") and hasattr(using, "__aexit__")
    ):
        fault = "is a class without __aenter__ and __aexit__"
    elif not _takes(using, 1):
        fault = "cannot be called with (deps)"
    else:
        return None
    return f"has `using={getattr(using, '__name__', type(using).__name__)}`, which {fault}", hint


def _is(judge: Callable[[Any], bool], function: Any) -> bool:
    """Whether it holds of a function, of what a partial calls, or of an object's call."""
    while isinstance(function, functools.partial):
        function = function.func
    return judge(function) or (not isinstance(function, type) and judge(type(function).__call__))


def _takes(function: Callable[..., object], count: int) -> bool:
    """Whether a function can be called with so many arguments; True where its signature is not
    known.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


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
        self._forks = forks()
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
            open_resource: Opens it. The same function (by identity) opens once per worker; everyone
                after the first gets the same resource. It is closed after the drain, in reverse
                order of opening.

        Returns:
            The resource.
        """
        if (opened := self._entered.get(open_resource)) is not None:
            shared: R = await opened
            return shared
        opening: asyncio.Future[R] = self._loop.create_future()
        self._entered[open_resource] = opening
        # In the caller's own task: some context managers must be left by the task that entered
        # them.
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
            SchedulerUnusable: Called in a child that the processor has forked.
            RuntimeError: Called on the event loop itself, where blocking would wait for ever.
        """
        import asyncio  # noqa: PLC0415  # as above

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._forks != forks():
                raise SchedulerUnusable(
                    "deps.wait needs the worker's event loop, which is the parent's"
                ) from None
            return asyncio.run_coroutine_threadsafe(_coroutine(awaitable), self._loop).result()
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError(
            "deps.wait blocks: call it from a def processor's thread, and await elsewhere"
        )


def _coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    async def run() -> T:
        return await awaitable

    return run()

"""`Processor`: a function bound to its queue, and the checks of whether a worker can call it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corral.deps import Deps
    from corral.queue import Queue

__all__ = ["Processor", "call_fault", "resource_fault"]


@dataclass(frozen=True, slots=True, eq=False)
class Processor:
    """A queue's processor, made by `Queue.processed_by`.

    Attributes:
        queue: The queue whose jobs it processes.
        function: `function(job)` or `function(job, resource)`. An `async def` runs on the event
            loop, a `def` on a thread.
        using: Opens the resource, once per worker; None without one.
    """

    queue: Queue[Any]
    function: Callable[..., object]
    using: Callable[[Deps], AbstractAsyncContextManager[Any]] | None = None

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop.

        True for an `async def`, a partial of one, and an object whose `__call__` is one.
        """
        return _holds_of(inspect.iscoroutinefunction, self.function)


def call_fault(processor: Processor) -> tuple[str, str] | None:
    """Why a worker cannot call a processor.

    Returns:
        The fault, as the rest of a sentence about the processor, and a hint; None without a fault.
    """
    function = processor.function
    if not callable(function):
        return (
            f"is of the type {type(function).__name__}, which cannot be called",
            "hand over a function",
        )
    if _holds_of(inspect.isgeneratorfunction, function) or _holds_of(
        inspect.isasyncgenfunction, function
    ):
        return (
            "is a generator function: calling it runs nothing",
            "let it return, instead of yield",
        )
    count = 1 if processor.using is None else 2
    if not _takes(function, count):
        arguments = "(job)" if processor.using is None else "(job, resource)"
        hint = "a processor takes the job, and with `using=` the resource: async def process(job)"
        return f"cannot be called with {arguments}", hint
    return None


def resource_fault(using: Any) -> tuple[str, str] | None:
    """Why a worker cannot open a processor's resource.

    Faults that only opening it can show are not found here.

    Returns:
        The fault, as the rest of a sentence about the processor, and a hint; None without a fault.
    """
    hint = "a function with deps as its argument, marked with @contextlib.asynccontextmanager"
    if using is None:
        return None
    if not callable(using):
        return f"has `using=` of the type {type(using).__name__}, which cannot be called", hint
    unwrapped = inspect.unwrap(using)
    if _holds_of(inspect.isasyncgenfunction, using) or _holds_of(
        inspect.isgeneratorfunction, using
    ):
        fault = "is a generator function and makes no context manager"
    elif inspect.isgeneratorfunction(unwrapped):
        fault = "makes a context manager that is not async"
    elif _holds_of(inspect.iscoroutinefunction, using):
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


def _holds_of(predicate: Callable[[Any], bool], function: Any) -> bool:
    """Whether a predicate holds of a function, of a partial's function, or of an object's call."""
    while isinstance(function, functools.partial):
        function = function.func
    return predicate(function) or (
        not isinstance(function, type) and predicate(type(function).__call__)
    )


def _takes(function: Callable[..., object], count: int) -> bool:
    """Whether a function can be called with `count` arguments; True if its signature is unknown."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True

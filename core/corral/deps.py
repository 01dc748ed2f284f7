"""`Deps`: what a worker offers to the resources of its processors.

It enqueues follow-up jobs, opens resources that several processors share, asks other plugins
through hooks, counts for `/metrics`, and reports to operators. It knows the API's own types only.
What the worker brings along (plugins, an inspector) is handed in, so that this module names
neither.
"""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from corral.counter import PluginCounter
from corral.errors import SchedulerUnusable
from corral.forking import forks

if TYPE_CHECKING:
    import asyncio

    from corral.jobs import JobScheduler
    from corral.queue import Queue

__all__ = ["REPORTED", "Answer", "Deps", "HookRaised", "OpenResource"]

REPORTED: Final = "reported"
"""The kind of what plugins report, in `Worker.troubles`."""

A_co = TypeVar("A_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

OpenResource: TypeAlias = "Callable[[Deps], AbstractAsyncContextManager[R]]"
"""What opens a resource: usually a function marked with `contextlib.asynccontextmanager`."""


class HookImplementation(Protocol):
    """One implementation of a hook, as `Deps` calls it; `corral.plugins.Implementation` is one."""

    @property
    def module(self) -> str:
        """The module that implements the hook, as its entry point or `CORRAL_APP` names it."""
        ...

    def __call__(self, **arguments: object) -> Any:
        """Call it with all arguments of the hook; it takes those that it declares."""


class HookImplementations(Protocol):
    """The loaded plugins, as `Deps` sees them; `corral.plugins.Plugins` is one."""

    def implementations_of(self, spec: Callable[..., Any]) -> Sequence[HookImplementation]:
        """The implementations of a hook, in the order in which they are called.

        Raises:
            LookupError: No loaded plugin offers the hook.
        """
        ...


class HookRaised(Exception):
    """An implementation of a plugin's hook raised; `__cause__` is the exception.

    Attributes:
        hook: The hook's name.
        provider: The module that implements the hook.
    """

    def __init__(self, hook: str, provider: str, error: Exception) -> None:
        super().__init__(f"{provider} raised in {hook}: {type(error).__name__}: {error}")
        self.hook = hook
        self.provider = provider


@dataclass(frozen=True, slots=True)
class Answer(Generic[A_co]):
    """The answer of one implementation of a plugin's hook.

    Attributes:
        provider: The module that implements the hook.
        value: What the implementation returned, awaited where it is awaitable. It may be None.
    """

    provider: str
    value: A_co


class Deps:
    """What a worker offers to the `using` half of a processor.

    Attributes:
        jobs: Enqueues follow-up jobs.
        counters: What plugins count, by the counter's name.
        troubles: What plugins report to operators: sentences, by the queue's name and the kind
            `reported`.
    """

    def __init__(
        self,
        jobs: JobScheduler,
        plugins: HookImplementations,
        resources: AsyncExitStack,
        provided: Mapping[OpenResource[Any], object] | None = None,
        *,
        counters: MutableMapping[str, PluginCounter] | None = None,
        troubles: MutableMapping[tuple[str, str], str] | None = None,
    ) -> None:
        """Made by the worker, and in tests by `corral.testing.deps`.

        Args:
            jobs: Enqueues follow-up jobs.
            plugins: Whose implementations `ask_first` and `ask_all` call.
            resources: Closes what `enter` opens.
            provided: What `enter` returns for these functions, without calling them: resources that
                the worker's owner has opened and closes.
            counters: Where the worker finds the plugins' counters.
            troubles: Where the worker finds what plugins report.
        """
        import asyncio  # noqa: PLC0415  # a queue's declaration must not load it: a sixth of what it costs

        self.jobs = jobs
        self.counters: MutableMapping[str, PluginCounter] = {} if counters is None else counters
        self.troubles: MutableMapping[tuple[str, str], str] = {} if troubles is None else troubles
        self._plugins = plugins
        self._resources = resources
        self._provided = dict(provided or {})
        self._loop = asyncio.get_running_loop()
        self._forks = forks()
        self._entered: dict[OpenResource[Any], asyncio.Future[Any]] = {}

    async def enter(self, open_resource: OpenResource[R]) -> R:
        """A resource that several processors of this worker share.

        The same function (by identity) opens once per worker, in the task of the first caller; all
        later callers get the same resource. If opening fails, callers that wait for it get the same
        exception, and the next call opens again. If the first caller is cancelled while it opens,
        the next waiting caller opens the resource.

        Args:
            open_resource: Opens it. The resource is closed after the worker's running jobs have
                ended, in reverse order of opening.

        Returns:
            The resource.
        """
        import asyncio  # noqa: PLC0415  # see __init__

        if open_resource in self._provided:
            provided: R = cast("R", self._provided[open_resource])
            return provided
        while (opened := self._entered.get(open_resource)) is not None:
            await asyncio.wait([opened])  # leaves `opened` alone if this caller is cancelled
            if not opened.cancelled():
                shared: R = opened.result()
                return shared
        opening: asyncio.Future[R] = self._loop.create_future()
        self._entered[open_resource] = opening
        # In the caller's own task: some context managers must be left by the task that entered
        # them.
        try:
            resource = await self._resources.enter_async_context(open_resource(self))
        except BaseException as error:
            del self._entered[open_resource]
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                opening.set_exception(error)
                opening.exception()  # read here, or asyncio logs it where no second caller waits
            else:  # a cancelled caller, or what a future cannot hold: the next caller opens
                opening.cancel()
            raise
        opening.set_result(resource)
        return resource

    def counter(self, name: str, text: str, *, label: str, values: Iterable[str]) -> PluginCounter:
        """A counter of this worker in `/metrics`, which is 0 for every value from the start.

        ```python
        refused = deps.counter(
            "acme_letters_refused_total",
            "Letters that the post office refused.",
            label="about",
            values=("stamp", "address"),
        )
        refused.add("stamp")
        ```

        Args:
            name: Begins with the plugin's package and ends with `_total`: no core metric has it.
            text: What is counted, one sentence.
            label: The name of its label.
            values: All values that the label can have. Nothing that a job carries is one of them.

        Returns:
            The counter; the same one for the same arguments.

        Raises:
            ValueError: A name cannot be one of a metric or of a label, there are no values, or a
                counter of this name has other arguments.
        """
        made = PluginCounter(name, text, label, tuple(values))
        counter = self.counters.setdefault(name, made)
        if not counter.counts_the_same_as(made):
            raise ValueError(f"counter {name!r} exists with another text, label or values")
        return counter

    def report_trouble(self, queue: Queue[Any], sentence: str) -> None:
        """List what an operator must solve: `corral health` fails for it and prints it.

        It is in the worker's heartbeats, on the board and under `"troubles"` of `/healthz` and
        `/readyz`, which do not fail for it: the worker goes on taking jobs. Callable from any
        thread. It is not logged.

        Args:
            queue: The queue that it concerns. It has one trouble; a later one takes its place.
            sentence: What is wrong, without a full stop; its first 300 characters are shown. It
                must hold nothing secret and nothing that a job carries.
        """
        self.troubles[queue.name, REPORTED] = sentence

    def clear_trouble(self, queue: Queue[Any]) -> None:
        """Remove what was reported of a queue: it is solved. Callable from any thread."""
        self.troubles.pop((queue.name, REPORTED), None)

    @overload
    async def ask_first(
        self,
        spec: Callable[P, Coroutine[Any, Any, T | None]],
        *args: P.args,
        **arguments: P.kwargs,
    ) -> T | None: ...

    @overload
    async def ask_first(
        self,
        spec: Callable[P, Awaitable[T | None] | T | None],
        *args: P.args,
        **arguments: P.kwargs,
    ) -> T | None: ...

    async def ask_first(self, spec: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
        """Call the implementations of a plugin's hook one by one, until one has an answer.

        The application's implementation is called first, those marked `trylast` last.

        Args:
            spec: The hook's specification: the function that a plugin has marked with `hookspec`.
            args: Arguments of the hook by position.
            arguments: Arguments of the hook by name.

        Returns:
            The first answer that is not None, awaited where it is awaitable; else None.

        Raises:
            HookRaised: An implementation raised; the ones after it were not called.
            LookupError: No loaded plugin offers the hook.
            TypeError: The arguments are not those of the specification.
        """
        answers = self._ask(spec, args, arguments)
        async with aclosing(answers):  # left early, it would be closed by a task of its own
            async for answer in answers:
                if answer.value is not None:
                    return answer.value
        return None

    @overload
    async def ask_all(
        self, spec: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **arguments: P.kwargs
    ) -> list[Answer[T]]: ...

    @overload
    async def ask_all(
        self, spec: Callable[P, Awaitable[T] | T], *args: P.args, **arguments: P.kwargs
    ) -> list[Answer[T]]: ...

    async def ask_all(
        self, spec: Callable[..., Any], *args: Any, **arguments: Any
    ) -> list[Answer[Any]]:
        """Call all implementations of a plugin's hook, each when the one before has answered.

        Args:
            spec: The hook's specification: the function that a plugin has marked with `hookspec`.
            args: Arguments of the hook by position.
            arguments: Arguments of the hook by name.

        Returns:
            One answer for each implementation, in the order of `ask_first`.

        Raises:
            HookRaised: An implementation raised; the ones after it were not called.
            LookupError: No loaded plugin offers the hook.
            TypeError: The arguments are not those of the specification.
        """
        return [answer async for answer in self._ask(spec, args, arguments)]

    def implementers(self, spec: Callable[..., Any]) -> tuple[str, ...]:
        """The modules that implement a plugin's hook, in the order in which they are called.

        Args:
            spec: The hook's specification.

        Raises:
            LookupError: No loaded plugin offers the hook.
        """
        return tuple(each.module for each in self._plugins.implementations_of(spec))

    async def _ask(
        self, spec: Callable[..., Any], args: Sequence[object], arguments: Mapping[str, object]
    ) -> AsyncGenerator[Answer[Any], None]:
        implementations = self._plugins.implementations_of(spec)
        bound = inspect.signature(spec).bind(*args, **arguments)
        bound.apply_defaults()
        for implementation in implementations:
            try:
                value = implementation(**bound.arguments)
                if inspect.isawaitable(value):
                    value = await value
            except Exception as error:  # a plugin may raise anything, and so may what it awaits
                raise HookRaised(spec.__name__, implementation.module, error) from error
            yield Answer(implementation.module, value)

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the worker's event loop and block until it is done.

        For `def` processors, which run on threads: `deps.wait(deps.jobs.enqueue(queue, payload))`.

        Returns:
            What the awaitable returns.

        Raises:
            SchedulerUnusable: Called in a child that the processor has forked.
            RuntimeError: Called on the event loop itself, where blocking would wait for ever.
        """
        import asyncio  # noqa: PLC0415  # see __init__

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
    """A coroutine of any awaitable: what `asyncio.run_coroutine_threadsafe` takes."""

    async def run() -> T:
        return await awaitable

    return run()

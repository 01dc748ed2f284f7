"""`JobHooks`: calls the implementations of the hooks that run with every job, each on its own.

An implementation that raises is logged, once per hook and provider. It stops neither the other
implementations nor the worker.

In a worker that holds for every exception, `KeyboardInterrupt` and `CancelledError` included. The
hooks are synchronous, so neither of the two can come from outside; and each would end the worker or
lose a job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from corral.job import Job
from corral.loggers import Logger, redactor_of
from corral.outcome import Outcome
from corral.payload import Payload
from corral.plugins.entry_points import PluginEntryPoint, Provider
from corral.queue import Queue
from corral.raised import describe

__all__ = ["PLUGIN_ERRORS", "Implementation", "JobHooks"]

log = Logger("corral.plugins")

PLUGIN_ERRORS: Final = (Exception, SystemExit)
"""What is caught when a plugin raises it.

SystemExit is among them because it would end the process silently, also when raised in a task.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Implementation:
    """A plugin's implementation of one hook.

    Attributes:
        hook: The hook's name.
        entry_points: The entry points of the plugin.
        function: The function that implements the hook.
        arguments: The names of the hook's arguments that the function takes, in its own order.
    """

    hook: str
    entry_points: tuple[PluginEntryPoint, ...]
    function: Callable[..., Any]
    arguments: Sequence[str]

    @property
    def provider(self) -> Provider:
        """The distribution whose implementation it is."""
        return self.entry_points[0].provider

    @property
    def module(self) -> str:
        """The module that implements the hook, as its entry point or `CORRAL_APP` names it."""
        return self.entry_points[0].value

    def __call__(self, **arguments: object) -> Any:
        """Call the function with those of the hook's arguments that it takes.

        Raises:
            BaseException: Whatever the function raises.
        """
        return self.function(*[arguments[name] for name in self.arguments])

    def positional(self, *names: str) -> Callable[..., Any]:
        """A callable that takes all of the hook's arguments by position, in the order of `names`.

        Saves 1 µs per call against calling by name, which counts where every job is a call.
        """
        if tuple(self.arguments) == names:
            return self.function
        places = [names.index(name) for name in self.arguments]
        return lambda *given: self.function(*[given[place] for place in places])


Subscriber = tuple[Implementation, Callable[..., Any]]
"""An implementation, and a callable that takes all of the hook's arguments in the hook's order."""

_NO_CONTEXT: Final = nullcontext()
"""Entering a `nullcontext` does nothing, so a context manager of that type is never entered."""


class JobHooks:
    """The hooks that run with every job.

    A hook without an implementation is None here: testing for that is all it costs.

    Attributes:
        enqueuing: `enqueuing(queue, payload)` calls `corral_enqueuing`, and returns everything that
            the implementations add to the job.
        job_context: `with job_context(job):` enters what `corral_job_context` returns.
        job_ended: `job_ended(job, outcome)` calls `corral_job_ended`.
    """

    def __init__(self, implementations: Mapping[str, Sequence[Implementation]]) -> None:
        def subscribers(hook: str, *names: str) -> Sequence[Subscriber]:
            return [(each, each.positional(*names)) for each in implementations.get(hook, ())]

        self._enqueuing = subscribers("corral_enqueuing", "queue", "payload")
        self._job_context = subscribers("corral_job_context", "job")
        self._job_ended = subscribers("corral_job_ended", "job", "outcome")
        self._logged: set[tuple[str, Provider]] = set()
        self.enqueuing = self._call_enqueuing if self._enqueuing else None
        self.job_context = self._open_job_context if self._job_context else None
        self.job_ended = self._call_job_ended if self._job_ended else None

    def _call_enqueuing(self, queue: Queue[Any], payload: Payload) -> dict[str, str]:
        carrier: dict[str, str] = {}
        for subscriber, call in self._enqueuing:
            try:
                added = call(queue, payload)
                # Most add nothing; checking an empty dict would take 0.5 µs of each job.
                if added is not None and (added or type(added) is not dict):
                    carrier.update(_check_texts(added))
            except PLUGIN_ERRORS as error:
                self.log_once(subscriber, error, queue, payload)
        return carrier

    def _open_job_context(self, job: Job[Any]) -> AbstractContextManager[None]:
        subscribers = iter(self._job_context)
        for subscriber, call in subscribers:
            context = self.call_job_context(subscriber, call, job)
            if type(context) is not nullcontext:
                return _JobContext(self, job, subscriber, context, subscribers)
        return _NO_CONTEXT

    def call_job_context(
        self, subscriber: Implementation, call: Callable[..., Any], job: Job[Any]
    ) -> AbstractContextManager[object]:
        """The context manager that one implementation of `corral_job_context` returns.

        If the implementation raises, that is logged and a `nullcontext` returned.
        """
        try:
            context: AbstractContextManager[object] = call(job)
        except BaseException as error:  # noqa: BLE001  # in a worker: see the module's docstring
            self.log_once(subscriber, error, job.queue, job.payload)
            return _NO_CONTEXT
        return context

    def _call_job_ended(self, job: Job[Any], outcome: Outcome) -> None:
        for subscriber, call in self._job_ended:
            try:
                call(job, outcome)
            except BaseException as error:  # noqa: BLE001  # in a worker: see the module's docstring
                self.log_once(subscriber, error, job.queue, job.payload)

    def log_once(
        self, subscriber: Implementation, error: BaseException, queue: Queue[Any], payload: Payload
    ) -> None:
        """Log the first exception of an implementation; later ones are not logged.

        Raises nothing, not even where the exception's own text cannot be made.

        Args:
            subscriber: The implementation.
            error: The exception it raised, or a `_WrongReturn`.
            queue: The queue of the job that it was called with.
            payload: That job's payload: its secrets are masked in the exception's text.
        """
        key = (subscriber.hook, subscriber.provider)
        if key in self._logged:
            return
        self._logged.add(key)
        with suppress(Exception):  # the program's own logging may be broken
            redactor = redactor_of(queue, payload)
            names = {"hook": subscriber.hook, "provider": subscriber.provider.label}
            if isinstance(error, _WrongReturn):
                log.error(
                    "a hook returned what it must not, which is ignored; it is called again, and"
                    " further errors of it are not logged",
                    **names,
                    error=redactor.text(str(error)),
                )
                return
            reason, trace = map(redactor.text, describe(error))
            log.error(
                "a hook raised; it is called again, and further errors of it are not logged",
                **names,
                error=reason,
                exception=trace.rstrip(),
            )


class _WrongReturn(Exception):
    """An implementation returned a value that its hook cannot use."""


def _check_texts(added: object) -> dict[str, str]:
    """Check what an implementation of `corral_enqueuing` adds to a job; returns it as a new dict.

    Raises:
        _WrongReturn: It is no mapping of texts to texts. The message quotes no value.
    """
    if not isinstance(added, Mapping):
        raise _WrongReturn(f"{type(added).__name__} in place of a mapping of texts to texts")
    texts: dict[str, str] = {}
    for name, value in added.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            kinds = f"{type(name).__name__} to {type(value).__name__}"
            raise _WrongReturn(f"a mapping of {kinds} in place of a mapping of texts to texts")
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise _WrongReturn(
                "a text with half a surrogate pair, which JSON cannot hold"
            ) from None
        texts[name] = value
    return texts


class _JobContext(AbstractContextManager[None]):
    """The context managers of all implementations, entered in order and left in reverse.

    They see the processor's exception and cannot swallow it: a hook does not decide how a job ends.

    Args:
        job_hooks: Logs what they raise.
        job: The job.
        subscriber: The first implementation that returned a context manager to enter.
        context: That context manager.
        others: The implementations after it, which were not called yet.
    """

    __slots__ = ("_context", "_entered", "_job", "_job_hooks", "_others", "_subscriber")

    def __init__(
        self,
        job_hooks: JobHooks,
        job: Job[Any],
        subscriber: Implementation,
        context: AbstractContextManager[object],
        others: Iterator[Subscriber],
    ) -> None:
        self._job_hooks = job_hooks
        self._job = job
        self._subscriber = subscriber
        self._context = context
        self._others = others
        self._entered: list[tuple[Implementation, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        self._enter(self._subscriber, self._context)
        for subscriber, call in self._others:
            context = self._job_hooks.call_job_context(subscriber, call, self._job)
            if type(context) is not nullcontext:
                self._enter(subscriber, context)

    def _enter(self, subscriber: Implementation, context: AbstractContextManager[object]) -> None:
        try:
            context.__enter__()
        except BaseException as error:  # noqa: BLE001  # in a worker: see the module's docstring
            self._job_hooks.log_once(subscriber, error, self._job.queue, self._job.payload)
        else:
            self._entered.append((subscriber, context))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._entered:
            subscriber, context = self._entered.pop()
            try:
                context.__exit__(kind, error, traceback)
            except BaseException as raised:  # noqa: BLE001  # in a worker: see the module's docstring
                self._job_hooks.log_once(subscriber, raised, self._job.queue, self._job.payload)

"""`Relay`: calls the subscribers of the hooks that run with every job, each on its own.

A subscriber that raises is logged, once per hook and provider; it stops neither the others nor the
worker.

In a worker that holds for whatever is raised, a `KeyboardInterrupt` or a `CancelledError`, too: the
hooks are synchronous, so none of them comes from outside, and each would end the worker or lose a
job.
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
from corral.plugins.entry_points import Claim, Provider
from corral.queue import Queue
from corral.raised import described

__all__ = ["RAISED", "Implementation", "Relay"]

log = Logger("corral.plugins")

RAISED: Final = (Exception, SystemExit)
"""What a plugin may raise without ending the process; SystemExit would end it without a word, in a
task too.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Implementation:
    """A plugin's implementation of one hook.

    Attributes:
        hook: The hook's name.
        claims: The entry points of the plugin.
        function: What implements it.
        arguments: The names of those of the hook's arguments that it takes, in its own order.
    """

    hook: str
    claims: tuple[Claim, ...]
    function: Callable[..., Any]
    arguments: Sequence[str]

    @property
    def provider(self) -> Provider:
        """The distribution whose implementation it is."""
        return self.claims[0].provider

    def __call__(self, **arguments: object) -> Any:
        """Call it with the hook's arguments; whatever it raises is raised."""
        return self.function(*[arguments[name] for name in self.arguments])

    def positional(self, *names: str) -> Callable[..., Any]:
        """What calls it with these of the hook's arguments, in this order: 1 µs less, where every
        job is one call.
        """
        if tuple(self.arguments) == names:
            return self.function
        places = [names.index(name) for name in self.arguments]
        return lambda *given: self.function(*[given[place] for place in places])


Subscriber = tuple[Implementation, Callable[..., Any]]
"""An implementation, and what calls it with all of the hook's arguments, in the hook's order."""

_NOTHING: Final = nullcontext()
"""Entering one does nothing, so that none is entered."""


class Relay:
    """The hooks that run with every job.

    One that nobody subscribes to is None: testing that is all it costs.

    Attributes:
        enqueuing: `enqueuing(queue, payload, carrier)` calls `corral_enqueuing`.
        job_context: `with job_context(job):` enters what `corral_job_context` returns.
        job_ended: `job_ended(job, outcome)` calls `corral_job_ended`.
    """

    def __init__(self, implementations: Mapping[str, Sequence[Implementation]]) -> None:
        def prepared(hook: str, *names: str) -> Sequence[Subscriber]:
            return [(each, each.positional(*names)) for each in implementations.get(hook, ())]

        self._enqueuing = prepared("corral_enqueuing", "queue", "payload", "carrier")
        self._job_context = prepared("corral_job_context", "job")
        self._job_ended = prepared("corral_job_ended", "job", "outcome")
        self._told: set[tuple[str, Provider]] = set()
        self.enqueuing = self._relay_enqueuing if self._enqueuing else None
        self.job_context = self._relay_job_context if self._job_context else None
        self.job_ended = self._relay_job_ended if self._job_ended else None

    def _relay_enqueuing(
        self, queue: Queue[Any], payload: Payload, carrier: dict[str, str]
    ) -> None:
        for subscriber, call in self._enqueuing:
            try:
                call(queue, payload, carrier)
            except RAISED as error:
                self.tell(subscriber, error, queue, payload)

    def _relay_job_context(self, job: Job[Any]) -> AbstractContextManager[None]:
        subscribers = iter(self._job_context)
        for subscriber, call in subscribers:
            context = self.context_of(subscriber, call, job)
            if type(context) is not nullcontext:
                return _JobContext(self, job, subscriber, context, subscribers)
        return _NOTHING

    def context_of(
        self, subscriber: Implementation, call: Callable[..., Any], job: Job[Any]
    ) -> AbstractContextManager[object]:
        """What a subscriber of `corral_job_context` returns; a `nullcontext` where it raises, which
        is told.
        """
        try:
            context: AbstractContextManager[object] = call(job)
        except BaseException as error:  # noqa: BLE001  # see above
            self.tell(subscriber, error, job.queue, job.payload)
            return _NOTHING
        return context

    def _relay_job_ended(self, job: Job[Any], outcome: Outcome) -> None:
        for subscriber, call in self._job_ended:
            try:
                call(job, outcome)
            except BaseException as error:  # noqa: BLE001  # see above
                self.tell(subscriber, error, job.queue, job.payload)

    def tell(
        self, subscriber: Implementation, error: BaseException, queue: Queue[Any], payload: Payload
    ) -> None:
        """Log what a subscriber raised, the first time.

        Raises nothing, whatever the exception is made of.

        Args:
            subscriber: Whose it is.
            error: What it raised.
            queue: The queue of the job that it was called with.
            payload: That job's payload: what is secret in it is masked in what the exception says.
        """
        key = (subscriber.hook, subscriber.provider)
        if key in self._told:
            return
        self._told.add(key)
        with suppress(Exception):  # the program's own logging may be broken
            redactor = redactor_of(queue, payload)
            reason, trace = map(redactor.text, described(error))
            log.error(
                "a hook raised; it is called again, and further errors of it are not logged",
                hook=subscriber.hook,
                provider=subscriber.provider.label,
                error=reason,
                exception=trace.rstrip(),
            )


class _JobContext(AbstractContextManager[None]):
    """The context managers of all subscribers, entered in order and left in reverse.

    They see the processor's exception and cannot swallow it: how a job ends is not theirs to
    decide.

    Args:
        relay: Told of what they raise.
        job: The job.
        subscriber: The first one that has something to enter.
        context: What it has returned.
        others: The subscribers after it, which were not called yet.
    """

    __slots__ = ("_context", "_entered", "_job", "_others", "_relay", "_subscriber")

    def __init__(
        self,
        relay: Relay,
        job: Job[Any],
        subscriber: Implementation,
        context: AbstractContextManager[object],
        others: Iterator[Subscriber],
    ) -> None:
        self._relay = relay
        self._job = job
        self._subscriber = subscriber
        self._context = context
        self._others = others
        self._entered: list[tuple[Implementation, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        self._enter(self._subscriber, self._context)
        for subscriber, call in self._others:
            context = self._relay.context_of(subscriber, call, self._job)
            if type(context) is not nullcontext:
                self._enter(subscriber, context)

    def _enter(self, subscriber: Implementation, context: AbstractContextManager[object]) -> None:
        try:
            context.__enter__()
        except BaseException as error:  # noqa: BLE001  # see above
            self._relay.tell(subscriber, error, self._job.queue, self._job.payload)
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
            except BaseException as raised:  # noqa: BLE001  # see above
                self._relay.tell(subscriber, raised, self._job.queue, self._job.payload)

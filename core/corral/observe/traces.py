"""Traces: a span for each job that is enqueued and for each run of one, by OpenTelemetry's API
(wire § 6.24).

A plugin like others, which the core brings along: it is loaded where that API is installed, and
asks for no SDK. The trace context travels as the carrier that bullmq-otel writes, so that a trace
goes on in Node, and from there in here. A span says where a job goes and how its run ended. It is
not given the payload, and an exception's message, which may quote one, is not recorded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final

from importlib_metadata import version
from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from corral.errors import RateLimited, Snooze
from corral.hookspecs import hookimpl
from corral.job import Job
from corral.queue import Queue

__all__ = ["corral_enqueuing", "corral_job_context"]

SYSTEM: Final = "bullmq"
"""Of whichever client: the system is what is in the store.

Names are of OpenTelemetry's messaging conventions.
"""

_tracer: Final = trace.get_tracer("corral", version("corral"))
"""The API's stand-in, which becomes the application's own as soon as that configures one."""

_NOTHING: Final = nullcontext()


class _Provider:
    """The application's tracer provider, which it may configure at any time, once and for good."""

    def __init__(self) -> None:
        self._proxy = trace.ProxyTracerProvider()
        self._is_there = False

    def is_there(self) -> bool:
        """Whether anybody records spans.

        If not, what is in carriers is handed on, and nothing else is done.

        The API makes stand-ins for tracers as long as there is no provider. To ask for a tracer
        takes 0.2 µs then; `trace.get_tracer_provider` takes 0.6 µs, because it looks into the
        environment each time.
        """
        if not self._is_there:
            self._is_there = type(self._proxy.get_tracer("corral")) is not trace.ProxyTracer
        return self._is_there


_provider: Final = _Provider()


@hookimpl
def corral_enqueuing(queue: Queue[Any], carrier: dict[str, str]) -> None:
    """Put a producer's span into the carrier: a child of the current span, or the first of a trace."""
    if not (_provider.is_there() or trace.get_current_span().get_span_context().is_valid):
        return
    span = _tracer.start_span(
        f"add {queue.name}",
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": SYSTEM,
            "messaging.operation.name": "add",
            "messaging.operation.type": "create",
            "messaging.destination.name": queue.name,
        },
    )
    propagate.inject(carrier, trace.set_span_in_context(span))
    span.end()


@hookimpl
def corral_job_context(job: Job[Any]) -> AbstractContextManager[None]:
    """Hold a consumer's span around the processor: a child of the span in the job's carrier."""
    return _Run(job) if job.carrier_text or _provider.is_there() else _NOTHING


class _Run(AbstractContextManager[None]):
    """One run of a job, as the current span of its task or thread."""

    __slots__ = ("_job", "_span", "_token")

    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def __enter__(self) -> None:
        job = self._job
        carrier = job.carrier
        # from an empty context: what happened to be current where the worker was started is no part
        # of the job
        parent = propagate.extract(carrier, Context()) if carrier else Context()
        self._span = _tracer.start_span(
            f"process {job.queue.name}",
            parent,
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": SYSTEM,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": job.queue.name,
                "messaging.message.id": job.id,
                "corral.job.attempt": job.attempt,
            },
        )
        self._token = context.attach(trace.set_span_in_context(self._span, parent))
        told = self._span.get_span_context()
        if told.is_valid:
            job.run.trace = (
                told.trace_id,
                told.span_id,
            )  # for the log's line of how the job ended, after the span has

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span = self._span
        if kind is not None and issubclass(kind, (Snooze, RateLimited)):
            span.set_attribute(
                "corral.job.outcome", "snoozed" if issubclass(kind, Snooze) else "rate_limited"
            )
        elif kind is not None:
            span.set_attribute("error.type", _name(kind))
            span.set_status(StatusCode.ERROR)
        span.end()
        if (
            kind is not GeneratorExit
        ):  # then the loop is gone, and this runs in whatever context collects the garbage
            context.detach(self._token)


def _name(kind: type[BaseException]) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )

"""Traces: a span for each enqueued job and for each run, with OpenTelemetry's API (wire § 6.24).

A built-in plugin, which is loaded if that API is installed; it needs no SDK. The trace context
travels in the carrier that bullmq-otel writes, so that a trace continues in Node and back. A span
shows the queue and how the run ended. It has neither the payload nor the message of an exception,
which may quote the payload.
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
from corral.job import Job, run_state
from corral.queue import Queue

__all__ = ["corral_enqueuing", "corral_job_context"]

SYSTEM: Final = "bullmq"
"""The messaging system of the store, whichever client wrote the job.

The names of attributes are those of OpenTelemetry's messaging conventions.
"""

_tracer: Final = trace.get_tracer("corral", version("corral"))
"""A proxy of the API, which uses the application's tracer provider once that is configured."""

_NOTHING: Final = nullcontext()


class _TracerProvider:
    """The application's tracer provider, which it may configure at any time, but only once."""

    def __init__(self) -> None:
        self._proxy = trace.ProxyTracerProvider()
        self._is_configured = False

    def is_configured(self) -> bool:
        """Whether the application has configured a provider, so that spans are recorded.

        If not, carriers are passed on, and nothing else is done. The API returns proxies of tracers
        until there is a provider. Asking for a tracer takes 0.2 µs then;
        `trace.get_tracer_provider` takes 0.6 µs, because it reads the environment each time.
        """
        if not self._is_configured:
            self._is_configured = type(self._proxy.get_tracer("corral")) is not trace.ProxyTracer
        return self._is_configured


_provider: Final = _TracerProvider()


@hookimpl
def corral_enqueuing(queue: Queue[Any]) -> dict[str, str]:
    """Put a producer's span into the carrier: a child of the current span, or a new trace."""
    if not (_provider.is_configured() or trace.get_current_span().get_span_context().is_valid):
        return {}
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
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    span.end()
    return carrier


@hookimpl
def corral_job_context(job: Job[Any]) -> AbstractContextManager[None]:
    """Hold a consumer's span around the processor: a child of the span in the job's carrier."""
    return _Run(job) if run_state(job).carrier_text or _provider.is_configured() else _NOTHING


class _Run(AbstractContextManager[None]):
    """One run of a job, as the current span of its task or thread."""

    __slots__ = ("_job", "_span", "_token")

    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def __enter__(self) -> None:
        job = self._job
        carrier = job.carrier
        # an empty context: a span that was current where the worker started is not the job's parent
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
        span_context = self._span.get_span_context()
        if span_context.is_valid:
            # for the log line about the end of the job, which is written after the span has ended
            run_state(job).trace = (span_context.trace_id, span_context.span_id)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span = self._span
        if kind is not None and issubclass(kind, (Snooze, RateLimited)):
            span.set_attribute(
                "corral.job.outcome", "snoozed" if issubclass(kind, Snooze) else "queue_limited"
            )
        elif kind is not None:
            span.set_attribute("error.type", _name(kind))
            span.set_status(StatusCode.ERROR)
        span.end()
        # after GeneratorExit the loop is gone, and this runs in the garbage collector's context
        if kind is not GeneratorExit:
            context.detach(self._token)


def _name(kind: type[BaseException]) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )

"""What a span says of a job, what it must not say, and that nothing is done where nobody records
spans.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from corral import Fail, Job, Payload, Queue, RateLimited, Retry, Snooze, testing
from corral.job import run_state
from corral.observe import traces

TRACE = "14288dc938cfeef7b69bdd34aa5c6648"
PARENT = "a79f725f5767b2d8"
CARRIER = f'{{"traceparent":"00-{TRACE}-{PARENT}-01"}}'
SECRET = "ada@example.org"


class Letter(Payload):
    to: str = SECRET


letters = Queue("letters", Letter)


def letter(carrier: str | None = None) -> Job[Any]:
    job = testing.job(letters, Letter())
    run_state(job).carrier_text = carrier
    return job


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What an SDK records; a process has one for good, so this one stands in for it during one
    test.
    """
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces._provider, "_is_configured", True)
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("corral"))
    yield exporter
    provider.shutdown()


def one(recorded: InMemorySpanExporter) -> ReadableSpan:
    (span,) = recorded.get_finished_spans()
    return span


FAILURES: dict[str, tuple[BaseException, str]] = {
    "an error": (ValueError(SECRET), "ValueError"),
    "one that asks for a retry": (Retry(SECRET, after=timedelta(0)), "corral.errors.Retry"),
    "one for good": (Fail(SECRET), "corral.errors.Fail"),
    "an interruption": (asyncio.CancelledError(SECRET), "asyncio.exceptions.CancelledError"),
    "an exit": (SystemExit(SECRET), "SystemExit"),
}


@pytest.mark.parametrize(("error", "name"), FAILURES.values(), ids=FAILURES)
def test_a_run_that_failed_says_by_which_exception_and_no_more(
    recorded: InMemorySpanExporter, error: BaseException, name: str
) -> None:
    with pytest.raises(type(error)), traces.corral_job_context(letter()):
        raise error
    span = one(recorded)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.attributes is not None
    assert span.attributes["error.type"] == name
    assert span.events == ()
    assert SECRET not in span.to_json()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Snooze(after=timedelta(hours=1)), "snoozed"),
        (RateLimited(after=timedelta(hours=1)), "queue_limited"),
    ],
    ids=["snoozed", "rate limited"],
)
def test_a_run_that_asked_to_run_later_is_no_failure(
    recorded: InMemorySpanExporter, error: BaseException, outcome: str
) -> None:
    with pytest.raises(type(error)), traces.corral_job_context(letter()):
        raise error
    span = one(recorded)
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["corral.job.outcome"] == outcome
    assert "error.type" not in span.attributes


def test_a_run_is_the_child_of_the_span_in_its_carrier_and_parent_of_what_it_enqueues(
    recorded: InMemorySpanExporter,
) -> None:
    with traces.corral_job_context(letter(CARRIER)):
        carrier = traces.corral_enqueuing(letters)
    added, run = recorded.get_finished_spans()
    assert run.context is not None
    assert run.parent is not None
    assert (f"{run.context.trace_id:032x}", f"{run.parent.span_id:016x}") == (TRACE, PARENT)
    assert added.parent == run.context
    assert added.context is not None
    assert carrier == {"traceparent": f"00-{TRACE}-{added.context.span_id:016x}-01"}
    assert trace.get_current_span() is trace.INVALID_SPAN, "it ends with the run"


@pytest.mark.parametrize(
    "carrier", [None, "", "{", "[]", "1", '{"traceparent":5}', '{"traceparent":"nonsense"}']
)
def test_a_job_without_a_readable_carrier_starts_a_trace(
    recorded: InMemorySpanExporter, carrier: str | None
) -> None:
    """Of its own: what is current where the worker happens to run is not what enqueued the job."""
    with (
        trace.use_span(trace.NonRecordingSpan(_remote())),
        traces.corral_job_context(letter(carrier)),
    ):
        pass
    span = one(recorded)
    assert span.parent is None
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" != TRACE


def test_a_job_that_is_not_sampled_says_so(
    recorded: InMemorySpanExporter,
) -> None:
    with traces.corral_job_context(letter(CARRIER.replace("-01", "-00"))):
        carrier = traces.corral_enqueuing(letters)
    assert recorded.get_finished_spans() == ()
    assert carrier["traceparent"].startswith(f"00-{TRACE}-")
    assert carrier["traceparent"].endswith("-00")


class TestWithoutSdk:
    """The API alone, as an application has it that a library has brought it to."""

    def test_nothing_is_put_into_a_carrier(self) -> None:
        assert traces.corral_enqueuing(letters) == {}
        with traces.corral_job_context(letter()):
            assert traces.corral_enqueuing(letters) == {}

    def test_a_trace_that_others_have_begun_is_handed_on(self) -> None:
        with traces.corral_job_context(letter(CARRIER)):
            carrier = traces.corral_enqueuing(letters)
        assert carrier == {"traceparent": f"00-{TRACE}-{PARENT}-01"}


LATER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from contextlib import nullcontext
from corral import Payload, Queue, testing
from corral.observe import traces

class Letter(Payload):
    pass

letters = Queue("letters", Letter)
job = testing.job(letters, Letter())
for _ in range(3):
    assert type(traces.corral_job_context(job)) is nullcontext, "nobody records spans"
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
for _ in range(3):
    with traces.corral_job_context(job):
        pass
traces.corral_enqueuing(letters)
print(*(span.name for span in exporter.get_finished_spans()), sep=",")
"""


def test_a_provider_that_is_configured_later_records_from_the_next_job_on() -> None:
    """In a process of its own, which has one for good."""
    ran = subprocess.run(
        [sys.executable, "-c", LATER], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.stdout.strip(), ran.stderr) == (
        ",".join(["process letters"] * 3 + ["add letters"]),
        "",
    )


def test_a_provider_that_the_environment_names_records_from_the_first_job_on() -> None:
    program = LATER.replace("trace.set_tracer_provider(provider)", "").replace(
        "is nullcontext", "is traces._Run"
    )
    environment = os.environ | {"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def _remote() -> trace.SpanContext:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=True, trace_flags=flags)

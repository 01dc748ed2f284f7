"""The plugin of traces in a worker and a producer, on the real store; tests/interop has both sides
of the wire.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from corral import Deps, Fail, Job, JobScheduler, Queue
from corral.blocking import BlockingJobScheduler
from corral.loggers import Logger
from corral.observe import traces

pytestmark = pytest.mark.asyncio

TRACE = "14288dc938cfeef7b69bdd34aa5c6648"
PARENT = "a79f725f5767b2d8"
BEGUN = NonRecordingSpan(
    SpanContext(
        int(TRACE, 16), int(PARENT, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
)
"""A span of the application.

Without an SDK it is handed on as it is: nobody makes spans of their own below it.
"""


@pytest.fixture
def traced(workshop: Any) -> Any:
    workshop.load(
        corral_enqueuing=traces.corral_enqueuing, corral_job_context=traces.corral_job_context
    )
    return workshop


async def carriers(workshop: Any) -> dict[str, Any]:
    """The carrier of each job of `letters`, by id."""
    found: dict[str, Any] = {}
    async for key in workshop.raw.scan_iter("bull:letters:*", _type="hash"):
        if opts := await workshop.raw.hget(key, "opts"):
            found[key.rpartition(":")[2]] = json.loads(json.loads(opts).get("tm", "null"))
    return found


async def test_a_job_carries_the_trace_it_was_enqueued_in(traced: Any, letters: Queue[Any]) -> None:
    jobs = traced.producer(letters)
    await jobs.enqueue(letters, {}, job_id="untraced")
    with use_span(BEGUN):
        await asyncio.gather(
            *(jobs.enqueue(letters, {}, job_id=f"traced-{number}") for number in range(3))
        )
    carrier = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert await carriers(traced) == {
        "untraced": None,
        **{f"traced-{number}": carrier for number in range(3)},
    }


@asynccontextmanager
async def scheduler(deps: Deps) -> AsyncIterator[JobScheduler]:
    yield deps.jobs


async def follow_up(job: Job[Any], jobs: JobScheduler) -> None:
    assert trace.get_current_span().get_span_context().is_valid is (job.carrier != {})
    if not job.id.endswith("-next"):
        await jobs.enqueue(job.queue, {}, job_id=f"{job.id}-next")


@asynccontextmanager
async def blocking(deps: Deps) -> AsyncIterator[BlockingJobScheduler]:
    yield BlockingJobScheduler(deps.jobs, asyncio.get_running_loop())  # type: ignore[arg-type]  # the real one


def follow_up_on_a_thread(job: Job[Any], jobs: BlockingJobScheduler) -> None:
    assert trace.get_current_span().get_span_context().is_valid is (job.carrier != {})
    if not job.id.endswith("-next"):
        jobs.enqueue(job.queue, {}, job_id=f"{job.id}-next")


@pytest.mark.parametrize(
    ("processor", "using"),
    [(follow_up, scheduler), (follow_up_on_a_thread, blocking)],
    ids=["async def", "def"],
)
async def test_what_a_processor_enqueues_goes_on_with_its_trace(
    traced: Any, letters: Queue[Any], processor: Any, using: Any
) -> None:
    jobs = traced.producer(letters)
    await jobs.enqueue(letters, {}, job_id="untraced")
    with use_span(BEGUN):
        await jobs.enqueue(letters, {}, job_id="traced")
    await traced.burst(letters.processed_by(processor, using=using))
    assert await traced.raw.zcard("bull:letters:completed") == 4
    carrier = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    expected = {"untraced": None, "untraced-next": None, "traced": carrier, "traced-next": carrier}
    assert await carriers(traced) == expected


async def test_the_lines_of_a_run_have_its_trace_and_so_has_the_one_of_its_end(
    traced: Any, letters: Queue[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(job: Job[Any]) -> None:
        logging.getLogger("acme").warning("in the job")
        Logger("corral.acme").warning("in the job, too")
        raise Fail("no such user")

    jobs = traced.producer(letters)
    with use_span(BEGUN):
        await jobs.enqueue(letters, {}, job_id="traced")
    await jobs.enqueue(letters, {}, job_id="untraced")
    await traced.burst(letters.processed_by(fails))
    lines = [
        each
        for each in caplog.records
        if each.name.startswith("corral.") and hasattr(each, "job_id")
    ]
    ends = {
        each.job_id: getattr(each, "trace_id", None) for each in lines if each.event == "job failed"
    }
    assert ends == {"traced": TRACE, "untraced": None}
    said = {
        each.job_id: getattr(each, "trace_id", None)
        for each in lines
        if each.event == "in the job, too"
    }
    assert said == ends


async def test_it_is_a_plugin_like_others(command: Any) -> None:
    """Which `corral plugins` shows, and CORRAL_DISABLED_PLUGINS turns off."""
    listed = command("plugins", "--json")
    assert listed.wait() == 0, listed.said
    (row,) = [row for row in json.loads(listed.result) if row["name"] == "traces"]
    assert (row["distribution"], row["origin"], row["state"]) == ("corral", "built in", "loaded")
    assert row["hooks"] == ["corral_enqueuing", "corral_job_context"]
    listed = command("plugins", "--json", CORRAL_DISABLED_PLUGINS="traces")
    assert listed.wait() == 0, listed.said
    assert [row["state"] for row in json.loads(listed.result) if row["name"] == "traces"] == [
        "disabled"
    ]


async def test_without_opentelemetry_there_is_none(command: Callable[..., Any], acme: Path) -> None:
    (acme / "sitecustomize.py").write_text(
        "import sys\nsys.modules['opentelemetry'] = None\n", "utf-8"
    )
    listed = command("plugins", "--json")
    assert listed.wait() == 0, listed.said
    assert {"acme-letters", "traces"} & {row["name"] for row in json.loads(listed.result)} == {
        "acme-letters"
    }
    assert command("worker", "acme-letters", "--burst").wait() == 0

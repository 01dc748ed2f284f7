"""How a run of a job ends, seen in the store: the job's fields, its container, its events."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from corral import (
    Exponential,
    Fail,
    Fixed,
    Job,
    JobOptions,
    Payload,
    Queue,
    RateLimited,
    Retention,
    Retry,
    Snooze,
    hookimpl,
)
from corral.outcome import Completed, Failed, Retried, Snoozed, TimedOut
from logged import capture_logs

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("path")]


class Letter(Payload):
    text: str = ""


MS = timedelta(milliseconds=1)
shortened = Queue("letters", Letter, options=JobOptions(backoff=Exponential(10 * MS)))
"""The default policy, its delays shortened."""


def names(events: list[dict[str, str]]) -> list[str]:
    return [event["event"] for event in events]


async def test_two_failures_and_a_success_on_the_third_attempt(workshop: Any) -> None:
    attempts: list[tuple[int, int, int]] = []

    async def process(job: Job[Letter]) -> dict[str, int]:
        attempts.append((job.attempt, job.max_attempts, job.starts))
        if job.attempt < 3:
            raise ConnectionError(f"attempt {job.attempt}")
        return {"sent": job.attempt}

    enqueued = await workshop.producer(shortened).enqueue(shortened, Letter(text="a"))
    async with workshop.working(shortened.processed_by(process)):
        await workshop.until(shortened, enqueued.id, "completed")
    assert attempts == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]
    job = await workshop.hash(shortened, enqueued.id)
    assert (job["atm"], job["ats"], job["returnvalue"]) == ("3", "3", '{"sent":3}')
    assert job["failedReason"] == "ConnectionError: attempt 2"
    traces = json.loads(job["stacktrace"])
    assert ["ConnectionError: attempt 1\n" in trace for trace in traces] == [True, False]
    assert int(job["finishedOn"]) >= int(job["processedOn"]) > int(job["timestamp"])
    assert job["delay"] == "0"
    events = await workshop.events(shortened, enqueued.id)
    retry = ["delayed", "waiting", "active"]
    assert names(events) == ["added", "waiting", "active", *retry, *retry, "completed"]
    assert events[-1] == {
        "event": "completed",
        "jobId": enqueued.id,
        "returnvalue": '{"sent":3}',
        "prev": "active",
    }
    assert [event.get("prev") for event in events[4:6]] == ["delayed", "waiting"]
    due = [at for name, at in await workshop.stamps(shortened, enqueued.id) if name == "delayed"]
    waits = [
        int(event["delay"]) - at for event, at in zip((events[3], events[6]), due, strict=True)
    ]
    assert waits == pytest.approx([10, 20], abs=1), "the second wait is twice the first"


async def test_a_job_that_always_fails_ends_in_failed_with_all_its_stack_traces(
    workshop: Any,
) -> None:
    async def process(job: Job[Letter]) -> None:
        raise ValueError(f"attempt {job.attempt}")

    enqueued = await workshop.producer(shortened).enqueue(shortened, Letter())
    async with workshop.working(shortened.processed_by(process)):
        await workshop.until(shortened, enqueued.id, "failed")
    job = await workshop.hash(shortened, enqueued.id)
    assert (job["atm"], job["failedReason"]) == ("3", "ValueError: attempt 3")
    assert "returnvalue" not in job
    traces = json.loads(job["stacktrace"])
    assert [trace.splitlines()[-1] for trace in traces] == [
        f"ValueError: attempt {number}" for number in (1, 2, 3)
    ]
    assert all("in process" in trace and "execution.py" not in trace for trace in traces)
    events = await workshop.events(shortened, enqueued.id)
    assert events[-2:] == [
        {
            "event": "failed",
            "jobId": enqueued.id,
            "failedReason": "ValueError: attempt 3",
            "prev": "active",
        },
        {"event": "retries-exhausted", "jobId": enqueued.id, "attemptsMade": "3"},
    ]


async def test_retry_makes_the_next_attempt_after_exactly_its_time_and_the_last_one_final(
    workshop: Any,
) -> None:
    async def process(_job: Job[Letter]) -> None:
        raise Retry("not yet", after=30 * MS)

    queue = Queue(
        "letters", Letter, options=JobOptions(attempts=2, backoff=Fixed(timedelta(hours=1)))
    )
    enqueued = await workshop.producer(queue).enqueue(queue, Letter())
    async with workshop.working(queue.processed_by(process)):
        await workshop.until(queue, enqueued.id, "failed")
    job = await workshop.hash(queue, enqueued.id)
    assert (job["atm"], job["failedReason"]) == ("2", "Retry: not yet")
    events = await workshop.events(queue, enqueued.id)
    assert names(events)[2:] == [
        "active",
        "delayed",
        "waiting",
        "active",
        "failed",
        "retries-exhausted",
    ]
    at = dict(await workshop.stamps(queue, enqueued.id))["delayed"]
    assert int(events[3]["delay"]) - at == pytest.approx(30, abs=1)


@pytest.mark.parametrize(("asked_ms", "wait_ms"), [(5, 20), (60, 60)])
async def test_retry_waits_at_least_so_long_and_at_least_its_backoff(
    workshop: Any, asked_ms: int, wait_ms: int
) -> None:
    async def process(job: Job[Letter]) -> None:
        if job.attempt == 1:
            raise Retry("busy", at_least=asked_ms * MS)

    queue = Queue("letters", Letter, options=JobOptions(backoff=Fixed(20 * MS)))
    enqueued = await workshop.producer(queue).enqueue(queue, Letter(), attempts=2)
    async with workshop.working(queue.processed_by(process)):
        await workshop.until(queue, enqueued.id, "completed")
    events = await workshop.events(queue, enqueued.id)
    (due_ms,) = (int(event["delay"]) for event in events if event["event"] == "delayed")
    at_ms = dict(await workshop.stamps(queue, enqueued.id))["delayed"]
    assert due_ms - at_ms == pytest.approx(wait_ms, abs=1)


async def test_snooze_spends_no_attempt_and_leaves_no_failure(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> str:
        if job.starts < 3:
            raise Snooze("not due yet", after=10 * MS)
        return f"attempt {job.attempt}, start {job.starts}"

    enqueued = await workshop.producer(shortened).enqueue(shortened, Letter(), attempts=1)
    with capture_logs() as logged:
        async with workshop.working(shortened.processed_by(process)):
            await workshop.until(shortened, enqueued.id, "completed")
    lines = [(line["outcome"], line.get("reason")) for line in logged if "outcome" in line]
    assert lines == [("Snoozed", "not due yet")] * 2 + [("Completed", None)]
    job = await workshop.hash(shortened, enqueued.id)
    assert (job["atm"], job["ats"], job["returnvalue"]) == ("1", "3", '"attempt 1, start 3"')
    assert "failedReason" not in job
    assert "stacktrace" not in job
    snoozed = ["active", "delayed", "waiting"]
    assert names(await workshop.events(shortened, enqueued.id))[2:] == [
        *snoozed,
        *snoozed,
        "active",
        "completed",
    ]


async def test_fail_is_final_with_attempts_left(workshop: Any) -> None:
    async def process(_job: Job[Letter]) -> None:
        raise Fail("no such user")

    enqueued = await workshop.producer(shortened).enqueue(shortened, Letter())
    await workshop.burst(shortened.processed_by(process))
    assert await workshop.state(shortened, enqueued.id) == "failed"
    job = await workshop.hash(shortened, enqueued.id)
    assert (job["atm"], job["failedReason"]) == ("1", "Fail: no such user")
    assert names(await workshop.events(shortened, enqueued.id))[-1] == "failed", (
        "its attempts are not exhausted"
    )


async def test_rate_limited_gives_the_job_back_unspent_and_stops_the_queue_for_that_time(
    workshop: Any,
) -> None:
    async def process(job: Job[Letter]) -> None:
        if job.starts == 1 and job.payload.text == "first":
            raise RateLimited(after=80 * MS)

    jobs = workshop.producer(shortened)
    first, second = [
        await jobs.enqueue(shortened, Letter(text=text)) for text in ("first", "second")
    ]
    async with workshop.working(shortened.processed_by(process), concurrency={"letters": 1}):
        await workshop.until(shortened, second.id, "completed")
    stamps = await workshop.stamps(shortened, first.id)
    assert [name for name, _ in stamps][2:] == ["active", "waiting", "active", "completed"]
    assert stamps[4][1] - stamps[3][1] >= 80
    later = dict(await workshop.stamps(shortened, second.id))
    assert later["active"] >= stamps[4][1], "it was given back to the head of the queue"
    job = await workshop.hash(shortened, first.id)
    assert (job["atm"], job["ats"]) == ("1", "2")


async def test_a_timeout_is_a_failed_attempt_even_where_the_processor_swallows_it(
    workshop: Any,
) -> None:
    async def process(job: Job[Letter]) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if job.attempt == 1:
                raise
        return "after all"

    queue = Queue(
        "letters", Letter, options=JobOptions(attempts=2, backoff=Fixed(10 * MS)), timeout=30 * MS
    )
    enqueued = await workshop.producer(queue).enqueue(queue, Letter())
    async with workshop.working(queue.processed_by(process)):
        await workshop.until(queue, enqueued.id, "failed")
    job = await workshop.hash(queue, enqueued.id)
    reason = "TimeoutError: the processor ran longer than 0.03 s"
    assert (job["atm"], job["failedReason"], json.loads(job["stacktrace"])) == (
        "2",
        reason,
        [reason, reason],
    )
    assert "returnvalue" not in job


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (object(), "PydanticSerializationError: "),
        ("x" * 65536, "ValueError: the result has 65538 bytes"),
        (2**53, ""),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_for_good(
    workshop: Any, result: object, reason: str
) -> None:
    def process(_job: Job[Letter]) -> object:
        return result

    enqueued = await workshop.producer(shortened).enqueue(shortened, Letter())
    await workshop.burst(shortened.processed_by(process))
    assert await workshop.state(shortened, enqueued.id) == "failed"
    job = await workshop.hash(shortened, enqueued.id)
    assert (job["atm"], job["ats"]) == ("1", "1")
    assert job["failedReason"].startswith(reason)


async def test_an_exception_that_would_end_a_process_ends_one_attempt(workshop: Any) -> None:
    def on_thread(job: Job[Letter]) -> None:
        if job.attempt == 1:
            raise SystemExit(job.payload.text)

    async def on_loop(job: Job[Letter]) -> None:
        if job.attempt == 1:
            raise {"exit": SystemExit, "cancel": asyncio.CancelledError}[job.payload.text](
                job.payload.text
            )

    threaded, looping = (
        Queue(name, Letter, options=JobOptions(backoff=Fixed(MS))) for name in ("def", "async-def")
    )
    jobs = workshop.producer(threaded, looping)
    made = [
        (threaded, await jobs.enqueue(threaded, Letter(text="exit")), "SystemExit: exit"),
        (looping, await jobs.enqueue(looping, Letter(text="exit")), "SystemExit: exit"),
        (looping, await jobs.enqueue(looping, Letter(text="cancel")), "CancelledError: cancel"),
    ]
    async with workshop.working(threaded.processed_by(on_thread), looping.processed_by(on_loop)):
        for queue, enqueued, _ in made:
            await workshop.until(queue, enqueued.id, "completed")
    for queue, enqueued, reason in made:
        job = await workshop.hash(queue, enqueued.id)
        assert (job["atm"], job["failedReason"]) == ("2", reason)


async def test_retention_of_the_call_holds_and_a_job_that_is_not_kept_still_has_its_event(
    workshop: Any,
) -> None:
    async def process(job: Job[Letter]) -> str:
        job.log("on my way")
        return job.payload.text

    jobs = workshop.producer(shortened)
    # Jobs that finish in one millisecond are kept in the order of their ids, so these have an
    # order.
    kept = [
        await jobs.enqueue(
            shortened, Letter(), job_id=f"letter-{n}", keep_completed=Retention(count=2)
        )
        for n in range(4)
    ]
    gone = await jobs.enqueue(shortened, Letter(text="x"), keep_completed=Retention(count=0))
    await workshop.burst(shortened.processed_by(process), concurrency={"letters": 1})
    states = [await workshop.state(shortened, each.id) for each in [*kept, gone]]
    assert states == ["gone", "gone", "completed", "completed", "gone"]
    assert (await workshop.events(shortened, gone.id))[-1]["returnvalue"] == '"x"'
    assert not await workshop.raw.exists(f"bull:letters:{gone.id}", f"bull:letters:{gone.id}:logs")


class TestHooks:
    async def test_context_is_held_around_the_processor_and_every_ending_is_reported_once(
        self, workshop: Any
    ) -> None:
        reported: list[Any] = []

        @hookimpl
        @contextmanager
        def corral_job_context(job: Job[Any]) -> Any:
            reported.append(("entered", job.payload.text, threading.current_thread().name))
            try:
                yield
            finally:
                reported.append(("left", job.payload.text))

        @hookimpl
        def corral_job_ended(job: Job[Any], outcome: Any) -> None:
            reported.append((type(outcome), job.payload.text, job.attempt))

        @hookimpl
        def corral_enqueuing(payload: Any) -> dict[str, str]:
            return {"trace": payload.text}

        workshop.load(
            corral_job_context=corral_job_context,
            corral_job_ended=corral_job_ended,
            corral_enqueuing=corral_enqueuing,
        )

        def process(job: Job[Letter]) -> None:
            reported.append(("running", threading.current_thread().name))
            if job.attempt == 1:
                raise ValueError

        enqueued = await workshop.producer(shortened).enqueue(shortened, Letter(text="a"))
        async with workshop.working(shortened.processed_by(process)):
            await workshop.until(shortened, enqueued.id, "completed")
        thread = reported[0][2]
        assert thread.startswith("corral-processor-")
        assert reported == [
            *[("entered", "a", thread), ("running", thread), ("left", "a"), (Retried, "a", 1)],
            *[("entered", "a", thread), ("running", thread), ("left", "a"), (Completed, "a", 2)],
        ]
        assert (
            json.loads((await workshop.hash(shortened, enqueued.id))["opts"])["tm"]
            == '{"trace":"a"}'
        )

    async def test_a_subscriber_that_raises_harms_nothing_and_is_logged_once(
        self, workshop: Any
    ) -> None:
        @hookimpl
        def corral_job_context(job: Job[Any]) -> Any:
            raise RuntimeError("no context")

        @hookimpl
        def corral_job_ended(outcome: Any) -> None:
            raise SystemExit("no metrics")

        @hookimpl
        def corral_enqueuing(queue: Any) -> None:
            raise RuntimeError("no trace")

        workshop.load(
            corral_job_context=corral_job_context,
            corral_job_ended=corral_job_ended,
            corral_enqueuing=corral_enqueuing,
        )

        async def process(_job: Job[Letter]) -> None:
            pass

        with capture_logs() as logged:
            jobs = workshop.producer(shortened)
            made = [await jobs.enqueue(shortened, Letter()) for _ in range(3)]
            await workshop.burst(shortened.processed_by(process))
        assert [await workshop.state(shortened, each.id) for each in made] == ["completed"] * 3
        raised = [line["hook"] for line in logged if "a hook raised" in line["event"]]
        assert sorted(raised) == ["corral_enqueuing", "corral_job_context", "corral_job_ended"]

    async def test_the_reported_outcome_is_the_one_that_was_written(self, workshop: Any) -> None:
        reported: dict[str, Any] = {}

        @hookimpl
        def corral_job_ended(job: Job[Any], outcome: Any) -> None:
            reported.setdefault(job.payload.text, outcome)

        workshop.load(corral_job_ended=corral_job_ended)
        queue = Queue("letters", Letter, timeout=20 * MS)

        async def process(job: Job[Letter]) -> None:
            match job.payload.text:
                case "snooze" if job.starts == 1:
                    raise Snooze(after=timedelta(hours=1))
                case "fail":
                    raise Fail("no")
                case "slow":
                    await asyncio.sleep(60)

        jobs = workshop.producer(queue)
        for text in ("snooze", "fail", "slow", "plain"):
            await jobs.enqueue(queue, Letter(text=text), attempts=1)
        await workshop.burst(queue.processed_by(process))
        match reported:
            case {
                "snooze": Snoozed(3_600_000),
                "fail": Failed("Fail: no"),
                "slow": TimedOut(_, None),
                "plain": Completed(),
            }:
                pass
            case _:
                pytest.fail(repr(reported))

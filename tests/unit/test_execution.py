"""Execution: a fetched job goes in, an outcome comes out, and nothing escapes. No store is needed for that."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import structlog.testing
from pydantic import field_validator

from corral import Exponential, Fail, Job, JobOptions, Payload, Queue, RateLimited, Retry, Snooze
from corral.outcome import Completed, Failed, HandedBack, LeaseLost, Outcome, Retried, Snoozed, TimedOut
from corral.outcome import RateLimited as QueueLimited
from corral.plugins import Relay
from corral.store.codec import decode_job
from corral.worker.execution import Execution, Running
from corral.worker.threads import Threads

pytestmark = pytest.mark.asyncio

SECOND = timedelta(seconds=1)


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter, options=JobOptions(backoff=Exponential(SECOND)))
TWO_ATTEMPTS = b'{"attempts":2,"backoff":{"type":"fixed","delay":70}}'


@pytest_asyncio.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads("processor")
    yield threads
    threads.close()


Prepare = Callable[..., tuple[Execution, Running]]


@pytest.fixture
def prepare(threads: Threads) -> Prepare:
    def prepare(function: Any, queue: Queue[Any] = letters, **fields: bytes) -> tuple[Execution, Running]:
        execution = Execution(queue.processed_by(function), None, Relay({}), threads)
        stored = {"data": b'{"text":"hello"}', "opts": TWO_ATTEMPTS, **fields}
        flat = [part for name, value in stored.items() for part in (name.encode(), value)]
        return execution, execution.prepare(decode_job(b"a", flat, "worker:1", 1_900_000_000_000))

    return prepare


Ending = Callable[..., Any]


@pytest.fixture
def ending(prepare: Prepare) -> Ending:
    """`await ending(function)`: the outcome, whether the function is made an `async def` or a `def` of."""

    async def ending(function: Callable[[Job[Any]], object], kind: str = "async def", **stored: Any) -> Outcome:
        async def on_loop(job: Job[Any]) -> object:
            return function(job)

        def on_thread(job: Job[Any]) -> object:
            return function(job)

        execution, running = prepare(on_loop if kind == "async def" else on_thread, **stored)
        assert running.refusal is None
        return await execution.run(running)

    return ending


def raising(error: BaseException) -> Callable[[Job[Any]], object]:
    def process(_job: Job[Any]) -> object:
        raise error

    return process


class Unreadable(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")


class Nameless(Snooze):
    def __init__(self) -> None:
        pass


BOTH = pytest.mark.parametrize("kind", ["async def", "def"])


class TestEndings:
    @BOTH
    async def test_a_result_is_written_as_strict_json(self, ending: Ending, kind: str) -> None:
        assert await ending(lambda _: None, kind) == Completed(b"null")
        assert await ending(lambda job: {"text": job.payload.text}, kind) == Completed(b'{"text":"hello"}')
        assert await ending(lambda _: Letter(text="x"), kind) == Completed(b'{"text":"x"}')
        assert await ending(lambda _: [float("nan"), float("inf"), 2**53 - 1], kind) == Completed(
            b"[null,null,9007199254740991]"
        )

    @BOTH
    async def test_an_exception_is_a_failed_attempt(self, ending: Ending, kind: str) -> None:
        match await ending(raising(ValueError("no such address")), kind):
            case Retried("ValueError: no such address", 70, trace):
                assert trace.startswith("Traceback (most recent call last):\n")
                assert trace.endswith("ValueError: no such address\n")
            case other:
                pytest.fail(repr(other))

    @BOTH
    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("3"), asyncio.CancelledError("3")])
    async def test_what_would_end_a_process_is_a_failed_attempt(
        self, ending: Ending, kind: str, error: BaseException
    ) -> None:
        outcome = await ending(raising(error), kind)
        assert isinstance(outcome, Retried)
        assert outcome.reason == f"{type(error).__name__}: 3"

    @BOTH
    async def test_a_stopped_iteration_is_a_failed_attempt(self, ending: Ending, kind: str) -> None:
        outcome = await ending(raising(StopIteration("done")), kind)
        assert isinstance(outcome, Retried)
        assert outcome.reason.startswith("RuntimeError: ")

    @BOTH
    async def test_the_last_attempt_fails_for_good(self, ending: Ending, kind: str) -> None:
        for opts in (b"{}", b'{"attempts":0}', b'{"attempts":1}'):
            assert isinstance(await ending(raising(ValueError()), kind, opts=opts), Failed)
        assert isinstance(await ending(raising(ValueError()), kind, atm=b"1"), Failed)
        assert isinstance(await ending(raising(Retry("later", after=SECOND)), kind, atm=b"1"), Failed)

    async def test_a_processor_may_decide_how_it_goes_on(self, ending: Ending) -> None:
        assert await ending(raising(Snooze(after=SECOND)), atm=b"1") == Snoozed(1000)
        assert await ending(raising(RateLimited(SECOND))) == QueueLimited(1000)
        match await ending(raising(Retry("busy", after=SECOND))):
            case Retried("Retry: busy", 1000):
                pass
            case other:
                pytest.fail(repr(other))
        match await ending(raising(Fail("no such user"))):
            case Failed("Fail: no such user"):
                pass
            case other:
                pytest.fail(repr(other))

    async def test_a_wait_that_is_no_duration_is_a_failed_attempt_and_says_so(self, ending: Ending) -> None:
        for wrong in (Snooze(after=5), RateLimited("5s"), Retry(after=None), Nameless()):  # type: ignore[arg-type]  # what an untyped program would raise
            outcome = await ending(raising(wrong))
            assert isinstance(outcome, Retried)
            assert outcome.reason.startswith(("TypeError: ", "AttributeError: "))
            assert type(wrong).__name__ in outcome.traceback, "it shows where the wrong one was raised"

    async def test_an_exception_whose_text_cannot_be_read_is_a_failed_attempt(self, ending: Ending) -> None:
        outcome = await ending(raising(Unreadable()))
        assert isinstance(outcome, Retried)
        assert outcome.reason == "Unreadable: its text cannot be read"
        assert "Unreadable" in outcome.traceback

    @pytest.mark.parametrize("text", ["x" * 5000, "ä" * 5000, "a" + "😀" * 5000, "lone \ud800 half " * 500])
    async def test_a_reason_has_at_most_a_kibibyte_and_can_be_written(self, ending: Ending, text: str) -> None:
        outcome = await ending(raising(ValueError(text)))
        assert 1000 < len(outcome.reason.encode()) <= 1024
        assert outcome.reason.endswith("…")
        outcome.traceback.encode()
        assert len(outcome.traceback) <= 8192

    async def test_a_result_that_cannot_be_written_fails_for_good(self, ending: Ending) -> None:
        unfit: list[object] = [object(), "\ud800", b"\xff", 2**53, {"n": [1, -(2**53)]}, (1 / 0 for _ in "a"), dict]
        nested: list[object] = []
        nested.append(nested)
        for result in [*unfit, nested]:
            outcome = await ending(lambda _, result=result: result)
            assert isinstance(outcome, Failed), result
            assert "the result cannot be written as JSON" in outcome.reason

    async def test_a_result_of_more_than_64_kib_fails_for_good(self, ending: Ending) -> None:
        assert isinstance(await ending(lambda _: "x" * (65536 - 2)), Completed)
        outcome = await ending(lambda _: "x" * (65536 - 1))
        assert outcome == Failed("ValueError: the result has 65537 bytes, more than 65536")

    async def test_an_unknown_backoff_is_the_queues_own_and_told_once(self, prepare: Prepare) -> None:
        async def process(_job: Job[Any]) -> None:
            raise ValueError

        opts = b'{"attempts":9,"backoff":{"type":"fibonacci","delay":1}}'
        execution, running = prepare(process, opts=opts, atm=b"1")
        with structlog.testing.capture_logs() as logged:
            for _ in range(2):
                outcome = await execution.run(running)
                assert isinstance(outcome, Retried)
                assert outcome.delay_ms == 2000
        assert [line["names"] for line in logged] == [["fibonacci"]]


class TestPreparing:
    async def test_a_job_without_fields_is_the_first_attempt_of_one(self, prepare: Prepare) -> None:
        _, running = prepare(lambda _: None, data=b"", opts=b"", timestamp=b"x")
        assert running.refusal is None
        assert (running.job.attempt, running.job.max_attempts, running.job.starts, running.job.name) == (1, 1, 1, "")

    async def test_a_payload_of_another_shape_is_refused_with_its_fields(self, prepare: Prepare) -> None:
        for data in (b"not json", b"[]", b"\xff", b'{"text":7}'):
            _, running = prepare(lambda _: None, data=data)
            assert running.refusal is not None
            assert running.refusal.reason.startswith("payload refused: ")
        assert running.refusal.reason == "payload refused: text: Input should be a valid string"

    async def test_a_validator_that_breaks_refuses_the_payload(self, prepare: Prepare) -> None:
        class Broken(Payload):
            text: str

            @field_validator("text")
            @classmethod
            def check(cls, value: str) -> str:
                raise KeyError(value)

        _, running = prepare(lambda _: None, queue=Queue("broken", Broken))
        assert running.refusal is not None
        assert running.refusal.reason == "payload refused: KeyError: 'hello'"
        assert "in check" in running.refusal.traceback

    async def test_opts_that_are_no_json_object_refuse_the_job(self, prepare: Prepare) -> None:
        for opts in (b"{", b"[]", b"7"):
            _, running = prepare(lambda _: None, opts=opts)
            assert running.refusal == Failed("job refused: opts is not a JSON object")

    async def test_a_deferred_failure_is_its_own_reason(self, prepare: Prepare) -> None:
        _, running = prepare(lambda _: None, defa=b"stalled too often", data=b"not json")
        assert running.refusal == Failed("stalled too often")

    async def test_unknown_fields_are_left_out_and_told_once(self, prepare: Prepare) -> None:
        execution, running = prepare(lambda _: None)
        with structlog.testing.capture_logs() as logged:
            for data in (b'{"text":"a","colour":1}', b'{"text":"b","colour":2}', b'{"size":3}'):
                flat = [b"data", data, b"opts", TWO_ATTEMPTS]
                running = execution.prepare(decode_job(b"a", flat, "worker:1", 0))
                assert running.refusal is None
        assert [line["names"] for line in logged] == [["colour"], ["size"]]


class TestInterruptions:
    @pytest.mark.parametrize(
        ("why", "outcome"), [("lease", LeaseLost()), ("shutdown", HandedBack()), ("timeout", TimedOut)]
    )
    @pytest.mark.parametrize("reaction", ["ends", "returns", "raises"])
    async def test_an_interrupted_run_ends_as_whoever_interrupted_it_says(
        self, prepare: Prepare, why: Any, outcome: Any, reaction: str
    ) -> None:
        started = asyncio.Event()

        async def process(job: Job[Any]) -> str:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                assert job.cancelled
                if reaction == "ends":
                    raise
                if reaction == "raises":
                    raise ValueError("while cleaning up") from None
            return "after all"

        execution, running = prepare(process)
        running.task = asyncio.create_task(_kept(execution.run(running)))
        await started.wait()
        execution.interrupt(running, why)
        execution.interrupt(running, "lease")  # the first reason counts
        ended = await asyncio.wait_for(running.task, 5)
        if why == "shutdown" and reaction == "returns":
            assert ended == Completed(b'"after all"'), "it has finished, and its lock is still ours"
        else:
            assert ended == outcome or isinstance(ended, outcome)

    async def test_a_def_that_returns_because_it_sees_that_it_is_cancelled_is_not_completed(
        self, prepare: Prepare
    ) -> None:
        entered = threading.Event()

        def process(job: Job[Any]) -> str:
            entered.set()
            while not job.cancelled:
                time.sleep(0.001)
            return "half of it"

        execution, running = prepare(process)
        running.task = asyncio.create_task(_kept(execution.run(running)))
        await asyncio.to_thread(entered.wait, 5)
        execution.interrupt(running, "shutdown")
        assert await asyncio.wait_for(running.task, 5) == HandedBack()

    async def test_a_run_that_takes_too_long_is_a_failed_attempt(self, prepare: Prepare) -> None:
        async def process(_job: Job[Any]) -> None:
            await asyncio.sleep(60)

        slow = Queue("slow", Letter, timeout=timedelta(milliseconds=20))
        reason = "TimeoutError: the processor ran longer than 0.02 s"
        for atm, delay_ms in ((b"0", 70), (b"1", None)):
            execution, running = prepare(process, queue=slow, atm=atm)
            running.task = asyncio.create_task(_kept(execution.run(running)))
            assert await asyncio.wait_for(running.task, 5) == TimedOut(reason, delay_ms, reason)

    async def test_a_run_that_ends_in_time_is_not_interrupted_afterwards(self, prepare: Prepare) -> None:
        async def process(_job: Job[Any]) -> str:
            return "done"

        execution, running = prepare(process, queue=Queue("slow", Letter, timeout=timedelta(milliseconds=1)))
        assert await execution.run(running) == Completed(b'"done"')
        assert [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()] == []


async def _kept(outcome: Any) -> Outcome:
    return await outcome


class TestThreads:
    async def test_a_def_runs_on_a_daemon_thread_of_ours_with_the_callers_context(self, ending: Ending) -> None:
        word = contextvars.ContextVar("word", default="none")
        word.set("given")
        seen: list[object] = []

        def process(_job: Job[Any]) -> None:
            thread = threading.current_thread()
            seen.extend([word.get(), thread.name, thread.daemon])
            word.set("changed")

        assert await ending(process, "def") == Completed()
        assert seen == ["given", "processor-1", True]
        assert word.get() == "given"

    async def test_threads_are_reused_and_end_when_closed(self, threads: Threads, wait_until: Any) -> None:
        held = threading.Event()
        busy = [threads.start(held.wait) for _ in range(3)]
        held.set()
        await asyncio.gather(*busy)
        names = {await threads.start(lambda: threading.current_thread().name) for _ in range(5)}
        assert len(names) == 1, "one that is idle comes first"
        assert len(living()) == 3
        threads.close()
        await wait_until(lambda: not living(), "the threads have ended")

    async def test_a_thread_that_is_busy_when_closed_ends_with_what_it_does(
        self, threads: Threads, wait_until: Any
    ) -> None:
        held = threading.Event()
        busy = threads.start(held.wait)
        threads.close()
        held.set()
        assert await busy
        await wait_until(lambda: not living(), "the thread has ended")


def living() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("processor-")]

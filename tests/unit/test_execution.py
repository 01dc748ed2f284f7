"""Execution: a fetched job goes in, an outcome comes out, and nothing escapes.

No store is needed for that.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
import traceback
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr, field_validator

from corral import Exponential, Fail, Job, JobOptions, Payload, Queue, RateLimited, Retry, Snooze
from corral.outcome import (
    Completed,
    Failed,
    HandedBack,
    LeaseLost,
    Outcome,
    Retried,
    Snoozed,
    TimedOut,
)
from corral.outcome import RateLimited as QueueLimited
from corral.plugins import Claim, Implementation, Provider, Relay
from corral.plugins.entry_points import PLUGINS
from corral.store.codec import decode_job
from corral.worker.execution import Execution, Running
from corral.worker.threads import Threads
from logged import capture_logs

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
    def prepare(
        function: Any, queue: Queue[Any] = letters, **fields: bytes
    ) -> tuple[Execution, Running]:
        execution = Execution(queue.processed_by(function), None, Relay({}), threads)
        stored = {"data": b'{"text":"hello"}', "opts": TWO_ATTEMPTS, **fields}
        flat = [part for name, value in stored.items() for part in (name.encode(), value)]
        return execution, execution.prepare(decode_job(b"a", flat, "worker:1", 1_900_000_000_000))

    return prepare


Ending = Callable[..., Any]


@pytest.fixture
def ending(prepare: Prepare) -> Ending:
    """`await ending(function)`: the outcome, whether the function is made an `async def` or a `def`
    of.
    """

    async def ending(
        function: Callable[[Job[Any]], object], kind: str = "async def", **stored: Any
    ) -> Outcome:
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
        assert await ending(lambda job: {"text": job.payload.text}, kind) == Completed(
            b'{"text":"hello"}'
        )
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
    @pytest.mark.parametrize(
        "error", [SystemExit(3), KeyboardInterrupt("3"), asyncio.CancelledError("3")]
    )
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
        assert isinstance(
            await ending(raising(Retry("later", after=SECOND)), kind, atm=b"1"), Failed
        )

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

    async def test_a_wait_that_is_no_duration_is_a_failed_attempt_and_says_so(
        self, ending: Ending
    ) -> None:
        for wrong in (Snooze(after=5), RateLimited("5s"), Retry(after=None), Nameless()):  # type: ignore[arg-type]  # what an untyped program would raise
            outcome = await ending(raising(wrong))
            assert isinstance(outcome, Retried)
            assert outcome.reason.startswith(("TypeError: ", "AttributeError: "))
            assert type(wrong).__name__ in outcome.traceback, (
                "it shows where the wrong one was raised"
            )

    async def test_an_exception_whose_text_cannot_be_read_is_a_failed_attempt(
        self, ending: Ending
    ) -> None:
        outcome = await ending(raising(Unreadable()))
        assert isinstance(outcome, Retried)
        assert outcome.reason == "Unreadable: its text cannot be read"
        assert "Unreadable" in outcome.traceback

    @pytest.mark.parametrize(
        "text", ["x" * 5000, "ä" * 5000, "a" + "😀" * 5000, "lone \ud800 half " * 500]
    )
    async def test_a_reason_has_at_most_a_kibibyte_and_can_be_written(
        self, ending: Ending, text: str
    ) -> None:
        outcome = await ending(raising(ValueError(text)))
        assert 1000 < len(outcome.reason.encode()) <= 1024
        assert outcome.reason.endswith("…")
        outcome.traceback.encode()
        assert len(outcome.traceback) <= 8192

    @BOTH
    @pytest.mark.parametrize(
        "raises", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, MemoryError]
    )
    async def test_a_result_whose_own_code_raises_fails_for_good(
        self, ending: Ending, kind: str, raises: type[BaseException]
    ) -> None:
        class Result(str):
            def __iter__(self) -> Any:
                raise raises("no")

        def items() -> Iterator[int]:
            yield 1
            raise raises("no")

        outcome = await ending(lambda _: items(), kind)
        assert isinstance(outcome, Failed)
        assert "the result cannot be written as JSON" in outcome.reason
        assert outcome.error is not None
        assert await ending(lambda _: Result("x"), kind) == Completed(b'"x"')

    async def test_a_result_that_cannot_be_written_fails_for_good(self, ending: Ending) -> None:
        unfit: list[object] = [
            object(),
            "\ud800",
            b"\xff",
            2**53,
            {"n": [1, -(2**53)]},
            (1 / 0 for _ in "a"),
            dict,
        ]
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

    async def test_an_unknown_backoff_is_the_queues_own_and_told_once(
        self, prepare: Prepare
    ) -> None:
        async def process(_job: Job[Any]) -> None:
            raise ValueError

        opts = b'{"attempts":9,"backoff":{"type":"fibonacci","delay":1}}'
        execution, running = prepare(process, opts=opts, atm=b"1")
        with capture_logs() as logged:
            for _ in range(2):
                outcome = await execution.run(running)
                assert isinstance(outcome, Retried)
                assert outcome.delay_ms == 2000
        assert [line["names"] for line in logged] == [["fibonacci"]]


class TestPreparing:
    async def test_a_job_without_fields_is_the_first_attempt_of_one(self, prepare: Prepare) -> None:
        _, running = prepare(lambda _: None, data=b"", opts=b"", timestamp=b"x")
        assert running.refusal is None
        assert (
            running.job.attempt,
            running.job.max_attempts,
            running.job.starts,
            running.job.name,
        ) == (1, 1, 1, "")

    async def test_a_payload_of_another_shape_is_refused_with_its_fields(
        self, prepare: Prepare
    ) -> None:
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
        with capture_logs() as logged:
            for data in (b'{"text":"a","colour":1}', b'{"text":"b","colour":2}', b'{"size":3}'):
                flat = [b"data", data, b"opts", TWO_ATTEMPTS]
                running = execution.prepare(decode_job(b"a", flat, "worker:1", 0))
                assert running.refusal is None
        assert [line["names"] for line in logged] == [["colour"], ["size"]]


class Meddlesome(Exception):
    """Delegates what it has not to something that has not got it either."""

    def __init__(self, raises: type[BaseException]) -> None:
        super().__init__("the other side failed")
        self.raises = raises

    def __getattr__(self, name: str) -> Any:
        raise self.__dict__["raises"](name)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "raises":
            raise self.__dict__["raises"](name)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        raise self.__dict__["raises"]("no")

    def __bool__(self) -> bool:
        raise self.__dict__["raises"]("no")


EXITS = pytest.mark.parametrize(
    "raises",
    [
        ValueError,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        RecursionError,
        MemoryError,
        asyncio.CancelledError,
    ],
)


class TestWhateverIsRaised:
    """Between a processor's end and its outcome nothing raises."""

    @BOTH
    @EXITS
    async def test_an_exception_that_cannot_be_formatted_is_a_failed_attempt(
        self, ending: Ending, kind: str, raises: type[BaseException]
    ) -> None:
        class Silent(Meddlesome):
            def __str__(self) -> str:
                raise self.__dict__["raises"]("no")

        for error in (Meddlesome(raises), Silent(raises)):
            outcome = await ending(raising(error), kind)
            assert isinstance(outcome, Retried)
            assert outcome.reason in {
                "Meddlesome: the other side failed",
                "Silent: its text cannot be read",
            }
            assert ", in process\n" in outcome.traceback
            assert outcome.error is error
            assert isinstance(await ending(raising(error), kind, opts=b"{}"), Failed)

    @BOTH
    @EXITS
    async def test_whatever_ends_a_processor_is_a_failed_attempt(
        self, ending: Ending, kind: str, raises: type[BaseException]
    ) -> None:
        outcome = await ending(raising(raises("3")), kind)
        assert outcome == Retried(f"{raises.__name__}: 3", 70, outcome.traceback)

    @BOTH
    async def test_a_stopped_iteration_of_a_subclass_whose_text_cannot_be_read_is_a_failed_attempt(
        self, ending: Ending, kind: str
    ) -> None:
        class Stopped(StopIteration):
            def __str__(self) -> str:
                raise SystemExit("no")

        outcome = await ending(raising(Stopped()), kind)
        assert isinstance(outcome, Retried)
        assert outcome.reason.startswith("RuntimeError: ")
        assert isinstance(outcome.error, RuntimeError)
        assert isinstance(outcome.error.__cause__, Stopped)
        assert isinstance(await ending(raising(StopAsyncIteration("x")), kind), Retried)

    @EXITS
    @pytest.mark.parametrize("of", [Snooze, Retry, RateLimited])
    async def test_a_wait_that_raises_when_it_is_looked_at_is_a_failed_attempt(
        self, ending: Ending, raises: type[BaseException], of: Any
    ) -> None:
        class Odd(of):
            def __init__(self) -> None:
                pass

            @property
            def after(self) -> timedelta:
                raise raises("no")

        outcome = await ending(raising(Odd()))
        assert outcome == Retried(f"{raises.__name__}: no", 70, outcome.traceback)

    async def test_a_wait_of_a_subclass_is_read_as_a_plain_one(self, ending: Ending) -> None:
        class Odd(timedelta):
            def __floordiv__(self, other: Any) -> Any:
                raise SystemExit("no")

            def __getattribute__(self, name: str) -> Any:
                raise SystemExit("no")

        assert await ending(raising(Snooze(after=Odd(seconds=1)))) == Snoozed(1000)
        assert await ending(raising(Snooze(after=timedelta.min))) == Snoozed(0)
        assert (await ending(raising(Retry(after=timedelta.max)))).delay_ms > 2**53
        wrong: Any = 5
        outcome = await ending(raising(Retry("busy", after=wrong)))
        assert outcome == Retried(
            "TypeError: Retry.after is a int, not a timedelta", 70, outcome.traceback
        )
        outcome = await ending(raising(Retry("busy", after=wrong)), atm=b"1")
        assert outcome == Failed("Retry: busy", outcome.traceback), "its wait decides nothing"

    async def test_an_exception_that_lies_about_its_class_is_what_it_is(
        self, ending: Ending
    ) -> None:
        class Liar(Exception):
            @property
            def __class__(self) -> Any:
                raise SystemExit("no")

        assert isinstance(await ending(raising(Liar())), Retried)
        assert isinstance(
            await ending(raising(type("Later", (Liar, Snooze), {})(after=SECOND))), Snoozed
        )

    async def test_a_loop_that_is_closed_over_a_processor_asks_for_no_outcome(
        self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @types.coroutine
        def pause() -> Iterator[None]:
            yield

        async def process(_job: Job[Any]) -> None:
            await pause()

        execution, running = prepare(process)
        asked: list[BaseException] = []
        monkeypatch.setattr(execution, "raised", lambda _, error: asked.append(error))
        for expected in (1, 0):
            coroutine = execution.run(running)
            coroutine.send(None)
            if not expected:
                monkeypatch.setattr(asyncio.get_running_loop(), "is_running", lambda: False)
            asked.clear()
            coroutine.close()
            assert len(asked) == expected

    async def test_a_processor_that_cancels_its_own_task_and_returns_has_completed(
        self, prepare: Prepare
    ) -> None:
        async def process(_job: Job[Any]) -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "done"

        execution, running = prepare(process)
        told: list[Outcome] = []

        async def run() -> None:
            told.append(await execution.run(running))

        running.task = asyncio.create_task(run())
        await asyncio.wait([running.task])
        assert told == [Completed(b'"done"')]

    async def test_a_backoff_that_cannot_be_computed_leaves_a_failed_attempt(
        self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing that is stored leads there: it is the last resort for a mistake of our own."""

        async def process(_job: Job[Any]) -> None:
            raise ValueError("secret")

        async def slow(_job: Job[Any]) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr("corral.worker.execution.backoff_delay_ms", lambda *_: 1 / 0)
        execution, running = prepare(process)
        outcome = await execution.run(running)
        assert outcome == Retried("ValueError: how the job ended cannot be told", 1000)
        assert isinstance(outcome.error, ValueError)
        execution, running = prepare(slow)
        running.task = asyncio.create_task(_kept(execution.run(running)))
        await asyncio.sleep(0)
        execution.interrupt(running, "timeout")
        assert await running.task == Retried(
            "CancelledError: how the job ended cannot be told", 1000
        )

    @pytest.mark.parametrize("way", ["cancelled", "raised", "ended", "interrupted"])
    async def test_a_task_that_is_done_without_an_outcome_is_a_failed_attempt(
        self, prepare: Prepare, way: str
    ) -> None:
        execution, running = prepare(raising(ValueError()))

        async def task() -> None:
            if way == "raised":
                raise Meddlesome(SystemExit)

        running.task = asyncio.create_task(task())
        if way == "interrupted":
            execution.interrupt(running, "shutdown")
        if way in {"cancelled", "interrupted"}:
            running.task.cancel()
        await asyncio.wait([running.task])
        outcome = execution.unfinished(running)
        reason = {
            "cancelled": "CancelledError: the job's task was cancelled before it began",
            "raised": "Meddlesome: the other side failed",
            "ended": "RuntimeError: the job's task ended without an outcome",
        }
        if way == "interrupted":
            assert outcome == HandedBack()
        else:
            assert outcome == Retried(reason[way], 70, outcome.traceback)


class TestMasking:
    class Account(Payload):
        password: SecretStr = SecretStr("")

    class Unknown(Payload):
        """It has no JSON schema, so that nobody knows what is secret in it.

        The catalog refuses such a model.
        """

        password: str = ""
        code: str = ""
        then: Callable[[], None] | None = None

    data = b'{"password":"correct horse","code":"battery staple"}'

    @BOTH
    async def test_an_ending_that_cannot_be_masked_says_that_its_text_is_withheld(
        self, ending: Ending, kind: str
    ) -> None:
        error = ValueError("no account for battery staple")
        for opts, expected in ((TWO_ATTEMPTS, Retried), (b"{}", Failed)):
            queue = Queue("unknown", self.Unknown)
            outcome = await ending(raising(error), kind, queue=queue, data=self.data, opts=opts)
            assert isinstance(outcome, expected)
            assert outcome.reason == (
                "ValueError: the text is withheld: what is secret in it could not be masked"
            )
            assert outcome.traceback == ""
            assert outcome.error is error

    @EXITS
    async def test_a_redactor_that_raises_shows_nothing(
        self,
        ending: Ending,
        prepare: Prepare,
        raises: type[BaseException],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(*_: object) -> Any:
            raise raises("battery staple")

        monkeypatch.setattr("corral.worker.execution.Redactor", broken)
        outcomes = [
            await ending(raising(ValueError("battery staple"))),
            await ending(lambda _: object()),
        ]
        fields = ({"data": b'{"text":7}'}, {"data": b"battery staple"}, {"defa": b"battery staple"})
        outcomes += [prepare(lambda _: None, **each)[1].refusal for each in fields]
        for outcome in outcomes:
            assert outcome is not None
            assert outcome.reason.endswith(
                "the text is withheld: what is secret in it could not be masked"
            )
            assert "battery staple" not in repr(outcome)

    async def test_a_well_known_secret_is_masked_in_every_part(self, ending: Ending) -> None:
        error = ValueError("correct horse")
        error.add_note("correct horse")
        error.__cause__ = KeyError("correct horse")
        outcome = await ending(
            raising(error),
            queue=Queue("accounts", self.Account),
            data=b'{"password":"correct horse"}',
        )
        assert "correct horse" not in repr(outcome)
        assert outcome.traceback.count("••••••") == 3


class TestErrors:
    """Failed outcomes carry what the processor raised."""

    @BOTH
    async def test_it_is_the_processor_s_own_with_the_frames_of_the_processor(
        self, ending: Ending, kind: str
    ) -> None:
        error = ValueError("x")
        for opts in (TWO_ATTEMPTS, b"{}"):
            outcome = await ending(raising(error), kind, opts=opts)
            assert outcome.error is error
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names[:2] == ["on_loop" if kind == "async def" else "on_thread", "process"]
            error.__traceback__ = None
        assert (await ending(raising(Fail("no")), kind)).error.args == ("no",)

    async def test_a_timeout_carries_what_ended_the_processor(self, prepare: Prepare) -> None:
        async def process(job: Job[Any]) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if job.payload.text == "returns":
                    return
                raise

        slow = Queue("slow", Letter, timeout=timedelta(milliseconds=20))
        for text, expected in (("hello", asyncio.CancelledError), ("returns", type(None))):
            execution, running = prepare(process, queue=slow, data=b'{"text":"%s"}' % text.encode())
            running.task = asyncio.create_task(_kept(execution.run(running)))
            outcome = await asyncio.wait_for(running.task, 5)
            assert isinstance(outcome, TimedOut)
            assert type(outcome.error) is expected
            if outcome.error is not None:
                assert traceback.extract_tb(outcome.error.__traceback__)[0].name == "process"

    async def test_what_was_refused_without_running_carries_why(self, prepare: Prepare) -> None:
        _, running = prepare(lambda _: None, data=b'{"text":7}')
        assert type(running.refusal.error).__name__ == "PayloadRefused"
        assert running.refusal.error.__traceback__ is None, "its frames hold the payload"
        for fields in ({"defa": b"stalled too often"}, {"opts": b"["}):
            assert prepare(lambda _: None, **fields)[1].refusal.error is None

    @BOTH
    @pytest.mark.parametrize(
        "way", ["raises", "returns no JSON", "is refused", "breaks a validator"]
    )
    async def test_nothing_keeps_it_alive_and_no_garbage_is_left(
        self, prepare: Prepare, wait_until: Any, kind: str, way: str
    ) -> None:
        """The worker has turned the collector down."""

        class Marked(Exception):
            pass

        class Broken(Payload):
            text: str = ""

            @field_validator("text")
            @classmethod
            def check(cls, _value: str) -> str:
                raise Marked

        class Unfit:
            def __iter__(self) -> Any:
                raise Marked

        def process(_job: Job[Any]) -> object:
            if way == "raises":
                raise Marked
            return (each for each in Unfit())

        async def on_loop(job: Job[Any]) -> object:
            return process(job)

        queue = Queue("broken", Broken) if way == "breaks a validator" else letters
        data = b'{"text":7}' if way == "is refused" else b'{"text":"x"}'

        async def once() -> weakref.ref[BaseException] | None:
            execution, running = prepare(
                on_loop if kind == "async def" else process, queue=queue, data=data
            )
            outcome = running.refusal or await execution.run(running)
            try:
                assert isinstance(outcome, Failed | Retried)
                assert outcome.error is not None
                return weakref.ref(outcome.error) if isinstance(outcome.error, Marked) else None
            finally:
                del outcome, running  # this frame is one of those that the exception has

        await once()
        gc.collect()
        gc.disable()
        try:
            made = [await once() for _ in range(20)]
            await wait_until(
                lambda: not any(each is not None and each() for each in made),
                "every exception is gone",
            )
            left = gc.collect()
        finally:
            gc.enable()
        assert left < 20, "less than one object a job"


class TestPreparingWhateverThereIs:
    @EXITS
    async def test_a_validator_that_raises_anything_refuses_the_payload(
        self, prepare: Prepare, raises: type[BaseException]
    ) -> None:
        class Broken(Payload):
            text: str

            @field_validator("text")
            @classmethod
            def check(cls, _value: str) -> str:
                raise Meddlesome(raises) if raises is not ValueError else raises("no")

        class Exits(Broken):
            @field_validator("text")
            @classmethod
            def check(cls, value: str) -> str:
                raise raises(value)

        for model in (Broken, Exits):
            _, running = prepare(lambda _: None, queue=Queue("broken", model))
            assert isinstance(running.refusal, Failed)
            assert running.refusal.reason.startswith("payload refused: ")

    async def test_a_job_that_cannot_be_prepared_at_all_is_a_failed_attempt(
        self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> Any:
            raise KeyboardInterrupt("no")

        execution, _ = prepare(lambda _: None)
        monkeypatch.setattr(execution, "_tell_once", broken)
        for opts, expected in ((TWO_ATTEMPTS, Retried), (b"{}", Failed)):
            flat = [b"data", b'{"text":"a","colour":1}', b"opts", opts]
            running = execution.prepare(decode_job(b"a", flat, "worker:1", 0))
            assert isinstance(running.refusal, expected)
            assert running.refusal.reason == "KeyboardInterrupt: how the job ended cannot be told"

    async def test_an_iteration_whose_tick_no_number_can_hold_is_prepared(
        self, prepare: Prepare
    ) -> None:
        execution, _ = prepare(lambda _: None)
        for tick in (b"9" * 5000, b"9" * 17):
            job = decode_job(
                b"repeat:daily:" + tick, [b"rjk", b"daily", b"timestamp", b"7"], "worker:1", 0
            )
            assert execution.prepare(job).job.scheduled_ms == 7

    async def test_a_program_s_own_logging_that_is_broken_is_no_job_s_fault(
        self, prepare: Prepare
    ) -> None:
        def broken(_record: logging.LogRecord) -> bool:
            raise OSError("no space left")

        execution, _ = prepare(lambda _: None)
        logger = logging.getLogger("corral.worker")
        logger.addFilter(broken)
        try:
            running = execution.prepare(decode_job(b"a", [b"data", b'{"colour":1}'], "worker:1", 0))
        finally:
            logger.removeFilter(broken)
        assert running.refusal is None


class TestContexts:
    @BOTH
    @EXITS
    async def test_a_context_that_raises_decides_nothing(
        self, threads: Threads, kind: str, raises: type[BaseException]
    ) -> None:
        @contextmanager
        def on_entering(_job: Job[Any]) -> Iterator[None]:
            raise raises("no")
            yield

        @contextmanager
        def on_leaving(_job: Job[Any]) -> Iterator[None]:
            try:
                yield
            finally:
                raise Meddlesome(raises)

        def process(job: Job[Any]) -> str:
            if job.payload.text == "fail":
                raise LookupError("the processor's own")
            return "done"

        async def on_loop(job: Job[Any]) -> str:
            return process(job)

        claims = (Claim("acme", "acme", PLUGINS, Provider("acme", "1.0", "wheel")),)
        subscribers = [
            Implementation("corral_job_context", claims, context, ("job",))
            for context in (on_entering, on_leaving)
        ]
        function = on_loop if kind == "async def" else process
        execution = Execution(
            letters.processed_by(function),
            None,
            Relay({"corral_job_context": subscribers}),
            threads,
        )
        for text, expected in ((b"x", Completed), (b"fail", Failed)):
            running = execution.prepare(
                decode_job(b"a", [b"data", b'{"text":"%s"}' % text], "worker:1", 0)
            )
            outcome = await execution.run(running)
            assert isinstance(outcome, expected)
        assert outcome.reason == "LookupError: the processor's own"


class TestInterruptions:
    @pytest.mark.parametrize(
        ("why", "outcome"),
        [("lease", LeaseLost()), ("shutdown", HandedBack()), ("timeout", TimedOut)],
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

    async def test_a_run_that_ends_in_time_is_not_interrupted_afterwards(
        self, prepare: Prepare
    ) -> None:
        async def process(_job: Job[Any]) -> str:
            return "done"

        execution, running = prepare(
            process, queue=Queue("slow", Letter, timeout=timedelta(milliseconds=1))
        )
        assert await execution.run(running) == Completed(b'"done"')
        assert [
            handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()
        ] == []


async def _kept(outcome: Any) -> Outcome:
    return await outcome


class TestThreads:
    async def test_a_def_runs_on_a_daemon_thread_of_ours_with_the_callers_context(
        self, ending: Ending
    ) -> None:
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

    async def test_threads_are_reused_and_end_when_closed(
        self, threads: Threads, wait_until: Any
    ) -> None:
        held = threading.Event()
        busy = [threads.start(held.wait, None) for _ in range(3)]
        held.set()
        await asyncio.gather(*busy)
        names = {
            await threads.start(lambda _: threading.current_thread().name, None) for _ in range(5)
        }
        assert len(names) == 1, "one that is idle comes first"
        assert len(living()) == 3
        threads.close()
        await wait_until(lambda: not living(), "the threads have ended")

    async def test_a_thread_that_is_busy_when_closed_ends_with_what_it_does(
        self, threads: Threads, wait_until: Any
    ) -> None:
        held = threading.Event()
        busy = threads.start(held.wait, None)
        threads.close()
        held.set()
        assert await busy
        await wait_until(lambda: not living(), "the thread has ended")


def living() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("processor-")]

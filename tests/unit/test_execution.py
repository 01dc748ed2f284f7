"""`Execution` takes a fetched job, returns an outcome and lets no exception escape.

These tests need no store.
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
    QueueLimited,
    Retried,
    Snoozed,
    TimedOut,
)
from corral.plugins import Implementation, JobHooks, PluginEntryPoint, Provider
from corral.plugins.entry_points import PLUGINS
from corral.store.codec import decode_job
from corral.worker.execution import ActiveJob, Execution
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


Prepare = Callable[..., tuple[Execution, ActiveJob]]


@pytest.fixture
def prepare(threads: Threads) -> Prepare:
    def prepare(
        function: Any, queue: Queue[Any] = letters, **fields: bytes
    ) -> tuple[Execution, ActiveJob]:
        execution = Execution(queue.processed_by(function), None, JobHooks({}), threads)
        stored = {"data": b'{"text":"hello"}', "opts": TWO_ATTEMPTS, **fields}
        flat = [part for name, value in stored.items() for part in (name.encode(), value)]
        return execution, execution.prepare(decode_job(b"a", flat, "worker:1", 1_900_000_000_000))

    return prepare


Ending = Callable[..., Any]


@pytest.fixture
def ending(prepare: Prepare) -> Ending:
    """`await ending(function, kind)`: the outcome of a function, as an `async def` or a `def`."""

    async def ending(
        function: Callable[[Job[Any]], object], kind: str = "async def", **stored: Any
    ) -> Outcome:
        async def on_loop(job: Job[Any]) -> object:
            return function(job)

        def on_thread(job: Job[Any]) -> object:
            return function(job)

        execution, active = prepare(on_loop if kind == "async def" else on_thread, **stored)
        assert active.refusal is None
        return await execution.run(active)

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
    async def test_an_exception_that_would_end_a_process_is_a_failed_attempt(
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
        late = await ending(raising(Retry("later", at_least=SECOND)), kind, atm=b"1")
        assert late == Failed("Retry: later", late.traceback)

    async def test_a_processor_may_decide_how_it_goes_on(self, ending: Ending) -> None:
        assert await ending(raising(Snooze(after=SECOND)), atm=b"1") == Snoozed(1000)
        assert await ending(raising(RateLimited(after=SECOND))) == QueueLimited(1000)
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

    @pytest.mark.parametrize(
        ("backoff", "backoff_ms"),
        [
            (b'{"type":"fixed","delay":70}', 70),
            (b'{"type":"exponential","delay":70}', 140),
            (b'{"type":"of another client","delay":70}', 2000),
            (b"70", 70),
            (b"0", 0),
            (None, 0),
        ],
        ids=["fixed", "exponential", "unknown: the queue's own", "a number", "zero", "none"],
    )
    async def test_a_retry_waits_exactly_or_at_least_so_long(
        self, ending: Ending, backoff: bytes | None, backoff_ms: int
    ) -> None:
        opts = b'{"attempts":3%s}' % (b"" if backoff is None else b',"backoff":' + backoff)

        async def wait_ms(error: Exception) -> int:
            outcome = await ending(raising(error), opts=opts, atm=b"1")
            assert isinstance(outcome, Retried)
            return outcome.delay_ms

        assert await wait_ms(ValueError("the backoff itself")) == backoff_ms
        for asked_ms in (0, 1, backoff_ms, backoff_ms + 1, 5_000):
            asked = timedelta(milliseconds=asked_ms)
            assert await wait_ms(Retry("busy", after=asked)) == asked_ms
            assert await wait_ms(Retry("busy", at_least=asked)) == max(asked_ms, backoff_ms)
        assert await wait_ms(Retry("busy", after=-SECOND)) == 0
        assert await wait_ms(Retry("busy", at_least=-SECOND)) == backoff_ms

    async def test_at_least_is_compared_with_a_wait_that_has_jitter(self, ending: Ending) -> None:
        opts = b'{"attempts":3,"backoff":{"type":"fixed","delay":1000,"jitter":1}}'
        for asked in (timedelta(milliseconds=500), 2 * SECOND):
            outcome = await ending(raising(Retry(at_least=asked)), opts=opts)
            assert isinstance(outcome, Retried)
            assert asked / timedelta(milliseconds=1) <= outcome.delay_ms <= 2000

    async def test_a_retry_takes_one_kind_of_wait(self, ending: Ending) -> None:
        both: dict[str, Any] = {"after": SECOND, "at_least": SECOND}
        cases: list[tuple[dict[str, Any], str]] = [
            (both, "Retry takes after= or at_least=, not both"),
            ({}, "Retry needs after= or at_least="),
        ]
        for waits, sentence in cases:
            with pytest.raises(TypeError, match=f"^{sentence}$"):
                Retry("busy", **waits)

            def process(_: Job[Letter], waits: dict[str, Any] = waits) -> None:
                raise Retry("busy", **waits)

            outcome = await ending(process)
            assert outcome == Retried(f"TypeError: {sentence}", 70, outcome.traceback)

    async def test_control_flow_has_one_form(self, ending: Ending) -> None:
        assert await ending(raising(Snooze("not due", after=SECOND))) == Snoozed(1000, "not due")
        limited = await ending(raising(RateLimited("429 from Acme", after=SECOND)))
        assert limited == QueueLimited(1000, "429 from Acme")
        for unnamed in (Retry(after=SECOND), Retry(at_least=SECOND)):
            outcome = await ending(raising(unnamed))
            assert outcome == Retried("Retry", 1000, outcome.traceback)
        assert str(Snooze(after=SECOND)) == "snoozed for 0:00:01"
        assert str(RateLimited(after=SECOND)) == "rate limited for 0:00:01"
        raised = [Retry("r", after=SECOND), Snooze("r", after=SECOND), Fail("r")]
        raised.append(RateLimited("r", after=SECOND))
        assert [(str(each), each.reason) for each in raised] == [("r", "r")] * 4

    async def test_the_reason_of_a_wait_may_be_any_object_and_has_a_limit(
        self, ending: Ending
    ) -> None:
        class Text(str):
            def __str__(self) -> str:
                raise SystemExit("no")

        anything: Any = 7
        assert await ending(raising(Snooze(anything, after=SECOND))) == Snoozed(1000, "7")
        assert await ending(raising(Snooze(Text("x"), after=SECOND))) == Snoozed(1000, "x")
        long = await ending(raising(RateLimited("x" * 5_000, after=SECOND)))
        assert isinstance(long, QueueLimited)
        assert len(long.reason.encode()) == 1024

    async def test_a_wait_that_is_no_duration_is_a_failed_attempt_with_that_reason(
        self, ending: Ending
    ) -> None:
        number: Any = 5  # as an untyped program would pass it
        text: Any = "5s"
        for wrong in (
            Snooze(after=number),
            RateLimited(after=text),
            Retry(after=number),
            Retry(at_least=text),
            Nameless(),
        ):
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

    async def test_an_unknown_backoff_is_the_queues_own_and_logged_once(
        self, prepare: Prepare
    ) -> None:
        async def process(_job: Job[Any]) -> None:
            raise ValueError

        opts = b'{"attempts":9,"backoff":{"type":"fibonacci","delay":1}}'
        execution, active = prepare(process, opts=opts, atm=b"1")
        with capture_logs() as logged:
            for _ in range(2):
                outcome = await execution.run(active)
                assert isinstance(outcome, Retried)
                assert outcome.delay_ms == 2000
        assert [line["names"] for line in logged] == [["fibonacci"]]


class TestPreparing:
    async def test_a_job_without_fields_is_the_first_attempt_of_one(self, prepare: Prepare) -> None:
        _, active = prepare(lambda _: None, data=b"", opts=b"", timestamp=b"x")
        assert active.refusal is None
        assert (
            active.job.attempt,
            active.job.max_attempts,
            active.job.starts,
            active.job.name,
        ) == (1, 1, 1, "")

    async def test_a_payload_of_another_shape_is_refused_with_its_fields(
        self, prepare: Prepare
    ) -> None:
        for data in (b"not json", b"[]", b"\xff", b'{"text":7}'):
            _, active = prepare(lambda _: None, data=data)
            assert active.refusal is not None
            assert active.refusal.reason.startswith("payload refused: ")
        assert active.refusal.reason == "payload refused: text: Input should be a valid string"

    async def test_a_validator_that_breaks_refuses_the_payload(self, prepare: Prepare) -> None:
        class Broken(Payload):
            text: str

            @field_validator("text")
            @classmethod
            def check(cls, value: str) -> str:
                raise KeyError(value)

        _, active = prepare(lambda _: None, queue=Queue("broken", Broken))
        assert active.refusal is not None
        assert active.refusal.reason == "payload refused: KeyError: 'hello'"
        assert "in check" in active.refusal.traceback

    async def test_opts_that_are_no_json_object_refuse_the_job(self, prepare: Prepare) -> None:
        for opts in (b"{", b"[]", b"7"):
            _, active = prepare(lambda _: None, opts=opts)
            assert active.refusal == Failed("job refused: opts is not a JSON object")

    async def test_a_deferred_failure_is_its_own_reason(self, prepare: Prepare) -> None:
        _, active = prepare(lambda _: None, defa=b"stalled too often", data=b"not json")
        assert active.refusal == Failed("stalled too often")

    async def test_unknown_fields_are_left_out_and_logged_once(self, prepare: Prepare) -> None:
        execution, active = prepare(lambda _: None)
        with capture_logs() as logged:
            for data in (b'{"text":"a","colour":1}', b'{"text":"b","colour":2}', b'{"size":3}'):
                flat = [b"data", data, b"opts", TWO_ATTEMPTS]
                active = execution.prepare(decode_job(b"a", flat, "worker:1", 0))
                assert active.refusal is None
        assert [line["names"] for line in logged] == [["colour"], ["size"]]


class Meddlesome(Exception):
    """An exception that delegates unknown attributes to an object that lacks them as well."""

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
    """No exception escapes between a processor's end and its outcome."""

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
    async def test_any_exception_that_ends_a_processor_is_a_failed_attempt(
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

        execution, active = prepare(process)
        asked: list[BaseException] = []
        monkeypatch.setattr(execution, "outcome_of_error", lambda _, error: asked.append(error))
        for expected in (1, 0):
            coroutine = execution.run(active)
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

        execution, active = prepare(process)
        outcomes: list[Outcome] = []

        async def run() -> None:
            outcomes.append(await execution.run(active))

        active.task = asyncio.create_task(run())
        await asyncio.wait([active.task])
        assert outcomes == [Completed(b'"done"')]

    async def test_a_backoff_that_cannot_be_computed_leaves_a_failed_attempt(
        self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No stored job leads to this outcome: it is for a mistake in Corral itself."""

        async def process(_job: Job[Any]) -> None:
            raise ValueError("secret")

        async def slow(_job: Job[Any]) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr("corral.worker.execution.backoff_delay_ms", lambda *_: 1 / 0)
        execution, active = prepare(process)
        outcome = await execution.run(active)
        assert outcome == Retried("ValueError: the job's result or exception cannot be read", 1000)
        assert isinstance(outcome.error, ValueError)
        execution, active = prepare(slow)
        active.task = asyncio.create_task(_kept(execution.run(active)))
        await asyncio.sleep(0)
        execution.interrupt(active, "timeout")
        assert await active.task == Retried(
            "CancelledError: the job's result or exception cannot be read", 1000
        )

    @pytest.mark.parametrize("way", ["cancelled", "raised", "ended", "interrupted"])
    async def test_a_task_that_is_done_without_an_outcome_is_a_failed_attempt(
        self, prepare: Prepare, way: str
    ) -> None:
        execution, active = prepare(raising(ValueError()))

        async def task() -> None:
            if way == "raised":
                raise Meddlesome(SystemExit)

        active.task = asyncio.create_task(task())
        if way == "interrupted":
            execution.interrupt(active, "shutdown")
        if way in {"cancelled", "interrupted"}:
            active.task.cancel()
        await asyncio.wait([active.task])
        outcome = execution.outcome_of_unfinished(active)
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
        """A model without a JSON schema, so that its secrets are unknown.

        The catalog refuses it.
        """

        password: str = ""
        code: str = ""
        then: Callable[[], None] | None = None

    data = b'{"password":"correct horse","code":"battery staple"}'

    @BOTH
    async def test_the_text_of_an_ending_that_cannot_be_masked_is_withheld(
        self, ending: Ending, kind: str
    ) -> None:
        error = ValueError("no account for battery staple")
        for opts, expected in ((TWO_ATTEMPTS, Retried), (b"{}", Failed)):
            queue = Queue("unknown", self.Unknown)
            outcome = await ending(raising(error), kind, queue=queue, data=self.data, opts=opts)
            assert isinstance(outcome, expected)
            assert outcome.reason == (
                "ValueError: the text is withheld: its secrets could not be masked"
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
            assert outcome.reason.endswith("the text is withheld: its secrets could not be masked")
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

    @BOTH
    async def test_the_reason_of_a_wait_is_masked(self, ending: Ending, kind: str) -> None:
        account, unknown = Queue("accounts", self.Account), Queue("unknown", self.Unknown)
        for error, expected in (
            (Snooze("correct horse is taken", after=SECOND), Snoozed),
            (RateLimited("correct horse is taken", after=SECOND), QueueLimited),
        ):
            raises = raising(error)
            outcome = await ending(raises, kind, queue=account, data=self.data[:27] + b"}")
            assert outcome == expected(1000, "•••••• is taken")
            outcome = await ending(raises, kind, queue=unknown, data=self.data)
            assert outcome == expected(
                1000, "the text is withheld: its secrets could not be masked"
            )


class TestErrors:
    """Failed outcomes carry the exception that the processor raised."""

    @BOTH
    async def test_the_error_is_the_processor_s_own_exception_with_its_frames(
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

    async def test_a_timeout_has_the_exception_that_ended_the_processor(
        self, prepare: Prepare
    ) -> None:
        async def process(job: Job[Any]) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if job.payload.text == "returns":
                    return
                raise

        slow = Queue("slow", Letter, timeout=timedelta(milliseconds=20))
        for text, expected in (("hello", asyncio.CancelledError), ("returns", type(None))):
            execution, active = prepare(process, queue=slow, data=b'{"text":"%s"}' % text.encode())
            active.task = asyncio.create_task(_kept(execution.run(active)))
            outcome = await asyncio.wait_for(active.task, 5)
            assert isinstance(outcome, TimedOut)
            assert type(outcome.error) is expected
            if outcome.error is not None:
                assert traceback.extract_tb(outcome.error.__traceback__)[0].name == "process"

    async def test_a_job_that_was_refused_without_running_has_its_error(
        self, prepare: Prepare
    ) -> None:
        _, active = prepare(lambda _: None, data=b'{"text":7}')
        assert type(active.refusal.error).__name__ == "PayloadRefused"
        assert active.refusal.error.__traceback__ is None, "its frames hold the payload"
        for fields in ({"defa": b"stalled too often"}, {"opts": b"["}):
            assert prepare(lambda _: None, **fields)[1].refusal.error is None

    @BOTH
    @pytest.mark.parametrize(
        "way", ["raises", "returns no JSON", "is refused", "breaks a validator"]
    )
    async def test_no_reference_keeps_the_error_alive_and_no_garbage_is_left(
        self, prepare: Prepare, wait_until: Any, kind: str, way: str
    ) -> None:
        """A worker runs the garbage collector rarely."""

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
            execution, active = prepare(
                on_loop if kind == "async def" else process, queue=queue, data=data
            )
            outcome = active.refusal or await execution.run(active)
            try:
                assert isinstance(outcome, Failed | Retried)
                assert outcome.error is not None
                return weakref.ref(outcome.error) if isinstance(outcome.error, Marked) else None
            finally:
                del outcome, active  # this frame is one of those that the exception has

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
            _, active = prepare(lambda _: None, queue=Queue("broken", model))
            assert isinstance(active.refusal, Failed)
            assert active.refusal.reason.startswith("payload refused: ")

    async def test_a_job_that_cannot_be_prepared_at_all_is_a_failed_attempt(
        self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> Any:
            raise KeyboardInterrupt("no")

        execution, _ = prepare(lambda _: None)
        monkeypatch.setattr(execution, "_warn_once", broken)
        for opts, expected in ((TWO_ATTEMPTS, Retried), (b"{}", Failed)):
            flat = [b"data", b'{"text":"a","colour":1}', b"opts", opts]
            active = execution.prepare(decode_job(b"a", flat, "worker:1", 0))
            assert isinstance(active.refusal, expected)
            assert (
                active.refusal.reason
                == "KeyboardInterrupt: the job's result or exception cannot be read"
            )

    async def test_an_iteration_whose_tick_no_number_can_hold_is_prepared(
        self, prepare: Prepare
    ) -> None:
        execution, _ = prepare(lambda _: None)
        for tick in (b"9" * 5000, b"9" * 17):
            job = decode_job(
                b"repeat:daily:" + tick, [b"rjk", b"daily", b"timestamp", b"7"], "worker:1", 0
            )
            assert execution.prepare(job).run.scheduled_ms == 7

    async def test_a_program_s_broken_logging_fails_no_job(self, prepare: Prepare) -> None:
        def broken(_record: logging.LogRecord) -> bool:
            raise OSError("no space left")

        execution, _ = prepare(lambda _: None)
        logger = logging.getLogger("corral.worker")
        logger.addFilter(broken)
        try:
            active = execution.prepare(decode_job(b"a", [b"data", b'{"colour":1}'], "worker:1", 0))
        finally:
            logger.removeFilter(broken)
        assert active.refusal is None


class TestContexts:
    @BOTH
    @EXITS
    async def test_a_context_that_raises_does_not_change_the_outcome(
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

        claims = (PluginEntryPoint("acme", "acme", PLUGINS, Provider("acme", "1.0", "wheel")),)
        subscribers = [
            Implementation("corral_job_context", claims, context, ("job",))
            for context in (on_entering, on_leaving)
        ]
        function = on_loop if kind == "async def" else process
        execution = Execution(
            letters.processed_by(function),
            None,
            JobHooks({"corral_job_context": subscribers}),
            threads,
        )
        for text, expected in ((b"x", Completed), (b"fail", Failed)):
            active = execution.prepare(
                decode_job(b"a", [b"data", b'{"text":"%s"}' % text], "worker:1", 0)
            )
            outcome = await execution.run(active)
            assert isinstance(outcome, expected)
        assert outcome.reason == "LookupError: the processor's own"


class TestInterruptions:
    @pytest.mark.parametrize(
        ("why", "outcome"),
        [("lease", LeaseLost()), ("shutdown", HandedBack()), ("timeout", TimedOut)],
    )
    @pytest.mark.parametrize("reaction", ["ends", "returns", "raises"])
    async def test_an_interrupted_run_ends_by_the_reason_of_its_interruption(
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

        execution, active = prepare(process)
        active.task = asyncio.create_task(_kept(execution.run(active)))
        await started.wait()
        execution.interrupt(active, why)
        execution.interrupt(active, "lease")  # the first reason counts
        ended = await asyncio.wait_for(active.task, 5)
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

        execution, active = prepare(process)
        active.task = asyncio.create_task(_kept(execution.run(active)))
        await asyncio.to_thread(entered.wait, 5)
        execution.interrupt(active, "shutdown")
        assert await asyncio.wait_for(active.task, 5) == HandedBack()

    async def test_a_run_that_takes_too_long_is_a_failed_attempt(self, prepare: Prepare) -> None:
        async def process(_job: Job[Any]) -> None:
            await asyncio.sleep(60)

        slow = Queue("slow", Letter, timeout=timedelta(milliseconds=20))
        reason = "TimeoutError: the processor ran longer than 0.02 s"
        for atm, delay_ms in ((b"0", 70), (b"1", None)):
            execution, active = prepare(process, queue=slow, atm=atm)
            active.task = asyncio.create_task(_kept(execution.run(active)))
            assert await asyncio.wait_for(active.task, 5) == TimedOut(reason, delay_ms, reason)

    async def test_a_run_that_ends_in_time_is_not_interrupted_afterwards(
        self, prepare: Prepare
    ) -> None:
        async def process(_job: Job[Any]) -> str:
            return "done"

        execution, active = prepare(
            process, queue=Queue("slow", Letter, timeout=timedelta(milliseconds=1))
        )
        assert await execution.run(active) == Completed(b'"done"')
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

    async def test_a_thread_that_is_busy_when_closed_ends_after_its_function(
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

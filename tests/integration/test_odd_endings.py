"""Whatever a processor does, its job ends and its slot is free.

On a real worker, with other jobs beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import field_validator

from corral import Fixed, Job, JobOptions, Payload, Queue, Snooze, hookimpl
from corral.job import run_state
from corral.outcome import Completed, Failed, Retried, TimedOut
from corral.tasks import OwnTask
from logged import capture_logs

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


MS = timedelta(milliseconds=1)
OPTIONS = JobOptions(attempts=2, backoff=Fixed(5 * MS))
letters = Queue("letters", Letter, options=OPTIONS, concurrency=3)


class Remote(Exception):
    """An exception as client libraries make them: it looks up attributes in the server's reply."""

    def __init__(self, body: dict[str, object]) -> None:
        super().__init__("remote failed")
        self.body = body

    def __getattr__(self, name: str) -> object:
        return self.__dict__["body"][name]


class Hooked(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise SystemExit("no notes")


class Silent(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt("no text")


class Text:
    """An object that a processor wants to log, and that has no text."""

    def __str__(self) -> str:
        raise GeneratorExit("no text")


def caused(error: BaseException) -> BaseException:
    outer = ValueError("outer")
    outer.__cause__ = error
    return outer


def chain(length: int) -> BaseException:
    error: BaseException = Remote({})
    for _ in range(length):
        error = caused(error)
    return error


MAKE: dict[str, Callable[[], BaseException]] = {
    "remote": lambda: Remote({"code": 7}),
    "syntax": lambda: SyntaxError("bad", ("f", 1, 1, 5)),
    "notes": lambda: Hooked("x"),
    "text": lambda: Silent("x"),
    "cause": lambda: caused(Remote({})),
    "member": lambda: ExceptionGroup(
        "many", [Silent("x"), Hooked("x"), ExceptionGroup("inner", [Remote({})])]
    ),
    "chain": lambda: chain(10_000),
    "huge": lambda: ValueError("x" * 50_000_000),
    "half": lambda: ValueError("cut \ud83d"),
    "generator exit": lambda: GeneratorExit("x"),
    "cancelled": lambda: asyncio.CancelledError("x"),
    "interrupt": lambda: KeyboardInterrupt("x"),
    "exit": lambda: SystemExit(3),
    "stop": lambda: StopIteration("x"),
    "stop async": lambda: StopAsyncIteration("x"),
    "snooze": lambda: Snooze(after=cast("timedelta", Text())),
}


def misbehave(job: Job[Letter]) -> object:
    text = job.payload.text
    if text in MAKE:
        raise MAKE[text]()  # noqa: RSE102  # a function that makes it
    if text == "log":
        job.log(cast("str", Text()))
    elif text == "progress":
        job.progress(each for each in [Text()])
    elif text == "run":
        run = run_state(job)
        run.notes.append(("log", cast("Any", Text())))
        run.notes.append(cast("Any", ("log",)))
        run.on_note = cast("Any", "gone")
    return text


async def on_loop(job: Job[Letter]) -> object:
    return misbehave(job)


BOTH = pytest.mark.parametrize("process", [on_loop, misbehave], ids=["async def", "def"])


async def enqueue(workshop: Any, queue: Queue[Any], *texts: str, **options: Any) -> list[str]:
    jobs = workshop.producer(queue)
    return [(await jobs.enqueue(queue, {"text": text}, **options)).id for text in texts]


async def ended(workshop: Any, queue: Queue[Any], job_id: str) -> dict[str, str]:
    """Return the job's fields, once it has finished; its attempts take milliseconds."""

    async def finished() -> bool:
        return "finishedOn" in await workshop.hash(queue, job_id)

    await workshop.wait_until(finished, f"job {job_id} has finished")
    fields: dict[str, str] = await workshop.hash(queue, job_id)
    return fields


class TestWhateverIsRaised:
    @BOTH
    async def test_the_job_fails_all_its_attempts_and_its_slot_is_free(
        self, workshop: Any, process: Any
    ) -> None:
        odd = [*MAKE, "log", "progress"]
        made = await enqueue(workshop, letters, *(text for each in odd for text in (each, "plain")))
        async with workshop.working(letters.processed_by(process)):
            jobs = [await ended(workshop, letters, job_id) for job_id in made]
            (last,) = await enqueue(workshop, letters, "plain")
            await workshop.until(letters, last, "completed")
        for text, job in zip(odd, jobs[::2], strict=True):
            assert (text, job["atm"], "returnvalue" in job) == (text, "2", False)
            assert job["failedReason"]
            assert len(json.loads(job["stacktrace"])) == 2
        assert [job.get("returnvalue") for job in jobs[1::2]] == ['"plain"'] * len(odd)

    @BOTH
    async def test_one_slot_is_enough(self, workshop: Any, process: Any) -> None:
        made = await enqueue(workshop, letters, *MAKE, "log", "plain", attempts=1)
        await workshop.burst(letters.processed_by(process), concurrency={"letters": 1})
        states = [await workshop.state(letters, job_id) for job_id in made]
        assert states == [*["failed"] * (len(made) - 1), "completed"]

    @BOTH
    async def test_a_processor_that_tampers_with_its_run_harms_no_other_job(
        self, workshop: Any, process: Any
    ) -> None:
        made = await enqueue(workshop, letters, "run", "plain")
        await workshop.burst(letters.processed_by(process))
        assert [await workshop.state(letters, job_id) for job_id in made] == ["completed"] * 2

    async def test_a_future_that_carries_a_generator_exit_is_a_failed_attempt(
        self, workshop: Any
    ) -> None:
        """The exception is thrown into the worker's coroutine, which closes the processor's."""

        async def process(job: Job[Letter]) -> str:
            if job.payload.text == "odd":
                future = asyncio.get_running_loop().create_future()
                future.get_loop().call_soon(future.set_exception, GeneratorExit("x"))
                await future
            return "done"

        made = await enqueue(workshop, letters, "odd", "plain")
        async with workshop.working(letters.processed_by(process)):
            jobs = [await ended(workshop, letters, job_id) for job_id in made]
        assert [job.get("failedReason") for job in jobs] == ["GeneratorExit: x", None]
        assert jobs[0]["atm"] == "2"

    async def test_a_coroutine_that_closes_itself_is_a_failed_attempt(self, workshop: Any) -> None:
        async def process(job: Job[Letter]) -> str:
            task = asyncio.current_task()
            assert task is not None
            if job.payload.text == "close" and job.attempt == 1:
                cast("Any", task.get_coro()).close()
            if job.payload.text == "close later" and job.attempt == 1:
                asyncio.get_running_loop().call_soon(cast("Any", task.get_coro()).close)
                await asyncio.sleep(0.01)  # the task itself ends when this does
            return "done"

        made = await enqueue(workshop, letters, "close", "close later", "plain")
        async with workshop.working(letters.processed_by(process)):
            jobs = [await ended(workshop, letters, job_id) for job_id in made]
            await workshop.wait_until(
                lambda: not tasks_of_jobs(), "the task has found its coroutine closed"
            )
        assert [job.get("failedReason") for job in jobs] == [
            "ValueError: coroutine already executing",
            "GeneratorExit",
            None,
        ]
        assert [job["returnvalue"] for job in jobs] == ['"done"'] * 3

    async def test_a_batch_with_payloads_that_break_its_model_runs_the_rest(
        self, workshop: Any
    ) -> None:
        class Broken(Payload):
            text: str

            @field_validator("text")
            @classmethod
            def check(cls, value: str) -> str:
                if value in MAKE:
                    raise MAKE[value]()  # noqa: RSE102  # a function that makes it
                return value

        queue = Queue("letters", Broken, options=OPTIONS)
        plain = Queue(
            "letters", Letter, options=OPTIONS
        )  # a producer that knows nothing of the check
        made = await enqueue(workshop, plain, *(text for each in MAKE for text in (each, "plain")))
        await workshop.burst(queue.processed_by(on_loop), concurrency={"letters": 100})
        assert [await workshop.state(plain, job_id) for job_id in made] == [
            "failed",
            "completed",
        ] * len(MAKE)

    async def test_an_iteration_whose_tick_no_number_can_hold_runs_beside_others(
        self, workshop: Any
    ) -> None:
        odd = f"repeat:daily:{'9' * 5000}"
        await workshop.raw.hset(
            f"bull:letters:{odd}", mapping={"name": "letters", "data": "{}", "rjk": "gone"}
        )
        await workshop.raw.lpush("bull:letters:wait", odd)
        made = await enqueue(workshop, letters, "plain")
        await workshop.burst(letters.processed_by(on_loop))
        assert [await workshop.state(letters, job_id) for job_id in [odd, *made]] == [
            "completed"
        ] * 2


class TestSubscribers:
    @pytest.mark.parametrize(
        "fault", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, SystemExit]
    )
    @BOTH
    async def test_whatever_one_raises_neither_ends_the_worker_nor_loses_a_slot(
        self, workshop: Any, process: Any, fault: type[BaseException]
    ) -> None:
        reported: list[str] = []

        @hookimpl
        @contextmanager
        def corral_job_context(job: Job[Any]) -> Iterator[None]:
            if job.payload.text == "enter":
                raise fault("on entering")
            yield
            raise fault("on leaving")

        @hookimpl
        def corral_job_ended(job: Job[Any]) -> None:
            reported.append(job.payload.text)
            raise fault("no metrics")

        workshop.load(corral_job_context=corral_job_context, corral_job_ended=corral_job_ended)
        made = await enqueue(workshop, letters, "enter", "plain", "remote", "plain", attempts=1)
        await workshop.burst(letters.processed_by(process), concurrency={"letters": 1})
        states = [await workshop.state(letters, job_id) for job_id in made]
        assert states == ["completed", "completed", "failed", "completed"]
        assert reported == ["enter", "plain", "remote", "plain"]

    async def test_subscribers_see_whether_it_was_the_last_attempt_and_what_failed(
        self, workshop: Any
    ) -> None:
        reported: list[tuple[str, type, bool, object]] = []

        @hookimpl
        def corral_job_ended(job: Job[Any], outcome: Any) -> None:
            error = getattr(outcome, "error", "none")
            reported.append((job.payload.text, type(outcome), outcome.final, type(error)))

        async def process(job: Job[Letter]) -> None:
            if job.payload.text == "fail":
                raise Silent
            if job.payload.text == "slow":
                await asyncio.sleep(60)

        workshop.load(corral_job_ended=corral_job_ended)
        queue = Queue("letters", Letter, options=OPTIONS, timeout=20 * MS)
        made = await enqueue(workshop, queue, "fail", "slow", "plain")
        async with workshop.working(queue.processed_by(process)):
            for job_id in made:
                await ended(workshop, queue, job_id)
        assert sorted(reported, key=lambda each: (each[0], each[2])) == [
            ("fail", Retried, False, Silent),
            ("fail", Failed, True, Silent),
            ("plain", Completed, True, str),
            ("slow", TimedOut, False, asyncio.CancelledError),
            ("slow", TimedOut, True, asyncio.CancelledError),
        ]

    @BOTH
    async def test_the_worker_keeps_no_exception_alive_after_they_were_reported(
        self, workshop: Any, process: Any
    ) -> None:
        kept: list[weakref.ref[BaseException]] = []

        @hookimpl
        def corral_job_ended(outcome: Any) -> None:
            if outcome.error is not None:
                kept.append(weakref.ref(outcome.error))

        workshop.load(corral_job_ended=corral_job_ended)
        await enqueue(workshop, letters, *["remote"] * 5)
        gc.collect()
        gc.disable()  # a worker turns it down
        try:
            async with workshop.working(letters.processed_by(process)):
                await workshop.wait_until(
                    lambda: len(kept) == 10, "both attempts of five jobs are reported"
                )
                await workshop.wait_until(
                    lambda: not any(each() for each in kept), "every exception is gone"
                )
        finally:
            gc.enable()

    async def test_a_program_s_own_logging_that_is_broken_ends_no_worker(
        self, workshop: Any
    ) -> None:
        def broken(record: logging.LogRecord) -> bool:
            if record.getMessage().startswith("job"):
                raise OSError("no space left")
            return True

        logger = logging.getLogger("corral.worker")
        logger.addFilter(broken)
        made = await enqueue(workshop, letters, "remote", "plain")
        try:
            async with workshop.working(letters.processed_by(on_loop)):
                jobs = [await ended(workshop, letters, job_id) for job_id in made]
        finally:
            logger.removeFilter(broken)
        assert [job.get("failedReason") for job in jobs] == ["Remote: remote failed", None]


def cancel_all_tasks() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def tasks_of_jobs() -> list[OwnTask[Any]]:
    return [
        task for task in asyncio.all_tasks() if isinstance(task, OwnTask) and task.job is not None
    ]


class TestTasks:
    @pytest.mark.timing
    async def test_a_job_whose_task_is_cancelled_before_it_began_is_ended_within_5_seconds(
        self, workshop: Any
    ) -> None:
        """Other code cancels them: a job's cancellation would be refused."""
        found: dict[str, float] = {}

        async def process(job: Job[Letter]) -> str:
            if job.payload.text == "first" and job.attempt == 1:
                for task in tasks_of_jobs():
                    if task.job is not job:
                        contextvars.Context().run(task.cancel)
                        found[cast("Any", task.job).id] = time.time() * 1000
            return "done"

        queue = Queue("letters", Letter, options=OPTIONS, concurrency=10)
        made = await enqueue(workshop, queue, "first", "second", "third", attempts=2)
        with capture_logs() as logged:
            async with workshop.working(queue.processed_by(process)):
                for job_id in made:
                    await workshop.until(queue, job_id, "completed")
        assert sorted(found) == sorted(made[1:])
        for job_id in made[1:]:
            job = await workshop.hash(queue, job_id)
            assert (
                job["failedReason"]
                == "CancelledError: the job's task was cancelled before it began"
            )
            assert (job["atm"], job["ats"]) == ("2", "2")
            late = dict(await workshop.stamps(queue, job_id))["delayed"] - found[job_id]
            print(f"ended after {late:.0f} ms")
            assert late <= 5_000
        warned = [
            line["job_id"]
            for line in logged
            if line["event"].startswith("a job's task ended without")
        ]
        assert sorted(warned) == sorted(made[1:])

    async def test_a_worker_that_stops_meanwhile_hands_such_a_job_back(self, workshop: Any) -> None:
        stopped = threading.Event()

        async def process(job: Job[Letter]) -> None:
            if not stopped.is_set():
                stopped.set()
                for task in tasks_of_jobs():
                    contextvars.Context().run(task.cancel)
            await asyncio.sleep(60)

        queue = Queue("letters", Letter, options=JobOptions(attempts=1), concurrency=2)
        made = await enqueue(workshop, queue, "a", "b")
        async with workshop.working(queue.processed_by(process), shutdown_timeout_seconds=0.1):
            await workshop.wait_until(stopped.is_set, "one of them runs")
        states = sorted([await workshop.state(queue, job_id) for job_id in made])
        assert states == ["failed", "wait"]

    @pytest.mark.parametrize("when", ["at once", "while others run", "after it has ended"])
    async def test_a_processor_that_cancels_every_task_of_the_loop_cancels_its_own(
        self, command: Any, workshop: Any, acme: Path, when: str
    ) -> None:
        """In a process of its own, because one of these tasks runs the whole process."""
        source = (acme / "acme_letters.py").read_text("utf-8")
        cancelling = {
            "at once": "cancel(); await asyncio.sleep(60)",
            "while others run": "await asyncio.sleep(0.1); cancel(); await asyncio.sleep(60)",
            "after it has ended": (
                "asyncio.get_running_loop().call_later(0.05, cancel); return 'ended'"
            ),
        }
        added = f"""
    def cancel():
        for task in asyncio.all_tasks():
            task.cancel()
    if job.payload.text == "cancel":
        {cancelling[when]}
    word, _, argument"""
        (acme / "acme_letters.py").write_text(
            source.replace("\n    word, _, argument", added, 1), "utf-8"
        )
        queue = Queue("acme-letters", Letter, options=JobOptions(attempts=1))
        made = await enqueue(workshop, queue, "cancel", "sleep 0.5", "sleep 0.5")
        worker = command("worker", "acme-letters", CORRAL_LOG_FORMAT="json")
        jobs = [await ended(workshop, queue, job_id) for job_id in made]
        (last,) = await enqueue(workshop, queue, "plain")
        await workshop.until(queue, last, "completed")
        assert worker.process.poll() is None
        worker.process.terminate()
        assert worker.wait() == 0
        reason, result = (
            (None, '"ended"') if when == "after it has ended" else ("CancelledError", None)
        )
        assert (jobs[0].get("failedReason"), jobs[0].get("returnvalue")) == (reason, result)
        assert [(job["ats"], job.get("returnvalue")) for job in jobs[1:]] == [
            ("1", '"sleep 0.5"')
        ] * 2
        assert worker.said.count("a job tried to cancel tasks that are not its own: refused") == 1

    async def test_a_def_that_cancels_every_task_of_the_loop_cancels_its_own(
        self, workshop: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        tests = asyncio.current_task()
        asked = threading.Event()

        def cancel() -> None:
            for task in asyncio.all_tasks(loop) - {tests}:
                if isinstance(task, OwnTask):
                    task.cancel()
            asked.set()

        def process(job: Job[Letter]) -> str:
            if job.payload.text == "cancel":
                loop.call_soon_threadsafe(cancel)
                asked.wait(5)
            return "done"

        made = await enqueue(workshop, letters, "cancel", "plain", "plain", attempts=1)
        await workshop.burst(letters.processed_by(process))
        jobs = [await workshop.hash(letters, job_id) for job_id in made]
        assert [job.get("returnvalue") for job in jobs] == [None, '"done"', '"done"']
        assert jobs[0]["failedReason"] == "CancelledError"

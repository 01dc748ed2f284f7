"""Runs processors: the only module that does.

A fetched job goes in, an `Outcome` comes out, and nothing escapes.

Between a processor's end and its outcome only somebody else's objects are read: an exception, a
result, a payload. Each of them may raise whatever it likes, `KeyboardInterrupt` included, and
`Execution` still answers: at last with a failed attempt that says so.

It knows no store: what the outcome changes there is the consumer's business.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic_core import to_json

from corral.errors import Fail, PayloadRefused, RateLimited, Retry, Snooze
from corral.forking import forks
from corral.job import KEEP_LOGS, Job, Run, current_job
from corral.loggers import Logger
from corral.options import backoff_delay_ms
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
from corral.payload import unsafe_integers
from corral.plugins import Relay
from corral.processor import Processor
from corral.raised import class_name, described, shortened, without_frames_of
from corral.redactor import Redactor, secret_names
from corral.store.codec import FetchedJob
from corral.worker.forked_children import end_child
from corral.worker.threads import Threads

__all__ = ["Execution", "Running"]

log = Logger("corral.worker")

MAX_RESULT_BYTES = 64 * 1024
"""A larger result belongs into storage of its own: this one is kept in the store's memory, twice
(hash and event).
"""
WITHHELD: Final = "the text is withheld: what is secret in it could not be masked"
UNKNOWN_DELAY_MS: Final = 1_000
"""The wait before the next attempt where the backoff itself cannot be computed."""

Interruption = Literal["timeout", "lease", "shutdown"]


@dataclass(slots=True, eq=False)
class Running:
    """A job that this worker has the lock of.

    Attributes:
        fetched: The job as the store has it.
        job: The job as its processor sees it; the payload of a refused one is None.
        refusal: How it ends without running, or None.
        task: The task that runs it.
        interruption: Why the worker cancelled it, or None.
        started: When it was started, by the monotonic clock.
    """

    fetched: FetchedJob
    job: Job[Any]
    refusal: Outcome | None = None
    task: asyncio.Task[None] | None = None
    interruption: Interruption | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def run(self) -> Run:
        """What the processor says while it runs."""
        return self.job.run


class Execution:
    """Runs the jobs of one queue.

    Args:
        processor: The queue's processor.
        resource: What its `using` half opened, or None.
        relay: Enters the subscribers of `corral_job_context`.
        threads: Where `def` processors run.
        keep_logs: How many log lines a job keeps that does not say itself.

    Attributes:
        queue: The queue.
        on_loop: Whether the processor is an `async def`.
        timeout_seconds: How long it may run, or None for no bound.
    """

    def __init__(
        self,
        processor: Processor,
        resource: object,
        relay: Relay,
        threads: Threads,
        *,
        keep_logs: int = KEEP_LOGS,
    ) -> None:
        self.queue = processor.queue
        self._keep_logs = keep_logs
        self.on_loop = processor.is_async
        function = processor.function
        if processor.using is not None:
            self._function: Callable[[Job[Any]], Any] = lambda job: function(job, resource)
        else:
            self._function = function
        self._job_context = relay.job_context
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._forks = forks()
        self.timeout_seconds = (
            None if self.queue.timeout is None else self.queue.timeout.total_seconds()
        )
        self._told: set[tuple[str, str]] = set()

    def prepare(self, fetched: FetchedJob) -> Running:
        """The job as its processor sees it, or why it must not run.

        Raises nothing: a job is no matter of its batch.

        Args:
            fetched: The job as the store has it.
        """
        payload = None
        refusal: Outcome | None
        try:
            payload, refusal = self._read(fetched)
        except BaseException as error:  # noqa: BLE001  # the payload's own code runs in there
            refusal = self._last_resort(fetched, error)
        try:
            return Running(fetched, self._job(fetched, payload), refusal)
        finally:
            del refusal  # the exception in it has frames, and those have this one: a cycle

    def _job(self, fetched: FetchedJob, payload: Any) -> Job[Any]:
        options = fetched.options
        return Job(  # by position, as in `decode_job`
            fetched.id,
            self.queue,
            fetched.name,
            payload,
            fetched.attempts_made + 1,
            max(1, options.attempts),
            fetched.attempts_started,
            fetched.timestamp_ms,
            fetched.processed_ms,
            fetched.scheduled_ms,
            # progress waits among the lines: where a job keeps few of them, it would push them out
            Run(stored=fetched, kept=max(options.keep_logs or self._keep_logs, KEEP_LOGS)),
            options.carrier,
        )

    def kept_logs(self, fetched: FetchedJob) -> int:
        """How many log lines a job keeps, the last ones.

        Args:
            fetched: The job.
        """
        return fetched.options.keep_logs or self._keep_logs

    async def run(self, running: Running) -> Outcome:
        """Run the processor. Raises nothing, but `GeneratorExit` where it is closed itself.

        No local variable in here may hold an outcome: the exception in it has frames, and those
        lead back to here.

        Args:
            running: What `prepare` returned, without a refusal.
        """
        job, began = running.job, time.monotonic()
        current_job.set(job)
        timer = None
        try:
            if self.timeout_seconds is not None:
                timer = self._loop.call_later(
                    self.timeout_seconds, self.interrupt, running, "timeout"
                )
            if not self.on_loop:
                result, error = await self._threads.start(self._call_on_thread, job)
                if error is not None:
                    return self.raised(running, error)
            elif self._job_context is not None:
                with self._job_context(job):
                    result = await self._function(job)
            else:
                result = await self._function(job)
        except BaseException as raised:
            if self._forks != forks():
                end_child(error=raised)
            if issubclass(type(raised), GeneratorExit) and not self._loop.is_running():
                raise  # the loop is closed over us: nobody reads an outcome any more
            return self.raised(running, raised)
        finally:
            job.run.seconds = time.monotonic() - began
            if timer is not None:
                timer.cancel()
        if self._forks != forks():
            end_child()
        if result is None and running.interruption is None:
            return _NOTHING
        return self._returned(running, result)

    def raised(self, running: Running, error: BaseException) -> Outcome:
        """How a run ends that an exception has ended. Raises nothing.

        Args:
            running: The job.
            error: Whatever was raised; what our own frames add to its traceback is taken away.
        """
        fetched = running.fetched
        try:
            without_frames_of(error, _OWN_FILES)
            return self._interrupted(running, error) or self._veiled(
                fetched, self._decided(fetched, error)
            )
        except BaseException:  # noqa: BLE001  # the exception's own code runs in there
            return self._last_resort(fetched, error)

    def unfinished(self, running: Running) -> Outcome:
        """How a job ends whose task is done and has told no outcome. Raises nothing.

        Args:
            running: The job.
        """
        task = running.task
        if task is None or task.cancelled():
            return self.raised(
                running, asyncio.CancelledError("the job's task was cancelled before it began")
            )
        error = (
            task.exception()
        )  # compared with None: it may be anybody's, and have a truth of its own
        return self.raised(
            running,
            RuntimeError("the job's task ended without an outcome") if error is None else error,
        )

    def interrupt(self, running: Running, why: Interruption) -> None:
        """Stop a running job: an `async def` is cancelled; a `def` sees `job.cancelled`, and keeps
        its thread.

        Args:
            running: The job.
            why: Decides its outcome. The first reason counts.
        """
        if running.interruption is None:
            running.interruption = why
        running.run.cancelled = True
        if self.on_loop and running.task is not None:
            running.task.cancel()

    def _call_on_thread(self, job: Job[Any]) -> tuple[Any, BaseException | None]:
        """What the processor returned, or what it raised.

        A future cannot carry every exception: it refuses `StopIteration`, and `GeneratorExit` would
        close the coroutine that awaits it.
        """
        try:
            if self._job_context is None:
                result = self._function(job)
            else:
                with self._job_context(job):
                    result = self._function(job)
        except StopIteration as stopped:
            raised = RuntimeError("the processor raised StopIteration")  # as it does in a coroutine
            raised.__cause__ = stopped
            return None, raised
        except BaseException as error:  # noqa: BLE001  # a SystemExit in a processor is a failed attempt, no more
            if self._forks != forks():
                end_child(error=error)
            return None, error
        if self._forks != forks():
            end_child()
        return result, None

    def _read(self, fetched: FetchedJob) -> tuple[Any, Outcome | None]:
        """The payload, or None and why the job must not run."""
        if fetched.deferred_failure is not None:
            return None, self._veiled(fetched, Failed(shortened(fetched.deferred_failure)))
        if not fetched.options.readable:
            return None, Failed("job refused: opts is not a JSON object")
        try:
            payload, unknown = self.queue.parsed(fetched.data)
        except PayloadRefused as error:
            reason = shortened(f"payload refused: {error.fields}")
            return None, self._veiled(fetched, Failed(reason, error=error.with_traceback(None)))
        except BaseException as error:  # noqa: BLE001  # a validator of the payload's model may raise anything
            reason, trace = described(without_frames_of(error, _OWN_FILES))
            return None, self._veiled(
                fetched, Failed(shortened(f"payload refused: {reason}"), trace, error=error)
            )
        if unknown:
            self._tell_once("payload fields ignored", unknown)
        return payload, None

    def _returned(self, running: Running, result: Any) -> Outcome:
        """How a run ends whose processor has returned. Raises nothing."""
        try:
            # It may have finished after all: a def, though, may have returned because it saw
            # `job.cancelled`.
            if running.interruption != "shutdown" or not self.on_loop:
                interrupted = self._interrupted(running)
                if interrupted is not None:
                    return interrupted
            return self._veiled(running.fetched, _written(result))
        except BaseException as error:  # noqa: BLE001  # the result's own code runs in there
            return self._last_resort(running.fetched, error)

    def _interrupted(self, running: Running, error: BaseException | None = None) -> Outcome | None:
        match running.interruption:
            case "lease":
                return LeaseLost()
            case "shutdown":
                return HandedBack()
            case "timeout":
                limit = self.queue.timeout
                reason = f"TimeoutError: the processor ran longer than {limit.total_seconds() if limit else 0:g} s"
                return TimedOut(reason, self._retry_ms(running.fetched), reason, error=error)
            case None:
                return None

    def _veiled(self, fetched: FetchedJob, outcome: Outcome) -> Outcome:
        """An outcome that says nothing secret: why a job failed goes to logs, to events, to boards."""
        if not isinstance(outcome, Failed | Retried):
            return outcome
        try:
            names = secret_names(self.queue.payload)
            try:
                clear = Redactor(names, json.loads(fetched.data)).text
            except (ValueError, RecursionError):
                clear = Redactor(names).broken
            return replace(
                outcome, reason=shortened(clear(outcome.reason)), traceback=clear(outcome.traceback)
            )
        except BaseException:  # noqa: BLE001  # a text comes out masked, or not at all
            kind = "" if outcome.error is None else f"{class_name(outcome.error)}: "
            return replace(outcome, reason=shortened(f"{kind}{WITHHELD}"), traceback="")

    def _last_resort(self, fetched: FetchedJob, error: BaseException) -> Outcome:
        """A failed attempt of which nothing can be told: nothing of it but its class is looked at."""
        without_frames_of(error, _OWN_FILES)
        reason = shortened(f"{class_name(error)}: how the job ended cannot be told")
        if fetched.attempts_made + 1 >= fetched.options.attempts:
            return Failed(reason, error=error)
        return Retried(reason, UNKNOWN_DELAY_MS, error=error)

    def _decided(self, fetched: FetchedJob, error: BaseException) -> Outcome:
        kind = type(error)  # isinstance would ask the exception for a `__class__`
        delay_ms = None if issubclass(kind, Fail) else self._retry_ms(fetched)
        try:
            if issubclass(kind, Snooze):
                return Snoozed(max(_wait_ms(error), 0))
            if issubclass(kind, RateLimited):
                return QueueLimited(max(_wait_ms(error), 1))
            if issubclass(kind, Retry) and delay_ms is not None:
                delay_ms = max(_wait_ms(error), 0)
        except BaseException as fault:  # noqa: BLE001  # what it wants to wait is no duration, or cannot be read
            return _failed(without_frames_of(fault, _OWN_FILES), delay_ms)
        return _failed(error, delay_ms)

    def _retry_ms(self, fetched: FetchedJob) -> int | None:
        """How long to wait before the next attempt, or None where this was the last one (wire §
        6.8).
        """
        options = fetched.options
        failed = fetched.attempts_made + 1
        if failed >= options.attempts:
            return None
        if options.unknown_backoff is not None:
            self._tell_once(
                "backoff types unknown: the queue's own is used", {options.unknown_backoff}
            )
            return backoff_delay_ms(self.queue.options.backoff, failed)
        return backoff_delay_ms(options.backoff, failed) if options.backoff else 0

    def _tell_once(self, event: str, names: Collection[str]) -> None:
        new = sorted(name for name in names if (event, name) not in self._told)
        if new:
            self._told.update((event, name) for name in new)
            with suppress(
                Exception
            ):  # the program's own logging may be broken: that is no job's fault
                log.warning(event, queue=self.queue.name, names=new)


_OWN_FILES: Final = frozenset(
    each.__code__.co_filename for each in (Execution.prepare, Threads.start)
)
"""Whose frames are left out of the beginning of a traceback: they say nothing of the processor."""

_NOTHING: Final = Completed()


def _failed(error: BaseException, delay_ms: int | None) -> Failed | Retried:
    """A failed attempt, and in how long the next one follows; None: none does."""
    reason, trace = described(error)
    return (
        Failed(reason, trace, error=error)
        if delay_ms is None
        else Retried(reason, delay_ms, trace, error=error)
    )


def _wait_ms(error: BaseException) -> int:
    """What a processor wants to wait.

    Raises:
        BaseException: It is no duration, or raises whatever it likes when it is looked at.
    """
    after = error.after  # type: ignore[attr-defined]  # asked of those exceptions only that have it
    if not issubclass(type(after), timedelta):
        raise TypeError(f"{class_name(error)}.after is a {type(after).__name__}, not a timedelta")
    return timedelta.__floordiv__(
        after, timedelta(milliseconds=1)
    )  # a subclass's own methods are not asked


def _written(result: Any) -> Outcome:
    """What a processor returned, as JSON text."""
    if result is None:
        return _NOTHING
    try:
        text = to_json(result, inf_nan_mode="null")
    except BaseException as error:  # noqa: BLE001  # a result's own code runs in there
        reason, _ = described(
            without_frames_of(error, _OWN_FILES), "the result cannot be written as JSON"
        )
        return Failed(reason, error=error)
    if len(text) > MAX_RESULT_BYTES:
        return Failed(f"ValueError: the result has {len(text)} bytes, more than {MAX_RESULT_BYTES}")
    if unsafe := unsafe_integers(text):
        return Failed(
            shortened(f"ValueError: the result cannot be written as JSON: {unsafe[0][1]}")
        )
    return Completed(text)

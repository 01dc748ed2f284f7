"""Runs processors; no other module calls one.

It takes a fetched job, returns an `Outcome`, and lets no exception escape.

Making an outcome means reading objects that are not ours: the exception, the result, the payload.
Each of them may raise anything when it is read, `KeyboardInterrupt` included. `Execution` still
returns an outcome: in the worst case a failed attempt whose reason says that.

It does not know the store. The consumer writes the outcome.
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
from corral.job import KEEP_LOGS, Job, RunState, current_job
from corral.loggers import Logger
from corral.options import backoff_delay_ms
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
from corral.payload import unsafe_integers
from corral.plugins import JobHooks
from corral.processor import Processor
from corral.raised import class_name, describe, plain_text, remove_frames_of, shortened
from corral.redactor import Redactor, secret_names
from corral.store.codec import FetchedJob
from corral.worker.forked_children import end_child
from corral.worker.threads import Threads

__all__ = ["ActiveJob", "Execution"]

log = Logger("corral.worker")

MAX_RESULT_BYTES = 64 * 1024
"""A larger result belongs elsewhere: the store keeps it in memory twice (hash and event)."""
WITHHELD: Final = "the text is withheld: its secrets could not be masked"
UNKNOWN_DELAY_MS: Final = 1_000
"""The wait before the next attempt if the backoff itself cannot be computed."""

Interruption = Literal["timeout", "lease", "shutdown"]


@dataclass(slots=True, eq=False)
class ActiveJob:
    """A job whose lock this worker holds: the worker's own record of it.

    Attributes:
        fetched: The job as it is in the store.
        job: The job as its processor sees it; the payload of a refused job is None.
        run: The job's run state.
        refusal: The outcome of a job that must not run, or None.
        task: The task that runs it.
        interruption: Why the worker interrupted it, or None.
        started: When it was started, by the monotonic clock.
    """

    fetched: FetchedJob
    job: Job[Any]
    run: RunState
    refusal: Outcome | None = None
    task: asyncio.Task[None] | None = None
    interruption: Interruption | None = None
    started: float = field(default_factory=time.monotonic)


class Execution:
    """Runs the jobs of one queue.

    Args:
        processor: The queue's processor.
        resource: The resource that the processor's `using` opened, or None.
        job_hooks: Enters the subscribers of `corral_job_context`.
        threads: Runs `def` processors.
        keep_logs: How many log lines a job keeps if the job itself does not say.

    Attributes:
        queue: The queue.
        on_loop: Whether the processor is an `async def`.
        timeout_seconds: How long it may run, or None for no limit.
    """

    def __init__(
        self,
        processor: Processor,
        resource: object,
        job_hooks: JobHooks,
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
        self._job_context = job_hooks.job_context
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._forks = forks()
        self.timeout_seconds = (
            None if self.queue.timeout is None else self.queue.timeout.total_seconds()
        )
        self._logged: set[tuple[str, str]] = set()

    def prepare(self, fetched: FetchedJob) -> ActiveJob:
        """Make the job as its processor sees it, or find out why it must not run.

        Raises nothing: one bad job must not affect the others of its batch.

        Args:
            fetched: The job as it is in the store.
        """
        payload = None
        refusal: Outcome | None
        try:
            payload, refusal = self._read(fetched)
        except BaseException as error:  # noqa: BLE001  # the payload's own code runs in there
            refusal = self._outcome_without_details(fetched, error)
        try:
            return self._active_job(fetched, payload, refusal)
        finally:
            # The exception in it refers to frames, and one of them is this one: a cycle.
            del refusal

    def _active_job(self, fetched: FetchedJob, payload: Any, refusal: Outcome | None) -> ActiveJob:
        options = fetched.options
        run = RunState(  # by position, as in `decode_job`
            fetched.timestamp_ms,
            fetched.processed_ms,
            fetched.scheduled_ms,
            options.carrier,
            fetched,
            # Progress waits among the lines: if a job keeps few of them, it would push them out.
            max(options.keep_logs or self._keep_logs, KEEP_LOGS),
        )
        job = Job(
            fetched.id,
            self.queue,
            fetched.name,
            payload,
            fetched.attempts_made + 1,
            max(1, options.attempts),
            fetched.attempts_started,
            run,
        )
        return ActiveJob(fetched, job, run, refusal)

    def kept_logs(self, fetched: FetchedJob) -> int:
        """Return how many log lines a job keeps: the last ones.

        Args:
            fetched: The job.
        """
        return fetched.options.keep_logs or self._keep_logs

    async def run(self, active: ActiveJob) -> Outcome:
        """Run the processor. Raises nothing, except `GeneratorExit` if it is closed itself.

        No local variable in here may hold an outcome: the exception in it refers to frames, and
        those refer to this one.

        Args:
            active: The result of `prepare`, without a refusal.
        """
        job, began = active.job, time.monotonic()
        current_job.set(job)
        timer = None
        try:
            if self.timeout_seconds is not None:
                timer = self._loop.call_later(
                    self.timeout_seconds, self.interrupt, active, "timeout"
                )
            if not self.on_loop:
                result, error = await self._threads.start(self._call_on_thread, job)
                if error is not None:
                    return self.outcome_of_error(active, error)
            elif self._job_context is not None:
                with self._job_context(job):
                    result = await self._function(job)
            else:
                result = await self._function(job)
        except BaseException as raised:
            if self._forks != forks():
                end_child(error=raised)
            if issubclass(type(raised), GeneratorExit) and not self._loop.is_running():
                raise  # the loop was closed while this ran: no code is left to read an outcome
            return self.outcome_of_error(active, raised)
        finally:
            active.run.seconds = time.monotonic() - began
            if timer is not None:
                timer.cancel()
        if self._forks != forks():
            end_child()
        if result is None and active.interruption is None:
            return _NOTHING
        return self._outcome_of_result(active, result)

    def outcome_of_error(self, active: ActiveJob, error: BaseException) -> Outcome:
        """Return the outcome of a run that raised an exception. Raises nothing.

        Args:
            active: The job.
            error: The exception. Our own frames are removed from its traceback.
        """
        fetched = active.fetched
        try:
            remove_frames_of(error, _OWN_FILES)
            return self._interruption_outcome(active, error) or self._masked(
                fetched, self._decide(fetched, error)
            )
        except BaseException:  # noqa: BLE001  # the exception's own code runs in there
            return self._outcome_without_details(fetched, error)

    def outcome_of_unfinished(self, active: ActiveJob) -> Outcome:
        """Return the outcome of a job whose task ended without one. Raises nothing.

        Args:
            active: The job.
        """
        task = active.task
        if task is None or task.cancelled():
            return self.outcome_of_error(
                active, asyncio.CancelledError("the job's task was cancelled before it began")
            )
        error = task.exception()  # compared with None: its class may define __bool__
        return self.outcome_of_error(
            active,
            RuntimeError("the job's task ended without an outcome") if error is None else error,
        )

    def interrupt(self, active: ActiveJob, why: Interruption) -> None:
        """Interrupt a job: an `async def` is cancelled.

        A `def` cannot be: it sees `job.cancelled`, and keeps its thread until it returns.

        Args:
            active: The job.
            why: Decides its outcome. The first reason counts.
        """
        if active.interruption is None:
            active.interruption = why
        active.run.cancelled = True
        if self.on_loop and active.task is not None:
            active.task.cancel()

    def _call_on_thread(self, job: Job[Any]) -> tuple[Any, BaseException | None]:
        """Call a `def` processor; return its result and None, or None and what it raised.

        The exception is returned, because a future cannot carry every exception: it refuses
        `StopIteration`, and `GeneratorExit` would close the coroutine that awaits it.
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
        except BaseException as error:  # noqa: BLE001  # even a SystemExit is only a failed attempt
            if self._forks != forks():
                end_child(error=error)
            return None, error
        if self._forks != forks():
            end_child()
        return result, None

    def _read(self, fetched: FetchedJob) -> tuple[Any, Outcome | None]:
        """Return the payload and None, or None and the outcome of a job that must not run."""
        if fetched.deferred_failure is not None:
            return None, self._masked(fetched, Failed(shortened(fetched.deferred_failure)))
        if not fetched.options.readable:
            return None, Failed("job refused: opts is not a JSON object")
        try:
            payload, unknown = self.queue.parsed(fetched.data)
        except PayloadRefused as error:
            reason = shortened(f"payload refused: {error.fields}")
            return None, self._masked(fetched, Failed(reason, error=error.with_traceback(None)))
        except BaseException as error:  # noqa: BLE001  # a model's validator may raise anything
            reason, trace = describe(remove_frames_of(error, _OWN_FILES))
            return None, self._masked(
                fetched, Failed(shortened(f"payload refused: {reason}"), trace, error=error)
            )
        if unknown:
            self._warn_once("payload fields ignored", unknown)
        return payload, None

    def _outcome_of_result(self, active: ActiveJob, result: Any) -> Outcome:
        """Return the outcome of a run whose processor returned. Raises nothing."""
        try:
            # At a shutdown, an `async def` that returns has finished in time. A `def` may have
            # returned early because it saw `job.cancelled`.
            if active.interruption != "shutdown" or not self.on_loop:
                interrupted = self._interruption_outcome(active)
                if interrupted is not None:
                    return interrupted
            return self._masked(active.fetched, _encode_result(result))
        except BaseException as error:  # noqa: BLE001  # the result's own code runs in there
            return self._outcome_without_details(active.fetched, error)

    def _interruption_outcome(
        self, active: ActiveJob, error: BaseException | None = None
    ) -> Outcome | None:
        """Return the outcome of a run that the worker interrupted, or None if it did not."""
        match active.interruption:
            case "lease":
                return LeaseLost()
            case "shutdown":
                return HandedBack()
            case "timeout":
                limit = f"{self.timeout_seconds or 0:g} s"
                reason = f"TimeoutError: the processor ran longer than {limit}"
                return TimedOut(reason, self._retry_ms(active.fetched), reason, error=error)
            case None:
                return None

    def _masked(self, fetched: FetchedJob, outcome: Outcome) -> Outcome:
        """Return the outcome with its secrets masked: logs, events and boards show its texts."""
        if not isinstance(outcome, Failed | Retried | Snoozed | QueueLimited):
            return outcome
        if not outcome.reason and isinstance(outcome, Snoozed | QueueLimited):
            return outcome
        try:
            names = secret_names(self.queue.payload)
            try:
                mask = Redactor(names, json.loads(fetched.data)).text
            except (ValueError, RecursionError):
                mask = Redactor(names).broken
            reason = shortened(mask(outcome.reason))
            if isinstance(outcome, Failed | Retried):
                return replace(outcome, reason=reason, traceback=mask(outcome.traceback))
            return replace(outcome, reason=reason)
        except BaseException:  # noqa: BLE001  # a text that cannot be masked is not shown
            if isinstance(outcome, Failed | Retried):
                kind = "" if outcome.error is None else f"{class_name(outcome.error)}: "
                return replace(outcome, reason=shortened(f"{kind}{WITHHELD}"), traceback="")
            return replace(outcome, reason=WITHHELD)

    def _outcome_without_details(self, fetched: FetchedJob, error: BaseException) -> Outcome:
        """Return a failed attempt whose exception cannot be read: only its class is looked at."""
        remove_frames_of(error, _OWN_FILES)
        reason = shortened(f"{class_name(error)}: the job's result or exception cannot be read")
        if fetched.attempts_made + 1 >= fetched.options.attempts:
            return Failed(reason, error=error)
        return Retried(reason, UNKNOWN_DELAY_MS, error=error)

    def _decide(self, fetched: FetchedJob, error: BaseException) -> Outcome:
        """Return the outcome that an exception asks for; the texts are not masked yet."""
        kind = type(error)  # isinstance would read the exception's `__class__`
        delay_ms = None if issubclass(kind, Fail) else self._retry_ms(fetched)
        try:
            if issubclass(kind, Snooze):
                return Snoozed(max(_wait_ms(error, "after"), 0), _reason(error))
            if issubclass(kind, RateLimited):
                return QueueLimited(max(_wait_ms(error, "after"), 1), _reason(error))
            if issubclass(kind, Retry) and delay_ms is not None:
                delay_ms = _wait_of_retry_ms(error, delay_ms)
        except BaseException as fault:  # noqa: BLE001  # its wait is no duration, or raises
            return _failed(remove_frames_of(fault, _OWN_FILES), delay_ms)
        return _failed(error, delay_ms)

    def _retry_ms(self, fetched: FetchedJob) -> int | None:
        """Return the backoff before the next attempt; None if this was the last (wire § 6.8)."""
        options = fetched.options
        failed = fetched.attempts_made + 1
        if failed >= options.attempts:
            return None
        if options.unknown_backoff is not None:
            self._warn_once(
                "backoff types unknown: the queue's own backoff is used", {options.unknown_backoff}
            )
            return backoff_delay_ms(self.queue.options.backoff, failed)
        return backoff_delay_ms(options.backoff, failed) if options.backoff else 0

    def _warn_once(self, event: str, names: Collection[str]) -> None:
        """Log a warning about names that it was not logged for yet."""
        new = sorted(name for name in names if (event, name) not in self._logged)
        if new:
            self._logged.update((event, name) for name in new)
            # The program's own logging may be broken: the job must not fail for it.
            with suppress(Exception):
                log.warning(event, queue=self.queue.name, names=new)


_OWN_FILES: Final = frozenset(
    each.__code__.co_filename for each in (Execution.prepare, Threads.start)
)
"""Frames of these files are removed from the start of a traceback: they are not the processor's."""

_NOTHING: Final = Completed()


def _failed(error: BaseException, delay_ms: int | None) -> Failed | Retried:
    """Return a failed attempt; without a delay, no further attempt follows."""
    reason, trace = describe(error)
    return (
        Failed(reason, trace, error=error)
        if delay_ms is None
        else Retried(reason, delay_ms, trace, error=error)
    )


def _wait_of_retry_ms(error: BaseException, backoff_ms: int) -> int:
    """Return the wait that a `Retry` asks for.

    Raises:
        BaseException: As `_wait_ms`.
    """
    if error.at_least is None:  # type: ignore[attr-defined]  # every Retry has it
        return max(_wait_ms(error, "after"), 0)
    return max(_wait_ms(error, "at_least"), backoff_ms)


def _wait_ms(error: BaseException, name: Literal["after", "at_least"]) -> int:
    """Return a wait that a processor asks for, as the attribute `name` of what it raised.

    Raises:
        BaseException: It is no duration, or reading it raises.
    """
    wait = getattr(error, name)
    if not issubclass(type(wait), timedelta):
        raise TypeError(f"{class_name(error)}.{name} is a {type(wait).__name__}, not a timedelta")
    # Called on the class: a subclass's own methods must not run.
    return timedelta.__floordiv__(wait, timedelta(milliseconds=1))


def _reason(error: BaseException) -> str:
    """Return the reason that a processor gives for a wait, or an empty text.

    Raises:
        BaseException: Reading it raises.
    """
    return shortened(plain_text(error.reason) or "")  # type: ignore[attr-defined]  # both have it


def _encode_result(result: Any) -> Outcome:
    """Return the outcome of a processor that returned this: completed, with the JSON text.

    It is a failure if the result cannot be written as JSON, or is too large.
    """
    if result is None:
        return _NOTHING
    try:
        text = to_json(result, inf_nan_mode="null")
    except BaseException as error:  # noqa: BLE001  # a result's own code runs in there
        reason, _ = describe(
            remove_frames_of(error, _OWN_FILES), "the result cannot be written as JSON"
        )
        return Failed(reason, error=error)
    if len(text) > MAX_RESULT_BYTES:
        return Failed(f"ValueError: the result has {len(text)} bytes, more than {MAX_RESULT_BYTES}")
    if unsafe := unsafe_integers(text):
        return Failed(
            shortened(f"ValueError: the result cannot be written as JSON: {unsafe[0][1]}")
        )
    return Completed(text)

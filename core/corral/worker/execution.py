"""Runs processors: the only module that does. A fetched job goes in, an `Outcome` comes out, and nothing escapes.

It knows no store: what the outcome changes there is the consumer's business.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import structlog
from pydantic_core import to_json

from corral.errors import Fail, PayloadRefused, RateLimited, Retry, Snooze
from corral.job import Job, Run, current_job
from corral.options import backoff_delay_ms, milliseconds
from corral.outcome import Completed, Failed, HandedBack, LeaseLost, Outcome, Retried, Snoozed, TimedOut
from corral.outcome import RateLimited as QueueLimited
from corral.payload import unsafe_integers
from corral.plugins import Relay
from corral.processor import Processor
from corral.store.codec import FetchedJob
from corral.veil import Veil, secret_names
from corral.worker.threads import Threads

__all__ = ["Execution", "Running"]

log = structlog.get_logger("corral.worker")

MAX_RESULT_BYTES = 64 * 1024
"""A larger result belongs into storage of its own: this one is kept in the store's memory, twice (hash and event)."""
MAX_REASON_BYTES = 1024
MAX_TRACEBACK_CHARS = 8 * 1024
"""The end of a traceback says what happened; the store holds one per failed attempt."""

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
    """

    def __init__(self, processor: Processor, resource: object, relay: Relay, threads: Threads) -> None:
        self.queue = processor.queue
        self.on_loop = processor.is_async
        function = processor.function
        if processor.using is not None:
            self._function: Callable[[Job[Any]], Any] = lambda job: function(job, resource)
        else:
            self._function = function
        self._job_context = relay.job_context
        self._threads = threads
        self._told: set[tuple[str, str]] = set()

    def prepare(self, fetched: FetchedJob) -> Running:
        """The job as its processor sees it, or why it must not run.

        Args:
            fetched: The job as the store has it.
        """
        payload = None
        refusal: Outcome | None = None
        if fetched.deferred_failure is not None:
            refusal = Failed(_short(fetched.deferred_failure))
        elif not fetched.options.readable:
            refusal = Failed("job refused: opts is not a JSON object")
        else:
            try:
                payload, unknown = self.queue.parsed(fetched.data)
            except PayloadRefused as error:
                refusal = Failed(_short(f"payload refused: {error.fields}"))
            except Exception as error:  # noqa: BLE001  # a validator of the payload's model may raise anything
                refusal = Failed(_short(f"payload refused: {_reason(error)}"), _trace(error))
            else:
                self._tell_once("payload fields ignored", unknown)
        job = Job(
            id=fetched.id,
            queue=self.queue,
            name=fetched.name,
            payload=payload,
            attempt=fetched.attempts_made + 1,
            max_attempts=max(1, fetched.options.attempts),
            starts=fetched.attempts_started,
            enqueued_ms=fetched.timestamp_ms,
            processed_ms=fetched.processed_ms,
            scheduled_ms=fetched.scheduled_ms,
            carrier_text=fetched.options.carrier,
        )
        return Running(fetched, job, refusal and self._veiled(fetched, refusal))

    async def run(self, running: Running) -> Outcome:
        """Run the processor.

        Args:
            running: What `prepare` returned, without a refusal.
        """
        job, began = running.job, time.monotonic()
        current_job.set(job)
        timer = None
        timeout = self.queue.timeout
        if timeout is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(timeout.total_seconds(), self.interrupt, running, "timeout")
        try:
            if not self.on_loop:
                result = await self._threads.start(functools.partial(self._call_on_thread, job))
            elif self._job_context is not None:
                with self._job_context(job):
                    result = await self._function(job)
            else:
                result = await self._function(job)
        except GeneratorExit:
            raise  # the loop is closed over us; nobody reads an outcome any more
        except BaseException as error:  # noqa: BLE001  # whatever a processor raises is an outcome, a SystemExit too
            return self._interrupted(running) or self._veiled(running.fetched, self._decided(running.fetched, error))
        finally:
            job.run.seconds = time.monotonic() - began
            if timer is not None:
                timer.cancel()
        if running.interruption == "shutdown" and self.on_loop:
            # it finished after all; a def may have returned because it saw `job.cancelled`
            return self._veiled(running.fetched, _returned(result))
        return self._interrupted(running) or self._veiled(running.fetched, _returned(result))

    def interrupt(self, running: Running, why: Interruption) -> None:
        """Stop a running job: an `async def` is cancelled; a `def` sees `job.cancelled`, and keeps its thread.

        Args:
            running: The job.
            why: Decides its outcome. The first reason counts.
        """
        if running.interruption is None:
            running.interruption = why
        running.run.cancelled = True
        if self.on_loop and running.task is not None:
            running.task.cancel()

    def _call_on_thread(self, job: Job[Any]) -> Any:
        if self._job_context is None:
            return self._function(job)
        with self._job_context(job):
            return self._function(job)

    def _interrupted(self, running: Running) -> Outcome | None:
        match running.interruption:
            case "lease":
                return LeaseLost()
            case "shutdown":
                return HandedBack()
            case "timeout":
                limit = self.queue.timeout
                reason = f"TimeoutError: the processor ran longer than {limit.total_seconds() if limit else 0:g} s"
                return TimedOut(reason, self._retry_ms(running.fetched), reason)
            case None:
                return None

    def _veiled(self, fetched: FetchedJob, outcome: Outcome) -> Outcome:
        """An outcome that says nothing secret: why a job failed goes to logs, to events, to boards."""
        if not isinstance(outcome, Failed | Retried):
            return outcome
        names = secret_names(self.queue.payload)
        try:
            clear = Veil(names, json.loads(fetched.data)).text
        except (ValueError, RecursionError):
            clear = Veil(names).broken
        return replace(outcome, reason=_short(clear(outcome.reason)), traceback=clear(outcome.traceback))

    def _decided(self, fetched: FetchedJob, error: BaseException) -> Outcome:
        try:
            return self._asked_for(fetched, error)
        except Exception as fault:  # noqa: BLE001  # its `after` is no timedelta
            return self._asked_for(fetched, fault)

    def _asked_for(self, fetched: FetchedJob, error: BaseException) -> Outcome:
        if isinstance(error, Snooze):
            return Snoozed(max(milliseconds(error.after), 0))
        if isinstance(error, RateLimited):
            return QueueLimited(max(milliseconds(error.after), 1))
        reason, trace = _reason(error), _trace(error)
        delay_ms = None if isinstance(error, Fail) else self._retry_ms(fetched)
        if delay_ms is None:
            return Failed(reason, trace)
        if isinstance(error, Retry):
            delay_ms = max(milliseconds(error.after), 0)
        return Retried(reason, delay_ms, trace)

    def _retry_ms(self, fetched: FetchedJob) -> int | None:
        """How long to wait before the next attempt, or None where this was the last one (wire § 6.8)."""
        options = fetched.options
        failed = fetched.attempts_made + 1
        if failed >= options.attempts:
            return None
        if options.unknown_backoff is not None:
            self._tell_once("backoff types unknown: the queue's own is used", {options.unknown_backoff})
            return backoff_delay_ms(self.queue.options.backoff, failed)
        return backoff_delay_ms(options.backoff, failed) if options.backoff else 0

    def _tell_once(self, event: str, names: Collection[str]) -> None:
        new = sorted(name for name in names if (event, name) not in self._told)
        if new:
            self._told.update((event, name) for name in new)
            log.warning(event, queue=self.queue.name, names=new)


def _returned(result: Any) -> Outcome:
    if result is None:
        return _NOTHING
    try:
        text = to_json(result, inf_nan_mode="null")
    except Exception as error:  # noqa: BLE001  # a result's own code runs in there
        return Failed(_short(f"{type(error).__name__}: the result cannot be written as JSON: {error}"))
    if len(text) > MAX_RESULT_BYTES:
        return Failed(f"ValueError: the result has {len(text)} bytes, more than {MAX_RESULT_BYTES}")
    if unsafe := unsafe_integers(text):
        return Failed(_short(f"ValueError: the result cannot be written as JSON: {unsafe[0][1]}"))
    return Completed(text)


_NOTHING = Completed()


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # it is a plugin's, as everything else that runs in here
        text = "its text cannot be read"
    return _short(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _short(text: str) -> str:
    raw = text.encode(errors="replace")
    return raw.decode() if len(raw) <= MAX_REASON_BYTES else raw[: MAX_REASON_BYTES - 3].decode(errors="ignore") + "…"


def _trace(error: BaseException) -> str:
    # The first frame is ours and says nothing.
    tail = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, tail))
    return text[-MAX_TRACEBACK_CHARS:].encode(errors="replace").decode()

"""All errors that Corral raises on purpose, and the exceptions by which a processor ends a job.

There is one type per condition. The message is one lower-case sentence that names the thing and who
provides it; `hint` says what the reader can do. This module imports nothing of Corral, so that
every module may import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal, overload

__all__ = [
    "CatalogError",
    "ConfigurationError",
    "CorralError",
    "DatabaseUnavailable",
    "EnqueueInterrupted",
    "Fail",
    "JobRefused",
    "MissingExtra",
    "NoServerBinary",
    "PayloadRefused",
    "Problem",
    "RateLimited",
    "ResourceOpenError",
    "Retry",
    "SchedulerUnusable",
    "Snooze",
    "StoreUnavailable",
    "UnknownQueue",
]


class CorralError(Exception):
    """The base class of all errors that Corral raises on purpose.

    Attributes:
        hint: What the reader can do about it, or None.
        exit_code: The exit code of the command line when this error ends it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(CorralError):
    """A setting or an argument cannot be used."""

    exit_code = 2


class MissingExtra(ConfigurationError, ImportError):
    """A part of Corral was used whose extra is not installed; the message names the extra."""


class JobRefused(CorralError):
    """A job was refused before anything was written: its id, its options or its size."""

    exit_code = 2


class SchedulerUnusable(CorralError):
    """A scheduler is closed, or belongs to another event loop or process; nothing was written."""


class UnknownQueue(JobRefused):
    """No installed plugin declares a queue of this name.

    Attributes:
        queue: The name.
    """

    def __init__(self, queue: str, *, hint: str | None = None) -> None:
        super().__init__(f"no queue is named {queue!r}", hint=hint)
        self.queue = queue


class PayloadRefused(JobRefused):
    """A payload does not fit its queue's model; nothing was written.

    Attributes:
        queue: The queue's name.
        errors: One `(path, message)` per wrong field; the path is dotted, as in the JSON text.
        fields: The same as one line of text.
    """

    def __init__(
        self, queue: str, errors: tuple[tuple[str, str], ...], *, hint: str | None = None
    ) -> None:
        self.fields = "; ".join(
            f"{path}: {message}" if path else message for path, message in errors
        )
        super().__init__(f"payload of queue {queue!r} refused: {self.fields}", hint=hint)
        self.queue = queue
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a catalog was refused.

    Attributes:
        code: A stable kebab-case word, for machines (`corral check --json`).
        message: One sentence that names the queue and its provider.
        hint: What the reader can do, or None.
        providers: The distributions that are involved, as `name version`.
    """

    code: str
    message: str
    hint: str | None = None
    providers: tuple[str, ...] = ()


class CatalogError(CorralError):
    """The installed plugins do not make a catalog; the process must not start.

    Attributes:
        problems: All problems that were found, not only the first one.
    """

    exit_code = 3

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        lines = [f"the catalog was refused: {count}"]
        for problem in problems:
            lines.append(f"  {problem.message}")
            if problem.hint:
                lines.append(f"    hint: {problem.hint}")
        super().__init__("\n".join(lines))
        self.problems = problems


class StoreUnavailable(CorralError):
    """The store did not answer, or refused the request.

    Attributes:
        job_id: The id of the job that was to be written, if the request was about one.
        outcome: `"refused"`: certainly nothing was written. `"unknown"`: the request was sent and
            its reply was lost, or the store refused in the middle of it, or no replica has
            confirmed what is written; enqueueing again under the same `job_id` makes no second job.
            `"partial"`: of a call that writes several things, some are written; see
            `EnqueueInterrupted`.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        outcome: Literal["refused", "unknown", "partial"] = "refused",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.job_id = job_id
        self.outcome = outcome


class EnqueueInterrupted(StoreUnavailable):
    """`enqueue_many` stopped before all of its jobs were written.

    Each id of the call is in exactly one of `created`, `existing`, `refused` and `unknown`, in the
    order of the call.

    To go on, repeat the whole call with the same ids: `Entry(payload, job_id=…)` for each pair of
    `zip(payloads, ids)`. Jobs that exist are left as they are. A job is made a second time only if
    it has run and was removed before the repetition.

    Attributes:
        ids: The ids of all jobs of the call, in its order: the caller's own, and those that were
            made for the others.
        created: The ids of the jobs that this call made.
        existing: The ids under which there was a job already; it was left as it was.
        refused: The ids of the jobs that were certainly not written; most were never sent.
        unknown: The ids of the jobs that were sent and whose reply was lost, or that no replica has
            confirmed.
        outcome: `"partial"` if `created` has an id, else `"unknown"` if `unknown` has one, else
            `"refused"`.
    """

    def __init__(
        self,
        message: str,
        *,
        ids: tuple[str, ...] = (),
        created: tuple[str, ...] = (),
        existing: tuple[str, ...] = (),
        refused: tuple[str, ...] = (),
        unknown: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(
            message,
            outcome="partial" if created else "unknown" if unknown else "refused",
            hint=hint,
        )
        self.ids = ids
        self.created = created
        self.existing = existing
        self.refused = refused
        self.unknown = unknown


class DatabaseUnavailable(CorralError):
    """The SQL database could not be reached, or refused to work."""

    exit_code = 4


class ResourceOpenError(CorralError):
    """A package failed to open a resource that its processor needs; the worker must not start.

    Args:
        queue: The queue whose processor uses it.
        provider: Its distribution, as `name version`.
        error: The exception that was raised. If it is a `CorralError`, its hint and its exit code
            are taken over.
    """

    def __init__(self, queue: str, provider: str, error: Exception) -> None:
        if isinstance(error, CorralError):
            reason, hint = str(error), error.hint
        else:
            reason, hint = (
                f"{type(error).__name__}: {error}".strip().partition("\n")[0].removesuffix(": "),
                None,
            )
        super().__init__(
            f"the resource of queue {queue!r} was not opened by {provider}: {reason}", hint=hint
        )
        if isinstance(error, CorralError):
            self.exit_code = error.exit_code  # type: ignore[misc]  # of this instance only


class NoServerBinary(CorralError):
    """No Valkey or Redis server was found to start an embedded store with."""

    exit_code = 4


class Retry(Exception):
    """Raised by a processor: this attempt failed, and the processor knows when to try again.

    On the last attempt the job is failed for good.

    Attributes:
        reason: Why; see the argument.
        after: The exact wait before the next attempt, or None.
        at_least: The shortest wait before the next attempt, or None.

    Args:
        reason: Recorded in the job's failed reason, which begins with `Retry`.
        after: The exact wait before the next attempt; the backoff is not used. Zero tries again
            at once.
        at_least: The shortest wait before the next attempt: the job waits for this or for its
            backoff, whichever is longer.

    Raises:
        TypeError: Both `after` and `at_least` are given, or neither.
    """

    reason: str = ""
    after: timedelta | None = None
    at_least: timedelta | None = None

    @overload
    def __init__(self, reason: str = "", *, after: timedelta) -> None: ...
    @overload
    def __init__(self, reason: str = "", *, at_least: timedelta) -> None: ...
    def __init__(
        self,
        reason: str = "",
        *,
        after: timedelta | None = None,
        at_least: timedelta | None = None,
    ) -> None:
        if after is None and at_least is None:
            raise TypeError("Retry needs after= or at_least=")
        if after is not None and at_least is not None:
            raise TypeError("Retry takes after= or at_least=, not both")
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.at_least = at_least


class Snooze(Exception):
    """Raised by a processor: run this job again later. No attempt is spent.

    Attributes:
        reason: Why; see the argument.
        after: The wait.

    Args:
        reason: Part of the job's outcome `Snoozed` and of its log line; not written to the store.
        after: The wait before the job is started again.
    """

    reason: str = ""

    def __init__(self, reason: str = "", *, after: timedelta) -> None:
        super().__init__(reason or f"snoozed for {after}")
        self.reason = reason
        self.after = after


class Fail(Exception):
    """Raised by a processor: no further attempt can help. The job is failed for good.

    Attributes:
        reason: Why; see the argument.

    Args:
        reason: Recorded in the job's failed reason, which begins with `Fail`.
    """

    reason: str = ""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RateLimited(Exception):
    """Raised by a processor: the service that it calls asks us to slow down.

    The job goes back to its queue, no attempt is spent, and the whole queue waits.

    Attributes:
        reason: Why; see the argument.
        after: How long the queue waits.

    Args:
        reason: Part of the job's outcome `QueueLimited` and of its log line; not written to the
            store.
        after: How long no worker starts a job of this queue.
    """

    reason: str = ""

    def __init__(self, reason: str = "", *, after: timedelta) -> None:
        super().__init__(reason or f"rate limited for {after}")
        self.reason = reason
        self.after = after

"""Everything Corral raises on purpose, and what a processor raises to end a job on purpose.

One type per condition. The message is one lower-case sentence that names the thing and who provides
it; `hint` says what the reader can do. This module imports nothing of Corral, so that anything may
import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal

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
    "ResourceNotOpened",
    "Retry",
    "SchedulerUnusable",
    "Snooze",
    "StoreUnavailable",
    "UnknownQueue",
]


class CorralError(Exception):
    """The root of all errors that Corral raises on purpose.

    Attributes:
        hint: What the reader can do about it, or None.
        exit_code: What the command line exits with when this error ends it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(CorralError):
    """A setting or an argument that cannot be used."""

    exit_code = 2


class MissingExtra(ConfigurationError, ImportError):
    """A part of Corral whose extra is not installed; the message names the extra."""


class JobRefused(CorralError):
    """A job that was refused before anything was written: its id, its options or its size."""

    exit_code = 2


class SchedulerUnusable(CorralError):
    """A scheduler that was closed, or that belongs to another event loop or to another process;
    nothing was written.
    """


class UnknownQueue(JobRefused):
    """A queue name that no installed plugin declares.

    Attributes:
        queue: The name that was asked for.
    """

    def __init__(self, queue: str, *, hint: str | None = None) -> None:
        super().__init__(f"no queue is named {queue!r}", hint=hint)
        self.queue = queue


class PayloadRefused(JobRefused):
    """A payload that does not have its queue's shape; nothing was written.

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
        problems: Everything that is wrong, not only the first thing.
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
    """The store did not answer, or refused to.

    Attributes:
        job_id: The id of the job that was to be written, where there was one.
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

    Each id of the call is in one of the attributes.

    To go on, repeat the whole call with the same ids: `Entry(payload, job_id=…)` for each of
    `zip(payloads, ids)`. Jobs that exist are left as they are. A job is doubled only if it has run
    and was removed before the repetition.

    Attributes:
        ids: The ids of all jobs of the call, in its order: the caller's own, and those that were
        made for the others.
        created: The ids of the jobs that this call made, in the order of the call, as in the other
        attributes.
        existing: The ids under which there was a job already; it was left as it was.
        refused: The ids of the jobs that were certainly not written; most were never sent.
        unknown: The ids of the jobs that were sent and whose reply was lost, or that no replica has
        confirmed.
        outcome: `"partial"` where `created` has an id, else `"unknown"` where `unknown` has one,
        else `"refused"`.
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


class ResourceNotOpened(CorralError):
    """A resource that a worker needs, and that its package failed to open; the worker must not
    start.

    Args:
        queue: The queue whose processor uses it.
        provider: Its distribution, as `name version`.
        error: What was raised. Where it is a `CorralError`, its hint and its exit code are this
        one's.
    """

    def __init__(self, queue: str, provider: str, error: Exception) -> None:
        if isinstance(error, CorralError):
            reason, hint = str(error), error.hint  # meant to be read, all of it
        else:
            reason, hint = (
                f"{type(error).__name__}: {error}".strip().partition("\n")[0].removesuffix(": "),
                None,
            )
        super().__init__(
            f"the resource of queue {queue!r} was not opened by {provider}: {reason}", hint=hint
        )
        if isinstance(error, CorralError):
            self.exit_code = error.exit_code  # type: ignore[misc]  # this one's own


class NoServerBinary(CorralError):
    """No Valkey or Redis server could be found to start an embedded store."""

    exit_code = 4


class Retry(Exception):
    """Raised by a processor: this attempt failed; make the next one after exactly `after`.

    On the last attempt it is a final failure.

    Args:
        reason: Recorded as the job's failed reason.
        after: How long to wait; the queue's backoff is not asked.
    """

    def __init__(self, reason: str = "retry", *, after: timedelta) -> None:
        super().__init__(reason)
        self.after = after


class Snooze(Exception):
    """Raised by a processor: not now. The job comes back after `after` and no attempt is spent."""

    def __init__(self, *, after: timedelta) -> None:
        super().__init__(f"snoozed for {after}")
        self.after = after


class Fail(Exception):
    """Raised by a processor: no further attempt can help; the job is failed for good.

    Args:
        reason: Recorded as the job's failed reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class RateLimited(Exception):
    """Raised by a processor: the other side asks us to slow down.

    The job is given back with no attempt spent, and the whole queue waits.

    Args:
        after: How long no job of this queue is started, by any worker.
    """

    def __init__(self, after: timedelta) -> None:
        super().__init__(f"rate limited for {after}")
        self.after = after

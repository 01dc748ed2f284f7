"""`JobView`: a job as the board shows it, in HTML and in JSON.

What is secret goes no further than this module.

What is secret, and how it is masked, `corral.redactor` says. A job's id is shown as it is: links
are made of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from corral.errors import PayloadRefused
from corral.inspector import Occurrence, State, StoredJob
from corral.queue import Queue
from corral.redactor import LONGEST, MASK, Redactor, is_marked, secret_names

__all__ = [
    "MASK",
    "JobView",
    "is_found_in_the_open",
    "is_secret",
    "occurrences_shown",
    "refusal_shown",
    "schema_shown",
    "shown",
    "texts_shown",
]

MAX_TEXT: Final = LONGEST
"""Characters of one text that a page shows."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the board shows it; see `StoredJob` for what the fields mean.

    Attributes:
        reason: Why the last attempt failed, whole.
        headline: The first line of that.
        traces: One text per failed attempt, the oldest first.
        run_ms: How long its last run took, or has taken when it was read; None before the first.
    """

    id: str
    queue: str
    state: State | None
    name: str
    data: Any
    opts: Any
    progress: Any
    returnvalue: Any
    reason: str
    headline: str
    traces: tuple[str, ...]
    enqueued_at: datetime | None
    due_at: datetime | None
    processed_on: datetime | None
    finished_on: datetime | None
    delay: timedelta
    priority: int
    attempts_made: int
    attempts_started: int
    max_attempts: int
    stalled: int
    processed_by: str | None
    parent_key: str | None
    deduplication_id: str | None
    schedule_id: str | None
    log_lines: int | None
    locked_for: timedelta | None
    run_ms: float | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in {"completed", "failed"}

    @property
    def is_iteration(self) -> bool:
        """Whether it is a run of a schedule."""
        return self.schedule_id is not None


class _JobRedactor:
    """Masks what is secret in one job, and cuts what is too long to be read."""

    def __init__(self, job: StoredJob, queue: Queue[Any] | None) -> None:
        self._veil = Redactor(_names(queue), job.data)

    def text(self, text: str) -> str:
        """A text."""
        return self._veil.text(text[: 2 * MAX_TEXT])[:MAX_TEXT]

    def value(self, value: Any) -> Any:
        """A JSON value, as it was parsed; what was none is a text."""
        return self.text(value) if isinstance(value, str) else self._veil.value(value)

    def payload(self, data: Any) -> Any:
        """The payload."""
        return (
            self._veil.broken(data[:MAX_TEXT]) if isinstance(data, str) else self._veil.value(data)
        )


def _names(queue: Queue[Any] | None) -> frozenset[str]:
    return secret_names(queue.payload) if queue else frozenset()


def shown(job: StoredJob, queue: Queue[Any] | None, now: datetime) -> JobView:
    """A job as the board shows it.

    Args:
        job: What is stored.
        queue: Its queue, where the catalog declares it.
        now: What the time is, by the store's clock.
    """
    redactor = _JobRedactor(job, queue)
    reason = redactor.text(job.failed_reason or job.deferred_failure or "")
    ended = (
        job.finished_on
        if job.state in {"completed", "failed"}
        else now
        if job.state == "active"
        else None
    )
    ran = (ended - job.processed_on).total_seconds() * 1000 if ended and job.processed_on else None
    return JobView(
        id=job.id,
        queue=job.queue,
        state=job.state,
        name=redactor.text(job.name),
        data=redactor.payload(job.data),
        opts=redactor.value(job.opts),
        progress=redactor.value(job.progress),
        returnvalue=redactor.value(job.returnvalue),
        reason=reason,
        headline=reason.partition("\n")[0][:300],
        traces=tuple(map(redactor.text, job.stacktrace)),
        enqueued_at=job.enqueued_at,
        due_at=job.due_at,
        processed_on=job.processed_on,
        finished_on=job.finished_on,
        delay=job.delay,
        priority=job.priority,
        attempts_made=job.attempts_made,
        attempts_started=job.attempts_started,
        max_attempts=job.max_attempts,
        stalled=job.stalled,
        processed_by=job.processed_by and redactor.text(job.processed_by),
        parent_key=job.parent_key and redactor.text(job.parent_key),
        deduplication_id=job.deduplication_id and redactor.text(job.deduplication_id),
        schedule_id=job.schedule_id and redactor.text(job.schedule_id),
        log_lines=job.log_lines,
        locked_for=job.locked_for,
        run_ms=None if ran is None else max(0.0, ran),
    )


def texts_shown(job: StoredJob, queue: Queue[Any] | None, texts: Iterable[str]) -> list[str]:
    """What a job said, without its secrets."""
    return [*map(_JobRedactor(job, queue).text, texts)]


def occurrences_shown(
    job: StoredJob, queue: Queue[Any] | None, found: Iterable[Occurrence]
) -> list[Occurrence]:
    """What happened to a job, without its secrets."""
    redactor = _JobRedactor(job, queue)
    return [
        replace(
            each,
            detail=redactor.text(each.detail),
            trace=None if each.trace is None else redactor.text(each.trace),
        )
        for each in found
    ]


def refusal_shown(
    queue: Queue[Any], data: Mapping[str, Any], refused: PayloadRefused
) -> PayloadRefused:
    """What is wrong with a payload that somebody typed, without its secrets: a validator's own
    words may quote one.
    """
    redactor = Redactor(_names(queue), data)
    return PayloadRefused(
        queue.name, tuple((path, redactor.text(message)) for path, message in refused.errors)
    )


def schema_shown(queue: Queue[Any]) -> dict[str, Any]:
    """The JSON schema of a queue's payload, without what a secret is unless somebody says
    otherwise.
    """
    schema: dict[str, Any] = queue.payload.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    for model in (schema, *definitions.values()):
        for name, field in model.get("properties", {}).items():
            if is_secret(queue, name) or is_marked(field, definitions):
                for told in {"default", "examples", "example", "const"} & field.keys():
                    del field[told]
    return schema


def is_secret(queue: Queue[Any] | None, name: str) -> bool:
    """Whether a payload's field is masked; of a dotted name any part."""
    redactor = Redactor(_names(queue))
    return any(map(redactor.is_secret, (name, *name.split("."))))


def is_found_in_the_open(job: StoredJob, queue: Queue[Any] | None, text: str) -> bool:
    """Whether what was searched for stands in what the board shows: a search must not be a way to
    guess a secret.
    """
    redactor = _JobRedactor(job, queue)
    places = [
        job.id,
        redactor.text(job.failed_reason or ""),
        json.dumps(redactor.payload(job.data), ensure_ascii=False),
    ]
    return any(text in place for place in places) or json.dumps(text)[1:-1] in places[2]

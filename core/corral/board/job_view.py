"""`JobView`: a job as the board shows it, in HTML and in JSON.

Everything the board shows of a job passes through this module, which masks its secrets. What
counts as a secret, and how it is masked, is decided by `corral.redactor`. A job's id is shown as it
is, because links are made from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from corral.errors import PayloadRefused
from corral.inspector import StoredJob, TimelineEntry
from corral.job_state import JobState
from corral.queue import Queue
from corral.redactor import LONGEST, MASK, Redactor, is_marked, secret_names

__all__ = [
    "MASK",
    "JobView",
    "build_job_view",
    "is_masked_field",
    "is_visible_match",
    "masked_occurrences",
    "masked_refusal",
    "masked_schema",
    "masked_texts",
]

MAX_SHOWN: Final = LONGEST
"""Characters of one text that a page shows."""
MAX_HEADLINE: Final = 300
"""Characters of a failure's first line in a table."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the board shows it.

    Attributes:
        stored: The job as it is stored, with its secrets masked and long texts cut. Its log lines
            and its children's results are left out.
        reason: Why the last attempt failed, or why the next worker will fail the job; empty where
            neither is known.
        headline: The first line of `reason`, cut to fit a table.
        run_ms: How long its last run took in milliseconds, or has taken so far while it is active;
            None before the first run.
    """

    stored: StoredJob
    reason: str
    headline: str
    run_ms: float | None

    @property
    def is_finished(self) -> bool:
        """Whether it is completed or failed."""
        return self.stored.state in {JobState.COMPLETED, JobState.FAILED}

    @property
    def is_iteration(self) -> bool:
        """Whether a schedule has made it."""
        return self.stored.schedule_id is not None


class _JobRedactor:
    """Masks one job's secrets in its texts and values, and cuts texts that are too long to show."""

    def __init__(self, job: StoredJob, queue: Queue[Any] | None) -> None:
        self._redactor = Redactor(_secret_names(queue), job.data)

    def text(self, text: str) -> str:
        """A text, masked and cut."""
        return self._redactor.text(text[: 2 * MAX_SHOWN])[:MAX_SHOWN]

    def optional(self, text: str | None) -> str | None:
        """A text, masked and cut; None stays None."""
        return None if text is None else self.text(text)

    def value(self, value: Any) -> Any:
        """A parsed JSON value, masked; a text is what could not be parsed."""
        return self.text(value) if isinstance(value, str) else self._redactor.value(value)

    def payload(self, data: Any) -> Any:
        """A parsed payload, masked; a text is what could not be parsed."""
        if isinstance(data, str):
            return self._redactor.broken(data[:MAX_SHOWN])
        return self._redactor.value(data)

    def job(self, job: StoredJob) -> StoredJob:
        """The stored job, masked; log lines and children's results are left out."""
        return replace(
            job,
            name=self.text(job.name),
            data=self.payload(job.data),
            opts=self.value(job.opts),
            progress=self.value(job.progress),
            returnvalue=self.value(job.returnvalue),
            failed_reason=self.optional(job.failed_reason),
            deferred_failure=self.optional(job.deferred_failure),
            stacktrace=tuple(map(self.text, job.stacktrace)),
            processed_by=self.optional(job.processed_by),
            parent_key=self.optional(job.parent_key),
            deduplication_id=self.optional(job.deduplication_id),
            schedule_id=self.optional(job.schedule_id),
            logs=None,
            child_results=None,
        )


def _secret_names(queue: Queue[Any] | None) -> frozenset[str]:
    return secret_names(queue.payload) if queue else frozenset()


def build_job_view(job: StoredJob, queue: Queue[Any] | None, now: datetime) -> JobView:
    """Make the view of a job.

    Args:
        job: The job as it is stored.
        queue: Its queue, if the catalog has it: its payload's model marks secrets.
        now: The current time by the store's clock.
    """
    stored = _JobRedactor(job, queue).job(job)
    reason = stored.failed_reason or stored.deferred_failure or ""
    return JobView(stored, reason, reason.partition("\n")[0][:MAX_HEADLINE], _run_ms(job, now))


def _run_ms(job: StoredJob, now: datetime) -> float | None:
    """How long the last run took, or has taken so far, in milliseconds."""
    if job.state in {JobState.COMPLETED, JobState.FAILED}:
        ended = job.finished_on
    else:
        ended = now if job.state is JobState.ACTIVE else None
    if ended is None or job.processed_on is None:
        return None
    return max(0.0, (ended - job.processed_on).total_seconds() * 1000)


def masked_texts(job: StoredJob, queue: Queue[Any] | None, texts: Iterable[str]) -> list[str]:
    """Texts that a job has written, such as log lines, with its secrets masked."""
    return [*map(_JobRedactor(job, queue).text, texts)]


def masked_occurrences(
    job: StoredJob, queue: Queue[Any] | None, timeline: Iterable[TimelineEntry]
) -> list[TimelineEntry]:
    """A job's timeline with its secrets masked."""
    redactor = _JobRedactor(job, queue)
    return [
        replace(each, detail=redactor.text(each.detail), trace=redactor.optional(each.trace))
        for each in timeline
    ]


def masked_refusal(
    queue: Queue[Any], data: Mapping[str, Any], refused: PayloadRefused
) -> PayloadRefused:
    """The errors of a payload that was typed into a form, with its secrets masked.

    A validator's own message may quote a secret.
    """
    redactor = Redactor(_secret_names(queue), data)
    return PayloadRefused(
        queue.name, tuple((path, redactor.text(message)) for path, message in refused.errors)
    )


def masked_schema(queue: Queue[Any]) -> dict[str, Any]:
    """The JSON schema of a queue's payload, without the default and example values of secrets."""
    schema: dict[str, Any] = queue.payload.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    for model in (schema, *definitions.values()):
        for name, field in model.get("properties", {}).items():
            if is_masked_field(queue, name) or is_marked(field, definitions):
                for keyword in {"default", "examples", "example", "const"} & field.keys():
                    del field[keyword]
    return schema


def is_masked_field(queue: Queue[Any] | None, name: str) -> bool:
    """Whether a payload's field is masked; for a dotted name, whether any part of it is."""
    redactor = Redactor(_secret_names(queue))
    return any(map(redactor.is_secret, (name, *name.split("."))))


def is_visible_match(job: StoredJob, queue: Queue[Any] | None, text: str) -> bool:
    """Whether a text that was searched for is in what the board shows of a job.

    A match in a masked part must not count: searching would be a way to guess a secret.
    """
    redactor = _JobRedactor(job, queue)
    payload = json.dumps(redactor.payload(job.data), ensure_ascii=False)
    places = [job.id, redactor.text(job.failed_reason or ""), payload]
    return any(text in place for place in places) or json.dumps(text)[1:-1] in payload

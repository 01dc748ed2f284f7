"""A job with everything that is stored of it, as plain values (wire § 3).

Decoding never fails: jobs of any client, and jobs with damaged fields, can be shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from corral.job_state import JobState
from corral.store.keys import due_ms

__all__ = [
    "CONTAINER",
    "StoredJob",
    "datetime_from_ms",
    "decode_contents",
    "decode_listed",
    "decode_shown",
    "decode_stored",
    "parse_json",
    "parse_number",
    "payload_text",
    "spellings",
    "state_of",
]

CONTAINER: Final[Mapping[JobState, str]] = {
    state: "wait" if state is JobState.WAITING else state.value for state in JobState
}
"""The key that holds the jobs of a state (wire § 1)."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """Everything that is stored of a job. Times are aware, in UTC.

    Attributes:
        id: Unique within its queue.
        queue: The queue's name.
        state: Its state; None if no container holds the job, which then never runs.
        name: BullMQ's job name.
        data: The payload, parsed; the text itself if it is not JSON.
        opts: The options with their stored names (wire § 4), parsed like `data`.
        progress: The progress that the processor reported last, parsed like `data`.
        returnvalue: The processor's result, parsed like `data`.
        failed_reason: Why the last attempt failed.
        deferred_failure: The reason with which the next worker will fail the job without running
            it, or None.
        stacktrace: One text per failed attempt, the oldest first.
        enqueued_at: When it was added.
        due_at: When it will be due, while it is delayed.
        processed_on: When it was last started.
        finished_on: When it completed, or failed for good.
        delay: The last delay that was requested; zero once the job is waiting.
        priority: 0 for none; 1 is the most urgent.
        attempts_made: How many attempts have ended.
        attempts_started: How often the job was started.
        max_attempts: How many attempts it has in all, at least 1.
        stalled: How often it stalled, because its worker died or lost the lock.
        processed_by: The name of the worker that last started it, or None.
        parent_key: The key of its parent, or None.
        deduplication_id: Its deduplication id, or None.
        schedule_id: The id of the schedule that it is an iteration of, or None.
        log_lines: How many log lines it has; None if they were not counted, or their key is
            damaged.
        locked_for: How long until its worker's lock expires, or None.
        logs: Its log lines, the oldest first; None if they were not read. Only
            `JobInspector.scrub` reads them.
        child_results: The results of its children, parsed like `data`; None if they were not read.
    """

    id: str
    queue: str
    state: JobState | None
    name: str
    data: Any
    opts: Any
    progress: Any
    returnvalue: Any
    failed_reason: str | None
    deferred_failure: str | None
    stacktrace: tuple[str, ...]
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
    log_lines: int | None = None
    locked_for: timedelta | None = None
    logs: tuple[str, ...] | None = None
    child_results: tuple[Any, ...] | None = None


def decode_stored(  # noqa: PLR0917  # what job.lua replies, in its order
    queue: str,
    job_id: str,
    state: JobState | None,
    flat: Sequence[bytes],
    log_lines: int | None = None,
    lock_ms: int = -1,
    due_score: float | None = None,
) -> StoredJob:
    """Decode a job from its hash.

    Args:
        queue: The queue's name.
        job_id: The job's id.
        state: The job's state, or None.
        flat: Field, value, field, value, …
        log_lines: How many log lines it has, if they were counted.
        lock_ms: Milliseconds until its lock expires; negative without a lock.
        due_score: Its score in `delayed` (wire § 5.2), or None.
    """
    fields = {_text(name): _text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    get = fields.get
    opts = parse_json(get("opts")) if "opts" in fields else {}
    traces = parse_json(get("stacktrace"))
    attempts = opts.get("attempts") if isinstance(opts, dict) else None
    return StoredJob(
        id=job_id,
        queue=queue,
        state=state,
        name=get("name", ""),
        data=parse_json(get("data")),
        opts=opts,
        progress=parse_json(get("progress")),
        returnvalue=parse_json(get("returnvalue")),
        failed_reason=get("failedReason"),
        deferred_failure=get("defa"),
        stacktrace=tuple(map(str, traces)) if isinstance(traces, list) else (),
        enqueued_at=datetime_from_ms(parse_number(get("timestamp"))),
        due_at=datetime_from_ms(None if due_score is None else due_ms(due_score)),
        processed_on=datetime_from_ms(parse_number(get("processedOn"))),
        finished_on=datetime_from_ms(parse_number(get("finishedOn"))),
        delay=timedelta(milliseconds=max(-1e14, min(parse_number(get("delay")) or 0, 1e14))),
        priority=int(parse_number(get("priority")) or 0),
        attempts_made=int(parse_number(get("attemptsMade") or get("atm")) or 0),
        attempts_started=int(parse_number(get("ats")) or 0),
        max_attempts=int(max(1, min(attempts, 1e9))) if isinstance(attempts, int | float) else 1,
        stalled=int(parse_number(get("stc")) or 0),
        processed_by=get("pb"),
        parent_key=get("parentKey"),
        deduplication_id=get("deid"),
        schedule_id=get("rjk"),
        log_lines=log_lines,
        locked_for=timedelta(milliseconds=lock_ms) if lock_ms >= 0 else None,
    )


def decode_shown(queue: str, job_id: str, reply: Sequence[Any]) -> StoredJob:
    """Decode a job from the reply of job.lua."""
    _, container, flat, log_lines, lock_ms, due = reply
    state = state_of(container.decode())
    counted = log_lines if log_lines >= 0 else None
    return decode_stored(queue, job_id, state, flat, counted, lock_ms, float(due) if due else None)


def payload_text(reply: Sequence[Any]) -> bytes:
    """The text of a job's payload from the reply of job.lua; empty if it has none."""
    flat = reply[2]
    return bytes(dict(zip(flat[::2], flat[1::2], strict=True)).get(b"data", b""))


def decode_listed(queue: str, state: JobState, row: Sequence[Any]) -> StoredJob:
    """Decode a job from a row of page.lua or search.lua: its id, its hash, its due score."""
    job_id, flat, due = row
    return decode_stored(queue, _text(job_id), state, flat, due_score=float(due) if due else None)


def decode_contents(queue: str, state: JobState, contents: Sequence[Any]) -> StoredJob:
    """Decode a job with its log lines and its children's results from a row of job_contents.lua."""
    job_id, flat, logs, results = contents
    return replace(
        decode_stored(queue, _text(job_id), state, flat, len(logs)),
        logs=tuple(map(_text, logs)),
        child_results=tuple(parse_json(_text(each)) for each in results),
    )


def state_of(container: str) -> JobState | None:
    """The state of the jobs in a container (wire § 1); BullMQ 5's `paused` holds waiting jobs."""
    if container in {"wait", "paused"}:
        return JobState.WAITING
    return next((state for state in JobState if state == container), None)


def datetime_from_ms(unix_ms: float | None) -> datetime | None:
    """A time from Unix milliseconds; None if there is none, or if `datetime` cannot hold it."""
    if unix_ms is None:
        return None
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def parse_json(text: str | None) -> Any:
    """The value of a JSON text; the text itself if it is not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_number(text: str | None) -> float | None:
    """The number in a text; None if the text is not a finite number."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None


def spellings(text: str) -> tuple[str, ...]:
    """A text as it is, and as JSON spells it with and without escapes for non-ASCII characters."""
    return tuple(
        dict.fromkeys((text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]))
    )


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")

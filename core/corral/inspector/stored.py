"""A job as an operator sees it: everything that is stored, as plain values.

The reading half of wire § 3.

Whoever wrote the job, whatever is damaged in it: it can be shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

__all__ = [
    "CONTAINER",
    "STATES",
    "State",
    "StoredJob",
    "decode_contents",
    "decode_listed",
    "decode_shown",
    "decode_stored",
    "first_line",
    "moment",
    "number",
    "parsed",
    "spellings",
    "state_of",
]

State = Literal[
    "waiting", "active", "prioritized", "delayed", "waiting-children", "completed", "failed"
]
STATES: Final[tuple[State, ...]] = (
    "waiting",
    "active",
    "prioritized",
    "delayed",
    "waiting-children",
    "completed",
    "failed",
)
CONTAINER: Final[Mapping[State, str]] = {
    state: "wait" if state == "waiting" else state for state in STATES
}
"""The key that holds the jobs of a state (wire § 1)."""
LINE = 200
"""How many characters a reason has where one line must do."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """Everything that is stored of a job. Times are aware, in UTC.

    Attributes:
        id: Unique within its queue.
        queue: The queue's name.
        state: None where no container holds it: such a job never runs.
        name: BullMQ's job name.
        data: The payload, parsed; the text itself where it is not JSON.
        opts: The options under their stored names (wire § 4), parsed as `data`.
        progress: What the processor reported last, parsed as `data`.
        returnvalue: What it returned, parsed as `data`.
        failed_reason: Why the last attempt failed.
        deferred_failure: Why the next worker will fail it without running it.
        stacktrace: One text per failed attempt, the oldest first.
        enqueued_at: When it was added.
        due_at: When it will be due, while it is delayed.
        processed_on: When it started last.
        finished_on: When it ended for good.
        delay: How long it was asked to wait the last time; zero once it waits.
        priority: 0 for none, 1 is the most urgent.
        attempts_made: How many attempts have ended.
        attempts_started: How many starts there were.
        max_attempts: How many attempts it has in all, at least 1.
        stalled: How often its worker died.
        processed_by: The worker that started it last.
        parent_key: The key of its parent, or None.
        deduplication_id: Its deduplication id, or None.
        schedule_id: The job scheduler it is an iteration of, or None.
        log_lines: How many log lines it has; None where nobody counted them, or their key is
        damaged.
        locked_for: How long its worker's lock still lives, or None.
        logs: Its log lines, the oldest first; None where nobody read them. `JobInspector.scrub`
        does.
        child_results: What the jobs below it returned, parsed as `data`; None as above.
    """

    id: str
    queue: str
    state: State | None
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


def decode_stored(  # noqa: PLR0917  # what show.lua replies, in its order
    queue: str,
    job_id: str,
    state: State | None,
    flat: Sequence[bytes],
    log_lines: int | None = None,
    lock_ms: int = -1,
    due_score: float | None = None,
) -> StoredJob:
    """A job from its hash.

    Args:
        queue: The queue's name.
        job_id: Its id.
        state: Its state.
        flat: Field, value, field, value, …
        log_lines: How many log lines it has, where they were counted.
        lock_ms: How long its lock lives; negative without one.
        due_score: Its score in `delayed` (wire § 5.2), or None.
    """
    fields = {_text(name): _text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    get = fields.get
    opts = parsed(get("opts")) if "opts" in fields else {}
    traces = parsed(get("stacktrace"))
    attempts = opts.get("attempts") if isinstance(opts, dict) else None
    return StoredJob(
        id=job_id,
        queue=queue,
        state=state,
        name=get("name", ""),
        data=parsed(get("data")),
        opts=opts,
        progress=parsed(get("progress")),
        returnvalue=parsed(get("returnvalue")),
        failed_reason=get("failedReason"),
        deferred_failure=get("defa"),
        stacktrace=tuple(map(str, traces)) if isinstance(traces, list) else (),
        enqueued_at=moment(number(get("timestamp"))),
        due_at=moment(None if due_score is None else due_score // 4096),
        processed_on=moment(number(get("processedOn"))),
        finished_on=moment(number(get("finishedOn"))),
        delay=timedelta(milliseconds=max(-1e14, min(number(get("delay")) or 0, 1e14))),
        priority=int(number(get("priority")) or 0),
        attempts_made=int(number(get("attemptsMade") or get("atm")) or 0),
        attempts_started=int(number(get("ats")) or 0),
        max_attempts=int(max(1, min(attempts, 1e9))) if isinstance(attempts, int | float) else 1,
        stalled=int(number(get("stc")) or 0),
        processed_by=get("pb"),
        parent_key=get("parentKey"),
        deduplication_id=get("deid"),
        schedule_id=get("rjk"),
        log_lines=log_lines,
        locked_for=timedelta(milliseconds=lock_ms) if lock_ms >= 0 else None,
    )


def decode_shown(queue: str, job_id: str, reply: Sequence[Any]) -> StoredJob:
    """A job as show.lua replies."""
    _, container, flat, log_lines, lock_ms, due = reply
    state = state_of(container.decode())
    counted = log_lines if log_lines >= 0 else None
    return decode_stored(queue, job_id, state, flat, counted, lock_ms, float(due) if due else None)


def decode_listed(queue: str, state: State, row: Sequence[Any]) -> StoredJob:
    """A job as page.lua and search.lua reply: its id, its hash, when it is due."""
    job_id, flat, due = row
    return decode_stored(queue, _text(job_id), state, flat, due_score=float(due) if due else None)


def decode_contents(queue: str, state: State, contents: Sequence[Any]) -> StoredJob:
    """A job with all that was said about it, as contents.lua replies."""
    job_id, flat, logs, results = contents
    return replace(
        decode_stored(queue, _text(job_id), state, flat, len(logs)),
        logs=tuple(map(_text, logs)),
        child_results=tuple(parsed(_text(each)) for each in results),
    )


def state_of(container: str) -> State | None:
    """The public name of a container (wire § 1); BullMQ 5's `paused` holds waiting jobs."""
    if container in {"wait", "paused"}:
        return "waiting"
    return next((state for state in STATES if state == container), None)


def moment(unix_ms: float | None) -> datetime | None:
    """A time from Unix milliseconds; None where there is none, or one that no calendar has."""
    if unix_ms is None:
        return None
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def parsed(text: str | None) -> Any:
    """What a JSON text means; the text itself where it is none."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def number(text: str | None) -> float | None:
    """The number that a text is; None where it is none, or no finite one."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None


def spellings(text: str) -> tuple[str, ...]:
    """A text as it is, and as JSON of this and of other clients spells it."""
    return tuple(
        dict.fromkeys((text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]))
    )


def first_line(text: str) -> str:
    """The first line that says something, at most `LINE` characters of it."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")

"""The timeline of a job.

The job's own fields say how it began and ended; the queue's event stream says when things happened.
The stream is short and shared by all jobs of the queue, so that the times of some attempts may be
gone. A time is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from corral.inspector.queue_access import QueueAccess
from corral.inspector.stored_job import StoredJob, datetime_from_ms, parse_number
from corral.queue import Queue
from corral.reasons import first_line

__all__ = ["JobEvent", "TimelineEntry", "build_timeline", "read_timeline"]

LOOKS = 1_000
"""How many events are read after the job was added, and how many before its end."""
BYTES = 2 * 1024 * 1024
"""After this many bytes of events no more are read: each result of a job may have a megabyte."""
SLACK_MS = 500
"""How far the clocks that write times into jobs may differ from the store's clock.

Producers and workers write the times into jobs, the store those of the events.
"""
OMITTED_EVENTS: Final = ("progress", "retries-exhausted", "drained", "debounced")
"""Events that add nothing to the other entries of a timeline."""
MAX_UNTRACED = 100
"""The most failed attempts without a stored stack trace that a timeline shows."""
AFTER: Final[Mapping[str, str]] = {
    "delayed": "it was due, or was promoted",
    "active": "its worker handed it back",
    "failed": "it was retried by hand",
    "completed": "it was retried by hand",
    "waiting-children": "the jobs below it have ended",
}
"""Why a job began to wait, by the container that it came from."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One step in the life of a job.

    Attributes:
        at: When it happened; None if the event stream does not reach back so far, or if it is
            unclear which of several events it was.
        what: `added`, `delayed`, `waiting`, `active`, `attempt-failed`, `stalled`, `completed` or
            `failed`, or another event of BullMQ (wire § 5.6).
        detail: One line about it, or an empty text.
        trace: The stack trace of a failed attempt, or None.
        due: When the job is due, if it was delayed; `detail` says the same in UTC.
    """

    at: datetime | None
    what: str
    detail: str = ""
    trace: str | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An entry of the queue's event stream about the job (wire § 5.6).

    Attributes:
        at: When it was written, by the store's clock.
        what: The event's name.
        before: The container that the job came from (`prev` of the event), or empty.
        due: When the job is due, if it was delayed.
        reason: The failed reason, or empty.
    """

    at: datetime | None
    what: str
    before: str
    due: datetime | None
    reason: str


async def read_timeline(
    access: QueueAccess, queue: Queue[Any] | str, job: StoredJob
) -> Sequence[TimelineEntry]:
    """Read the job's events, in one or two calls, and build its timeline."""
    since = "-" if job.enqueued_at is None else max(0, _ms(job.enqueued_at) - SLACK_MS)
    until = "+" if job.finished_on is None else max(0, _ms(job.finished_on) + SLACK_MS)
    bounds = (LOOKS, BYTES)
    entries, rest = await access.run("job_events", queue, job.id, "XRANGE", since, until, *bounds)
    events, gap = [*map(_decode_event, entries)], -1
    if rest:
        entries, hidden = await access.run(
            "job_events", queue, job.id, "XREVRANGE", until, rest, *bounds
        )
        gap = len(events) if hidden else -1
        events += map(_decode_event, reversed(entries))
    return build_timeline(job, events, gap)


def build_timeline(job: StoredJob, events: Sequence[JobEvent], gap: int) -> Sequence[TimelineEntry]:
    """Combine a job's fields and its events to a timeline, in order.

    Args:
        job: The job.
        events: The events about the job, in order.
        gap: The index of the event before which some events were not read; negative: all were read.
    """
    added = max((place for place, event in enumerate(events) if event.what == "added"), default=-1)
    # Events before the last `added` are about an earlier job with the same id.
    events, gap = events[max(added, 0) :], gap - max(added, 0)
    attempts = _failed_attempts(job)
    numbers = _match_attempts(job, events, gap, len(attempts), begins=added >= 0)
    starts = [place for place, event in enumerate(events) if event.what == "active"]
    # Attempts without an event are inserted before this place.
    untimed = gap if gap >= 0 else min(int(added >= 0), len(events))
    if starts and not _is_certain(job):
        untimed = max(untimed, starts[-1])
    found = [] if added >= 0 else [TimelineEntry(job.enqueued_at, "added", job.name)]
    for place in range(len(events) + 1):
        if place == untimed:
            rest = {
                number: each
                for number, each in enumerate(attempts)
                if number not in numbers.values()
            }
            last = (
                rest.pop(len(attempts) - 1, None)
                if job.state not in {"active", "completed"}
                else None
            )
            found += rest.values()
            if job.processed_on and not (starts and starts[-1] >= untimed):
                found.append(TimelineEntry(job.processed_on, "active", _by(job)))
            if last:
                found.append(replace(last, at=job.finished_on if job.state == "failed" else None))
        if place in numbers:
            found.append(replace(attempts[numbers[place]], at=events[place].at))
        found += _entries_of(job, events[place]) if place < len(events) else []
    seen = {event.what for event in events}
    if job.state in {"completed", "failed"} and job.state not in seen:
        found.append(
            TimelineEntry(job.finished_on, job.state, _reason(job) if job.state == "failed" else "")
        )
    if job.due_at and "delayed" not in seen:
        found.append(TimelineEntry(None, "delayed", _until(job.due_at), due=job.due_at))
    return found


def _failed_attempts(job: StoredJob) -> Sequence[TimelineEntry]:
    """The failed attempts, without their times."""
    failed = min(
        max(0, job.attempts_made - (job.state == "completed")), len(job.stacktrace) + MAX_UNTRACED
    )
    traces: list[str | None] = [*job.stacktrace]
    reason = first_line(job.failed_reason or "").rstrip("…")
    if (
        job.state == "failed"
        and len(traces) < failed
        and not (traces and reason in (traces[-1] or ""))
    ):
        # The last attempt failed without running: its payload was refused, or it stalled too often.
        traces.append(None)
    traces = [*[None] * (failed - len(traces)), *traces]
    found = []
    for attempt, trace in enumerate(traces, 1):
        of = f" of {job.max_attempts}" if attempt <= job.max_attempts else ""
        why = _exception_line(trace) if trace else _reason(job) if attempt == len(traces) else ""
        found.append(
            TimelineEntry(
                None, "attempt-failed", f"attempt {attempt}{of}: {why}".removesuffix(": "), trace
            )
        )
    return found


def _match_attempts(
    job: StoredJob, events: Sequence[JobEvent], gap: int, count: int, *, begins: bool
) -> dict[int, int]:
    """Find the event with which each failed attempt ended.

    Args:
        job: The job.
        events: The events about the job.
        gap: As for `build_timeline`.
        count: How many attempts failed.
        begins: Whether the first event is the job's `added`.

    Returns:
        The attempt's index, from 0, by the event's index. Attempts are missing if it is unclear
        which event ended them.
    """
    ends = _attempt_ends(events, gap)
    late = [place for place in ends if place >= gap]
    if not _is_certain(job):
        is_last = job.state == "failed" and late and events[late[-1]].what == "failed"
        return {late[-1]: count - 1} if is_last and count else {}
    numbers = {place: count - 1 - back for back, place in enumerate(reversed(late)) if back < count}
    if begins:
        early = [place for place in ends if place < gap]
        numbers |= {place: number for number, place in enumerate(early[: count - len(numbers)])}
    return numbers


def _attempt_ends(events: Sequence[JobEvent], gap: int) -> Sequence[int]:
    """The indexes of the events with which an attempt ended other than by success or a stall."""
    ends: list[int] = []
    is_running = bool(events) and events[0].what != "added"
    for place, event in enumerate(events):
        is_running = is_running or event.what == "active" or place == gap
        after = events[place + 1].what if place + 1 < len(events) else ""
        is_back = event.what == "waiting" and event.before == "active"
        if is_running and after != "stalled" and (is_back or event.what in {"delayed", "failed"}):
            ends.append(place)
        if event.what not in {"active", *OMITTED_EVENTS}:
            is_running = False
    return ends


def _is_certain(job: StoredJob) -> bool:
    """Whether every start ended in success, a failure or a stall.

    If not, some start was postponed (snoozed, for example), and events do not show which one.
    """
    return job.attempts_started - job.attempts_made - job.stalled - (job.state == "active") <= 0


def _entries_of(job: StoredJob, event: JobEvent) -> Sequence[TimelineEntry]:
    detail = {
        "added": job.name,
        "delayed": _until(event.due),
        "waiting": AFTER.get(event.before, ""),
        "failed": first_line(event.reason),
        "stalled": "its worker was gone",
    }.get(event.what, "")
    due = event.due if event.what == "delayed" else None
    entry = TimelineEntry(event.at, event.what, detail, due=due)
    return [] if event.what in OMITTED_EVENTS else [entry]


def _decode_event(entry: Sequence[bytes]) -> JobEvent:
    ms, what, before, due_ms, reason = (each.decode(errors="replace") for each in entry)
    return JobEvent(
        datetime_from_ms(parse_number(ms)),
        what,
        before,
        datetime_from_ms(parse_number(due_ms)),
        reason,
    )


def _exception_line(trace: str) -> str:
    """The line of a stack trace that names the exception.

    It is the last unindented line in Python, and the first line in JavaScript.
    """
    lines = [line for line in trace.splitlines() if line.strip()]
    is_python = any(line.startswith("Traceback (") for line in lines)
    return first_line(
        next((line for line in reversed(lines) if not line.startswith(" ")), trace)
        if is_python
        else trace
    )


def _reason(job: StoredJob) -> str:
    return first_line(job.failed_reason or "")


def _by(job: StoredJob) -> str:
    return f"by {job.processed_by}" if job.processed_by else ""


def _until(due: datetime | None) -> str:
    return f"until {due:%Y-%m-%d %H:%M:%S} UTC" if due else ""


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)

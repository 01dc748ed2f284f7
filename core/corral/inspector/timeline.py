"""What happened to a job: its own fields say how it began and ended, and the queue's log says when
things happened.

The log is short, and other jobs fill it: times of attempts in between may be gone. A time is never
guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from corral.inspector.calls import Calls
from corral.inspector.stored import StoredJob, first_line, moment, number
from corral.queue import Queue

__all__ = ["Occurrence", "timeline"]

LOOKS = 1_000
"""How many events are looked at after a job's beginning, and how many before its end."""
BYTES = 2 * 1024 * 1024
"""How much is read of those, but for some that are larger: each result of a job may have a
megabyte.
"""
SLACK_MS = 500
"""How far the clocks of producers and workers, which write times into jobs, may be off the store's,
which logs.
"""
UNTOLD: Final = ("progress", "retries-exhausted", "drained", "debounced")
"""Events that tell nothing that another occurrence does not tell."""
UNTRACED = 100
"""How many attempts are told of which no stack trace is kept."""
AFTER: Final[Mapping[str, str]] = {
    "delayed": "it was due, or was promoted",
    "active": "it was given back",
    "failed": "it was retried by hand",
    "completed": "it was retried by hand",
    "waiting-children": "the jobs below it have ended",
}
"""What it means that a job waits, by where it was before."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened to a job.

    Attributes:
        at: When; None where the log does not reach back so far, or does not tell which of several
        it was.
        what: `added`, `delayed`, `waiting`, `active`, `attempt-failed`, `stalled`, `completed` or
            `failed`, or another event of BullMQ's (wire § 5.6).
        detail: One line about it, or an empty text.
        trace: The stack trace of a failed attempt.
    """

    at: datetime | None
    what: str
    detail: str = ""
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the queue's log about the job (wire § 5.6).

    Attributes:
        at: When, by the store's clock.
        what: Its name.
        before: `prev`: the container that the job came from.
        due: When the job is due, where it was delayed.
        reason: Why it failed.
    """

    at: datetime | None
    what: str
    before: str
    due: datetime | None
    reason: str


async def timeline(calls: Calls, queue: Queue[Any] | str, job: StoredJob) -> Sequence[Occurrence]:
    """What happened to a job, in order, in one call or two."""
    since = "-" if job.enqueued_at is None else max(0, _ms(job.enqueued_at) - SLACK_MS)
    until = "+" if job.finished_on is None else max(0, _ms(job.finished_on) + SLACK_MS)
    bounds = (LOOKS, BYTES)
    entries, rest = await calls.run("happened", queue, job.id, "XRANGE", since, until, *bounds)
    events, gap = [*map(_event, entries)], -1
    if rest:
        entries, hidden = await calls.run(
            "happened", queue, job.id, "XREVRANGE", until, rest, *bounds
        )
        gap = len(events) if hidden else -1
        events += map(_event, reversed(entries))
    return told(job, events, gap)


def told(job: StoredJob, events: Sequence[Event], gap: int) -> Sequence[Occurrence]:
    """What happened, in order.

    Args:
        job: The job.
        events: What the log says of it.
        gap: Before which of the events some were not looked at; negative: before none.
    """
    made = max((place for place, event in enumerate(events) if event.what == "added"), default=-1)
    events, gap = events[max(made, 0) :], gap - max(made, 0)  # before that, another had its id
    attempts = _failed_attempts(job)
    numbers = _numbers(job, events, gap, len(attempts), begins=made >= 0)
    starts = [place for place, event in enumerate(events) if event.what == "active"]
    untimed = (
        gap if gap >= 0 else min(int(made >= 0), len(events))
    )  # where those belong that the log does not show
    if starts and not _is_certain(job):
        untimed = max(untimed, starts[-1])
    found = [] if made >= 0 else [Occurrence(job.enqueued_at, "added", job.name)]
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
                found.append(Occurrence(job.processed_on, "active", _by(job)))
            if last:
                found.append(replace(last, at=job.finished_on if job.state == "failed" else None))
        if place in numbers:
            found.append(replace(attempts[numbers[place]], at=events[place].at))
        found += _occurrence(job, events[place]) if place < len(events) else []
    seen = {event.what for event in events}
    if job.state in {"completed", "failed"} and job.state not in seen:
        found.append(
            Occurrence(job.finished_on, job.state, _reason(job) if job.state == "failed" else "")
        )
    if job.due_at and "delayed" not in seen:
        found.append(Occurrence(None, "delayed", _until(job.due_at)))
    return found


def _failed_attempts(job: StoredJob) -> Sequence[Occurrence]:
    """The attempts that failed, without their times."""
    failed = min(
        max(0, job.attempts_made - (job.state == "completed")), len(job.stacktrace) + UNTRACED
    )
    traces: list[str | None] = [*job.stacktrace]
    reason = first_line(job.failed_reason or "").rstrip("…")
    if (
        job.state == "failed"
        and len(traces) < failed
        and not (traces and reason in (traces[-1] or ""))
    ):
        traces.append(
            None
        )  # it failed without running: its payload was refused, or it had stalled too often
    traces = [*[None] * (failed - len(traces)), *traces]
    found = []
    for attempt, trace in enumerate(traces, 1):
        of = f" of {job.max_attempts}" if attempt <= job.max_attempts else ""
        why = _why(trace) if trace else _reason(job) if attempt == len(traces) else ""
        found.append(
            Occurrence(
                None, "attempt-failed", f"attempt {attempt}{of}: {why}".removesuffix(": "), trace
            )
        )
    return found


def _numbers(
    job: StoredJob, events: Sequence[Event], gap: int, count: int, *, begins: bool
) -> dict[int, int]:
    """Which failed attempt, from 0, ended with which event."""
    ends = _ends(events, gap)
    late = [place for place in ends if place >= gap]
    if not _is_certain(job):
        is_last = job.state == "failed" and late and events[late[-1]].what == "failed"
        return {late[-1]: count - 1} if is_last and count else {}
    numbers = {place: count - 1 - back for back, place in enumerate(reversed(late)) if back < count}
    if begins:
        early = [place for place in ends if place < gap]
        numbers |= {place: number for number, place in enumerate(early[: count - len(numbers)])}
    return numbers


def _ends(events: Sequence[Event], gap: int) -> Sequence[int]:
    """The events with which an attempt ended, neither in success nor in a stall."""
    ends: list[int] = []
    is_running = bool(events) and events[0].what != "added"
    for place, event in enumerate(events):
        is_running = is_running or event.what == "active" or place == gap
        after = events[place + 1].what if place + 1 < len(events) else ""
        is_back = event.what == "waiting" and event.before == "active"
        if is_running and after != "stalled" and (is_back or event.what in {"delayed", "failed"}):
            ends.append(place)
        if event.what not in {"active", *UNTOLD}:
            is_running = False
    return ends


def _is_certain(job: StoredJob) -> bool:
    """Whether every start ended in success, a failure or a stall: in the log, one that was
    postponed looks alike.
    """
    return job.attempts_started - job.attempts_made - job.stalled - (job.state == "active") <= 0


def _occurrence(job: StoredJob, event: Event) -> Sequence[Occurrence]:
    detail = {
        "added": job.name,
        "delayed": _until(event.due),
        "waiting": AFTER.get(event.before, ""),
        "failed": first_line(event.reason),
        "stalled": "its worker was gone",
    }.get(event.what, "")
    return [] if event.what in UNTOLD else [Occurrence(event.at, event.what, detail)]


def _event(entry: Sequence[bytes]) -> Event:
    ms, what, before, due_ms, reason = (each.decode(errors="replace") for each in entry)
    return Event(moment(number(ms)), what, before, moment(number(due_ms)), reason)


def _why(trace: str) -> str:
    """The line of a stack trace that says what was raised: the last of Python's, the first of
    JavaScript's.
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

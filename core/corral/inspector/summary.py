"""A queue at a glance: what waits and since when, how much ends, what fails and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from corral.inspector.calls import Calls
from corral.inspector.limits import Limits, decode_limits
from corral.inspector.sizes import damaged_in, known_size, state_counts
from corral.inspector.stored import STATES, State, first_line, moment, number, parsed
from corral.queue import Queue

__all__ = [
    "Failure",
    "FailureGroup",
    "Summary",
    "alike",
    "failures",
    "per_minute",
    "summaries",
    "summary",
]

LOOKS = 8
"""How many jobs are looked at at each end of a container."""
FAILURES = 500
"""How many failed jobs are told apart by their reasons."""
MINUTES = 60
"""How many minutes of metrics a summary has."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed for good.

    Attributes:
        job_id: The job.
        at: When it failed.
        reason: Why: the first line, cut after 200 characters.
    """

    job_id: str
    at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Jobs that failed for reasons that are alike.

    Attributes:
        reason: Why, with `…` for the ids, numbers and addresses in it.
        count: How many, of the 500 that failed last.
        last_at: When the last of them failed.
        last_job_id: Which job that was.
    """

    reason: str
    count: int
    last_at: datetime | None
    last_job_id: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One queue at a glance. Times are aware, in UTC.

    Attributes:
        queue: Its name.
        counts: How many jobs are in each state.
        limits: What holds it back.
        oldest_waiting: Since when the job waits, of those waiting and prioritized, that has waited
            longest: since it was added, was due, was tried last, or was retried or promoted by
            hand. Of the last two only the log tells, of which 300 events are looked at: others
            count from when they were added or due. Looked for at both ends of the waiting list, and
            among the first of each priority.
        oldest_active: Since when the active job runs that started first, of the 40 that became
        active first.
        next_due: When the first delayed job is due.
        completed_total: How many jobs were completed as long as somebody counted; it never falls
        (wire § 6.23).
        failed_total: As `completed_total`, of those that failed for good.
        completed_per_minute: How many were completed in each of the last 60 minutes of the clock,
            the oldest first; the last minute still runs.
        failed_per_minute: As `completed_per_minute`, of those that failed for good.
        last_failure: The job that failed last, or None.
        quarantined: How many jobs are in quarantine, for an operator to look at.
        damaged: What is wrong with the queue's own keys, each as `<key> is a <type>, not a <type>`.
            Nothing is told of what these hold.
        unknown: The states whose keys are damaged: they count no jobs, and nobody can tell how many
        there are.
    """

    queue: str
    counts: Mapping[State, int]
    limits: Limits
    oldest_waiting: datetime | None
    oldest_active: datetime | None
    next_due: datetime | None
    completed_total: int
    failed_total: int
    completed_per_minute: Sequence[int]
    failed_per_minute: Sequence[int]
    last_failure: Failure | None
    quarantined: int = 0
    damaged: tuple[str, ...] = ()
    unknown: frozenset[State] = frozenset()


async def summary(calls: Calls, queue: Queue[Any] | str) -> Summary:
    """One queue at a glance, in one call."""
    reply = await calls.run("summary", queue, LOOKS, MINUTES)
    now_ms, sizes, limits, waiting, started, due, completed, failed, lately, quarantined, wrongs = (
        reply
    )
    completed_total, completed_per_minute = per_minute(completed, now_ms)
    failed_total, failed_per_minute = per_minute(failed, now_ms)
    due_score = number(due.decode(errors="replace"))
    counts = state_counts(sizes)
    return Summary(
        queue=calls.name(queue),
        counts={state: count or 0 for state, count in counts.items()},
        limits=decode_limits(limits),
        oldest_waiting=_earliest(_came_to_wait(now_ms, *each) for each in waiting),
        oldest_active=_earliest(_ms(each) for each in started),
        next_due=moment(None if due_score is None else due_score // 4096),
        completed_total=completed_total,
        failed_total=failed_total,
        completed_per_minute=completed_per_minute,
        failed_per_minute=failed_per_minute,
        last_failure=next(map(_failure, lately), None),
        quarantined=known_size(quarantined) or 0,
        damaged=damaged_in(wrongs),
        unknown=frozenset(state for state, count in counts.items() if count is None),
    )


async def summaries(calls: Calls) -> Sequence[Summary]:
    """All queues at a glance, in one call for each; see `Calls.of_each`."""

    def unread(name: str, why: str) -> Summary:
        quiet = [0] * MINUTES
        counts = dict.fromkeys(STATES, 0)
        return Summary(
            name,
            counts,
            Limits(),
            None,
            None,
            None,
            0,
            0,
            quiet,
            quiet,
            None,
            damaged=(why,),
            unknown=frozenset(STATES),
        )

    return [*(await calls.of_each(lambda name: summary(calls, name), unread)).values()]


async def failures(calls: Calls, queue: Queue[Any] | str) -> Sequence[FailureGroup]:
    """Why jobs failed lately, the most frequent reason first, in one call."""
    groups: dict[str, list[Failure]] = {}
    for each in map(_failure, await calls.run("failures", queue, FAILURES)):
        groups.setdefault(alike(each.reason), []).append(each)
    found = [
        FailureGroup(reason, len(jobs), jobs[0].at, jobs[0].job_id)
        for reason, jobs in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


_PARTICULAR = re.compile(
    r"""
      \b[a-z][a-z0-9+.-]*://[^\s'"<>)\]]+              # an address of the web, or of a store
    | [^\s'"<>()\[\]:,;=]+@[^\s'"<>()\[\]:,;=]+         # of a mailbox
    | \b(?=[\w-]*\d[\w-]*\d[\w-]*\d)[\w-]{8,}           # an id: long, with digits in it
    | \b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b                   # hexadecimal
    | (?<![A-Za-z0-9.])(?!(?:[1-5]\d\d|[245](?:\.\d{1,3}){2})(?![\d.,:]))  # no code of HTTP or SMTP: it says why, but
      \d[\d.,:]*(?<![.,:])                              # a number, a time, an address of the network
    """,
    re.VERBOSE | re.IGNORECASE,
)


def alike(reason: str) -> str:
    """A reason without what makes it that of one job: `…` stands for ids, numbers and addresses."""
    return _PARTICULAR.sub("…", reason)


def per_minute(counted: Sequence[Any], now_ms: int) -> tuple[int, Sequence[int]]:
    """What BullMQ counts of one outcome (wire § 6.23), against the clock.

    Args:
        counted: `count`, `prevTS`, `prevCount`, and the list of counts per minute, the newest
        first.
        now_ms: Unix milliseconds.

    Returns:
        How many there were, and how many in each of the last 60 minutes, the oldest first, the
        running one last.
    """
    count, since_ms, before = (int(_ms(each) or 0) for each in counted[:3])
    if not since_ms:
        return count, [0] * MINUTES
    # The list ends a minute before the one in which the last job ended; of that one, only the sum
    # is stored.
    newest = [max(0, count - before), *(int(_ms(each) or 0) for each in counted[3])]
    quiet = max(0, now_ms // 60_000 - since_ms // 60_000)
    minutes = ([0] * min(quiet, MINUTES) + newest + [0] * MINUTES)[:MINUTES]
    return count, minutes[::-1]


def _came_to_wait(
    now_ms: int,
    timestamp: bytes,
    opts: bytes | None,
    processed_on: bytes | None,
    logged: bytes | None,
) -> float | None:
    """When a job came to wait, Unix milliseconds; not later than now: it may have been promoted
    before its time.
    """
    if logged:
        return _ms(logged)
    added = _ms(timestamp)
    options = parsed((opts or b"{}").decode(errors="replace"))
    delay = options.get("delay") if isinstance(options, dict) else None
    if added is None:
        return None
    due = added + delay if isinstance(delay, int | float) and delay > 0 else added
    return min(max(due, _ms(processed_on) or 0), now_ms)


def _failure(found: Sequence[bytes]) -> Failure:
    job_id, failed_ms, reason = (each.decode(errors="replace") for each in found)
    return Failure(job_id, moment(number(failed_ms)), first_line(reason))


def _earliest(times_ms: Iterable[float | None]) -> datetime | None:
    return moment(min((each for each in times_ms if each), default=None))


def _ms(raw: bytes | None) -> float | None:
    return number(None if raw is None else raw.decode(errors="replace"))

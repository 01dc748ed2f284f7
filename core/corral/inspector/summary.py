"""The summary of a queue: what is waiting and since when, throughput, and failures by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from corral.inspector.limits import Limits, decode_limits
from corral.inspector.queue_access import QueueAccess
from corral.inspector.sizes import (
    NO_RETRYING,
    Retrying,
    decode_damaged_keys,
    known_size,
    state_counts,
)
from corral.inspector.stored_job import datetime_from_ms, parse_json, parse_number
from corral.job_state import JobState
from corral.queue import Queue
from corral.reasons import first_line, generalized_reason
from corral.store.codec import fields_of
from corral.store.keys import due_ms

__all__ = [
    "AttemptFailures",
    "Failure",
    "FailureGroup",
    "QueueSummary",
    "per_minute",
    "read_failures",
    "read_summaries",
    "read_summary",
]

LOOKS = 8
"""How many jobs are read at each end of a container."""
FAILURES = 500
"""How many failed jobs are grouped by their reasons."""
MINUTES = 60
"""How many minutes of metrics a summary contains."""
HOUR_MS = 3_600_000
_ATTEMPTS: Final = re.compile(r"(\d{1,16}) " * 5 + "(.*)", re.DOTALL)
"""A field of a queue's reasons, see `store/lua/attempts.lua`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed for good.

    Attributes:
        job_id: The job's id.
        at: When it failed.
        reason: The first line of its failed reason, cut after 200 characters.
    """

    job_id: str
    at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed jobs whose reasons differ only in ids, numbers and addresses.

    Attributes:
        reason: The common reason, with `…` in place of ids, numbers and addresses.
        count: How many of the 500 jobs that failed last belong to this group.
        last_at: When the last of them failed.
        last_job_id: The id of the last of them.
    """

    reason: str
    count: int
    last_at: datetime | None
    last_job_id: str


@dataclass(frozen=True, slots=True)
class AttemptFailures:
    """Attempts of the last hour that failed for one reason, as Corral's workers have recorded them.

    A series of failed attempts goes on as long as the same job fails again, or nothing completes in
    between, or less than a minute passes.

    Attributes:
        reason: The first line of the reason, with `…` in place of ids, numbers and addresses. The
            worker has masked what the payload's model declares secret.
        count: How many attempts failed for it in this hour of the clock and in the one before.
        series: How many attempts of the present series failed for it.
        since: When the first one of the series failed.
        last_at: When the last one failed.
        last_job_id: The job of the last one.
        completed_since: How many jobs of the queue have completed since then.
    """

    reason: str
    count: int
    series: int
    since: datetime | None
    last_at: datetime | None
    last_job_id: str
    completed_since: int


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """The summary of one queue. Times are aware, in UTC.

    Attributes:
        queue: The queue's name.
        counts: How many jobs are in each state.
        limits: The queue's limits.
        oldest_waiting: Since when the waiting or prioritized job that has waited longest has been
            waiting: since it was added, was due, was last tried, or was retried or promoted by
            hand. The last two are known only from the last 300 events; older ones count from when
            the job was added or due. The job is searched at both ends of the waiting list, and
            among the first jobs of each priority.
        oldest_active: Since when the longest running active job has been running, of the 40 jobs
            that became active first.
        next_due: When the first delayed job is due.
        completed_total: How many jobs have been completed since metrics are collected; it never
            decreases (wire § 6.23).
        failed_total: The same for jobs that failed for good.
        completed_per_minute: How many jobs were completed in each of the last 60 minutes of the
            clock, the oldest first; the last minute is still running.
        failed_per_minute: The same for jobs that failed for good.
        last_failure: The job that failed last, or None.
        quarantined: How many jobs are in quarantine.
        damaged: One text for each damaged key of the queue: `<key> is a <type>, not a <type>`. The
            contents of these keys are missing in this summary.
        unknown: The states whose keys are damaged. `counts` has 0 for them, which means unknown.
        retrying: How many of the delayed jobs have failed attempts.
        is_trying_again: Whether no job is retrying, and one of those that became active or waiting
            last (40 and 8 of them) has failed attempts.
        failed_attempts_total: How many attempts have failed, the last ones of failed jobs included;
            it starts at 0 again if none fails for two weeks. Runs of Corral's workers only.
        failed_attempts_per_minute: How many failed in each of the last 60 minutes, the oldest
            first; the last minute is still running.
        attempt_failures: Why attempts failed within the last hour, the most frequent reason first:
            at most 50 reasons for each hour of the clock.
    """

    queue: str
    counts: Mapping[JobState, int]
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
    unknown: frozenset[JobState] = frozenset()
    retrying: Retrying = NO_RETRYING
    is_trying_again: bool = False
    failed_attempts_total: int = 0
    failed_attempts_per_minute: Sequence[int] = (0,) * MINUTES
    attempt_failures: Sequence[AttemptFailures] = ()


async def read_summary(access: QueueAccess, queue: Queue[Any] | str) -> QueueSummary:
    """Read the summary of one queue, in one call."""
    reply = await access.run("summary", queue, LOOKS, MINUTES)
    now_ms, sizes, limits, waiting, started, due, completed, failed, *rest = reply
    last_failures, quarantined, damaged, attempts, *reasons, retrying, more, trying = rest
    completed_total, completed_per_minute = per_minute(completed, now_ms)
    failed_total, failed_per_minute = per_minute(failed, now_ms)
    attempts_total, attempts_per_minute = per_minute(attempts, now_ms)
    due_score = parse_number(due.decode(errors="replace"))
    counts = state_counts(sizes)
    return QueueSummary(
        queue=access.name(queue),
        counts={state: count or 0 for state, count in counts.items()},
        limits=decode_limits(limits),
        oldest_waiting=_earliest(_waiting_since_ms(now_ms, *each) for each in waiting),
        oldest_active=_earliest(_ms(each) for each in started),
        next_due=datetime_from_ms(None if due_score is None else due_ms(due_score)),
        completed_total=completed_total,
        failed_total=failed_total,
        completed_per_minute=completed_per_minute,
        failed_per_minute=failed_per_minute,
        last_failure=next(map(_decode_failure, last_failures), None),
        quarantined=known_size(quarantined) or 0,
        damaged=decode_damaged_keys(damaged),
        unknown=frozenset(state for state, count in counts.items() if count is None),
        retrying=Retrying(retrying, is_bound=more == 1),
        is_trying_again=trying == 1,
        failed_attempts_total=attempts_total,
        failed_attempts_per_minute=attempts_per_minute,
        attempt_failures=_decode_attempt_failures(reasons, now_ms, completed_total),
    )


async def read_summaries(access: QueueAccess) -> Sequence[QueueSummary]:
    """Read the summaries of all queues, one call each; see `QueueAccess.read_each`."""

    def placeholder(name: str, problem: str) -> QueueSummary:
        quiet = [0] * MINUTES
        counts = dict.fromkeys(JobState, 0)
        return QueueSummary(
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
            damaged=(problem,),
            unknown=frozenset(JobState),
        )

    found = await access.read_each(lambda name: read_summary(access, name), placeholder)
    return [*found.values()]


async def read_failures(access: QueueAccess, queue: Queue[Any] | str) -> Sequence[FailureGroup]:
    """Read the jobs that failed last, grouped by reason, the most frequent first; one call."""
    groups: dict[str, list[Failure]] = {}
    for each in map(_decode_failure, await access.run("failures", queue, FAILURES)):
        groups.setdefault(generalized_reason(each.reason), []).append(each)
    found = [
        FailureGroup(reason, len(jobs), jobs[0].at, jobs[0].job_id)
        for reason, jobs in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


def per_minute(counted: Sequence[Any], now_ms: int) -> tuple[int, Sequence[int]]:
    """Align BullMQ's metrics of one outcome (wire § 6.23) with the minutes of the clock.

    Args:
        counted: `count`, `prevTS`, `prevCount`, and the list of counts per minute, the newest
            first.
        now_ms: The current time in Unix milliseconds.

    Returns:
        The total, and the counts of the last 60 minutes, the oldest first; the last minute is still
        running.
    """
    count, since_ms, before = (int(_ms(each) or 0) for each in counted[:3])
    if not since_ms:
        return count, [0] * MINUTES
    # The list lacks the minute in which the last job ended: that count is the total minus the count
    # before that minute.
    newest = [max(0, count - before), *(int(_ms(each) or 0) for each in counted[3])]
    quiet = max(0, now_ms // 60_000 - since_ms // 60_000)
    minutes = ([0] * min(quiet, MINUTES) + newest + [0] * MINUTES)[:MINUTES]
    return count, minutes[::-1]


def _waiting_since_ms(
    now_ms: int,
    timestamp: bytes,
    opts: bytes | None,
    processed_on: bytes | None,
    logged: bytes | None,
) -> float | None:
    """Since when a job has been waiting, in Unix milliseconds, or None.

    It is never later than now, although a job that was promoted may have a later due time.
    """
    if logged:
        return _ms(logged)
    added = _ms(timestamp)
    options = parse_json((opts or b"{}").decode(errors="replace"))
    delay = options.get("delay") if isinstance(options, dict) else None
    if added is None:
        return None
    due = added + delay if isinstance(delay, int | float) and delay > 0 else added
    return min(max(due, _ms(processed_on) or 0), now_ms)


def _decode_attempt_failures(
    hours: Sequence[Sequence[bytes]], now_ms: int, completed_total: int
) -> Sequence[AttemptFailures]:
    """The reasons of this hour of the clock and of the one before, as flat hashes.

    Those for which no attempt has failed within an hour are left out, and so are entries that
    cannot be read.
    """
    groups: dict[str, AttemptFailures] = {}
    for flat in hours:  # this hour first: its series includes what the hour before has counted
        for raw_reason, raw in fields_of(flat).items():
            entry = _ATTEMPTS.fullmatch(raw.decode(errors="replace"))
            if entry is None:
                continue
            count, series, since_ms, last_ms, completed = map(int, entry.groups()[:5])
            reason = raw_reason.decode(errors="replace")
            if known := groups.get(reason):
                groups[reason] = replace(known, count=known.count + count)
            elif now_ms - last_ms <= HOUR_MS:
                groups[reason] = AttemptFailures(
                    reason,
                    count,
                    series,
                    datetime_from_ms(since_ms),
                    datetime_from_ms(last_ms),
                    entry[6],
                    max(0, completed_total - completed),
                )
    return sorted(groups.values(), key=lambda group: -group.count)


def _decode_failure(found: Sequence[bytes]) -> Failure:
    job_id, failed_ms, reason = (each.decode(errors="replace") for each in found)
    return Failure(job_id, datetime_from_ms(parse_number(failed_ms)), first_line(reason))


def _earliest(times_ms: Iterable[float | None]) -> datetime | None:
    return datetime_from_ms(min((each for each in times_ms if each), default=None))


def _ms(raw: bytes | None) -> float | None:
    return parse_number(None if raw is None else raw.decode(errors="replace"))

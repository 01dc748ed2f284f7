"""BullMQ's field names and number formats: bytes on one side, small records on the other.

The only module that knows how a job is stored (wire § 3, § 4). It knows no payload models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

from pydantic_core import from_json, to_json

from corral.frozen_for_checkers import frozen_for_checkers
from corral.jobs import CheckedJob
from corral.options import (
    DEFAULT_COMPLETED,
    DEFAULT_FAILED,
    Backoff,
    Exponential,
    Fixed,
    JobOptions,
    Retention,
    milliseconds,
)
from corral.outcome import (
    Completed,
    Failed,
    HandedBack,
    Outcome,
    QueueLimited,
    Retried,
    Snoozed,
    TimedOut,
)
from corral.reasons import first_line, generalized_reason

__all__ = [
    "BROKEN",
    "REFUSED",
    "Advanced",
    "Damage",
    "Ending",
    "FetchedJob",
    "JobEncoder",
    "NewJob",
    "PendingSuccessor",
    "StoredOptions",
    "decode_damage",
    "decode_job",
    "decode_pending_successors",
    "encode_declared",
    "encode_defaults",
    "encode_endings",
    "encode_new_jobs",
    "encode_options",
    "fields_of",
    "is_ours",
    "made_by_others",
]

REFUSED, BROKEN = 1, -20
"""Codes of our own, beside those of BullMQ's scripts (wire § 15); see `Advanced.codes`."""
NO_LIMIT = 1000
"""How many aged jobs one ending removes where its retention names no limit (wire § 6.7)."""
OWN_LIMIT = 0
"""In place of a limit: our default retention, which removes only jobs that ended under it.

See `lua/kept.lua`.
"""
KEEP_ALL = (-1, "", NO_LIMIT)
"""Retention in the store's own terms (count, age, limit): nothing is removed."""
NO_REASON = "no reason given"
"""In place of an empty reason, where failed attempts are counted by their reasons."""
LONGEST_MS = 1e14
"""A longer backoff is read as this one, 3,000 years: Python's durations end at 10^17 ms."""

SAFE = 2**53
"""The largest integer that JavaScript and Lua count to without a gap."""
TICK_DIGITS = 16
"""How many digits the time at the end of an iteration's id may have, in Unix milliseconds.

Python refuses to read a number of more than 4,300 digits.
"""

_OWN_ID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
"""The ids that our producers make, `corral.jobs.new_job_id`."""


@dataclass(slots=True)
class NewJob:
    """A job to be written.

    Attributes:
        id: Unique within its queue.
        name: BullMQ's job name.
        data: The payload as strict JSON text.
        opts: The options as strict JSON text, made by `encode_options`.
        delay_ms: How long until it is due.
        priority: 0 for none.
        lifo: Whether it runs before those that wait.
        nonce: A random text in `opts`, where the caller chose the id. By it a repeated call
            recognises the job that its first try made.
        retries_failed: Whether a job that has the id already, and has failed, waits again.
    """

    id: str
    name: str
    data: bytes
    opts: bytes
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    nonce: str = ""
    retries_failed: bool = False


@dataclass(frozen=True, slots=True)
class StoredOptions:
    """A job's `opts` as stored, by any client.

    Attributes:
        attempts: 0 and 1 both mean one attempt.
        backoff: None means that a retry is immediate.
        unknown_backoff: The type of a backoff that is neither fixed nor exponential, or None.
        delay_ms: The delay that was asked for.
        lifo: Whether an immediate retry goes to the front.
        keep_completed: Retention in the store's own terms (count, age in seconds or empty, limit),
            or None.
        keep_failed: As `keep_completed`.
        keep_logs: How many log lines are kept, 0 for all.
        stack_trace_limit: How many stack traces are kept, None for all.
        carrier: The trace context (`tm`); None if the job has none, or `omc` forbids its use.
        ours: Whether Corral made the job; None where only its id shows it, see `is_ours`.
        readable: False where the text is not a JSON object; the other fields are then empty.
    """

    attempts: int = 0
    backoff: Backoff | None = None
    unknown_backoff: str | None = None
    delay_ms: int = 0
    lifo: bool = False
    keep_completed: tuple[int, str, int] | None = None
    keep_failed: tuple[int, str, int] | None = None
    keep_logs: int = 0
    stack_trace_limit: int | None = None
    carrier: str | None = None
    ours: bool | None = None
    readable: bool = True


@frozen_for_checkers(frozen=True, slots=True, eq=False)
class FetchedJob:
    """A job this worker holds the lock of.

    Attributes:
        id: Unique within its queue.
        token: The lock's token; an ending under another token is refused.
        name: BullMQ's job name, empty where the producer wrote none.
        data: The payload's JSON text.
        options: Its parsed `opts`.
        attempts_made: How many attempts counted before this start.
        attempts_started: How many starts there were, this one included.
        timestamp_ms: When it was enqueued, Unix milliseconds.
        processed_ms: When this start happened, Unix milliseconds.
        stacktrace: The JSON text of the stack traces so far.
        deferred_failure: Why the job must fail without being run, or None.
        deduplicated: Whether it owns, or owned, a deduplication id.
        schedule_id: The job scheduler it is an iteration of, or None.
        stored_id: The id as the store has it: an id of another client need not be UTF-8.
        stalls: How often it stalled.
    """

    id: str
    token: str
    name: str
    data: bytes
    options: StoredOptions
    attempts_made: int
    attempts_started: int
    timestamp_ms: int
    processed_ms: int
    stacktrace: bytes
    deferred_failure: str | None
    deduplicated: bool
    schedule_id: str | None
    stored_id: bytes
    stalls: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it stalled before and is to run again: it may be what kills workers."""
        return self.stalls > 0 and self.deferred_failure is None

    @property
    def scheduled_ms(self) -> int:
        """When the job was first due, Unix milliseconds.

        That is the tick of a schedule's iteration; of any other job, its enqueueing plus its delay.
        """
        if self.schedule_id is not None:
            tick = self.id.rpartition(":")[2]
            if tick.isdecimal() and len(tick) <= TICK_DIGITS:
                return int(tick)
        return self.timestamp_ms + self.options.delay_ms


@frozen_for_checkers(frozen=True, slots=True, eq=False)
class Ending:
    """A fetched job and how its run ended."""

    job: FetchedJob
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged key that a script has found.

    Attributes:
        name: The id of a job, or the name of one of the queue's own keys.
        reason: A sentence that names the key.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class PendingSuccessor:
    """A fetched iteration of a cron schedule whose successor the script could not make.

    A script cannot parse a cron expression; it only knows the ticks that its caller sent. The job
    must not run before its successor exists, or its schedule would end with it.

    Attributes:
        job_id: The fetched iteration, as the store has it.
        schedule_id: Its job scheduler.
        pattern: The cron expression.
        tz: The time zone; empty where the scheduler names none.
        after_ms: The successor is the first tick after this, Unix milliseconds.
    """

    job_id: bytes
    schedule_id: str
    pattern: str
    tz: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """The reply to one `advance`.

    Attributes:
        now_ms: The store's time, Unix milliseconds.
        due_ms: Milliseconds until the next delayed job is due; None where there is none, and where
            as many jobs came as were wanted: then the script does not look.
        limited_ms: Milliseconds until the rate limit ends, 0 without one.
        codes: One per ending: 0 applied; `REFUSED` the job was damaged and is failed; `BROKEN`
            nothing was changed, because a key is damaged that only an operator can repair; else the
            wire's negative code.
        jobs: What was fetched, in the order it should start.
        repeated: Whether this is the stored reply of an earlier try of the same call.
        pending_successors: The iterations among the jobs whose successors must be made before they
            run.
        held: How many jobs that stalled before were left waiting, because no more of them may
            start now.
        refused: Why, by the place of each ending whose code is `REFUSED`.
        quarantined: The damaged keys that were moved into the quarantine.
        broken: A damaged key that only an operator can repair, and its type; else empty.
        unread: The jobs that an earlier try of the same call fetched and this reply has no room
            for. Only their ids and tokens are known; hand them back.
        cut: Whether the fetch ended because the jobs were large, and not because there were no
            more.
        others_count: How many starts another client's worker has counted under a rate limit of its
            own, though the queue has none; 0 where there is no such count.
    """

    now_ms: int
    due_ms: int | None
    limited_ms: int
    codes: Sequence[int]
    jobs: Sequence[FetchedJob]
    repeated: bool
    pending_successors: Sequence[PendingSuccessor] = ()
    held: int = 0
    refused: Mapping[int, str] = field(default_factory=dict[int, str])
    quarantined: Sequence[Damage] = ()
    broken: str = ""
    unread: Sequence[FetchedJob] = ()
    cut: bool = False
    others_count: int = 0


def is_ours(job_id: str, options: StoredOptions) -> bool:
    """Whether Corral made a job. Our default retention holds for no other job.

    Where the caller, or a schedule, chose the id, `opts` has a member `corral`. All other jobs of
    ours have an id of our producers' form. BullMQ's clients write an id that their caller chose
    into `opts`, so a job of theirs whose id has this form by chance does not count as ours.
    """
    return options.ours if options.ours is not None else _OWN_ID.fullmatch(job_id) is not None


def encode_options(
    options: JobOptions, *, nonce: str = "", carrier: str = "", scheduled: bool = False
) -> bytes:
    """A job's options as BullMQ stores them (wire § 4).

    Our default retention is left out: other clients would apply it to their own jobs. The options
    of a job without any of its own fit into 64 bytes, the size up to which its hash stays compact
    (`hash-max-listpack-value`).

    Args:
        options: The options.
        nonce: See `NewJob.nonce`.
        carrier: The trace context as JSON text, or empty (wire § 6.24).
        scheduled: Whether they are a schedule's, for its iterations.
    """
    backoff: dict[str, Any] = {
        "type": "fixed" if isinstance(options.backoff, Fixed) else "exponential",
        "delay": milliseconds(options.backoff.delay),
    }
    if options.backoff.jitter:
        backoff["jitter"] = options.backoff.jitter
    if isinstance(options.backoff, Exponential) and options.backoff.max is not None:
        backoff["maxDelay"] = milliseconds(options.backoff.max)  # ours: other clients ignore it
    stored: dict[str, Any] = {"attempts": options.attempts, "backoff": backoff}
    if options.delay:
        stored["delay"] = milliseconds(options.delay)
    if options.priority:
        stored["priority"] = options.priority
    if options.lifo:
        stored["lifo"] = True
    if options.keep_completed is not None:
        stored["removeOnComplete"] = _encode_retention(options.keep_completed)
    if options.keep_failed is not None:
        stored["removeOnFail"] = _encode_retention(options.keep_failed)
    if carrier:
        stored["tm"] = carrier
    if nonce:
        stored["corral"] = {"nonce": nonce}
    if scheduled:
        stored["corral"] = {"scheduled": True}
    return to_json(stored)


class JobEncoder:
    """Encodes the new jobs of one queue.

    Args:
        queue: Its name.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._options: JobOptions | None = None
        self._opts = b""
        self._delay_ms = 0

    def encode(self, job: CheckedJob) -> NewJob:
        """Encode a job.

        The encoded options of the last job are kept: all jobs of a call share theirs, and so do all
        calls without options.
        """
        options = job.options
        if options is not self._options:
            self._options, self._opts, self._delay_ms = (
                options,
                encode_options(options),
                milliseconds(options.delay),
            )
        opts = self._opts
        if job.nonce or job.carrier:
            opts = encode_options(options, nonce=job.nonce, carrier=job.carrier)
        return NewJob(
            job.id,
            self._queue,
            job.data,
            opts,
            self._delay_ms,
            options.priority,
            options.lifo,
            job.nonce,
            job.overrides.get("if_failed") == "retry",
        )


def encode_new_jobs(jobs: Iterable[NewJob]) -> list[str | bytes | int]:
    """Encode jobs as the arguments of `add.lua`; what neighbours share is written once."""
    arguments: list[Any] = []
    count_at, shared = 0, None
    for job in jobs:
        own = (job.name, job.opts, job.delay_ms, job.priority, job.lifo, job.nonce)
        if own != shared:
            count_at, shared = len(arguments), own
            lifo = "1" if job.lifo else ""
            arguments += (0, job.name, job.opts, job.delay_ms, job.priority, lifo, job.nonce)
        arguments[count_at] += 1
        arguments += (job.id, job.data)
    return arguments


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat reply `[field, value, field, value, …]`, of a hash or a stream's entry, as a dict."""
    each = iter(flat)
    return dict(zip(each, each, strict=True))


def decode_job(
    job_id: bytes, flat: Sequence[bytes], token: str, now_ms: int, *, started: bool = False
) -> FetchedJob:
    """Decode a fetched job from its hash.

    Args:
        job_id: Its id.
        flat: Field, value, field, value, …
        token: The lock's token.
        now_ms: When it was fetched.
        started: Whether the hash counts this start already. It does in the reply to a repeated
            call, and does not in the first one.
    """
    fields = fields_of(flat)
    get = fields.get
    name, deferred, schedule = get(b"name"), get(b"defa"), get(b"rjk")
    made, starts = get(b"attemptsMade") or get(b"atm"), get(b"ats")
    enqueued, stalls = get(b"timestamp"), get(b"stc")
    return FetchedJob(  # by position: names cost 0.4 µs of 1.5, and every job comes through here
        job_id.decode("utf-8", "replace"),
        token,
        name.decode("utf-8", "replace") if name else "",
        get(b"data") or b"{}",
        _decode_options(get(b"opts") or b"{}"),
        integer(made) if made else 0,
        (integer(starts) if starts else 0) + (not started),
        integer(enqueued) if enqueued else 0,
        now_ms,
        get(b"stacktrace") or b"[]",
        deferred.decode("utf-8", "replace") if deferred is not None else None,
        b"deid" in fields,
        schedule.decode("utf-8", "replace") if schedule else None,
        job_id,
        integer(stalls) if stalls else 0,
    )


def decode_damage(reports: Sequence[bytes]) -> list[Damage]:
    """Decode the `reports` of a script, see `lua/damage.lua`."""
    texts = [text.decode(errors="replace") for text in reports]
    return [Damage(name, reason) for name, reason in zip(texts[::2], texts[1::2], strict=True)]


def decode_pending_successors(reply: Sequence[Sequence[Any]]) -> list[PendingSuccessor]:
    """Decode the pending successors of a script's reply, see `lua/iterate.lua`."""
    pending: list[PendingSuccessor] = []
    for job_id, *texts, after_ms in reply:
        schedule_id, pattern, tz = (text.decode(errors="replace") for text in texts)
        pending.append(PendingSuccessor(job_id, schedule_id, pattern, tz, after_ms))
    return pending


def encode_endings(endings: Iterable[Ending], declared: JobOptions) -> list[str | bytes | int]:
    """Encode endings as the arguments of `advance.lua`.

    These are the number of shapes, the shapes, then three arguments for each ending. A shape is
    what endings have in common.

    Args:
        endings: The endings. There must be no `LeaseLost` among them: it writes nothing.
        declared: The queue's options. Their retention holds for a job that has none of its own.
            Where they have none either, a job of ours gets the default, and another client's job
            is kept.
    """
    completed = _retentions_by_client(declared.keep_completed, DEFAULT_COMPLETED)
    failed = _retentions_by_client(declared.keep_failed, DEFAULT_FAILED)
    shapes: dict[tuple[str | bytes | int, ...], int] = {}
    each: list[str | bytes | int] = []
    for ending in endings:
        job, (kind, text, delay_ms) = ending.job, _kind(ending.outcome)
        options, retention, trace, cause = job.options, KEEP_ALL, b"", ""
        if kind == "c":
            retention = options.keep_completed or completed[is_ours(job.id, options)]
        elif kind in {"f", "r"}:
            trace = _stacktrace(job, getattr(ending.outcome, "traceback", ""))
            cause = generalized_reason(first_line(str(text))) or NO_REASON
            if kind == "f":
                retention = options.keep_failed or failed[is_ours(job.id, options)]
        flags = ("l" if options.lifo else "") + ("d" if job.deduplicated else "")
        shape = (
            kind,
            job.token,
            job.attempts_made + 1,
            trace,
            delay_ms,
            *retention,
            options.attempts,
            flags,
            cause,
        )
        each += (shapes.setdefault(shape, len(shapes) + 1), job.stored_id, text)
    return [len(shapes), *chain.from_iterable(shapes), *each]


def encode_defaults(declared: JobOptions) -> list[str | int]:
    """Encode the default retention for `due.lua`: count and age of completed and of failed jobs.

    Both are empty where the declaration names a retention, because that one holds for all jobs.
    """
    completed = DEFAULT_COMPLETED if declared.keep_completed is None else None
    failed = DEFAULT_FAILED if declared.keep_failed is None else None
    return [*_count_and_age(completed), *_count_and_age(failed)]


def encode_declared(declared: JobOptions) -> list[str | int]:
    """Encode the declared retention for `history.lua`: counts and ages, or empty texts."""
    return [*_count_and_age(declared.keep_completed), *_count_and_age(declared.keep_failed)]


def _count_and_age(retention: Retention | None) -> Sequence[str | int]:
    return _retention(retention)[:2] if retention is not None else ("", "")


def made_by_others(sample: Sequence[Sequence[bytes]]) -> int:
    """How many jobs of a sample, given as pairs of id and `opts`, Corral did not make."""
    return sum(
        not is_ours(job_id.decode(errors="replace"), _decode_options(opts))
        for job_id, opts in sample
    )


def _retentions_by_client(
    declared: Retention | None, default: Retention
) -> tuple[tuple[int, str, int], tuple[int, str, int]]:
    """Retention of jobs whose own options name none, for jobs of other clients and for ours.

    Each is count, age and limit.
    """
    if declared is not None:
        return (_retention(declared),) * 2
    return KEEP_ALL, (*_retention(default)[:2], OWN_LIMIT)


def _kind(outcome: Outcome) -> tuple[str, str | bytes, int]:
    match outcome:
        case Completed(returnvalue):
            return "c", returnvalue, 0
        case Failed(reason) | TimedOut(reason, None):
            return "f", reason, 0
        case Retried(reason, delay_ms) | TimedOut(reason, int(delay_ms)):
            return "r", reason, delay_ms
        case Snoozed(delay_ms):
            return "s", "", delay_ms
        case QueueLimited(delay_ms):
            return "l", "", max(delay_ms, 1)
        case HandedBack():
            return "b", "", 0
        case _:
            raise AssertionError(f"{outcome!r} is never written")


def _stacktrace(job: FetchedJob, traceback: str) -> bytes:
    """The job's stack traces with one more, oldest first, trimmed to the job's own limit."""
    try:
        traces = from_json(job.stacktrace)
    except ValueError:
        traces = []
    if not isinstance(traces, list):
        traces = []
    if traceback:
        traces.append(traceback)
    limit = job.options.stack_trace_limit
    if limit is not None:
        traces = traces[-limit:] if limit else []
    return to_json(traces)


def _retention(retention: Retention) -> tuple[int, str, int]:
    age = "" if retention.age is None else f"{retention.age.total_seconds():g}"
    return -1 if retention.count is None else retention.count, age, NO_LIMIT


def _encode_retention(retention: Retention) -> bool | dict[str, float]:
    stored: dict[str, float] = {}
    if retention.age is not None:
        seconds = retention.age.total_seconds()
        stored["age"] = int(seconds) if seconds.is_integer() else seconds
    if retention.count is not None:
        stored["count"] = retention.count
    return stored or False


@lru_cache(maxsize=1024)
def _decode_options(raw: bytes) -> StoredOptions:
    """Decode `opts`. Cached, because most jobs of a queue have byte for byte the same."""
    try:
        stored = from_json(raw)
    except ValueError:
        return StoredOptions(readable=False)
    if not isinstance(stored, dict):
        return StoredOptions(readable=False)
    backoff, unknown = _decode_backoff(stored.get("backoff"))
    limit = stored.get("stackTraceLimit")
    carrier = stored.get("tm")
    return StoredOptions(
        attempts=integer(stored.get("attempts")),
        backoff=backoff,
        unknown_backoff=unknown,
        delay_ms=max(integer(stored.get("delay")), 0),
        lifo=bool(stored.get("lifo")),
        keep_completed=_decode_retention(stored.get("removeOnComplete")),
        keep_failed=_decode_retention(stored.get("removeOnFail")),
        keep_logs=max(integer(stored.get("kl")), 0),
        stack_trace_limit=None if limit is None else max(integer(limit), 0),
        carrier=carrier if isinstance(carrier, str) and not stored.get("omc") else None,
        ours=True if "corral" in stored else False if "jobId" in stored else None,
    )


def _decode_backoff(stored: Any) -> tuple[Backoff | None, str | None]:
    if stored is None:
        return None, None
    if isinstance(stored, int | float):
        stored = {"type": "fixed", "delay": stored}
    if not isinstance(stored, dict):
        return None, repr(stored)
    delay = _decode_duration(stored.get("delay"))
    jitter = min(max(_number(stored.get("jitter")), 0.0), 1.0)
    match stored.get("type"):
        case "fixed":
            return Fixed(delay, jitter), None
        case "exponential":
            longest = _decode_duration(stored.get("maxDelay")) or None  # 0: absent, or damaged
            return Exponential(delay, jitter, longest), None
        case other:
            return None, str(other)


def _decode_duration(stored: Any) -> timedelta:
    return timedelta(milliseconds=min(max(_number(stored), 0), LONGEST_MS))


def _decode_retention(stored: Any) -> tuple[int, str, int] | None:
    match stored:
        case None:
            return None
        case True:
            return 0, "", NO_LIMIT
        case False:
            return KEEP_ALL
        case int() | float():
            return integer(stored), "", NO_LIMIT
        case dict():
            count, age, limit = stored.get("count"), stored.get("age"), stored.get("limit")
            return (
                -1 if count is None else integer(count),
                "" if age is None else f"{_number(age):.15g}",
                NO_LIMIT if limit is None else max(integer(limit), 1),
            )
        case _:
            return KEEP_ALL


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def integer(value: Any) -> int:
    """An integer as BullMQ's readers take it: `1.5` reads as 1, what is no number as 0."""
    try:
        number = int(value or 0)
    except (TypeError, ValueError, OverflowError):
        number = int(_number(value))
    if -SAFE <= number <= SAFE:
        return number
    return (
        SAFE if number > 0 else -SAFE
    )  # 1e30 is no integer to the store, whose script would end half-way

"""How a job is retried, delayed, ordered and kept: declared by a queue, overridden by a producer.

Everything here is pure: merging and backoff are functions of their arguments.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import NoneType
from typing import Final, Literal, TypedDict

from corral.errors import JobRefused

__all__ = [
    "DEFAULT_COMPLETED",
    "DEFAULT_FAILED",
    "MAX_PRIORITY",
    "OF_THE_ID",
    "Backoff",
    "EnqueueOptions",
    "Exponential",
    "Fixed",
    "JobOptions",
    "Retention",
    "backoff_delay_ms",
    "check_job_id",
    "check_options",
    "may_be_job",
    "merged",
    "milliseconds",
    "short_repr",
]

MAX_PRIORITY = 2_097_151
"""The largest priority that BullMQ can order (wire § 4.2); 1 is the most urgent, 0 means none."""
MAX_ATTEMPTS = MAX_COUNT = 2**53 - 1
"""More is another number to a client in JavaScript."""
MAX_DURATION = timedelta(milliseconds=10**14)
"""3,000 years. A worker that reads a longer backoff waits this long."""
MAX_SHOWN = 60
"""How many characters of a refused value are quoted in the error."""
MAX_COUNTED_ATTEMPTS = 10_000
"""Of `JobOptions.retrying_for`: what takes more is a slip."""
MAX_DOUBLINGS = 62
"""Of an exponential backoff: longer than any wait. A damaged count of attempts costs no memory."""


_ID = re.compile(r"[A-Za-z0-9_.~-]{1,128}")
_KEY_WORDS = frozenset(
    {
        "id",
        "wait",
        "paused",
        "active",
        "prioritized",
        "pc",
        "delayed",
        "completed",
        "failed",
        "waiting-children",
        "marker",
        "events",
        "meta",
        "stalled",
        "stalled-check",
        "limiter",
        "repeat",
        "de",
        "dn",
        "metrics",
        "priority",
        "delay",
    }
)
"""Ids that no job can have: each names a key of the queue itself (wire trap T9)."""
_OTHER_KEY = re.compile(
    r"^(?:de|dn|metrics):|^repeat:(?!.*:\d+$)"
    r"|:(?:lock|logs|dependencies|processed|failed|unsuccessful)$",
    re.DOTALL,
)
"""Names of other keys of a queue: those of deduplication, schedules, locks, logs and children.

A job cannot have one as its id (wire § 2).
"""


@dataclass(frozen=True, slots=True)
class Exponential:
    """Wait `delay`, then twice that, then four times that, and so on, but never longer than `max`.

    Attributes:
        delay: The wait before the second attempt.
        jitter: The share of each wait that is random, from 0.0 (none) to 1.0 (full jitter: any
            time between no wait and the whole one).
        max: The longest wait, the jitter included; None for no bound. Workers of other clients do
            not know it, and go on doubling.
    """

    delay: timedelta = timedelta(seconds=5)
    jitter: float = 0.0
    max: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    """Wait the same `delay` before each further attempt.

    Attributes:
        delay: The wait.
        jitter: The share of each wait that is random, from 0.0 (none) to 1.0.
    """

    delay: timedelta
    jitter: float = 0.0


Backoff = Exponential | Fixed
"""How long a job waits between two attempts: `Exponential` or `Fixed`."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long finished jobs stay readable. Both bounds hold; without any, they stay for ever.

    This is BullMQ's own retention: when a job ends under it, it is applied to all finished jobs of
    the queue, whichever client made them.

    Attributes:
        age: Jobs that finished longer ago are removed.
        count: How many of the newest are kept; 0 removes a job as it finishes.
    """

    age: timedelta | None = None
    count: int | None = None


DEFAULT_COMPLETED: Final = Retention(age=timedelta(days=1), count=1000)
"""For Corral's own completed jobs, if neither the queue nor the call names a retention."""
DEFAULT_FAILED: Final = Retention(age=timedelta(days=7))
"""For Corral's own failed jobs, if neither the queue nor the call names a retention."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options of all jobs of a queue, unless a producer overrides them.

    Attributes:
        attempts: How often a job is tried in all; 0 and 1 both mean once.
        backoff: How long to wait between attempts.
        delay: How long after enqueueing a job becomes due.
        priority: 0 for none, else 1 (most urgent) to 2,097,151. Jobs without priority run first.
        lifo: Whether the newest job runs first.
        keep_completed: How long completed jobs stay readable. None: Corral's own as
            `DEFAULT_COMPLETED`, and those of other clients for ever.
        keep_failed: How long failed jobs stay readable. None: Corral's own as `DEFAULT_FAILED`,
            and those of other clients for ever.
    """

    attempts: int = 3
    backoff: Backoff = field(default_factory=Exponential)
    delay: timedelta = timedelta(0)
    priority: int = 0
    lifo: bool = False
    keep_completed: Retention | None = None
    keep_failed: Retention | None = None

    def retrying_for(self, horizon: timedelta) -> JobOptions:
        """These options with as many attempts as retry a job for so long, or longer.

        It says how long whatever a processor depends on may be away before jobs are lost:
        `JobOptions(backoff=Exponential(max=timedelta(hours=1))).retrying_for(timedelta(days=1))`.

        Args:
            horizon: From the end of the first attempt to the start of the last. The backoff's
                shortest waits are counted: jitter makes the last attempt later, never earlier.

        Raises:
            ValueError: It would take more than 10,000 attempts, as with full jitter, whose
                shortest waits are none.
        """
        wanted, waited, failed = milliseconds(horizon), 0, 0
        while waited < wanted:
            failed += 1
            if failed >= MAX_COUNTED_ATTEMPTS:
                raise ValueError(
                    f"{self.backoff} takes more than {MAX_COUNTED_ATTEMPTS:,} attempts"
                    f" to retry for {horizon}"
                )
            waited += backoff_delay_ms(self.backoff, failed, lambda: 0.0)
        return replace(self, attempts=failed + 1)


class EnqueueOptions(TypedDict, total=False):
    """The options that a producer may set for one job; the others are the queue's.

    `job_id` names the job: enqueueing an id twice makes one job. `if_failed="retry"` lets that job
    run again if it has failed: with the payload and the options that it has, and with attempts
    counted from zero.
    """

    job_id: str
    if_failed: Literal["retry"]
    attempts: int
    backoff: Backoff
    delay: timedelta
    priority: int
    lifo: bool
    keep_completed: Retention
    keep_failed: Retention


OF_THE_ID: Final = frozenset({"job_id", "if_failed"})
"""Options of a call, which are about the job's id; the others are the job's own."""


def check_job_id(job_id: str) -> None:
    """Refuse an id that would damage the queue or that other clients cannot read.

    Raises:
        JobRefused: It is no text of `[A-Za-z0-9_.~-]{1,128}`, or an integer, or one of BullMQ's key
            words.
    """
    if not _has_type(job_id, str):
        raise JobRefused(
            f"job id {short_repr(job_id)} is no str",
            hint='a UUID or a number becomes one by f"order-{…}"',
        )
    if not _ID.fullmatch(job_id):
        raise JobRefused(
            f"job id {job_id!r} is not made of 1 to 128 characters of A-Z a-z 0-9 _ . ~ -"
        )
    if job_id.lstrip("-").isdecimal():
        raise JobRefused(
            f"job id {job_id!r} is an integer: the store numbers its own jobs so",
            hint="put a word before it",
        )
    if job_id in _KEY_WORDS:
        raise JobRefused(
            f"job id {job_id!r} is a key of the queue itself", hint="put a word before it"
        )


def may_be_job(job_id: str) -> bool:
    """Whether any client can have made a job of this id. Else it names another key of a queue."""
    return bool(job_id) and job_id not in _KEY_WORDS and not _OTHER_KEY.search(job_id)


def check_schedule_id(schedule_id: str, queues: Container[str]) -> None:
    """Refuse a schedule's id that is no legal job id, or that a declared schedule would have.

    Args:
        schedule_id: The id.
        queues: The names of all queues: a declared schedule has its queue's name as its id.

    Raises:
        JobRefused: It is no legal job id, or a queue's name.
    """
    check_job_id(schedule_id)
    if schedule_id in queues:
        raise JobRefused(
            f"schedule id {schedule_id!r} is a queue's name: that is for the schedule it declares",
            hint="name it otherwise; `corral schedules remove` ends one that is declared, "
            "and `prune` one that was",
        )


def _type_names(expected: type | tuple[type, ...]) -> str:
    named = expected if isinstance(expected, tuple) else (expected,)
    return " or ".join(each.__name__ for each in named if each is not NoneType)


_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "attempts": int,
    "backoff": (Exponential, Fixed),
    "delay": timedelta,
    "priority": int,
    "lifo": bool,
    "keep_completed": (Retention, NoneType),
    "keep_failed": (Retention, NoneType),
}
"""The options' types, checked for callers without a type checker: `delay=30`, above all."""


def milliseconds(duration: timedelta) -> int:
    """The whole milliseconds of a duration, as the store counts them."""
    return duration // timedelta(milliseconds=1)


def merged(declared: JobOptions, overrides: EnqueueOptions) -> JobOptions:
    """A queue's options with a producer's overrides on top, checked.

    Without overrides, it is the queue's own object.

    Raises:
        JobRefused: A value is out of range, or an option does not exist.
    """
    known = {name: value for name, value in overrides.items() if name not in OF_THE_ID}
    if_failed = overrides.get("if_failed")
    if if_failed is not None and if_failed != "retry":
        raise JobRefused(
            f"if_failed {short_repr(if_failed)} does not exist",
            hint='there is "retry"; without it, a job that has failed is left as it is',
        )
    if not known:
        return declared
    try:
        options = replace(declared, **known)  # type: ignore[arg-type]  # EnqueueOptions has JobOptions' types
    except TypeError:
        unknown = sorted(set(known) - set(JobOptions.__dataclass_fields__))
        raise JobRefused(f"no enqueue option is named {unknown[0]!r}") from None
    check_options(options)
    return options


def check_options(options: JobOptions) -> None:
    """Refuse options that no job can have.

    Raises:
        JobRefused: A value is of the wrong type, or out of range.
    """
    if not _has_type(options, JobOptions):
        raise JobRefused(f"options {short_repr(options)} are no JobOptions")
    for name, expected in _TYPES.items():
        _check_type(name, getattr(options, name), expected)
    if not 0 <= options.priority <= MAX_PRIORITY:
        raise JobRefused(
            f"priority {short_repr(options.priority)} is not between 0 and {MAX_PRIORITY}"
        )
    _check_count("attempts", options.attempts, MAX_ATTEMPTS)
    _check_duration("delay", options.delay)
    _check_type("the backoff's delay", options.backoff.delay, timedelta)
    _check_duration("the backoff's delay", options.backoff.delay)
    _check_type("jitter", options.backoff.jitter, (int, float))
    longest = options.backoff.max if isinstance(options.backoff, Exponential) else None
    _check_type("the backoff's max", longest, (timedelta, NoneType))
    if longest is not None:
        _check_duration("the backoff's max", longest)
        if longest < options.backoff.delay:
            raise JobRefused(
                f"the backoff's max {longest} is shorter than its delay {options.backoff.delay}"
            )
    if not 0 <= options.backoff.jitter <= 1:
        raise JobRefused(f"jitter {options.backoff.jitter} is not between 0 and 1")
    for name in ("keep_completed", "keep_failed"):
        retention: Retention | None = getattr(options, name)
        if retention is None:
            continue
        _check_type(f"the age of {name}", retention.age, (timedelta, NoneType))
        _check_type(f"the count of {name}", retention.count, (int, NoneType))
        if retention.age is not None:
            _check_duration(f"the age of {name}", retention.age)
        if retention.count is not None:
            _check_count(f"the count of {name}", retention.count, MAX_COUNT)


def _check_type(name: str, value: object, expected: type | tuple[type, ...]) -> None:
    if not _has_type(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise JobRefused(f"{name} {short_repr(value)} is no {_type_names(expected)}")


def _has_type(value: object, expected: type | tuple[type, ...]) -> bool:
    """Whether a value is of the type of its annotation: not everybody uses a type checker."""
    return isinstance(value, expected)


def _check_count(name: str, count: int, most: int) -> None:
    if count < 0:
        raise JobRefused(f"{name} {short_repr(count)} is negative")
    if count > most:
        raise JobRefused(f"{name} {short_repr(count)} is more than {most}")


def _check_duration(name: str, duration: timedelta) -> None:
    if duration < timedelta(0):
        raise JobRefused(f"{name} {duration} is negative")
    if duration > MAX_DURATION:
        raise JobRefused(f"{name} {duration} is longer than 3,000 years")


def short_repr(value: object) -> str:
    """A refused value as it stands in the error's sentence, whatever its class or its size."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a user's own class, or an integer of 5,000 digits
        return f"of the type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def backoff_delay_ms(
    backoff: Backoff, failed_attempts: int, rand: Callable[[], float] = random.random
) -> int:
    """How long to wait after `failed_attempts` failures, by BullMQ's formulas (wire § 6.8).

    Args:
        backoff: The policy.
        failed_attempts: How many attempts have failed, the latest included: 1, 2, …
        rand: A source of numbers in [0, 1).

    Returns:
        Milliseconds, at least 0.
    """
    base = milliseconds(backoff.delay)
    longest = base
    if isinstance(backoff, Exponential):
        longest = round(2 ** min(failed_attempts - 1, MAX_DOUBLINGS) * base)
        if backoff.max is not None:
            longest = min(longest, milliseconds(backoff.max))
    if not backoff.jitter:
        return longest
    return int(rand() * longest * backoff.jitter + longest * (1 - backoff.jitter))

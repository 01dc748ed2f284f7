"""`Cron` and `Every`: when a schedule runs; and the meaning of a cron expression.

The catalog checks what a queue declares. Nothing here knows a store, or what time it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["Cron", "Every", "cron_ticks", "first_run_ms", "period_ms"]


@dataclass(frozen=True, slots=True)
class Cron:
    """Run at the times that a cron expression names.

    Attributes:
        expression: Five fields (minute hour day month weekday), or six with seconds first; or
            `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
        tz: An IANA time zone.
    """

    expression: str
    tz: str = "UTC"


@dataclass(frozen=True, slots=True)
class Every:
    """Run once per `period`, on a grid that starts when the schedule is first installed.

    Attributes:
        period: The time between two runs, whole milliseconds.
    """

    period: timedelta


MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
"""The abbreviations that BullMQ's cron library reads."""

UTC_NAMES = frozenset({"UTC", "Etc/UTC"})
"""Zones that are not looked up: a container without a time zone database has UTC, too."""


def cron_ticks(expression: str, tz: str, after_ms: int, count: int) -> list[int]:
    """The next ticks of a cron expression.

    They are those of BullMQ's cron library, except where daylight saving time begins: a tick in the
    hour that is skipped comes an hour later with that library, and in the first minute after the
    gap with this one.

    Args:
        expression: As `Cron.expression`; `?` is read as `*`.
        tz: An IANA time zone.
        after_ms: Unix milliseconds; the first tick is later than this.
        count: How many.

    Returns:
        Unix milliseconds, ascending; at least one.

    Raises:
        ValueError: The expression cannot be read or names no day to come, or there is no time zone
            of this name.
    """
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415  # few need it

    from cronsim import CronSim, CronSimError  # noqa: PLC0415  # few need it

    for name, value in (("the expression", expression), ("the time zone", tz)):
        if not _has_type(str, value):
            raise ValueError(f"{name} {value!r} is no str")
    try:
        zone = UTC if tz in UTC_NAMES else ZoneInfo(tz)
    except (KeyError, ValueError, OSError):  # OSError: a folder of zones, such as "Europe"
        if not available_timezones():
            raise ValueError(
                f"this machine has no time zone database, and {tz!r} is looked up in one: "
                "install tzdata"
            ) from None
        raise ValueError(f"no time zone is named {tz!r}") from None
    start = datetime.fromtimestamp(after_ms // 1000, UTC).astimezone(zone)
    try:
        moments = CronSim(MACROS.get(expression, expression).replace("?", "*"), start)
        ticks = [
            int(moment.timestamp()) * 1000 for moment, _ in zip(moments, range(count), strict=False)
        ]
    except CronSimError as error:
        raise ValueError(f"{expression!r}: {error}") from None
    if not ticks:  # the library looks ahead for 50 years
        raise ValueError(f"{expression!r}: names no day that comes")
    return ticks


def period_ms(every: Every) -> int:
    """The period in whole milliseconds.

    Raises:
        ValueError: It is no `timedelta`, or less than one millisecond.
    """
    if not _has_type(timedelta, every.period) or every.period < timedelta(milliseconds=1):
        raise ValueError(f"every {every.period}")
    return every.period // timedelta(milliseconds=1)


def first_run_ms(when: Cron | Every, now_ms: int) -> int:
    """When a schedule that is installed now runs first.

    Args:
        when: The schedule.
        now_ms: Unix milliseconds.

    Returns:
        Unix milliseconds.

    Raises:
        ValueError: There is no such time, or `when` is of a wrong type; says why.
    """
    if isinstance(when, Every):
        period_ms(when)
        return now_ms
    if not _has_type(Cron, when):
        raise ValueError(f"{when!r} is neither a Cron nor an Every")
    return cron_ticks(when.expression, when.tz, now_ms, 1)[0]


def _has_type(kind: type, value: object) -> bool:
    """Whether a value is of the type of its annotation: not everybody uses a type checker."""
    return isinstance(value, kind)

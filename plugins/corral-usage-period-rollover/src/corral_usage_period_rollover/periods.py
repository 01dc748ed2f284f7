"""Periods: where they begin and end. Pure arithmetic in UTC; it knows neither databases nor jobs.

The boundaries of a subscription are its anchor plus 0, 1, 2 … times its length, each computed from
the anchor and not from the boundary before: a month that is anchored on the 31st ends on the 28th
of February and on the 31st of March. A period holds the moment it starts at, and not the one it
ends at.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

__all__ = ["LENGTHS", "ClosedPeriod", "Length", "Period", "next_boundary", "period_around"]

Length = Literal["hour", "day", "week", "month", "quarter", "year"]

FIXED: Final[Mapping[str, timedelta]] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
"""Lengths that are always the same; UTC has no daylight saving time."""

MONTHS: Final[Mapping[str, int]] = {"month": 1, "quarter": 3, "year": 12}
"""Lengths in calendar months."""

LENGTHS: Final = (*FIXED, *MONTHS)
"""The names of all lengths."""


@dataclass(frozen=True, slots=True)
class Period:
    """A metered period of one subscription.

    Attributes:
        subscription_id: Whose.
        started_at: Its first moment (aware, UTC).
        ends_at: The first moment after it (aware, UTC).
    """

    subscription_id: str
    started_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class ClosedPeriod(Period):
    """A period that is over and counted.

    Attributes:
        totals: What was used of each metric, in whole units; a metric that was not used is missing.
        closed_at: When the rollover ran, by the store's clock (aware, UTC).
        tick: The tick of the schedule that it ran for (aware, UTC).
    """

    totals: Mapping[str, int]
    closed_at: datetime
    tick: datetime


def next_boundary(anchor: datetime, length: Length, after: datetime) -> datetime:
    """The first boundary after a moment that is not that moment itself.

    Args:
        anchor: Any boundary (aware).
        length: From one boundary to the next.
        after: The moment (aware).

    Returns:
        Aware, UTC.
    """
    return _boundary(anchor, length, _number(anchor, length, after) + 1)


def period_around(anchor: datetime, length: Length, moment: datetime) -> tuple[datetime, datetime]:
    """The period that holds a moment.

    Args:
        anchor: Any boundary (aware).
        length: From one boundary to the next.
        moment: The moment (aware).

    Returns:
        Its first moment and the first one after it; aware, UTC.
    """
    number = _number(anchor, length, moment)
    return _boundary(anchor, length, number), _boundary(anchor, length, number + 1)


def _number(anchor: datetime, length: Length, moment: datetime) -> int:
    """The number of the last boundary up to a moment: the anchor's is 0, earlier are negative."""
    # two moments of one zone are subtracted by its clock, as if that were never changed
    anchor, moment = anchor.astimezone(UTC), moment.astimezone(UTC)
    if length in FIXED:
        return (moment - anchor) // FIXED[length]
    number = ((moment.year - anchor.year) * 12 + moment.month - anchor.month) // MONTHS[length]
    return number - (_boundary(anchor, length, number) > moment)  # later in the same month


def _boundary(anchor: datetime, length: Length, number: int) -> datetime:
    anchor = anchor.astimezone(UTC)
    if length in FIXED:
        return anchor + number * FIXED[length]
    years, month = divmod(anchor.month - 1 + number * MONTHS[length], 12)
    year, month = anchor.year + years, month + 1
    return anchor.replace(year=year, month=month, day=min(anchor.day, monthrange(year, month)[1]))

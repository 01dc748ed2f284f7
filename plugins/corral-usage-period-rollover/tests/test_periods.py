"""Where periods begin and end: gapless, anchored, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_usage_period_rollover.periods import (
    FIXED,
    LENGTHS,
    MONTHS,
    next_boundary,
    period_around,
)

MOMENTS = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001  # hypothesis adds the time zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001  # as above
    timezones=st.sampled_from(
        [UTC, ZoneInfo("Europe/Vienna"), timezone(timedelta(hours=-9, minutes=-30))]
    ),
    allow_imaginary=False,
)


def days(anchor: datetime, length: str, count: int) -> list[str]:
    found = [anchor]
    for _ in range(count):
        found.append(next_boundary(anchor, length, found[-1]))
    return [f"{boundary:%Y-%m-%d}" for boundary in found[1:]]


@given(anchor=MOMENTS, length=st.sampled_from(LENGTHS), moment=MOMENTS)
def test_every_moment_is_in_exactly_one_period(
    anchor: datetime, length: str, moment: datetime
) -> None:
    start, end = period_around(anchor, length, moment)
    # in UTC: Python calls a moment of the hour that clocks repeat unequal to itself in another zone
    assert start <= moment.astimezone(UTC) < end
    assert start.utcoffset() == end.utcoffset() == timedelta(0)
    assert end == next_boundary(anchor, length, moment) == next_boundary(anchor, length, start)
    assert period_around(anchor, length, start) == (start, end)
    assert period_around(anchor, length, end)[0] == end, (
        "a boundary belongs to the period that it begins"
    )
    assert period_around(anchor, length, end - timedelta(microseconds=1)) == (start, end)


@given(anchor=MOMENTS, length=st.sampled_from(LENGTHS), moment=MOMENTS)
def test_every_boundary_stands_where_the_anchor_has_it(
    anchor: datetime, length: str, moment: datetime
) -> None:
    anchor, (start, _) = anchor.astimezone(UTC), period_around(anchor, length, moment)
    if length in FIXED:
        assert (start - anchor) % FIXED[length] == timedelta(0)
        return
    assert start.time() == anchor.time()
    assert ((start.year - anchor.year) * 12 + start.month - anchor.month) % MONTHS[length] == 0
    assert start.day == anchor.day or (
        start.day < anchor.day and (start + timedelta(days=1)).day == 1
    )


@given(anchor=MOMENTS, length=st.sampled_from(LENGTHS))
def test_the_anchor_is_a_boundary(anchor: datetime, length: str) -> None:
    assert period_around(anchor, length, anchor)[0] == anchor.astimezone(UTC)


def test_a_month_that_is_anchored_on_the_31st_ends_with_each_month_and_does_not_drift() -> None:
    anchor = datetime(2027, 1, 31, 12, tzinfo=UTC)
    assert days(anchor, "month", 5) == [
        "2027-02-28",
        "2027-03-31",
        "2027-04-30",
        "2027-05-31",
        "2027-06-30",
    ]


@pytest.mark.parametrize(
    ("anchor", "length", "expected"),
    [
        (datetime(2028, 1, 30, tzinfo=UTC), "month", ["2028-02-29", "2028-03-30"]),
        (datetime(2027, 11, 30, tzinfo=UTC), "quarter", ["2028-02-29", "2028-05-30"]),
        (
            datetime(2028, 2, 29, tzinfo=UTC),
            "year",
            ["2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"],
        ),
        (datetime(2027, 12, 31, tzinfo=UTC), "month", ["2028-01-31"]),
        (datetime(2027, 12, 28, tzinfo=UTC), "week", ["2028-01-04"]),
    ],
)
def test_short_months_and_leap_years(anchor: datetime, length: str, expected: list[str]) -> None:
    assert days(anchor, length, len(expected)) == expected


def test_a_day_has_24_hours_where_clocks_are_changed() -> None:
    """On the 28th Vienna has no hour from two to three: the same moment is four o'clock there from
    then on.
    """
    anchor = datetime(2027, 3, 27, 3, tzinfo=ZoneInfo("Europe/Vienna"))
    first = next_boundary(anchor, "day", anchor)
    assert first == datetime(2027, 3, 28, 2, tzinfo=UTC)
    assert next_boundary(anchor, "day", first) == datetime(2027, 3, 29, 2, tzinfo=UTC)


def test_hours_are_counted_by_time_that_passed_and_not_by_the_clock_on_the_wall() -> None:
    """Two moments of one zone are subtracted by that zone's clock, unless one takes care."""
    vienna = ZoneInfo("Europe/Vienna")
    start, end = period_around(
        datetime(2027, 1, 1, tzinfo=vienna), "hour", datetime(2027, 7, 1, tzinfo=vienna)
    )
    assert (start, end) == (
        datetime(2027, 6, 30, 22, tzinfo=UTC),
        datetime(2027, 6, 30, 23, tzinfo=UTC),
    )

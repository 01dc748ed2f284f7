"""Cron expressions mean what BullMQ's cron library makes of them: `cron_corpus.json` has its ticks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral.schedule import cron_ticks

CORPUS = Path(__file__).with_name("cron_corpus.json")
"""`[expression, tz, from, ticks]`, Unix ms; written by `tests/node/cron_corpus.mjs`."""

OURS_AND_THEIRS = {
    # An hour that does not exist: the other library takes the same minute of the next one, ours its
    # first minute, or for an expression with seconds the next day that has the hour.
    ("30 2 * * *", "Europe/Berlin", "2026-03-28"): ("2026-03-29T01:00", "2026-03-29T01:30"),
    ("0 30 2 * * 0", "Europe/Berlin", "2026-01-30"): ("2026-04-05T00:30", "2026-03-29T01:30"),
    ("0 30 2 * * 0", "Europe/Berlin", "2026-03-28"): ("2026-04-05T00:30", "2026-03-29T01:30"),
    ("0 30 2 * * 0", "Europe/Berlin", "2028-02-28"): ("2028-04-02T00:30", "2028-03-26T01:30"),
    ("0 30 2 * * 0", "America/New_York", "2026-01-30"): ("2026-03-15T06:30", "2026-03-08T07:30"),
    ("0 30 2 * * 0", "America/New_York", "2028-02-28"): ("2028-03-19T06:30", "2028-03-12T07:30"),
    # An hour that comes twice: both libraries run once with five fields; with seconds, ours runs in
    # both.
    ("0 30 2 * * 0", "Europe/Berlin", "2026-10-24"): ("2026-10-25T01:30", "2026-11-01T01:30"),
}
"""Where the two differ, by expression, zone and day of the start: the first tick that does, in UTC.
All of it lies in hours that a change of daylight saving time removes or repeats.
"""


def utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M")


def test_46_expressions_agree_with_the_other_library_but_for_the_listed_hours() -> None:
    corpus = json.loads(CORPUS.read_text("utf-8"))
    assert len({expression for expression, *_ in corpus}) == 46
    differ = {}
    for expression, tz, start, theirs in corpus:
        ours = cron_ticks(expression, tz, start, len(theirs))
        first = next(((a, b) for a, b in zip(ours, theirs, strict=True) if a != b), None)
        if first:
            differ[expression, tz, utc(start)[:10]] = utc(first[0]), utc(first[1])
    ticks = sum(len(theirs) for *_, theirs in corpus)
    print(
        f"{len(corpus)} cases of 46 expressions in 4 zones, {ticks} ticks: {len(differ)} cases differ, all listed"
    )
    assert differ == OURS_AND_THEIRS


def test_the_first_tick_is_later_than_the_moment_itself() -> None:
    five_past = 1_772_327_100_000
    assert utc(five_past).endswith(":05")
    hour = 3_600_000
    assert cron_ticks("5 * * * *", "UTC", five_past - 1, 2) == [five_past, five_past + hour]
    assert cron_ticks("5 * * * *", "UTC", five_past, 1) == [five_past + hour]
    assert cron_ticks("5 * * * *", "UTC", five_past + 999, 1) == [five_past + hour]


@pytest.mark.parametrize(
    "expression",
    ["", "* * *", "61 * * * *", "@often", "0 0 15W * *", "5 * * * * * *", "x", "0 0 30 2 *"],
)
def test_what_cannot_be_read_is_refused_by_name(expression: str) -> None:
    with pytest.raises(ValueError, match=r"^'"):
        cron_ticks(expression, "UTC", 0, 1)


def test_without_the_system_s_zones_those_of_tzdata_are_used() -> None:
    """`tzdata` is a dependency: a slim image has no zones of its own."""
    program = (
        "from corral.schedule import cron_ticks\n"
        "import zoneinfo; assert zoneinfo.TZPATH == ()\n"
        "print(cron_ticks('30 2 * * *', 'Europe/Berlin', 0, 1))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONTZPATH": ""},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert output == "[5400000]\n", "half past one in UTC"


def test_utc_needs_no_time_zone_database_and_a_machine_without_one_says_so() -> None:
    program = (
        "import sys, zoneinfo; sys.modules['tzdata'] = None; zoneinfo.reset_tzpath([])\n"
        "from corral.schedule import cron_ticks\n"
        "print(cron_ticks('5 * * * *', 'UTC', 0, 1))\n"
        "try: cron_ticks('5 * * * *', 'Europe/Berlin', 0, 1)\n"
        "except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert output.splitlines() == [
        "[300000]",
        "this machine has no time zone database, and 'Europe/Berlin' is looked up in one: install tzdata",
    ]

"""What people read and type: durations, ages, and texts without control characters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from corral.cli.durations import format_age, format_duration, parse_duration
from corral.cli.terminal import cell_width, cut_to_cells, printable
from corral.cli.text_table import show_table


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        *[
            (text, None)
            for text in ("", "7", "d", "-1s", "1w", "1 s", "1e3s", "٣s", "99999999999999d")
        ],
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, span: timedelta | None) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=40), "40ms"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(minutes=5), "5m"),
        (timedelta(hours=3) - timedelta(seconds=1), "2h59m"),
        (timedelta(hours=2, seconds=5), "2h"),
        (timedelta(days=4, hours=2, minutes=30), "4d2h"),
        (-timedelta(minutes=2), "2m"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(span: timedelta, text: str) -> None:
    assert format_duration(span) == text


def test_an_age_is_behind_us_or_ahead() -> None:
    now = datetime.now(UTC)
    assert format_age(now - timedelta(hours=2, minutes=3, seconds=30)) == "2h3m ago"
    assert format_age(now + timedelta(days=1, seconds=30)) == "in 1d"
    assert format_age(None) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ünïcode \N{GRINNING FACE}", "ünïcode \N{GRINNING FACE}"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_what_drives_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines_where_they_are_wanted() -> None:
    assert printable("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


@pytest.mark.parametrize(
    ("text", "cells"),
    [("", 0), ("abc", 3), ("größe", 5), ("日本", 4), ("e\u0301", 1), ("\N{GRINNING FACE}", 2)],
)
def test_a_text_takes_as_many_cells_as_a_terminal_gives_it(text: str, cells: int) -> None:
    assert cell_width(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "cut"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 4, "abc…"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("日本語", 6, "日本語"),
    ],
)
def test_a_text_that_is_cut_says_so_and_fits(text: str, cells: int, cut: str) -> None:
    assert cut_to_cells(text, cells) == cut
    assert cell_width(cut) <= cells


def test_columns_stand_below_each_other_whatever_their_characters_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_table(("NAME", "N"), [("日本", 7), ("abc", 10)])
    assert capsys.readouterr().out == "NAME   N\n日本   7\nabc   10\n"

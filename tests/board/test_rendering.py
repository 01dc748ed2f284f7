"""Durations and numbers in words, drawings without styles, static files with their digests."""

from __future__ import annotations

import hashlib
import inspect
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corral.board import pages, routes, static_files
from corral.board.identity import NEEDED, Action
from corral.board.page_renderer import NOTICES, PageRenderer, duration_in_words

BOARD = Path(inspect.getfile(routes)).parent


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (None, "-"),
        (0, "0 ms"),
        (-5, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h"),
        (timedelta(days=2, hours=3, minutes=4), "2 d 3 h"),
    ],
)
def test_a_duration_has_at_most_two_units(length: float | timedelta | None, words: str) -> None:
    assert duration_in_words(length) == words


def test_a_time_is_readable_without_a_script() -> None:
    filters = PageRenderer()._environment.filters
    now = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
    assert filters["ago"](now - timedelta(minutes=3), now).endswith(">3 min ago</time>")
    assert filters["ago"](now + timedelta(hours=2), now).endswith(">in 2 h</time>")
    assert filters["moment"](now).endswith(">2026-01-31 08:00:00 UTC</time>")
    assert filters["moment"](None) == "-"


def test_vendored_files_are_what_their_page_says() -> None:
    text = (BOARD / "static" / "VENDORED.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\S+)` \|.*\| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["htmx.js", "uplot.js", "uplot.css"]
    for name, digest in rows:
        assert hashlib.sha256((BOARD / "static" / name).read_bytes()).hexdigest() == digest


def test_a_file_has_its_digest_in_its_address_and_any_other_address_has_no_file() -> None:
    url = static_files.file_url("board.css")
    assert re.fullmatch(r"/static/board\.[0-9a-f]{12}\.css", url)
    served = static_files.find_file(url)
    assert served is not None
    assert served.body == (BOARD / "static" / "board.css").read_bytes()
    for path in ("/static/board.css", "/static/VENDORED.md", "/static/", url + "/", url.upper()):
        assert static_files.find_file(path) is None


def test_templates_hold_neither_script_nor_style_of_their_own_and_switch_no_escape_off() -> None:
    templates = [*(BOARD / "templates").glob("*.html")]
    assert len(templates) > 10
    for each in templates:
        text = each.read_text("utf-8")
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|\|\s*safe\b", text
        ), each.name


def test_every_handler_says_what_it_costs_the_store() -> None:
    for route in routes.ROUTES:
        text = inspect.getdoc(route.handler) or ""
        assert re.search(r"costs?|calls?|round trip|read", text, re.IGNORECASE), (
            f"{route.method} {route.pattern}"
        )
    assert inspect.getdoc(pages)


def test_every_action_is_needed_by_a_route_and_every_action_needs_a_role() -> None:
    assert {route.needs for route in routes.ROUTES} == set(Action) == set(NEEDED)
    assert all(
        "{n}" in notice or "{id}" in notice or notice.endswith(".") for notice in NOTICES.values()
    )

"""The table of known holes: what it says of a version, and that each of its rows can be read."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import pytest

from corral.app.known_holes import HOLES, LOOKED_THROUGH, hole_warning


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@pytest.mark.parametrize(
    ("server", "installed", "holes", "instead"),
    [
        ("redis", "7.2.5", 2, "7.2.15"),
        ("redis", "7.2.11", 1, "7.2.15"),
        ("redis", "7.2.15", 0, ""),
        ("redis", "7.4.6", 1, "7.4.10"),
        ("redis", "7.0.15", 2, "7.2.15"),
        ("redis", "6.0.20", 2, "6.2.23"),
        ("redis", "8.0.4", 1, "8.2.8"),
        ("redis", "8.0.3", 2, "8.2.8"),
        ("redis", "8.8.1", 0, ""),
        ("redis", "9.0.0", 0, ""),
        ("valkey", "7.2.4", 2, "7.2.14"),
        ("valkey", "8.1.3", 2, "8.1.9"),
        ("valkey", "8.1.4", 1, "8.1.9"),
        ("valkey", "9.0.1", 1, "9.0.5"),
        ("valkey", "9.1.2", 0, ""),
        ("", "", 0, ""),
    ],
)
def test_a_version_with_a_hole_is_told_with_the_release_that_has_none(
    server: str, installed: str, holes: int, instead: str
) -> None:
    told = hole_warning(server, version(installed) if installed else ())
    assert sum(hole.name in told for hole in HOLES.get(server, ())) == holes
    assert told == "" if not holes else f"the store is {server} {installed}, " in told
    assert f" run {instead} or newer" in told if holes else True


def test_every_row_is_dated_has_its_source_and_one_release_of_each_line_in_order() -> None:
    for holes in HOLES.values():
        published = [date.fromisoformat(hole.published) for hole in holes]
        assert published == sorted(published, reverse=True)
        assert max(published) <= date.fromisoformat(LOOKED_THROUGH)
        for hole in holes:
            assert hole.source.startswith("https://")
            assert all(len(fixed) == 3 for fixed in hole.fixed)
            assert all(one[:2] < other[:2] for one, other in pairwise(hole.fixed))

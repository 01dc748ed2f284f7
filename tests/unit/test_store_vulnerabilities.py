"""The table of vulnerabilities: what it says about a version, and that its rows are complete."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import pytest

from corral.observe.store_vulnerabilities import (
    REVIEWED_UNTIL,
    VULNERABILITIES,
    vulnerability_warning,
)


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@pytest.mark.parametrize(
    ("server", "installed", "found", "instead"),
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
def test_a_vulnerable_version_is_named_with_the_release_that_repairs_it(
    server: str, installed: str, found: int, instead: str
) -> None:
    warning = vulnerability_warning(server, version(installed) if installed else ())
    assert sum(each.name in warning for each in VULNERABILITIES.get(server, ())) == found
    assert warning == "" if not found else f"the store is {server} {installed}, " in warning
    assert f" run {instead} or newer" in warning if found else True


def test_every_row_is_dated_has_its_source_and_one_release_of_each_line_in_order() -> None:
    for found in VULNERABILITIES.values():
        published = [date.fromisoformat(each.published) for each in found]
        assert published == sorted(published, reverse=True)
        assert max(published) <= date.fromisoformat(REVIEWED_UNTIL)
        for each in found:
            assert each.source.startswith("https://")
            assert all(len(fixed) == 3 for fixed in each.fixed)
            assert all(one[:2] < other[:2] for one, other in pairwise(each.fixed))

"""A link is good for one archive and for a while, and nobody else can make or change one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from corral_data_exports.links import LinkExpired, LinkRefused, signed_link, verified

SECRET = "a secret of thirty-two bytes, or more"
NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
KEY = f"{'ab' * 20}.zip"


def parts(url: str) -> tuple[str, str, str]:
    """What a route is given: the last part of the path, and two parameters."""
    split = urlsplit(url)
    query = {name: value for name, (value,) in parse_qs(split.query, strict_parsing=True).items()}
    assert sorted(query) == ["expires", "signature"]
    return split.path.rpartition("/")[2], query["expires"], query["signature"]


@pytest.fixture
def link() -> tuple[str, str, str]:
    return parts(signed_link("https://app.example/exports/", KEY, SECRET, NOW + timedelta(hours=1)))


def test_a_link_is_below_the_base_url_and_leads_to_the_archive(link) -> None:
    assert signed_link("https://app.example/exports", KEY, SECRET, NOW).startswith(
        f"https://app.example/exports/{KEY}?"
    )
    assert verified(*link, secret=SECRET, now=NOW) == KEY


def test_it_expires(link) -> None:
    assert verified(*link, secret=SECRET, now=NOW + timedelta(minutes=59, seconds=59)) == KEY
    with pytest.raises(LinkExpired, match="the link has expired"):
        verified(*link, secret=SECRET, now=NOW + timedelta(hours=1))
    old = parts(
        signed_link("https://app.example", KEY, SECRET, datetime.now(UTC) - timedelta(seconds=1))
    )
    with pytest.raises(LinkExpired):
        verified(*old, secret=SECRET)


def changed(link: tuple[str, str, str], place: int, text: str) -> tuple[str, ...]:
    return tuple(text if number == place else part for number, part in enumerate(link))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (0, f"{'cd' * 20}.zip"),
        (0, "../secret"),
        (0, ""),
        (1, "9999999999"),
        (1, " 1798808400"),
        (1, "soon"),
        (1, ""),
        (1, "\ud800"),
        (2, ""),
        (2, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        (2, "ü\0\ud800"),
    ],
)
def test_a_changed_link_is_refused(link, place: int, text: str) -> None:
    with pytest.raises(LinkRefused, match="the link's signature is not ours") as refused:
        verified(*changed(link, place, text), secret=SECRET, now=NOW)
    assert not isinstance(refused.value, LinkExpired)


def test_every_character_of_the_signature_counts(link) -> None:
    key, expires, signature = link
    for place, letter in enumerate(signature[:-1]):  # the last one holds two bits that do not
        other = signature[:place] + ("A" if letter != "A" else "B") + signature[place + 1 :]
        with pytest.raises(LinkRefused):
            verified(key, expires, other, secret=SECRET, now=NOW)


def test_another_secret_s_link_is_refused(link) -> None:
    with pytest.raises(LinkRefused):
        verified(*link, secret=SECRET[:-1], now=NOW)

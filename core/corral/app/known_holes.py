"""Holes of stores that let a client run code in the server, and whether a store's version has one.

A small table, to be kept by hand: it warns, and proves nothing of a version that is not in it. Only
the version is looked at: some distributors repair an old version and keep its number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral.store.connection import Link

__all__ = ["HOLES", "LOOKED_THROUGH", "Hole", "hole_warning", "store_version"]

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hole:
    """A hole.

    Attributes:
        name: Its CVE number, or the release that closed it.
        published: When it was published; ISO 8601.
        source: Where that is written.
        fixed: The first release without it, of each line (`7.2`) that has one. Older lines never
        got one.
    """

    name: str
    published: str
    source: str
    fixed: tuple[Version, ...]


LOOKED_THROUGH: Final = "2026-07-31"
"""Until when both servers' releases are in the table."""

HOLES: Final[Mapping[str, tuple[Hole, ...]]] = {
    "redis": (
        Hole(
            "the security release of 2026-07-24",
            "2026-07-24",
            "https://github.com/docker-library/official-images/pull/21922",
            ((6, 2, 23), (7, 2, 15), (7, 4, 10), (8, 2, 8), (8, 4, 5), (8, 6, 5), (8, 8, 1)),
        ),
        Hole(
            "CVE-2025-49844",
            "2025-10-03",
            "https://github.com/docker-library/official-images/pull/20011",
            ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
        ),
    ),
    "valkey": (
        Hole(
            "CVE-2026-63639",
            "2026-07-21",
            "https://github.com/valkey-io/valkey/releases/tag/9.1.1",
            ((7, 2, 14), (8, 0, 10), (8, 1, 9), (9, 0, 5), (9, 1, 1)),
        ),
        Hole(
            "CVE-2025-49844",
            "2025-10-03",
            "https://github.com/valkey-io/valkey/releases/tag/8.1.4",
            ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
        ),
    ),
}
"""By server, the newest hole first."""


async def store_version(link: Link) -> tuple[str, Version]:
    """Which server a store is, `redis` or `valkey`, and of which version; empty where it is
    another, or does not say.

    Raises:
        StoreUnavailable: The store is away, or its user may not ask.
    """
    info = bytes(await link.call("INFO", "server"))
    found = dict(re.findall(rb"^(\w+)_version:(\d+(?:\.\d+)+)", info, re.MULTILINE))
    known = {
        b"redis",
        b"valkey",
        b"gcc",
    }  # others speak the protocol, and call themselves an old Redis as well
    name = b"valkey" if b"valkey" in found else b"redis"
    if name not in found or not found.keys() <= known:
        return "", ()
    return name.decode(), tuple(map(int, found[name].split(b".")))


def hole_warning(server: str, version: Version) -> str:
    """What an operator should know of a store's version, in one sentence; empty where the table has
    nothing.

    Args:
        server: `redis` or `valkey`.
        version: As `(7, 2, 4)`.
    """
    holes = [hole for hole in HOLES.get(server, ()) if _has(hole, version)]
    if not holes:
        return ""
    ways = [fixed for fixed in holes[0].fixed if fixed[:2] == version[:2]] or [
        fixed for fixed in holes[0].fixed if fixed > version
    ]
    names = ", ".join(hole.name for hole in holes)
    return (
        f"the store is {server} {_text(version)}, in which a client can run code ({names}):"
        f" run {_text(ways[0])} or newer, unless its distributor has repaired {_text(version)}"
    )


def _has(hole: Hole, version: Version) -> bool:
    """Whether a version is older than the repair of its line, or of a line that is older than all
    repaired ones.
    """
    of_line = [fixed for fixed in hole.fixed if fixed[:2] == version[:2]]
    return version < of_line[0] if of_line else version < hole.fixed[-1]


def _text(version: Version) -> str:
    return ".".join(map(str, version))

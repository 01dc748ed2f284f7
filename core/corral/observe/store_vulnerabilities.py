"""Known vulnerabilities of stores that let a client run code in the server, by version.

The table is small and kept by hand. It is for a warning: a version that is not in it is not proved
to be safe. Only the version is compared, although some distributors repair an old version and keep
its number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral.store.connection import Link

__all__ = [
    "REVIEWED_UNTIL",
    "VULNERABILITIES",
    "Vulnerability",
    "store_version",
    "vulnerability_warning",
]

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """A vulnerability.

    Attributes:
        name: Its CVE number, or the release that repaired it.
        published: The date of its publication (ISO 8601).
        source: A page that says so.
        fixed: The first release without it, in each line of releases (`7.2`) that has one. Older
            lines never got a repair.
    """

    name: str
    published: str
    source: str
    fixed: tuple[Version, ...]


REVIEWED_UNTIL: Final = "2026-07-31"
"""The releases of both servers until this date are in the table."""

VULNERABILITIES: Final[Mapping[str, tuple[Vulnerability, ...]]] = {
    "redis": (
        Vulnerability(
            "the security release of 2026-07-24",
            "2026-07-24",
            "https://github.com/docker-library/official-images/pull/21922",
            ((6, 2, 23), (7, 2, 15), (7, 4, 10), (8, 2, 8), (8, 4, 5), (8, 6, 5), (8, 8, 1)),
        ),
        Vulnerability(
            "CVE-2025-49844",
            "2025-10-03",
            "https://github.com/docker-library/official-images/pull/20011",
            ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
        ),
    ),
    "valkey": (
        Vulnerability(
            "CVE-2026-63639",
            "2026-07-21",
            "https://github.com/valkey-io/valkey/releases/tag/9.1.1",
            ((7, 2, 14), (8, 0, 10), (8, 1, 9), (9, 0, 5), (9, 1, 1)),
        ),
        Vulnerability(
            "CVE-2025-49844",
            "2025-10-03",
            "https://github.com/valkey-io/valkey/releases/tag/8.1.4",
            ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
        ),
    ),
}
"""By server, the newest first."""


async def store_version(link: Link) -> tuple[str, Version]:
    """Ask for the name and the version of a store's server.

    Returns:
        `redis` or `valkey`, and the version as numbers. Both are empty for another server, or one
        that does not say.

    Raises:
        StoreUnavailable: The store is away, or its user may not ask.
    """
    info = bytes(await link.call("INFO", "server"))
    found = dict(re.findall(rb"^(\w+)_version:(\d+(?:\.\d+)+)", info, re.MULTILINE))
    # other servers speak the protocol, too, and call themselves an old Redis beside their own name
    known = {b"redis", b"valkey", b"gcc"}
    name = b"valkey" if b"valkey" in found else b"redis"
    if name not in found or not found.keys() <= known:
        return "", ()
    return name.decode(), tuple(map(int, found[name].split(b".")))


def vulnerability_warning(server: str, version: Version) -> str:
    """Warn of a store's version in one sentence; empty if the table has nothing about it.

    Args:
        server: `redis` or `valkey`.
        version: As `(7, 2, 4)`.
    """
    found = [each for each in VULNERABILITIES.get(server, ()) if _affects(each, version)]
    if not found:
        return ""
    repairs = [fixed for fixed in found[0].fixed if fixed[:2] == version[:2]] or [
        fixed for fixed in found[0].fixed if fixed > version
    ]
    names = ", ".join(each.name for each in found)
    return (
        f"the store is {server} {_text(version)}, in which a client can run code ({names}):"
        f" run {_text(repairs[0])} or newer, unless its distributor has repaired {_text(version)}"
    )


def _affects(vulnerability: Vulnerability, version: Version) -> bool:
    """Whether a version has it: its release line was repaired later, or never."""
    of_line = [fixed for fixed in vulnerability.fixed if fixed[:2] == version[:2]]
    return version < of_line[0] if of_line else version < vulnerability.fixed[-1]


def _text(version: Version) -> str:
    return ".".join(map(str, version))

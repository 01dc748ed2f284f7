"""Whether the installed Corral is one that a plugin's distribution asks for (`Requires-Dist`).

An installer ensures that when it installs the plugin, and nobody does when Corral is changed
afterwards, or with `pip install --no-deps`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["find_unmet"]

_PLAIN: Final = re.compile(r"[\w.-]+\s*(?:\[[^\]]*\])?\s*(?:\(?>=\s*(\d+(?:\.\d+)*)\s*\)?)?")
"""A requirement that names a lowest release, or none: `corral`, `corral[sql]>=0.1.0`."""
_RELEASE: Final = re.compile(r"\d+(?:\.\d+)*")
_OF_AN_EXTRA: Final = re.compile(r""".*;\s*extra\s*==\s*(?:"[^"]*"|'[^']*')\s*""")
"""A requirement of an extra of the plugin: which extras were asked for is not recorded."""


def find_unmet(requires: Iterable[str], version: str) -> str | None:
    """Find the first requirement that the installed release of Corral does not meet.

    Args:
        requires: Lines of `Requires-Dist` that name Corral. A line that no installer could read is
            met.
        version: The installed release.

    Returns:
        The requirement without its marker, or None.
    """
    return next((unmet for line in requires if (unmet := _unmet_part(line, version))), None)


def _unmet_part(line: str, version: str) -> str | None:
    # Nearly all plugins ask like this, and every producer's start comes through here:
    # `packaging.requirements` takes 25 ms to load.
    if _OF_AN_EXTRA.fullmatch(line):
        return None
    plain = _PLAIN.fullmatch(line.strip())
    if plain and (plain[1] is None or _RELEASE.fullmatch(version)):
        return line if plain[1] and _numbers(version) < _numbers(plain[1]) else None

    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415  # see above
    from packaging.version import InvalidVersion  # noqa: PLC0415  # see above

    try:
        asked = Requirement(line)
        applies = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if not applies or asked.specifier.contains(version, prereleases=True):
            return None
    except (InvalidRequirement, InvalidVersion):
        return None
    extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    return f"{asked.name}{extras}{asked.specifier}"


def _numbers(release: str) -> tuple[int, ...]:
    """A release as numbers that compare: `1.0` and `1` are the same."""
    return tuple(map(int, re.sub(r"(?:\.0+)+$", "", release).split(".")))

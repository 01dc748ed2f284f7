"""What installed distributions declare, read from their metadata: names first, and nothing
imported.

Pure reading: it judges no name and knows no hook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from importlib_metadata import Distribution

__all__ = [
    "APPLICATION",
    "BUILT_IN",
    "PLUGINS",
    "QUEUES",
    "Broken",
    "Claim",
    "Provider",
    "canonical",
    "found",
    "is_patch",
]

QUEUES: Final = "corral.queues"
"""The group in which an entry point declares the queue of its name."""

PLUGINS: Final = "corral.plugins"
"""The group of plugins that declare no queue."""

APPLICATION: Final = "CORRAL_APP"
"""Stands where a group would, for the module that the environment names and no entry point."""

BUILT_IN: Final = "built in"
"""The origin of what the core brings along."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who provides something.

    Attributes:
        distribution: The distribution's name; of the application, which is none, its module.
        version: The distribution's version, or "".
        origin: `wheel`, `editable`, `vcs <short commit>`, `application`, or `built in`: the core's
        own.
    """

    distribution: str
    version: str
    origin: str

    def __str__(self) -> str:
        """In short: `corral-emails 0.1.0`."""
        return f"{self.distribution} {self.version}".rstrip()

    @property
    def label(self) -> str:
        """In full: `corral-emails 0.1.0 (wheel)`."""
        return f"{self} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry point, as it stands in the metadata.

    Attributes:
        name: Its name; in the group `corral.queues`, the name of a queue.
        value: The module it names, or `module:attribute`.
        group: `corral.queues`, `corral.plugins`, or `CORRAL_APP`.
        provider: Whose entry point it is.
    """

    name: str
    value: str
    group: str
    provider: Provider


@dataclass(frozen=True, slots=True)
class Broken:
    """An installed distribution that declares something, and whose metadata cannot be read.

    Attributes:
        told: What can be said of it.
        provider: The distribution, where at least that can be read.
    """

    told: str
    provider: Provider | None = None


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it: case and the kind of separator do not
    count.
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def is_patch(locked: str, installed: str) -> bool:
    """Whether a version is a later patch release of another: `1.4.3` of `1.4.2`, and no
    pre-release.
    """
    found = [
        re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.post(\d+))?", each)
        for each in (locked, installed)
    ]
    if found[0] is None or found[1] is None:
        return False
    before, after = ([int(part or 0) for part in each.groups()] for each in found if each)
    return before[:2] == after[:2] and before[2:] < after[2:]


def found(path: Sequence[str] | None = None) -> Iterator[Claim | Broken]:
    """The entry points that installed distributions have in our groups.

    A distribution that is there more than once (a folder that is on the path twice, a checkout
    beside its wheel, what an interrupted uninstallation left) counts once, as the one that Python
    takes.

    Args:
        path: Where to look instead of `sys.path`.

    Yields:
        Sorted by distribution and name: the order of installation says nothing.
    """
    where = {} if path is None else {"path": list(path)}
    names: set[str] = set()
    nameless: list[Distribution] = []
    for distribution in Distribution.discover(**where):
        # searched as text first: a stranger's entry points, however broken, are no matter of ours
        text = distribution.read_text("entry_points.txt") or ""
        if f"[{QUEUES}]" in text or f"[{PLUGINS}]" in text:
            known = _name_and_version(distribution)
            names.add(canonical(known[0])) if known else nameless.append(distribution)
    claims: list[Claim] = []
    for name in sorted(names):
        there = ((one, _name_and_version(one)) for one in Distribution.discover(name=name, **where))
        taken, known = next((each for each in there if each[1]), (None, None))
        if taken is None or known is None:
            continue  # a leftover that pip had renamed before it removed it: its folder is not one of this name
        provider = Provider(*known, _origin(taken))
        points = _points(taken)
        if points is None:
            yield Broken(f"the entry points of {provider} cannot be read", provider)
        else:
            claims += [Claim(*point, provider) for point in sorted(points)]
    yield from claims
    healthy = {(claim.name, claim.value, claim.group) for claim in claims}
    for distribution in nameless:
        points = _points(distribution) or set()
        if not points <= healthy:  # else it is what was left of one of them
            told = ", ".join(f"{name} = {value}" for name, value, _ in sorted(points))
            yield Broken(f"an installed distribution whose name cannot be read declares {told}")


def _name_and_version(distribution: Distribution) -> tuple[str, str] | None:
    """Both from one reading of the metadata, which each property would read anew; None where there
    is no name.
    """
    try:
        metadata = distribution.metadata
        name, version = (
            (metadata["Name"], metadata.get("Version")) if metadata is not None else ("", "")
        )
    except (
        FileNotFoundError,
        KeyError,
        TypeError,
    ):  # no metadata, or no name in it: releases differ in what they say
        return None
    return (name, version or "") if name else None


def _points(distribution: Distribution) -> set[tuple[str, str, str]] | None:
    """Entry points of our groups as `(name, value, group)`, or None where the file cannot be
    parsed.
    """
    try:
        points = list(distribution.entry_points)
    except TypeError:  # what becomes of a line without "="
        return None
    return {
        (point.name, point.value, point.group)
        for point in points
        if point.group in {QUEUES, PLUGINS}
    }


def _origin(distribution: Distribution) -> str:
    """How it came here, as the installer recorded it (PEP 610)."""
    origin = distribution.origin
    if getattr(getattr(origin, "dir_info", None), "editable", False):
        return "editable"
    commit = getattr(getattr(origin, "vcs_info", None), "commit_id", None)
    return f"vcs {commit[:7]}" if commit else "wheel"

"""Reads from the metadata of installed distributions which plugins they declare; imports nothing.

It only reads: it judges no name and knows no hook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from importlib_metadata import Distribution

__all__ = [
    "APPLICATION",
    "BUILT_IN",
    "PLUGINS",
    "QUEUES",
    "PluginEntryPoint",
    "Provider",
    "UnreadableDistribution",
    "canonical_name",
    "is_patch",
    "read_entry_points",
    "read_metadata_text",
]

QUEUES: Final = "corral.queues"
"""The group of entry points whose names are queues."""

PLUGINS: Final = "corral.plugins"
"""The group of entry points of plugins that declare no queue."""

APPLICATION: Final = "CORRAL_APP"
"""In place of a group: the module that the environment variable names, which has no entry point."""

BUILT_IN: Final = "built in"
"""The origin of plugins that are part of the core."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The distribution, or the application, that provides a plugin.

    Attributes:
        distribution: The distribution's name; for the application, the name of its module.
        version: The distribution's version, or "".
        origin: `wheel`, `editable`, `vcs <short commit>`, `application`, or `built in`.
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
class PluginEntryPoint:
    """An entry point in one of our groups, as the metadata states it.

    Attributes:
        name: Its name; in the group `corral.queues`, the name of a queue.
        value: The module it names, or `module:attribute`.
        group: `corral.queues`, `corral.plugins`, or `CORRAL_APP`.
        provider: The distribution that declares it.
        requires: The requirements of that distribution that name Corral, as its metadata spells
            them: `corral[sql]>=0.1`.
        metadata: Where the distribution's metadata can be read, or None.
    """

    name: str
    value: str
    group: str
    provider: Provider
    requires: tuple[str, ...] = field(default=(), compare=False)
    metadata: Distribution | None = field(default=None, compare=False, repr=False)

    @property
    def module(self) -> str:
        """The name of the module, without an attribute."""
        return self.value.partition(":")[0].strip()


@dataclass(frozen=True, slots=True)
class UnreadableDistribution:
    """An installed distribution that declares a plugin and whose metadata cannot be read.

    Attributes:
        problem: What is wrong, as a sentence.
        provider: The distribution, if at least its name can be read.
    """

    problem: str
    provider: Provider | None = None


class _Facts(NamedTuple):
    """What the metadata of a distribution states about it."""

    name: str
    version: str
    requires: tuple[str, ...]


def canonical_name(name: str) -> str:
    """A distribution's name in the spelling that package indexes compare.

    Case and the kind of separator (`-`, `_`, `.`) do not count.
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def is_patch(locked: str, installed: str) -> bool:
    """Whether the installed version is a later patch release of the locked one.

    `1.4.3` is a patch release of `1.4.2`; a pre-release never is one.
    """
    matches = [
        re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.post(\d+))?", each)
        for each in (locked, installed)
    ]
    if matches[0] is None or matches[1] is None:
        return False
    before, after = ([int(part or 0) for part in each.groups()] for each in matches if each)
    return before[:2] == after[:2] and before[2:] < after[2:]


def read_entry_points(
    path: Sequence[str] | None = None,
) -> Iterator[PluginEntryPoint | UnreadableDistribution]:
    """Read the entry points that installed distributions have in our groups.

    A distribution that is installed more than once counts once, as the one that Python imports.
    That happens with a folder that is on the path twice, with a checkout beside its wheel, and
    after an interrupted uninstallation.

    Args:
        path: Where to look instead of `sys.path`.

    Yields:
        Entry points and unreadable distributions, sorted by distribution and name: the order of
        installation has no meaning.
    """
    where = {} if path is None else {"path": list(path)}
    names: set[str] = set()
    nameless: list[Distribution] = []
    for distribution in Distribution.discover(**where):
        # Searched as text first: other packages' entry points, however broken, do not concern us.
        text = read_metadata_text(distribution, "entry_points.txt")
        if f"[{QUEUES}]" in text or f"[{PLUGINS}]" in text:
            known = _read_facts(distribution)
            names.add(canonical_name(known.name)) if known else nameless.append(distribution)
    entry_points: list[PluginEntryPoint] = []
    for name in sorted(names):
        same = ((each, _read_facts(each)) for each in Distribution.discover(name=name, **where))
        imported, known = next((each for each in same if each[1]), (None, None))
        if imported is None or known is None:
            # A folder that pip renames before it removes it: it no longer has this name.
            continue
        provider = Provider(known.name, known.version, _origin(imported))
        declared = _read_declared(imported)
        if declared is None:
            yield UnreadableDistribution(f"the entry points of {provider} cannot be read", provider)
        else:
            entry_points += [
                PluginEntryPoint(*each, provider, known.requires, imported)
                for each in sorted(declared)
            ]
    yield from entry_points
    readable = {(each.name, each.value, each.group) for each in entry_points}
    for distribution in nameless:
        declared = _read_declared(distribution) or set()
        if not declared <= readable:  # else it is the rest of one that was read
            texts = ", ".join(f"{name} = {value}" for name, value, _ in sorted(declared))
            yield UnreadableDistribution(
                f"an installed distribution whose name cannot be read declares {texts}"
            )


def read_metadata_text(distribution: Distribution, name: str) -> str:
    """Read a file of a distribution's metadata, where bytes that are not UTF-8 become `�`.

    Args:
        distribution: The distribution.
        name: The file's name, such as `RECORD`.

    Returns:
        Its text; empty if there is no such file.
    """
    try:
        return distribution.read_text(name) or ""
    except UnicodeDecodeError as error:
        return error.object.decode(errors="replace")


def _read_facts(distribution: Distribution) -> _Facts | None:
    """What is needed of the distribution's metadata, or None if it has no name.

    Read at once: each of importlib's properties would parse the metadata again.
    """
    try:
        metadata = distribution.metadata
        if metadata is None:
            return None
        name, version = metadata["Name"], metadata.get("Version")
        requires = [line for line in metadata.get_all("Requires-Dist") or () if _names_corral(line)]
    # No metadata, no name in it, or a text that is not UTF-8: which one is raised for the first two
    # depends on importlib-metadata's release.
    except (FileNotFoundError, KeyError, TypeError, UnicodeDecodeError):
        return None
    return _Facts(name, version or "", tuple(requires)) if name else None


def _names_corral(requirement: str) -> bool:
    """Whether a line of `Requires-Dist` is about the distribution `corral` itself."""
    named = re.match(r"\s*([\w.-]+)", requirement)
    return named is not None and canonical_name(named[1]) == "corral"


def _read_declared(distribution: Distribution) -> set[tuple[str, str, str]] | None:
    """Read our groups' entry points: `(name, value, group)`; None if they cannot be parsed."""
    try:
        entry_points = list(distribution.entry_points)
    # a line without "=", and a text that is not UTF-8
    except (TypeError, UnicodeDecodeError):
        return None
    return {
        (each.name, each.value, each.group)
        for each in entry_points
        if each.group in {QUEUES, PLUGINS}
    }


def _origin(distribution: Distribution) -> str:
    """How the distribution was installed, as the installer recorded it (PEP 610)."""
    try:
        origin = distribution.origin
    except ValueError:  # it is not JSON
        origin = None
    if getattr(getattr(origin, "dir_info", None), "editable", False):
        return "editable"
    commit = getattr(getattr(origin, "vcs_info", None), "commit_id", None)
    return f"vcs {commit[:7]}" if commit else "wheel"

"""Where the code of plugins comes from, compared with what their distributions have installed.

A module's name does not say which file Python imports: a checkout on PYTHONPATH comes before an
installed wheel, and of two distributions that install one file the last one has overwritten the
other's. The functions here read metadata of installed distributions, and import nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import all_suffixes
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote, urlsplit

from importlib_metadata import Distribution

from corral.plugins.entry_points import (
    APPLICATION,
    BUILT_IN,
    PluginEntryPoint,
    Provider,
    canonical_name,
    read_metadata_text,
)
from corral.plugins.report import Report, disable_hint

__all__ = [
    "find_overwritten_modules",
    "find_shadowed_modules",
    "find_unreadable_entry_points",
    "report_shared_modules",
]


def report_shared_modules(entry_points: Sequence[PluginEntryPoint], report: Report) -> None:
    """Report modules that two distributions bring; their entry points must not be imported.

    Modules of different names are compared by what the distributions have installed: two packages
    below one namespace are no fault. Two distributions that provide one queue are reported by the
    catalog, and not here.

    Args:
        entry_points: The entry points that are to be imported. Metadata is read only of those whose
            modules have the first part of their names in common.
        report: Gets the problems.
    """
    by_package: dict[str, list[PluginEntryPoint]] = {}
    claims: dict[Provider, set[str]] = {}
    for each in entry_points:
        if each.group != APPLICATION and each.provider.origin != BUILT_IN:
            by_package.setdefault(each.module.partition(".")[0], []).append(each)
            claims.setdefault(each.provider, set()).add(each.name)
    for alike in by_package.values():
        for one, other in combinations(alike, 2):
            providers = [one.provider, other.provider]
            if not claims[one.provider].isdisjoint(claims[other.provider]):
                continue  # one distribution, or two that claim one queue
            if not report.faulty.isdisjoint({one, other}):
                continue
            message = _describe_shared(one, other)
            if message is None:
                continue
            hint = (
                "uninstall one of them and install the other again, or rename the module in one,"
                f" or {disable_hint(providers[:1])}"
            )
            report.add("shared-module", message, providers, hint=hint)
            report.faulty.update(each for each in alike if each.provider in providers)


def _describe_shared(one: PluginEntryPoint, other: PluginEntryPoint) -> str | None:
    """What two distributions have in common, as a sentence; None if they are independent."""
    modules = {one.module, other.module}
    first, second = (
        {file for module in modules for file in _own_files(each, module)} for each in (one, other)
    )
    who = f"{one.provider} and {other.provider}"
    if first & second:
        return (
            f"{who} both install the file {min(first & second)}:"
            " the one that was installed last has overwritten the other's"
        )
    if one.module == other.module:
        found = f" ({', '.join(sorted(first | second))})" if first | second else ""
        return f"{who} both have entry points that name the module {one.module!r}{found}"
    return None


def _own_files(entry_point: PluginEntryPoint, module: str) -> list[str]:
    """Where a plugin's distribution has installed a module."""
    metadata = entry_point.metadata
    return [] if metadata is None else [*map(str, _module_files(metadata, module))]


def find_shadowed_modules(entry_points: Iterable[PluginEntryPoint]) -> Iterator[str]:
    """Find imported plugins whose files are not those that their distribution has installed.

    Args:
        entry_points: The entry points of imported plugins.

    Yields:
        A warning for each distribution and module, with both paths.
    """
    seen: set[tuple[str, str]] = set()
    for each in entry_points:
        name = each.provider.distribution
        imported = getattr(sys.modules.get(each.module), "__file__", None)
        if each.metadata is None or not imported or (name, each.module) in seen:
            continue
        seen.add((name, each.module))
        installed = [each.metadata]
        if not read_metadata_text(each.metadata, "RECORD"):
            # metadata that a build has left in a checkout: it hides that of an installed wheel
            installed += Distribution.discover(name=name)
        files = (_other_file(distribution, each.module, imported) for distribution in installed)
        if expected := next(filter(None, files), None):
            yield (
                f"{each.module} is imported from {imported}, and {name} has installed it as"
                f" {expected}: a folder that comes first on Python's path hides it"
                " (PYTHONPATH, or the working directory)"
            )


def _other_file(distribution: Distribution, module: str, imported: str) -> str | None:
    """Where a distribution has a module, if that is known and is not what was imported."""
    files = _module_files(distribution, module)
    if files:
        return None if any(_is_same(imported, file) for file in files) else str(files[0])
    root = _editable_folder(distribution)
    if root is None or Path(os.path.realpath(imported)).is_relative_to(os.path.realpath(root)):
        return None
    return str(root)


def _is_same(one: str, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return other.samefile(one)
    except OSError:
        return False


def find_overwritten_modules(entry_points: Iterable[PluginEntryPoint]) -> Iterator[str]:
    """Find files of plugins that another distribution has installed, too.

    Two plugins are refused for that; here any distribution counts.

    Args:
        entry_points: The entry points of imported plugins.

    Yields:
        A warning for each file.
    """
    owners: dict[str, PluginEntryPoint] = {}
    paths: set[str] = set()
    for each in entry_points:
        for file in _own_files(each, each.module):
            owners.setdefault(file, each)
            paths.add(each.module.replace(".", "/"))
    for distribution in Distribution.discover():
        record = read_metadata_text(distribution, "RECORD")
        if not any(path in record for path in paths):
            continue
        mine = _name_of(distribution)
        for listed in _recorded(record):
            owner = owners.get(str(distribution.locate_file(listed)))
            theirs = owner and owner.provider.distribution
            if theirs and mine and canonical_name(theirs) != canonical_name(mine):
                yield (
                    f"{theirs} and {mine} both install the file"
                    f" {distribution.locate_file(listed)}: the one that was installed last has"
                    " overwritten the other's"
                )


def find_unreadable_entry_points() -> Iterator[str]:
    """Find installed distributions whose entry points cannot be read, whatever they are for.

    Corral does not need them. Other libraries read those of every distribution and fail: pydantic
    then runs without its plugins, for example.

    Yields:
        A warning for each.
    """
    for distribution in Distribution.discover():
        try:
            list(distribution.entry_points)
        except (TypeError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8"
            if isinstance(error, TypeError):
                reason = 'it has a line that is neither "[group]" nor "name = module"'
            name = _name_of(distribution) or "a distribution without a name"
            path = distribution.locate_file("")
            yield f"entry_points.txt of {name} in {path} cannot be read: {reason}"


def _name_of(distribution: Distribution) -> str | None:
    try:
        return distribution.name
    except (FileNotFoundError, KeyError, TypeError, UnicodeDecodeError):
        return None


def _module_files(distribution: Distribution, module: str) -> list[Path]:
    """The files of a module that a distribution has installed, as far as its metadata says so.

    Those that an editable installation points to are among them.
    """
    path = module.replace(".", "/")
    wanted = {f"{path}{end}{suffix}" for end in ("", "/__init__") for suffix in all_suffixes()}
    record = read_metadata_text(distribution, "RECORD")
    listed = [*_recorded(record)] if record else []
    folders: list[str] = []
    for each in listed:
        if each.endswith(".pth") and "/" not in each:
            folders += _folders_in(Path(str(distribution.locate_file(each))))
        elif each.startswith("__editable__") and each.endswith("_finder.py"):
            folders += _folders_of_finder(each.removesuffix(".py"), module)
    files = [Path(str(distribution.locate_file(each))) for each in listed if each in wanted]
    if not record:  # an installer that writes none: only what is there counts
        folders.append(str(distribution.locate_file("")))
    below = (Path(folder, each) for folder in folders for each in sorted(wanted))
    return files + [each for each in below if each.is_file()]


def _recorded(record: str) -> Iterator[str]:
    """The paths in a RECORD: lines of `path,hash,size`, where a path with a comma is quoted."""
    for line in record.splitlines():
        path = line.rsplit(",", 2)[0]
        yield path[1:-1].replace('""', '"') if path.startswith('"') else path


def _folders_in(path: Path) -> list[str]:
    """The folders that a `.pth` file adds to Python's path."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]


def _folders_of_finder(name: str, module: str) -> list[str]:
    """The folder in which setuptools' finder of an editable installation looks for a module."""
    mapping: object = getattr(sys.modules.get(name), "MAPPING", None)
    if not isinstance(mapping, dict):
        return []
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        target = mapping.get(".".join(parts[:length]))
        if isinstance(target, str):
            # of `acme.jobs`, mapped as `acme` to /src/acme, the folder is /src
            return [str(Path(target).parents[length - 1])]
    return []


def _editable_folder(distribution: Distribution) -> Path | None:
    """The folder that an editable installation was made from (PEP 610), or None."""
    try:
        origin = json.loads(read_metadata_text(distribution, "direct_url.json") or "{}")
        is_editable = origin["dir_info"]["editable"]
        url = urlsplit(origin["url"])
    except (ValueError, KeyError, TypeError):
        return None
    return Path(unquote(url.path)) if is_editable and url.scheme == "file" else None

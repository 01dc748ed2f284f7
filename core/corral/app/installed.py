"""Reads what a process starts from: its settings, then the plugins, then the catalog."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from corral.catalog import Catalog, Role
from corral.catalog.lock import LOCK_FILE, Lock, check_lock_names, read_lock
from corral.errors import CatalogError, ConfigurationError, Problem
from corral.plugins import PluginEntryPoint, Plugins, Report, built_in_plugins, read_entry_points
from corral.plugins.declared_settings import check_plugin_settings
from corral.plugins.entry_points import UnreadableDistribution
from corral.plugins.provenance import (
    find_overwritten_modules,
    find_shadowed_modules,
    find_unreadable_entry_points,
)
from corral.settings import Settings

__all__ = [
    "CheckedPlugins",
    "Installed",
    "check_installed",
    "log_lock",
    "log_plugin_warnings",
    "read_configured_lock",
    "read_installed",
    "read_plugins",
    "read_settings",
    "read_usable_plugins",
]

log = logging.getLogger("corral")

SLOW_SECONDS: Final = 0.5
"""A longer import of a plugin is named by `corral check`; the six plugins take 0.05 to 0.2 s."""
SLOW_START_SECONDS: Final = 2.0
"""A longer one is logged when a worker starts, too."""


@dataclass(frozen=True, slots=True, eq=False)
class Installed:
    """What a process starts from.

    Attributes:
        settings: The settings, read from the environment.
        plugins: The loaded plugins.
        catalog: The checked queues.
    """

    settings: Settings
    plugins: Plugins
    catalog: Catalog


def read_installed(role: Role = "producer", serves: Iterable[str] | None = None) -> Installed:
    """Read the settings, load the plugins, build the catalog.

    Args:
        role: What this process needs of the plugins; see `Catalog.build`.
        serves: In a worker, the queues it serves; None for all.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: The plugins do not make a catalog.
        UnknownQueue: `serves` names a queue that no plugin declares.
    """
    settings, plugins, lock = _load_plugins()
    return _build_catalog(settings, plugins, lock, role, serves)


@dataclass(frozen=True, slots=True, eq=False)
class CheckedPlugins:
    """What `corral check` has found.

    Attributes:
        installed: What a process would start from; None if it would be refused.
        refusal: Why it would be refused, or None.
        warnings: What looks wrong and refuses nothing, a sentence each.
    """

    installed: Installed | None
    refusal: CatalogError | None
    warnings: tuple[str, ...]


def check_installed(role: Role) -> CheckedPlugins:
    """Do what `read_installed` does, and look for what is wrong and refuses no start.

    Args:
        role: As for `read_installed`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    try:
        settings, plugins, lock = _load_plugins()
    except CatalogError as error:
        return CheckedPlugins(None, error, ())
    warnings = (
        *_find_plugin_warnings(plugins, SLOW_SECONDS),
        *find_overwritten_modules(_loaded_entry_points(plugins)),
        *find_unreadable_entry_points(),
    )
    try:
        installed = _build_catalog(settings, plugins, lock, role)
    except CatalogError as error:
        return CheckedPlugins(None, error, warnings)
    return CheckedPlugins(installed, None, (*warnings, *installed.catalog.warnings))


def log_plugin_warnings(plugins: Plugins) -> None:
    """Log at a worker's start what looks wrong with the plugins that it has loaded."""
    for warning in _find_plugin_warnings(plugins, SLOW_START_SECONDS):
        log.warning(warning)


def _find_plugin_warnings(plugins: Plugins, slow_seconds: float) -> Iterator[str]:
    yield from plugins.warnings
    yield from plugins.find_slow_imports(slow_seconds)
    yield from find_shadowed_modules(_loaded_entry_points(plugins))


def _loaded_entry_points(plugins: Plugins) -> list[PluginEntryPoint]:
    return [each for plugin in plugins.loaded for each in plugin.entry_points]


def log_lock(installed: Installed, *, level: int = logging.WARNING) -> None:
    """Log the lock file's warnings; outside of development also that there is no lock file.

    Args:
        installed: What the process starts from.
        level: The level of the line that says that there is no lock file.
    """
    for warning in installed.catalog.warnings:
        log.warning(warning)
    if not installed.catalog.is_locked and not installed.settings.is_development:
        log.log(
            level,
            "catalog is open: every installed distribution may add queues and see payloads;"
            " see corral lock",
        )


def read_usable_plugins() -> tuple[Installed, tuple[Problem, ...]]:
    """Like `read_installed` for a producer, but without the distributions that have problems.

    For processes that only show things: an operator needs the board most when a plugin is broken.
    No process that enqueues on its own or runs jobs may start like this.

    Returns:
        What the process starts from, and the problems of what was left out.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: A problem is not that of a distribution, which could be left out, but of the
            application or of the lock file.
    """
    settings = read_settings()
    lock = read_configured_lock(settings)
    left_out: set[str] = set()
    problems: list[Problem] = []
    while True:
        disabled = (*settings.disabled_plugins, *sorted(left_out))
        plugins = Plugins.load(application=settings.app, disabled=disabled, check=_name_check(lock))
        try:
            return _build_catalog(settings, plugins, lock), tuple(problems)
        except CatalogError as error:
            faulty = {
                provider.split(" ")[0]
                for problem in error.problems
                for provider in problem.providers
            }
            if faulty <= left_out | {settings.app}:
                raise
            left_out |= faulty
            problems += error.problems


def read_plugins(*, by_lock: bool = True) -> tuple[Settings, Plugins]:
    """Read the settings and load the plugins; of the checks, only the lock file's names are made.

    Args:
        by_lock: Whether the lock file decides which plugins may be imported. False for the command
            that writes it.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: The lock file cannot be read, or there must be one.
    """
    settings, plugins, _ = _load_plugins(by_lock=by_lock)
    return settings, plugins


def _load_plugins(*, by_lock: bool = True) -> tuple[Settings, Plugins, Lock | None]:
    entry_points = [*read_entry_points()]  # once: it reads the metadata of everything installed
    settings = _read_settings(entry_points)
    lock = read_configured_lock(settings) if by_lock else None
    plugins = Plugins.load(
        [*entry_points, *built_in_plugins()],
        application=settings.app,
        disabled=settings.disabled_plugins,
        check=_name_check(lock),
    )
    return settings, plugins, lock


def read_configured_lock(settings: Settings) -> Lock | None:
    """Read the lock file that applies to this process, before any plugin is imported.

    Returns:
        None if there is none, and none is required.

    Raises:
        CatalogError: A lock file is required and there is none, or it cannot be read.
    """
    path, report, lock = settings.lock or LOCK_FILE, Report(), None
    try:
        lock = read_lock(path)
    except ConfigurationError as error:
        report.add("bad-lock", str(error), hint=error.hint)
    else:
        if lock is None and (settings.locked or settings.lock):
            reason = "CORRAL_LOCK names it" if settings.lock else "CORRAL_LOCKED is true"
            hint = (
                "start in the directory that has it, set CORRAL_LOCK to its path, or write it:"
                " corral lock"
            )
            message = f"there is no lock file {str(path)!r}, and {reason}"
            report.add("no-lock", message, hint=hint)
    report.raise_problems()
    return lock


def _build_catalog(
    settings: Settings,
    plugins: Plugins,
    lock: Lock | None,
    role: Role = "producer",
    serves: Iterable[str] | None = None,
) -> Installed:
    patches = settings.lock_patches == "allow"
    catalog = Catalog.build(plugins, role=role, serves=serves, lock=lock, patches=patches)
    check_plugin_settings(plugins, values=role == "check")
    return Installed(settings, plugins, catalog)


def _name_check(lock: Lock | None) -> partial[None] | None:
    """The check of names that is made before any plugin is imported; None without a lock file."""
    return None if lock is None else partial(check_lock_names, lock)


def read_settings() -> Settings:
    """Read the settings; the plugins' metadata is read for their names, and none is imported.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    return _read_settings(read_entry_points())


def _read_settings(entry_points: Iterable[PluginEntryPoint | UnreadableDistribution]) -> Settings:
    """Read the settings. Variables that begin with an entry point's name are that plugin's own."""
    return Settings.read({each.name for each in entry_points if isinstance(each, PluginEntryPoint)})

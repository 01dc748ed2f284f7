"""What a process starts from: settings, then plugins, then the catalog."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from importlib_metadata import version

from corral.catalog import Catalog, Role
from corral.catalog.lock import LOCK_FILE, Lock, check_lock_names, read_lock
from corral.errors import CatalogError, ConfigurationError, Problem
from corral.plugins import Claim, Plugins, Provider, Report, found
from corral.plugins.entry_points import BUILT_IN, PLUGINS, Broken
from corral.settings import Settings

__all__ = [
    "Installed",
    "log_lock",
    "open_lock",
    "read_installed",
    "read_plugins",
    "read_settings",
    "read_usable_plugins",
]

log = logging.getLogger("corral")


@dataclass(frozen=True, slots=True, eq=False)
class Installed:
    """What a process starts from.

    Attributes:
        settings: The environment's word.
        plugins: What is installed and loaded.
        catalog: The queues, checked.
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
        UnknownQueue: `serves` names a queue that nobody declares.
    """
    settings, plugins, lock = _loaded()
    return _built(settings, plugins, lock, role, serves)


def log_lock(installed: Installed, *, level: int = logging.WARNING) -> None:
    """Log what an operator should know of the lock file: in production also that there is none.

    Args:
        installed: What a process starts from.
        level: Of the line that there is none.
    """
    for warning in installed.catalog.warnings:
        log.warning(warning)
    if not installed.catalog.is_locked and not installed.settings.is_development:
        log.log(
            level,
            "catalog is open: every installed distribution may add queues and see payloads; see corral lock",
        )


def read_usable_plugins() -> tuple[Installed, tuple[Problem, ...]]:
    """As `read_installed` for a producer, without the distributions that something is wrong with.

    For whoever only looks on: an operator's board is needed most where a plugin is broken. Nothing
    that enqueues on its own or works may start so.

    Returns:
        What a process starts from; and what is wrong with the rest.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: What is wrong is nobody's whom one could leave out: the application, the lock
        file.
    """
    settings = read_settings()
    lock = open_lock(settings)
    left_out: set[str] = set()
    problems: list[Problem] = []
    while True:
        disabled = (*settings.disabled_plugins, *sorted(left_out))
        plugins = Plugins.load(application=settings.app, disabled=disabled, check=_check_of(lock))
        try:
            return _built(settings, plugins, lock), tuple(problems)
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
    """Read the settings and load the plugins, without judging more than the names that the lock
    file does not have.

    Args:
        by_lock: Whether the lock file says what may be imported; not for whoever writes it.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: The lock file cannot be read, or there must be one.
    """
    settings, plugins, _ = _loaded(by_lock=by_lock)
    return settings, plugins


def _loaded(*, by_lock: bool = True) -> tuple[Settings, Plugins, Lock | None]:
    claims = [*found()]  # once: it reads the metadata of everything that is installed
    settings = _settings_beside(claims)
    lock = open_lock(settings) if by_lock else None
    plugins = Plugins.load(
        [*claims, *_built_in()],
        application=settings.app,
        disabled=settings.disabled_plugins,
        check=_check_of(lock),
    )
    return settings, plugins, lock


def open_lock(settings: Settings) -> Lock | None:
    """The lock file that holds for this process, read before anything is imported.

    Returns:
        None where there is none, and there need not be.

    Raises:
        CatalogError: There must be one and there is none, or it cannot be read.
    """
    path, report, lock = settings.lock or LOCK_FILE, Report(), None
    try:
        lock = read_lock(path)
    except ConfigurationError as error:
        report.add("bad-lock", str(error), hint=error.hint)
    else:
        if lock is None and (settings.locked or settings.lock):
            why = "CORRAL_LOCK names it" if settings.lock else "CORRAL_LOCKED is true"
            hint = "start in the directory that has it, set CORRAL_LOCK to its path, or write it: corral lock"
            report.add("no-lock", f"there is no lock file {str(path)!r}, and {why}", hint=hint)
    report.raise_problems()
    return lock


def _built(
    settings: Settings,
    plugins: Plugins,
    lock: Lock | None,
    role: Role = "producer",
    serves: Iterable[str] | None = None,
) -> Installed:
    patches = settings.lock_patches == "allow"
    return Installed(
        settings,
        plugins,
        Catalog.build(plugins, role=role, serves=serves, lock=lock, patches=patches),
    )


def _check_of(lock: Lock | None) -> partial[None] | None:
    """What looks at names before anything is imported."""
    return None if lock is None else partial(check_lock_names, lock)


def read_settings() -> Settings:
    """Read the settings, and of the plugins only their names.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    return _settings_beside(found())


def _settings_beside(claims: Iterable[Claim | Broken]) -> Settings:
    """The settings; names that begin with one of these entry points' names are a plugin's own."""
    return Settings.read({claim.name for claim in claims if isinstance(claim, Claim)})


def _built_in() -> Iterator[Claim]:
    """The plugins that the core brings along, where what they need is installed; to be disabled
    like others.
    """
    try:
        has_traces = find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        has_traces = False
    if has_traces:
        yield Claim(
            "traces",
            "corral.observe.traces",
            PLUGINS,
            Provider("corral", version("corral"), BUILT_IN),
        )

"""What a process starts from: settings, then plugins, then the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from importlib_metadata import version

from corral.catalog import Catalog, Role
from corral.errors import CatalogError, Problem
from corral.plugins import Claim, Plugins, Provider, found
from corral.plugins.entry_points import PLUGINS, Broken
from corral.settings import Settings

__all__ = ["Installed", "read_installed", "read_plugins", "read_settings", "read_what_fits"]


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
    settings, plugins = read_plugins()
    return Installed(settings, plugins, Catalog.build(plugins, role=role, serves=serves))


def read_what_fits() -> tuple[Installed, tuple[Problem, ...]]:
    """As `read_installed` for a producer, without the distributions that something is wrong with.

    For whoever only looks on: an operator's board is needed most where a plugin is broken. Nothing that enqueues on
    its own or works may start so.

    Returns:
        What a process starts from; and what is wrong with the rest.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: What is wrong is nobody's whom one could leave out: the application, the lock file.
    """
    settings = read_settings()
    left_out: set[str] = set()
    problems: list[Problem] = []
    while True:
        plugins = Plugins.load(application=settings.app, disabled=(*settings.disabled_plugins, *sorted(left_out)))
        try:
            return Installed(settings, plugins, Catalog.build(plugins)), tuple(problems)
        except CatalogError as error:
            faulty = {provider.split(" ")[0] for problem in error.problems for provider in problem.providers}
            if faulty <= left_out | {settings.app}:
                raise
            left_out |= faulty
            problems += error.problems


def read_plugins() -> tuple[Settings, Plugins]:
    """Read the settings and load the plugins, without judging them.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    claims = [*found()]  # once: it reads the metadata of everything that is installed
    settings = _settings_beside(claims)
    return settings, Plugins.load([*claims, *_built_in()], application=settings.app, disabled=settings.disabled_plugins)


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
    """The plugins that the core brings along, where what they need is installed; to be disabled like others."""
    try:
        has_traces = find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        has_traces = False
    if has_traces:
        yield Claim("traces", "corral.observe.traces", PLUGINS, Provider("corral", version("corral"), "built in"))

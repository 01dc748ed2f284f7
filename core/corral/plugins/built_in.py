"""`built_in_plugins`: the plugins that the core brings along.

They are loaded like installed ones, and `CORRAL_DISABLED_PLUGINS` disables them by their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from importlib_metadata import Distribution

from corral.plugins.entry_points import BUILT_IN, PLUGINS, PluginEntryPoint, Provider

__all__ = ["built_in_plugins"]


def built_in_plugins() -> Iterator[PluginEntryPoint]:
    """The entry points of the core's own plugins.

    Yields:
        `sql`, which offers the hook `corral_tables`. Always: a plugin with tables is also installed
        beside producers, which have no SQLAlchemy. `traces`, where OpenTelemetry's API is
        installed.
    """
    installed = Distribution.from_name("corral")
    core = Provider("corral", installed.version, BUILT_IN)
    yield PluginEntryPoint("sql", "corral.sql_hookspecs", PLUGINS, core, metadata=installed)
    try:
        has_traces = find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        has_traces = False
    if has_traces:
        yield PluginEntryPoint("traces", "corral.observe.traces", PLUGINS, core, metadata=installed)

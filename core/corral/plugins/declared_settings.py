"""The settings that plugins declare with `corral_settings`, checked when a process starts."""

from __future__ import annotations

import os

from corral.plugin_settings import PluginSettings, find_problems
from corral.plugins.loading import Plugins
from corral.plugins.report import Report, disable_hint
from corral.settings import has_plugin_variables, refused

__all__ = ["check_plugin_settings"]


def check_plugin_settings(plugins: Plugins, *, values: bool) -> None:
    """Refuse variables below the prefixes of plugins that no setting reads.

    Args:
        plugins: The loaded plugins.
        values: Whether to judge the values of their settings, too.

    Raises:
        CatalogError: A plugin's `corral_settings` raised, or returned something else.
        ConfigurationError: Variables are misspelt, or unusable; it names all of them.
    """
    if not values and not has_plugin_variables(os.environ):
        return  # nothing to judge: a producer need not load what describes the settings
    report = Report()
    declared: list[type[PluginSettings]] = []
    for provider, item in plugins.ask("corral_settings", object, report):
        if isinstance(item, type) and issubclass(item, PluginSettings):
            declared.append(item)
        else:
            name = item.__name__ if isinstance(item, type) else type(item).__name__
            report.add(
                "hook-result",
                f"{provider} returned {name} in the list from corral_settings"
                " instead of a subclass of PluginSettings",
                [provider],
                hint=disable_hint([provider]),
            )
    report.raise_problems()
    problems = [problem for each in declared for problem in find_problems(each, values=values)]
    if problems:
        raise refused([*dict.fromkeys(problems)])

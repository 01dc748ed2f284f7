"""The settings that plugins declare with `corral_settings`, checked when a process starts."""

from __future__ import annotations

import os

from corral.plugin_settings import PluginSettings, find_problems
from corral.plugins.entry_points import Provider
from corral.plugins.loading import Plugins
from corral.plugins.report import Report, disable_hint
from corral.settings import build_settings_error, has_plugin_variables

__all__ = ["check_plugin_settings", "find_setting_problems"]


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
    problems = find_setting_problems(plugins, report, values=values)
    report.raise_problems()
    if problems:
        raise build_settings_error([*dict.fromkeys(sentence for _, sentence in problems)])


def find_setting_problems(
    plugins: Plugins, report: Report, *, values: bool
) -> list[tuple[Provider, str]]:
    """Find the variables below the prefixes of plugins that cannot be read as their settings.

    Args:
        plugins: The loaded plugins.
        report: Gets the problems of plugins whose `corral_settings` raised, or returned something
            else than settings.
        values: Whether to judge the values of their settings, too.

    Returns:
        One sentence for each problem, with the distribution that declares the settings.
    """
    problems: list[tuple[Provider, str]] = []
    for provider, item in plugins.ask("corral_settings", object, report):
        if isinstance(item, type) and issubclass(item, PluginSettings):
            problems += [(provider, each) for each in find_problems(item, values=values)]
        else:
            name = item.__name__ if isinstance(item, type) else type(item).__name__
            report.add(
                "hook-result",
                f"{provider} returned {name} in the list from corral_settings"
                " instead of a subclass of PluginSettings",
                [provider],
                hint=disable_hint([provider]),
            )
    return problems

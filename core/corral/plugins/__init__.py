"""Finds and loads plugins, and calls their hooks.

This is the only part of Corral that imports third-party code on its own account. It knows entry
points and hooks, and neither the store nor what makes a valid catalog. Problems that it finds are
collected in a `Report`; the catalog adds its own before anything is raised. There is no global
state: a process may load plugins twice.
"""

from corral.plugins.built_in import built_in_plugins
from corral.plugins.entry_points import PluginEntryPoint, Provider, read_entry_points
from corral.plugins.job_hooks import Implementation, JobHooks
from corral.plugins.loading import Plugin, Plugins
from corral.plugins.report import Code, Report

__all__ = [
    "Code",
    "Implementation",
    "JobHooks",
    "Plugin",
    "PluginEntryPoint",
    "Plugins",
    "Provider",
    "Report",
    "built_in_plugins",
    "read_entry_points",
]

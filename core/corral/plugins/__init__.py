"""Finds plugins, loads them one by one, and knows whom to blame; later it relays the hooks that run
with every job.

The only part of Corral that imports third-party code on its own account. It knows entry points and
hooks, and nothing of stores or of what makes a catalog: what it finds wrong it collects in a
`Report`, and the catalog adds its own findings before anything is raised. Nothing here is global: a
process may load plugins twice.
"""

from corral.plugins.entry_points import Claim, Provider, found
from corral.plugins.loading import Plugin, Plugins
from corral.plugins.relay import Implementation, Relay
from corral.plugins.report import Code, Report

__all__ = [
    "Claim",
    "Code",
    "Implementation",
    "Plugin",
    "Plugins",
    "Provider",
    "Relay",
    "Report",
    "found",
]

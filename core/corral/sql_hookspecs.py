"""The hook that Corral's SQL part offers: `corral_tables`.

A built-in plugin. It is loaded in every process, also without the extra `sql`, so it imports
neither SQLAlchemy nor `corral.sql`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from corral.hookspecs import hookimpl, hookspec

if TYPE_CHECKING:
    from sqlalchemy import MetaData

__all__ = ["corral_hookspecs", "corral_tables"]


@hookspec
def corral_tables() -> Iterable[MetaData]:
    """Declare SQL tables.

    Called once, by `corral db create` and by a worker in development that makes its own database.
    Import SQLAlchemy and the module with the tables in here.

    Returns:
        The metadata that holds the tables. Two plugins cannot declare tables of one name.

    An exception refuses the command, and is reported with the plugin's name.
    """


@hookimpl
def corral_hookspecs() -> list[object]:
    """Offer this module's hook."""
    return [sys.modules[__name__]]

"""The settings `CORRAL_ACCOUNT_DELETIONS_…`: the grace period, and the file of tables."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from corral import PluginSettings

__all__ = ["DeletionSettings"]

PREFIX = "CORRAL_ACCOUNT_DELETIONS_"


class DeletionSettings(PluginSettings):
    """The settings of `account-deletions`.

    Attributes:
        grace_days: How long a user may change their mind, where `request_deletion` is called
        without `grace`.
        tables: A TOML file of tables that hold users' data; see `tables_file`. A producer need not
        have it.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    grace_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 30.0
    tables: Path | None = None

    @property
    def grace(self) -> timedelta:
        """The grace period."""
        return timedelta(days=self.grace_days)

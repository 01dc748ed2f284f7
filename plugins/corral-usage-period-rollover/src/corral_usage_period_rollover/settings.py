"""The setting `CORRAL_USAGE_PERIOD_ROLLOVER_KEY_DAYS`: how long keys of `record_usage` are kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from corral import PluginSettings

__all__ = ["KEY_DAYS", "RolloverSettings"]

KEY_DAYS = 30.0
"""A month: longer than clients and queues try again, and time to repeat something by hand."""


class RolloverSettings(PluginSettings):
    """The settings of `usage-period-rollover`.

    Attributes:
        key_days: How many days a key of `record_usage` is remembered. Afterwards it counts again.
    """

    model_config = SettingsConfigDict(env_prefix="CORRAL_USAGE_PERIOD_ROLLOVER_")

    key_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = KEY_DAYS

    @property
    def key_lifetime(self) -> timedelta:
        """How long a key is remembered."""
        return timedelta(days=self.key_days)

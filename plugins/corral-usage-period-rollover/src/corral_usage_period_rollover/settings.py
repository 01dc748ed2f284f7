"""That there are no settings: every variable below `CORRAL_USAGE_PERIOD_ROLLOVER_` is refused."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from corral import PluginSettings

__all__ = ["RolloverSettings"]


class RolloverSettings(PluginSettings):
    """The settings of `usage-period-rollover`: none. A variable below the prefix is a mistake."""

    model_config = SettingsConfigDict(env_prefix="CORRAL_USAGE_PERIOD_ROLLOVER_")

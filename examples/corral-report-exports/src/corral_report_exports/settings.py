"""The package's settings."""

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from corral import PluginSettings

__all__ = ["ReportSettings"]


class ReportSettings(PluginSettings):
    """`CORRAL_REPORT_EXPORTS_DIR`: where the files go."""

    model_config = SettingsConfigDict(env_prefix="CORRAL_REPORT_EXPORTS_")

    dir: Path = Path("exports")

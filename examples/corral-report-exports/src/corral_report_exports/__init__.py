"""The queue `report-exports`. This file is all that a producer ever loads."""

from pathlib import Path
from typing import Literal

from pydantic_settings import SettingsConfigDict

from corral import Payload, PluginSettings, Processor, Queue, hookimpl

__all__ = ["ReportExport", "ReportSettings", "report_exports"]


class ReportExport(Payload):
    """A report that a user wants to have as a file."""

    user_id: str  # "userId" in JSON: what a producer in TypeScript writes
    report_id: str
    format: Literal["csv", "pdf"]


report_exports = Queue("report-exports", ReportExport)


class ReportSettings(PluginSettings):
    """`CORRAL_REPORT_EXPORTS_DIR`: where the files go."""

    model_config = SettingsConfigDict(env_prefix="CORRAL_REPORT_EXPORTS_")

    dir: Path = Path("exports")


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue, in every process."""
    return [report_exports]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings: a misspelt variable refuses the start."""
    return [ReportSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor, in workers only: the heavy imports live in here."""
    from corral_report_exports.processor import export_report, open_reports

    return [report_exports.processed_by(export_report, using=open_reports)]

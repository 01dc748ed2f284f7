"""The queue `report-exports`. This file is all that a producer ever loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from corral import Payload, Processor, Queue, hookimpl

if TYPE_CHECKING:
    from corral import PluginSettings

__all__ = ["ReportExport", "report_exports"]


class ReportExport(Payload):
    """A report that a user wants to have as a file."""

    user_id: str  # "userId" in JSON: what a producer in TypeScript writes
    report_id: str
    format: Literal["csv", "pdf"]


report_exports = Queue("report-exports", ReportExport)


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue, in every process."""
    return [report_exports]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings: a misspelt variable refuses the start."""
    from corral_report_exports.settings import ReportSettings

    return [ReportSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor, in workers only: the heavy imports live in here."""
    from corral_report_exports.processor import export_report, open_reports

    return [report_exports.processed_by(export_report, using=open_reports)]

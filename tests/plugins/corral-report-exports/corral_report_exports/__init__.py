"""The good one: what a producer loads of a queue."""

from typing import Literal

from corral import Payload, Processor, Queue, hookimpl


class ReportExport(Payload):
    user_id: str
    report_id: str
    format: Literal["csv", "pdf"]


report_exports = Queue("report-exports", ReportExport)


@hookimpl
def corral_queues() -> list[Queue]:
    return [report_exports]


@hookimpl
def corral_processors() -> list[Processor]:
    from corral_report_exports.processor import export_report, open_reports

    return [report_exports.processed_by(export_report, using=open_reports)]

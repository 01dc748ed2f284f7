"""What a worker does with a job: two plain functions; of the framework only the types."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral import Deps, Job
from corral_report_exports import ReportExport
from corral_report_exports.reports import ExportedReport, Reports
from corral_report_exports.settings import ReportSettings

__all__ = ["export_report", "open_reports"]

log = logging.getLogger("corral_report_exports")


@asynccontextmanager
async def open_reports(deps: Deps) -> AsyncIterator[Reports]:
    """Once per worker: opened before its first job, closed after its last."""
    async with Reports.connect(ReportSettings()) as reports:
        yield reports


async def export_report(job: Job[ReportExport], reports: Reports) -> ExportedReport:
    """Export one report; what is returned is the job's result."""
    log.info("export starting")
    return await reports.export(job.payload, idempotency_key=job.idempotency_key)

"""What only a worker loads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral import Deps, Job
from corral_report_exports import ReportExport


class Reports:
    async def export(self, report: str) -> str:
        return f"{report}.pdf"


@asynccontextmanager
async def open_reports(_deps: Deps) -> AsyncIterator[Reports]:
    yield Reports()


async def export_report(job: Job[ReportExport], reports: Reports) -> str:
    return await reports.export(job.payload.report_id)

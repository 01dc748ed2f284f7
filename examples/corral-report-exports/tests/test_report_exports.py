"""The processor alone with a stand-in for the real work; then everything together."""

from pathlib import Path

import pytest

from corral import testing
from corral.testing import Kit
from corral_report_exports import ReportExport, report_exports
from corral_report_exports.processor import export_report, open_reports
from corral_report_exports.reports import ExportedReport, Reports

PAYLOAD = {"userId": "ada", "reportId": "q3-sales", "format": "csv"}


class FakeReports(Reports):
    """Writes nothing, and remembers the keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def export(self, wanted: ReportExport, *, idempotency_key: str) -> ExportedReport:
        self.keys.append(idempotency_key)
        return ExportedReport(f"{wanted.report_id}.{wanted.format}", size=7)


@pytest.mark.asyncio
async def test_the_processor_alone() -> None:
    reports = FakeReports()
    for attempt in (1, 2):
        job = testing.job(report_exports, PAYLOAD, id="7f3a", attempt=attempt)
        assert await export_report(job, reports) == ExportedReport("q3-sales.csv", size=7)
    assert reports.keys == ["report-exports.7f3a", "report-exports.7f3a"]


@pytest.mark.asyncio
async def test_from_the_producer_to_the_file(
    corral_kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_REPORT_EXPORTS_DIR", str(tmp_path))
    enqueued = await corral_kit.enqueue(report_exports, PAYLOAD)
    drained = await corral_kit.drain(report_exports.processed_by(export_report, using=open_reports))
    assert len(drained) == 1
    written = tmp_path / f"report-exports.{enqueued.id}.csv"
    assert written.read_text("utf-8").splitlines()[1] == "July,41,1290.00"

"""What a job leaves behind: a file that programs can read, one however often the job runs, and
nothing half written.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from pypdf import PdfReader

from corral import Fail, PayloadRefused, testing
from corral.outcome import Failed
from corral_report_exports import ReportExport, report_exports
from corral_report_exports.processor import export_report, open_reports
from corral_report_exports.reports import Reports, write_whole
from corral_report_exports.settings import ReportSettings

PDF = ReportExport(user_id="ada", report_id="q3-sales", format="pdf")
CSV = ReportExport(user_id="ada", report_id="q3-sales", format="csv")


def files(folder: Path) -> list[str]:
    """What is in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.asyncio
async def test_a_csv_is_read_back_as_the_table(tmp_path: Path) -> None:
    exported = await Reports(tmp_path).export(CSV, idempotency_key="report-exports.1")
    written = tmp_path / exported.file
    with written.open(newline="", encoding="utf-8") as text:
        rows = list(csv.reader(text))
    assert rows[0] == ["month", "orders", "total"]
    assert rows[-1] == ["September", "58", "1987.20"]
    assert exported.size == written.stat().st_size


@pytest.mark.asyncio
async def test_a_pdf_is_read_back_with_its_title_and_its_table(tmp_path: Path) -> None:
    exported = await Reports(tmp_path).export(PDF, idempotency_key="report-exports.1")
    read = PdfReader(tmp_path / exported.file, strict=True)
    (page,) = read.pages
    assert read.metadata is not None
    assert read.metadata.title == "Sales, third quarter of 2026"
    assert page.extract_text().splitlines()[-1].split() == ["September", "58", "1987.20"]


@pytest.mark.asyncio
@pytest.mark.parametrize("wanted", [CSV, PDF], ids=lambda wanted: wanted.format)
async def test_a_repetition_leaves_one_file_with_the_same_bytes(
    tmp_path: Path, wanted: ReportExport
) -> None:
    written = []
    for attempt in (1, 2):
        job = testing.job(report_exports, wanted, id="7f3a", attempt=attempt)
        exported = await export_report(job, Reports(tmp_path))
        written.append((exported, (tmp_path / exported.file).read_bytes()))
    assert written[0] == written[1]
    assert files(tmp_path) == [f"report-exports.7f3a.{wanted.format}"]


def test_what_cannot_be_written_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "report-exports.1.csv").mkdir()
    with pytest.raises(OSError, match=r"report-exports\.1\.csv"):
        write_whole(tmp_path / "report-exports.1.csv", b"month")
    assert files(tmp_path) == ["report-exports.1.csv"]


@pytest.mark.asyncio
@pytest.mark.parametrize(("user_id", "report_id"), [("ada", "q4-sales"), ("mallory", "q3-sales")])
async def test_a_report_that_the_user_has_not_is_given_up_at_once(
    corral_kit: testing.Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user_id: str,
    report_id: str,
) -> None:
    monkeypatch.setenv("CORRAL_REPORT_EXPORTS_DIR", str(tmp_path / "made" / "by the worker"))
    await corral_kit.enqueue(
        report_exports, {"userId": user_id, "reportId": report_id, "format": "csv"}
    )
    (run,) = await corral_kit.drain(report_exports.processed_by(export_report, using=open_reports))
    assert isinstance(run.outcome, Failed)
    assert f"user '{user_id}' has no report '{report_id}'" in run.outcome.reason
    assert files(tmp_path / "made" / "by the worker") == []


@pytest.mark.asyncio
async def test_no_id_leads_out_of_the_folder(tmp_path: Path) -> None:
    """An id of another language's producer may hold anything; the key that names the file does not."""
    job = testing.job(report_exports, CSV, id="../../etc/passwd")
    exported = await export_report(job, Reports(tmp_path))
    assert files(tmp_path) == [exported.file]
    with pytest.raises(Fail, match="has no report"):
        await Reports(tmp_path).export(
            CSV.model_copy(update={"report_id": "../secret"}), idempotency_key="x"
        )


@pytest.mark.parametrize("wrong", [{"format": "doc"}, {"reportId": 7}, {"user": "ada"}])
def test_a_wrong_payload_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PayloadRefused):
        report_exports.validated(
            {"userId": "ada", "reportId": "q3-sales", "format": "pdf", **wrong}
        )


def test_exports_go_to_a_folder_of_their_own_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CORRAL_REPORT_EXPORTS_DIR", raising=False)
    assert ReportSettings().dir == Path("exports")
    monkeypatch.setenv("CORRAL_REPORT_EXPORTS_DIR", "/srv/exports")
    assert ReportSettings().dir == Path("/srv/exports")


def test_a_producer_loads_none_of_what_processing_needs() -> None:
    probe = (
        "import sys, corral_report_exports;"
        "heavy = ('fpdf', 'pydantic_settings', 'redis', 'structlog', 'corral_report_exports.processor');"
        "print([name for name in heavy if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.strip() == "[]"

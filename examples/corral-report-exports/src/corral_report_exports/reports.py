"""The reports, and the folder they are exported to: the real work."""

import asyncio
import csv
import io
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from fpdf import FPDF

from corral import Fail
from corral_report_exports import ReportExport
from corral_report_exports.settings import ReportSettings

__all__ = ["ExportedReport", "Reports"]


@dataclass(frozen=True)
class ExportedReport:
    """A job's result: the name of the file, and its size in bytes."""

    file: str
    size: int


@dataclass(frozen=True)
class Report:
    """A table as it was at a moment, and who may read it."""

    title: str
    as_of: datetime
    readers: frozenset[str]
    rows: tuple[tuple[str, str, str], ...]


REPORTS = {  # a package of yours asks its database
    "q3-sales": Report(
        title="Sales, third quarter of 2026",
        as_of=datetime(2026, 9, 30, 23, 59, tzinfo=UTC),
        readers=frozenset({"ada", "bob", "eve"}),
        rows=(
            ("month", "orders", "total"),
            ("July", "41", "1290.00"),
            ("August", "37", "1105.50"),
            ("September", "58", "1987.20"),
        ),
    )
}


class Reports:
    """Exports reports into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: ReportSettings) -> AsyncIterator[Self]:
        """Make the folder; what has to be connected to, and left again, has its place here."""
        settings.dir.mkdir(parents=True, exist_ok=True)
        yield cls(settings.dir)

    async def export(self, wanted: ReportExport, *, idempotency_key: str) -> ExportedReport:
        """Write one file. The key names it, so that a repetition makes no second one."""
        report = REPORTS.get(wanted.report_id)
        if report is None or wanted.user_id not in report.readers:
            raise Fail(
                f"user {wanted.user_id!r} has no report {wanted.report_id!r}"
            )  # and no retry will find one
        file = self.folder / f"{idempotency_key}.{wanted.format}"
        rendered = as_csv if wanted.format == "csv" else as_pdf
        size = await asyncio.to_thread(lambda: write_whole(file, rendered(report)))
        return ExportedReport(file.name, size)


def as_csv(report: Report) -> bytes:
    """The table, as RFC 4180 has it."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(report.rows)
    return text.getvalue().encode()


def as_pdf(report: Report) -> bytes:
    """A page with the title and the table."""
    pdf = FPDF()
    pdf.set_creation_date(
        report.as_of
    )  # not the time of this attempt: every attempt writes the same bytes
    pdf.set_title(report.title)
    pdf.add_page()
    pdf.set_font("Helvetica", size=12)
    pdf.cell(text=report.title, new_x="LMARGIN", new_y="NEXT")
    with pdf.table() as table:
        for cells in report.rows:
            table.row(cells)
    return bytes(pdf.output())


def write_whole(file: Path, content: bytes) -> int:
    """Write all of it or nothing, whoever looks meanwhile; returns its size."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as beside:
        half = Path(beside) / file.name
        half.write_bytes(content)
        half.replace(file)
    return len(content)

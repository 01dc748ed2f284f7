"""What participants hand over: named sets of records, and who gets the archive.

Plain data, without imports.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass

__all__ = ["Recipient", "RecordSet"]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """Records of one kind; one entry of the archive.

    Attributes:
        name: What the entry is named after. Any text: the archive escapes it.
        records: Each a mapping of column to value. It is read once, record by record, when its turn
            comes, and closed afterwards (`aclose`) where it can be.
        rows: How many there are, where that is known: progress follows from it.
        columns: What a CSV has as its columns; None for those of the first record. A set without
            records has a header only if this says so.
    """

    name: str
    records: AsyncIterable[Mapping[str, object]]
    rows: int | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who gets the mail that the export is ready.

    Attributes:
        email: The address.
        locale: `de`, `de-AT`: which variant of the template, where it has one; None for the
        template itself.
    """

    email: str
    locale: str | None = None

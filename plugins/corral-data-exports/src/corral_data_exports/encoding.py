"""Records as bytes, one by one: a JSON array of objects, or a CSV with a header.

Neither ever holds two of them.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from corral_data_exports.cells import cell, plain

__all__ = ["Encoder", "UnlikeRecord", "encoder"]


class UnlikeRecord(Exception):
    """A record with a column that the CSV's header, which is written by then, has not."""


class Encoder(Protocol):
    """Writes the records of one set.

    Attributes:
        columns: The names of the columns: those of the records so far, or those that the set has
            announced.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """See above."""
        ...

    def record(self, record: Mapping[str, object]) -> bytes:
        """One record, and whatever comes before it."""
        ...

    def end(self) -> bytes:
        """What comes after the last one."""
        ...


class JsonArray:
    """Encodes a set as one JSON array, with each record on a line of its own.

    A text editor can show such a file. Each object has its own names.
    """

    def __init__(self, columns: tuple[str, ...] | None) -> None:
        self._before = b"[\n"
        self._columns = dict.fromkeys(columns or ())

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Encoder`."""
        return tuple(map(str, self._columns))

    def record(self, record: Mapping[str, object]) -> bytes:
        """See `Encoder`.

        Bytes are base64 (RFC 4648, section 5), moments ISO 8601, decimal numbers text.
        """
        before, self._before = self._before, b",\n"
        if not self._columns.keys() >= record.keys():
            self._columns |= dict.fromkeys(record)
        try:
            return before + to_json(
                dict(record), bytes_mode="base64", inf_nan_mode="null", fallback=plain
            )
        except (
            PydanticSerializationError
        ):  # half a surrogate pair, for one: only an escape can say that
            jsonable = to_jsonable_python(
                dict(record), bytes_mode="base64", inf_nan_mode="null", fallback=plain
            )
            return before + json.dumps(jsonable).encode()

    def end(self) -> bytes:
        """See `Encoder`."""
        return b"[]\n" if self._before == b"[\n" else b"\n]\n"


class CsvTable:
    """A header and a line per record, as RFC 4180 has it, in UTF-8.

    It begins with a byte order mark, if it is to: without one, Excel takes it for the code page of
    the machine.
    """

    def __init__(self, columns: tuple[str, ...] | None, *, has_byte_order_mark: bool) -> None:
        self._mark = codecs.BOM_UTF8 if has_byte_order_mark else b""
        self._columns = columns
        self._known = frozenset(columns or ())
        self._has_header = False
        self._text = io.StringIO(newline="")
        self._csv = csv.writer(self._text, lineterminator="\r\n")

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Encoder`."""
        return tuple(map(str, self._columns or ()))

    def record(self, record: Mapping[str, object]) -> bytes:
        """See `Encoder`. A column that the record has not is empty.

        Raises:
            UnlikeRecord: It has a column that the header has not.
        """
        if self._columns is None:
            self._columns = tuple(record)
            self._known = frozenset(record)
        if not self._known.issuperset(record):
            unknown = ", ".join(repr(str(name)) for name in record if name not in self._known)
            raise UnlikeRecord(
                f"a record has columns that were neither announced nor in the first: {unknown}"
            )
        self._write_header(self._columns)
        self._csv.writerow([cell(record.get(column)) for column in self._columns])
        return self._take_text()

    def end(self) -> bytes:
        """See `Encoder`."""
        self._write_header(self._columns or ())
        return self._take_text()

    def _write_header(self, columns: tuple[str, ...]) -> None:
        if columns and not self._has_header:
            self._has_header = True
            self._csv.writerow([cell(str(column)) for column in columns])

    def _take_text(self) -> bytes:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        if not text:
            return b""
        mark, self._mark = self._mark, b""
        return mark + text.encode("utf-8", "replace")


def encoder(
    form: Literal["json", "csv"],
    columns: tuple[str, ...] | None,
    *,
    has_byte_order_mark: bool = True,
) -> Encoder:
    """What writes one record set.

    Args:
        form: The export's format.
        columns: What the record set announces, or None.
        has_byte_order_mark: Whether a CSV begins with one.
    """
    if form == "json":
        return JsonArray(columns)
    return CsvTable(columns, has_byte_order_mark=has_byte_order_mark)

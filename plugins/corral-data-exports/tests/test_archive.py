"""A zip that grows by pieces, as Python's own zipfile reads it; records as bytes; progress."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_data_exports.archive import Archive, Entry
from corral_data_exports.encoding import UnlikeRecord, encoder
from corral_data_exports.progress import Progress

PIECES = st.lists(st.one_of(st.binary(max_size=300), st.just(b"x" * 100_000)), max_size=6)


@settings(
    max_examples=50, deadline=None
)  # in a busy moment one may take longer than the 200 ms that it is given
@given(st.lists(PIECES, max_size=4))
def test_an_archive_is_what_was_put_in(entries: list[list[bytes]]) -> None:
    archive, made, reported = Archive(), io.BytesIO(), []
    for number, pieces in enumerate(entries):
        archive.begin(f"e{number}.json")
        for piece in pieces:
            made.write(archive.add(piece))
        rest, entry = archive.end()
        made.write(rest)
        reported.append(entry)
    made.write(archive.close())

    with zipfile.ZipFile(made) as read:
        assert read.testzip() is None
        whole = [b"".join(pieces) for pieces in entries]
        assert [read.read(name) for name in read.namelist()] == whole
    assert reported == [
        Entry(f"e{number}.json", len(data), hashlib.sha256(data).hexdigest())
        for number, data in enumerate(whole)
    ]


def test_what_was_put_in_comes_out_while_more_is_to_come() -> None:
    """Nothing waits for the end: of random bytes, which do not compress, all but what zlib looks
    back on is out.
    """
    archive = Archive()
    archive.begin("noise.bin")
    piece = hashlib.shake_256(b"noise").digest(1 << 20)
    assert sum(len(archive.add(piece)) for _ in range(4)) > 4 * len(piece) - 300_000


def as_text(form, records, columns=None) -> str:
    writer = encoder(form, columns)
    return b"".join([*map(writer.record, records), writer.end()]).decode("utf-8-sig")


def test_json_is_one_array() -> None:
    records = [
        {
            "id": 1,
            "at": datetime(2027, 1, 1, tzinfo=UTC),
            "total": Decimal("1.50"),
            "raw": b"\xff",
            "nan": float("nan"),
        },
        {"id": 2, "name": "Ä\n"},
    ]
    text = as_text("json", records)
    assert json.loads(text) == [
        {"id": 1, "at": "2027-01-01T00:00:00Z", "total": "1.50", "raw": "_w==", "nan": None},
        {"id": 2, "name": "Ä\n"},
    ]
    assert len(text.splitlines()) == 4, "one line per record"
    assert json.loads(as_text("json", [])) == []


@pytest.mark.parametrize("form", ["json", "csv"])
def test_mappings_of_any_type_are_mappings(form) -> None:
    """SQLAlchemy's rows are no dicts."""
    inner = MappingProxyType({"b": [MappingProxyType({"c": 1})]})
    text = as_text(form, [MappingProxyType({"a": inner, "d": ZoneInfo("UTC")})])
    record = json.loads(text)[0] if form == "json" else next(csv.DictReader(io.StringIO(text)))
    assert record == {"a": {"b": [{"c": 1}]} if form == "json" else '{"b":[{"c":1}]}', "d": "UTC"}


def test_json_holds_also_what_utf_8_cannot() -> None:
    assert json.loads(as_text("json", [{"half": "a\ud83d"}])) == [{"half": "a\ud83d"}]


def test_csv_has_a_header_and_a_line_per_record() -> None:
    text = as_text("csv", [{"id": 1, "note": 'a "b", c\nd'}, {"note": "e"}])
    assert text == 'id,note\r\n1,"a ""b"", c\nd"\r\n,e\r\n'
    assert list(csv.DictReader(io.StringIO(text)))[1] == {"id": "", "note": "e"}


def test_csv_has_the_header_that_was_announced_also_without_a_record() -> None:
    assert as_text("csv", [], columns=("id", "=note")) == "id,'=note\r\n"
    assert as_text("csv", [{"b": 1}], columns=("a", "b")) == "a,b\r\n,1\r\n"
    assert as_text("csv", []) == ""


@pytest.mark.parametrize("columns", [None, ("id",)])
def test_csv_loses_no_column_in_silence(columns) -> None:
    writer = encoder("csv", columns)
    writer.record({"id": 1})
    with pytest.raises(UnlikeRecord, match=r"'note'"):
        writer.record({"id": 2, "note": "x"})


def reported_percents(expected: list[int | None], rows: list[list[int]]) -> list[int]:
    said: list[int] = []
    progress = Progress(expected, said.append)
    for counted in rows:
        for number in counted:
            progress.record_rows(number)
        progress.finish_set()
    return said


def test_progress_counts_records_where_all_are_known() -> None:
    assert reported_percents([300, 100], [[150, 300], [50, 100]]) == [0, 37, 74, 86, 99]


def test_progress_counts_record_sets_where_one_is_not() -> None:
    assert reported_percents([300, None, 0], [[150, 300], [7, 8], []]) == [0, 16, 33, 66, 99]


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 50), st.lists(st.integers(0, 80), max_size=5)),
        max_size=5,
    )
)
def test_progress_only_grows_whatever_was_announced(sets) -> None:
    said = reported_percents([expected for expected, _ in sets], [sorted(rows) for _, rows in sets])
    assert said == sorted(set(said))
    assert said[0] == 0
    assert said[-1] == (99 if sets else 0)

"""Archives of a shop on both databases, made in this process: what is in them, and who takes part."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from corral import HookRaised
from corral_data_exports import RecordSet
from corral_data_exports.exporting import RecordsFailed
from corral_data_exports.processor import export_data
from corral_data_exports.storage import object_key

pytestmark = pytest.mark.asyncio


async def records_of(*records: Mapping[str, object]) -> AsyncIterator[Mapping[str, object]]:
    for record in records:
        yield record


# what is in an archive


async def test_json_holds_the_user_s_rows_of_every_table_and_nobody_else_s(shop) -> None:
    job = shop.job(processed_on=datetime(2027, 1, 1, tzinfo=UTC))
    async with shop.exports() as exports:
        made = await export_data(job, exports)

    assert made.key == object_key(job.payload)
    assert shop.archives() == [made.key]
    read = shop.read(made.key)
    assert list(read) == ["orders.json", "visits.json", "manifest.json"]
    number = (
        float if shop.url.startswith("sqlite") else str
    )  # PostgreSQL has decimal numbers, and JSON has none
    assert [{**row, "total": number(row["total"])} for row in json.loads(read["orders.json"])] == [
        {"id": 10, "note": "=1+1", "total": number("12.50"), "paid": True},
        {"id": 12, "note": None, "total": number("-3.00"), "paid": False},
    ]
    assert json.loads(read["visits.json"]) == [{"at": "2027-01-01"}]
    assert json.loads(read["manifest.json"]) == {
        "version": 1,
        "userId": "1",
        "exportId": "e1",
        "format": "json",
        "encoding": "utf-8",
        "madeAt": "2027-01-01T00:00:00Z",
        "entries": [
            {
                "records": name,
                "rows": rows,
                "columns": columns,
                "name": f"{name}.json",
                "size": len(read[f"{name}.json"]),
                "sha256": hashlib.sha256(read[f"{name}.json"]).hexdigest(),
            }
            for name, rows, columns in (
                ("orders", 2, ["id", "note", "total", "paid"]),
                ("visits", 1, ["at"]),
            )
        ],
    }
    assert made.size == (shop.folder / made.key).stat().st_size


async def test_csv_holds_the_same_with_formulas_made_text(shop) -> None:
    async with shop.exports() as exports:
        made = await export_data(shop.job(form="csv"), exports)

    read = shop.read(made.key)
    rows = list(csv.reader(io.StringIO(read["orders.csv"].decode("utf-8-sig"), newline="")))
    assert rows[0] == ["id", "note", "total", "paid"]
    assert [[row[0], row[1], float(row[2]), row[3]] for row in rows[1:]] == [
        ["10", "'=1+1", 12.5, "true"],
        ["12", "", -3.0, "false"],
    ]
    assert read["visits.csv"] == b"\xef\xbb\xbfat\r\n2027-01-01\r\n"
    assert "apostrophe" in json.loads(read["manifest.json"])["formulas"]


KINDS = {
    "sqlite": """
CREATE TABLE main.things (owner TEXT, at TIMESTAMP, doc JSON, raw BLOB, many NUMERIC(30, 10), odd TIMESTAMP);
INSERT INTO main.things VALUES ('1', '2027-01-02 03:04:05', '{"a": [1]}', x'fbff', 1.25, 'yesterday')
""",
    "postgresql": """
CREATE SCHEMA crm;
CREATE TABLE crm.things (owner TEXT, at TIMESTAMPTZ, doc JSONB, raw BYTEA, many NUMERIC(30, 10), odd CIDR);
INSERT INTO crm.things VALUES ('1', '2027-01-02 03:04:05Z', '{"a": [1]}', '\\xfbff', 1.25, '10.0.0.0/8')
""",
}
EXPORTED = {
    "sqlite": ["2027-01-02 03:04:05", {"a": [1]}, "-_8=", 1.25, "yesterday"],
    "postgresql": ["2027-01-02T03:04:05Z", {"a": [1]}, "-_8=", "1.2500000000", "10.0.0.0/8"],
}


async def test_values_of_all_kinds_in_a_table_of_a_schema(shop) -> None:
    """What SQLite keeps is exported as it is kept, also where the column was declared differently."""
    database = shop.url.partition("+")[0]
    schema = {"sqlite": "main", "postgresql": "crm"}[database]
    await shop.run(KINDS[database])
    names = ["at", "doc", "raw", "many", "odd"]
    with (shop.folder.parent / "tables.toml").open("a", encoding="utf-8") as file:
        file.write(f'[tables."{schema}.things"]\nuser_column = "owner"\nexport = {names}\n')
    async with shop.exports() as exports:
        as_json = await export_data(shop.job(), exports)
        as_csv = await export_data(shop.job(form="csv"), exports)

    assert json.loads(shop.read(as_json.key)[f"{schema}_things.json"]) == [
        dict(zip(names, EXPORTED[database], strict=True))
    ]
    header, row = csv.reader(
        io.StringIO(shop.read(as_csv.key)[f"{schema}_things.csv"].decode("utf-8-sig"), newline="")
    )
    assert header == names
    at, _, _, many, odd = map(str, EXPORTED[database])
    assert row == [at, '{"a":[1]}', "'-_8=", many, odd]


async def test_a_user_without_rows_gets_empty_entries(shop) -> None:
    await shop.run("INSERT INTO users VALUES (4, 'eve@example.org')")
    async with shop.exports() as exports:
        as_json = await export_data(shop.job("4"), exports)
        as_csv = await export_data(shop.job("4", form="csv"), exports)
    assert json.loads(shop.read(as_json.key)["orders.json"]) == []
    assert shop.read(as_csv.key)["orders.csv"] == b"\xef\xbb\xbfid,note,total,paid\r\n"


async def test_the_database_is_that_of_one_moment(shop) -> None:
    """An order that is stored while other records are read is in no table of the archive."""

    def data_exports_records() -> dict[str, Any]:
        async def slow() -> AsyncIterator[dict[str, object]]:
            await shop.run(
                "INSERT INTO orders VALUES (13, 1, 'meanwhile', 0, false); UPDATE orders SET note = 'new'"
            )
            yield {"id": 1}

        return {"slow": slow()}

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        made = await export_data(shop.job(), exports)

    read = shop.read(made.key)
    assert list(read) == ["slow.json", "orders.json", "visits.json", "manifest.json"]
    assert [row["note"] for row in json.loads(read["orders.json"])] == ["=1+1", None]
    assert await shop.run("SELECT count(*) FROM orders WHERE note = 'new'") == [(4,)]


# who takes part


async def test_participants_hand_over_record_sets_mappings_or_nothing_and_may_be_asynchronous(
    shop,
) -> None:
    async def data_exports_records(user_id: str, connection: Any) -> list[RecordSet]:
        assert (
            await connection.scalar(text("SELECT email FROM users WHERE id = 1"))
            == "ada@example.org"
        )
        return [
            RecordSet("../../evil", records_of({"user": user_id}), rows=1),
            RecordSet("Orders", records_of({"n": 1}), rows=1),
            RecordSet("\x1b[2J", records_of()),
        ]

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        made = await export_data(shop.job(), exports)
    read = shop.read(made.key)
    assert list(read) == [
        "evil.json",
        "Orders.json",
        "2J.json",
        "orders-2.json",
        "visits.json",
        "manifest.json",
    ]
    assert json.loads(read["evil.json"]) == [{"user": "1"}]
    assert [entry["records"] for entry in shop.manifest(made.key)["entries"]][:3] == [
        "../../evil",
        "Orders",
        "\x1b[2J",
    ]


async def test_a_participant_that_has_nothing_says_none(shop) -> None:
    async with shop.exports(data_exports_records=lambda user_id: None) as exports:
        made = await export_data(shop.job(), exports)
    assert list(shop.read(made.key)) == ["orders.json", "visits.json", "manifest.json"]


async def test_one_that_returns_something_else_is_named(shop) -> None:
    async with shop.exports(data_exports_records=lambda user_id: [{"id": 1}]) as exports:
        with pytest.raises(RecordsFailed, match="acme returned a dict where a RecordSet belongs"):
            await export_data(shop.job(), exports)
    assert shop.archives() == []


async def test_one_that_returns_what_is_no_list_is_named_too(shop) -> None:
    """A set without its brackets; `yield` instead of `return`; a generator that raises when it is
    looked at.
    """

    async def yielding() -> AsyncIterator[RecordSet]:
        yield RecordSet("posts", records_of())

    def raising() -> Iterator[RecordSet]:
        yield RecordSet("posts", records_of())
        raise LookupError("no books")

    for returned, why in [
        (
            RecordSet("posts", records_of()),
            "acme returned a RecordSet, and not a list of RecordSet",
        ),
        (yielding(), "acme returned a async_generator, and not a list of RecordSet"),
        (True, "acme returned a bool, and not a list of RecordSet"),
        (raising(), "the record sets of acme cannot be read: LookupError: no books"),
    ]:
        async with shop.exports(
            data_exports_records=lambda user_id, returned=returned: returned
        ) as exports:
            with pytest.raises(RecordsFailed, match=why):
                await export_data(shop.job(), exports)
    assert shop.archives() == []


async def test_one_that_raises_leaves_no_archive_and_the_next_run_makes_it(shop) -> None:
    """It raises half-way, after more than the storage keeps back; what was asked for rows is
    closed.
    """
    raised: list[int] = []
    closed: list[int] = []

    def data_exports_records() -> dict[str, Any]:
        async def broken() -> AsyncIterator[dict[str, object]]:
            try:
                for number in range(4000):
                    yield {"noise": hashlib.shake_256(str(number).encode()).hexdigest(2000)}
                    if number == 3000 and not raised:
                        raised.append(number)
                        assert shop.is_on_its_way(object_key(shop.job().payload))
                        raise LookupError("gone")
            finally:
                closed.append(1)

        return {"broken": broken()}

    job = shop.job()
    async with shop.exports(data_exports_records=data_exports_records) as exports:
        with pytest.raises(
            RecordsFailed, match="the records of 'broken' cannot be read: LookupError: gone"
        ):
            await export_data(job, exports)
        assert (raised, closed) == ([3000], [1])
        assert shop.archives() == []
        assert shop.jobs.jobs == []

        made = await export_data(job, exports)
    assert shop.archives() == [made.key]
    assert len(json.loads(shop.read(made.key)["broken.json"])) == 4000


async def test_one_that_raises_when_it_is_asked_is_named(shop) -> None:
    def data_exports_records() -> None:
        raise LookupError("no books")

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        with pytest.raises(
            HookRaised, match="acme raised in data_exports_records: LookupError: no books"
        ):
            await export_data(shop.job(), exports)
    assert shop.archives() == []


async def test_a_record_that_a_csv_has_no_column_for_is_named(shop) -> None:
    records = {"odd": records_of({"a": 1}, {"a": 1, "b": 2})}
    async with shop.exports(data_exports_records=lambda user_id: records) as exports:
        with pytest.raises(
            RecordsFailed, match=r"a record of 'odd' cannot be written: UnlikeRecord: .*'b'"
        ):
            await export_data(shop.job(form="csv"), exports)


async def test_a_record_that_is_no_mapping_is_named(shop) -> None:
    async with shop.exports(
        data_exports_records=lambda user_id: {"odd": records_of((1, 2))}
    ) as exports:
        with pytest.raises(
            RecordsFailed,
            match="the records of 'odd' cannot be read: TypeError: a tuple is no record",
        ):
            await export_data(shop.job(), exports)


async def test_an_export_that_is_cancelled_is_not_seen(shop) -> None:
    started = asyncio.Event()

    def data_exports_records() -> dict[str, Any]:
        async def endless() -> AsyncIterator[dict[str, object]]:
            number = 0
            while True:
                number += 1
                yield {"noise": hashlib.shake_256(str(number).encode()).hexdigest(2000)}
                if number == 3000:
                    started.set()
                    await asyncio.Event().wait()

        return {"endless": endless()}

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        running = asyncio.create_task(export_data(shop.job(), exports))
        await started.wait()
        assert len(shop.archives()) == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert shop.archives() == []


async def test_a_participant_that_never_waits_leaves_others_the_event_loop(shop) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    records = {"many": records_of(*({"id": number} for number in range(20_000)))}
    async with shop.exports(data_exports_records=lambda user_id: records) as exports:
        running = asyncio.create_task(other())
        await export_data(shop.job(), exports)
        running.cancel()
    assert turns >= 20_000 // 500, "one turn at least for each piece"

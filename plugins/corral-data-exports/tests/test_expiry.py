"""Archives end: with their links, with their account, and never one beside a deleted account."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from corral import Fail
from corral_data_exports import DataExport, account_deletions_purge
from corral_data_exports.expiry import purge_regularly
from corral_data_exports.processor import export_data
from corral_data_exports.settings import LINK_SECONDS, ExportSettings
from corral_data_exports.storage import REUSED_FOR, Storage, object_key

pytestmark = pytest.mark.asyncio

EXPIRED = timedelta(seconds=LINK_SECONDS) + REUSED_FOR
MINUTE = timedelta(minutes=1)


def make_older(path: Path, age: timedelta) -> None:
    """Make a file look as if it had been written that long ago."""
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


# the byte order mark


@pytest.mark.parametrize(
    ("value", "begins"), [("true", b"\xef\xbb\xbfid,"), ("false", b"id,")], ids=["on", "off"]
)
async def test_a_csv_begins_as_the_setting_says(shop, setting, value: str, begins: bytes) -> None:
    setting(CSV_BYTE_ORDER_MARK=value)
    async with shop.exports() as exports:
        made = await export_data(shop.job(form="csv"), exports)
    assert shop.read(made.key)["orders.csv"].startswith(begins)
    assert shop.manifest(made.key)["byteOrderMark"] is (value == "true")


async def test_the_manifest_names_columns_that_nobody_has_announced(shop) -> None:
    async def uneven() -> AsyncIterator[dict[str, object]]:
        yield {"a": 1}
        yield {"b": 2, "a": 3}

    async with shop.exports(data_exports_records=lambda: {"uneven": uneven()}) as exports:
        made = await export_data(shop.job(), exports)
    assert shop.manifest(made.key)["entries"][0]["columns"] == ["a", "b"]


# with its links


async def test_a_worker_that_starts_deletes_archives_whose_links_have_ended(
    shop, wait_until
) -> None:
    async with shop.exports() as exports:
        old = await export_data(shop.job(), exports)
        young = await export_data(shop.job("2"), exports)
    make_older(shop.folder / old.key, EXPIRED + MINUTE)
    make_older(shop.folder / young.key, EXPIRED - MINUTE)
    async with shop.exports():
        await wait_until(lambda: shop.archives() == [young.key], "the old archive is deleted")


async def test_a_purge_that_fails_is_logged_and_tried_again(
    tmp_path: Path, setting, wait_until, caplog: pytest.LogCaptureFixture
) -> None:
    setting(STORAGE=str(tmp_path / "exports"))
    storage = Storage.prepare(ExportSettings())
    archive = (
        tmp_path / "exports" / object_key(DataExport(user_id="1", export_id="e", format="csv"))
    )
    archive.write_bytes(b"an archive")
    make_older(archive, EXPIRED + MINUTE)
    (tmp_path / "exports").rename(tmp_path / "away")
    with caplog.at_level(logging.WARNING):
        lifetime = timedelta(seconds=LINK_SECONDS)
        async with purge_regularly(storage, lifetime, interval=timedelta(milliseconds=10)):
            await wait_until(lambda: "were not deleted" in caplog.text, "the failure is logged")
            assert (tmp_path / "away" / archive.name).exists()
            (tmp_path / "away").rename(tmp_path / "exports")
            await wait_until(lambda: not archive.exists(), "the archive is deleted")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "data-exports purge"]


async def test_an_archive_is_not_handed_out_with_a_link_that_outlives_it(shop) -> None:
    async with shop.exports() as exports:
        made = await export_data(shop.job(), exports)
        make_older(shop.folder / made.key, REUSED_FOR - MINUTE)
        before = (shop.folder / made.key).stat().st_mtime_ns
        assert await export_data(shop.job(), exports) == made
        assert (shop.folder / made.key).stat().st_mtime_ns == before, "it is used again"

        make_older(shop.folder / made.key, REUSED_FOR + MINUTE)
        again = await export_data(shop.job(), exports)
    assert again.key == made.key
    assert time.time() - (shop.folder / made.key).stat().st_mtime < 60, "it is made again"


# with its account


async def test_an_account_s_archives_are_deleted_and_no_others(shop) -> None:
    async with shop.exports() as exports:
        made = [await export_data(shop.job("1", form=form), exports) for form in ("json", "csv")]
        other = await export_data(shop.job("2"), exports)
    part = shop.folder / f"{made[0].key}.0123456789abcdef.part"
    part.write_bytes(b"of a killed worker")
    (shop.folder / "notes.txt").write_text("somebody else's", "utf-8")
    assert await account_deletions_purge("1") == {"archives": 2}
    assert shop.archives() == sorted([other.key, "notes.txt"])
    assert await account_deletions_purge("1") == {"archives": 0}


async def test_a_worker_that_makes_no_exports_gets_no_directory(tmp_path: Path, setting) -> None:
    setting(STORAGE=str(tmp_path / "none"))
    assert await account_deletions_purge("1") == {"archives": 0}
    assert not (tmp_path / "none").exists()


async def test_an_account_that_is_deleted_while_it_is_exported_leaves_no_archive(shop) -> None:
    """The export reads the database of an earlier moment, in which the user was there."""

    def data_exports_records() -> dict[str, Any]:
        async def slow() -> AsyncIterator[dict[str, object]]:
            await shop.run("DELETE FROM users WHERE id = 1")
            yield {"id": 1}

        return {"slow": slow()}

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        with pytest.raises(Fail, match="unknown"):
            await export_data(shop.job(), exports)
    assert shop.archives() == []
    assert shop.jobs.jobs == []


async def test_a_part_that_a_deletion_removes_makes_no_archive(shop) -> None:
    """Its worker may have lost the lock, so that nobody waits for it."""

    def data_exports_records() -> dict[str, Any]:
        async def noise() -> AsyncIterator[dict[str, object]]:
            for number in range(300):
                yield {"noise": os.urandom(40_000).hex(), "n": number}
            await account_deletions_purge("1")

        return {"noise": noise()}

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        with pytest.raises(OSError):  # noqa: PT011  # obstore's own, or the rename's
            await export_data(shop.job(), exports)
    assert shop.archives() == []


async def test_a_job_that_runs_again_after_the_deletion_deletes_its_archive(shop) -> None:
    """Its worker died between the archive and the look whether the user is still there."""
    async with shop.exports() as exports:
        made = await export_data(shop.job(), exports)
        await shop.run("DELETE FROM users WHERE id = 1")
        assert shop.archives() == [made.key]
        with pytest.raises(Fail, match="unknown"):
            await export_data(shop.job(), exports)
    assert shop.archives() == []


async def test_a_manifest_is_json_that_a_program_reads(shop) -> None:
    async with shop.exports() as exports:
        made = await export_data(shop.job(form="csv"), exports)
    manifest = json.loads(shop.read(made.key)["manifest.json"])
    assert (manifest["version"], manifest["userId"], manifest["exportId"]) == (1, "1", "e1")
    assert (manifest["format"], manifest["encoding"]) == ("csv", "utf-8")
    for entry in manifest["entries"]:
        assert set(entry) == {"records", "rows", "columns", "name", "size", "sha256"}

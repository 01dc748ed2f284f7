"""Archives in a directory and in an S3 (moto's server): whole or not there; opened, signed, purged."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from corral_data_exports import DataExport
from corral_data_exports.processor import export_data
from corral_data_exports.settings import ExportSettings
from corral_data_exports.storage import NoSuchExport, Storage, object_key, open_export

pytestmark = pytest.mark.asyncio

KEY = object_key(DataExport(user_id="1", export_id="e1", format="json"))
NOISE = hashlib.shake_256(b"noise").digest(12 << 20)
"""Three parts of a multipart upload."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 of this test run alone, on a port that the kernel chose."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environ = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
    ) as server:
        try:
            assert server.stdout is not None
            said = ""
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
                line = server.stdout.readline()
                assert line, f"moto did not start: {said}"
                said += line
            yield found[0]
        finally:
            server.kill()


def fetched(url: str, method: str = "GET") -> tuple[bytes, Mapping[str, str]]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
        return answer.read(), answer.headers


def ask(url: str, method: str = "GET") -> str:
    return fetched(url, method)[0].decode()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, setting) -> str:
    """An empty bucket, which the settings name; its URL."""
    ask(f"{s3_server}/moto-api/reset", "POST")
    ask(f"{s3_server}/exports", "PUT")
    aws = {"ENDPOINT_URL": s3_server, "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    for name, value in {**aws, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    setting(STORAGE="s3://exports/of/users")
    return f"{s3_server}/exports"


@pytest.fixture(params=["directory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, setting) -> Storage:
    if request.param == "s3":
        request.getfixturevalue("bucket")
    else:
        setting(STORAGE=str(tmp_path / "exports"))
    return Storage.prepare(ExportSettings())


async def write(storage: Storage, data: bytes = NOISE, key: str = KEY) -> None:
    async with storage.writing(key) as out:
        for start in range(0, len(data), 1 << 20):
            await out.write(data[start : start + (1 << 20)])


async def broken_off(storage: Storage, data: bytes) -> None:
    async with storage.writing(KEY) as out:
        await out.write(data)
        raise LookupError


async def test_an_archive_is_there_when_it_is_complete_and_not_before(storage) -> None:
    async with storage.writing(KEY) as out:
        await out.write(NOISE)
        assert await storage.size(KEY) is None
        with pytest.raises(NoSuchExport):
            await storage.open(KEY)
    assert await storage.size(KEY) == len(NOISE)

    opened = await open_export(KEY)
    chunks = [chunk async for chunk in opened.chunks]
    assert (opened.size, b"".join(chunks)) == (len(NOISE), NOISE)
    assert max(map(len, chunks)) <= 1 << 20


@pytest.mark.parametrize("size", [100, len(NOISE)])
async def test_a_block_that_raises_leaves_nothing(storage, size: int) -> None:
    with pytest.raises(LookupError):
        await broken_off(storage, NOISE[:size])
    assert await storage.size(KEY) is None
    await write(storage)
    assert await storage.size(KEY) == len(NOISE)


async def test_old_archives_are_purged_and_other_objects_are_not(storage) -> None:
    await write(storage, b"an archive")
    await write(storage, b"somebody else's", key="report.zip")
    assert await storage.purge(timedelta(days=1)) == 0
    assert await storage.purge(timedelta(seconds=-60)) == 1
    assert await storage.size(KEY) is None
    assert await storage.size("report.zip") == len("somebody else's")


async def test_archives_of_one_user_are_purged(storage) -> None:
    keys = {
        (user, form): object_key(DataExport(user_id=user, export_id="e1", format=form))
        for user in ("1", "2")
        for form in ("json", "csv")
    }
    for key in keys.values():
        await write(storage, b"an archive", key=key)
    assert await storage.purge_user("1") == 2
    left = {name for name, key in keys.items() if await storage.size(key) is not None}
    assert left == {("2", "json"), ("2", "csv")}
    assert await storage.purge_user("1") == 0


async def test_an_archive_is_deleted_where_it_is_there(storage) -> None:
    await write(storage, b"an archive")
    for _ in range(2):
        await storage.delete(KEY)
        assert await storage.size(KEY) is None


@pytest.mark.parametrize(
    "key", ["../secret", "/etc/passwd", "", ".", f"{KEY}#1", "report.zip", f"x/{KEY}", f"{KEY}\n"]
)
async def test_only_archives_can_be_opened(storage, key: str) -> None:
    await write(storage, b"somebody else's", key="report.zip")
    with pytest.raises(NoSuchExport, match="no export is named"):
        await storage.open(key)


async def test_what_killed_runs_left_in_a_directory_is_removed_by_the_next(
    tmp_path, setting
) -> None:
    setting(STORAGE=str(tmp_path))
    other = f"{KEY[::-1]}.0123456789abcdef.part"
    for name in (f"{KEY}.0123456789abcdef.part", f"{KEY}.fedcba9876543210.part#1", other):
        (tmp_path / name).write_bytes(b"left")
    await write(Storage.prepare(ExportSettings()))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([KEY, other])


async def test_what_nobody_goes_on_with_is_purged_from_a_directory_with_the_archives(
    tmp_path, setting
) -> None:
    setting(STORAGE=str(tmp_path))
    storage = Storage.prepare(ExportSettings())
    for name in (
        f"{KEY}.0123456789abcdef.part",
        f"{KEY}.0123456789abcdef.part#1",
        "notes.zip.1.part",
    ):
        (tmp_path / name).write_bytes(b"left")
    assert await storage.purge(timedelta(days=1)) == 0
    assert len(list(tmp_path.iterdir())) == 3
    assert await storage.purge(timedelta(seconds=-60)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.zip.1.part"]


@pytest.mark.parametrize("first_ends_first", [True, False])
async def test_of_two_that_write_one_archive_at_once_one_is_kept_whole(
    storage, first_ends_first: bool
) -> None:
    """As when a worker has lost its lock and does not know, or an export was enqueued twice."""
    data = {"first": NOISE[: 11 << 20], "second": NOISE}
    went_on = {name: asyncio.Event() for name in data}
    begun = {name: asyncio.Event() for name in data}

    async def run(name: str) -> None:
        async with storage.writing(KEY) as out:
            await out.write(data[name][: 6 << 20])
            begun[name].set()
            await went_on[name].wait()
            await out.write(data[name][6 << 20 :])

    runs: dict[str, asyncio.Task[None]] = {}
    for name in data:  # in turn: each has begun before the next one does
        runs[name] = asyncio.create_task(run(name))
        await begun[name].wait()
    failed: list[str] = []
    for name in ("first", "second") if first_ends_first else ("second", "first"):
        went_on[name].set()
        try:
            await runs[name]
        except OSError:  # another's archive was there, and what it had begun was removed
            failed.append(name)
        kept = b"".join([chunk async for chunk in (await storage.open(KEY)).chunks])
        assert kept in data.values(), (
            "whatever can be seen is whole, and whoever ends first is seen"
        )
    ended = ["first", "second"] if first_ends_first else ["second", "first"]
    if storage.can_sign:
        assert (failed, kept) == ([], data[ended[1]]), "in a bucket the last to end is kept"
    else:
        assert (failed, kept) == ([ended[1]], data[ended[0]]), (
            "in a directory the first to end is, and is never lost"
        )


async def test_an_archive_in_a_directory_is_on_the_disk_before_it_is_seen(
    tmp_path, setting, monkeypatch
) -> None:
    """A machine that loses power must not keep the name and lose what is in it: the name says that
    it is complete.
    """
    setting(STORAGE=str(tmp_path))
    synced: list[tuple[int, bool]] = []

    def fsync(opened: int) -> None:
        synced.append((os.fstat(opened).st_ino, (tmp_path / KEY).exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    await write(Storage.prepare(ExportSettings()))
    assert synced == [((tmp_path / KEY).stat().st_ino, False), (tmp_path.stat().st_ino, True)]


async def test_an_upload_to_s3_is_in_parts_and_none_is_left_open(bucket: str) -> None:
    storage = Storage.prepare(ExportSettings())
    async with storage.writing(KEY) as out:
        await out.write(NOISE)
        assert ask(f"{bucket}?uploads").count("<UploadId>") == 1
    assert ask(f"{bucket}?uploads").count("<UploadId>") == 0
    listed = ask(f"{bucket}?list-type=2")
    assert re.findall(r"<Key>(.*?)</Key>", listed) == [f"of/users/{KEY}"]
    assert re.search(r'-3(&quot;|")</ETag>', listed), "three parts"

    with pytest.raises(LookupError):
        await broken_off(storage, NOISE)
    assert ask(f"{bucket}?uploads").count("<UploadId>") == 0


async def test_s3_signs_a_link_that_downloads_a_zip(bucket: str) -> None:
    storage = Storage.prepare(ExportSettings())
    assert storage.can_sign
    await write(storage)
    url = await storage.sign_url(KEY, timedelta(hours=1))
    assert url is not None
    assert url.startswith(f"{bucket}/of/users/{KEY}?")
    assert "X-Amz-Expires=3600&" in url
    data, headers = fetched(url)
    assert data == NOISE
    assert headers["Content-Type"] == "application/zip"
    assert headers["Content-Disposition"] == 'attachment; filename="export.zip"'


async def test_an_export_to_s3_mails_the_store_s_own_link(shop, bucket: str, setting) -> None:
    setting(BASE_URL="", LINK_SECRET="", LINK_SECONDS="60")
    async with shop.exports() as exports:
        made = await export_data(shop.job(), exports)
        assert await export_data(shop.job(attempt=2), exports) == made
    assert shop.archives() == [], "the directory is not used"
    (mail,) = shop.jobs.jobs
    url = mail.payload.variables["url"]
    assert url.startswith(f"{bucket}/of/users/{made.key}?")
    assert "X-Amz-Expires=60&" in url
    data, _ = fetched(url)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["orders.json", "visits.json", "manifest.json"]
    assert len(data) == made.size


async def test_a_directory_signs_nothing(tmp_path, setting) -> None:
    setting(STORAGE=str(tmp_path))
    assert await Storage.prepare(ExportSettings()).sign_url(KEY, timedelta(hours=1)) is None


async def test_the_key_is_the_same_for_the_same_export_and_a_plain_name_for_any() -> None:
    exports = [
        DataExport(user_id=user, export_id=export, format=form)
        for user in ("1", "1,2", '1","2', "../x")
        for export in ("e", "2", "..", "/")
        for form in ("json", "csv")
    ]
    keys = [object_key(export) for export in exports]
    assert len({*keys}) == len(exports)
    assert all(re.fullmatch(r"[0-9a-f]{24}-[0-9a-f]{40}\.zip", key) for key in keys)
    assert len({key.partition("-")[0] for key in keys}) == 4, "a user's archives begin alike"
    assert KEY == "391552c099c101b131feaf24-1e622d140b95d56a7b017a92951cf51e2581d38d.zip", (
        "archives of earlier versions are found"
    )

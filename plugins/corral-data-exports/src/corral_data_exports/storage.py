"""Where archives are kept: a directory, or a bucket of S3, Google or Azure.

One key, one archive, whole or not there.

An archive is one multipart upload that is completed at its end; in a directory, a file of another
name that is renamed then. It knows nothing of jobs and hooks; the application opens archives with
it, too.

obstore takes 4 MiB of memory. For a bucket it is loaded at once, since only obstore can judge the
bucket's URL; for a directory with the first archive, so that a worker that makes none does not have
it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from pydantic_core import to_json

from corral.errors import ConfigurationError, CorralError
from corral_data_exports import DataExport
from corral_data_exports.settings import ExportSettings

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, Attributes
    from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

__all__ = [
    "NoSuchExport",
    "OpenedExport",
    "Storage",
    "directory_of",
    "object_key",
    "open_export",
]

PART_BYTES: Final = 5 * 1024 * 1024
"""The smallest part that S3 takes. It takes 10,000 of them, so an archive ends at 48 GiB."""

PARTS_AT_ONCE: Final = 2
"""How many parts are on their way at once: they are all of an archive that is in memory."""

CHUNK_BYTES: Final = 256 * 1024
"""What a download hands over at once, at least."""

KEY: Final = re.compile(r"(?:[0-9a-f]{24}-)?[0-9a-f]{40}\.zip")
"""Without the user's part: an archive of an earlier release, which only its age deletes."""

PART: Final = re.compile(KEY.pattern + r"\.[0-9a-f]{16}\.part(?:#\d+)?")
"""A file in a directory that is not complete; `#1` is obstore's name for what it is writing."""

REUSED_FOR: Final = timedelta(hours=1)
"""How long an archive is handed out again by the same export, each time with a new link. An archive
is deleted when that and the lifetime of a link have passed, so no link outlives its archive.
"""

ATTRIBUTES: Final[Attributes] = {
    "Content-Type": "application/zip",
    "Content-Disposition": 'attachment; filename="export.zip"',
}
"""What a browser makes of an object store's signed link; a directory keeps no such thing."""


class NoSuchExport(CorralError):
    """No finished archive has this key: it was never made, is not ready yet, or was deleted."""


@dataclass(frozen=True, slots=True)
class OpenedExport:
    """A finished archive.

    Attributes:
        size: Its length in bytes.
        chunks: Its bytes, a quarter of a MiB at a time; read once.
    """

    size: int
    chunks: AsyncIterator[bytes]


def object_key(export: DataExport) -> str:
    """The name of an export's archive in the storage: always the same, and a safe file name.

    User and format are in it, so that an export id that somebody uses twice never hands out another
    user's archive. It begins with a hash of the user's id: a deletion finds all archives of a user.
    """
    said = to_json([export.user_id, export.export_id, export.format])
    return f"{_user_prefix(export.user_id)}{hashlib.sha256(said).hexdigest()[:40]}.zip"


def _user_prefix(user_id: str) -> str:
    """How the names of all archives of a user begin."""
    return f"{hashlib.sha256(to_json(user_id)).hexdigest()[:24]}-"


async def open_export(key: str, settings: ExportSettings | None = None) -> OpenedExport:
    """Open a finished archive, for the application's download route.

    Args:
        key: What `corral_data_exports.links.verified` returned, or a job's result says.
        settings: By default those of this process's environment.

    Raises:
        NoSuchExport: There is none.
        ConfigurationError: The settings cannot be used.
        Exception: The storage failed; whatever obstore raises.
    """
    return await Storage.prepare(settings or ExportSettings()).open(key)


class Storage:
    """Archives by their keys.

    Args:
        where: The bucket they are in, or the directory.
    """

    def __init__(self, where: S3Store | GCSStore | AzureStore | Path) -> None:
        self._where = where
        self._folder = where if isinstance(where, Path) else None

    @classmethod
    def prepare(cls, settings: ExportSettings) -> Storage:
        """Prepare the storage that the settings name.

        Nothing is connected; a directory is made, for its owner alone.

        Raises:
            ConfigurationError: It names nothing that can be written to.
        """
        location = settings.location
        if (directory := directory_of(location)) is not None:
            return cls(_make_directory(directory, location))
        from obstore.exceptions import BaseError  # noqa: PLC0415  # see above
        from obstore.store import AzureStore, GCSStore, S3Store, from_url  # noqa: PLC0415  # as above

        try:
            store = from_url(location)
        except (BaseError, ValueError) as error:
            raise _refused(location, _first_line(error)) from error
        if not isinstance(store, S3Store | GCSStore | AzureStore):
            raise _refused(location, "archives cannot be kept there")
        return cls(store)

    @cached_property
    def _store(self) -> LocalStore | S3Store | GCSStore | AzureStore:
        if not isinstance(self._where, Path):
            return self._where
        from obstore.store import LocalStore  # noqa: PLC0415  # see above

        return LocalStore(self._where)

    async def size(self, key: str, *, younger_than: timedelta = timedelta.max) -> int | None:
        """The length of a finished archive in bytes; None where there is none, or an older one."""
        try:
            found = await self._store.head_async(key)
        except FileNotFoundError:
            return None
        is_young = datetime.now(UTC) - found["last_modified"] < younger_than
        return found["size"] if is_young else None

    @asynccontextmanager
    async def writing(self, key: str) -> AsyncIterator[AsyncWritableFile]:
        """Write an archive. It is there when the block has ended; if that raises, nothing of it is.

        Of two that write one archive at once, the last to end is what is kept, whole; in a
        directory the first to end is, and the other cannot end.

        Raises:
            Exception: The storage failed; whatever obstore raises.
        """
        from obstore import open_writer_async  # noqa: PLC0415  # see above

        # obstore's own name for what is on its way is `<key>#1`, which two would share, and one
        # rename for the other
        written = f"{key}.{secrets.token_hex(8)}.part" if self._folder is not None else key
        writer = open_writer_async(
            self._store,
            written,
            attributes=None if self._folder is not None else ATTRIBUTES,
            buffer_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )
        async with writer:  # completes the upload, or aborts it where an exception comes through
            yield writer
        if self._folder is not None:
            await asyncio.to_thread(_settle, self._folder, written, key)

    async def open(self, key: str) -> OpenedExport:
        """Open a finished archive.

        Raises:
            NoSuchExport: There is none.
        """
        if not KEY.fullmatch(key):
            raise NoSuchExport(f"no export is named {key!r}")
        try:
            found = await self._store.get_async(key)
        except FileNotFoundError:
            raise NoSuchExport(f"no export is named {key!r}") from None

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

        return OpenedExport(found.meta["size"], chunks())

    @property
    def can_sign(self) -> bool:
        """Whether it makes links that expire; a directory does not."""
        return self._folder is None

    async def sign_url(self, key: str, lifetime: timedelta) -> str | None:
        """Make a link that the object store itself signs; None where archives are in a directory.

        Raises:
            Exception: The store's credentials cannot sign; whatever obstore raises.
        """
        if isinstance(self._where, Path):
            return None
        from obstore import sign_async  # noqa: PLC0415  # see above

        return await sign_async(self._where, "GET", key, lifetime)

    async def purge(self, older_than: timedelta) -> int:
        """Delete archives, and parts of archives, that are older than this; no other objects.

        Returns:
            How many archives were deleted.

        Raises:
            Exception: The storage failed; whatever obstore raises. Call it again.
        """
        before = datetime.now(UTC) - older_than
        return await self._delete(lambda _, modified: modified < before)

    async def purge_user(self, user_id: str) -> int:
        """Delete all archives of a user, and parts of archives; an export that writes one fails.

        Returns:
            How many archives were deleted.

        Raises:
            Exception: As `purge`.
        """
        prefix = _user_prefix(user_id)
        return await self._delete(lambda name, _: name.startswith(prefix))

    async def delete(self, key: str) -> None:
        """Delete an archive, if it is there.

        Raises:
            Exception: As `purge`.
        """
        await self._delete_objects([key])

    async def _delete(self, is_chosen: Callable[[str, datetime], bool]) -> int:
        """Delete the archives that a function of name and last change chooses."""
        if self._folder is not None:  # without obstore, see above
            return await asyncio.to_thread(_delete_files, self._folder, is_chosen)
        chosen: list[str] = []
        async for page in self._store.list():
            chosen += [
                found["path"]
                for found in page
                if KEY.fullmatch(found["path"]) and is_chosen(found["path"], found["last_modified"])
            ]
        await self._delete_objects(chosen)
        return len(chosen)

    async def _delete_objects(self, keys: list[str]) -> None:
        if not keys:
            return
        try:
            await self._store.delete_async(keys)
        except FileNotFoundError:  # another worker was faster; the rest is deleted one by one
            for key in keys:
                with suppress(FileNotFoundError):
                    await self._store.delete_async(key)


def _settle(folder: Path, written: str, key: str) -> None:
    """Rename a file to a complete archive's name, durably: a power failure does not undo it.

    What others have begun is deleted now and not sooner: two that run for long would delete each
    other's for ever.
    """
    _sync(folder / written)
    (folder / written).replace(folder / key)
    _sync(folder)
    _clear(folder, key)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _clear(folder: Path, key: str) -> None:
    """Delete parts that other runs began for a key: they were killed, or will fail at their end."""
    for begun in folder.glob(f"{key}.*.part*"):
        begun.unlink(missing_ok=True)


def _delete_files(folder: Path, is_chosen: Callable[[str, datetime], bool]) -> int:
    """Delete chosen archives, and parts of archives; returns how many archives were deleted."""
    deleted = 0
    for path in folder.iterdir():
        is_archive = KEY.fullmatch(path.name) is not None
        if not is_archive and PART.fullmatch(path.name) is None:
            continue
        with suppress(FileNotFoundError):  # another worker was faster
            if is_chosen(path.name, datetime.fromtimestamp(path.stat().st_mtime, UTC)):
                path.unlink()
                deleted += is_archive
    if deleted:
        _sync(folder)
    return deleted


def directory_of(location: str) -> Path | None:
    """The directory that a location names, whether it is there or not; None for a bucket."""
    if location.startswith("file://"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location else Path(location)


def _make_directory(path: Path, location: str) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.resolve()
    except OSError as error:
        raise _refused(location, _first_line(error)) from error


def _refused(location: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"CORRAL_DATA_EXPORTS_STORAGE {location!r} cannot be used: {why}",
        hint="write a directory, or s3://bucket/folder, gs://bucket/folder, az://container/folder",
    )


def _first_line(error: Exception) -> str:
    """What obstore says, without its debug print."""
    return str(error).partition("\n")[0]

"""Makes one archive: asks the participants, and writes their records to the storage in parts.

It knows nothing of queues, jobs and mail; its progress goes to a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from corral import Deps
from corral_data_exports import DataExport, hookspecs
from corral_data_exports.archive import Archive
from corral_data_exports.encoding import Encoder, encoder
from corral_data_exports.entry_names import MANIFEST, entry_names
from corral_data_exports.progress import Progress
from corral_data_exports.records import RecordSet

if TYPE_CHECKING:
    from obstore import AsyncWritableFile

__all__ = ["RecordsFailed", "record_sets", "write_archive"]

PIECE_BYTES: Final = 128 * 1024
PIECE_RECORDS: Final = 500
"""How much is encoded before it is compressed, on a thread, while other jobs have the event loop.
Reading and encoding take it for some 10 ms at a time (99 of 100 gaps, 200,000 rows of 3 columns).
"""


MANIFEST_VERSION: Final = 1
"""Of the manifest: a field that goes, or means something else, makes it another one."""


class RecordsFailed(Exception):
    """A participant's records are missing, or cannot be read or written; the message names it."""


async def record_sets(deps: Deps, user_id: str, connection: AsyncConnection) -> list[RecordSet]:
    """Ask everybody for their record sets; nobody's records are read yet.

    Raises:
        RecordsFailed: Somebody returned what is none.
        HookRaised: Somebody raised.
    """
    asked = await deps.ask_all(
        hookspecs.data_exports_records, user_id=user_id, connection=connection
    )
    sets: list[RecordSet] = []
    for answer in asked:
        value: Any = answer.value
        if isinstance(value, Mapping):
            value = [RecordSet(str(name), records) for name, records in value.items()]
        if not isinstance(value, Iterable | None):
            raise RecordsFailed(
                f"{answer.provider} returned a {type(value).__name__}, and not a list of RecordSet"
            )
        try:
            value = list(value or ())
        except Exception as error:  # a generator may raise anything
            raise RecordsFailed(
                f"the record sets of {answer.provider} cannot be read: {_error_text(error)}"
            ) from error
        for found in value:
            if not isinstance(found, RecordSet):
                raise RecordsFailed(
                    f"{answer.provider} returned a {type(found).__name__} where a RecordSet belongs"
                )
            sets.append(found)
    return sets


async def write_archive(
    export: DataExport,
    sets: list[RecordSet],
    out: AsyncWritableFile,
    *,
    made_at: datetime,
    on_progress: Callable[[int], object],
    has_byte_order_mark: bool = True,
) -> int:
    """Write all records and the manifest.

    Args:
        export: What is exported.
        sets: Everybody's record sets.
        out: Takes the archive's bytes.
        made_at: What the manifest says as its moment.
        on_progress: Called with whole percents that grow, from 0 to 99.
        has_byte_order_mark: Whether a CSV begins with one.

    Returns:
        The length of the archive in bytes.

    Raises:
        RecordsFailed: A record set could not be read or written.
        Exception: The storage failed.
    """
    archive, progress, size = Archive(), Progress([found.rows for found in sets], on_progress), 0
    entries: list[dict[str, object]] = []

    async def write(made: bytes) -> None:
        nonlocal size
        size += len(made)
        if made:
            await out.write(made)

    for found, name in zip(
        sets, entry_names((found.name for found in sets), f".{export.format}"), strict=True
    ):
        archive.begin(name)
        encode = encoder(export.format, found.columns, has_byte_order_mark=has_byte_order_mark)
        rows = await _write_records(found, encode, archive, write, progress)
        made, entry = archive.end()
        await write(made)
        progress.finish_set()
        entries.append(
            {"records": found.name, "rows": rows, "columns": encode.columns, **asdict(entry)}
        )
    archive.begin(MANIFEST)
    manifest = _manifest(export, entries, made_at, has_byte_order_mark=has_byte_order_mark)
    await write(archive.add(manifest))
    made, _ = archive.end()
    await write(made + archive.close())
    return size


async def _write_records(
    found: RecordSet,
    encode: Encoder,
    archive: Archive,
    write: Callable[[bytes], Awaitable[None]],
    progress: Progress,
) -> int:
    rows = begun = 0
    piece = bytearray()

    async def compress() -> None:
        nonlocal begun
        made = await asyncio.to_thread(archive.add, bytes(piece))
        piece.clear()
        begun = rows
        await write(made)

    async with aclosing(_records(found)) as records:
        async for record in records:
            try:
                piece += encode.record(record)
            except Exception as error:  # values are anything
                raise RecordsFailed(
                    f"a record of {found.name!r} cannot be written: {_error_text(error)}"
                ) from error
            rows += 1
            if len(piece) >= PIECE_BYTES or rows - begun >= PIECE_RECORDS:
                await compress()
                progress.record_rows(rows)
    piece += encode.end()
    await compress()
    return rows


async def _records(found: RecordSet) -> AsyncGenerator[Mapping[str, object], None]:
    """The records of a set: an error names their provider, and they are always closed."""
    try:
        async for record in found.records:
            if not isinstance(record, Mapping):
                raise TypeError(f"a {type(record).__name__} is no record")  # noqa: TRY301  # blamed as what it raises
            yield record
    except Exception as error:  # a participant may raise anything
        raise RecordsFailed(
            f"the records of {found.name!r} cannot be read: {_error_text(error)}"
        ) from error
    finally:
        if (close := getattr(found.records, "aclose", None)) is not None:
            await close()


def _manifest(
    export: DataExport,
    entries: list[dict[str, object]],
    made_at: datetime,
    *,
    has_byte_order_mark: bool,
) -> bytes:
    said = {
        "version": MANIFEST_VERSION,
        "userId": export.user_id,
        "exportId": export.export_id,
        "format": export.format,
        "encoding": "utf-8",
        "madeAt": made_at,
        "entries": entries,
    }
    if export.format == "csv":
        said["byteOrderMark"] = has_byte_order_mark
        said["formulas"] = "a text that a spreadsheet would run has an apostrophe in front"
    return to_json(said, indent=2)


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

"""The queue `data-exports`: everything that is kept about one user, as a zip archive.

All that a producer ever loads.

It must know neither databases nor storage: corral and pydantic are enough to import it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import StringConstraints

from corral import Exponential, JobOptions, Payload, Processor, Queue, hookimpl
from corral_data_exports import hookspecs
from corral_data_exports.records import Recipient, RecordSet

if TYPE_CHECKING:  # workers have it, producers need not
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import PluginSettings

__all__ = ["DataExport", "Recipient", "RecordSet", "data_exports"]

Id = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=128)]
"""Any text. Control characters are refused: PostgreSQL stores no NUL."""


class DataExport(Payload):
    """One export of one user's data.

    Attributes:
        user_id: Whose data.
        export_id: Names the export: the same user, id and format again are the same archive, which
        is made once.
        format: What the record sets are written as.
    """

    user_id: Id
    export_id: Id
    format: Literal["json", "csv"]


data_exports = Queue(
    "data-exports",
    DataExport,
    # somebody waits for the archive: a storage or a database may be away for a day
    options=JobOptions(
        backoff=Exponential(delay=timedelta(minutes=1), jitter=0.25, max=timedelta(hours=1))
    ).retrying_for(timedelta(days=1)),
    timeout=timedelta(
        hours=4
    ),  # a database or a storage that hangs must not hold a slot, and a snapshot, for ever
    concurrency=2,  # each has a database connection, and some 15 MiB on their way to the storage
)


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue."""
    return [data_exports]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings, `CORRAL_DATA_EXPORTS_…`."""
    from corral_data_exports.settings import ExportSettings  # noqa: PLC0415  # read where it is needed

    return [ExportSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor; database, archive and storage are imported in here."""
    from corral_data_exports.processor import export_data, open_exports  # noqa: PLC0415  # workers only

    return [data_exports.processed_by(export_data, using=open_exports)]


@hookimpl
def corral_hookspecs() -> list[object]:
    """What applications and other plugins may take part in."""
    return [hookspecs]


@hookimpl
def data_exports_records(user_id: str, connection: AsyncConnection) -> Awaitable[list[RecordSet]]:
    """The rows of the tables that `CORRAL_DATA_EXPORTS_TABLES` names."""
    from corral_data_exports.tables import ConfiguredTables  # noqa: PLC0415  # a producer has no SQLAlchemy

    return ConfiguredTables.from_environment().record_sets(user_id, connection)


@hookimpl(trylast=True)
def data_exports_recipient(
    user_id: str, connection: AsyncConnection
) -> Awaitable[Recipient | None]:
    """Find a user in the table that `[users]` of the tables file names."""
    from corral_data_exports.tables import ConfiguredTables  # noqa: PLC0415  # a producer has no SQLAlchemy

    return ConfiguredTables.from_environment().recipient(user_id, connection)


@hookimpl(optionalhook=True)
def account_deletions_purge(user_id: str) -> Awaitable[Mapping[str, int]]:
    """Delete a user's archives, for `corral-account-deletions`, where that is installed."""
    from corral_data_exports.expiry import purge_user  # noqa: PLC0415  # a producer has no storage

    return purge_user(user_id)

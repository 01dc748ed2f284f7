"""The processor of `data-exports`: makes the archive, unless it exists, and mails its user."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import corral.inspector
import corral.sql
import corral_data_exports
from corral import Deps, Fail, Job
from corral.errors import DatabaseUnavailable
from corral_data_exports import DataExport, hookspecs
from corral_data_exports.expiry import purge_regularly
from corral_data_exports.exporting import record_sets, write_archive
from corral_data_exports.mail import MAIL_QUEUE, ReadyMail
from corral_data_exports.records import Recipient
from corral_data_exports.settings import ExportSettings
from corral_data_exports.storage import REUSED_FOR, Storage, object_key
from corral_data_exports.tables import ConfiguredTables

__all__ = ["Exports", "FinishedExport", "export_data", "open_exports"]

log = logging.getLogger("corral_data_exports")


class FinishedExport(BaseModel):
    """The job's result.

    Attributes:
        key: The archive's name in the storage.
        size: Its length in bytes.
        mail: The id of the job that mails the link; None where no link can be made, or nobody
        mails.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    key: str
    size: int
    mail: str | None


class Exports:
    """What exports are made with.

    Args:
        engine: The database that participants read.
        deps: Asks `data_exports_recipient` and `data_exports_records`.
        storage: Where archives go.
        mail: Enqueues the mail to the user.
        has_byte_order_mark: Whether a CSV begins with one.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        deps: Deps,
        storage: Storage,
        mail: ReadyMail,
        *,
        has_byte_order_mark: bool = True,
    ) -> None:
        # without this option SQLite takes a writer's turn at BEGIN; each database ignores the
        # options of the other
        self._engine = engine.execution_options(sqlite_begin="DEFERRED")
        if engine.dialect.name == "postgresql":
            self._engine = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self.deps = deps
        self.storage = storage
        self.mail = mail
        self.has_byte_order_mark = has_byte_order_mark

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees the database of one moment, however long it lasts.

        Raises:
            DatabaseUnavailable: The database cannot be reached.
        """
        async with AsyncExitStack() as stack:
            with corral.sql.database_errors(
                self._engine
            ):  # not around the block: storages raise OSError, too
                connection = await stack.enter_async_context(self._engine.connect())
            yield connection

    async def find_recipient(self, export: DataExport, connection: AsyncConnection) -> Recipient:
        """Find out who the user is. Of an unknown one, this export's archive is deleted.

        Raises:
            Fail: Nobody knows them.
            HookRaised: Somebody raised.
        """
        user_id = export.user_id
        found = await self.deps.ask_first(
            hookspecs.data_exports_recipient, user_id=user_id, connection=connection
        )
        if found is None:
            await self.storage.delete(object_key(export))
            raise Fail(f"user {user_id!r} is unknown, or has no address")
        if not isinstance(found, Recipient):
            raise TypeError(
                f"data_exports_recipient returned a {type(found).__name__}"
                " where a Recipient belongs"
            )
        return found


@asynccontextmanager
async def open_exports(deps: Deps) -> AsyncIterator[Exports]:
    """What this worker exports with.

    The database may be away; it is compared with the tables' file where it is not.

    Raises:
        ConfigurationError: A setting cannot be used, or the tables' file names what the database
        has not.
    """
    settings = ExportSettings()
    tables = ConfiguredTables.from_environment()
    storage = Storage.prepare(settings)
    engine = await deps.enter(corral.sql.engine)
    exports = Exports(
        engine,
        deps,
        storage,
        ReadyMail(deps.jobs, storage, settings),
        has_byte_order_mark=settings.csv_byte_order_mark,
    )
    with suppress(DatabaseUnavailable), corral.sql.database_errors(engine):
        async with exports.snapshot() as connection:
            await tables.check(connection)
    inspector = await deps.enter(corral.inspector.of_worker)
    has_mail_queue = MAIL_QUEUE in inspector.queues
    for missing in _missing(deps, tables, exports.mail, has_mail_queue=has_mail_queue):
        log.warning(missing)
    async with purge_regularly(storage, settings.link_lifetime):
        yield exports


def _missing(
    deps: Deps, tables: ConfiguredTables, mail: ReadyMail, *, has_mail_queue: bool
) -> Iterator[str]:
    """What is not set up, and what comes of it.

    A worker starts without it: it may have other queues to serve.
    """
    if tables.users is None and not _has_others(deps, hookspecs.data_exports_recipient):
        yield (
            "nobody says who a user is, so every export will fail: "
            "set CORRAL_DATA_EXPORTS_TABLES to a file with [users],"
            " or implement data_exports_recipient"
        )
    if not tables.exported and not _has_others(deps, hookspecs.data_exports_records):
        yield (
            "nobody hands over records, so archives will hold a manifest alone: "
            "set CORRAL_DATA_EXPORTS_TABLES to a file with tables,"
            " or implement data_exports_records"
        )
    if not mail.has_links:
        yield (
            "users get no mail about finished exports, because there is no link to send: "
            "set CORRAL_DATA_EXPORTS_BASE_URL and CORRAL_DATA_EXPORTS_LINK_SECRET,"
            " or keep archives in an object store"
        )
    elif not has_mail_queue:
        yield "users get no mail about finished exports, because no queue emails is installed"


def _has_others(deps: Deps, spec: Callable[..., object]) -> bool:
    """Whether another module than this plugin implements a hook."""
    return any(name != corral_data_exports.__name__ for name in deps.implementers(spec))


async def export_data(job: Job[DataExport], exports: Exports) -> FinishedExport:
    """Make the archive and enqueue the mail; each only if an earlier run of this export has not.

    A user who is deleted while this runs has no archive afterwards: either the deletion sees the
    archive, or this sees that the user is unknown.

    Returns:
        Where the archive is.

    Raises:
        Fail: The user is unknown, or the mail can never be enqueued.
        RecordsFailed: A participant's records could not be read or written; no archive is seen.
        HookRaised: A participant raised.
        Exception: Database, storage or store failed.
    """
    export = job.payload
    key = object_key(export)
    async with exports.snapshot() as connection:
        recipient = await exports.find_recipient(export, connection)
        size = await exports.storage.size(key, younger_than=REUSED_FOR)
        is_new = size is None
        if size is None:
            sets = await record_sets(exports.deps, export.user_id, connection)
            async with exports.storage.writing(key) as out:
                size = await write_archive(
                    export,
                    sets,
                    out,
                    made_at=job.processed_on,
                    on_progress=job.progress,
                    has_byte_order_mark=exports.has_byte_order_mark,
                )
    if is_new:  # the snapshot is from before: the account may have been deleted meanwhile
        async with exports.snapshot() as connection:
            recipient = await exports.find_recipient(export, connection)
    job.progress(100)
    return FinishedExport(key=key, size=size, mail=await exports.mail.ensure(job, key, recipient))

"""The processor of `account-deletions`: carries a request out, if it still holds."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

import corral.inspector
import corral.sql
from corral import Deps, Job, Snooze
from corral.errors import DatabaseUnavailable
from corral_account_deletions import AccountDeletion
from corral_account_deletions.configured import check_tables
from corral_account_deletions.deletion import AGAIN, MAIL_QUEUE, Deletion, KeptRows
from corral_account_deletions.person import as_key
from corral_account_deletions.settings import DeletionSettings
from corral_account_deletions.tables import metadata
from corral_account_deletions.tables_file import read_tables
from corral_account_deletions.traces import Swept, Traces

__all__ = ["DeletedAccount", "Deletions", "delete_account", "open_deletions"]

log = logging.getLogger("corral_account_deletions")


class DeletedAccount(BaseModel):
    """The job's result. Nothing in it is personal.

    Attributes:
        outcome: `deleted`; `cancelled`, where the request was taken back; `already-deleted` by an
        earlier job.
        rows: How many rows, and things outside of the database, all participants removed.
        jobs_scrubbed: How many finished jobs the last round emptied.
        jobs_removed: How many jobs that were for later it removed.
        jobs_shared: How many finished jobs have the address and are another account's.
        queues_undeclared: Queues of the store that no plugin of the worker declares. Their finished
        jobs were gone through; what their plugins keep elsewhere was not erased.
        queues_uncleared: Those of them that still hold unfinished jobs about the user, that could
        not be read, or whose plugin would have deleted archives.
        kept: What is kept of the user, and why.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    outcome: Literal["deleted", "cancelled", "already-deleted"]
    rows: int = 0
    jobs_scrubbed: int = 0
    jobs_removed: int = 0
    jobs_shared: int = 0
    queues_undeclared: tuple[str, ...] = ()
    queues_uncleared: tuple[str, ...] = ()
    kept: tuple[KeptRows, ...] = ()


@dataclass(frozen=True, slots=True)
class Deletions:
    """What the processor works with.

    Attributes:
        deletion: The database's part.
        traces: The queues' part.
    """

    deletion: Deletion
    traces: Traces


@asynccontextmanager
async def open_deletions(deps: Deps) -> AsyncIterator[Deletions]:
    """The deletions of this worker, on its database and in all queues of its catalog.

    Raises:
        ConfigurationError: A setting cannot be used, the database lacks our tables, or the tables
            file names what is not there. A database that is away fails the jobs' attempts.
    """
    settings = DeletionSettings()
    engine = await deps.enter(corral.sql.engine)
    user_keys = frozenset({"userid"})
    if settings.tables is not None:
        user_keys |= {
            as_key(table.user_column) for table in read_tables(settings.tables).values()
        } - {"id"}
    await corral.sql.require_tables(engine, *metadata.tables.values(), corral.sql.outbox)
    if settings.tables is not None:
        with suppress(DatabaseUnavailable), corral.sql.database_errors(engine):
            async with engine.connect() as connection:
                await check_tables(connection, settings.tables)
    inspector = await deps.enter(corral.inspector.of_worker)
    has_mail_queue = MAIL_QUEUE in inspector.queues
    if not has_mail_queue:
        log.warning("no queue 'emails' is installed: deletions are not confirmed by mail")
    deletion = Deletion(engine, deps, user_keys=user_keys, has_mail_queue=has_mail_queue)
    yield Deletions(deletion, Traces(inspector, deps.jobs))


async def delete_account(job: Job[AccountDeletion], deletions: Deletions) -> DeletedAccount:
    """Carry out one request, if it still holds.

    Returns:
        What became of it.

    Raises:
        Fail: There is no such request, or it is somebody else's.
        Snooze: It is not due, or a job about the user waits or runs; no attempt is spent.
        DeletionFailed: A participant raised, or the database did: what was to be one transaction
        did not happen.
        StoreUnavailable: The store is away: the next attempt goes on from there.
    """
    deletion, payload = deletions.deletion, job.payload
    request = await deletion.erase(payload.request_id, payload.user_id, job.processed_on)
    if request.cancelled_at:
        return DeletedAccount(outcome="cancelled")
    if request.finished_at:
        return DeletedAccount(outcome="already-deleted")
    person = await deletion.find_person(request)
    swept: Swept = await deletions.traces.erase(person)
    if swept.left:
        log.info("a deletion waits for jobs about the user: %d", swept.left)
        raise Snooze(after=AGAIN)
    purged = await deletion.purge(request)
    finished = await deletion.finish(
        request.id,
        job.processed_on,
        mail_id=job.key("mail"),
        purged=purged,
        is_complete=not swept.uncleared,
    )
    if finished is None:
        return DeletedAccount(outcome="already-deleted")
    _report(swept)
    return DeletedAccount(
        outcome="deleted",
        rows=finished.rows,
        jobs_scrubbed=swept.scrubbed,
        jobs_removed=swept.removed,
        jobs_shared=swept.shared,
        queues_undeclared=swept.undeclared,
        queues_uncleared=swept.uncleared,
        kept=finished.kept,
    )


def _report(swept: Swept) -> None:
    """Log what was left."""
    if swept.undeclared:
        log.warning(
            "no plugin of this worker declares queues that are in the store: %s; a deletion has "
            "cleared their finished jobs, and what their plugins keep elsewhere is not erased",
            ", ".join(swept.undeclared),
        )
    if swept.uncleared:
        log.warning(
            "undeclared queues still hold jobs or archives of a deleted account, or cannot be read:"
            " %s; the mail that confirms the deletion says that it is not complete",
            ", ".join(swept.uncleared),
        )
    if swept.shared:
        log.info(
            "jobs with the address of a deleted account are left, because they are another "
            "account's: %d",
            swept.shared,
        )

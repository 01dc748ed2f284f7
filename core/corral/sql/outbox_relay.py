"""`OutboxRelay`: carries the outbox's rows to the store, each under its own job id.

It deletes a row only after the store has acknowledged the job. If a relay dies in between, the row
stays, the next relay writes the job again, and the store finds that it has it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, Row, delete, exists, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral.catalog import Catalog
from corral.errors import CorralError, StoreUnavailable, UnknownQueue
from corral.loggers import Logger
from corral.sql.engines import database_errors
from corral.sql.tables import IF_FAILED, now_ms, outbox
from corral.store.codec import NewJob
from corral.store.connection import Link
from corral.store.queue_store import MAX_BATCH, QueueStore, batches
from corral.store.replies import ResponseError, unexpected

__all__ = ["OutboxRelay", "Relayed"]

log = Logger("corral.outbox")

POLL_SECONDS: Final = 0.5
"""How long an idle relay waits before it looks again. On average, a job waits half of it."""
LONGEST_BACKOFF_SECONDS: Final = 5.0
"""How long a relay waits at most before it tries a database or a store again that was away."""
LET_GO: Final = "SET LOCAL idle_in_transaction_session_timeout = '30s'"
"""PostgreSQL takes the rows back from a relay whose machine has vanished.

TCP alone would notice hours later.
"""


@dataclass(frozen=True, slots=True)
class Relayed:
    """What one pass of a relay did.

    Attributes:
        jobs: How many rows were written to the store as jobs, and deleted.
        set_aside: How many rows the store refused; they stay, with the error in the row.
    """

    jobs: int = 0
    set_aside: int = 0

    def __add__(self, other: Relayed) -> Relayed:
        return Relayed(self.jobs + other.jobs, self.set_aside + other.set_aside)


class OutboxRelay:
    """Relays one database's outbox to one store. Any number of relays may run at once.

    A row whose queue is not in the catalog is logged, and left to a relay that knows the queue. A
    row that the store refuses is set aside for good (`refused`), with its error. Neither stops the
    other rows.

    Args:
        engine: The database.
        catalog: The queues.
        url: The store.
        prefix: The first part of the keys; rows of other prefixes are left alone.
    """

    def __init__(self, engine: AsyncEngine, catalog: Catalog, *, url: str, prefix: str) -> None:
        self._engine = engine
        self._reading = engine.execution_options(sqlite_begin="DEFERRED")
        self._catalog = catalog
        self._link = Link(url)
        self._prefix = prefix
        self._stores: dict[str, QueueStore] = {}
        self._logged: set[str] = set()
        self._stop = asyncio.Event()
        own = outbox.c.prefix == prefix
        self._due = own & ~outbox.c.refused & outbox.c.queue.in_(catalog.entries)
        self._unknown = own & outbox.c.error.is_(None) & outbox.c.queue.not_in(catalog.entries)

    async def drain(self) -> Relayed:
        """Relay all rows that are due now.

        Raises:
            StoreUnavailable: The store is away. The rows that it has acknowledged are relayed.
            DatabaseUnavailable: The database is away.
            ConfigurationError: It has no outbox.
        """
        done = Relayed()
        while (batch := await self._batch()) != Relayed():
            done += batch
        return done

    async def run(self) -> None:
        """Relay until stopped. An outage of store or database is logged once, and waited out."""
        tries = 0
        while not self._stop.is_set():
            try:
                if tries:  # no transaction is held open while the store is away
                    await self._link.call("PING")
                busy = await self._batch() != Relayed()
            except Exception as error:  # noqa: BLE001  # a process has one relay, which must go on
                if not tries:
                    _log_failure(error)
                tries = min(tries + 1, 10)
                await self._pause(min(0.05 * 2**tries, LONGEST_BACKOFF_SECONDS))
            else:
                if tries:
                    log.info("relaying the outbox works again")
                tries = 0
                if not busy:
                    await self._pause(POLL_SECONDS)

    def stop(self) -> None:
        """End `run` after the batch that is being relayed."""
        self._stop.set()

    async def close(self) -> None:
        """Close the connection to the store; the engine belongs to the caller."""
        await self._link.close()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * (0.75 + random.random() / 2)):  # noqa: S311  # jitter
                await self._stop.wait()

    async def _batch(self) -> Relayed:
        """Relay up to `MAX_BATCH` rows, in one transaction that locks them.

        Without such rows, no transaction is begun. Rows of unknown queues are looked for when the
        backlog is done, not once per batch of it: that reads the whole table.
        """
        done = Relayed()
        with database_errors(self._engine):
            if await self._is_any(self._due):
                async with self._engine.begin() as connection:
                    done, failure = await self._relay(connection)
                if failure is not None:
                    raise failure
            if done.jobs + done.set_aside < MAX_BATCH and await self._is_any(self._unknown):
                async with self._engine.begin() as connection:
                    done += Relayed(set_aside=await self._mark_unknown(connection))
        return done

    async def _is_any(self, rows: ColumnElement[bool]) -> bool:
        async with self._reading.connect() as connection:
            return bool(await connection.scalar(select(exists().where(rows))))

    async def _relay(self, connection: AsyncConnection) -> tuple[Relayed, StoreUnavailable | None]:
        if self._engine.dialect.name == "postgresql":
            await connection.execute(text(LET_GO))
        age = (now_ms() - outbox.c.created_ms).label("age_ms")
        # SQLite has no row locks, and needs none: the transaction has the whole file.
        held = select(outbox, age).where(self._due).order_by(outbox.c.id).limit(MAX_BATCH)
        rows = (await connection.execute(held.with_for_update(skip_locked=True))).all()
        written: list[int] = []
        refused: dict[int, str] = {}
        failure: StoreUnavailable | None = None
        try:
            for queue in dict.fromkeys(row.queue for row in rows):
                own = [row for row in rows if row.queue == queue]
                await self._write(queue, own, written, refused)
        except StoreUnavailable as error:
            failure = error  # the rows that were acknowledged before are deleted all the same
        if written:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(written)))
        for number, reason in refused.items():
            await connection.execute(
                update(outbox).where(outbox.c.id == number).values(refused=True, error=reason)
            )
            log.warning(
                "the store refused a job of the outbox; its row is set aside",
                row=number,
                error=reason,
            )
        return Relayed(len(written), len(refused)), failure

    async def _write(
        self, queue: str, rows: Sequence[Row[Any]], written: list[int], refused: dict[int, str]
    ) -> None:
        """Write rows of one queue together; if the store refuses, write them one by one."""
        store = self._stores.get(queue)
        if store is None:
            store = self._stores[queue] = QueueStore(self._link, self._prefix, queue)
        done = 0
        try:
            jobs = [_job(row) for row in rows]
            for batch in batches(jobs):
                await store.add(batch)
                written += [row.id for row in rows[done : done + len(batch)]]
                done += len(batch)
        except (ResponseError, ValueError) as error:  # ValueError: a row was edited, and is no JSON
            if len(rows) == 1:
                reason = (
                    str(unexpected(error, self._link.url))
                    if isinstance(error, ResponseError)
                    else f"ValueError: {error}"
                )
                refused[rows[0].id] = reason
                return
            for row in rows[done:]:
                await self._write(queue, [row], written, refused)

    async def _mark_unknown(self, connection: AsyncConnection) -> int:
        names = (
            (await connection.execute(select(outbox.c.queue).where(self._unknown).distinct()))
            .scalars()
            .all()
        )
        count = 0
        for name in names:
            try:
                self._catalog.get(name)
            except UnknownQueue as error:
                aside = (
                    update(outbox)
                    .where(self._unknown, outbox.c.queue == name)
                    .values(error=str(error))
                )
                rows = (await connection.execute(aside)).rowcount
                count += rows
                if name not in self._logged:
                    self._logged.add(name)
                    log.warning(
                        "jobs in the outbox wait: no installed plugin declares their queue",
                        rows=rows,
                        error=str(error),
                        hint=error.hint,
                    )
        return count


def _job(row: Row[Any]) -> NewJob:
    """The job of a row. The time that the row has waited is subtracted from its delay."""
    delay_ms, opts, if_failed = row.delay_ms, row.opts.encode(), None
    if delay_ms or IF_FAILED in row.opts:
        options = from_json(opts)
        if_failed = options.pop(IF_FAILED, None)
        if delay_ms:
            options["delay"] = delay_ms = max(delay_ms - max(row.age_ms, 0), 0)
        opts = to_json(options)
    return NewJob(
        id=row.job_id,
        name=row.name,
        data=row.data.encode(),
        opts=opts,
        delay_ms=delay_ms,
        priority=row.priority,
        lifo=row.lifo,
        nonce=row.nonce,
        retries_failed=if_failed == "retry",
    )


def _log_failure(error: Exception) -> None:
    if isinstance(error, CorralError):
        log.warning(
            "relaying the outbox failed, and is tried again", error=str(error), hint=error.hint
        )
    else:
        log.error("relaying the outbox failed, and is tried again", exc_info=error)

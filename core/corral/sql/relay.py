"""`OutboxRelay`: carries the outbox's rows to the store, each under its own job id, and deletes
them after that.

Its order makes it safe: a row is deleted only after the store has acknowledged its job. A relay
that dies in between leaves the row, the next one writes the job again, and the store finds that it
has it.
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
from corral.sql.engines import unavailable
from corral.sql.tables import now_ms, outbox
from corral.store.codec import NewJob
from corral.store.connection import Link
from corral.store.queue_store import MAX_BATCH, QueueStore, batches
from corral.store.replies import ResponseError, unexpected

__all__ = ["OutboxRelay", "Relayed"]

log = Logger("corral.outbox")

POLL_SECONDS: Final = 0.5
"""How long an idle relay waits before it looks again: on average, half of it is what the outbox
adds to a job.
"""
LONGEST_BACKOFF_SECONDS: Final = 5.0
"""How long a relay waits at most for a database or a store that is away."""
LET_GO: Final = "SET LOCAL idle_in_transaction_session_timeout = '30s'"
"""PostgreSQL takes the rows back from a relay whose machine has vanished; TCP alone would notice
hours later.
"""


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a relay did.

    Attributes:
        jobs: How many rows the store has taken.
        set_aside: How many it has not, each with its error.
    """

    jobs: int = 0
    set_aside: int = 0

    def __add__(self, other: Relayed) -> Relayed:
        return Relayed(self.jobs + other.jobs, self.set_aside + other.set_aside)


class OutboxRelay:
    """Relays one database's outbox to one store. Any number of them may run at once.

    A row whose queue is not in the catalog is told, and left to a relay that knows it. One that the
    store refuses is set aside for good (`refused`), with its error. Neither stops the others.

    Args:
        engine: The database.
        catalog: Which queues there are.
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
        self._told: set[str] = set()
        self._stop = asyncio.Event()
        own = outbox.c.prefix == prefix
        self._due = own & ~outbox.c.refused & outbox.c.queue.in_(catalog.entries)
        self._unknown = own & outbox.c.error.is_(None) & outbox.c.queue.not_in(catalog.entries)

    async def drain(self) -> Relayed:
        """Relay what there is.

        Raises:
            StoreUnavailable: The store is away. What it has acknowledged is relayed.
            DatabaseUnavailable: The database is.
            ConfigurationError: It has no outbox.
        """
        done = Relayed()
        while (batch := await self._batch()) != Relayed():
            done += batch
        return done

    async def run(self) -> None:
        """Relay until stopped. An outage of the store or the database is told once, and waited out."""
        tries = 0
        while not self._stop.is_set():
            try:
                if tries:
                    await self._link.call(
                        "PING"
                    )  # a store that is away is no reason to hold a transaction open
                busy = await self._batch() != Relayed()
            except Exception as error:  # noqa: BLE001  # the relay of a process is one task, and nobody restarts it
                if not tries:
                    _tell(error)
                tries = min(tries + 1, 10)
                await self._pause(min(0.05 * 2**tries, LONGEST_BACKOFF_SECONDS))
            else:
                if tries:
                    log.info("the outbox is relayed again")
                tries = 0
                if not busy:
                    await self._pause(POLL_SECONDS)

    def stop(self) -> None:
        """End `run` after the batch that is on its way."""
        self._stop.set()

    async def close(self) -> None:
        """Close the connection to the store; the engine is its owner's."""
        await self._link.close()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * (0.75 + random.random() / 2)):  # noqa: S311  # jitter
                await self._stop.wait()

    async def _batch(self) -> Relayed:
        """Relay up to `MAX_BATCH` rows, in one transaction that holds them; none is begun where
        there are none.

        Rows of unknown queues are looked for behind a backlog, not once per batch of it: that reads
        all of the table.
        """
        done = Relayed()
        with unavailable(self._engine):
            if await self._is_any(self._due):
                async with self._engine.begin() as connection:
                    done, failure = await self._relay(connection)
                if failure is not None:
                    raise failure
            if done.jobs + done.set_aside < MAX_BATCH and await self._is_any(self._unknown):
                async with self._engine.begin() as connection:
                    done += Relayed(set_aside=await self._set_unknown_aside(connection))
        return done

    async def _is_any(self, rows: ColumnElement[bool]) -> bool:
        async with self._reading.connect() as connection:
            return bool(await connection.scalar(select(exists().where(rows))))

    async def _relay(self, connection: AsyncConnection) -> tuple[Relayed, StoreUnavailable | None]:
        if self._engine.dialect.name == "postgresql":
            await connection.execute(text(LET_GO))
        age = (now_ms() - outbox.c.created_ms).label("age_ms")
        # SQLite needs and knows no row locks: the transaction has the whole file
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
            failure = error  # what was acknowledged before is deleted all the same
        if written:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(written)))
        for number, told in refused.items():
            await connection.execute(
                update(outbox).where(outbox.c.id == number).values(refused=True, error=told)
            )
            log.warning(
                "the store refused a job of the outbox; its row is set aside",
                row=number,
                error=told,
            )
        return Relayed(len(written), len(refused)), failure

    async def _write(
        self, queue: str, rows: Sequence[Row[Any]], written: list[int], refused: dict[int, str]
    ) -> None:
        """Write rows of one queue: together, or, where the store refuses that, one by one to find
        the culprit.
        """
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
        except (
            ResponseError,
            ValueError,
        ) as error:  # ValueError: somebody wrote into a row what is no JSON
            if len(rows) == 1:
                told = (
                    unexpected(error, self._link.url)
                    if isinstance(error, ResponseError)
                    else f"ValueError: {error}"
                )
                refused[rows[0].id] = str(told)
                return
            for row in rows[done:]:
                await self._write(queue, [row], written, refused)

    async def _set_unknown_aside(self, connection: AsyncConnection) -> int:
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
                if name not in self._told:
                    self._told.add(name)
                    log.warning(
                        "jobs of the outbox are set aside",
                        rows=rows,
                        error=str(error),
                        hint=error.hint,
                    )
        return count


def _job(row: Row[Any]) -> NewJob:
    """The job of a row. Of its delay, what the row has waited is gone."""
    delay_ms, opts = row.delay_ms, row.opts.encode()
    if delay_ms:
        delay_ms = max(delay_ms - max(row.age_ms, 0), 0)
        opts = to_json({**from_json(opts), "delay": delay_ms})
    return NewJob(
        id=row.job_id,
        name=row.name,
        data=row.data.encode(),
        opts=opts,
        delay_ms=delay_ms,
        priority=row.priority,
        lifo=row.lifo,
        nonce=row.nonce,
    )


def _tell(error: Exception) -> None:
    if isinstance(error, CorralError):
        log.warning("the outbox is not relayed", error=str(error), hint=error.hint)
    else:
        log.error("the outbox is not relayed", exc_info=error)

"""The records of running processes: one hash, with a field for each process of ours below a prefix.

A record says when the process was last at work (its heartbeat), what an operator must know about
it, and which queues it has. `corral health`, the probes, the metrics and the board read it. What
makes a worker healthy is decided there, and what a catalog means in `corral.catalog.record`: here
it is JSON text.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version

from corral.errors import StoreUnavailable
from corral.loggers import Logger
from corral.store.codec import fields_of
from corral.store.connection import Link
from corral.store.keys import former_process_key, process_key
from corral.store.replies import ResponseError

__all__ = [
    "GONE_MS",
    "HEARTBEAT_SECONDS",
    "LIVE_SECONDS",
    "OwnRecord",
    "ProcessRecord",
    "ProcessRecords",
    "eviction_policy",
    "host_of",
    "live_catalogs",
    "process_name",
    "read_hash",
    "store_time_ms",
]

log = Logger("corral")

HEARTBEAT_SECONDS = 3.0
"""How often a worker process, or the parent of several, writes its record."""
LIVE_SECONDS = 15.0
"""How long a worker may fetch nothing: the 4 s that it waits for a marker, the time until a dead
connection is noticed, and the age of its heartbeat.
"""
REFRESH_SECONDS = 60.0
"""How often a process writes its record that gives no heartbeats."""
AGAIN_SECONDS = 1.0
"""How soon it tries again where the store did not take the record."""
GONE_MS = 180_000
"""A process that has not written its record for so long is dead; the next reader removes it."""
MOST_TROUBLES = 10
LONGEST_TROUBLE = 300
"""In characters. Every probe reads the records, so they stay short, whatever is wrong."""
_NO_HEARTBEAT = "-"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """What one process has written about itself.

    Attributes:
        seconds: How long ago it was at work, by the store's clock.
        draining: Whether it stops: it finishes its jobs and fetches no more.
        processes: How many worker processes it keeps running; 0 where it is no parent.
        started_ms: When it wrote its first record, Unix milliseconds; 0 where a former release of
            Corral wrote none.
        pid: Its process id; 0 as above.
        version: Corral's version; empty as above.
        troubles: What an operator must know, a sentence each: at most `MOST_TROUBLES` of
            `LONGEST_TROUBLE` characters.
        catalog: Which queues it has, as `corral.catalog.record` writes them; empty for a parent.
        gives_heartbeats: Whether it is a worker or a parent; False for a process that only
            enqueues, and for one that has not started to work yet.
    """

    seconds: float
    draining: bool = False
    processes: int = 0
    started_ms: int = 0
    pid: int = 0
    version: str = ""
    troubles: tuple[str, ...] = ()
    catalog: bytes = b""
    gives_heartbeats: bool = True


class ProcessRecords:
    """The records of all processes below a prefix.

    A former release wrote heartbeats without a catalog into the same hash, and catalogs into a
    second one. Both are read as long as its processes live. They read ours, too: a record begins
    with what was a heartbeat, and they skip the catalog at its end.

    Args:
        link: The connection.
        prefix: The first part of the queues' keys.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._key = process_key(prefix)
        self._former_key = former_process_key(prefix)

    async def write(self, process: str, record: ProcessRecord) -> None:
        """Write the record of a process, in one command.

        Args:
            process: Its name.
            record: Where it names no start, process id or version, those of this process are
                written.

        Raises:
            StoreUnavailable: The store is away.
            ResponseError: The key is damaged.
        """
        now_ms = await store_time_ms(self._link)
        await self._link.call("HSET", self._key, process, _encode(record, now_ms))

    async def remove(self, process: str) -> None:
        """Remove the record of a process that has ended.

        Raises:
            StoreUnavailable: The store is away.
            ResponseError: The key is damaged.
        """
        await self._link.call("HDEL", self._key, process)

    async def read(self) -> dict[str, ProcessRecord]:
        """The records of all processes, by name; those of dead ones are removed.

        Raises:
            StoreUnavailable: The store is away.
            ResponseError: A key is damaged.
        """
        now_ms = await store_time_ms(self._link)
        records = await self._read_current(now_ms)
        for name, catalog in (await self._read_former(now_ms)).items():
            known = records.get(name)
            records[name] = catalog if known is None else replace(known, catalog=catalog.catalog)
        return records

    async def read_workers(self) -> dict[str, ProcessRecord]:
        """The records of all workers and their parents, by name; those of dead ones are removed.

        In one command less than `read`: a catalog that a former release wrote is left out.

        Raises:
            StoreUnavailable: The store is away.
            ResponseError: The key is damaged.
        """
        records = await self._read_current(await store_time_ms(self._link))
        return {name: each for name, each in records.items() if each.gives_heartbeats}

    async def _read_current(self, now_ms: int) -> dict[str, ProcessRecord]:
        records: dict[str, ProcessRecord] = {}
        for name, value in (await read_hash(self._link, self._key)).items():
            record = _decode(value, now_ms)
            if record is None:
                continue  # not written by Corral
            if record.seconds * 1000 > GONE_MS:
                await self._link.call("HDEL", self._key, name)
            else:
                records[name.decode(errors="replace")] = record
        return records

    async def _read_former(self, now_ms: int) -> dict[str, ProcessRecord]:
        """The catalogs that processes of former releases wrote: `<Unix ms> <catalog>`."""
        records: dict[str, ProcessRecord] = {}
        for name, value in (await read_hash(self._link, self._former_key)).items():
            seen, _, catalog = value.partition(b" ")
            if not _is_number(seen.decode(errors="replace")) or now_ms - int(seen) > GONE_MS:
                await self._link.call("HDEL", self._former_key, name)
            else:
                seconds = (now_ms - int(seen)) / 1000
                record = ProcessRecord(seconds, catalog=catalog, gives_heartbeats=False)
                records[name.decode(errors="replace")] = record
        return records


class OwnRecord:
    """The record of this process, written as long as it lives.

    Attributes:
        name: The process's name.
        link: The connection that writes it.

    Args:
        link: The connection.
        prefix: The first part of the queues' keys.
        name: The process's name.
        catalog: Makes the catalog's text, from the store's time at the start in Unix milliseconds.
        report: Called once, with the records of the other processes.
    """

    def __init__(
        self,
        link: Link,
        prefix: str,
        name: str,
        *,
        catalog: Callable[[int], bytes] = lambda _: b"",
        report: Callable[[Mapping[str, ProcessRecord]], None] | None = None,
    ) -> None:
        self.name = name
        self.link = link
        self._records = ProcessRecords(link, prefix)
        self._make_catalog = catalog
        self._report = report
        self._heartbeat: Callable[[], ProcessRecord] | None = None
        self._is_due = asyncio.Event()
        self._started_ms = 0
        self._catalog = b""
        self._is_refused = False

    def start_heartbeats(self, heartbeat: Callable[[], ProcessRecord]) -> None:
        """Write a heartbeat at once, and then every `HEARTBEAT_SECONDS`.

        Args:
            heartbeat: Says how the process is; start and catalog are added to it.
        """
        self._heartbeat = heartbeat
        self._is_due.set()

    def write_soon(self) -> None:
        """Write the record at once: the store may have lost it."""
        self._is_due.set()

    async def keep(self) -> None:
        """Write the record again and again, until cancelled; then remove it.

        If the store is away or refuses the record, the next round tries again.
        """
        try:
            while True:
                self._is_due.clear()
                is_written = await self._write()
                if is_written and self._report is not None:
                    await self._report_others(self._report)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause(is_written=is_written)):
                        await self._is_due.wait()
        finally:
            with suppress(StoreUnavailable, ResponseError):
                await self._records.remove(self.name)

    def _pause(self, *, is_written: bool) -> float:
        if self._heartbeat is not None:
            return HEARTBEAT_SECONDS
        return REFRESH_SECONDS if is_written and self._report is None else AGAIN_SECONDS

    async def _write(self) -> bool:
        try:
            if not self._started_ms:
                started_ms = await store_time_ms(self.link)
                self._catalog, self._started_ms = self._make_catalog(started_ms), started_ms
            await self._records.write(self.name, self._current())
        except StoreUnavailable:
            return False  # the worker itself, or the call that enqueues, reports it
        except ResponseError as error:
            if self._heartbeat is not None and not self._is_refused:
                self._is_refused = True
                log.warning(
                    "the store refused to write this process's heartbeat: `corral health` and the"
                    " board count the process as dead until a later heartbeat is written",
                    error=str(error),
                )
            return False
        self._is_refused = False
        return True

    def _current(self) -> ProcessRecord:
        if self._heartbeat is None:
            record = ProcessRecord(0.0, gives_heartbeats=False)
        else:
            record = self._heartbeat()
        return replace(record, started_ms=self._started_ms, catalog=self._catalog)

    async def _report_others(self, report: Callable[[Mapping[str, ProcessRecord]], None]) -> None:
        with suppress(StoreUnavailable, ResponseError):
            records = await self._records.read()
            self._report = None
            report({name: each for name, each in records.items() if name != self.name})


def process_name() -> str:
    """A name that no other process has, and that says where it runs.

    It is `<host>-<process id>-<random>`. A process that keeps others running calls them
    `<its own name>.<number>`.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def host_of(process: str) -> str:
    """The host in the name of a process."""
    return process.rsplit("-", 2)[0]


async def store_time_ms(link: Link) -> int:
    """The store's time, Unix milliseconds.

    Raises:
        StoreUnavailable: The store is away.
    """
    seconds, microseconds = await link.call("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


async def read_hash(link: Link, key: str) -> dict[bytes, bytes]:
    """The fields of a hash.

    Raises:
        StoreUnavailable: The store is away.
        ResponseError: The key is no hash.
    """
    return fields_of(await link.call("HGETALL", key))


async def eviction_policy(link: Link) -> str:
    """The store's `maxmemory-policy`; empty where the store does not say.

    Raises:
        StoreUnavailable: The store is away.
    """
    info = await link.call("INFO", "memory")
    found = re.search(rb"maxmemory_policy:([\w-]+)", info)
    return found[1].decode() if found else ""


def live_catalogs(records: Mapping[bytes, bytes], now_ms: int) -> Iterator[bytes]:
    """The catalogs of running processes.

    Args:
        records: The hash of all records, see `process_key`.
        now_ms: Unix milliseconds, by the store's clock.

    Yields:
        A process's catalog as it has written it.
    """
    for value in records.values():
        record = _decode(value, now_ms)
        if record is not None and record.seconds * 1000 <= GONE_MS and record.catalog:
            yield record.catalog


def _encode(record: ProcessRecord, now_ms: int) -> str:
    """A record as text: `<seen> <draining> <processes> <started> <pid> <version> [<details>]`.

    `draining` and `processes` are `-` where the process gives no heartbeats: former releases, and
    `figures.lua`, count no worker then. The details are a JSON list of the troubles, and at its end
    the catalog.
    """
    seen_ms = now_ms - int(record.seconds * 1000)
    state = f"{record.draining:d} {record.processes}"
    if not record.gives_heartbeats:
        state = f"{_NO_HEARTBEAT} {_NO_HEARTBEAT}"
    origin = f"{record.started_ms or now_ms} {record.pid or os.getpid()}"
    details = [json.dumps(each) for each in _bounded(record.troubles)]
    if record.catalog:
        details.append(record.catalog.decode())
    text = f"{seen_ms} {state} {origin} {record.version or version('corral')}"
    return f"{text} [{', '.join(details)}]" if details else text


def _decode(value: bytes, now_ms: int) -> ProcessRecord | None:
    """A record from its text; None where Corral did not write it."""
    fields = value.decode(errors="replace").split(maxsplit=6)
    details = fields.pop() if len(fields) == 7 else ""
    *numbers, corral = (*fields, "0", "0", "")[:6]  # the first releases wrote three fields
    gives_heartbeats = numbers[1:3] != [_NO_HEARTBEAT, _NO_HEARTBEAT]
    if not gives_heartbeats:
        numbers[1:3] = ["0", "0"]
    if len(numbers) != 5 or not all(map(_is_number, numbers)):
        return None
    seen_ms, draining, processes, started_ms, pid = map(int, numbers)
    seconds = (now_ms - seen_ms) / 1000
    troubles, catalog = _decode_details(details)
    return ProcessRecord(
        seconds,
        bool(draining),
        processes,
        started_ms,
        pid,
        corral,
        troubles,
        catalog,
        gives_heartbeats,
    )


def _decode_details(text: str) -> tuple[tuple[str, ...], bytes]:
    """The troubles and the catalog of a record; empty where they cannot be read."""
    try:
        details = json.loads(text) if text else []
        if not isinstance(details, list):
            return (), b""
        catalogs = [json.dumps(each).encode() for each in details if isinstance(each, dict)]
    except (ValueError, RecursionError):
        return (), b""
    troubles = _bounded([each for each in details if isinstance(each, str)])
    return tuple(troubles), catalogs[0] if catalogs else b""


def _bounded(troubles: Sequence[str]) -> list[str]:
    return [each[:LONGEST_TROUBLE] for each in troubles[:MOST_TROUBLES]]


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 16

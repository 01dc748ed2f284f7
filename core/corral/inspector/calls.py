"""How the inspector reaches a queue: its name as the catalog knows it, its keys, its scripts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from corral.catalog import Catalog
from corral.errors import StoreUnavailable
from corral.inspector.audit import Audit, log_entry, named, this_process
from corral.inspector.damage import naming_damage
from corral.inspector.refusals import DamagedKey, JobNotFound
from corral.options import may_be_job
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.replies import is_missing_right
from corral.store.rights import ensure_rights
from corral.store.scripts import call_again, run, script

__all__ = ["Calls", "Change"]

T = TypeVar("T")


class Calls:
    """One connection, and the keys below a prefix.

    Attributes:
        catalog: The queues.
        link: The connection.
        clock: What every script adds to the store's time.
        prefix: The first part of the keys.
        refused: What the store has refused that is only shown, as far as the log knows.

    Args:
        catalog: The queues; any other name is refused.
        link: The connection.
        prefix: The first part of the keys.
        clock: What every script adds to the store's time.
        who: In whose name things are changed; None: this process's.
    """

    def __init__(
        self, catalog: Catalog, link: Link, prefix: str, clock: Clock | None, who: str | None = None
    ) -> None:
        self.catalog = catalog
        self.link = link
        self.clock = clock or Clock()
        self.prefix = prefix
        self.who = this_process() if who is None else named(who)
        self.audit = Audit(link, prefix)
        self.refused: set[str] = set()

    def name(self, queue: Queue[Any] | str) -> str:
        """The queue's name.

        Raises:
            UnknownQueue: The catalog does not declare it.
        """
        return self.catalog.get(queue).queue.name

    def base(self, queue: Queue[Any] | str) -> str:
        """`<prefix>:<queue>:`, what the queue's keys begin with."""
        return f"{self.prefix}:{self.name(queue)}:"

    def store(self, queue: Queue[Any] | str) -> QueueStore:
        """The queue's own operations."""
        return QueueStore(self.link, self.prefix, self.name(queue), clock=self.clock)

    def job_id(self, queue: Queue[Any] | str, job_id: str) -> str:
        """The id, which is that of a job and not the end of another key of the queue: `meta`,
        `<id>:logs`.

        Raises:
            JobNotFound: There can be no job of this id.
        """
        if not may_be_job(job_id):
            name = self.name(queue)
            hint = f"a key of the queue is called so; a worker puts such a job aside: corral quarantine list {name}"
            raise JobNotFound(name, job_id, hint=hint)
        return job_id

    async def size(self, queue: Queue[Any] | str, container: str) -> int:
        """How many ids are in a container.

        Raises:
            DamagedKey: Nobody can tell. Where something else stands in the place of `paused`, that
            holds none.
        """
        command = "LLEN" if container in {"wait", "paused", "active"} else "ZCARD"
        try:
            return int(await self.call(queue, command, self.base(queue) + container))
        except DamagedKey:
            if container != "paused":
                raise
            return 0

    async def call(self, queue: Queue[Any] | str, *command: Any) -> Any:
        """Send one command that is about a queue and changes nothing.

        Raises:
            DamagedKey: A key is of the wrong type.
        """
        async with self.naming(queue):
            return await call_again(lambda: self.link.call(*command))

    async def run(self, name: str, queue: Queue[Any] | str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua`, which changes nothing, on a queue.

        Raises:
            DamagedKey: A key is of the wrong type.
        """
        async with self.naming(queue):
            which, keys = script(name, __package__), [self.base(queue)]
            return await call_again(
                lambda: run(self.link, which, keys, [self.clock.offset_ms, *arguments])
            )

    def naming(self, *queues: Queue[Any] | str) -> AbstractAsyncContextManager[None]:
        """See `naming_damage`."""
        return naming_damage(self.link, self.prefix, *map(self.name, queues))

    async def of_each(
        self,
        read: Callable[[str], Awaitable[T]],
        unread: Callable[[str, str], T],
        names: Sequence[str] | None = None,
    ) -> dict[str, T]:
        """Read several queues; one that the store's user may not have hides no other.

        Args:
            read: Reads one.
            unread: What stands for one that may not be read, of its name and a sentence as those
            about damaged keys.
            names: Which; None: all of the catalog.

        Raises:
            StoreUnavailable: The store is away; or this user may have none of them.
        """
        found: dict[str, T] = {}
        refusals: list[StoreUnavailable] = []
        for name in self.catalog.entries if names is None else names:
            try:
                found[name] = await read(name)
            except StoreUnavailable as error:
                if not is_missing_right(error):
                    raise
                refusals.append(error)
                found[name] = unread(name, f"{self.base(name)}* may not be had by the store's user")
        if refusals and len(refusals) == len(found):
            raise refusals[0]
        return found

    async def change(self, what: str, name: str, queue: Queue[Any] | str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua`, which changes something, on a queue, and have that told in the
        audit as `what`.
        """
        async with Change(self, what, queue) as change:
            return await change.run(name, *arguments)


class Change:
    """One operation, in one script call or in many: `async with Change(calls, "drain", queue) as
    change`.

    Each script writes what it has done to the audit, in the same breath. One operation has one
    entry, which counts what its batches have done until now, so that it is right wherever the
    operation ends. Its line in the log follows on leaving.

    Attributes:
        calls: The connection.
        queue: What it is done to.

    Args:
        what: What the operation is called in the audit.
    """

    def __init__(self, calls: Calls, what: str, queue: Queue[Any] | str) -> None:
        self.calls = calls
        self._what = what
        self.queue = queue
        self._id: bytes = b""
        self._may = False
        self._entry: dict[str, Any] = {}

    async def run(self, name: str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua`, a script that includes told.lua; returns its own reply.

        Raises:
            DamagedKey: A key is of the wrong type; nothing was changed by this call.
            StoreUnavailable: As `ensure_rights`, before the first call; or the store is away.
        """
        calls = self.calls
        telling = [calls.who, self._what, self._id, self._entry.get("count", 0)]
        keys = [calls.base(self.queue), calls.audit.stream]
        if not self._may:
            # What changes something is not sent twice: this may be, and finds a connection that was
            # closed meanwhile.
            try:
                await call_again(
                    lambda: ensure_rights(calls.link, calls.prefix, calls.name(self.queue))
                )
            except StoreUnavailable as error:
                error.outcome = "refused"  # of the change itself, nothing was sent
                raise
            self._may = True
        async with calls.naming(self.queue):
            reply, told = await run(
                calls.link,
                script(name, __package__),
                keys,
                [calls.clock.offset_ms, *arguments, *telling],
            )
        if told:
            self._id, flat = told
            self._entry = _values(flat)
        return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = isinstance(error, StoreUnavailable) and error.outcome == "unknown"
        if lost:
            asked = {
                "who": self.calls.who,
                "what": self._what,
                "queue": self.calls.name(self.queue),
            }
            log_entry(self._entry or asked, outcome="unknown")
        elif self._entry:
            log_entry(self._entry)


def _values(flat: list[bytes]) -> dict[str, Any]:
    """The fields of an entry, as told.lua wrote them, without the prefix."""
    names = [name.decode() for name in flat[::2]]
    texts = dict(zip(names, [text.decode(errors="replace") for text in flat[1::2]], strict=True))
    values: dict[str, Any] = {name: text for name, text in texts.items() if name != "prefix"}
    for name in values.keys() & {"before", "after", "count"}:
        values[name] = json.loads(values[name])
    return values

"""How the inspector reaches a queue: its name in the catalog, its keys, its Lua scripts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from corral.catalog import Catalog
from corral.errors import StoreUnavailable
from corral.inspector.audit import Audit, bounded_name, log_entry, process_identity
from corral.inspector.damage import report_damage
from corral.inspector.refusals import DamagedKey, JobNotFound
from corral.options import may_be_job
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.store.keys import CONTAINERS, LISTS, META, PAUSED, queue_base, queue_key
from corral.store.queue_store import QueueStore
from corral.store.replies import is_missing_right
from corral.store.rights import ensure_rights
from corral.store.scripts import call_again, run, script

__all__ = ["AuditedOperation", "QueueAccess"]

T = TypeVar("T")


class QueueAccess:
    """One connection, and the queues' keys below one prefix.

    Attributes:
        catalog: The queues.
        link: The connection.
        clock: Its offset is added to the store's time by every script.
        prefix: The first part of the keys.
        who: The name under which changes are recorded in the audit.
        audit: The audit of this prefix.
        refused: Optional reads that the store refused, such as `CLIENT LIST`; each is logged once.
        undeclared: Names of queues that are let through although the catalog does not declare them.

    Args:
        catalog: The queues; any other name is refused.
        link: The connection.
        prefix: The first part of the keys.
        clock: Its offset is added to the store's time by every script.
        who: The name under which changes are recorded; None: that of this process.
    """

    def __init__(
        self, catalog: Catalog, link: Link, prefix: str, clock: Clock | None, who: str | None = None
    ) -> None:
        self.catalog = catalog
        self.link = link
        self.clock = clock or Clock()
        self.prefix = prefix
        self.who = process_identity() if who is None else bounded_name(who)
        self.audit = Audit(link, prefix)
        self.refused: set[str] = set()
        self.undeclared: frozenset[str] = frozenset()

    def name(self, queue: Queue[Any] | str) -> str:
        """The queue's name.

        Raises:
            UnknownQueue: The catalog does not declare it.
        """
        if isinstance(queue, str) and queue in self.undeclared:
            return queue
        return self.catalog.get(queue).queue.name

    def base(self, queue: Queue[Any] | str) -> str:
        """`<prefix>:<queue>:`, the beginning of all keys of the queue."""
        return queue_base(self.prefix, self.name(queue))

    def store(self, queue: Queue[Any] | str) -> QueueStore:
        """The queue's operations for producers and workers."""
        return QueueStore(self.link, self.prefix, self.name(queue), clock=self.clock)

    async def ensure_in_store(self, queue: str) -> None:
        """Refuse a queue that has no key in the store.

        Raises:
            UnknownQueue: There is none, and the catalog does not declare the queue.
            StoreUnavailable: The store is away, or refuses to look.
        """
        keys = [queue_key(self.prefix, queue, each) for each in (META, PAUSED, *CONTAINERS)]
        if not await call_again(lambda: self.link.call("EXISTS", *keys)):
            self.catalog.get(queue)

    def job_id(self, queue: Queue[Any] | str, job_id: str) -> str:
        """The given id, if it can be that of a job.

        It cannot be one if another key of the queue has that name: `meta`, `<id>:logs`.

        Raises:
            JobNotFound: No job can have this id.
        """
        if not may_be_job(job_id):
            name = self.name(queue)
            hint = (
                "this is the name of one of the queue's own keys; workers move such a job to the "
                f"quarantine: corral quarantine list {name}"
            )
            raise JobNotFound(name, job_id, hint=hint)
        return job_id

    async def size(self, queue: Queue[Any] | str, container: str) -> int:
        """How many ids are in a container.

        Raises:
            DamagedKey: The key is of the wrong type. Only a damaged `paused` counts as empty.
        """
        command = "LLEN" if container in LISTS else "ZCARD"
        try:
            return int(await self.call(queue, command, self.base(queue) + container))
        except DamagedKey:
            if container != PAUSED:
                raise
            return 0

    async def call(self, queue: Queue[Any] | str, *command: Any) -> Any:
        """Send one command that reads a queue and changes nothing.

        Raises:
            DamagedKey: A key is of the wrong type.
        """
        async with self.report_damage(queue):
            return await call_again(lambda: self.link.call(*command))

    async def run(self, name: str, queue: Queue[Any] | str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua`, a script that changes nothing, on a queue.

        Raises:
            DamagedKey: A key is of the wrong type.
        """
        async with self.report_damage(queue):
            which, keys = script(name, __package__), [self.base(queue)]
            return await call_again(
                lambda: run(self.link, which, keys, [self.clock.offset_ms, *arguments])
            )

    def report_damage(self, *queues: Queue[Any] | str) -> AbstractAsyncContextManager[None]:
        """See `corral.inspector.damage.report_damage`."""
        return report_damage(self.link, self.prefix, *map(self.name, queues))

    async def read_each(
        self,
        read: Callable[[str], Awaitable[T]],
        placeholder: Callable[[str, str], T],
        names: Sequence[str] | None = None,
    ) -> dict[str, T]:
        """Read several queues; one that the store's user may not read does not hide the others.

        Args:
            read: Reads one queue.
            placeholder: Makes the value for a queue that the user may not read, from its name and a
                sentence like those about damaged keys.
            names: The queues' names; None: all of the catalog.

        Returns:
            The values by the queues' names.

        Raises:
            StoreUnavailable: The store is away, or this user may read none of the queues.
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
                problem = f"{self.base(name)}* may not be read by the store's user"
                found[name] = placeholder(name, problem)
        if refusals and len(refusals) == len(found):
            raise refusals[0]
        return found

    async def change(self, what: str, name: str, queue: Queue[Any] | str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua`, a script that changes a queue; the audit records it as `what`."""
        async with AuditedOperation(self, what, queue) as operation:
            return await operation.run(name, *arguments)


class AuditedOperation:
    """One operation of an operator, in one script call or in several batches.

    Use it as `async with AuditedOperation(access, "drain", queue) as operation`.

    Each script call also writes the audit's entry, atomically with its change. An operation has one
    entry: every batch replaces it by one with the new count, so that it is right wherever the
    operation stops. The log line is written when the context is left.

    Attributes:
        access: The connection.
        queue: The queue that is changed.

    Args:
        access: The connection.
        what: The operation's name in the audit.
        queue: The queue that is changed.
    """

    def __init__(self, access: QueueAccess, what: str, queue: Queue[Any] | str) -> None:
        self.access = access
        self._what = what
        self.queue = queue
        self._entry_id: bytes = b""
        self._has_rights = False
        self._entry: dict[str, Any] = {}

    async def run(self, name: str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua`, a script that includes audit_entry.lua, and return its own reply.

        Raises:
            DamagedKey: A key is of the wrong type; this call has changed nothing.
            StoreUnavailable: The user lacks a right (checked before the first call), or the store
                is away.
        """
        access = self.access
        entry_arguments = [access.who, self._what, self._entry_id, self._entry.get("count", 0)]
        keys = [access.base(self.queue), access.audit.stream]
        if not self._has_rights:
            # A call that changes something is never sent twice. This check may be repeated, and
            # reconnects if the server has closed an idle connection.
            try:
                await call_again(
                    lambda: ensure_rights(access.link, access.prefix, access.name(self.queue))
                )
            except StoreUnavailable as error:
                error.outcome = "refused"  # of the change itself, nothing was sent
                raise
            self._has_rights = True
        async with access.report_damage(self.queue):
            reply, entry = await run(
                access.link,
                script(name, __package__),
                keys,
                [access.clock.offset_ms, *arguments, *entry_arguments],
            )
        if entry:
            self._entry_id, flat = entry
            self._entry = _decode_entry(flat)
        return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_outcome_unknown = isinstance(error, StoreUnavailable) and error.outcome == "unknown"
        if is_outcome_unknown:
            requested = {
                "who": self.access.who,
                "what": self._what,
                "queue": self.access.name(self.queue),
            }
            log_entry(self._entry or requested, outcome="unknown")
        elif self._entry:
            log_entry(self._entry)


def _decode_entry(flat: list[bytes]) -> dict[str, Any]:
    """The fields of an entry as audit_entry.lua wrote them, without the prefix."""
    names = [name.decode() for name in flat[::2]]
    texts = dict(zip(names, [text.decode(errors="replace") for text in flat[1::2]], strict=True))
    values: dict[str, Any] = {name: text for name, text in texts.items() if name != "prefix"}
    for name in values.keys() & {"before", "after", "count"}:
        values[name] = json.loads(values[name])
    return values

"""Which queues have workers of any client, by the names of their connections (wire § 7.3)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from corral.errors import StoreUnavailable
from corral.store.connection import Link
from corral.store.keys import STALLED_CHECK, parse_connection_name, queue_key
from corral.store.replies import ResponseError, is_missing_right

__all__ = ["WorkerConnection", "read_served_queues", "worker_connections"]

_PAIR = re.compile(r"(\S+?)=(\S*)")


@dataclass(frozen=True, slots=True)
class WorkerConnection:
    """A connection whose name is a worker's.

    Attributes:
        name: The worker's name; empty where it has none.
        queue: The queue that it works off.
        address: Where it comes from: a network address, or the path of a socket.
        library: The name and version of its client library; empty where the store has neither.
        age: Seconds since it was opened.
        idle: Seconds since its last command.
    """

    name: str
    queue: str
    address: str
    library: str
    age: int
    idle: int

    @property
    def host(self) -> str:
        """The network address without the port; empty for a socket."""
        return "" if self.address.startswith("/") else self.address.rpartition(":")[0]


async def worker_connections(
    link: Link, prefix: str, queues: Collection[str]
) -> Sequence[WorkerConnection]:
    """The connections of all workers below a prefix.

    Args:
        link: The store.
        prefix: The first part of the keys.
        queues: Known names. BullMQ for Python writes a queue's name without base64, and only a
            known name can be distinguished from an encoded one.

    Raises:
        StoreUnavailable: The store is away, or its user may not list connections.
        ResponseError: The store does not know the command.
    """
    listed = await link.call("CLIENT", "LIST", "TYPE", "normal")
    text = listed.decode(errors="replace") if isinstance(listed, bytes) else ""
    found = (_connection(dict(_PAIR.findall(line)), prefix, queues) for line in text.splitlines())
    return [each for each in found if each]


async def read_served_queues(link: Link, prefix: str, queues: Iterable[str]) -> set[str]:
    """Which of some queues a worker of any client serves.

    Where the user may not list connections, the keys of stalled checks decide: every worker makes a
    check each half minute, and its key stays until the next check is due (wire § 6.12).

    Raises:
        StoreUnavailable: The store is away, or its user may do neither.
    """
    names = list(queues)
    try:
        connected = {each.queue for each in await worker_connections(link, prefix, names)}
        return connected.intersection(names)
    except ResponseError:
        pass
    except StoreUnavailable as error:
        if not is_missing_right(error):
            raise
    checks = {name: queue_key(prefix, name, STALLED_CHECK) for name in names}
    return {name for name, key in checks.items() if await link.call("EXISTS", key)}


def _connection(
    fields: Mapping[str, str], prefix: str, queues: Collection[str]
) -> WorkerConnection | None:
    parts = parse_connection_name(fields.get("name", ""), prefix)
    if parts is None:
        return None
    written, decoded, name = parts
    queue = written if written in queues else decoded
    if not queue:
        return None
    library = " ".join(filter(None, (fields.get("lib-name"), fields.get("lib-ver"))))
    age, idle = (
        int(text) if (text := fields.get(key, "")).isdecimal() else 0 for key in ("age", "idle")
    )
    return WorkerConnection(name, queue, fields.get("addr", ""), library, age, idle)

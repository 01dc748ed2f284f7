"""Which queues have workers, by the names of the store's connections (wire § 7.3): ours, and those
of other clients.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from corral.errors import StoreUnavailable
from corral.store.connection import Link
from corral.store.replies import ResponseError, is_missing_right

__all__ = ["WorkerConnection", "served", "worker_connections"]

_PAIR = re.compile(r"(\S+?)=(\S*)")


@dataclass(frozen=True, slots=True)
class WorkerConnection:
    """A connection that is named as a worker's.

    Attributes:
        name: The worker's name; empty where it has none.
        queue: What it works off.
        address: Where it comes from: a network address, or the path of a socket.
        library: The name and version of its client library, as far as the store knows them.
        age: Seconds since it was opened.
        idle: Seconds since it said anything.
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
        queues: Names that are known. BullMQ for Python does not encode the name of a queue, and
            only a known name can be distinguished from an encoded one.

    Raises:
        StoreUnavailable: The store is away, or does not tell this user of connections.
        ResponseError: The store does not know the command.
    """
    listed = await link.call("CLIENT", "LIST", "TYPE", "normal")
    text = listed.decode(errors="replace") if isinstance(listed, bytes) else ""
    found = (_connection(dict(_PAIR.findall(line)), prefix, queues) for line in text.splitlines())
    return [each for each in found if each]


async def served(link: Link, prefix: str, queues: Iterable[str]) -> set[str]:
    """Those of some queues that a worker of any client serves, as far as the store tells.

    A store that does not tell of connections tells of stalled checks: a worker makes one every half
    minute, and the key of the last one stays until the next is due (wire § 6.12).

    Raises:
        StoreUnavailable: The store is away, or tells this user neither.
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
    return {name for name in names if await link.call("EXISTS", f"{prefix}:{name}:stalled-check")}


def _connection(
    fields: Mapping[str, str], prefix: str, queues: Collection[str]
) -> WorkerConnection | None:
    start, whole = f"{prefix}:", fields.get("name", "")
    if not whole.startswith(start):
        return None
    queue, is_named, name = whole.removeprefix(start).partition(":w:")
    if ":" in queue:
        return None  # a listener's, `…:qe`
    if queue not in queues:
        try:
            queue = b64decode(queue, validate=True).decode()
        except ValueError:
            return None
    library = " ".join(filter(None, (fields.get("lib-name"), fields.get("lib-ver"))))
    age, idle = (
        int(text) if (text := fields.get(key, "")).isdecimal() else 0 for key in ("age", "idle")
    )
    return WorkerConnection(
        name if is_named else "", queue, fields.get("addr", ""), library, age, idle
    )

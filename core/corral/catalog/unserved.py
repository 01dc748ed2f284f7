"""`unserved`: which queues nobody works off, neither a worker of Corral nor one of another client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corral.catalog.record import Record
from corral.store.clients import served
from corral.store.connection import Link

__all__ = ["unserved"]


async def unserved(
    queues: Iterable[str], records: Iterable[Mapping[str, Record]], link: Link, prefix: str
) -> tuple[str, ...]:
    """What to say of queues that nobody works off: no worker of ours, and none of another client.

    Args:
        queues: The queues that somebody asks about.
        records: What the processes under this prefix run.
        link: The store, which tells of other clients' workers. It is asked only about queues that
        ours do not serve.
        prefix: The first part of the keys.

    Returns:
        One sentence that names them all; none where each has a worker.

    Raises:
        StoreUnavailable: The store is away, or does not tell who is connected.
    """
    ours = {queue for each in records for queue, record in each.items() if record.role == "worker"}
    left = set(queues) - ours
    idle = sorted(left - await served(link, prefix, left)) if left else []
    return (f"no worker serves {', '.join(map(repr, idle))}: their jobs will wait",) if idle else ()

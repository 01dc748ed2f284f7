"""`warn_of_unserved`: finds queues that neither Corral nor another client has a worker for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corral.catalog.record import Record
from corral.store.clients import read_served_queues
from corral.store.connection import Link

__all__ = ["warn_of_unserved"]


async def warn_of_unserved(
    queues: Iterable[str], records: Iterable[Mapping[str, Record]], link: Link, prefix: str
) -> tuple[str, ...]:
    """A warning about queues that have no worker.

    Args:
        queues: The queues to look at.
        records: The records of the processes under this prefix.
        link: The store, which knows other clients' workers. It is asked only about queues that no
            worker of Corral serves.
        prefix: The first part of the keys.

    Returns:
        One sentence that names them all; empty if each queue has a worker.

    Raises:
        StoreUnavailable: The store is away, or does not say which clients are connected.
    """
    ours = {queue for each in records for queue, record in each.items() if record.role == "worker"}
    left = set(queues) - ours
    idle = sorted(left - await read_served_queues(link, prefix, left)) if left else []
    return (f"no worker serves {', '.join(map(repr, idle))}: their jobs will wait",) if idle else ()

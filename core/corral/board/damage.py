"""Which keys of the store are not what they should be: a page that cannot be made of them says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from corral.board.desk import Desk

__all__ = ["wrong_keys"]

OF_QUEUE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("wait", "active", "paused", "metrics:completed:data", "metrics:failed:data"), "list"),
    **dict.fromkeys(("prioritized", "delayed", "waiting-children", "completed", "failed", "repeat", "marker"), "zset"),
    **dict.fromkeys(("meta", "metrics:completed", "metrics:failed"), "hash"),
    "events": "stream",
    "stalled": "set",
}
"""What a queue's keys are (wire § 1)."""
OF_JOB: Final = {"": "hash", ":logs": "list", ":lock": "string"}


async def wrong_keys(desk: Desk, parts: Mapping[str, str]) -> list[str]:
    """The keys of another type than they should have, each with what it is.

    Some twenty commands for each queue, once a page could not be made.

    Args:
        desk: The store, and the queues.
        parts: Of what was asked for: its `queue` and its `job_id`, where it has them.
    """
    wrong = []
    for key, wanted in _keys(desk, parts):
        found = (await desk.link.call("TYPE", key)).decode()
        if found not in {wanted, "none"}:
            wrong.append(f"{key} is a {found} and no {wanted}")
    return wrong


def _keys(desk: Desk, parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    prefix = desk.prefix
    yield from ((f"corral:{prefix}:{name}", "hash") for name in ("alive", "catalog"))
    yield "corral:audit", "stream"
    for queue in [parts["queue"]] if "queue" in parts else desk.inspector.queues:
        yield from ((f"{prefix}:{queue}:{name}", kind) for name, kind in OF_QUEUE.items())
        yield f"corral:{prefix}:{queue}:minutes", "hash"
    if "job_id" in parts:
        yield from ((f"{prefix}:{parts['queue']}:{parts['job_id']}{end}", kind) for end, kind in OF_JOB.items())

"""BullMQ for Node, for a test that starts a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from interop.peers import Peer, opened

__all__ = ["Node", "node_process"]

Node = Peer


@asynccontextmanager
async def node_process(
    node_modules: Path, socket: Path, journal: Path, *, kind: str = "node6", **environment: str
) -> AsyncIterator[Node]:
    """A driver's process; gone afterwards, with its workers.

    Args:
        node_modules: The directory that holds Node's `node_modules`.
        socket: The store's.
        journal: What its workers write.
        kind: Which BullMQ, a name of `peers.KINDS`.
        environment: More of its environment.
    """
    node = Peer(kind, node_modules, environment)
    try:
        async with opened(node, socket, journal):
            yield node
    finally:
        node.kill()

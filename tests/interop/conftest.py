"""BullMQ for Node beside workers and producers of ours, on one store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest_asyncio

from chaos.acme_chaos import chaos
from chaos.fixtures import figure, scene, site
from chaos.scene import Scene
from corral.catalog import Catalog, Entry
from corral.inspector import JobInspector
from corral.plugins import Provider
from corral.store.connection import Link
from corral.testing import find_leaks
from interop.node import Node, node_process
from parity.conftest import node_modules, pytest_runtest_makereport

__all__ = ["figure", "node_modules", "pytest_runtest_makereport", "scene", "site"]


@pytest_asyncio.fixture
async def node(node_modules: Path, scene: Scene) -> AsyncIterator[Node]:
    """BullMQ for Node in a process of its own, which has loaded; it may not have complained about anything."""
    async with node_process(node_modules, scene.store.socket, scene.journal.path) as node:
        assert await node.ask("errors") == []  # it takes seconds on a busy machine, and a job's delay would be over
        yield node
        assert await node.ask("errors") == []


@pytest_asyncio.fixture
async def inspector(scene: Scene) -> AsyncIterator[JobInspector]:
    """What an operator of ours does to the queue `chaos`."""
    catalog = Catalog(MappingProxyType({chaos.name: Entry(chaos, Provider("acme", "1.0", "wheel"), "")}))
    inspector = JobInspector(catalog, Link(scene.store.url), prefix="bull")
    yield inspector
    await inspector.close()


@pytest_asyncio.fixture
async def all_done(scene: Scene) -> Any:
    """`await all_done(completed=2, failed=1)`: wait until the queue is at rest, and find nothing out of place."""
    client = scene.store.client

    async def wait(queue: str = "chaos", **counts: int) -> None:
        async def done() -> bool:
            ended = {name: await client.zcard(f"bull:{queue}:{name}") for name in ("completed", "failed")}
            return ended == {"completed": 0, "failed": 0, **counts}

        await scene.until(done, f"{counts} jobs of {queue} have ended")
        assert find_leaks(scene.store.url) == []

    return wait

"""BullMQ beside workers and producers of ours, on one store: 6 and 5 for Node, and for Python."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio

from chaos.acme_chaos import chaos
from chaos.fixtures import figure, scene, site
from chaos.scene import Scene
from corral.catalog import Catalog, CatalogEntry
from corral.inspector import JobInspector
from corral.plugins import Provider
from corral.store.connection import Link
from corral.testing import find_leaks
from interop.matrix import PROPERTY, Matrix, cells
from interop.peers import KINDS, Peer, Peers, opened
from interop.sides import Crossing
from parity.conftest import node_modules, pytest_runtest_makereport

__all__ = ["figure", "node_modules", "pytest_runtest_makereport", "scene", "site"]


def pytest_configure(config: pytest.Config) -> None:
    """Print the matrix in the process that all reports come to."""
    config.pluginmanager.register(Matrix())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Send what a test is about along with its reports."""
    item.user_properties += [(PROPERTY, f"{row} {peer}") for row, peer in cells(item)]


@pytest.fixture(scope="session")
def peers() -> Iterator[Peers]:
    """The processes of the other sides."""
    peers = Peers()
    yield peers
    peers.end()


@pytest_asyncio.fixture(params=KINDS)
async def peer(
    request: pytest.FixtureRequest, node_modules: Path, peers: Peers, scene: Scene
) -> AsyncIterator[Peer]:
    """Each BullMQ in turn, on the scene's store; it may not complain about anything."""
    async with opened(
        await peers.get(request.param, node_modules), scene.store.socket, scene.journal.path
    ) as peer:
        yield peer


@pytest.fixture(params=["theirs by us", "ours by them"])
def crossing(request: pytest.FixtureRequest, peer: Peer, scene: Scene) -> Crossing:
    """Jobs of one side and workers of the other, both ways."""
    return Crossing(scene, peer, ours_work=request.param == "theirs by us")


@pytest_asyncio.fixture
async def node(node_modules: Path, peers: Peers, scene: Scene) -> AsyncIterator[Peer]:
    """BullMQ 6 for Node, on the scene's store; it may not complain about anything."""
    async with opened(
        await peers.get("node6", node_modules), scene.store.socket, scene.journal.path
    ) as node:
        yield node


@pytest_asyncio.fixture
async def inspector(scene: Scene) -> AsyncIterator[JobInspector]:
    """What an operator of ours does to the queue `chaos`."""
    catalog = Catalog(
        MappingProxyType({chaos.name: CatalogEntry(chaos, Provider("acme", "1.0", "wheel"), "")})
    )
    inspector = JobInspector(catalog, Link(scene.store.url), prefix="bull")
    yield inspector
    await inspector.close()


@pytest_asyncio.fixture
async def all_done(scene: Scene) -> Any:
    """`await all_done(completed=2, failed=1)`: wait until the queue is at rest, and find nothing
    out of place.
    """
    client = scene.store.client

    async def wait(queue: str = "chaos", **counts: int) -> None:
        async def done() -> bool:
            ended = {
                name: await client.zcard(f"bull:{queue}:{name}") for name in ("completed", "failed")
            }
            return ended == {"completed": 0, "failed": 0, **counts}

        await scene.until(done, f"{counts} jobs of {queue} have ended")
        assert find_leaks(scene.store.url) == []

    return wait

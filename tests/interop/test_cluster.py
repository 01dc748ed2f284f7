"""A node of a cluster, with a hash tag in the prefix: every key that a script touches is in one
slot of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from chaos.acme_chaos import chaos
from chaos.journal import Journal
from chaos.processes import Worker, producer, store_binary
from corral.testing import find_leaks
from integration.test_store_refusals import SLOTS, a_cluster
from interop.peers import KINDS, Peer, Peers, opened

pytestmark = pytest.mark.asyncio

PREFIX = "{app}"


@dataclass(frozen=True)
class Node:
    """A node that has all slots, and what works on it."""

    admin: redis.Redis
    url: str
    peer: Peer
    journal: Journal


@pytest_asyncio.fixture(params=KINDS)
async def peer(
    request: pytest.FixtureRequest, node_modules: Path, peers: Peers, tmp_path: Path
) -> AsyncIterator[Node]:
    """Each BullMQ in turn, on a node of a cluster."""
    with a_cluster(store_binary().name, f"0-{SLOTS - 1}") as (server, url):
        journal = Journal(tmp_path / "journal")
        running = await peers.get(request.param, node_modules)
        async with opened(running, server.socket, journal.path, PREFIX) as running:
            yield Node(server.admin, url, running, journal)


@pytest.mark.matrix(32)
async def test_jobs_and_flows_of_both_in_one_slot(
    peer: Node, site: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    theirs = peer.peer
    with ExitStack() as stack:
        environment = {"CORRAL_PREFIX": PREFIX}
        worker = Worker(
            peer.url, site=site, folder=tmp_path, journal=peer.journal.path, environment=environment
        )
        stack.callback(worker.close)
        await wait_until(lambda: worker.has_started, "the worker has started")
        await theirs.work("parents")
        async with producer(peer.url, prefix=PREFIX) as jobs:
            await jobs.enqueue_many(chaos, [{}] * 5, priority=1)
        options: list[dict[str, Any]] = [
            {},
            {"delay": 300},
            {"priority": 2},
            {"lifo": True},
            {"attempts": 2},
        ]
        await theirs.add(
            *({"data": {"fails": each.get("attempts", 1) - 1}, "opts": each} for each in options)
        )
        child = {"name": "child", "queueName": "chaos", "data": {"value": "child"}}
        await theirs.ask(
            "flow", tree={"name": "parent", "queueName": "parents", "data": {}, "children": [child]}
        )

        def ended() -> bool:
            counts = [
                peer.admin.zcard(f"{PREFIX}:{queue}:completed") for queue in ("chaos", "parents")
            ]
            return counts == [11, 1]

        await wait_until(ended, "all jobs and the parent are completed")
    assert find_leaks(peer.url, PREFIX) == []

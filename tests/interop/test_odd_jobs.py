"""What BullMQ, or somebody else, may leave in a queue that is no job of ours: our worker neither
dies nor loops.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.scene import Scene
from interop.peers import Peer

pytestmark = pytest.mark.asyncio

NO_PAYLOADS = ("text", [1, 2], 7, None)


@pytest.mark.matrix(29, 30)
async def test_data_that_is_no_payload_fails_its_job_and_no_other(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    odd = await peer.add(*({"data": data, "opts": {}} for data in NO_PAYLOADS))
    (good,) = await peer.add({"data": {"value": 1}, "opts": {}})
    await scene.hire()
    await all_done(completed=1, failed=len(odd))
    assert (await peer.job(good))["returnvalue"] == 1
    for job_id, data in zip(odd, NO_PAYLOADS, strict=True):
        held = await scene.store.client.hgetall(f"bull:chaos:{job_id}")
        assert (json.loads(held["data"]), held["ats"]) == (data, "1"), "as it was, and tried once"


@pytest.mark.matrix(30)
@pytest.mark.corral_untidy("jobs that nobody can read stay where they are put")
async def test_ghosts_broken_text_and_unknown_words_stop_nothing(peer: Peer, scene: Scene) -> None:
    """Nothing of it stays active, and jobs before and after it complete."""
    client = scene.store.client
    (unknown,) = await peer.add(
        {"data": {"value": 1, "unknownField": 2}, "opts": {"unknownOption": [], "attempts": 2}}
    )
    await client.hset(f"bull:chaos:{unknown}", mapping={"unknown": "field"})
    for broken in ("data", "opts", "parent", "stacktrace"):
        held = {"name": "work", "data": "{}", "opts": "{}", "timestamp": 1, broken: '{"cut": '}
        await client.hset(f"bull:chaos:broken-{broken}", mapping=held)
        await client.lpush("bull:chaos:wait", f"broken-{broken}")
    await client.lpush("bull:chaos:wait", "ghost")
    await client.xadd("bull:chaos:events", {"event": "of somebody else", "returnvalue": "no JSON"})
    await scene.hire(concurrency=1)
    (last,) = await peer.add({"data": {"value": "last"}, "opts": {}})

    async def at_rest() -> bool:
        busy = [await client.llen(f"bull:chaos:{name}") for name in ("wait", "active")]
        return busy == [0, 0] and await client.zscore("bull:chaos:completed", last) is not None

    await scene.until(at_rest, "the queue is at rest")
    assert (await peer.job(unknown))["returnvalue"] == 1
    assert len(scene.starts()) == len({line.id for line in scene.starts()}), (
        "nothing is started twice"
    )
    assert await client.exists("bull:chaos:ghost") == 0

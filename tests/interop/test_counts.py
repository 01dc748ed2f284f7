"""BullMQ's counts per minute (wire 6.23), where its workers and ours count together."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.scene import Scene
from corral.store.queue_store import METRICS_MINUTES
from interop.peers import Peer

pytestmark = pytest.mark.asyncio

KEY = "bull:chaos:metrics:{}"


@pytest.mark.matrix(26)
async def test_both_kinds_of_worker_count_together_and_nothing_lowers_it(
    scene: Scene, peer: Peer, all_done: Any, figure: Any
) -> None:
    """200 complete and 20 fail, three minutes pass, 40 more complete; then all are cleaned away."""
    client = scene.store.client
    await peer.needs("counted")

    async def counted(ending: str) -> tuple[int, list[int], int]:
        """How many in all, per minute that is over, and since: as BullMQ's `getMetrics` and the raw
        keys say.
        """
        seen = await peer.ask("counted", queue="chaos", ending=ending)
        raw = {
            name: int(value) for name, value in (await client.hgetall(KEY.format(ending))).items()
        }
        data = [int(count) for count in await client.lrange(f"{KEY.format(ending)}:data", 0, -1)]
        assert seen["meta"] == {name: raw[name] for name in ("count", "prevTS", "prevCount")}
        assert [int(count) for count in seen["data"]] == data
        assert sum(data) == raw["prevCount"], "each job is counted in one minute"
        return raw["count"], data, raw["count"] - raw["prevCount"]

    ours = await scene.hire(concurrency=5)
    await peer.ask("work", queue="chaos", concurrency=5, minutes=METRICS_MINUTES)
    works = [{"ms": 5 + number % 10} for number in range(200)]
    await scene.enqueue(*works[:100])
    await peer.add(
        *({"data": work, "opts": {}} for work in works[100:]),
        *[{"data": {"fails": 9}, "opts": {}}] * 20,
    )
    await all_done(completed=200, failed=20)
    assert (await counted("completed"))[0] == 200
    assert (await counted("failed"))[0] == 20

    await client.hincrby(KEY.format("completed"), "prevTS", -3 * 60_000)
    await peer.add(*({"data": work, "opts": {}} for work in works[:40]))
    await all_done(completed=240, failed=20)
    total, minutes, since = await counted("completed")
    assert total == 240
    assert minutes.count(0) >= 2, "the minutes in which nothing ended"
    assert since <= 40
    both = {line.pid for line in scene.starts()}
    assert both == {ours.pid, peer.pid}
    figure(
        f"260 jobs by both kinds of worker: {total} and 20 counted, {minutes} by minutes, "
        f"and {since} since"
    )

    assert await peer.ask("clean", queue="chaos", ending="completed") == 240
    assert await peer.ask("clean", queue="chaos", ending="failed") == 20
    assert ((await counted("completed"))[0], (await counted("failed"))[0]) == (240, 20)

"""Jobs of BullMQ are processed by us, ours by it, and all kinds of worker share one queue."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from chaos.acme_chaos import chaos
from chaos.scene import Scene
from corral import Enqueued, Entry, JobState
from interop.peers import KINDS, Peer, Peers, opened
from interop.sides import FAST_MS, FAST_SECONDS, Crossing, OurProducer, TheirProducer

pytestmark = pytest.mark.asyncio

DELAY_MS = 5000
"""Longer than a worker takes to start: else the delayed job would be due before."""
OPTIONS: dict[str, dict[str, int | bool]] = {
    "second of priority 1": {"priority": 1},
    "priority 2": {"priority": 2},
    "first of priority 1": {"priority": 1},
    "plain": {},
    "delayed": {"delay": DELAY_MS},
    "lifo": {"lifo": True},
}
ADDED = ["priority 2", "first of priority 1", "second of priority 1", "delayed", "plain", "lifo"]
PROCESSED = [
    "lifo",
    "plain",
    "first of priority 1",
    "second of priority 1",
    "priority 2",
    "delayed",
]
VALUES = [
    "ünïcode \N{GRINNING FACE}\u2028",
    "",
    '"quoted"\n\\',
    0,
    1.5,
    2**53 - 1,
    True,
    None,
    [],
    {},
    ["ä", [None]],
]
LARGE = "x" * 60_000
"""A job of ours may report no more than 64 KiB as its progress."""
FILLER = "x" * 500_000
IDLE_SECONDS = 1.1
MARKED_MS = 2000
"""Far below the five seconds that a worker sleeps which no marker wakes, and far above what two
loaded cores cost.
"""


async def events(scene: Scene, job_id: str | None = None) -> list[tuple[str, str | None]]:
    """The events so far, of one job or of all: the name and where the job came from.

    Progress is left out.
    """
    entries = [entry for _, entry in await scene.store.client.xrange("bull:chaos:events")]
    entries = [
        entry
        for entry in entries
        if job_id in {None, entry.get("jobId")} and entry["event"] != "progress"
    ]
    return [(entry["event"], entry.get("prev")) for entry in entries]


@pytest.mark.matrix(1)
async def test_a_standard_job_leaves_what_bullmq_leaves(
    crossing: Crossing, scene: Scene, all_done: Any
) -> None:
    client = scene.store.client
    await crossing.work()
    await scene.idle()
    job_id = await crossing.producer.add({"value": {"sum": 42}})
    await all_done(completed=1)
    held = await client.hgetall(f"bull:chaos:{job_id}")
    assert (json.loads(held["returnvalue"]), held["atm"], held["ats"]) == ({"sum": 42}, "1", "1")
    assert int(held["finishedOn"]) == await client.zscore("bull:chaos:completed", job_id)
    assert (
        await client.exists(f"bull:chaos:{job_id}:lock", "bull:chaos:active", "bull:chaos:wait")
        == 0
    )
    assert await events(scene) == [
        ("added", None),
        ("waiting", None),
        ("active", "waiting"),
        ("completed", "active"),
        ("drained", None),
    ]


@pytest.mark.matrix(2)
async def test_an_idle_worker_is_woken(
    crossing: Crossing, scene: Scene, all_done: Any, figure: Any
) -> None:
    await crossing.work()
    await scene.idle()
    await scene.passed(time.time() + IDLE_SECONDS)
    job_id = await crossing.producer.add({})
    await all_done(completed=1)
    processed, added = await scene.store.client.hmget(
        f"bull:chaos:{job_id}", "processedOn", "timestamp"
    )
    waited = int(processed) - int(added)
    figure(f"started {waited} ms after it was added")
    assert waited < MARKED_MS


@pytest.mark.matrix(4, 5, 6)
async def test_every_kind_of_job_is_processed_in_order(
    crossing: Crossing, peer: Peer, scene: Scene, all_done: Any, figure: Any
) -> None:
    """Plain, delayed, prioritized, lifo: what BullMQ promises about their order (wire 6.4) holds
    across.
    """
    ids = {
        kind: await crossing.producer.add({"value": {"of": kind}}, **OPTIONS[kind])
        for kind in ADDED
    }
    await crossing.work()
    await all_done(completed=len(OPTIONS))

    kinds = {job: kind for kind, job in ids.items()}
    starts = scene.starts()
    assert [kinds[line.id] for line in starts] == PROCESSED
    for kind, job_id in ids.items():
        seen = await peer.job(job_id)
        assert (seen["state"], seen["returnvalue"]) == ("completed", {"of": kind})
        assert (seen["attempts"], seen["starts"]) == (1, 1)
    delayed = await peer.job(ids["delayed"])
    due_ms = delayed["timestamp"] + DELAY_MS
    figure(f"a delayed job started {starts[-1].at * 1000 - due_ms:.0f} ms after it was due")
    assert starts[-1].at * 1000 >= due_ms
    assert await scene.store.client.hget(f"bull:chaos:{ids['delayed']}", "delay") == "0"
    entries = [entry for _, entry in await scene.store.client.xrange("bull:chaos:events")]
    assert [int(entry["delay"]) for entry in entries if entry["event"] == "delayed"] == [due_ms]


@pytest.mark.matrix(7)
async def test_an_id_that_exists_makes_no_second_job(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """Whoever comes second: the first one's data stays, the counter moves, and an event says so."""
    theirs, ours = TheirProducer(peer), OurProducer(scene)
    assert await theirs.add({"value": 1}, job_id="theirs-first") == "theirs-first"
    assert await ours.add({"value": 2}, job_id="theirs-first") == "theirs-first"
    assert await ours.add({"value": 1}, job_id="ours-first") == "ours-first"
    assert await theirs.add({"value": 2}, job_id="ours-first") == "ours-first"
    assert await scene.store.client.get("bull:chaos:id") == "4"
    await scene.hire()
    await all_done(completed=2)
    for job_id in ("theirs-first", "ours-first"):
        assert (await peer.job(job_id))["returnvalue"] == 1
        assert [event for event, _ in await events(scene, job_id)][:3] == [
            "added",
            "waiting",
            "duplicated",
        ]


@pytest.mark.matrix(7)
async def test_enqueue_reports_the_state_of_their_job_that_has_the_id(
    peer: Peer, scene: Scene
) -> None:
    await peer.ask("work", queue="chaos", concurrency=1)
    await peer.add(
        {"data": {}, "opts": {"jobId": "1-completed"}},
        {"data": {"fails": 1}, "opts": {"jobId": "1-failed"}},
        {"data": {"ms": 1500}, "opts": {"jobId": "1-active"}},
        {"data": {}, "opts": {"jobId": "1-waiting"}},
        {"data": {}, "opts": {"jobId": "1-delayed", "delay": 3_600_000}},
        {"data": {}, "opts": {"jobId": "1-prioritized", "priority": 3}},
    )
    child = {"name": "work", "queueName": "chaos", "data": {}, "opts": {"delay": 3_600_000}}
    parent = {"name": "work", "queueName": "chaos", "data": {}, "children": [child]}
    await peer.ask("flow", tree={**parent, "opts": {"jobId": "1-waiting-children"}})
    await scene.started("1-active")

    for state in JobState:
        exists = await scene.jobs.enqueue(chaos, {}, job_id=f"1-{state}")
        assert exists == Enqueued(f"1-{state}", created=False, state=state)
    entries = [Entry({"value": "other"}, job_id=f"1-{state}") for state in JobState]
    found = await scene.jobs.enqueue_many(chaos, [*entries, {}])
    assert [each.state for each in found] == [*JobState, JobState.WAITING]
    assert [each.created for each in found] == [*([False] * len(JobState)), True]
    await peer.ask("stop_workers")


@pytest.mark.matrix(7)
async def test_enqueue_reports_their_job_of_a_paused_queue_as_waiting(
    peer: Peer, scene: Scene
) -> None:
    """BullMQ 5 moves what waits into a list `paused`; BullMQ 6 leaves it where it is."""
    await peer.add({"data": {}, "opts": {"jobId": "before"}})
    await peer.ask("pause", queue="chaos")
    await peer.add({"data": {}, "opts": {"jobId": "after"}})
    for job_id in ("before", "after"):
        exists = await scene.jobs.enqueue(chaos, {}, job_id=job_id)
        assert exists == Enqueued(job_id, created=False, state=JobState.WAITING)
    await peer.ask("resume", queue="chaos")


@pytest.mark.matrix(29)
async def test_values_come_back_as_they_were(crossing: Crossing, peer: Peer, all_done: Any) -> None:
    values = [*VALUES, LARGE]
    ids = [await crossing.producer.add({"value": value, "filler": FILLER}) for value in values]
    await crossing.work(5)
    await all_done(completed=len(values))
    for job_id, value in zip(ids, values, strict=True):
        seen = await peer.job(job_id)
        assert (seen["data"]["value"], seen["data"]["filler"], seen["returnvalue"]) == (
            value,
            FILLER,
            value,
        )


@pytest.mark.matrix(3)
async def test_both_kinds_of_worker_share_300_jobs_of_both_kinds(
    scene: Scene, peer: Peer, all_done: Any, figure: Any
) -> None:
    """Each runs once, whichever client made it and whichever worker fetched it."""
    ours = await scene.hire(concurrency=5)
    await peer.work(concurrency=5)
    works = [{"ms": 5 + number % 10} for number in range(150)]
    ids = set(await peer.add(*({"data": work, "opts": {}} for work in works)))
    ids |= set(await scene.enqueue(*works))
    await all_done(completed=300)

    assert scene.each_started_once(ids)
    assert {await scene.store.client.hget(f"bull:chaos:{job}", "ats") for job in ids} == {"1"}
    shares = Counter(line.pid for line in scene.starts())
    figure(
        f"300 jobs, each once: {shares[ours.pid]} by us, "
        f"{shares[peer.pid]} by BullMQ for {peer.title}"
    )
    assert shares.keys() == {ours.pid, peer.pid}


@pytest.mark.matrix(3, peers=tuple(KINDS))
async def test_four_kinds_of_worker_lose_nothing_when_one_is_killed(
    scene: Scene, peers: Peers, node_modules: Path, all_done: Any, figure: Any
) -> None:
    """800 jobs of all kinds and producers; what a worker of ours held that is killed, any other
    takes over.
    """
    concurrency = 5
    client = scene.store.client
    kinds: list[dict[str, Any]] = [{}, {"priority": 3}, {"lifo": True}, {"delay": 1500}]
    async with AsyncExitStack() as stack:
        titles: dict[int, str] = {}
        made = []
        for kind in KINDS:
            peer = await peers.get(kind, node_modules)
            await stack.enter_async_context(opened(peer, scene.store.socket, scene.journal.path))
            await peer.work(concurrency=concurrency, more=FAST_MS)
            titles[peer.pid] = peer.title
            made += [
                TheirProducer(peer).add({"ms": 20}, **kinds[number % 4]) for number in range(100)
            ]
        killed = await scene.hire(concurrency=concurrency, **FAST_SECONDS)
        await scene.enqueue(*[{"ms": 20}] * 500)
        for adding in made:
            await adding
        await scene.runs(killed)
        killed.kill()
        second = await scene.hire(concurrency=concurrency, **FAST_SECONDS)
        titles |= {killed.pid: "us", second.pid: "us"}
        await all_done(completed=800)
    again = [
        job for job in await client.zrange("bull:chaos:completed", 0, -1) if await twice(scene, job)
    ]
    assert len(again) <= concurrency, "only what the killed worker held is started again"
    shares = Counter(titles[line.pid] for line in scene.starts())
    figure(f"800 jobs, {len(again)} started again: {dict(shares)}")
    assert shares.keys() == set(titles.values())


async def twice(scene: Scene, job_id: str) -> bool:
    return bool(await scene.store.client.hget(f"bull:chaos:{job_id}", "ats") != "1")

"""The 28 traps of sharing a queue with BullMQ, each with a test that fails if Corral falls into it.

A test anywhere below `tests/` is marked with the numbers of its traps: `@pytest.mark.trap(5)`. Here
are those that no other file shows. What has no test has its reason in `REASONS`;
`tests/repo/test_traps.py` finds what has neither.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chaos.acme_chaos import EPOCH, Work, chaos
from chaos.scene import Scene
from corral import Cron, Every
from corral.errors import JobRefused
from corral.inspector import JobInspector
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from interop.node import Node, node_process

pytestmark = pytest.mark.asyncio

TRAPS = {
    1: "versions 5 and 6 share a queue that is paused: one destroys the list of the other",
    2: "a returnvalue or a progress event that is no JSON ends Node's listeners",
    3: "fields that are no JSON make a job that stalls for ever",
    4: "a lock without an end, or an active job without a lock",
    5: "an iteration that runs without a successor ends its schedule",
    6: "a fetch that leaves no marker lets other workers sleep while jobs wait",
    7: "a child that fails without a policy blocks its parent",
    8: "a flow that reuses the id of another parent's child waits for ever",
    9: "a job id that is the name of a key of the queue",
    10: "an id with colons is cut where it is read from a key",
    11: "keys below the queue's own prefix are deleted by removeOrphanedJobs",
    12: "a schedule changed while its queue is paused gets a second run",
    13: "drain takes the place of a schedule's run and leaves its job",
    14: "an id whose job is gone is run, and makes a job of nothing",
    15: "a repeatable of version 5 loses its data",
    16: "jobs with a priority wait in `wait` after bulk operations and stalls",
    17: "BullMQ rewrites numbers and empty arrays in opts",
    18: "a manual rate limit is not looked at",
    19: "the client that checks first sets the time to the next stalled check",
    20: "a client's clock is wrong",
    21: "a store that evicts keys",
    22: "a small cap on the event stream cuts everybody's history",
    23: "RESP 2 and RESP 3 on one store",
    24: "a worker with two named connections is counted twice",
    25: "obliterate leaves parents and the rate limit behind",
    26: "delays below zero and with a fraction",
    27: "a schedule cannot be made again while its next run's id is taken",
    28: "endings without events leave waitUntilFinished waiting",
}
REASONS = {
    1: "shown by tests/interop/test_version_5.py, whose every test is about it",
}
"""Why a trap has no test that is marked with its number."""

UNTIDY_SCHEDULE = pytest.mark.corral_untidy("a schedule goes on until its workers are killed")


def store_of(scene: Scene) -> QueueStore:
    """The queue's scripts, called by hand."""
    return QueueStore(Link(scene.store.url), "bull", chaos.name)


async def laid(scene: Scene, job_id: str, *, where: str = "wait", **fields: str) -> None:
    """A job as another client leaves it, without a marker."""
    base = {
        "name": "work",
        "data": "{}",
        "opts": "{}",
        "timestamp": "1",
        "delay": "0",
        "priority": "0",
    }
    await scene.store.client.hset(f"bull:chaos:{job_id}", mapping=base | fields)
    await scene.store.client.lpush(f"bull:chaos:{where}", job_id)


async def field(scene: Scene, job_id: str, name: str) -> str | None:
    value: str | None = await scene.store.client.hget(f"bull:chaos:{job_id}", name)
    return value


@pytest.mark.trap(3)
async def test_fields_that_are_no_json_cost_one_start_and_no_job_beside_them(
    scene: Scene, all_done: Any
) -> None:
    """BullMQ's worker throws with the job in `active`: it stalls, is fetched and throws again."""
    poison = {
        "opts": "{nope",
        "data": "{oops",
        "nan": '{"value": NaN}',
        "progress": "{half",
        "stacktrace": "[half",
        "parent": "{bad",
    }
    for name, text in poison.items():
        more = {"parentKey": "bull:parents:1"} if name == "parent" else {}
        await laid(scene, name, **{"data" if name == "nan" else name: text, **more})
    await scene.enqueue({}, {})
    await scene.hire(lock_seconds=1, stalled_interval_seconds=0.5)
    await all_done(completed=6, failed=2)
    assert await scene.failed() == {"opts", "data"}
    for job_id in poison:
        assert (await field(scene, job_id, "ats"), await field(scene, job_id, "stc")) == ("1", None)
    fields = await scene.store.client.hgetall("bull:chaos:nan")
    json.loads(fields["returnvalue"], parse_constant=pytest.fail)


@pytest.mark.trap(4)
async def test_every_job_that_we_run_has_a_lock_with_an_end(
    scene: Scene, tmp_path: Path, all_done: Any
) -> None:
    client, gate = scene.store.client, tmp_path / "gate"
    worker = await scene.hire(lock_seconds=5)
    await scene.enqueue(*[{"waits_for": str(gate)}] * 4)
    await scene.runs(worker, 4)
    locks = [
        f"bull:chaos:{job_id}:lock" for job_id in await client.lrange("bull:chaos:active", 0, -1)
    ]
    assert len(locks) == 4
    assert all([0 < await client.pttl(lock) <= 5000 for lock in locks])
    gate.touch()
    await all_done(completed=4)


@pytest.mark.trap(4)
async def test_an_active_job_without_a_lock_is_taken_over_and_none_that_runs(
    scene: Scene, tmp_path: Path, all_done: Any
) -> None:
    gate = tmp_path / "gate"
    await scene.hire(lock_seconds=5, stalled_interval_seconds=0.2)
    (ours,) = await scene.enqueue({"waits_for": str(gate)})
    await scene.started(ours)
    await laid(scene, "lost", where="active")
    await scene.started("lost")
    gate.touch()
    await all_done(completed=2)
    assert (await field(scene, "lost", "stc"), await field(scene, ours, "stc")) == ("1", None)


@pytest.mark.trap(6)
async def test_a_fetch_of_ours_wakes_the_next_idle_worker_of_node(
    scene: Scene, node: Node, tmp_path: Path, all_done: Any
) -> None:
    """Without a marker that worker would look at the queue after two minutes."""
    gate = tmp_path / "gate"
    await node.ask("work", queue="chaos", concurrency=1, more={"drainDelay": 120})
    await scene.idle()
    for job_id in ("a", "b"):
        await laid(scene, job_id, data=json.dumps({"waits_for": str(gate)}))
    ours = await scene.hire(concurrency=1)  # it looks when it starts
    await scene.runs(ours)
    await scene.until(
        lambda: scene.journal.starts(by=node.pid), "the worker of Node has been woken"
    )
    gate.touch()
    await all_done(completed=2)


@pytest.mark.trap(8)
async def test_an_id_that_is_a_parents_child_stays_that_parents(
    scene: Scene, node: Node, all_done: Any
) -> None:
    """We make no flows; so the only way to reuse the id is to enqueue it, which changes nothing."""
    await node.ask("work", queue="parents", concurrency=1)
    child = {
        "name": "child",
        "queueName": "chaos",
        "data": {"value": "the child's"},
        "opts": {"jobId": "mine"},
    }
    tree = {"name": "parent", "queueName": "parents", "data": {}, "children": [child]}
    flow = await node.ask("flow", tree=tree)
    made = await scene.jobs.enqueue(chaos, {"value": "another"}, job_id="mine")
    assert not made.created
    await scene.hire()
    await all_done("parents", completed=1)
    assert (await node.job(flow["id"], "parents"))["returnvalue"] == ["the child's"]


@pytest.mark.trap(9)
@pytest.mark.parametrize("word", ["wait", "active"])
async def test_an_id_that_stops_an_empty_queue_is_named_and_a_repair_is_enough(
    scene: Scene, node: Node, word: str, all_done: Any
) -> None:
    """The job's own hash stands where the list belongs: no client can go on, BullMQ's no more than
    ours.
    """
    client = scene.store.client
    with suppress(AssertionError):  # with `wait` it fails, when its hash is written already
        await node.ask("add_one", queue="chaos", data={}, opts={"jobId": word})
    assert await client.type(f"bull:chaos:{word}") == "hash"
    worker = await scene.hire()
    error = f"DAMAGED bull:chaos:{word} is a hash, not a list"
    await scene.until(
        lambda: any(line.get("error") == error for line in worker.log), "the worker names the key"
    )
    await client.delete(f"bull:chaos:{word}")
    await scene.enqueue({}, {})
    await all_done(completed=2)


@pytest.mark.trap(10)
async def test_a_parent_whose_id_has_colons_is_released_by_the_removal_of_its_child(
    scene: Scene, node: Node, inspector: JobInspector, all_done: Any
) -> None:
    await node.ask("work", queue="parents", concurrency=1)
    child = {"name": "child", "queueName": "chaos", "data": {}}
    opts = {"jobId": "a:b:c"}
    tree = {"name": "parent", "queueName": "parents", "data": {}, "opts": opts, "children": [child]}
    flow = await node.ask("flow", tree=tree)
    await inspector.remove(chaos, flow["children"][0])
    await all_done("parents", completed=1)
    assert (await node.job("a:b:c", "parents"))["state"] == "completed"


@pytest.mark.trap(11)
@UNTIDY_SCHEDULE
async def test_the_removal_of_orphans_takes_nothing_of_ours(
    scene: Scene, node: Node, inspector: JobInspector, tmp_path: Path
) -> None:
    """Jobs in every state, a schedule, one that was removed, and an id in the quarantine."""
    client, gate = scene.store.client, tmp_path / "gate"
    await client.rpush("bull:chaos:list", "somebody's data")
    await client.lpush("bull:chaos:wait", "list")
    await scene.jobs.schedule(chaos, {}, Every(timedelta(hours=1)), id="hourly")
    await scene.jobs.schedule(chaos, {}, Every(timedelta(hours=1)), id="ended")
    worker = await scene.hire(concurrency=2)
    await scene.settled(2)
    await scene.jobs.unschedule(chaos, "ended")
    await scene.enqueue({}, {"fails": 1}, {"fails": 1, "value": "said"})
    await scene.settled(5)
    await scene.enqueue({}, delay=timedelta(hours=1))
    await scene.enqueue(*[{"waits_for": str(gate)}] * 2)
    await scene.runs(worker, 2)
    await scene.enqueue({})
    await scene.enqueue({}, priority=3)
    before = set(await client.keys("*"))
    assert {key for key in before if key.startswith("corral:bull:chaos:quarantine")}
    await node.ask("call", queue="chaos", method="removeOrphanedJobs")
    lost = before - set(await client.keys("*"))
    assert lost <= {"bull:chaos:metrics:failed", "bull:chaos:metrics:completed"}, (
        "BullMQ takes its own figures along"
    )
    gate.touch()
    await scene.settled(9)


@pytest.mark.trap(14)
async def test_ids_without_a_job_are_dropped_wherever_they_are(scene: Scene, all_done: Any) -> None:
    client = scene.store.client
    await client.lpush("bull:chaos:wait", "waits")
    await client.zadd("bull:chaos:prioritized", {"has-priority": 2**32})
    await client.zadd("bull:chaos:delayed", {"is-due": 4096})
    await client.lpush("bull:chaos:active", "stalled")
    good = await scene.enqueue({}, {})
    await scene.hire(lock_seconds=1, stalled_interval_seconds=0.2)

    async def gone() -> bool:
        return not await client.exists("bull:chaos:active")

    await scene.until(gone, "nothing is active")
    await all_done(completed=2)
    assert {line.id for line in scene.starts()} == set(good)
    names = ("waits", "has-priority", "is-due", "stalled")
    assert [await client.keys(f"bull:chaos:{name}*") for name in names] == [
        [],
        [],
        [],
        ["bull:chaos:stalled-check"],
    ]


@pytest.mark.trap(15)
@UNTIDY_SCHEDULE
async def test_a_repeatable_of_version_5_keeps_its_data_in_every_run(
    scene: Scene, node_modules: Path
) -> None:
    """Its data is in its jobs only; and version 5 goes on with what we have made."""
    repeat = {"every": 300}
    async with node_process(
        node_modules, scene.store.socket, scene.journal.path, kind="node5"
    ) as version_5:
        data = {"value": "kept"}
        await version_5.ask("add_one", queue="chaos", data=data, opts={"repeat": repeat})
        ours = await scene.hire()
        await scene.settled(4)
        ours.close()
        before = len(scene.journal.ended())
        await version_5.ask("work", queue="chaos", concurrency=1)
        await scene.settled(before + 3)
        assert {line.pid for line in scene.starts()} == {ours.pid, version_5.pid}
        assert await version_5.ask("errors") == []
    ended = await scene.store.client.zrange("bull:chaos:completed", 0, -1)
    assert len(ended) >= 7
    assert {await field(scene, job_id, "data") for job_id in ended} == {'{"value":"kept"}'}
    assert {await field(scene, job_id, "returnvalue") for job_id in ended} == {'"kept"'}


@pytest.mark.trap(16)
async def test_jobs_with_a_priority_that_node_has_put_into_wait_run(
    scene: Scene, node: Node, all_done: Any
) -> None:
    """`queue.retryJobs()` puts everything there."""
    jobs = await node.add(
        *({"data": {"fails": 1}, "opts": {"priority": priority}} for priority in (5, 1, 3))
    )
    first = await scene.hire(concurrency=1)
    await all_done(failed=3)
    first.terminate()
    await first.ended()
    await node.ask("call", queue="chaos", method="retryJobs")
    assert set(await scene.store.client.lrange("bull:chaos:wait", 0, -1)) == set(jobs)
    await scene.hire(concurrency=1)
    await all_done(completed=3)


@pytest.mark.trap(17)
async def test_what_bullmq_has_rewritten_is_read_and_left_so(
    scene: Scene, node: Node, all_done: Any
) -> None:
    opts = {
        "attempts": 2,
        "backoff": {"type": "fixed", "delay": 20},
        "list": [],
        "number": 123456789012345678,
    }
    (job,) = await node.add({"data": {"fails": 1, "value": [[], {}, 2**53 - 1]}, "opts": opts})
    written = await field(scene, job, "opts")
    assert written is not None
    assert json.loads(written)["list"] == {}, "that is the trap"
    await scene.hire()
    await all_done(completed=1)
    assert await field(scene, job, "opts") == written
    assert (await node.job(job))["returnvalue"] == [[], {}, 2**53 - 1]


@pytest.mark.trap(17)
@UNTIDY_SCHEDULE
async def test_the_payload_of_a_schedule_is_the_same_text_in_every_run(
    scene: Scene, node: Node
) -> None:
    """The server's script makes the runs after the first, with its own way of writing numbers and
    empty arrays.
    """
    payload = Work(value={"list": [], "object": {}, "number": 2**53 - 1, "price": 0.1})
    await scene.jobs.schedule(chaos, payload, Every(timedelta(milliseconds=200)), id="often")
    await scene.jobs.schedule(chaos, payload, Cron("* * * * * *"), id="each-second")
    await scene.hire(concurrency=2)
    await node.ask("work", queue="chaos", concurrency=2)

    async def a_dozen() -> bool:
        return bool(await scene.store.client.zcard("bull:chaos:completed") >= 12)

    await scene.until(a_dozen, "12 runs have ended")
    ended = await scene.store.client.zrange("bull:chaos:completed", 0, -1)
    texts = {await field(scene, job_id, "data") for job_id in ended}
    assert len(texts) == 1, texts
    assert Work.model_validate_json(texts.pop() or "") == payload


@pytest.mark.trap(18)
async def test_a_manual_rate_limit_of_node_holds_without_a_limit_of_the_queue(
    scene: Scene, node: Node, all_done: Any
) -> None:
    client, store = scene.store.client, store_of(scene)
    await node.ask("call", queue="chaos", method="rateLimit", args=[60_000])
    (job,) = await scene.enqueue({})
    limited = await store.advance("by-hand", 1, [], 1)
    assert (limited.jobs, 0 < limited.limited_ms <= 60_000) == ([], True)
    await store.close()
    await client.pexpire("bull:chaos:limiter", 700)
    until = (await client.time())[0] * 1000 + 500
    await scene.hire()
    await all_done(completed=1)
    assert int(await field(scene, job, "processedOn") or 0) >= until


@pytest.mark.trap(19)
async def test_checks_more_frequent_than_our_renewals_take_no_job_that_runs(
    scene: Scene, node: Node, all_done: Any
) -> None:
    """Node's worker checks every 200 ms, and takes what is active without a lock: ours is renewed
    before it ends.
    """
    await node.ask(
        "work", queue="chaos", concurrency=1, more={"stalledInterval": 200, "maxStalledCount": 0}
    )
    await node.add({"data": {"ms": 4000}, "opts": {}})
    await scene.runs(node)
    ours = await scene.hire(lock_seconds=2, stalled_interval_seconds=60)
    jobs = await scene.enqueue(*[{"ms": 4000}] * 3)
    await all_done(completed=4)
    assert await scene.stalls(jobs) == {}
    assert {line.id for line in scene.journal.starts(by=ours.pid)} == set(jobs)
    assert len(scene.starts()) == 4


FAST_CLOCK = """
import time
time.time = lambda real=time.time: real() + 3600
time.time_ns = lambda real=time.time_ns: real() + 3600 * 10**9
"""


@pytest.mark.trap(20)
async def test_a_worker_whose_clock_is_an_hour_fast_starts_no_job_early(
    scene: Scene, tmp_path: Path, all_done: Any
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAST_CLOCK, "utf-8")
    await scene.hire(
        environment={"PYTHONPATH": f"{tmp_path}:{scene.site}", EPOCH: ""}
    )  # its journal is by its clock
    (delayed,) = await scene.enqueue({}, delay=timedelta(seconds=1))
    await all_done(completed=1)
    assert await scene.started(delayed) > time.time() + 3000, "its clock is fast"
    fields = await scene.store.client.hgetall(f"bull:chaos:{delayed}")
    waited = int(fields["processedOn"]) - int(fields["timestamp"])
    assert 1000 <= waited < 60_000
    assert int(fields["finishedOn"]) - int(fields["processedOn"]) < 60_000


@pytest.mark.trap(20)
@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_producer_whose_clock_is_wrong_shortens_no_delay(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real, real_ns = time.time, time.time_ns
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: real() + hours * 3600)
        patched.setattr(time, "time_ns", lambda: real_ns() + hours * 3600 * 10**9)
        (delayed,) = await scene.enqueue({}, delay=timedelta(minutes=5))
        following = await scene.jobs.schedule(chaos, {}, Every(timedelta(minutes=5)), id="often")
        hourly = await scene.jobs.schedule(chaos, {}, Cron("0 * * * *"), id="hourly")
    now = (await scene.store.client.time())[0]
    due = await scene.store.client.zscore("bull:chaos:delayed", delayed)
    assert due is not None
    assert now + 290 < due / 4096 / 1000 <= now + 310
    assert abs(following.timestamp() - now) < 310
    assert 0 <= hourly.timestamp() - now + 10 <= 3610


@pytest.mark.trap(22)
async def test_what_we_write_cuts_no_history_below_the_queues_own_cap(
    scene: Scene, node: Node, all_done: Any
) -> None:
    """BullMQ's own producer of events cuts the stream to 1,000 entries for everybody."""
    client = scene.store.client
    await node.add(*[{"data": {"value": "x" * 100}, "opts": {}}] * 600)
    (first, _), *_ = await client.xrange("bull:chaos:events", count=1)
    await scene.hire(concurrency=50)
    await scene.enqueue(*[{"value": 1}] * 100)
    await all_done(completed=700)
    assert await client.hget("bull:chaos:meta", "opts.maxLenEvents") == "10000"
    assert (await client.xrange("bull:chaos:events", count=1))[0][0] == first
    assert await client.xlen("bull:chaos:events") >= 700 * 4


@pytest.mark.trap(23)
async def test_clients_of_either_protocol_share_a_queue(
    scene: Scene, node: Node, all_done: Any
) -> None:
    """Node speaks RESP 3; ours speaks 2, whatever the URL says."""
    await node.ask("work", queue="chaos", concurrency=1)
    workers = [
        await scene.hire(url=f"{scene.store.url}?protocol={protocol}", concurrency=1)
        for protocol in (2, 3)
    ]
    await scene.idle(workers=3)
    named = [
        line for line in await scene.store.client.client_list() if line["name"].startswith("bull:")
    ]
    assert sorted((":w:" in line["name"], line["resp"]) for line in named) == [
        (False, "3"),
        (True, "2"),
        (True, "2"),
    ]
    kinds: list[dict[str, Any]] = [{}, {"delay": timedelta(milliseconds=100)}, {"priority": 3}]
    for options in kinds:
        await scene.enqueue(*[{"ms": 20, "value": {"a": [1.5, None]}}] * 20, **options)
    await all_done(completed=60)
    assert {line.pid for line in scene.starts()} == {node.pid, *(worker.pid for worker in workers)}


@pytest.mark.trap(25)
async def test_what_obliterate_leaves_holds_nothing_up_and_can_be_removed(
    scene: Scene, node: Node, inspector: JobInspector, all_done: Any
) -> None:
    client = scene.store.client
    child = {"name": "child", "queueName": "children", "data": {}}
    flow = await node.ask(
        "flow", tree={"name": "parent", "queueName": "chaos", "data": {}, "children": [child]}
    )
    await node.add({"data": {}, "opts": {}})
    await node.ask("call", queue="chaos", method="rateLimit", args=[1500])
    await node.ask("call", queue="chaos", method="pause")
    await node.ask("call", queue="chaos", method="obliterate")
    left = {key async for key in client.scan_iter("bull:chaos:*")}
    assert {"bull:chaos:waiting-children", f"bull:chaos:{flow['id']}"} <= left
    await scene.enqueue({})
    await scene.hire()
    await all_done(completed=1)
    assert (await inspector.counts(chaos))["waiting-children"] == 1
    await inspector.remove(chaos, flow["id"])
    assert not await client.exists("bull:chaos:waiting-children", "bull:children:wait")


@pytest.mark.trap(26)
async def test_delays_below_zero_and_with_a_fraction_are_run_when_bullmq_would(
    scene: Scene, node: Node, all_done: Any
) -> None:
    past, fraction, long = await node.add(
        *(
            {"data": {"fails": 1}, "opts": {"delay": delay, "attempts": 2}}
            for delay in (-500, 20.5, 700.25)
        )
    )
    assert [await field(scene, job, "delay") for job in (past, fraction, long)] == [
        "-500",
        "20.5",
        "700.25",
    ]
    await scene.hire()
    await all_done(completed=3)
    fields = await scene.store.client.hgetall(f"bull:chaos:{long}")
    assert int(fields["processedOn"]) - int(fields["timestamp"]) >= 700


@pytest.mark.trap(26)
async def test_a_delay_of_ours_is_never_below_zero_and_is_whole_milliseconds(scene: Scene) -> None:
    (job,) = await scene.enqueue({}, delay=timedelta(seconds=60, microseconds=1500))
    assert await field(scene, job, "delay") == "60001"
    with pytest.raises(JobRefused, match=r"delay .* is negative"):
        await scene.enqueue({}, delay=timedelta(milliseconds=-1))

"""A trial sees what a worker does wrong, though it be for a moment only."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from corral.store.connection import Link
from corral.store.replies import ResponseError
from corral.tasks import end_tasks
from damage import trial as trials
from damage.layout import Layout
from damage.matrix import Case
from damage.trial import Gate, Trial, watching

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("it is cleared by the trial, but for what a test does on purpose"),
]


class Careless:
    """A worker that completes everything, and may lose an innocent job on its way.

    Args:
        client: Of the store.
        loses: An id that it takes out of its place.
        finds: Whether it puts it back.
    """

    def __init__(self, client: Any, loses: str = "", *, finds: bool = True) -> None:
        self._client = client
        self._loses = loses
        self._finds = finds

    async def start(self, trial: Trial) -> None:
        self._base = trial.layout.base
        if self._loses:
            await self._client.lrem(f"{self._base}wait", 1, self._loses)
            assert await trial.until(lambda: True), "a snapshot is taken"
        if self._loses and self._finds:
            await self._client.lpush(f"{self._base}wait", self._loses)
        self._working = asyncio.create_task(self._work(), name="a careless worker")

    async def _work(self) -> None:
        while True:
            await self._client.eval(
                """
                local ids = redis.call('LRANGE', KEYS[1] .. 'wait', 0, -1)
                for _, name in ipairs({'prioritized', 'delayed'}) do
                  local set = redis.call('ZRANGE', KEYS[1] .. name, 0, -1)
                  for _, id in ipairs(set) do ids[#ids + 1] = id end
                end
                for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1] .. 'completed', 1, id) end
                redis.call('DEL', KEYS[1] .. 'wait', KEYS[1] .. 'prioritized', KEYS[1] .. 'delayed')
                """,
                1,
                self._base,
            )
            await asyncio.sleep(0.005)

    async def holds(self) -> Counter[str]:
        return Counter()

    async def open(self) -> None:
        return None

    def tells(self, key: str) -> bool:
        return False

    async def stop(self) -> list[str]:
        await end_tasks([self._working])
        return []


@pytest.mark.parametrize(
    ("loses", "finds", "expected"),
    [
        ("", True, set()),
        ("i03", True, {("lost", b"i03")}),
        ("i03", False, {("lost", b"i03")}),
        ("plain", True, {("lost", b"plain")}),
    ],
)
async def test_a_job_that_was_in_no_place_for_a_moment_is_lost(
    binary: Any,
    monkeypatch: pytest.MonkeyPatch,
    loses: str,
    finds: bool,
    expected: set[tuple[str, bytes]],
) -> None:
    trial = Trial(Layout(binary, Case("none", "none"), "q"), 10, 10.0)
    async with watching(binary, monkeypatch) as watch:
        await trial.run(Careless(binary, loses, finds=finds), watch)
    assert set(trial.faults) == expected
    assert trial.lost == len(expected)
    assert trial.completed == (not expected)
    assert await binary.keys("*") == [], "nothing is left for the next trial"


async def test_a_snapshot_is_taken_before_a_worker_hears_of_an_error(
    store_url: str, binary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "TICK_SECONDS", 3600.0)
    trial = Trial(Layout(binary, Case("none", "none"), "q"), 10, 10.0)
    link = Link(store_url)
    await trial.layout.lay_out()
    async with watching(binary, monkeypatch) as watch:
        with watch.watched(trial):
            lose_and_fail = (
                "redis.call('LREM', KEYS[1], 1, ARGV[1]) return redis.call('GET', KEYS[1])"
            )
            with pytest.raises(ResponseError):
                await link.call("EVAL", lose_and_fail, 1, f"{trial.layout.base}wait", "i03")
    await link.close()
    assert watch.errors == 1
    assert set(trial.faults) == {("lost", b"i03")}
    await trial.layout.clear()


async def test_only_a_lock_that_was_lost_may_be_reported_as_lost(binary: Any) -> None:
    lost = {
        "event": "lock lost: the result is dropped",
        "log_level": "warning",
        "queue": "q",
        "job_id": "i03",
    }
    stalled = {
        "event": "job stalled: its worker is gone",
        "log_level": "warning",
        "queue": "q",
        "job_id": "i03",
    }
    flood = [{"event": "store unavailable", "log_level": "warning", "queue": "q"}] * 200
    for lines, expected in (
        ([lost], ["said"]),
        ([lost, stalled], []),
        (flood, ["said"]),
        ([stalled], []),
    ):
        trial = Trial(Layout(binary, Case("none", "none"), "q"), 10, 10.0)
        trial.heard(lines)
        assert [kind for kind, _ in trial.faults] == expected


async def test_the_gate_holds_the_victim_and_as_many_as_there_are_slots() -> None:
    gate = Gate(2, "victim", closed=True)
    early = {name: asyncio.create_task(gate.enter(name)) for name in ("a", "b", "victim")}
    assert await asyncio.wait_for(early["a"], 5), "it made room for the victim"
    assert set(gate.inside) == {"b", "victim"}
    gate.open()
    assert not any(await asyncio.gather(early["b"], early["victim"]))
    assert not await gate.enter("later")

"""Random programs, run by BullMQ for Node 6 below one prefix and by `QueueStore` below another,
leave the same keys.

Every call of ours is made twice, as after a lost reply: the second one must answer the same and
change nothing. TEST_PARITY_PROGRAMS says how many programs are run in all, TEST_PARITY_FIRST_SEED
where the seeds begin. Each is run on the scripts as they are, and once more on scripts without
their lean paths (the fixture `path`).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from parity.keyspace import ALLOWED, Entry, differences, read
from parity.lane import Lane, open_lane
from parity.lockstep import QUEUE, Lockstep, Verdict, verdict
from parity.programs import BATCHES, OPERATIONS, Program, generate, shrink
from parity.spelling import OURS

PROGRAMS = int(os.environ.get("TEST_PARITY_PROGRAMS", "40"))
FIRST_SEED = int(os.environ.get("TEST_PARITY_FIRST_SEED", "1"))
LANES = 2
"""Programs that run at the same time, each on its own server and Node process."""


@asynccontextmanager
async def lane(node_modules: Path) -> AsyncIterator[Lane]:
    with tempfile.TemporaryDirectory(prefix="corral-parity-") as folder:
        async with open_lane(Path(folder), node_modules) as opened:
            yield opened


async def describe(program: Program, found: Verdict, on: Lane) -> str:
    """What to print about a program that differs: the smallest one that still does, and where."""

    async def differs(smaller: Program) -> bool:
        return (await verdict(smaller, on)).differs

    smaller = await shrink(program, differs)
    found = await verdict(smaller, on)
    entries = "\n".join(f"  {entry}" for entry in found.entries[:3])
    return (
        f"{smaller}\n({len(program.steps)} steps before it was shrunk)\n"
        f"{found.parted or 'all answers are the same'}\n"
        f"{len(found.entries)} entries differ afterwards, the first:\n{entries}"
    )


@pytest.mark.timing  # a program must end within `SLOWEST_SECONDS`, and there are two lanes already
@pytest.mark.parametrize("batch", BATCHES)
def test_programs_leave_what_bullmq_leaves(
    batch: int, path: str, node_modules: Path, tally: Any
) -> None:
    count = -(-PROGRAMS // len(BATCHES))
    programs = (generate(seed, batch) for seed in range(FIRST_SEED, FIRST_SEED + count))

    async def work(mine: Iterator[Program]) -> str | None:
        async with lane(node_modules) as on:
            for program in mine:
                found = await verdict(program, on)
                tally.add(batch, path, found)
                if found.differs:
                    return await describe(program, found, on)
        return None

    async def all_lanes() -> list[str | None]:
        return await asyncio.gather(*(work(programs) for _ in range(LANES)))

    before = tally.programs[batch, path]
    reports = [report for report in asyncio.run(all_lanes()) if report]
    if reports:
        pytest.fail("\n\n".join(reports), pytrace=False)
    assert tally.programs[batch, path] - before == count


def test_a_seed_always_makes_the_same_program() -> None:
    assert generate(7, 50) == generate(7, 50)
    assert generate(7, 50) != generate(8, 50)
    assert len(generate(7, 50).steps) == OPERATIONS


def test_every_operation_is_drawn() -> None:
    drawn = {step.operation for seed in range(20) for step in generate(seed, 2).steps}
    known = {name.removeprefix("_") for name in vars(Lockstep) if name.startswith("_")}
    assert len(drawn) == 17
    assert drawn <= known


class Sabotaged(Lockstep):
    """Both sides, but ours writes another progress than it should."""

    async def _progress(self, pick: int, value: Any) -> None:
        await super()._progress(pick, value)
        for job_id in self.ids:
            key = f"{OURS}:{QUEUE}:{job_id}"
            if await self.client.hexists(key, "progress"):
                await self.client.hset(key, "progress", '"something else"')


@pytest.mark.timing  # as above
def test_a_difference_is_found_and_its_program_shrunk(node_modules: Path) -> None:
    """The test of the tests: one wrong field, in one kind of step, is reported by the two steps
    that show it.
    """

    async def differs(program: Program, on: Lane) -> bool:
        return (await verdict(program, on, Sabotaged)).differs

    async def search() -> None:
        async with lane(node_modules) as on:
            candidates = (generate(seed, 2) for seed in range(1, 100))
            with_progress = (
                p for p in candidates if any(step.operation == "progress" for step in p.steps)
            )
            for program in islice(with_progress, 10):
                if await differs(program, on):
                    smaller = await shrink(program, lambda less: differs(less, on))
                    found = await verdict(smaller, on, Sabotaged)
                    assert [step.operation for step in smaller.steps][1:] == ["progress"]
                    assert [entry.field for entry in found.entries] == ["progress"]
                    return
            pytest.fail("ten programs with a wrong progress, and none was noticed")

    asyncio.run(search())


NEAR_MISSES = [
    Entry("work:j1", "timestamp", "1800000005000", "1800000010000"),
    Entry("work:j1", "timestamp", "1800000005000", None),
    Entry("work:delayed", "j1 at", "1800000005000", "1800000015002"),
    Entry("work:events", "#3 delay", None, "1800000005000"),
    Entry("work:j1:lock", "value", "token-1", None),
    Entry("work:j1:lock", "expires", "yes", "no"),
    Entry("work:j1", "opts.attempts", "3", None),
    Entry("work:j1", "opts.attempts", "0", "1"),
    Entry("work:j1", "opts.jobId", None, '"j1"'),
    Entry("work:j1", "opts.corral.nonce", '"a"', None),
    Entry("work:meta", "opts.maxLenEvents", "10000", "1000"),
    Entry("work:meta", "paused", "1", None),
    Entry("work:j1", "atm", "1", "2"),
    Entry("work:wait", "[0]", "j1", "j2"),
]


@pytest.mark.parametrize("entry", NEAR_MISSES, ids=str)
def test_an_exception_covers_nothing_beside_it(entry: Entry) -> None:
    assert [allowed.name for allowed in ALLOWED if allowed.covers(entry)] == []


@pytest.mark.asyncio
async def test_every_kind_of_key_is_compared(store_url: str) -> None:
    """Whatever a side has and the other has not, or has in another order, is a difference."""
    async with Redis.from_url(store_url) as client:
        for prefix in ("one", "two"):
            await client.set(f"{prefix}:q:id", 1)
            await client.rpush(f"{prefix}:q:wait", "a", "b")
            await client.sadd(f"{prefix}:q:stalled", "a")
            await client.zadd(f"{prefix}:q:prioritized", {"a": 1, "b": 2})
            await client.zadd(f"{prefix}:q:delayed", {"a": 4096, "b": 4097})
            await client.hset(
                f"{prefix}:q:a", mapping={"opts": '{"kl":1}', "parentKey": f"{prefix}:q:b"}
            )
            await client.xadd(f"{prefix}:q:events", {"event": "added", "jobId": "a"})
        assert await _differing(client) == set()
        await client.expire("two:q:id", 100)
        await client.lset("two:q:wait", 0, "c")
        await client.sadd("two:q:stalled", "b")
        await client.zadd("two:q:prioritized", {"b": 3})
        await client.zadd("two:q:delayed", {"a": 4098})
        await client.hset("two:q:a", mapping={"opts": '{"kl":2}', "parentKey": "other:q:b"})
        await client.xadd("two:q:events", {"event": "waiting"})
        await client.set("two:q:more", "x")
        assert await _differing(client) == {
            ("q:id", "expires"),
            ("q:wait", "[0]"),
            ("q:stalled", "b"),
            ("q:prioritized", "b score"),
            ("q:delayed", "[0]"),
            ("q:delayed", "[1]"),
            ("q:a", "opts.kl"),
            ("q:a", "parentKey"),
            ("q:events", "#2"),
            ("q:events", "#2 event"),
            ("q:more", "type"),
            ("q:more", "expires"),
            ("q:more", "value"),
        }


async def _differing(client: Redis) -> set[tuple[str, str]]:
    found = differences(await read(client, "one"), await read(client, "two"), Counter())
    return {(entry.key, entry.field) for entry in found}

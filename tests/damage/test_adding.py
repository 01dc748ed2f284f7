"""A producer beside damaged keys: what was reported as written is in one place, what was refused
is nowhere.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import product
from types import MappingProxyType
from typing import Any

import pytest

from corral import Payload, Queue
from corral.catalog import Catalog, CatalogEntry
from corral.plugins import Plugins, Provider
from corral.producer import RedisJobScheduler
from damage.judge import misplaced, take_snapshots
from damage.layout import DAMAGE, REPAIR
from damage.matrix import NUMBERS, QUEUE_KEYS, TYPES

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("each case damages its queue"),
]

TOUCHED = ("events", "id", "pc", "delayed", "prioritized", "marker", "meta", "wait")
"""What adding a job writes to, or reads."""
DAMAGES = [
    *((key, "type", kind) for key, kind in product(TOUCHED, TYPES) if kind != QUEUE_KEYS[key]),
    *((key, "text", text) for key, text in product(("id", "pc"), NUMBERS)),
    *(
        (f"meta:{name}", "field", text)
        for name, text in product(("concurrency", "opts.maxLenEvents"), NUMBERS)
    ),
]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "urgent": {"priority": 2},
    "later": {"delay": timedelta(hours=1)},
    "first": {"lifo": True},
    "last": {},
}
PLAIN: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}


class Note(Payload):
    text: str = ""


@pytest.mark.parametrize("kinds", [KINDS, PLAIN], ids=["of-all-kinds", "plain"])
@pytest.mark.parametrize("together", [True, False], ids=["in-one-call", "one-by-one"])
async def test_an_add_beside_a_damaged_key_is_whole_or_nothing(
    store_url: str, binary: Any, path: str, together: bool, kinds: dict[str, dict[str, Any]]
) -> None:
    """So it is when the caller repeats it with the same ids after an error, and when the key was
    repaired.
    """
    provider = Provider("acme", "1.0", "wheel")
    queues = [Queue(f"add{number}", Note) for number in range(len(DAMAGES))]
    entries = MappingProxyType({queue.name: CatalogEntry(queue, provider, "") for queue in queues})
    job_hooks = Plugins.load([]).job_hooks
    jobs = RedisJobScheduler(
        Catalog(entries), job_hooks, url=store_url, prefix="bull", max_payload_bytes=1000
    )
    faults: list[str] = []

    async def add(queue: Queue[Any]) -> dict[bytes, bool]:
        """Which were refused, by id."""

        async def one(kind: str) -> bool:
            try:
                await jobs.enqueue(queue, Note(), job_id=kind, **kinds[kind])
            except Exception:  # noqa: BLE001  # any error: the caller knows that it failed
                return True
            return False

        if together:
            refused = await asyncio.gather(*map(one, kinds))
        else:
            refused = [await one(kind) for kind in kinds]
        return {kind.encode(): each for kind, each in zip(kinds, refused, strict=True)}

    async def look(queue: Queue[Any], damaged: str, when: str, refused: dict[bytes, bool]) -> None:
        base = f"bull:{queue.name}:"
        (snapshot,) = await take_snapshots(binary, [(base, damaged)])
        for job, failed in refused.items():
            if await binary.exists(base.encode() + job) or snapshot.places.get(job) or not failed:
                sentences = [fault.text for fault in misplaced(snapshot, [job])]
                faults.extend(f"{when}: {each}" for each in sentences)
            if not failed and not await binary.exists(base.encode() + job):
                faults.append(f"{when}: {job.decode()} was taken and has no hash")

    async def case(queue: Queue[Any], key: str, kind: str, value: str) -> None:
        name, _, field = key.partition(":")
        where = f"bull:{queue.name}:{name}"
        await binary.lpush(f"bull:{queue.name}:wait", "earlier")
        await binary.hset(f"bull:{queue.name}:earlier", "name", "x")
        await binary.eval(DAMAGE, 2, where, f"aside:{where}", kind, value, field)

        async def damaged() -> str:
            """The name of the key as long as nobody can use it: what adds may have put the damage
            aside.
            """
            found = (await binary.type(where)).decode()
            return "" if kind == "field" or found in {"none", QUEUE_KEYS[name]} else name

        for when in ("damaged", "damaged, and added again"):
            refused = await add(queue)
            await look(queue, await damaged(), f"{key}={value} {when}", refused)
        if await damaged():
            await binary.eval(REPAIR, 2, where, f"aside:{where}")
            refused = await add(queue)
            await look(queue, "", f"{key}={value} repaired", refused)
            faults.extend(
                f"{key}={value} repaired: {job.decode()} is refused"
                for job in refused
                if refused[job]
            )
        (snapshot,) = await take_snapshots(binary, [(f"bull:{queue.name}:", await damaged())])
        faults.extend(f"{key}={value}: {fault.text}" for fault in misplaced(snapshot, [b"earlier"]))

    try:
        for queue, damage in zip(queues, DAMAGES, strict=True):
            await case(queue, *damage)
    finally:
        await jobs.close()
    assert not faults, "\n".join([f"{len(faults)} faults:", *faults[:200]])

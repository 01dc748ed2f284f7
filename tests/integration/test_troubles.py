"""What a worker says an operator must know: its heartbeats carry it, and `corral health` is red for
it.

`/healthz` is not: a restart mends nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio

from corral import Job, Queue
from corral.app import heartbeat as app_alive
from corral.catalog import Catalog, Entry
from corral.fleet.heartbeats import LONGEST_TROUBLE, MOST_TROUBLES, Heartbeat, Heartbeats
from corral.inspector import JobInspector
from corral.observe.lag import LoopLag
from corral.observe.probes import ParentProbes, WorkerProbes
from corral.plugins import Provider
from corral.store.connection import Link

pytestmark = pytest.mark.asyncio

ALIVE = "corral:bull:alive"
META = "the key bull:letters:meta is a list, not a hash: no job of queue 'letters' starts"
CRON = "schedule 'nightly' of queue 'letters' is overdue: its cron expression cannot be read here"


@pytest_asyncio.fixture
async def heartbeats(store_url: str) -> AsyncIterator[Heartbeats]:
    link = Link(store_url)
    yield Heartbeats(link, "bull")
    await link.close()


def own(name: str = "1-a") -> str:
    return f"{socket.gethostname()}-{name}"


async def test_sentences_are_read_as_they_were_written(heartbeats: Heartbeats, raw: Any) -> None:
    odd = 'line\nbreak "quoted" \x1b[31m größe \ud83d'
    await heartbeats.write("w", Heartbeat(0.0, troubles=(META, odd)))
    await heartbeats.write("well", Heartbeat(0.0))
    found = await heartbeats.read()
    assert (found["w"].troubles, found["well"].troubles) == ((META, odd), ())
    assert (found["w"].version, found["w"].draining) == (version("corral"), False)
    assert len((await raw.hget(ALIVE, "well")).split()) == 6, "nothing is added where all is well"


async def test_a_sign_stays_short(heartbeats: Heartbeats, raw: Any) -> None:
    await heartbeats.write(
        "w", Heartbeat(0.0, troubles=tuple(f"{number} " + "x" * 5000 for number in range(100)))
    )
    told = (await heartbeats.read())["w"].troubles
    assert [each[:2] for each in told] == [f"{number} " for number in range(MOST_TROUBLES)]
    assert {len(each) for each in told} == {LONGEST_TROUBLE}
    assert len(await raw.hget(ALIVE, "w")) < 4000


async def test_an_older_release_reads_it_and_is_read(heartbeats: Heartbeats, raw: Any) -> None:
    """An older release takes the first six words of a heartbeat, and needs five numbers in them."""
    await heartbeats.write("new", Heartbeat(1.5, processes=3, troubles=(META, CRON)))
    *numbers, corral = (*(await raw.hget(ALIVE, "new")).split(), "0", "0", "")[:6]
    assert [each.isdecimal() for each in numbers] == [True] * 5
    assert (numbers[2], corral) == ("3", version("corral"))
    now_ms = int(time.time() * 1000)
    older = {"three": f"{now_ms} 0 2", "six": f"{now_ms} 1 0 {now_ms} 7 0.1"}
    broken = ("{", "[1, null, {}]", '"text"', "null", "[" * 5000, "not json at all")
    odd = {f"odd {at}": f"{now_ms} 0 0 {now_ms} 7 0.9 {text}" for at, text in enumerate(broken)}
    await raw.hset(ALIVE, mapping={**older, **odd, "nobody's": "junk"})
    found = await heartbeats.read()
    assert found.keys() == {"new", *older, *odd}
    assert all(not each.troubles for name, each in found.items() if name != "new")
    assert (
        found["three"].processes,
        found["six"].pid,
        found["six"].version,
        found["six"].draining,
    ) == (
        2,
        7,
        "0.1",
        True,
    )


async def test_corral_health_is_red_while_a_worker_that_lives_says_so(
    command: Any, heartbeats: Heartbeats
) -> None:
    async def health(*arguments: str) -> tuple[int, str, str]:
        asked = command("health", *arguments)
        return await asyncio.to_thread(asked.wait), asked.result, asked.said

    await heartbeats.write(own(), Heartbeat(0.0, troubles=(META, CRON)))
    await heartbeats.write(own("2-b"), Heartbeat(0.0, troubles=(META,)))
    await heartbeats.write(own("3-c"), Heartbeat(20.0, troubles=("told by one that is silent",)))
    await heartbeats.write("elsewhere-1-a", Heartbeat(0.0, troubles=("told elsewhere",)))
    code, out, said = await health()
    assert (code, said) == (1, f"error: {META}; {CRON}\n")
    assert own() in out
    code, out, said = await health("--json")
    found = json.loads(out)
    assert (code, found["healthy"], said) == (1, False, f"error: {META}; {CRON}\n")
    assert {each["name"]: each["troubles"] for each in found["workers"]} == {
        own(): [META, CRON],
        own("2-b"): [META],
        own("3-c"): ["told by one that is silent"],
    }
    assert (await health("--worker", own("2-b")))[::2] == (1, f"error: {META}\n")
    await heartbeats.write(own(), Heartbeat(0.0))
    await heartbeats.write(own("2-b"), Heartbeat(0.0))
    assert (await health())[0] == 0


async def test_what_a_worker_knows_is_in_its_signs_and_in_no_probe_of_liveness(
    workshop: Any, letters: Queue[Any], heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_alive, "HEARTBEAT_SECONDS", 0.05)

    async def work(_job: Job[Any]) -> None: ...

    async def says(*troubles: str) -> None:
        async def said() -> bool:
            found = await heartbeats.read()
            return bool(found) and all(each.troubles == troubles for each in found.values())

        await workshop.wait_until(said, f"the heartbeat says {troubles}")

    async with workshop.working(letters.processed_by(work), name="p.1") as working:
        worker, stop = working.worker, asyncio.Event()
        worker_probes = WorkerProbes(worker, LoopLag(), workshop.url)
        parent_probes = ParentProbes("p", workshop.url, "bull", stop)
        async with app_alive.alive(worker, workshop.url, "bull"):
            await says()
            worker.troubles["letters", "one"] = META
            worker.troubles["letters", "other"] = CRON
            await says(META, CRON)
            await parent_probes._look()
            for probes in (worker_probes, parent_probes):
                assert (probes.unwell(), probes.troubles()) == ("", (META, CRON))
            del worker.troubles["letters", "one"]
            await says(CRON)
            worker.troubles.clear()
            await says()
        await parent_probes._link.close()
    assert await heartbeats.read() == {}


async def test_a_damaged_key_of_signs_stops_no_worker_and_its_signs_come_back(
    workshop: Any,
    letters: Queue[Any],
    heartbeats: Heartbeats,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(app_alive, "HEARTBEAT_SECONDS", 0.05)
    await workshop.raw.set(ALIVE, "junk")

    async def work(_job: Job[Any]) -> None: ...

    def refused() -> bool:
        return "heartbeats are refused by the store" in caplog.text

    async def there() -> bool:
        return set(await heartbeats.read()) == {"w"}

    async with (
        workshop.working(letters.processed_by(work), name="w") as working,
        app_alive.alive(working.worker, workshop.url, "bull"),
    ):
        await workshop.wait_until(refused, "the log says so")
        await workshop.raw.delete(ALIVE)
        await workshop.wait_until(there, "its heartbeat is there")
    assert caplog.text.count("heartbeats are refused") == 1


async def test_the_inspector_tells_who_says_what(
    workshop: Any, letters: Queue[Any], heartbeats: Heartbeats
) -> None:
    await heartbeats.write("w", Heartbeat(0.0, troubles=(META,)))
    catalog = Catalog(
        MappingProxyType({letters.name: Entry(letters, Provider("acme", "1.0", "wheel"), "")})
    )
    inspector = JobInspector(catalog, Link(workshop.url), prefix="bull")
    assert {each.name: each.troubles for each in await inspector.workers()} == {"w": (META,)}
    await inspector.close()

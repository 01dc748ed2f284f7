"""A worker's problems: its heartbeats carry them, and `corral health` fails for them.

`/healthz` does not: a restart solves none of them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio

from corral import Deps, Job, Queue
from corral.app.child_process import keep_record, start_heartbeats
from corral.catalog import Catalog, CatalogEntry
from corral.fleet import processes
from corral.fleet.processes import (
    LONGEST_TROUBLE,
    MOST_TROUBLES,
    OwnRecord,
    ProcessRecord,
    ProcessRecords,
)
from corral.inspector import JobInspector
from corral.observe.lag import LoopLag
from corral.observe.metrics import WorkerMetrics, render
from corral.observe.probes import ParentProbes, WorkerProbes
from corral.observe.tally import Tally
from corral.plugins import Provider
from corral.store.connection import Link

pytestmark = pytest.mark.asyncio

ALIVE = "corral:bull:alive"
REFUSED = "the store refused to write this process's heartbeat"
META = "the key bull:letters:meta is a list, not a hash: no job of queue 'letters' starts"
CRON = "schedule 'nightly' of queue 'letters' is overdue: its cron expression cannot be read here"


@pytest_asyncio.fixture
async def heartbeats(store_url: str) -> AsyncIterator[ProcessRecords]:
    link = Link(store_url)
    yield ProcessRecords(link, "bull")
    await link.close()


def own(name: str = "1-a") -> str:
    return f"{socket.gethostname()}-{name}"


async def test_sentences_are_read_as_they_were_written(
    heartbeats: ProcessRecords, raw: Any
) -> None:
    odd = 'line\nbreak "quoted" \x1b[31m größe \ud83d'
    await heartbeats.write("w", ProcessRecord(0.0, troubles=(META, odd)))
    await heartbeats.write("well", ProcessRecord(0.0))
    found = await heartbeats.read()
    assert (found["w"].troubles, found["well"].troubles) == ((META, odd), ())
    assert (found["w"].version, found["w"].draining) == (version("corral"), False)
    assert len((await raw.hget(ALIVE, "well")).split()) == 6, "nothing is added where all is well"


async def test_a_heartbeat_stays_short(heartbeats: ProcessRecords, raw: Any) -> None:
    await heartbeats.write(
        "w", ProcessRecord(0.0, troubles=tuple(f"{number} " + "x" * 5000 for number in range(100)))
    )
    troubles = (await heartbeats.read())["w"].troubles
    assert [each[:2] for each in troubles] == [f"{number} " for number in range(MOST_TROUBLES)]
    assert {len(each) for each in troubles} == {LONGEST_TROUBLE}
    assert len(await raw.hget(ALIVE, "w")) < 4000


async def test_an_older_release_reads_it_and_is_read(heartbeats: ProcessRecords, raw: Any) -> None:
    """An older release takes the first six words of a heartbeat, and needs five numbers in them."""
    await heartbeats.write("new", ProcessRecord(1.5, processes=3, troubles=(META, CRON)))
    *numbers, corral = (*(await raw.hget(ALIVE, "new")).split(), "0", "0", "")[:6]
    assert [each.isdecimal() for each in numbers] == [True] * 5
    assert (numbers[2], corral) == ("3", version("corral"))
    now_ms = int(time.time() * 1000)
    older = {"three": f"{now_ms} 0 2", "six": f"{now_ms} 1 0 {now_ms} 7 0.1"}
    broken = ("{", "[1, null, {}]", '"text"', "null", "[" * 5000, "not json at all")
    odd = {f"odd {at}": f"{now_ms} 0 0 {now_ms} 7 0.9 {text}" for at, text in enumerate(broken)}
    await raw.hset(ALIVE, mapping={**older, **odd, "unknown": "junk"})
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


async def test_corral_health_fails_while_a_living_worker_reports_a_problem(
    command: Any, heartbeats: ProcessRecords
) -> None:
    async def health(*arguments: str) -> tuple[int, str, str]:
        asked = command("health", *arguments)
        return await asyncio.to_thread(asked.wait), asked.result, asked.said

    await heartbeats.write(own(), ProcessRecord(0.0, troubles=(META, CRON)))
    await heartbeats.write(own("2-b"), ProcessRecord(0.0, troubles=(META,)))
    await heartbeats.write(
        own("3-c"), ProcessRecord(20.0, troubles=("of a process that is silent",))
    )
    await heartbeats.write("elsewhere-1-a", ProcessRecord(0.0, troubles=("of another host",)))
    code, out, error = await health()
    assert (code, error) == (1, f"error: {META}; {CRON}\n")
    assert own() in out
    code, out, error = await health("--json")
    found = json.loads(out)
    assert (code, found["healthy"], error) == (1, False, f"error: {META}; {CRON}\n")
    assert {each["name"]: each["troubles"] for each in found["workers"]} == {
        own(): [META, CRON],
        own("2-b"): [META],
        own("3-c"): ["of a process that is silent"],
    }
    assert (await health("--worker", own("2-b")))[::2] == (1, f"error: {META}\n")
    await heartbeats.write(own(), ProcessRecord(0.0))
    await heartbeats.write(own("2-b"), ProcessRecord(0.0))
    assert (await health())[0] == 0


async def test_a_worker_s_problems_are_in_its_heartbeats_and_in_no_liveness_probe(
    workshop: Any, letters: Queue[Any], heartbeats: ProcessRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "HEARTBEAT_SECONDS", 0.05)

    async def work(_job: Job[Any]) -> None: ...

    async def shows(*troubles: str) -> None:
        async def is_shown() -> bool:
            found = await heartbeats.read()
            return bool(found) and all(each.troubles == troubles for each in found.values())

        await workshop.wait_until(is_shown, f"the heartbeat shows {troubles}")

    async with workshop.working(letters.processed_by(work), name="p.1") as working:
        worker, stop = working.worker, asyncio.Event()
        worker_probes = WorkerProbes(worker, LoopLag(), workshop.url)
        parent_probes = ParentProbes("p", workshop.url, "bull", stop)
        own = OwnRecord(Link(workshop.url), "bull", worker.name)
        async with keep_record(own):
            start_heartbeats(worker, own)
            await shows()
            worker.troubles["letters", "one"] = META
            worker.troubles["letters", "other"] = CRON
            await shows(META, CRON)
            await parent_probes._read()
            for probes in (worker_probes, parent_probes):
                assert (probes.health_problem(), probes.troubles()) == ("", (META, CRON))
            del worker.troubles["letters", "one"]
            await shows(CRON)
            worker.troubles.clear()
            await shows()
        await parent_probes._link.close()
    assert await heartbeats.read() == {}


async def test_what_a_plugin_reports_and_counts_is_in_heartbeats_and_metrics(
    workshop: Any,
    letters: Queue[Any],
    heartbeats: ProcessRecords,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker is ready all the same: it takes jobs."""
    monkeypatch.setattr(processes, "HEARTBEAT_SECONDS", 0.05)
    closed = "the post office is closed"

    @asynccontextmanager
    async def open_office(deps: Deps) -> AsyncIterator[Deps]:
        deps.counter("acme_letters_total", "Letters.", label="kind", values=("fast", "slow"))
        yield deps

    async def work(job: Job[Any], deps: Deps) -> None:
        deps.counters["acme_letters_total"].add("fast")
        if job.payload.text == "closed":
            deps.report_trouble(letters, closed)
        else:
            deps.clear_trouble(letters)

    async def shows(*sentences: str) -> None:
        async def written() -> bool:
            found = await heartbeats.read()
            return worker.name in found and found[worker.name].troubles == sentences

        await workshop.wait_until(written, f"the heartbeat has {len(sentences)} problems")

    jobs = workshop.producer(letters)
    async with workshop.working(letters.processed_by(work, using=open_office)) as working:
        worker = working.worker
        probes = WorkerProbes(worker, LoopLag(), workshop.url)
        metrics = WorkerMetrics(
            Tally(),
            ["letters"],
            stalled={},
            lag_seconds=lambda: 0.0,
            plugins=workshop.plugins,
            counters=worker.counters,
        )
        async with keep_record(OwnRecord(Link(workshop.url), "bull", worker.name)) as own:
            start_heartbeats(worker, own)
            await jobs.enqueue(letters, letters.payload(text="closed"))
            await shows(closed)
            assert probes.readiness_problem() == ""
            assert (probes.health_problem(), probes.troubles()) == ("", (closed,))
            await jobs.enqueue(letters, letters.payload(text="open"))
            await shows()
    body = render(metrics).decode()
    assert "# HELP acme_letters_total Letters.\n# TYPE acme_letters_total counter\n" in body
    assert 'acme_letters_total{kind="fast"} 2.0\nacme_letters_total{kind="slow"} 0.0\n' in body


async def test_a_damaged_key_of_heartbeats_stops_no_worker_and_they_come_back(
    workshop: Any,
    letters: Queue[Any],
    heartbeats: ProcessRecords,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(processes, "HEARTBEAT_SECONDS", 0.05)
    await workshop.raw.set(ALIVE, "junk")

    async def work(_job: Job[Any]) -> None: ...

    def refused() -> bool:
        return REFUSED in caplog.text

    async def there() -> bool:
        return set(await heartbeats.read()) == {"w"}

    async with (
        workshop.working(letters.processed_by(work), name="w") as working,
        keep_record(OwnRecord(Link(workshop.url), "bull", "w")) as own,
    ):
        start_heartbeats(working.worker, own)
        await workshop.wait_until(refused, "it is logged")
        await workshop.raw.delete(ALIVE)
        await workshop.wait_until(there, "its heartbeat is there")
    assert caplog.text.count(REFUSED) == 1


async def test_the_inspector_lists_the_problems_by_process(
    workshop: Any, letters: Queue[Any], heartbeats: ProcessRecords
) -> None:
    await heartbeats.write("w", ProcessRecord(0.0, troubles=(META,)))
    catalog = Catalog(
        MappingProxyType(
            {letters.name: CatalogEntry(letters, Provider("acme", "1.0", "wheel"), "")}
        )
    )
    inspector = JobInspector(catalog, Link(workshop.url), prefix="bull")
    assert {each.name: each.troubles for each in await inspector.workers()} == {"w": (META,)}
    await inspector.close()

"""`durability="replicated"`: an enqueue returns when a replica has its jobs, or raises."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

import corral
from chaos.proxy import Proxy, every_first_try
from corral import EnqueueInterrupted, Entry, Payload, Queue, StoreUnavailable
from corral.errors import ConfigurationError
from corral.store.connection import REPLICATED_SECONDS
from integration.conftest import Workshop
from integration.servers import KINDS, Server, server
from integration.test_store_users import LINES

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)
REPLY_SECONDS = 0.7
"""How long one try of a producer waits for the store itself."""


@dataclass
class Pair:
    """A primary, and a replica that follows it through a link of this process.

    Attributes:
        primary: The one that producers write to.
        replica: The other.
        link: What the replica follows it through.
    """

    primary: Server
    replica: Server
    link: Proxy

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The replica is stopped, as by SIGSTOP; its connection stays open."""
        pid = self.replica.admin.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def waits(self) -> int:
        """How many WAIT commands the primary has run."""
        return self.primary.admin.info("commandstats").get("cmdstat_wait", {}).get("calls", 0)


@pytest_asyncio.fixture(params=KINDS)
async def pair(request: pytest.FixtureRequest, wait_until: Any) -> AsyncIterator[Pair]:
    with (
        server(request.param, "--repl-diskless-sync", "no") as primary,
        server(request.param) as replica,
    ):
        async with Proxy(primary.folder / "unused", primary.socket, tcp=True) as link:
            replica.admin.replicaof("127.0.0.1", link.port)
            primary.admin.set("follows", 1)
            await wait_until(
                lambda: replica.admin.exists("follows") and following(primary),
                "the replica follows",
            )
            primary.admin.delete("follows")
            yield Pair(primary, replica, link)


@pytest_asyncio.fixture
async def shop(pair: Pair, wait_until: Any) -> AsyncIterator[Workshop]:
    async with redis.asyncio.Redis.from_url(pair.primary.url(), decode_responses=True) as raw:
        made = Workshop(pair.primary.url(), raw, wait_until)
        yield made
        for producer in made.producers:
            await producer.close()


def following(primary: Server) -> int:
    """How many replicas have all data."""
    replication = primary.admin.info("replication")
    return sum(
        value["state"] == "online"
        for name, value in replication.items()
        if name.startswith("slave") and isinstance(value, dict)
    )


async def failing(call: Any) -> tuple[float, Any]:
    """How many seconds a call takes to fail, and its error."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as failed:
        await call
    return time.monotonic() - began, failed.value


async def test_a_job_is_on_the_replica_when_the_call_returns(pair: Pair, shop: Workshop) -> None:
    jobs = shop.producer(letters, durability="replicated")
    for number in range(50):
        made = await jobs.enqueue(letters, Letter(text=str(number)))
        assert pair.replica.admin.hget(f"bull:letters:{made.id}", "name") == "letters"
    made_many = await jobs.enqueue_many(letters, [Letter()] * 1200)
    assert pair.replica.admin.llen("bull:letters:wait") == 50 + len(made_many)
    assert pair.waits() == 50 + 3, "one for each part"


async def test_nobody_waits_who_did_not_ask(pair: Pair, shop: Workshop) -> None:
    jobs = shop.producer(letters)
    await jobs.enqueue(letters, Letter())
    await jobs.enqueue_many(letters, [Letter()] * 600)
    assert pair.waits() == 0
    with pair.frozen():
        assert (await jobs.enqueue(letters, Letter())).created


@pytest.mark.timing
async def test_where_no_replica_has_it_the_outcome_is_unknown(
    pair: Pair, shop: Workshop, wait_until: Any
) -> None:
    jobs = shop.producer(letters, durability="replicated")
    await jobs.enqueue(letters, Letter())
    with pair.frozen():
        took, error = await failing(jobs.enqueue(letters, Letter(), job_id="frozen"))
        assert (error.outcome, error.job_id) == ("unknown", "frozen")
        assert "no replica had it within 1 s: it is lost if the store fails over" in str(error)
        assert error.hint
        assert pair.primary.admin.exists("bull:letters:frozen") == 1
        print(f"replica frozen: failed after {took:.2f} s")
        assert took <= REPLICATED_SECONDS + REPLY_SECONDS

        took, error = await failing(jobs.enqueue(letters, Letter(), job_id="frozen"))
        assert (error.outcome, error.job_id) == ("unknown", "frozen"), (
            "that it exists is no news of a replica"
        )
        assert took >= REPLICATED_SECONDS * 0.9

    again = await jobs.enqueue(letters, Letter(), job_id="frozen")
    assert not again.created
    assert pair.replica.admin.exists("bull:letters:frozen") == 1

    pair.replica.admin.replicaof("NO", "ONE")
    await wait_until(lambda: following(pair.primary) == 0, "there is no replica any more")
    _, error = await failing(jobs.enqueue(letters, Letter(), job_id="alone"))
    assert (error.outcome, error.job_id) == ("unknown", "alone")


async def test_a_replica_that_is_late_is_waited_for(pair: Pair, shop: Workshop) -> None:
    jobs = shop.producer(letters, durability="replicated")
    await jobs.enqueue(letters, Letter())
    pair.link.delay_seconds = late = 0.3
    began = time.monotonic()
    made = await jobs.enqueue(letters, Letter())
    assert time.monotonic() - began >= late
    assert pair.replica.admin.exists(f"bull:letters:{made.id}") == 1


@pytest.mark.parametrize("own", [{}, {"job_id": "own"}], ids=["made", "own"])
async def test_a_repetition_after_a_lost_reply_waits_for_the_replica(
    pair: Pair, shop: Workshop, own: dict[str, Any]
) -> None:
    """It finds its job written, on a connection that has written nothing: all replicas would count
    at once.
    """
    async with Proxy(pair.primary.folder / "front", pair.primary.socket) as front:
        jobs = shop.producer(letters, url=front.url, durability="replicated")
        await jobs.enqueue(letters, Letter())
        front.cut = every_first_try("add")
        made = await jobs.enqueue(letters, Letter(), **own)
        assert (made.created, front.cuts) == (True, 1)
        assert pair.replica.admin.exists(f"bull:letters:{made.id}") == 1
        front.cut = every_first_try("add")
        with pair.frozen():
            _, error = await failing(jobs.enqueue(letters, Letter()))
            assert (error.outcome, front.cuts) == ("unknown", 2)
            assert "no replica had it" in str(error)
            assert pair.primary.admin.exists(f"bull:letters:{error.job_id}") == 1
        assert pair.primary.admin.llen("bull:letters:wait") == 3
        await jobs.close()


async def test_the_reply_of_the_wait_is_lost(pair: Pair, shop: Workshop) -> None:
    async with Proxy(pair.primary.folder / "front", pair.primary.socket) as front:
        jobs = shop.producer(letters, url=front.url, durability="replicated")
        front.cut = lambda request: b"\r\nWAIT\r\n" in request and front.cuts == 0
        made = await jobs.enqueue(letters, Letter())
        assert (made.created, front.cuts) == (True, 1)
        assert pair.primary.admin.llen("bull:letters:wait") == 1
        assert pair.replica.admin.llen("bull:letters:wait") == 1
        await jobs.close()


async def test_a_bulk_stops_at_the_part_that_no_replica_has(pair: Pair, shop: Workshop) -> None:
    ids = [f"job-{number}" for number in range(1200)]
    entries = [Entry(Letter(), job_id=job_id) for job_id in ids]

    def hold_from_the_second_part(request: bytes) -> bool:
        if b"job-500" in request:
            pair.link.hold()
        return False

    async with Proxy(pair.primary.folder / "front", pair.primary.socket) as front:
        jobs = shop.producer(letters, url=front.url, durability="replicated")
        await jobs.enqueue(letters, Letter(), job_id="job-0")
        front.cut = hold_from_the_second_part
        _, error = await failing(jobs.enqueue_many(letters, entries))
        assert isinstance(error, EnqueueInterrupted)
        assert (error.outcome, error.existing, error.created) == (
            "partial",
            ("job-0",),
            tuple(ids[1:500]),
        )
        assert (error.unknown, error.refused) == (tuple(ids[500:1000]), tuple(ids[1000:]))
        assert pair.primary.admin.llen("bull:letters:wait") == 1000

        front.cut = lambda _: False
        pair.link.let_go()
        made = await jobs.enqueue_many(letters, entries)
        assert [each.created for each in made] == [False] * 1000 + [True] * 200
        assert pair.replica.admin.llen("bull:letters:wait") == 1200
        await jobs.close()


async def test_both_front_doors(pair: Pair, acme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(acme)
    monkeypatch.setenv("REDIS_URL", pair.primary.url())
    async with corral.connect(durability="replicated") as jobs:
        ids = [(await jobs.enqueue("acme-letters", {})).id]

    def block() -> None:
        with corral.connect_blocking(durability="replicated") as jobs:
            ids.append(jobs.enqueue("acme-letters", {}).id)
            ids.extend(each.id for each in jobs.enqueue_many("acme-letters", [{}, {}]))
            assert pair.waits() == 3
            with pair.frozen(), pytest.raises(StoreUnavailable) as failed:
                jobs.enqueue("acme-letters", {})
            assert (failed.value.outcome, failed.value.job_id is None) == ("unknown", False)

    await asyncio.to_thread(block)
    assert set(ids) <= set(pair.replica.admin.lrange("bull:acme-letters:wait", 0, -1))


@pytest.mark.timing
async def test_a_crowd_waits_no_longer_than_one(pair: Pair, shop: Workshop) -> None:
    jobs = shop.producer(letters, durability="replicated")
    await jobs.enqueue(letters, Letter())
    with pair.frozen():
        began = time.monotonic()
        calls = (jobs.enqueue(letters, Letter()) for _ in range(2000))
        errors: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        took = time.monotonic() - began
    print(f"2,000 calls failed after {took:.2f} s, where no replica has the first of them")
    assert took <= REPLICATED_SECONDS + REPLY_SECONDS
    written = set(pair.primary.admin.lrange("bull:letters:wait", 0, -1))
    assert {error.outcome for error in errors} == {"unknown", "refused"}
    assert all((error.job_id in written) == (error.outcome == "unknown") for error in errors)


async def test_no_command_comes_between_the_write_and_its_wait(pair: Pair, shop: Workshop) -> None:
    """A write of another task would be waited for instead; here one of the same connection."""
    jobs = shop.producer(letters, durability="replicated")
    await jobs.enqueue(letters, Letter())
    with pair.primary.admin.monitor() as monitor:
        calls = [
            jobs.enqueue(letters, Letter()),
            *(jobs.unschedule(letters, f"none-{number}") for number in range(20)),
        ]
        await asyncio.gather(*calls, *(jobs.enqueue(letters, Letter()) for _ in range(20)))
        pair.primary.admin.ping()
        seen: list[str] = []
        for entry in monitor.listen():
            if entry["client_type"] != "lua":
                seen.append(entry["command"].split()[0].upper())
            if seen[-1:] == ["PING"]:
                break
    assert "WAIT" in seen
    assert all(before == "EVALSHA" for before, word in pairwise(seen) if word == "WAIT")


async def test_the_right_to_wait(pair: Pair, wait_until: Any) -> None:
    """What is written is not taken for refused where it is missing; Redis 7.0 gives it with
    `+@connection`.
    """
    pair.primary.set_user("plain", f"{LINES['producer']} -wait")
    pair.primary.set_user("waits", f"{LINES['producer']} +wait")
    async with redis.asyncio.Redis.from_url(pair.primary.url(), decode_responses=True) as raw:
        plain, waits = (
            Workshop(pair.primary.url(name), raw, wait_until) for name in ("plain", "waits")
        )
        assert (await plain.producer(letters).enqueue(letters, Letter())).created
        took, error = await failing(
            plain.producer(letters, durability="replicated").enqueue(letters, Letter())
        )
        assert (error.outcome, "does not let its user do this" in str(error)) == ("unknown", True)
        assert took < REPLICATED_SECONDS, "to try again would help nobody"
        assert pair.primary.admin.exists(f"bull:letters:{error.job_id}") == 1
        assert (
            await waits.producer(letters, durability="replicated").enqueue(letters, Letter())
        ).created
        for producer in (*plain.producers, *waits.producers):
            await producer.close()


async def test_no_other_durability_is_known(shop: Workshop) -> None:
    with pytest.raises(ConfigurationError, match="durability 'twice' does not exist"):
        shop.producer(letters, durability="twice")

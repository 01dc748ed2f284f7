"""Other clients on our queues: which of them have workers, their versions and their own limits."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

import corral
from corral import Queue
from corral.catalog.record import Record
from corral.catalog.unserved import warn_of_unserved
from corral.store.codec import NewJob
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.worker.neighbours import Neighbours
from logged import capture_logs

pytestmark = pytest.mark.asyncio

BASE = "bull:letters:"
PRODUCER, WORKER = (Record("acme", "1.0", "cafe", role, 1) for role in ("producer", "worker"))


def encoded(queue: str) -> str:
    return b64encode(queue.encode()).decode()


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[QueueStore]:
    store = QueueStore(Link(store_url), "bull", "letters")
    yield store
    await store.close()


@pytest.fixture
def warnings() -> Iterator[list[Any]]:
    with capture_logs(logging.WARNING) as lines:
        yield lines


@asynccontextmanager
async def connected(url: str, *names: str) -> AsyncIterator[None]:
    """Connections with these client names, as workers of other clients have them (wire § 7.3)."""
    async with AsyncExitStack() as clients:
        for name in names:
            client = await clients.enter_async_context(
                redis.asyncio.Redis.from_url(url, single_connection_client=True)
            )
            await client.client_setname(name)
        yield


class TestUnserved:
    """ "No worker serves …" is logged if it is true, for queues that a producer uses."""

    @pytest_asyncio.fixture
    async def asked(self, store_url: str) -> AsyncIterator[Callable[..., Any]]:
        link = Link(store_url)
        yield lambda *queues, ours=(): warn_of_unserved(queues, ours, link, "bull")
        await link.close()

    async def test_all_queues_without_a_worker_are_listed_in_one_sentence(
        self, asked: Callable[..., Any]
    ) -> None:
        sentence = "no worker serves 'emails', 'faxes': their jobs will wait"
        ours = ({"emails": PRODUCER, "letters": WORKER},)
        assert await asked("letters", "faxes", "emails", ours=ours) == (sentence,)
        assert await asked("letters", ours=ours) == ()
        assert await asked() == ()

    @pytest.mark.parametrize(
        "name",
        [
            f"bull:{encoded('emails')}",
            f"bull:{encoded('emails')}:w:ada",
            "bull:emails",
            "bull:emails:w:ada",
        ],
        ids=["Node", "Node, with a name", "Python", "Python, with a name"],
    )
    async def test_a_worker_of_another_client_serves_too(
        self, store_url: str, asked: Callable[..., Any], name: str
    ) -> None:
        async with connected(store_url, name):
            assert await asked("emails") == ()
            assert await asked("emails", "faxes") == (
                "no worker serves 'faxes': their jobs will wait",
            )

    @pytest.mark.parametrize(
        "name",
        [
            f"bull:{encoded('emails')}:qe",
            f"other:{encoded('emails')}",
            "emails",
            f"bull:{encoded('faxes')}",
        ],
    )
    async def test_listeners_and_connections_to_other_queues_do_not_serve(
        self, store_url: str, asked: Callable[..., Any], name: str
    ) -> None:
        async with connected(store_url, name):
            assert await asked("emails") == ("no worker serves 'emails': their jobs will wait",)

    async def test_without_a_list_of_connections_a_stalled_check_counts(
        self, raw: redis.asyncio.Redis, store_url: str
    ) -> None:
        rights = ("on", ">secret", "~*", "+@all", "-client|list")
        await raw.execute_command("ACL", "SETUSER", "producer", *rights)
        link = Link(store_url.replace("unix://", "unix://producer:secret@", 1))
        try:
            await raw.set("bull:emails:stalled-check", 1, px=60_000)
            found = await warn_of_unserved(["emails", "faxes"], [], link, "bull")
            assert found == ("no worker serves 'faxes': their jobs will wait",)
        finally:
            await link.close()
            await raw.execute_command("ACL", "DELUSER", "producer")

    async def test_a_producer_warns_of_queues_that_it_enqueues_to(
        self,
        store_url: str,
        acme: Path,
        monkeypatch: pytest.MonkeyPatch,
        wait_until: Any,
        warnings: list[Any],
    ) -> None:
        monkeypatch.syspath_prepend(str(acme))
        monkeypatch.setenv("CORRAL_ENV", "production")
        monkeypatch.setenv("REDIS_URL", store_url)
        async with corral.connect() as jobs:
            await jobs.enqueue("acme-threads", {"text": "one"})
            await wait_until(lambda: warnings, "the producer has warned of the queue")
            await jobs.enqueue("acme-threads", {"text": "two"})
        async with (
            connected(store_url, f"bull:{encoded('acme-threads')}"),
            corral.connect() as jobs,
        ):
            await jobs.enqueue("acme-threads", {"text": "three"})
            await jobs.enqueue("acme-letters", {"text": "four"})
            await wait_until(lambda: len(warnings) > 1, "the producer has warned of the other one")
        assert [line["event"] for line in warnings] == [
            "no worker serves 'acme-threads': their jobs will wait",
            "no worker serves 'acme-letters': their jobs will wait",
        ]


class TestVersions:
    @pytest.mark.parametrize(
        ("first", "then"), [("5.81.5", "6.7.0"), ("6.7.0", "5.81.5"), ("6.7.0", "4.0.0")]
    )
    async def test_a_change_is_logged_once(
        self,
        store: QueueStore,
        raw: redis.asyncio.Redis,
        warnings: list[Any],
        first: str,
        then: str,
    ) -> None:
        neighbours = Neighbours(store)
        for version in (first, first, then, first, then):
            await raw.hset(f"{BASE}meta", "version", f"bullmq:{version}")
            await neighbours.look()
        (line,) = warnings
        assert (line["log_level"], line["queue"]) == ("warning", "letters")
        assert "BullMQ 5 and BullMQ 6 share a queue" in line["event"]
        assert "corral resume letters" in line["hint"]

    @pytest.mark.parametrize(
        "versions",
        [
            ["bullmq:5.1.0", "bullmq:5.81.5"],
            ["bullmq:6.7.0", "bullmq:7.0.0"],
            ["", "x", "bullmq:5.1.0"],
        ],
    )
    async def test_one_version_alone_causes_no_warning(
        self, store: QueueStore, raw: redis.asyncio.Redis, warnings: list[Any], versions: list[str]
    ) -> None:
        neighbours = Neighbours(store)
        for version in versions:
            await raw.hset(f"{BASE}meta", "version", version)
            await neighbours.look()
        assert warnings == []

    async def test_jobs_of_5_under_6_are_logged(
        self, store: QueueStore, raw: redis.asyncio.Redis, warnings: list[Any]
    ) -> None:
        await raw.hset(f"{BASE}old", mapping={"name": "x", "data": "{}"})
        await raw.lpush(f"{BASE}paused", "old")
        await Neighbours(store).look()
        assert warnings == [], "it is not known that 6 is there"
        await raw.hset(f"{BASE}meta", "version", "bullmq:6.7.0")
        await Neighbours(store).look()
        assert len(warnings) == 1

    async def test_damaged_keys_cause_no_warning(
        self, store: QueueStore, raw: redis.asyncio.Redis, warnings: list[Any]
    ) -> None:
        await raw.set(f"{BASE}meta", "x")
        await raw.set(f"{BASE}paused", "x")
        await Neighbours(store).look()
        assert warnings == []
        await raw.delete(f"{BASE}meta", f"{BASE}paused")

    async def test_a_worker_warns_at_its_start(
        self, workshop: Any, letters: Queue[Any], warnings: list[Any]
    ) -> None:
        await workshop.raw.hset(f"{BASE}old", mapping={"name": "letters", "data": "{}"})
        await workshop.raw.lpush(f"{BASE}paused", "old")
        await workshop.raw.hset(f"{BASE}meta", mapping={"version": "bullmq:6.7.0", "paused": 1})

        async def process(job: corral.Job[Any]) -> None: ...

        async with workshop.working(letters.processed_by(process)):
            await workshop.wait_until(
                lambda: any("BullMQ 5" in line["event"] for line in warnings),
                "the worker has warned",
            )


class TestLimitOfOthers:
    """A BullMQ worker with the option `limiter` counts; ours do not know its limit, wire § 6.19."""

    @staticmethod
    async def seen(store: QueueStore, *counts: int | None) -> list[int]:
        link, found = store._link, []
        for seq, count in enumerate(counts, 1):
            await (
                link.call("DEL", f"{BASE}limiter")
                if count is None
                else link.call("SET", f"{BASE}limiter", count)
            )
            found.append((await store.advance("hand", seq, [], 1)).others_count)
        return found

    async def test_a_fetch_sees_it_only_where_the_queue_has_no_limit(
        self, store: QueueStore, raw: redis.asyncio.Redis
    ) -> None:
        assert await self.seen(store, None, 3, 9007199254740991, None) == [0, 3, 0, 0]
        await raw.hset(f"{BASE}meta", mapping={"max": 10, "duration": 1000})
        await raw.set(f"{BASE}limiter", 3, px=60_000)
        assert (await store.advance("hand", 5, [], 1)).others_count == 0

    @pytest.mark.parametrize("counts", [(0, 1), (1, 2), (2, 1), (1, 1, 0, 1)])
    async def test_it_is_logged_once_with_the_remedy(
        self, store: QueueStore, warnings: list[Any], counts: tuple[int, ...]
    ) -> None:
        neighbours = Neighbours(store)
        for count in (*counts, *counts):
            neighbours.check_count(count)
        (line,) = warnings
        assert (line["log_level"], line["queue"]) == ("warning", "letters")
        assert "limits the rate of a queue by itself" in line["event"]
        assert "corral limit letters --rate" in line["hint"]
        assert "setGlobalRateLimit" in line["hint"]

    async def test_the_counter_of_a_removed_limit_causes_no_warning(
        self, store: QueueStore, raw: redis.asyncio.Redis, warnings: list[Any]
    ) -> None:
        neighbours = Neighbours(store)
        await raw.hset(f"{BASE}meta", "max", 10)
        await neighbours.look()
        for count in (0, 4, 4, 0, 0):
            neighbours.check_count(count)
        assert warnings == []

    async def test_a_worker_warns_of_it(
        self, workshop: Any, letters: Queue[Any], store: QueueStore, warnings: list[Any]
    ) -> None:
        async def process(job: corral.Job[Any]) -> None: ...

        async with workshop.working(letters.processed_by(process)):
            await workshop.raw.set(f"{BASE}limiter", 1, px=60_000)
            await store.add([NewJob("one", "letters", b"{}", b"{}")])
            await workshop.until(letters, "one", "completed")
            await workshop.raw.set(f"{BASE}limiter", 2, px=60_000)
            await store.add([NewJob("two", "letters", b"{}", b"{}")])
            await workshop.wait_until(
                lambda: any("limits the rate" in line["event"] for line in warnings),
                "it has warned",
            )
            await workshop.until(letters, "two", "completed")

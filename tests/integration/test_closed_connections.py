"""Servers and load balancers close idle connections.

The next request notices that, and is sent again; its caller does not notice.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from chaos.proxy import Proxy, every_first_try
from corral import Every, Payload, Queue, StoreUnavailable
from corral.catalog import Catalog
from corral.inspector import JobInspector
from corral.store.connection import Link
from corral.store.scripts import PROMPT_SECONDS, call_again

pytestmark = pytest.mark.asyncio

HOUR = Every(timedelta(hours=1))


class Letter(Payload):
    text: str = ""


letters, postcards = Queue("letters", Letter), Queue("postcards", Letter)


@pytest.fixture
def close_all(store_url: str) -> Iterator[Callable[[], None]]:
    """`close_all()`: the server closes every connection."""
    with redis.Redis.from_url(store_url) as client:
        yield lambda: client.client_kill_filter(skipme=True, _type="normal")


@pytest_asyncio.fixture
async def inspector(workshop: Any) -> Any:
    catalog: Catalog = workshop.producer(letters)._catalog
    link = Link(workshop.url)
    yield JobInspector(catalog, link, prefix="bull")
    await link.close()


async def test_schedule_and_unschedule(workshop: Any, close_all: Callable[[], None]) -> None:
    jobs = workshop.producer(letters, postcards)
    first = await jobs.schedule(letters, Letter(), HOUR, id="blue")
    close_all()
    assert await jobs.schedule(letters, Letter(), HOUR, id="blue") == first
    close_all()
    assert await jobs.unschedule(letters, "blue")
    close_all()
    assert not await jobs.unschedule(letters, "blue")
    assert await workshop.raw.exists("bull:letters:repeat", "bull:letters:repeat:blue") == 0


@pytest.fixture
def proxied(store_url: str) -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(
        prefix="corral-closed-"
    ) as folder:  # short enough for a socket
        yield Proxy(Path(folder) / "proxy", Path(store_url.removeprefix("unix://")))


async def test_replies_of_schedule_and_unschedule_that_are_lost(
    workshop: Any, proxied: Proxy
) -> None:
    """The second try returns what the first one has done."""
    async with proxied as proxy:
        jobs = workshop.producer(letters, postcards, url=proxy.url)
        await jobs.schedule(letters, Letter(), HOUR, id="green")  # the store knows the scripts
        assert await jobs.unschedule(letters, "green")
        proxy.cut = every_first_try("schedule")
        next_run = await jobs.schedule(letters, Letter(), HOUR, id="blue")
        iterations = await workshop.raw.zrange("bull:letters:repeat", 0, -1, withscores=True)
        assert iterations == [("blue", next_run.timestamp() * 1000)]
        proxy.cut = every_first_try("unschedule")
        assert await jobs.unschedule(letters, "blue")
        assert proxy.cuts == 2, "one of schedule, and one of unschedule"
        assert await workshop.raw.exists("bull:letters:repeat", "bull:letters:repeat:blue") == 0
        await jobs.close()


@pytest.mark.parametrize(
    "look",
    [
        lambda inspector, _: inspector.sizes(letters),
        lambda inspector, job_id: inspector.get(letters, job_id),
        lambda inspector, _: inspector.list(letters, "waiting"),
        lambda inspector, _: inspector.summary(letters),
        lambda inspector, _: inspector.audit.read(),
        lambda inspector, job_id: inspector.logs(letters, job_id),
        lambda inspector, job_id: inspector.edit(letters, job_id, {"text": "new"}),
        lambda inspector, _: inspector.pause(letters),
        lambda inspector, job_id: inspector.remove(letters, job_id),
        lambda inspector, _: inspector.drain(letters),
    ],
    ids=["sizes", "get", "list", "summary", "audit", "logs", "edit", "pause", "remove", "drain"],
)
async def test_the_inspector(
    workshop: Any,
    inspector: JobInspector,
    close_all: Callable[[], None],
    look: Callable[..., Awaitable[object]],
) -> None:
    made = await workshop.producer(letters).enqueue(letters, Letter())
    await inspector.sizes(letters)
    close_all()
    await look(inspector, made.id)
    await workshop.raw.delete("bull:letters:meta")


class TestCallAgain:
    async def tries(
        self, *errors: StoreUnavailable, silent: float = 0.0
    ) -> tuple[int, StoreUnavailable | None]:
        """How often a call is made that fails so, and what its caller learns."""
        left, tries = list(errors), 0

        async def call() -> None:
            nonlocal tries
            tries += 1
            if silent:
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=silent)
            if left:
                raise left.pop(0)

        try:
            await call_again(call)
        except StoreUnavailable as error:
            return tries, error
        return tries, None

    async def test_a_connection_that_is_closed(self) -> None:
        assert await self.tries(StoreUnavailable("closed", outcome="unknown")) == (2, None)

    async def test_only_once(self) -> None:
        lost = [StoreUnavailable(name, outcome="unknown") for name in ("first", "second", "third")]
        assert await self.tries(*lost) == (2, lost[1])

    async def test_not_what_the_store_has_refused(self) -> None:
        refused = StoreUnavailable("OOM", outcome="refused")
        assert await self.tries(refused) == (1, refused)

    async def test_what_is_lost_and_then_refused_is_unknown(self) -> None:
        refused = StoreUnavailable("OOM", outcome="refused")
        assert await self.tries(StoreUnavailable("closed", outcome="unknown"), refused) == (
            2,
            refused,
        )
        assert refused.outcome == "unknown"

    async def test_not_a_store_that_is_silent(self) -> None:
        lost = StoreUnavailable("silent", outcome="unknown")
        assert await self.tries(lost, silent=PROMPT_SECONDS + 0.1) == (1, lost)

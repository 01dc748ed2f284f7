"""`corral.connect()` and `corral.connect_blocking()`: from the environment to a job in the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

import corral
from corral import Enqueued
from corral.errors import PayloadRefused, UnknownQueue


class TestConnect:
    @pytest.mark.asyncio
    async def test_reads_settings_and_plugins_and_leaves_nothing(
        self, workshop: Any, acme: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(acme)
        monkeypatch.setenv("REDIS_URL", workshop.url)
        tasks = asyncio.all_tasks()
        async with corral.connect() as jobs:
            enqueued = await jobs.enqueue("acme-letters", {"text": "hello"})
            await workshop.wait_until(
                lambda: workshop.raw.hlen("corral:bull:alive"), "it says what it runs with"
            )
        assert asyncio.all_tasks() == tasks
        assert await workshop.raw.hgetall("corral:bull:alive") == {}
        assert await workshop.raw.lrange("bull:acme-letters:wait", 0, -1) == [enqueued.id]


class TestOpenInspector:
    @pytest.mark.asyncio
    async def test_reads_and_repairs_jobs_of_installed_queues(
        self, workshop: Any, acme: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(acme)
        monkeypatch.setenv("REDIS_URL", workshop.url)
        async with corral.connect() as jobs:
            await jobs.enqueue("acme-letters", {"text": "hello"}, job_id="a")
        async with corral.open_inspector() as inspector:
            found = await inspector.get("acme-letters", "a")
            assert (found.state, found.data["text"]) == ("waiting", "hello")
            await inspector.remove("acme-letters", "a")
            with pytest.raises(UnknownQueue):
                await inspector.get("acme-leters", "a")
        assert await workshop.raw.exists("bull:acme-letters:a") == 0


@pytest.mark.parametrize(
    "door", [corral.connect, corral.open_inspector], ids=lambda it: it.__name__
)
@pytest.mark.asyncio
async def test_fails_before_it_yields_where_there_is_no_store(
    door: Callable[[], AbstractAsyncContextManager[object]],
    acme: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(acme)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("CORRAL_ENV", "production")
    with pytest.raises(corral.CorralError, match="no store is configured"):
        async with door():
            pytest.fail("it connected")


CUTTING = """
from typing import Annotated
from pydantic import AfterValidator
from corral import Payload, Queue, hookimpl

class Title(Payload):
    text: Annotated[str, AfterValidator(lambda text: text[1:] if text.startswith("#") else text)]

titles = Queue("acme-titles", Title)

@hookimpl
def corral_queues():
    return [titles]
"""


@pytest.mark.parametrize(("env", "takes"), [("production", 2), ("development", 1)])
def test_in_development_every_payload_is_read_back_and_in_production_the_first_of_each_queue(
    env: str, takes: int, store_url: str, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (acme / "acme_letters.py").write_text(CUTTING, "utf-8")
    (acme / "acme-1.0.dist-info" / "entry_points.txt").write_text(
        "[corral.queues]\nacme-titles = acme_letters\n"
    )
    monkeypatch.syspath_prepend(acme)
    monkeypatch.setenv("REDIS_URL", store_url)
    monkeypatch.setenv("CORRAL_ENV", env)
    for begin in ("", "##"):  # `##a` is given as `#a`, of which a worker would make `a`
        with corral.connect_blocking() as jobs:
            made = []
            for text in (f"{begin}first", "##second"):
                with suppress(PayloadRefused):
                    made.append(jobs.enqueue("acme-titles", {"text": text}))
        assert len(made) == (takes if not begin else 0)


def test_connect_blocking_is_shared_by_threads_and_ends_its_own(
    store_url: str, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(acme)
    monkeypatch.setenv("REDIS_URL", store_url)
    before = threading.active_count()
    made: list[Enqueued] = []
    with corral.connect_blocking() as jobs:

        def enqueue() -> None:
            made.extend(jobs.enqueue("acme-letters", {}) for _ in range(20))
            made.extend(jobs.enqueue_many("acme-letters", [{}, {}]))

        threads = [threading.Thread(target=enqueue) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(UnknownQueue):
            jobs.enqueue("nowhere", {})
    assert threading.active_count() == before
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        assert set(client.lrange("bull:acme-letters:wait", 0, -1)) == {each.id for each in made}
    assert len(made) == 110

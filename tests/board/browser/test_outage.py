"""An endpoint of `webhooks-outgoing` goes down and comes back, and the open overview says so."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from board.browser.site import Site, environment_of, process
from corral import Fixed
from corral.sql import create_engine
from corral_webhooks_outgoing.endpoints import add_endpoint

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECONDS = 60
"""How soon the overview must say what is wrong."""
SOON = Fixed(delay=timedelta(seconds=3))
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


class Receiver:
    """An HTTP server that can be taken down, and answers 204 while it is up.

    Attributes:
        port: Where it listens; the same each time that it is up.
        received: How many requests it has answered.
    """

    def __init__(self) -> None:
        self.port = 0
        self.received = 0

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """Listen; afterwards connections are refused."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            self.received += 1
            writer.write(NO_CONTENT)
            await writer.drain()
        finally:
            writer.close()


def event(endpoint_id: str, number: int) -> dict[str, Any]:
    return {
        "endpointId": endpoint_id,
        "eventId": f"evt{number}",
        "eventType": "user.created",
        "data": {"number": number},
    }


async def test_the_overview_says_that_an_endpoint_is_down_and_that_it_is_back(
    site: Site,
    tmp_path: Path,
    artefacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., Awaitable[None]],
) -> None:
    """Without a reload: which queue, why, how many attempts failed, since when, and the end."""
    receiver = Receiver()
    monkeypatch.setenv("CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE", "true")
    environment = environment_of(
        site.store_url,
        CORRAL_DATABASE_URL=f"sqlite:///{tmp_path}/app.db",
        CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE="true",
    )
    corral = (sys.executable, "-m", "corral")
    async with receiver.up():
        async with process(
            *corral, "db", "create", cwd=tmp_path, environment=environment, log=tmp_path / "db.log"
        ) as creating:
            assert await creating.wait() == 0, (tmp_path / "db.log").read_text()
        engine = create_engine(environment["CORRAL_DATABASE_URL"])
        async with engine.begin() as connection:
            endpoint = await add_endpoint(connection, f"http://127.0.0.1:{receiver.port}/hooks")
        await engine.dispose()
    log = tmp_path / "worker.log"
    worker = (*corral, "worker", "webhooks-outgoing")
    async with process(*worker, cwd=tmp_path, environment=environment, log=log):
        async with receiver.up():
            await site.jobs.enqueue("webhooks-outgoing", event(endpoint.id, 0))
            tab = await site.tab("/")
            page = tab.page
            row = page.locator("tbody tr", has=page.get_by_text("webhooks-outgoing"))
            await expect(row.locator("svg.spark")).to_have_attribute(
                "aria-label", "last hour: 1 completed, 0 failed"
            )
            await page.evaluate("window.stayed = true")
        payloads = [event(endpoint.id, number) for number in range(1, 13)]
        await site.jobs.enqueue_many("webhooks-outgoing", payloads, attempts=50, backoff=SOON)
        began = time.monotonic()
        await expect(row).to_contain_text("attempts failed, the first")
        said = time.monotonic() - began
        assert said < SECONDS, (tmp_path / "worker.log").read_text()
        failures = row.locator("td.clip")
        await expect(failures).to_contain_text("ConnectError")
        # the endpoint's breaker lets one delivery at a time through then, to test it
        await expect(failures).to_have_text(re.compile(r"([6-9]|\d\d) attempts failed, the first"))
        await expect(row.locator("[data-label=retrying] a")).to_have_text(re.compile(r"^[1-9]"))
        await page.screenshot(path=artefacts / "outage-overview.png", full_page=True)
        beside = await site.tab("/queues/webhooks-outgoing?state=retrying")
        await expect(beside.page.locator("table.jobs tbody tr").first).to_contain_text("NotDeliv")
        await beside.page.screenshot(path=artefacts / "outage-queue.png", full_page=True)
        async with receiver.up():
            over = re.compile(r"recovered: \d+ completed since the last failed attempt")
            await expect(failures).to_have_text(over, timeout=SECONDS * 1000)
            await expect(row.locator("[data-label=retrying]")).to_have_text("0")
            await expect(beside.page.locator("main")).to_contain_text("recovered: ")
            await expect(beside.page.get_by_text("No job is retrying.")).to_be_visible()
            await page.screenshot(path=artefacts / "outage-over.png", full_page=True)
            await beside.page.screenshot(path=artefacts / "outage-over-queue.png", full_page=True)
            await wait_until(
                lambda: receiver.received == 13, "all are delivered", seconds=SECONDS, every=0.1
            )
        assert await page.evaluate("window.stayed"), "the page was loaded again"
        assert tab.complaints == beside.complaints == []
    print(f"the overview said it after {said:.1f} s")

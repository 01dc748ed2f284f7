"""Six queues of Corral in the real Bull Board, and what is done there with their jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from board.browser.browsing import opened
from board.browser.bull_board import BullBoard, bull_board
from board.browser.site import Site
from board.browser.stock import Stock, filled, mail

pytestmark = pytest.mark.asyncio(loop_scope="session")

WaitUntil = Callable[..., Awaitable[None]]


async def test_all_six_queues_look_right_in_bull_board(
    site: Site, wait_until: WaitUntil, node_modules: Path, artefacts: Path
) -> None:
    names = list(site.inspector.queues)
    assert len(names) == 6
    async with (
        filled(site, wait_until) as stock,
        bull_board(node_modules, site.socket, names) as real,
    ):
        shown = await real.queues()
        assert sorted(shown) == names
        for name in names:
            ours = await site.inspector.counts(name)
            theirs = {state: shown[name]["counts"].get(state, 0) for state in ours}
            assert theirs == dict(ours), name
            assert shown[name]["isPaused"] is (name == "webhooks-outgoing")
            assert len(await real.get(f"/workers/{name}")) == 1, "the worker is counted once"
            assert len((await real.get(f"/board/api/queues/{name}/workers"))["workers"]) == 1
        await _a_failed_job(site, real, stock)
        await _a_running_job(real, stock)
        window = await site.browser.new_context(viewport={"width": 1400, "height": 900})
        tab = await opened(window)
        await tab.page.goto(f"{real.url}/board/queue/emails?status=failed")
        await expect(tab.page.get_by_text("451 4.3.2").first).to_be_visible()
        await tab.page.screenshot(path=artefacts / "bull-board-1400-light.png")
        await _what_is_done_there(site, real, stock, wait_until)


async def _a_failed_job(site: Site, real: BullBoard, stock: Stock) -> None:
    seen: Any = await real.job("emails", stock.ids["failed"])
    assert seen["failedReason"] == "ConnectionError: 451 4.3.2 the queue of this server is full"
    assert seen["attempts"] == 3
    assert len(seen["stacktrace"]) == 3
    assert all("Traceback (most recent call last)" in trace for trace in seen["stacktrace"])
    assert seen["data"]["to"] == "person100@example.com"
    assert seen["opts"]["attempts"] == 3
    lines = await real.get(f"/board/api/queues/emails/{stock.ids['failed']}/logs")
    assert lines == ["rendered welcome for person100@example.com"] * 3
    done = await real.job("emails", stock.ids["completed"])
    assert done["returnValue"]["message_id"] == f"<{stock.ids['completed']}@example.com>"


async def _a_running_job(real: BullBoard, stock: Stock) -> None:
    running = (await real.queue("emails", "active"))["jobs"]
    assert [each["id"] for each in running] == [stock.ids["active"]]
    assert running[0]["progress"] == 40
    assert running[0]["processedBy"] == stock.crew.name
    exports = await real.job("data-exports", "export-0")
    assert exports["progress"] == {"records": 29_000, "bytes": 4_812_331, "table": "invoices"}


async def _what_is_done_there(
    site: Site, real: BullBoard, stock: Stock, wait_until: WaitUntil
) -> None:
    """Retry, promote and add in Bull Board; Corral's worker runs the jobs."""

    async def until(job_id: str, state: str) -> None:
        async def is_there() -> bool:
            return (await site.inspector.get("emails", job_id)).state == state

        await wait_until(is_there, f"{job_id} is {state}", every=0.05)

    async def succeed(_job: object) -> str:
        return "sent"

    stock.go_on.set()
    stock.crew.work["emails"] = succeed
    await real.put(f"/board/api/queues/emails/{stock.ids['failed']}/retry")
    await until(stock.ids["failed"], "completed")
    await real.put(f"/board/api/queues/emails/{stock.ids['delayed']}/promote")
    await until(stock.ids["delayed"], "completed")
    await real.put(
        "/board/api/queues/emails/add",
        "POST",
        name="emails",
        data=mail(900),
        options={"jobId": "by-hand"},
    )
    await until("by-hand", "completed")
    seen = await real.job("emails", "by-hand")
    assert seen["returnValue"] == "sent"
    await real.put(f"/board/api/queues/emails/{stock.ids['completed']}/clean")
    assert await site.raw.exists(f"bull:emails:{stock.ids['completed']}") == 0

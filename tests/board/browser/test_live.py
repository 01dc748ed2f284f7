"""An open page follows changes: by its stream, and by polling where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Route, expect

from board.browser.browsing import HIDE, opened
from board.browser.site import Site
from board.browser.stock import mail
from corral import Job

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Scripted:
    """A processor that writes what a test gives it.

    Attributes:
        says: What comes next: a log line, progress, or None for the end.
    """

    def __init__(self) -> None:
        self.says: asyncio.Queue[Any] = asyncio.Queue()

    async def work(self, job: Job[Any]) -> None:
        while (said := await self.says.get()) is not None:
            if isinstance(said, str):
                job.log(said)
            else:
                job.progress(said)


async def test_what_a_running_job_says_is_shown_at_once(site: Site) -> None:
    scripted = Scripted()
    async with site.crew(emails=scripted.work):
        job = await site.jobs.enqueue("emails", mail(1))
        tab = await site.tab(f"/queues/emails/jobs/{job.id}")
        page = tab.page
        state = page.locator(".head .state")
        await expect(state).to_have_text("active")
        await page.evaluate("window.stayed = true")
        for said, percent in (("the first line", 20), ("<b>the second</b> line", 75)):
            scripted.says.put_nowait(said)
            scripted.says.put_nowait(percent)
            await expect(page.locator("pre.log")).to_contain_text(said)
            await expect(page.get_by_role("progressbar")).to_have_attribute("value", str(percent))
        scripted.says.put_nowait({"records": 17, "of": "invoices"})
        await expect(page.get_by_text('"records": 17')).to_be_visible()
        scripted.says.put_nowait(None)
        await expect(state).to_have_text("completed")
        assert await page.evaluate("window.stayed"), "the page was loaded again"
        assert tab.complaints == []


async def test_a_page_whose_stream_fails_asks_again_and_again(site: Site) -> None:
    scripted, refused = Scripted(), 0

    async def refuse(route: Route) -> None:
        nonlocal refused
        refused += 1
        await route.fulfill(status=503, body="")

    async with site.crew(emails=scripted.work):
        job = await site.jobs.enqueue("emails", mail(1))
        window = await site.context()
        await window.route("**/live?**", refuse)
        tab = await opened(window)
        await tab.page.goto(f"{site.url}/queues/emails/jobs/{job.id}")
        await tab.page.evaluate("window.stayed = true")
        scripted.says.put_nowait("a line that no stream tells of")
        await expect(tab.page.locator("pre.log")).to_contain_text("no stream tells")
        scripted.says.put_nowait(None)
        await expect(tab.page.locator(".head .state")).to_have_text("completed")
        assert refused
        assert await tab.page.evaluate("window.stayed"), "the page was loaded again"


async def test_a_page_does_not_reload_while_its_reader_selects_or_types(site: Site) -> None:
    await site.jobs.enqueue_many("emails", [mail(n) for n in range(3)])
    tab, beside = (
        await site.tab("/queues/emails?state=waiting"),
        await site.tab("/queues/emails?state=waiting"),
    )
    page = tab.page
    rows, there = (each.page.locator("table.jobs tbody tr") for each in (tab, beside))
    box = page.get_by_role("checkbox", name="Select job").first
    await expect(rows).to_have_count(3)
    await box.check()
    await site.jobs.enqueue("emails", mail(4))
    await expect(there).to_have_count(4)
    await expect(rows).to_have_count(3)
    await expect(box).to_be_checked()
    await box.uncheck()
    await expect(rows).to_have_count(4)

    search = page.get_by_role("searchbox", name="Search this queue")
    await search.fill("half a wo")
    await site.jobs.enqueue("emails", mail(5))
    await expect(there).to_have_count(5)
    await expect(rows).to_have_count(4)
    await expect(search).to_have_value("half a wo")
    await page.get_by_role("heading", level=1).click()
    await expect(rows).to_have_count(5)
    assert tab.complaints == []


class Held:
    """Holds back the answers to a page's reloads until they are let go.

    Attributes:
        asked: Set while a reload waits for its answer.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._may_answer = asyncio.Event()

    async def route(self, route: Route) -> None:
        if "hx-request" not in route.request.headers:
            await route.continue_()
            return
        answer = await route.fetch()
        self.asked.set()
        await self._may_answer.wait()
        await route.fulfill(response=answer)

    def let_go(self) -> None:
        self._may_answer.set()


async def test_a_reload_on_its_way_leaves_alone_what_its_reader_selects_meanwhile(
    site: Site,
) -> None:
    await site.jobs.enqueue_many("emails", [mail(n) for n in range(3)])
    held, tab = Held(), await site.tab("/queues/emails?state=waiting")
    page = tab.page
    rows = page.locator("table.jobs tbody tr")
    box = page.get_by_role("checkbox", name="Select job").first
    await expect(rows).to_have_count(3)
    await page.route("**/queues/emails?**", held.route)
    await site.jobs.enqueue("emails", mail(4))
    await held.asked.wait()
    await box.check()
    async with page.expect_event("requestfinished", lambda it: "hx-request" in it.headers):
        held.let_go()
    await page.evaluate("new Promise(requestAnimationFrame)")
    await expect(rows).to_have_count(3)
    await expect(box).to_be_checked()
    await box.uncheck()
    await expect(rows).to_have_count(4)
    assert tab.complaints == []


KEEP_STREAM = """
window.EventSource = class extends EventSource {
  constructor(address) { super(address); window.stream = this; }
};
"""
CHANGE = "window.stream.dispatchEvent(new MessageEvent('changed'))"


async def test_what_changes_during_a_reload_is_shown_by_another_one(site: Site) -> None:
    """Its stream is cut, and the test says when something has changed."""
    held, tab = Held(), await opened(await site.context())
    page = tab.page
    await page.add_init_script(KEEP_STREAM)
    await page.goto(f"{site.url}/queues/emails?state=waiting")
    await page.evaluate("window.stream.close()")
    await page.route("**/queues/emails?**", held.route)
    await page.evaluate(CHANGE)
    await held.asked.wait()
    beside = await site.tab("/queues/emails?state=waiting")
    await site.jobs.enqueue("emails", mail(1))
    await expect(beside.page.locator("table.jobs tbody tr")).to_have_count(1)
    await page.evaluate(CHANGE)
    held.let_go()
    await expect(page.locator("table.jobs tbody tr")).to_have_count(1)
    assert tab.complaints == []


async def test_hidden_tabs_keep_no_connection(site: Site) -> None:
    """A browser has six connections to one server: further tabs would wait forever."""
    window = await site.context()
    tabs = [await opened(window) for _ in range(8)]
    for tab in tabs:
        await tab.page.goto(f"{site.url}/queues/emails?state=waiting")
        await tab.page.evaluate(HIDE, True)
    first, rows = tabs[0].page, tabs[0].page.locator("table.jobs tbody tr")
    await site.jobs.enqueue("emails", mail(1))
    await first.evaluate(HIDE, False)
    await expect(rows).to_have_count(1)
    await site.jobs.enqueue("emails", mail(2))
    await expect(rows).to_have_count(2)
    assert [tab.complaints for tab in tabs] == [[]] * 8

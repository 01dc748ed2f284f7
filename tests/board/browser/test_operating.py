"""What an operator does, in a real browser: once with JavaScript, once without."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from board.asking import PASSWORD
from board.browser.browsing import WAIT_MS, opened
from board.browser.bull_board import bull_board
from board.browser.site import Site, environment_of, process
from board.browser.smtp import receiving
from corral import Fail, Fixed, Job

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("scripted", [True, False], ids=["scripted", "plain"]),
]

WaitUntil = Callable[..., Awaitable[None]]
QUICK = Fixed(delay=timedelta(milliseconds=20))


def mail(number: int, **variables: Any) -> dict[str, Any]:
    variables = {"name": f"Person {number}", "url": f"https://app.example/{number}", **variables}
    return {"to": f"person{number}@example.com", "template": "welcome", "variables": variables}


async def refuse(job: Job[Any]) -> None:
    raise Fail(f"no mailbox for {job.payload.to}")


async def fill(
    site: Site, wait_until: WaitUntil, *, failed: int, completed: int = 0, delayed: int = 0
) -> None:
    """Give the queue `emails` jobs that a worker runs."""

    async def work(job: Job[Any]) -> None:
        if job.payload.variables["fails"]:
            await refuse(job)

    jobs = [mail(number, fails=number < failed) for number in range(failed + completed)]
    await site.jobs.enqueue_many("emails", jobs)
    await site.jobs.enqueue_many(
        "emails", [mail(number) for number in range(delayed)], delay=timedelta(hours=9)
    )
    async with site.crew(emails=work):

        async def done() -> bool:
            ended = [
                await site.raw.zcard(f"bull:emails:{state}") for state in ("failed", "completed")
            ]
            return ended == [failed, completed]

        await wait_until(done, "the jobs have ended", seconds=60, every=0.05)


@asynccontextmanager
async def real_worker(site: Site, folder: Path, smtp_port: int) -> AsyncIterator[None]:
    """`corral worker emails`, as a user runs it."""
    environment = environment_of(
        site.store_url, CORRAL_EMAILS_PORT=str(smtp_port), CORRAL_DATABASE_URL=""
    )
    command = (sys.executable, "-m", "corral", "worker", "emails")
    async with process(*command, cwd=folder, environment=environment, log=folder / "worker.log"):
        yield


async def stands(page: Page, state: str, *, scripted: bool) -> None:
    """Wait until the job's page shows a state: by itself, or by reloading without scripts."""
    place = page.locator(".head .state")
    if scripted:
        await expect(place).to_have_text(state)
        return
    async with asyncio.timeout(WAIT_MS / 1000):
        while (await place.inner_text()).strip() != state:
            await page.reload()


async def test_a_failed_mail_is_found_among_5_000_jobs_read_and_retried(
    site: Site, wait_until: WaitUntil, tmp_path: Path, scripted: bool
) -> None:
    await fill(site, wait_until, failed=3_000, completed=999, delayed=1_000)
    sought = {
        "to": "grace@example.com",
        "template": "welcome",
        "variables": {"name": "Grace Hopper", "url": "https://x.example"},
    }
    added = await site.jobs.enqueue("emails", sought, attempts=3, backoff=QUICK)
    async with receiving() as postbox, real_worker(site, tmp_path, postbox.port):

        async def has_failed() -> bool:
            return await site.raw.zscore("bull:emails:failed", added.id) is not None

        await wait_until(has_failed, "its three attempts have failed", seconds=60, every=0.05)
        tab = await opened(await site.browser.new_context(java_script_enabled=scripted))
        page = tab.page
        await page.goto(site.url)
        assert page.url == f"{site.url}/login"
        await page.get_by_label("password").fill(PASSWORD)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{site.url}/")

        search = page.get_by_role("searchbox", name="Search all queues")
        await search.fill("Hopper")
        await search.press("Enter")
        await page.get_by_role("link", name=added.id, exact=True).click()

        traces = page.locator("pre.trace")
        await expect(traces).to_have_count(3)
        for at in range(3):
            if not await traces.nth(at).is_visible():
                await page.locator("details:has(pre.trace) > summary").nth(at).click()
            await expect(traces.nth(at)).to_be_visible()
            # the page is made anew while it is read: what it shows is waited for, as a reader would
            await expect(traces.nth(at)).to_contain_text("Traceback")
            await expect(traces.nth(at)).to_contain_text("451")
        assert await page.locator(".timeline").get_by_text("attempt failed").count() >= 2

        postbox.is_broken = False
        postbox.answers.clear()
        await page.get_by_role("button", name="Retry", exact=True).click()
        await stands(page, "active", scripted=scripted)
        if scripted:
            await page.evaluate("window.stayed = true")
        postbox.answers.set()
        await stands(page, "completed", scripted=scripted)
        assert len(postbox.mails) == 1
        if scripted:
            assert await page.evaluate("window.stayed"), "the page was loaded again"
        assert tab.complaints == []


async def test_fifty_jobs_are_chosen_and_removed(
    site: Site, wait_until: WaitUntil, scripted: bool
) -> None:
    await fill(site, wait_until, failed=70)
    tab = await site.tab("/queues/emails?state=failed", java_script_enabled=scripted)
    page = tab.page
    boxes = page.get_by_role("checkbox", name="Select job")
    await expect(boxes).to_have_count(50)
    chosen = await boxes.evaluate_all("boxes => boxes.map(box => box.value)")
    if scripted:
        await page.get_by_role("checkbox", name="Select all on this page").check()
    else:
        for at in range(50):
            await boxes.nth(at).check()
    await page.get_by_role("button", name="Remove", exact=True).click()
    await expect(page.get_by_text("Remove 50 jobs of emails?")).to_be_visible()
    assert await site.raw.zcard("bull:emails:failed") == 70, (
        "nothing is removed before that is confirmed"
    )
    await page.get_by_role("button", name="Remove", exact=True).click()
    await expect(page.get_by_role("status")).to_have_text("Removed 50 jobs.")
    assert await site.raw.zcard("bull:emails:failed") == 20
    assert await site.raw.exists(*(f"bull:emails:{job_id}" for job_id in chosen)) == 0
    await page.goto(f"{site.url}/queues/emails?state=failed")
    await expect(boxes).to_have_count(20)
    assert not set(chosen) & set(await boxes.evaluate_all("boxes => boxes.map(box => box.value)"))
    assert tab.complaints == []


async def test_a_mail_to_a_wrong_address_is_refused_at_its_field(
    site: Site, scripted: bool
) -> None:
    tab = await site.tab("/queues/emails", java_script_enabled=scripted)
    page = tab.page
    await page.get_by_role("link", name="Add a job").click()
    typed = {
        "to": "grace at example.com",
        "template": "welcome",
        "variables": '{"name": "Grace", "url": "https://x.example"}',
    }
    for name, text in typed.items():
        await field(page, name).fill(text)
    await page.get_by_role("button", name="Add the job").click()

    await expect(field(page, "to")).to_have_attribute("aria-invalid", "true")
    about = await field(page, "to").get_attribute("aria-describedby")
    await expect(page.locator(f'[id="{about}"] .wrong')).to_contain_text(
        "not a valid email address"
    )
    for name, text in typed.items():
        await expect(field(page, name)).to_have_value(text)
        if name != "to":
            assert await field(page, name).get_attribute("aria-invalid") is None
    tab.forgive(422)

    await field(page, "to").fill("grace@example.com")
    await page.get_by_role("button", name="Add the job").click()
    await expect(page.get_by_role("status")).to_contain_text("Added job")
    await expect(page.locator(".head .state")).to_have_text("waiting")
    job_id = page.url.partition("/jobs/")[2].partition("?")[0]
    stored = await site.inspector.get("emails", job_id)
    assert stored.data["to"] == "grace@example.com"
    assert stored.data["variables"] == {"name": "Grace", "url": "https://x.example"}
    assert tab.complaints == []
    await site.inspector.remove("emails", job_id)


def field(page: Page, name: str) -> Any:
    return page.locator(f'[id="data.{name}"]')


async def test_a_pause_is_seen_here_in_bull_board_and_in_node(
    site: Site, node_modules: Path, scripted: bool
) -> None:
    async with bull_board(node_modules, site.socket, ["emails"]) as real:
        tab = await site.tab("/queues/emails", java_script_enabled=scripted)
        beside = await opened(await site.browser.new_context())
        await beside.page.goto(f"{real.url}/board/queue/emails")
        for name, paused in (("Pause", True), ("Resume", False), ("Pause", True)):
            await tab.page.get_by_role("button", name=name, exact=True).click()
            other = "Resume" if paused else "Pause"
            await expect(tab.page.get_by_role("button", name=other, exact=True)).to_be_visible()
            await expect(tab.page.locator(".badge", has_text="paused")).to_have_count(int(paused))
            assert await real.get("/paused/emails") is paused
            assert (await real.queue("emails"))["isPaused"] is paused
        await expect(beside.page.get_by_text("Paused").first).to_be_visible()
        # and from there: whoever pauses in Bull Board is seen here
        await real.put("/board/api/queues/emails/resume")
        pause = tab.page.get_by_role("button", name="Pause", exact=True)
        if scripted:
            await expect(pause).to_be_visible()
        async with asyncio.timeout(WAIT_MS / 1000):
            while not await pause.count():  # a page may be a second old
                await tab.page.reload()
        assert tab.complaints == []

"""Every page, wide and narrow, light and dark: no complaints, not too wide, accessible."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from playwright.async_api import expect

from board.browser.browsing import Tab, opened
from board.browser.site import Site
from board.browser.stock import LONG, WORDS, Stock, filled, mail
from board.hostile import PAYLOADS, fill, lists, pages

pytestmark = pytest.mark.asyncio(loop_scope="session")

WaitUntil = Callable[..., Awaitable[None]]
VIEWS = [(1400, False), (1400, True), (390, False), (390, True)]


def pages_of(stock: Stock) -> dict[str, str]:
    """Every page by the name of its screenshots."""
    job = "/queues/emails/jobs"
    return {
        "overview": "/",
        "queue": "/queues/emails",
        "queue-paused": "/queues/webhooks-outgoing",
        "queue-completed": "/queues/emails?state=completed",
        "queue-empty": "/queues/account-deletions?state=failed",
        "queue-active": "/queues/data-exports?state=active",
        "queue-search": "/queues/emails?q=Person+10",
        "job-failed": f"{job}/{stock.ids['failed']}",
        "job-active": f"{job}/{stock.ids['active']}",
        "job-completed": f"{job}/{stock.ids['completed']}",
        "job-delayed": f"{job}/{stock.ids['delayed']}",
        "job-progress": "/queues/data-exports/jobs/export-0",
        "logs": "/queues/data-exports/jobs/export-0/logs",
        "edit": f"{job}/{stock.ids['delayed']}/edit",
        "add": "/queues/emails/add",
        "search": "/search?q=person1",
        "search-empty": "/search?q=nothing+of+the+kind",
        "schedules": "/schedules",
        "workers": "/workers",
        "catalog": "/catalog",
        "audit": "/audit",
        "not-found": "/queues/emails/jobs/there-is-none",
    }


async def looked_at(
    tab: Tab, name: str, path: str, site: Site, artefacts: Path, view: str
) -> list[str]:
    """Open a page, take a screenshot, and return what is wrong with it."""
    await tab.page.goto(f"{site.url}{path}")
    return await seen(tab, name, artefacts, view)


async def seen(tab: Tab, name: str, artefacts: Path, view: str) -> list[str]:
    """Take a screenshot of the open page, and return what is wrong with it."""
    await tab.page.wait_for_function("document.readyState === 'complete'")
    await tab.page.screenshot(path=artefacts / f"{name}-{view}.png", full_page=True)
    tab.forgive({"not-found": 404, "add-refused": 422}.get(name, 0))
    wrong = [*tab.complaints]
    tab.complaints.clear()
    if wide := max(0, await tab.overflow()):
        wrong.append(f"{wide} px too wide")
    return [f"{name} {view}: {each}" for each in wrong]


@pytest.mark.parametrize(
    ("width", "dark"), VIEWS, ids=["wide-light", "wide-dark", "narrow-light", "narrow-dark"]
)
async def test_every_page_is_right(
    site: Site, wait_until: WaitUntil, artefacts: Path, node_modules: Path, width: int, dark: bool
) -> None:
    view = f"{width}-{'dark' if dark else 'light'}"
    async with filled(site, wait_until) as stock:
        tab = await site.tab("/", width=width, dark=dark)
        wrong: list[str] = []
        for name, path in pages_of(stock).items():
            wrong += await looked_at(tab, name, path, site, artefacts, view)
            wrong += [f"{name} {view}: axe: {each}" for each in await tab.axe(node_modules)]
        async for name, page in behind_a_form(tab, site, width=width, dark=dark):
            wrong += await seen(page, name, artefacts, view)
            wrong += [f"{name} {view}: axe: {each}" for each in await page.axe(node_modules)]
        assert wrong == []


async def behind_a_form(tab: Tab, site: Site, **how: Any) -> AsyncIterator[tuple[str, Tab]]:
    """Pages without an address of their own, and the login page."""
    await tab.page.goto(f"{site.url}/queues/emails?state=failed")
    await tab.page.get_by_role("checkbox", name="Select job").first.check()
    await tab.page.get_by_role("button", name="Remove", exact=True).click()
    await expect(tab.page.get_by_text("Remove 1 job of emails?")).to_be_visible()
    yield "confirm", tab
    await tab.page.goto(f"{site.url}/queues/emails/add")
    await tab.page.get_by_role("button", name="Add the job").click()
    await expect(tab.page.locator(".wrong")).to_have_count(3)
    yield "add-refused", tab
    stranger = await site.context(**how)
    await stranger.clear_cookies()
    door = await opened(stranger)
    await door.page.goto(site.url)
    await expect(door.page.get_by_label("password")).to_be_visible()
    yield "login", door


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "\u202egnp.exe \u0000 \ufeff <!-- -->",
)


async def foreign(site: Site, job_id: str, text: str) -> None:
    """A failed job as another client may have written it: the same text wherever one can be."""
    seen = {"to": text, "template": text, "variables": {text: [text, {"deep": text}]}}
    fields = {
        "name": text,
        "data": json.dumps(seen),
        "opts": json.dumps({"attempts": 3, "de": {"id": text}, "kl": text}),
        "timestamp": "1764000000000",
        "processedOn": "1764000001000",
        "finishedOn": "1764000002000",
        "delay": "0",
        "priority": "0",
        "ats": "1",
        "atm": "1",
        "failedReason": text,
        "stacktrace": json.dumps([f"Traceback\n{text}"]),
        "returnvalue": json.dumps({text: text}),
        "progress": json.dumps({text: text}),
        "pb": text,
        "deid": text,
        "parentKey": f"bull:{text}:1",
    }
    await site.raw.hset(f"bull:emails:{job_id}", mapping=fields)
    await site.raw.zadd("bull:emails:failed", {job_id: 1764000002000})
    await site.raw.rpush(f"bull:emails:{job_id}:logs", text, f"{text} {text}")
    event = {"event": "failed", "jobId": job_id, "failedReason": text, "prev": "active"}
    await site.raw.xadd("bull:emails:events", event)


@pytest.mark.corral_untidy("its jobs are written past everything that is ours")
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)], ids=["wide", "narrow"])
async def test_texts_that_are_hostile_or_far_too_long_stay_texts(
    site: Site, artefacts: Path, width: int, dark: bool
) -> None:
    texts = (*HOSTILE, LONG, WORDS, LONG[:100] + " " + WORDS[:100])
    ids = [f"{number}-{text[:120]}".replace(":", "_") for number, text in enumerate(texts)]
    for job_id, text in zip(ids, texts, strict=True):
        await foreign(site, job_id, text)
    long_ones = {"name": LONG, "url": WORDS, LONG: [LONG]}
    added = await site.jobs.enqueue(
        "emails", mail(0, **long_ones), delay=datetime.timedelta(hours=1), job_id="j" * 128
    )
    await site.inspector.acting_as(HOSTILE[1] + LONG[:300]).pause("emails")
    await site.raw.rpush("bull:a-queue-of-nobody-" + "n" * 100 + ":wait", "1")
    tab = await site.tab("/", width=width, dark=dark)
    view = f"{width}-{'dark' if dark else 'light'}"
    job = "/queues/emails/jobs"
    paths = {f"foreign-{at}": f"{job}/{quote(job_id, safe='')}" for at, job_id in enumerate(ids)}
    paths |= {f"foreign-{at}-log": f"{path}/logs" for at, path in enumerate([*paths.values()][:3])}
    paths |= {
        f"foreign-{at}-search": f"/search?q={quote(text[:150])}" for at, text in enumerate(texts)
    }
    paths |= {
        "long-overview": "/",
        "long-queue": "/queues/emails?state=failed",
        "long-queue-search": f"/queues/emails?q={quote(HOSTILE[2])}",
        "long-delayed": "/queues/emails?state=delayed",
        "long-job": f"{job}/{added.id}",
        "long-edit": f"{job}/{added.id}/edit",
        "long-edit-foreign": f"{job}/{quote(ids[len(HOSTILE)], safe='')}/edit",
        "long-catalog": "/catalog",
        "long-audit": "/audit",
        "notice": f"/queues/emails?notice=added&id={quote(HOSTILE[0] + LONG[:200])}",
        "not-found": f"/queues/{quote(HOSTILE[1] + LONG[:150], safe='')}",
    }
    wrong: list[str] = []
    for name, path in paths.items():
        wrong += await looked_at(tab, name, path, site, artefacts, view)
        assert tab.page.url.startswith(site.url), "led away"
        assert await tab.page.locator("script:not([src])").count() == 0
    assert wrong == []


@pytest.mark.corral_untidy("what other clients may write: ids, fields and keys that ours never do")
@pytest.mark.parametrize("half", [slice(0, 30), slice(30, 60)], ids=["0-29", "30-59"])
async def test_what_means_harm_in_any_field_runs_nothing(site: Site, half: slice) -> None:
    """`test_xss.py` reads many more pages; here a browser does."""
    texts = PAYLOADS[half]
    with redis.Redis.from_url(site.store_url) as store:
        fill(store, texts, "emails")
    shown = [
        path
        for text in texts
        for path, status in pages(text, "emails")
        if status == 200 and "/jobs/" in path
    ]
    paths = [*lists("emails"), *(path for path in shown if not path.endswith("/logs"))]
    tab = await site.tab("/")
    for path in paths:
        await tab.page.goto(f"{site.url}{path}")
        assert tab.page.url.startswith(f"{site.url}{path.partition('?')[0]}"), "led away"
        assert await tab.page.locator("script:not([src]), style, img, iframe, base").count() == 0, (
            path
        )
        assert tab.complaints == [], path
    print(f"{len(paths)} pages, {len(texts)} texts in every field: nothing ran")


async def test_what_would_be_wrong_is_seen(site: Site, node_modules: Path) -> None:
    """The tests above prove nothing if the browser reported nothing."""
    tab = await site.tab("/")
    assert await tab.axe(node_modules) == []
    assert await tab.overflow() <= 0
    spoil = """() => {
        page.innerHTML = '<img src="/none.png" onerror="alert(1)"><button></button>';
        page.style.width = "3000px";
    }"""
    await tab.page.evaluate(spoil)
    await tab.page.wait_for_event("console")
    await tab.page.evaluate("console.error('an error of a page')")
    complaints = "\n".join(tab.complaints)
    assert "CSP: script-src-attr" in complaints
    assert "an error of a page" in complaints
    assert await tab.overflow() > 1000
    found = {each.partition(":")[0] for each in await tab.axe(node_modules)}
    assert found == {"critical button-name", "critical image-alt"}

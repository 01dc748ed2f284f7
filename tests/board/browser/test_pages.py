"""Every page, wide and narrow, light and dark: nothing to complain of, nothing too wide, everything within reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from board.browser.browsing import Tab
from board.browser.site import Site
from board.browser.stock import Stock, filled

pytestmark = pytest.mark.asyncio

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


async def looked_at(tab: Tab, name: str, path: str, site: Site, artefacts: Path, view: str) -> list[str]:
    """Open a page, keep a picture of it, and return what is wrong with it."""
    await tab.page.goto(f"{site.url}{path}")
    await tab.page.wait_for_function("document.readyState === 'complete'")
    await tab.page.screenshot(path=artefacts / f"{name}-{view}.png", full_page=True)
    if name == "not-found":
        tab.forgive(404)
    wrong = [*tab.complaints]
    tab.complaints.clear()
    if wide := max(0, await tab.overflow()):
        wrong.append(f"{wide} px too wide")
    return [f"{name} {view}: {each}" for each in wrong]


@pytest.mark.parametrize(("width", "dark"), VIEWS, ids=["wide-light", "wide-dark", "narrow-light", "narrow-dark"])
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
        assert wrong == []

"""By keyboard alone, everything can be reached, seen and done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from board.browser.browsing import HIDE
from board.browser.site import Site
from board.browser.stock import filled
from board.browser.test_pages import pages_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WaitUntil = Callable[..., Awaitable[None]]

PREPARE = """() => {
    const all = "a[href], button, input:not([type=hidden]), select, textarea, summary,"
        + " [tabindex='0']";
    const isThere = each => each.checkVisibility() && !each.disabled;
    window.expected = new Set([...document.querySelectorAll(all)].filter(isThere));
    window.faint = [];
    document.addEventListener("focusin", event => {
        window.expected.delete(event.target);
        const style = getComputedStyle(event.target);
        if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 1)
            window.faint.push(event.target.outerHTML.slice(0, 200));
    });
    return window.expected.size;
}"""
LEFT = "() => [...window.expected].map(each => each.outerHTML.slice(0, 200))"


async def reached(page: Page) -> list[str]:
    """Go through the page with Tab alone; returns what is wrong."""
    count = await page.evaluate(PREPARE)
    for _ in range(count + 3):
        await page.keyboard.press("Tab")
        if await page.evaluate("window.expected.size") == 0:
            break
    missed, faint = await page.evaluate(LEFT), await page.evaluate("window.faint")
    return [
        *(f"not reached: {each}" for each in missed),
        *(f"no sign of focus: {each}" for each in faint),
    ]


async def test_tab_reaches_everything_and_shows_where_it_is(
    site: Site, wait_until: WaitUntil
) -> None:
    async with filled(site, wait_until) as stock:
        tab = await site.tab("/schedules")
        wrong: list[str] = []
        for name, path in pages_of(stock).items():
            await tab.page.goto(f"{site.url}{path}")
            await tab.page.evaluate(HIDE, True)  # nothing on it is to change meanwhile
            closed = tab.page.locator("details:not([open]) > summary")
            while await closed.count():
                await closed.first.press("Enter")
            await tab.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            wrong += [f"{name}: {each}" for each in await reached(tab.page)]
        assert wrong == []


async def focused(page: Page) -> Any:
    """The text of the element that has the focus."""
    return await page.evaluate("document.activeElement.innerText || document.activeElement.name")


async def test_an_operator_works_by_keys_alone(site: Site, wait_until: WaitUntil) -> None:
    async with filled(site, wait_until):
        tab = await site.tab("/queues/emails?state=failed")
        page, keys = tab.page, tab.page.keyboard
        ids = await page.locator("td.id a").all_inner_texts()
        await keys.press("j")
        await keys.press("j")
        assert await focused(page) == ids[1]
        await keys.press("k")
        assert await focused(page) == ids[0]
        await keys.press("x")
        await keys.press("j")
        await keys.press("x")
        chosen = page.locator("input[name=id]:checked")
        await expect(chosen).to_have_count(2)
        await keys.press("r")
        await expect(page.get_by_text("Retry 2 jobs of emails?")).to_be_visible()
        await keys.press("Enter")  # the button that says so has the focus
        await expect(page.get_by_role("status")).to_have_text("Retried 2 jobs.")

        await page.goto(f"{site.url}/queues/emails?state=failed")
        await keys.press("j")
        await keys.press("Enter")
        await expect(page.locator(".head .state")).to_have_text("failed")
        await keys.press("r")
        await expect(page.get_by_role("status")).to_have_text("Retried 1 job.")

        await keys.press("/")
        await keys.type("person107 r j k x")  # no key of the page while somebody types
        await expect(page.get_by_role("searchbox", name="Search all queues")).to_have_value(
            "person107 r j k x"
        )
        await keys.press("Enter")
        await expect(page.get_by_role("heading", name="Search")).to_be_visible()

        await page.goto(f"{site.url}/queues/emails")
        await page.get_by_role("button", name="Pause", exact=True).press("Space")
        await expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible()
        await page.get_by_role("button", name="Resume", exact=True).press("Enter")
        await expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
        await page.goto(f"{site.url}/")
        await keys.press("Tab")
        assert await focused(page) == "Skip to content"
        await keys.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        assert tab.complaints == []

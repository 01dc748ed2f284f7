"""Debian's Chromium, driven by Playwright; pages record what the browser complains about."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    async_playwright,
    expect,
)

__all__ = ["HIDE", "NO_CHROMIUM", "Tab", "chromium", "chromium_program", "opened"]

NO_CHROMIUM = "Chromium is not installed (Debian: apt-get install chromium)"
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WAIT_MS = 20_000
"""How long tests wait for anything on a page: enough for two loaded cores."""
expect.set_options(timeout=WAIT_MS)
TELL = """addEventListener("securitypolicyviolation", event =>
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"""
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""What a page sees when its tab goes to the background; headless, every tab is in front."""
OVERFLOW = "[document.documentElement.scrollWidth, innerWidth]"


def chromium_program() -> str:
    """The program; without it these tests are skipped locally, and fail where CI is true."""
    program = shutil.which("chromium")
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(NO_CHROMIUM, pytrace=False)
    return program or pytest.skip(NO_CHROMIUM)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with a profile of its own, which is deleted afterwards."""
    program = chromium_program()
    async with async_playwright() as playwright:
        # as root Chromium has no sandbox to offer; all that it loads here is our own
        browser = await playwright.chromium.launch(
            executable_path=program, args=FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """A page, and the browser's complaints about it.

    Attributes:
        page: Playwright's page.
        complaints: Console errors and warnings, CSP reports, failed scripts, dialogs, in order.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._refusals = 0
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def forgive(self, status: int) -> None:
        """Drop complaints about a page's status: Chromium calls it an error."""
        status_text = f"status of {status}"
        self.complaints = [each for each in self.complaints if status_text not in each]

    async def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        width, inner = await self.page.evaluate(OVERFLOW)
        return int(width) - int(inner)

    async def axe(self, node_modules: Path) -> list[str]:
        """The serious and critical violations that axe-core finds, each with its place."""
        source = (node_modules / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
        await self.page.evaluate(f"{source}; 0")
        result: Any = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['impact']} {each['id']}: {node['target']} {node.get('failureSummary', '')}"
            for each in result["violations"]
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"]
        ]


async def opened(context: BrowserContext) -> Tab:
    """Open a new page."""
    await context.add_init_script(TELL)
    return Tab(await context.new_page())

"""The board mounted in `examples/saas`, behind its login, served by uvicorn."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Browser, expect

from board.browser.browsing import opened
from board.browser.site import environment_of, process
from corral.app.installed import read_installed
from corral.app.producing import open_scheduler
from examples.saas.demo.sockets import listening

pytestmark = pytest.mark.asyncio(loop_scope="session")

WaitUntil = Callable[..., Awaitable[None]]
ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def application(
    store_url: str, folder: Path, until: WaitUntil
) -> AsyncIterator[httpx2.AsyncClient]:
    """The application on a database of its own; a client of its API, for an operator."""
    with listening() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        token = secrets.token_hex(32)
        environment = environment_of(
            store_url,
            PYTHONPATH=str(ROOT),
            CORRAL_APP="examples.saas.plugin",
            CORRAL_DATABASE_URL=f"sqlite+aiosqlite:///{folder / 'saas.db'}",
            SAAS_URL=url,
            SAAS_ADMIN_TOKEN=token,
            SAAS_STRIPE_SECRET=f"whsec_{secrets.token_hex(16)}",
        )
        create = (sys.executable, "-m", "corral", "db", "create")
        async with process(
            *create, cwd=folder, environment=environment, log=folder / "create.log"
        ) as creating:
            assert await asyncio.wait_for(creating.wait(), 60) == 0, (
                folder / "create.log"
            ).read_text()
        serve = (
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "examples.saas.api:create_app",
            "--no-access-log",
        )
        fd = listener.fileno()
        log = folder / "api.log"
        async with (
            process(
                *serve,
                "--fd",
                str(fd),
                cwd=folder,
                environment=environment,
                log=log,
                pass_fds=(fd,),
            ) as running,
            httpx2.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {token}"},
                trust_env=False,
                timeout=30,
            ) as api,
        ):

            async def answers() -> bool:
                assert running.returncode is None, log.read_text()
                return (await api.get("/openapi.json")).status_code == 200

            await until(answers, "the application answers")
            yield api


async def test_an_admin_of_an_application_works_on_its_board(
    store_url: str, tmp_path: Path, browser: Browser, wait_until: WaitUntil
) -> None:
    async with (
        application(store_url, tmp_path, wait_until) as api,
        open_scheduler(read_installed(), store_url) as jobs,
    ):
        ada = {"email": "ada@example.org", "name": "Ada"}
        token = (await api.post("/signup", json=ada)).json()["token"]
        granted = await api.put("/board-grants", json={"email": ada["email"], "role": "admin"})
        assert granted.status_code == 204
        export = {"userId": "u-1815", "exportId": "e-1", "format": "json"}
        first = await jobs.enqueue("data-exports", export)
        origin = str(api.base_url).rstrip("/")
        board = f"{origin}/admin/queues"

        tab = await opened(await browser.new_context(viewport={"width": 1400, "height": 900}))
        page = tab.page
        await page.goto(f"{board}/")
        assert page.url == f"{origin}/login", "the application's own"
        await page.get_by_label("Your token").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{board}/")

        await page.get_by_role("link", name="data-exports", exact=True).first.click()
        await page.wait_for_url(f"{board}/queues/data-exports**")
        await page.evaluate("window.stayed = true")
        second = await jobs.enqueue("data-exports", {**export, "exportId": "e-2"})
        await expect(page.get_by_role("link", name=second.id, exact=True)).to_be_visible()
        assert await page.evaluate("window.stayed"), "the page was loaded again"

        await page.get_by_role("button", name="Pause", exact=True).click()
        await expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible()
        search = page.get_by_role("searchbox", name="Search all queues")
        await search.fill("u-1815")
        await search.press("Enter")
        await page.get_by_role("link", name=first.id, exact=True).click()
        await page.wait_for_url(f"{board}/queues/data-exports/jobs/{first.id}")
        await expect(page.locator(".head .state")).to_have_text("waiting")
        for path in ("/workers", "/schedules", "/catalog", "/queues/data-exports/add", "/audit"):
            assert (await page.goto(f"{board}{path}")).status == 200
            assert await tab.overflow() <= 0
        await expect(
            page.get_by_role("row").filter(has_text="pause").filter(has_text=ada["email"])
        ).to_be_visible()
        assert tab.complaints == []
        await tab.page.context.close()

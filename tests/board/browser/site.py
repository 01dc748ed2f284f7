"""`Site`: a store, `corral board` on it, and a worker for all installed queues."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis.asyncio
from playwright.async_api import Browser, BrowserContext

from board.browser.browsing import Tab, opened
from corral import Job
from corral.app.child_process import start_heartbeats
from corral.app.installed import Installed, read_installed
from corral.app.observation import observe_worker
from corral.app.operating import inspector
from corral.app.producing import announce_process, open_scheduler
from corral.inspector import JobInspector
from corral.jobs import JobScheduler
from corral.observe.tally import Tally
from corral.worker.worker import Worker

__all__ = ["Crew", "Site", "environment_of", "process", "served"]

START_SECONDS = 60.0
"""How long a process may take to listen, on a busy machine."""

Work = Callable[[Job[Any]], Awaitable[Any]]


@dataclass
class Crew:
    """What the processors of all queues do.

    Attributes:
        name: The worker's name.
        work: By queue; jobs of other queues complete at once.
    """

    name: str = ""
    work: dict[str, Work] = field(default_factory=dict)

    async def process(self, name: str, job: Job[Any]) -> Any:
        """Process one job of a queue."""
        return await self.work[name](job) if name in self.work else None


@dataclass
class Site:
    """One test's board.

    Attributes:
        url: The board's address, without a trailing slash.
        store_url: The store.
        raw: A plain client of the store; replies are text.
        installed: Settings, plugins and catalog.
        jobs: Enqueues jobs.
        inspector: Reads and changes jobs.
        browser: The browser.
        session: The session state of a reader who is logged in, for new windows.
    """

    url: str
    link: str
    store_url: str
    raw: redis.asyncio.Redis
    installed: Installed
    jobs: JobScheduler
    inspector: JobInspector
    browser: Browser
    session: Any = None

    @property
    def socket(self) -> str:
        """The store's socket."""
        return self.store_url.removeprefix("unix://")

    async def context(
        self, *, width: int = 1400, dark: bool = False, **options: Any
    ) -> BrowserContext:
        """Open a window of a reader who is logged in."""
        if self.session is None:
            async with await self.browser.new_context() as window:
                page = await window.new_page()
                await page.goto(self.link)
                await page.get_by_role("button", name="Log in").click()
                await page.wait_for_url(f"{self.url}/")
                self.session = await window.storage_state()
        scheme = "dark" if dark else "light"
        height = 900 if width > 600 else 844
        return await self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            storage_state=self.session,
            **options,
        )

    async def tab(self, path: str = "/", **options: Any) -> Tab:
        """Open a page of a reader who is logged in."""
        tab = await opened(await self.context(**options))
        await tab.page.goto(f"{self.url}{path}")
        return tab

    @asynccontextmanager
    async def crew(self, **work: Work) -> AsyncIterator[Crew]:
        """A worker on all queues, made as `corral worker` makes it, with the test's own processors.

        Args:
            work: The processors by queue, with `_` for a dash.
        """
        crew = Crew(work={name.replace("_", "-"): each for name, each in work.items()})
        installed = _worked_off(self.installed, crew)
        settings, tally = installed.settings, Tally()
        async with announce_process(installed, self.store_url) as record:
            crew.name = record.name
            worker = Worker(
                [entry.processor for entry in installed.catalog if entry.processor is not None],
                url=self.store_url,
                prefix=settings.prefix,
                settings=settings.worker.model_copy(update={"shutdown_timeout_seconds": 5.0}),
                plugins=installed.plugins.with_own(tally),
                jobs=self.jobs,
                name=record.name,
            )
            start_heartbeats(worker, record)
            async with observe_worker(worker, tally, installed, record.link, None):
                running = asyncio.create_task(worker.run(), name="the crew")
                try:
                    yield crew
                finally:
                    worker.stop()
                    await asyncio.wait_for(running, 15)


def _worked_off(installed: Installed, crew: Crew) -> Installed:
    """What is installed, with the crew's processors in place of the plugins' own."""
    entries = {
        name: replace(entry, processor=entry.queue.processed_by(partial(crew.process, name)))
        for name, entry in installed.catalog.entries.items()
    }
    catalog = replace(installed.catalog, entries=MappingProxyType(entries), served=tuple(entries))
    return replace(installed, catalog=catalog)


@asynccontextmanager
async def process(
    *command: str,
    cwd: Path,
    environment: Mapping[str, str],
    log: Path,
    pass_fds: tuple[int, ...] = (),
) -> AsyncIterator[Any]:
    """A process whose output goes to a file; terminated afterwards, and killed if need be."""
    with log.open("wb") as output:
        running = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
        )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.terminate()
        try:
            await asyncio.wait_for(running.wait(), 15)
        except TimeoutError:
            running.kill()
            await running.wait()


def environment_of(store_url: str, **own: str) -> dict[str, str]:
    """The environment of a process: the caller's, without variables for Corral."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_", "COVERAGE_"))
    }
    return {**kept, "REDIS_URL": store_url, "CORRAL_ENV": "development", **own}


@asynccontextmanager
async def served(
    store_url: str,
    folder: Path,
    browser: Browser,
    until: Callable[..., Awaitable[None]],
    **environment: str,
) -> AsyncIterator[Site]:
    """Run `corral board` on a store."""
    log = folder / "board.log"
    variables = environment_of(store_url, **environment)
    command = (sys.executable, "-m", "corral", "board", "--port", "0")
    async with process(*command, cwd=folder, environment=variables, log=log) as running:

        def links() -> list[str]:
            assert running.returncode is None, log.read_text()
            lines = [
                json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")
            ]
            return [line["url"] for line in lines if "/login?link=" in line.get("url", "")]

        await until(links, "the board listens", seconds=START_SECONDS, every=0.05)
        link = links()[0]
        installed = read_installed()
        async with (
            redis.asyncio.Redis.from_url(store_url, decode_responses=True) as raw,
            open_scheduler(installed, store_url) as jobs,
            inspector(installed, store_url) as looking,
        ):
            url = link.partition("/login")[0]
            yield Site(url, link, store_url, raw, installed, jobs, looking, browser)
    assert '"level": "error"' not in log.read_text(), log.read_text()

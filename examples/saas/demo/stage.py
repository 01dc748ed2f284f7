"""What the demo runs on: its own store, database, mail server, partner, API and worker.

It takes nothing from the caller's `CORRAL_*`, `SAAS_*` and `REDIS_URL`, and stops what it started.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

import corral
from corral import sql
from corral.embedded import embedded_store
from corral.inspector import JobInspector
from examples.saas.demo.partner import Delivery, Partner, open_partner
from examples.saas.demo.post_office import Mail, PostOffice, Refusal, open_post_office
from examples.saas.demo.screen import Screen
from examples.saas.demo.sockets import listening

__all__ = ["GRACE_SECONDS", "Missing", "Stage", "check", "setting_up"]

ROOT: Final = Path(__file__).parents[3]

WORK_SECONDS: Final = 60.0
"""How long anything may take to happen; it is a second or two on an idle machine, ten where a retry
is waited for.
"""

STOP_SECONDS: Final = 30.0
"""How long a process may take to end."""

GRACE_SECONDS: Final = 4
"""How long a deletion can be taken back here; 30 days elsewhere."""

LOCK_SECONDS: Final = 2
"""How long a killed worker's jobs are locked here; 30 elsewhere."""

QUEUES: Final = (
    "emails",
    "webhooks-outgoing",
    "billing-webhooks-retry",
    "account-deletions",
    "data-exports",
    "usage-period-rollover",
)


class Missing(Exception):
    """Something that should have happened did not."""


def check(happened: object, what: str) -> None:
    """Go on only if something happened.

    Raises:
        Missing: It did not.
    """
    if not happened:
        raise Missing(what)


@dataclass(eq=False)
class Stage:
    """Everything that runs.

    Attributes:
        screen: Prints.
        folder: Where files and logs are; gone afterwards.
        api: A client of the API.
        office: The mail server.
        partner: The webhook receiver.
        engine: The application's database.
        store: The store.
        inspector: Looks at queues.
        admin: The headers of an operator.
        stripe_secret: What the payment provider signs with.
        worker: The worker's process.
    """

    screen: Screen
    folder: Path
    api: httpx2.AsyncClient
    office: PostOffice
    partner: Partner
    engine: AsyncEngine
    store: redis.asyncio.Redis
    inspector: JobInspector
    admin: dict[str, str]
    stripe_secret: str
    processes: AsyncExitStack
    worker: asyncio.subprocess.Process = field(init=False)

    async def start_worker(self) -> None:
        """`corral worker`: all queues, in a process of its own."""
        self.worker = await self.processes.enter_async_context(
            running(self.folder / "worker.log", sys.executable, "-m", "corral", "worker")
        )
        self.screen.print_lines(
            "worker", f"corral worker, process {self.worker.pid}, serves all six queues"
        )

    async def kill_worker(self) -> None:
        """`kill -9`: it finishes nothing and says nothing."""
        self.worker.kill()
        await self.worker.wait()

    async def stop_worker(self) -> None:
        """End the worker as an orchestrator does; what it runs, it finishes."""
        asked = time.monotonic()
        self.worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            code = await self.worker.wait()
        check(code == 0, f"a worker that ends with 0, not {code}")
        self.screen.print_lines(
            "worker", f"stopped {time.monotonic() - asked:.2f} s after SIGTERM, exit code 0"
        )

    async def wait_until(self, happened: Callable[[], Awaitable[object]], what: str) -> None:
        """Wait until something has happened, as long as the worker lives.

        Raises:
            Missing: It did not happen in `WORK_SECONDS`, or the worker ended before.
        """
        give_up = time.monotonic() + WORK_SECONDS
        while not await happened():
            check(
                self.worker.returncode is None,
                f"{what}: the worker ended with exit code {self.worker.returncode}",
            )
            check(time.monotonic() < give_up, f"{what}: not within {WORK_SECONDS:.0f} s")
            await asyncio.sleep(0.02)

    async def call(
        self, method: str, path: str, expected: int, **arguments: object
    ) -> httpx2.Response:
        """Call the API.

        Raises:
            Missing: It answered something else.
        """
        answer: httpx2.Response = await self.api.request(method, path, **arguments)  # type: ignore[arg-type]  # what httpx2 takes
        message = f"{method} {path} -> {expected}, not {answer.status_code} {answer.text[:200]}"
        check(answer.status_code == expected, message)
        return answer


@asynccontextmanager
async def setting_up(folder: Path, screen: Screen) -> AsyncIterator[Stage]:
    """Start everything but the worker; stop it when the block ends."""
    async with AsyncExitStack() as opened:
        url = opened.enter_context(embedded_store(folder / "data"))
        office = await opened.enter_async_context(
            open_post_office(lambda event: print_mail(screen, event))
        )
        partner = await opened.enter_async_context(
            open_partner(lambda event: print_delivery(screen, event))
        )
        listener = opened.enter_context(listening())
        port = listener.getsockname()[1]
        admin, stripe_secret = secrets.token_hex(32), f"whsec_{secrets.token_hex(16)}"
        own_environment(
            folder,
            store=url,
            smtp_port=office.port,
            url=f"http://127.0.0.1:{port}",
            admin=admin,
            stripe_secret=stripe_secret,
        )
        screen.print_lines("store", f"embedded Valkey, {url}")
        screen.print_lines("mail", f"SMTP on port {office.port}")
        screen.print_lines("partner", f"{partner.url}, verifies what it gets")
        await create_tables(screen)
        engine = sql.create_engine()
        opened.push_async_callback(engine.dispose)
        store = await opened.enter_async_context(redis.asyncio.Redis.from_url(url))
        looking = await opened.enter_async_context(corral.open_inspector())
        processes = await opened.enter_async_context(AsyncExitStack())
        await opened.enter_async_context(
            running(
                folder / "api.log",
                *(sys.executable, "-m", "uvicorn", "--factory", "examples.saas.api:create_app"),
                *(
                    "--fd",
                    str(listener.fileno()),
                    "--no-access-log",
                    "--timeout-graceful-shutdown",
                    "2",
                ),
                pass_fds=(listener.fileno(),),
            )
        )
        api = await opened.enter_async_context(
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=WORK_SECONDS
            )
        )
        check(
            (await api.get("/openapi.json")).status_code == 200, "an API that answers"
        )  # it listens already
        screen.print_lines("api", f"uvicorn, http://127.0.0.1:{port}/docs")
        yield Stage(
            screen=screen,
            folder=folder,
            api=api,
            office=office,
            partner=partner,
            engine=engine,
            store=store,
            inspector=looking,
            admin={"Authorization": f"Bearer {admin}"},
            stripe_secret=stripe_secret,
            processes=processes,
        )


def own_environment(
    folder: Path, *, store: str, smtp_port: int, url: str, admin: str, stripe_secret: str
) -> None:
    """Settings for this process, the API and the worker: ours, and none of the caller's."""
    for name in list(os.environ):
        if name.startswith(("CORRAL_", "SAAS_")) or name == "REDIS_URL":
            del os.environ[name]
    accounts = str(ROOT / "examples" / "saas" / "accounts.toml")
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": store,
        "CORRAL_APP": "examples.saas.plugin",
        "CORRAL_ENV": "development",
        "CORRAL_DATA_DIR": str(folder / "data"),
        "CORRAL_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'saas.db'}",
        "CORRAL_WORKER__LOCK_SECONDS": str(LOCK_SECONDS),
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": str(LOCK_SECONDS),
        "CORRAL_EMAILS_HOST": "127.0.0.1",
        "CORRAL_EMAILS_PORT": str(smtp_port),
        "CORRAL_EMAILS_SENDER": "Acme <no-reply@acme.example>",
        "CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE": "1",
        "CORRAL_ACCOUNT_DELETIONS_GRACE_DAYS": str(GRACE_SECONDS / 86_400),
        "CORRAL_ACCOUNT_DELETIONS_TABLES": accounts,
        "CORRAL_DATA_EXPORTS_TABLES": accounts,
        "CORRAL_DATA_EXPORTS_BASE_URL": f"{url}/exports",
        "CORRAL_DATA_EXPORTS_LINK_SECRET": secrets.token_hex(32),
        "SAAS_URL": url,
        "SAAS_ADMIN_TOKEN": admin,
        "SAAS_STRIPE_SECRET": stripe_secret,
    }
    os.chdir(folder)  # a corral.lock of the caller's is not ours either


async def create_tables(screen: Screen) -> None:
    """`corral db create`: the tables of the application and of every plugin."""
    creating = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "corral", "db", "create"), stdout=asyncio.subprocess.PIPE
    )
    message, _ = await creating.communicate()
    check(creating.returncode == 0, f"corral db create that ends with 0, not {creating.returncode}")
    screen.print_lines(
        "database", f"SQLite; corral db create made {len(message.splitlines()) - 1} tables"
    )


@asynccontextmanager
async def running(
    log: Path, *command: str, pass_fds: tuple[int, ...] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process until the block ends; what it says goes to a file."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=out, stderr=out, pass_fds=pass_fds
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


def print_mail(screen: Screen, event: Mail | Refusal) -> None:
    """Print a line for what the mail server did."""
    if isinstance(event, Mail):
        screen.print_lines("mail", f"to {', '.join(event.to)}: {event.message['Subject']}")
    else:
        screen.print_lines("mail", f"to {event.to}: turned away, {event.reply}")


def print_delivery(screen: Screen, event: Delivery) -> None:
    """Print a line for what the partner did."""
    screen.print_lines("partner", f"{event.event_id}: {event.answer}")

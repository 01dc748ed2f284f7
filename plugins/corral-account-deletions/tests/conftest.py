"""A database and a store, an application that takes part, and a package with a queue `emails` that
is not ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Queue, hookimpl, testing
from corral.inspector import StoredJob
from corral.sql import Outbox, create_engine
from corral.testing import Kit
from corral_account_deletions import account_deletions
from corral_account_deletions.processor import delete_account, open_deletions
from corral_account_deletions.requests import (
    DeletionRequest,
    cancel_deletion,
    find_request,
    request_deletion,
)

SECONDS = 60
"""How long a program may take."""

DELETIONS = account_deletions.processed_by(delete_account, using=open_deletions)

ADA = "ada@example.org"

EMAILS = '''
"""A queue as corral-emails declares it; its processor writes down whom it was to write to."""
from collections.abc import Mapping
from pathlib import Path
from pydantic import JsonValue, field_validator
from corral import Payload, Queue, hookimpl

class EmailJob(Payload):
    to: str
    template: str
    variables: Mapping[str, JsonValue]
    locale: str | None = None
    cc: tuple[str, ...] = ()

    @field_validator("to")
    @classmethod
    def _is_an_address(cls, to):
        if "@" not in to:
            raise ValueError(f"{to} is no address")
        return to

emails = Queue("emails", EmailJob)

@hookimpl
def corral_queues():
    return [emails]

@hookimpl
def corral_processors():
    return [emails.processed_by(send)]

async def send(job):
    with Path("mails").open("a") as sent:
        sent.write(f"{job.id} {job.payload.to} {job.payload.template} {job.payload.locale}\\n")
    return {"messageId": f"<{job.id}@acme.example>"}
'''

METADATA = "Metadata-Version: 2.1\nName: acme-emails\nVersion: 1.0\n"
ENTRY_POINTS = "[corral.queues]\nemails = acme_emails\n"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with an installed package: the queue `emails`."""
    folder = tmp_path / "packages"
    about = folder / "acme_emails-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(METADATA, "utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, "utf-8")
    (folder / "acme_emails.py").write_text(EMAILS, "utf-8")
    return folder


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CORRAL_") and name != "CORRAL_VALKEY_SERVER":
            monkeypatch.delenv(name)
    # a checkout has both; the tests bring a queue `emails` of their own, and have no archives
    monkeypatch.setenv("CORRAL_DISABLED_PLUGINS", "corral-emails,corral-data-exports")
    monkeypatch.setenv("CORRAL_ENV", "development")


@pytest.fixture
def with_emails(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue `emails` is installed."""
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "acme_emails", raising=False)


Take = Callable[..., None]


@pytest.fixture
def taking_part(monkeypatch: pytest.MonkeyPatch) -> Take:
    """`taking_part(account_deletions_erase=…)`: the application implements hooks."""

    def take_part(**hooks: Callable[..., Any]) -> None:
        application = ModuleType("acme_jobs")
        for name, function in hooks.items():
            setattr(application, name, hookimpl(function))
        monkeypatch.setitem(sys.modules, "acme_jobs", application)
        monkeypatch.setenv("CORRAL_APP", "acme_jobs")

    return take_part


@pytest_asyncio.fixture
async def engine(corral_database_url: str) -> AsyncIterator[AsyncEngine]:
    """The database, without a table."""
    engine = create_engine(corral_database_url)
    yield engine
    await engine.dispose()


class Accounts:
    """An application's database, with the tables `users` and `orders` beside ours, and a store.

    Attributes:
        engine: The database.
        kit: The store.
    """

    def __init__(self, engine: AsyncEngine, kit: Kit) -> None:
        self.engine = engine
        self.kit = kit

    async def run(self, *statements: str, **values: Any) -> None:
        """Statements, in one transaction."""
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement), values)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]

    async def dumped(self) -> str:
        """Everything that stands in any table."""
        found = {}
        async with self.engine.connect() as connection:
            reflected = MetaData()
            await connection.run_sync(reflected.reflect)
            for table in reflected.sorted_tables:
                found[table.name] = [tuple(row) for row in await connection.execute(table.select())]
        return repr(found)

    async def asked(
        self, user_id: str = "ada-4711", email: str = ADA, **more: Any
    ) -> DeletionRequest:
        """A user asks for a deletion, as an application has it: request and job in one transaction."""
        async with self.kit.connect() as jobs, self.engine.begin() as connection:
            scheduler = Outbox(jobs).within(connection)
            request = await request_deletion(connection, scheduler, user_id, email=email, **more)
        await self.relayed()
        return request

    async def cancelled(self, user_id: str = "ada-4711") -> bool:
        async with self.engine.begin() as connection:
            return await cancel_deletion(connection, user_id)

    async def request(self, request_id: str) -> DeletionRequest | None:
        """A request as it is now."""
        async with self.engine.begin() as connection:
            return await find_request(connection, request_id)

    async def relayed(self) -> int:
        """Carry the outbox to the store."""
        return await self.kit.relay()

    async def stored(self, queue: Queue[Any], job_id: str) -> StoredJob:
        """What the store has of a job."""
        async with self.kit.open_inspector() as inspector:
            return await inspector.get(queue, job_id)

    async def drained(self, for_: timedelta = timedelta(days=40)) -> list[tuple[str, Any]]:
        """Carry out what comes due in that time; how each run ended, and its result or reason."""
        ended = []
        for run in await self.kit.drain(DELETIONS, for_=for_):
            message = getattr(run.outcome, "returnvalue", None) or getattr(
                run.outcome, "reason", None
            )
            ended.append((type(run.outcome).__name__, message))
        return ended


@pytest_asyncio.fixture
async def accounts(
    engine: AsyncEngine, corral_database_with_tables: str, corral_kit: Kit, with_emails: None
) -> Accounts:
    """An application with Ada and Bob, who have two orders and one."""
    made = Accounts(engine, corral_kit)
    await made.run(
        "CREATE TABLE users (id VARCHAR(40) PRIMARY KEY, email VARCHAR(80) UNIQUE)",
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id VARCHAR(40) REFERENCES users (id), note VARCHAR(80))",
        f"INSERT INTO users VALUES ('ada-4711', '{ADA}'), ('bob-1', 'bob@example.org')",
        f"INSERT INTO orders VALUES (1, 'ada-4711', 'for {ADA}'), (2, 'ada-4711', NULL), (3, 'bob-1', NULL)",
    )
    return made


async def _erase_orders(user_id: str, connection: Any) -> dict[str, int]:
    """A participant as an application writes one."""
    counts = {}
    for name, column in (("orders", "user_id"), ("users", "id")):
        statement = text(f"DELETE FROM {name} WHERE {column} = :user")
        counts[name] = (await connection.execute(statement, {"user": user_id})).rowcount
    return counts


@pytest.fixture
def erase_orders() -> Callable[..., Any]:
    """That participant."""
    return _erase_orders


@pytest.fixture
def erasing(taking_part: Take) -> None:
    """The application erases users and their orders."""
    taking_part(account_deletions_erase=_erase_orders)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`await wait_until(condition, "what is awaited")`: that of `corral.testing`, for a minute."""
    return partial(testing.wait_until, seconds=SECONDS)


@pytest.fixture
def python() -> Callable[..., str]:
    """Runs a program to its end in an interpreter of its own, and returns what it printed."""

    def run(program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=SECONDS
        ).stdout.strip()

    return run

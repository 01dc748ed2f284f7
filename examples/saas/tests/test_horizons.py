"""How long each of the six queues tries, while what its processor depends on is away.

Real processors against a real counterpart that is dead for as long as the queue's README says, and
then lives. Time is moved; a drain of days takes a second.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Queue, hookimpl
from corral.outcome import Completed
from corral.sql import Outbox
from corral.testing import Drained, Kit
from corral_account_deletions import account_deletions
from corral_account_deletions.processor import delete_account, open_deletions
from corral_account_deletions.requests import request_deletion
from corral_billing_webhooks_retry import BillingEvent, billing_webhooks_retry
from corral_billing_webhooks_retry.processor import dispatch_event, open_dispatcher
from corral_data_exports import DataExport, data_exports
from corral_data_exports.processor import export_data, open_exports
from corral_data_exports.records import Recipient
from corral_data_exports.storage import object_key
from corral_emails import EmailJob, emails
from corral_emails.processor import open_mailer, send_email
from corral_usage_period_rollover import UsagePeriodRollover, usage_period_rollover
from corral_usage_period_rollover.processor import open_rollover, roll_over
from corral_webhooks_outgoing import WebhookDelivery, webhooks_outgoing
from corral_webhooks_outgoing.endpoints import add_endpoint
from corral_webhooks_outgoing.processor import deliver, open_deliveries

pytestmark = pytest.mark.asyncio

PROCESSORS = {
    "emails": emails.processed_by(send_email, using=open_mailer),
    "webhooks-outgoing": webhooks_outgoing.processed_by(deliver, using=open_deliveries),
    "billing-webhooks-retry": billing_webhooks_retry.processed_by(
        dispatch_event, using=open_dispatcher
    ),
    "account-deletions": account_deletions.processed_by(delete_account, using=open_deletions),
    "data-exports": data_exports.processed_by(export_data, using=open_exports),
    "usage-period-rollover": usage_period_rollover.processed_by(roll_over, using=open_rollover),
}

HORIZONS = {
    "emails": timedelta(days=1),
    "webhooks-outgoing": timedelta(days=3),
    "billing-webhooks-retry": timedelta(days=3),
    "account-deletions": timedelta(days=7),
    "data-exports": timedelta(days=1),
    "usage-period-rollover": timedelta(hours=1),
}
"""How long its counterpart may be away, as the README of each queue says."""

LONGEST_WAIT = timedelta(hours=5)
"""A job is tried again within this time, however long its counterpart has been away."""

GREYLISTED = "451 4.7.1 Greylisted, try again in 300 seconds"

USER = "usr_ada_0001"


class Participant:
    """The application: subscribes to events, erases, exports; raises while it is away."""

    def __init__(self) -> None:
        self.is_away = False

    def _answer(self) -> None:
        if self.is_away:
            raise ConnectionError("the application's own database is away")

    @hookimpl
    def billing_webhooks_retry_event(self) -> None:
        self._answer()

    @hookimpl
    def account_deletions_erase(self) -> Mapping[str, int]:
        self._answer()
        return {"rows": 1}

    @hookimpl
    def data_exports_recipient(self) -> Recipient:
        self._answer()
        return Recipient("ada@example.org")

    @hookimpl
    def data_exports_records(self) -> Mapping[str, Any]:
        async def stream() -> AsyncIterator[Mapping[str, object]]:
            yield {"id": USER}

        return {"users": stream()}

    @hookimpl
    def usage_period_rollover_totals(self) -> None:
        self._answer()


class MailHandler:
    """Takes all mail, unless it greylists."""

    def __init__(self) -> None:
        self.greylists = False
        self.mails = 0

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, to: str, _: Any) -> str:  # noqa: N802  # aiosmtpd calls it by this name
        if self.greylists:
            return GREYLISTED
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802  # as above
        self.mails += 1
        return "250 OK"


@dataclass
class Site:
    """A database, and servers that can be away.

    Attributes:
        kit: A store, in which the application takes part.
        engine: The database.
        folder: A folder of the test.
        participant: The application.
        mail: What the mail server does.
        busy: How the receiver of webhooks answers: 503, or not.
        smtp: The socket of the mail server; it refuses connections until somebody listens.
        http: That of the receiver.
        events: How many events the receiver has taken.
    """

    kit: Kit
    engine: AsyncEngine
    folder: Path
    environment: pytest.MonkeyPatch
    participant: Participant
    mail: MailHandler = field(default_factory=MailHandler)
    busy: bool = False
    smtp: socket.socket = field(default_factory=socket.socket)
    http: socket.socket = field(default_factory=socket.socket)
    events: int = 0

    def __post_init__(self) -> None:
        for each in (self.smtp, self.http):
            each.bind(("127.0.0.1", 0))
        settings = {
            "CORRAL_EMAILS_HOST": "127.0.0.1",
            "CORRAL_EMAILS_PORT": str(self.smtp.getsockname()[1]),
            "CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE": "1",
            "CORRAL_DATA_EXPORTS_STORAGE": str(self.storage),
        }
        for name, value in settings.items():
            self.environment.setenv(name, value)

    @property
    def storage(self) -> Path:
        """Where archives go."""
        return self.folder / "archives"

    @asynccontextmanager
    async def servers(self, *, smtp: bool = True, http: bool = True) -> AsyncIterator[None]:
        """Let servers listen until the block ends."""
        loop, running = asyncio.get_running_loop(), []
        if smtp:
            running.append(await loop.create_server(lambda: SMTP(self.mail), sock=self.smtp.dup()))
        if http:
            running.append(await asyncio.start_server(self._serve, sock=self.http.dup()))
        try:
            yield
        finally:
            for server in running:
                server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.events += not self.busy
            status = b"503 Busy\r\nretry-after: 1" if self.busy else b"204 No Content"
            writer.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\n\r\n")
            await writer.drain()
        finally:
            writer.close()

    async def enqueue(self, name: str) -> str:
        """Enqueue a job of a queue; returns its id."""
        payload: Any
        match name:
            case "emails":
                variables = {"name": "Ada", "url": "https://acme.example/"}
                payload = EmailJob(to="ada@example.org", template="welcome", variables=variables)
            case "webhooks-outgoing":
                url = f"http://127.0.0.1:{self.http.getsockname()[1]}/"
                async with self.engine.begin() as connection:
                    endpoint = await add_endpoint(connection, url)
                payload = WebhookDelivery(
                    endpoint_id=endpoint.id, event_id="evt_1", event_type="user.created", data={}
                )
            case "billing-webhooks-retry":
                payload = BillingEvent(
                    provider="stripe",
                    event_id="evt_1",
                    type="invoice.paid",
                    occurred_at=datetime.now(UTC),
                    body={},
                )
            case "data-exports":
                payload = DataExport(user_id=USER, export_id="e1", format="json")
            case "usage-period-rollover":
                payload = UsagePeriodRollover()
            case _:
                async with self.kit.connect() as jobs, self.engine.begin() as connection:
                    await request_deletion(
                        connection,
                        Outbox(jobs).within(connection),
                        USER,
                        email="ada@example.org",
                        grace=timedelta(0),
                    )
                await self.kit.relay()
                (job,) = self.kit.jobs(account_deletions)
                return job.id
        return (await self.kit.enqueue(QUEUES[name], payload)).id

    async def drain(self, name: str, for_: timedelta) -> Drained:
        """Work off a queue, in so much moved time."""
        return await self.kit.drain(PROCESSORS[name], for_=for_)

    def state(self, name: str, job_id: str) -> str:
        """The state of a job."""
        (job,) = [job for job in self.kit.jobs(QUEUES[name]) if job.id == job_id]
        return job.state


QUEUES: dict[str, Queue[Any]] = {name: each.queue for name, each in PROCESSORS.items()}


@asynccontextmanager
async def no_server(site: Site) -> AsyncIterator[None]:
    """Connections are refused."""
    yield


@asynccontextmanager
async def busy_servers(site: Site) -> AsyncIterator[None]:
    """The mail server puts us off, the receiver is too busy and asks us to come back in a second."""
    site.busy = site.mail.greylists = True
    async with site.servers():
        yield
    site.busy = site.mail.greylists = False


@asynccontextmanager
async def no_database(site: Site) -> AsyncIterator[None]:
    """No connection to the database can be made."""
    with site.environment.context() as away:
        away.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://127.0.0.1:1/nowhere")
        async with site.servers():
            yield


@asynccontextmanager
async def no_participant(site: Site) -> AsyncIterator[None]:
    """The application's hooks raise."""
    site.participant.is_away = True
    yield
    site.participant.is_away = False


@asynccontextmanager
async def no_storage(site: Site) -> AsyncIterator[None]:
    """The storage takes no archive: where it should be, there is a folder that is not empty."""
    key = object_key(DataExport(user_id=USER, export_id="e1", format="json"))
    (site.storage / key / "in the way").mkdir(parents=True)
    yield
    shutil.rmtree(site.storage / key)


AWAY = [
    ("emails", no_server),
    ("emails", busy_servers),
    ("emails", no_database),
    ("webhooks-outgoing", no_server),
    ("webhooks-outgoing", busy_servers),
    ("webhooks-outgoing", no_database),
    ("billing-webhooks-retry", no_participant),
    ("billing-webhooks-retry", no_database),
    ("account-deletions", no_participant),
    ("account-deletions", no_database),
    ("data-exports", no_storage),
    ("data-exports", no_participant),
    ("data-exports", no_database),
    ("usage-period-rollover", no_database),
]


@pytest.fixture
def site(
    engine: AsyncEngine, corral_kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.delenv("CORRAL_APP")
    participant = Participant()
    site = Site(corral_kit(hooks=[participant]), engine, tmp_path, monkeypatch, participant)
    yield site
    site.smtp.close()
    site.http.close()


@pytest.mark.parametrize(
    ("name", "away"), AWAY, ids=[f"{name}-{away.__name__}" for name, away in AWAY]
)
async def test_a_job_outlives_its_counterpart_s_absence(
    site: Site, name: str, away: Callable[[Site], Any]
) -> None:
    job_id = await site.enqueue(name)
    async with away(site):
        before = await site.drain(name, HORIZONS[name])
    assert len(before.outcomes(name, job_id)) > 1, "it was tried"
    assert site.state(name, job_id) == "delayed"

    async with site.servers():
        after = await site.drain(name, LONGEST_WAIT)
    assert isinstance(after.outcomes(name, job_id)[-1], Completed), after
    assert site.state(name, job_id) == "completed"
    attempts = len(before.outcomes(name, job_id))
    assert (site.mail.mails, site.events) == (name == "emails", name == "webhooks-outgoing")
    print(f"{name}, {away.__name__}: {attempts} runs in {HORIZONS[name]}, then done")


@pytest.mark.parametrize("name", HORIZONS)
async def test_a_job_whose_counterpart_never_returns_fails(site: Site, name: str) -> None:
    job_id = await site.enqueue(name)
    async with no_server(site), no_participant(site), no_database(site):
        drained = await site.drain(name, 2 * HORIZONS[name] + LONGEST_WAIT)
    outcomes = drained.outcomes(name, job_id)
    assert outcomes
    assert site.state(name, job_id) == "failed", outcomes[-1]

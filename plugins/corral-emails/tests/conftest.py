"""A real SMTP server on a port of the kernel's choice, and mailers that talk to it."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, Envelope, Session

from corral import testing
from corral_emails.processor import open_mailer
from corral_emails.settings import PREFIX
from corral_emails.smtp import Mailer

OK = "250 OK"
SECONDS = 60
"""How long anything is waited for."""


class Postbox:
    """What the server received, and what it is to answer.

    Attributes:
        port: Where it listens.
        envelopes: The mails that it accepted.
        connections: How often a client connected.
        replies: Answers to come, by recipient, or by `"DATA"`; the rest is `250 OK`.
        entered: Set when a mail's text arrives.
        answers: While this is not set, a mail's text is not answered.
    """

    def __init__(self) -> None:
        self.port = 0
        self.envelopes: list[Envelope] = []
        self.connections = 0
        self.clients: list[asyncio.BaseTransport] = []
        self.replies: defaultdict[str, list[str]] = defaultdict(list)
        self.entered = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for client in self.clients:
            client.close()

    @property
    def mails(self) -> list[EmailMessage]:
        """The accepted mails, parsed."""
        return [message_from_bytes(envelope.content, policy=POLICY) for envelope in self.envelopes]

    async def handle_RCPT(  # noqa: N802  # aiosmtpd calls it by this name
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],
    ) -> str:
        reply = self.replies[address].pop(0) if self.replies[address] else OK
        if reply == OK:
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # as above
        self.entered.set()
        await self.answers.wait()
        reply = self.replies["DATA"].pop(0) if self.replies["DATA"] else OK
        if reply == OK:
            self.envelopes.append(envelope)
        return reply


@asynccontextmanager
async def listening(*, ssl: Any = None, **options: Any) -> AsyncIterator[Postbox]:
    """A server until the block ends; `options` go to aiosmtpd."""
    postbox = Postbox()

    class Server(SMTP):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            postbox.clients.append(transport)
            super().connection_made(transport)

        async def push(self, status: Any) -> None:
            await super().push(
                status.encode(errors="surrogateescape") if isinstance(status, str) else status
            )

    def connect() -> Server:
        postbox.connections += 1
        return Server(postbox, hostname="mx.test", timeout=20, **options)

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0, ssl=ssl)
    postbox.port = server.sockets[0].getsockname()[1]
    try:
        yield postbox
    finally:
        server.close()
        postbox.hang_up()
        await server.wait_closed()


@pytest.fixture
def serving() -> Callable[..., AbstractAsyncContextManager[Postbox]]:
    """Makes further servers: `async with serving(require_starttls=True, …) as postbox`."""
    return listening


@pytest_asyncio.fixture
async def postbox() -> AsyncIterator[Postbox]:
    async with listening(enable_SMTPUTF8=True) as postbox:
        yield postbox


@pytest_asyncio.fixture
async def plain_postbox() -> AsyncIterator[Postbox]:
    """A server that knows no addresses beyond ASCII."""
    async with listening(enable_SMTPUTF8=False) as postbox:
        yield postbox


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`await wait_until(condition, "what is awaited")`: that of `corral.testing`, for a minute."""
    return partial(testing.wait_until, seconds=SECONDS)


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith((PREFIX, "CORRAL_DATABASE_URL")):
            monkeypatch.delenv(name)


OpenMailer = Callable[..., Any]


@pytest_asyncio.fixture
async def mailer_with(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenMailer]:
    """Opens mailers as a worker does, from the environment: `await mailer_with(port=…,
    tls="starttls")`.
    """
    async with AsyncExitStack() as opened:

        async def opening(**settings: object) -> Mailer:
            for name, value in {"host": "127.0.0.1", "timeout_seconds": 10, **settings}.items():
                monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(value))
            return await opened.enter_async_context(open_mailer(None))

        yield opening


@pytest_asyncio.fixture
async def mailer(postbox: Postbox, mailer_with: OpenMailer) -> Mailer:
    return await mailer_with(port=postbox.port, sender="Acme <no-reply@acme.example>")

"""A real SMTP server on a port of the kernel's choice, and mailers that talk to it."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, Envelope, Session

from corral import Deps, testing
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


class ScriptedServer:
    """A server that answers as a test says, and keeps all that clients have sent.

    Attributes:
        port: Where it listens.
        replies: Answers to come, by the command: `CONNECT` (its greeting), `EHLO`, `MAIL`, `DATA`,
            `.` (the end of the text) and so on. `""` hangs up without a word; None, and the rest,
            is accepted.
        always: Answers for good, by the command.
        offers: What EHLO lists.
        said: What clients said, by connection.
        mails: Accepted mails: the recipients, and the text.
        answers: While this is not set, the end of a text is not answered.
        entered: Set when a text has arrived.
    """

    def __init__(self) -> None:
        self.port = 0
        self.replies: defaultdict[str, list[str | None]] = defaultdict(list)
        self.always: dict[str, str] = {}
        self.offers = ["8BITMIME"]
        self.said: list[list[str]] = []
        self.mails: list[tuple[list[str], bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.held: defaultdict[str, list[tuple[asyncio.Event, asyncio.Event]]] = defaultdict(list)
        self.entered = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def commands(self, connection: int = -1) -> list[str]:
        """The commands of one connection, without their arguments."""
        return [line.split(" ")[0].upper() for line in self.said[connection]]

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for writer in self.writers:
            writer.close()

    def hold(self, command: str, reached: asyncio.Event, go_on: asyncio.Event) -> None:
        """Do not answer a command, once: set `reached`, and wait for `go_on`."""
        self.held[command].append((reached, go_on))

    async def reply_to(self, command: str) -> str | None:
        """What the script answers, or None."""
        if self.held[command]:
            reached, go_on = self.held[command].pop(0)
            reached.set()
            await go_on.wait()
        if self.replies[command]:
            return self.replies[command].pop(0)
        return self.always.get(command)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.writers.append(writer)
        self.said.append(said := [])
        recipients: list[str] = []

        async def say(text: str) -> bool:
            """Answer; whether the conversation goes on."""
            if text:
                writer.write(text.encode(errors="surrogateescape") + b"\r\n")
                await writer.drain()
            return bool(text) and not text.startswith(("421", "221"))

        greeting = await self.reply_to("CONNECT")
        goes_on = await say("220 here ESMTP" if greeting is None else greeting)
        while goes_on and (line := (await reader.readline()).decode().strip()):
            said.append(line)
            command, _, argument = line.partition(" ")
            scripted = await self.reply_to(command := command.upper())
            if scripted is not None:
                goes_on = await say(scripted)
            elif command == "EHLO":
                await say(
                    "\r\n".join(["250-here", *(f"250-{each}" for each in self.offers), "250 OK"])
                )
            elif command == "RCPT":
                recipients.append(argument.partition("<")[2].partition(">")[0])
                await say(OK)
            elif command == "DATA":
                await say("354 go on")
                text = await reader.readuntil(b"\r\n.\r\n")
                self.entered.set()
                await self.answers.wait()
                scripted = await self.reply_to(".")
                if scripted is None:
                    self.mails.append((recipients, text))
                goes_on = await say(OK if scripted is None else scripted)
                recipients = []
            else:
                if command in {"MAIL", "RSET"}:
                    recipients = []
                goes_on = await say({"AUTH": "235 in", "QUIT": "221 bye"}.get(command, OK))

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, also one that breaks."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.talk(reader, writer)
        writer.close()


@asynccontextmanager
async def scripting(host: str) -> AsyncIterator[ScriptedServer]:
    """A scripted server until the block ends."""
    server = ScriptedServer()
    listener = await asyncio.start_server(server.accept, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.answers.set()
        listener.close()
        server.hang_up()
        await listener.wait_closed()


@pytest_asyncio.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with scripting("127.0.0.1") as server:
        yield server


@pytest_asyncio.fixture
async def serving_ipv6() -> AsyncIterator[ScriptedServer]:
    """A scripted server on `::1`."""
    try:
        async with scripting("::1") as server:
            yield server
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest_asyncio.fixture
async def deps() -> AsyncIterator[Deps]:
    """What a worker hands to `open_mailer`."""
    async with AsyncExitStack() as resources:
        yield testing.deps(resources=resources)


@pytest.fixture
def refused(deps: Deps) -> Callable[[], dict[str, int]]:
    """What `corral_emails_refused_total` says, without the zeros."""
    return lambda: {
        about: count
        for about, count in deps.counters["corral_emails_refused_total"].counts.items()
        if count
    }


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
async def mailer_with(monkeypatch: pytest.MonkeyPatch, deps: Deps) -> AsyncIterator[OpenMailer]:
    """Opens mailers as a worker does, from the environment: `await mailer_with(port=…,
    tls="starttls")`.
    """
    async with AsyncExitStack() as opened:

        async def opening(**settings: object) -> Mailer:
            for name, value in {"host": "127.0.0.1", "timeout_seconds": 10, **settings}.items():
                monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(value))
            return await opened.enter_async_context(open_mailer(deps))

        yield opening


@pytest_asyncio.fixture
async def mailer(postbox: Postbox, mailer_with: OpenMailer) -> Mailer:
    return await mailer_with(port=postbox.port, sender="Acme <no-reply@acme.example>")

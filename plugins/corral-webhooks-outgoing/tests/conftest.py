"""Receivers on ports of the kernel's choice, an internet that leads to them, and parts as a worker
opens them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpcore2
import httpx2
import pytest
import pytest_asyncio
import trustme

import corral_webhooks_outgoing
from corral import Deps, Job, hookimpl, testing
from corral_webhooks_outgoing import WebhookDelivery, webhooks_outgoing
from corral_webhooks_outgoing.answer import Answer
from corral_webhooks_outgoing.courier import Courier
from corral_webhooks_outgoing.endpoints import Endpoint, add_endpoint
from corral_webhooks_outgoing.guard import Guard
from corral_webhooks_outgoing.message import Message
from corral_webhooks_outgoing.processor import Deliveries, open_deliveries
from corral_webhooks_outgoing.sending import Sender
from corral_webhooks_outgoing.settings import PREFIX, WebhookSettings

SECONDS = 60
"""How long anything may take that is waited for."""

NAME, PUBLIC = "hooks.example.org", "93.184.216.34"
"""A receiver out in the world."""

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"

MESSAGE = Message(b'{"a": 1}', {"webhook-id": "evt_1"})

Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def answering(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer; `retry_after="7"` is the header Retry-After."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Request:
    """What a receiver was sent."""

    line: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """An HTTP server that gives the answers of `replies`, and 204 after that.

    Attributes:
        port: Where it listens.
        requests: What it was sent.
        connections: How often somebody connected.
        replies: The answers to come: bytes, or a coroutine function that writes.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[Request] = []
        self.connections = 0
        self.replies: deque[Reply] = deque()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *lines = head.decode("latin-1").strip().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (each.partition(":") for each in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append(Request(line, headers, body))
                reply = self.replies.popleft() if self.replies else NO_CONTENT
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                else:
                    await reply(writer)
        except (
            OSError,
            asyncio.IncompleteReadError,
        ):  # the other side has hung up, or speaks no HTTP
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(
    host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Receiver]:
    """A receiver until the block ends."""
    receiver = Receiver()
    running: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.get_running_loop().create_task(receiver.serve(reader, writer)))

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
def serving() -> Callable[..., Any]:
    """Makes receivers: `async with serving(tls=…, port=…) as receiver`."""
    return listening


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver without TLS on 127.0.0.1."""
    async with listening() as receiver:
        yield receiver


@pytest.fixture
def authority(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def certified(authority: trustme.CA) -> Callable[[str], ssl.SSLContext]:
    """`certified("hooks.example.org")`: what a server of that name needs for TLS."""

    def make(name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    return make


class Internet(httpcore2.AsyncNetworkBackend):
    """Leads some public addresses to servers of the test, and dials for real what is on this
    machine: a hole is seen.

    Attributes:
        ports: Where the server of an address listens.
        silent: Addresses that swallow what is sent to them.
        dialled: What was dialled.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.silent: set[str] = set()
        self.dialled: list[str] = []
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *rest: Any
    ) -> httpcore2.AsyncNetworkStream:
        self.dialled.append(host)
        if host in self.silent:
            try:
                await asyncio.wait_for(asyncio.Event().wait(), timeout)
            except TimeoutError:
                raise httpcore2.ConnectTimeout from None
        if host in self.ports:
            return await self._real.connect_tcp("127.0.0.1", self.ports[host], timeout)
        if host in {"127.0.0.1", "::1"}:
            return await self._real.connect_tcp(host, port, timeout)
        raise httpcore2.ConnectError("nobody is there")


@pytest.fixture
def internet() -> Internet:
    return Internet()


class Resolver:
    """What names stand for: each time they are asked for the next of their answers, and then the
    last for ever.

    Attributes:
        answers: By name, the addresses of each answer.
        asked: Which names were asked for.
        answering: While this is not set, nobody gets an answer.
        hanging: Names that get none while `answered` is not set.
        answered: See there.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {NAME: [[PUBLIC]]}
        self.asked: list[str] = []
        self.answering = threading.Event()
        self.answering.set()
        self.hanging: set[str] = set()
        self.answered = threading.Event()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        self.asked.append(host)
        assert self.answering.wait(SECONDS)
        assert host not in self.hanging or self.answered.wait(SECONDS)
        answers = self.answers.get(host)
        if answers is None:
            if host.strip(".")[-1:].isalpha() and not host.lower().startswith("0x"):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return self._real(
                host, port, *rest, **named
            )  # a number in whatever form: no name server is asked
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, kind, 6, "", (address, port, 0, 0)) if ":" in address
            else (socket.AF_INET, kind, 6, "", (address, port))
            for address in addresses
        ]  # fmt: skip


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """The resolver of this process, until the test ends; no name server is asked."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    return resolver


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith((PREFIX, "SSL_CERT_")):
            monkeypatch.delenv(name)


def deps_with(resources: AsyncExitStack, **subscribers: Callable[..., Any]) -> Deps:
    """What a worker offers, with a subscriber in the application for each hook that is named."""
    application = SimpleNamespace(**{name: hookimpl(made) for name, made in subscribers.items()})
    modules = {"the plugin": corral_webhooks_outgoing, "the application": application}
    return testing.deps(plugins=modules, resources=resources)


@pytest_asyncio.fixture
async def courier_with() -> AsyncIterator[Callable[..., Courier]]:
    """Makes couriers, on an internet or on the real network: `courier_with(internet,
    timeout_seconds=0.5)`.
    """
    async with AsyncExitStack() as opened:

        def make(network: Any = None, **settings: Any) -> Courier:
            message = WebhookSettings(**settings)
            guard = Guard(allow_private=message.allow_private, network=network)
            courier = Courier(message, guard)
            opened.push_async_callback(courier.close)
            return courier

        yield make


@pytest.fixture
def courier(courier_with) -> Courier:
    return courier_with(allow_private=True)


async def post(courier: Courier, receiver: Receiver) -> Answer:
    """Send a message to a receiver."""
    return await courier.post(
        httpx2.URL(f"http://127.0.0.1:{receiver.port}/corral?token=1"), MESSAGE
    )


Opening = Callable[..., Awaitable[Deliveries]]


@pytest_asyncio.fixture
async def deliveries_with(
    corral_database_with_tables: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Opening]:
    """Opens deliveries as a worker does: `await deliveries_with(allow_private=1,
    webhooks_outgoing_endpoint=…)`.

    With `internet`, connections are made in there. Names of hooks are subscribers, all else is
    settings.
    """
    async with AsyncExitStack() as opened:

        async def opening(internet: Internet | None = None, **given: Any) -> Deliveries:
            hooks = {name: given.pop(name) for name in list(given) if name.startswith("webhooks_")}
            for name, value in given.items():
                monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(value))
            deps = deps_with(opened, **hooks)
            deliveries = await opened.enter_async_context(open_deliveries(deps))
            if internet is None:
                return deliveries
            guard = Guard(allow_private=deliveries.settings.allow_private, network=internet)
            courier = Courier(deliveries.settings, guard)
            opened.push_async_callback(courier.close)
            deliveries.sender = Sender(courier, deliveries.settings)
            return deliveries

        yield opening


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def delivery(
    job_id: str = "test-job", *, endpoint: str = "ep_1", attempt: int = 1, **moments: datetime
) -> Job[WebhookDelivery]:
    """A job for an endpoint; `enqueued_at` and `processed_on` say when."""
    payload = {
        "endpointId": endpoint,
        "eventId": "evt_1",
        "eventType": "user.created",
        "data": {"id": 7},
    }
    return testing.job(webhooks_outgoing, payload, id=job_id, attempt=attempt, **moments)


async def added(deliveries: Deliveries, port: int, endpoint_id: str = "ep_1") -> Endpoint:
    """Store an endpoint at a port of this machine."""
    async with deliveries.engine.begin() as connection:
        url = f"http://127.0.0.1:{port}/t0ken"
        return await add_endpoint(connection, url, endpoint_id=endpoint_id, secret=SECRET)


@pytest.fixture
def opening(deliveries_with: Opening, receiver: Receiver) -> Opening:
    """Opens deliveries that may reach this machine, with an endpoint at the receiver."""

    async def opened(**given: Any) -> Deliveries:
        deliveries = await deliveries_with(allow_private=1, **given)
        await added(deliveries, receiver.port)
        return deliveries

    return opened


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

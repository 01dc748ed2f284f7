"""`Wire`: one open connection to the store.

Requests go out, and replies come back in the same order. Nothing is sent twice.

hiredis packs requests and parses replies; redis-py reads unusual URLs and makes the TLS context.
The rest is ours, for three reasons. redis-py bounds the time of a whole reply, so a large reply on
a slow link is fetched again and again and never arrives. Its asyncio client spends 68 µs of CPU on
a round trip, where 13 µs are enough. And loading it takes 60 ms and 7 MiB.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

import hiredis

from corral.forking import on_fork, silence
from corral.store.replies import NoScriptError, ResponseError

__all__ = [
    "BYTES_PER_SECOND",
    "CONNECT_SECONDS",
    "GREETING_SECONDS",
    "Address",
    "Wire",
    "can_do_without",
    "new_reader",
    "notice_dead_peer",
    "open_wire",
    "request_seconds",
]

PLAIN_URL: Final = re.compile(
    r"redis://(?:(?P<user>[\w.~%-]*)(?::(?P<password>[\w.~%-]*))?@)?"
    r"(?P<host>[\w.-]+)(?::(?P<port>[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}))?(?:/(?P<database>\d{0,9}))?"
    r"|unix://(?P<path>/[\w./~%-]+)",
    re.ASCII,
)
"""The URLs that are read here: most of them. redis-py reads those with TLS, options or IPv6."""
PORT: Final = 6379
CONNECT_SECONDS: Final = 2.0
"""How long a connection may take to open; a store that needs longer is not usable."""
GREETING_SECONDS: Final = 1.0
"""How long each reply may take while a connection is being made.

If the network swallows the greeting, the next try follows soon: a worker works within 2 s of the
end of an outage.
"""
BYTES_PER_SECOND: Final = 32 * 1024
"""The slowest link that is supported: a request may take one second longer for each 32 KiB."""
DEAD_PEER_MS: Final = 3_000
"""How long the peer may leave sent bytes unacknowledged.

Without this bound, a large request to a host that is gone would wait as long as on the slowest
link.
"""
SET_LIBRARY: Final = ("CLIENT", "SETINFO", "LIB-NAME", "corral")
"""Known to Redis since 7.2."""
MEASURED_BYTES: Final = 64 * 1024
"""From how many bytes on a reply is used to measure the speed of the link."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the store is and how to greet it.

    Attributes:
        host: Its host; empty with a path.
        port: Its TCP port.
        path: Its unix socket; empty with a host.
        tls: The TLS context; None for an open connection.
        login: The arguments of AUTH; empty without a password.
        name: What `CLIENT LIST` shows; empty where the URL names none.
        database: The number of the database.
    """

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    login: tuple[str, ...]
    name: str
    database: int

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL: `redis://`, `rediss://` or `unix://`, with redis-py's options behind a `?`.

        An application may share its URL with Corral. Options that concern the client and not the
        connection are ignored here, and so are timeouts: Corral has its own.

        Raises:
            ConfigurationError: This is no URL of a store.
        """
        plain = PLAIN_URL.fullmatch(url)
        if plain is None:
            from corral.store.redis_py import read_url  # noqa: PLC0415  # 60 ms and 7 MiB, for few

            return read_url(url)
        path = unquote(plain["path"] or "")
        user, password = unquote(plain["user"] or ""), unquote(plain["password"] or "")
        login = () if not password else (user, password) if user else (password,)
        host, port = ("", 0) if path else (plain["host"].lower(), int(plain["port"] or PORT))
        return cls(host, port, path, None, login, "", int(plain["database"] or 0))

    def greeting(self, name: str | None) -> Iterator[tuple[Any, ...]]:
        """The commands to begin a connection with.

        There is at least one, so a store that accepts connections and answers nothing is noticed.

        Args:
            name: What `CLIENT LIST` shows; None: the name in the URL.
        """
        if self.login:
            yield ("AUTH", *self.login)
        yield SET_LIBRARY
        if name := name or self.name:
            yield ("CLIENT", "SETNAME", name)
        if self.database:
            yield ("SELECT", self.database)


class _Request(NamedTuple):
    """A request whose reply is awaited.

    Attributes:
        reply: The future that gets it.
        size: Of the request, in bytes.
        silence: How long the store may be silent, in seconds; see `Wire.ask`.
        deadline: When the request fails, by the monotonic clock, unless a byte comes before.
    """

    reply: asyncio.Future[Any]
    size: int
    silence: float
    deadline: float


class Wire(asyncio.Protocol):
    """One open connection. The store answers its requests in the order in which they were sent.

    Attributes:
        lost: Why it is closed; None while it is open.
        heard: When the last bytes came, by the monotonic clock.
        bytes_per_second: How fast the last large reply came; None before there was one.

    Args:
        loop: The running event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lost: OSError | None = ConnectionError("the connection is not open yet")
        self.heard = time.monotonic()
        self.bytes_per_second: float | None = None
        self._loop = loop
        self._transport: asyncio.Transport
        self._reader = new_reader()
        self._awaited: deque[_Request] = deque()
        self._unanswered = 0  # bytes of them
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        self._first = 0.0
        self._size = 0

    @property
    def receives(self) -> bool:
        """Whether a part of a reply has come, and the rest has not."""
        return bool(self._awaited) and self._size > 0

    @property
    def asked(self) -> bool:
        """Whether a reply is awaited."""
        return bool(self._awaited)

    def ask(self, packed: bytes, seconds: float) -> asyncio.Future[Any]:
        """Send a request. The connection is closed if its reply does not come in time.

        Args:
            packed: One command.
            seconds: How long the store may be silent: before its reply, once the request can have
                arrived, and between any two pieces of it.

        Returns:
            The reply, texts as bytes; or a `ResponseError`, or an OSError if the connection is
            lost.
        """
        reply = self._loop.create_future()
        if self.lost is not None:
            reply.set_exception(self.lost)
            return reply
        self._unanswered += len(packed)  # what was sent before arrives before
        deadline = time.monotonic() + request_seconds(self._unanswered, seconds)
        if not self._awaited:
            self._deadline, self._size = deadline, 0
        self._awaited.append(_Request(reply, len(packed), seconds, deadline))
        if self._timer is None or self._looks_at > self._deadline:
            self._wait()
        self._transport.write(packed)
        return reply

    def abort(self) -> None:
        """Close at once. A reply that is awaited does not come."""
        self._end(ConnectionAbortedError("the connection was closed"))

    def leave_to_parent(self) -> None:
        """In a forked child: send nothing and close nothing.

        The transport is not touched, its selector is shared.
        """
        if self.lost is None:
            self.lost = ConnectionAbortedError("the connection is the parent process's")
            silence(self._transport.get_extra_info("socket").fileno())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio: the connection is open."""
        self._transport = cast("asyncio.Transport", transport)
        self.lost = None
        on_fork(self)

    def data_received(self, data: bytes) -> None:
        """For asyncio: a piece of a reply has come, or several replies."""
        self.heard = now = time.monotonic()
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
            if reply is False:  # not all of it
                self._first = self._first if self._size else now
                self._size += len(data)
            while reply is not False:
                self._receive(reply, now)
                reply = self._reader.gets()
        except hiredis.ProtocolError as error:
            self._end(ConnectionError(f"what answers is no store: {error}"))
            return
        if self._awaited:
            first = self._awaited[0]
            self._deadline = max(first.deadline, now + first.silence)

    def connection_lost(self, exc: Exception | None) -> None:
        """For asyncio: the connection is closed."""
        self._end(
            exc
            if isinstance(exc, OSError)
            else ConnectionResetError("the store closed the connection")
        )

    def _receive(self, reply: Any, now: float) -> None:
        if self._size > MEASURED_BYTES:
            self.bytes_per_second = self._size / max(now - self._first, 0.001)
        self._size = 0
        if not self._awaited:
            self._end(ConnectionError(f"the store sent a reply without a request: {reply!r:.100}"))
            return
        future, size, _, _ = self._awaited.popleft()
        self._unanswered -= size
        if future.done():
            return
        if isinstance(reply, ResponseError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = self._deadline
        self._timer = self._loop.call_later(self._deadline - time.monotonic(), self._look)

    def _look(self) -> None:
        """Close the connection where a request has waited too long.

        One timer serves all requests, because most of them end long before it.
        """
        self._timer = None
        if not self._awaited:
            return
        if time.monotonic() < self._deadline:
            self._wait()
        else:
            self._end(TimeoutError(f"no answer within {self._awaited[0].silence:g} s"))

    def _end(self, why: OSError) -> None:
        if self.lost is None:
            self.lost = why
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._awaited:
            future = self._awaited.popleft().reply
            if not future.done():
                future.set_exception(self.lost)


async def open_wire(url: str, name: str | None, read_seconds: float) -> Wire:
    """Open a connection and greet the store.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        name: What `CLIENT LIST` shows, or None.
        read_seconds: How long each step may take at most; `CONNECT_SECONDS` and `GREETING_SECONDS`
            are bounds, too.

    Raises:
        ConfigurationError: The URL is no store's.
        OSError: There is no connection, or it was lost.
        ResponseError: The store refused the login, the name or the database.
    """
    to = Address.of(url)
    loop = asyncio.get_running_loop()
    wire = Wire(loop)
    seconds = min(CONNECT_SECONDS, read_seconds)
    try:
        async with asyncio.timeout(seconds):
            if to.path:
                await loop.create_unix_connection(lambda: wire, to.path)
            else:
                transport, _ = await loop.create_connection(
                    lambda: wire, to.host, to.port, ssl=to.tls
                )
                notice_dead_peer(transport.get_extra_info("socket"))
    except TimeoutError as error:
        wire.abort()
        raise TimeoutError(f"no connection within {seconds:g} s") from error
    except BaseException:
        wire.abort()
        raise
    try:
        for command in to.greeting(name):
            try:
                await wire.ask(hiredis.pack_command(command), min(GREETING_SECONDS, read_seconds))
            except ResponseError as error:
                if not can_do_without(command, error):
                    raise
    except BaseException:
        wire.abort()
        raise
    return wire


def request_seconds(size: int, seconds: float) -> float:
    """How long after a request its reply may begin.

    Args:
        size: Of the request, in bytes.
        seconds: How long the reply to a small request may take.
    """
    return seconds + size / BYTES_PER_SECOND


def can_do_without(command: tuple[Any, ...], error: ResponseError) -> bool:
    """Whether a connection works although the store refused a command of its greeting.

    Only the library's name in `CLIENT LIST` is not needed.
    """
    return command is SET_LIBRARY and str(error).lower().startswith(("unknown", "noperm"))


def new_reader() -> hiredis.Reader:
    """A parser of replies: a text is bytes, an error a `ResponseError`.

    The error's text begins with the store's own word; `ERR` is left out.
    """
    return hiredis.Reader(replyError=_reply_error)


def notice_dead_peer(connection: socket.socket) -> None:
    """Let the kernel close a TCP connection whose other side acknowledges nothing any more."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # not everywhere
        with suppress(OSError):  # closed by now
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)


def _reply_error(text: str) -> ResponseError:
    if text.startswith("NOSCRIPT"):
        return NoScriptError(text)
    return ResponseError(text.removeprefix("ERR "))

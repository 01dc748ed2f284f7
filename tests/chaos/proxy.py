"""A proxy between a client and the store that loses what networks lose: replies, whole connections,
time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET
from typing import Self

from corral.store.scripts import script

CHUNK = 2**16


@dataclass(eq=False)
class _Connection:
    """One client's connection: what became of it."""

    cut: bool = False
    swallowed: bool = False
    replied: int = 0


class Proxy:
    """Forwards one unix socket to another, for as long as it is entered.

    Attributes:
        url: What a client is given instead of the store's URL.
        cut: Asked of every request. Where it answers True the request reaches the store, and its
            reply is lost together with the connection. Clients must not send a request before the
            last one's reply.
        severs: Asked of every request. Where it answers True, the connection ends as soon as the
            request is sent: the store may find its client gone before it has read what the client
            wants.
        cuts: How many replies were lost so, in both ways.
        late: Asked of every reply: for how many seconds it, and with it its connection, is held
        back.
        held: How many replies were held back so.
        holds_back: How many of them have not arrived, or been lost, yet.
        delay_seconds: How long every request is held up.
        swallows_new: Whether connections are swallowed from their start.
        bytes_per_second: How much goes through each connection, each way; 0: as fast as it comes.
        splits: Whether each byte of a reply is sent alone.
        longest_reply: A connection breaks under a reply of more bytes; 0: under none.
        passed: How many bytes of replies have gone through.

    Args:
        path: The socket to listen on.
        upstream: The store's.
        tls: Listen with TLS on a port of the loopback interface instead; `port` tells which.
        tcp: Listen on such a port without TLS.
    """

    port: int

    def __init__(
        self, path: Path, upstream: Path, *, tls: ssl.SSLContext | None = None, tcp: bool = False
    ) -> None:
        self.url = f"unix://{path}"
        self.cut: Callable[[bytes], bool] = lambda _: False
        self.severs: Callable[[bytes], bool] = lambda _: False
        self.cuts = 0
        self.late: Callable[[bytes], float] = lambda _: 0.0
        self.held = self.holds_back = 0
        self.delay_seconds = 0.0
        self.swallows_new = self.splits = False
        self.bytes_per_second = self.longest_reply = 0
        self.passed = 0
        self._tls = tls
        self._on_port = tcp or tls is not None
        self._path = path
        self._upstream = upstream
        self._passing = asyncio.Event()
        self._passing.set()
        self._arrived = asyncio.Event()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if not self._on_port:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        else:
            self._server = await asyncio.start_server(
                self._accept, "localhost", 0, ssl=self._tls, family=AF_INET
            )
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            if not task.cancelling():  # `sever` has, and it closes its ends
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self) -> None:
        """Every connection that is open now stays open, and nothing goes through it any more; new
        ones work.
        """
        for connection in self._open:
            connection.swallowed = True

    def sever(self) -> None:
        """Close every connection that is open now."""
        for task in self._tasks:
            task.cancel()

    def redirect(self, upstream: Path) -> None:
        """Close every connection that is open now; new ones go to another store, as where an
        address moves.
        """
        self._upstream = upstream
        self.sever()

    def hold(self) -> None:
        """Nothing goes through any connection, new ones included, until `let_go`: as where the
        network is cut.
        """
        self._passing.clear()

    def let_go(self) -> None:
        """What was held arrives."""
        self._passing.set()

    def let_arrive(self) -> None:
        """The replies that are held back arrive at once."""
        self._arrived.set()
        self._arrived = asyncio.Event()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(swallowed=self.swallows_new)
        ends = [writer]
        try:
            store_reader, store_writer = await asyncio.open_unix_connection(self._upstream)
            ends.append(store_writer)
            self._open.add(connection)
            ways = [
                asyncio.create_task(
                    self._requests(connection, reader, store_writer), name="proxy-requests"
                ),
                asyncio.create_task(
                    self._replies(connection, store_reader, writer), name="proxy-replies"
                ),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if connection.swallowed:
                    await (
                        asyncio.Event().wait()
                    )  # the store does not learn that its client has gone
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:  # the store is away: so is the proxy
            pass
        finally:
            self._open.discard(connection)
            for end in ends:  # all of them first: the test may be over while one is waited for
                end.close()
            for end in ends:
                with suppress(OSError):
                    await end.wait_closed()

    async def _requests(
        self, connection: _Connection, reader: asyncio.StreamReader, store: asyncio.StreamWriter
    ) -> None:
        while request := await reader.read(self._chunk):
            if connection.swallowed:
                continue
            await self._throttle(request)
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            await self._passing.wait()
            connection.cut = connection.cut or self.cut(request)
            connection.replied = 0
            store.write(request)
            await store.drain()
            if self.severs(request):
                self.cuts += 1
                return

    async def _replies(
        self, connection: _Connection, store: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while reply := await store.read(self._chunk):
            if seconds := self.late(reply):
                await self._hold_back(seconds)
            connection.replied += len(reply)
            breaks = self.longest_reply and connection.replied > self.longest_reply
            if (connection.cut or breaks) and not connection.swallowed:
                self.cuts += 1
                return
            await self._passing.wait()
            await self._throttle(reply)
            for piece in (
                (reply[at : at + 1] for at in range(len(reply))) if self.splits else (reply,)
            ):
                if not connection.swallowed:
                    writer.write(piece)
                    await writer.drain()
                if self.splits:
                    await asyncio.sleep(0)
            self.passed += len(reply)

    @property
    def _chunk(self) -> int:
        """How much is taken at once: a twentieth of a second on a slow connection."""
        return min(CHUNK, self.bytes_per_second // 20 or CHUNK)

    async def _throttle(self, data: bytes) -> None:
        if self.bytes_per_second:
            await asyncio.sleep(len(data) / self.bytes_per_second)

    async def _hold_back(self, seconds: float) -> None:
        self.held += 1
        self.holds_back += 1
        try:
            await asyncio.wait_for(self._arrived.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            self.holds_back -= 1


def every_first_try(name: str) -> Callable[[bytes], bool]:
    """Lose the first reply to each call of a script; its repetition is the same request, and
    passes.
    """
    digest, tried = script(name).digest.encode(), set[bytes]()

    def is_first(request: bytes) -> bool:
        if digest not in request or request in tried:
            return False
        tried.add(request)
        return True

    return is_first

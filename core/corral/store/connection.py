"""Connections to the store. All of them are made here, and their failures are classified here.

A `Link` is one connection on an event loop, a `ThreadLink` one of a thread. Neither retries a
command: one that was interrupted closes the connection, and the next command opens a new one.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import Any, Final

import hiredis

from corral.errors import StoreUnavailable
from corral.forking import forks, on_fork, silence
from corral.store.replies import ResponseError, refusal, unavailable, unexpected, unreplicated
from corral.store.wire import (
    CONNECT_SECONDS,
    GREETING_SECONDS,
    Address,
    Wire,
    can_do_without,
    new_reader,
    notice_dead_peer,
    open_wire,
    request_seconds,
)

__all__ = ["BLOCK_SECONDS", "Link", "ThreadLink", "blocking_link"]

COMMAND_SECONDS: Final = 3.0
"""How long the store may be silent while a reply is due.

Together with BLOCK_SECONDS it bounds for how long a network that swallows bytes can stop a worker:
under 8 s.
"""
BLOCK_SECONDS: Final = 4.0
"""How long a worker waits for a marker in one command: BullMQ's own wait is 5 s (wire § 7.2)."""
READ_MARGIN_SECONDS: Final = 2.0
"""How much longer than its block a command may take before its connection counts as dead."""
IDLE_SECONDS: Final = 5.0
"""A connection that was idle for longer gets a PING before it is used: routers drop idle ones."""
LARGE_BYTES: Final = 32 * 1024
"""From how many bytes on a request is large."""
LARGE_IDLE_SECONDS: Final = 0.1
"""The same before a large request: it may take long, so a dead store would be noticed late."""
PING: Final = hiredis.pack_command(("PING",))
READ_BYTES: Final = 2**16
REPLICATED_SECONDS: Final = 1.0
"""How long a write waits for a replica. One in the same region confirms within milliseconds."""


class Link:
    """One connection to the store, made when it is first needed and again after each failure.

    Concurrent calls take turns, in the order in which they were made. No command is ever sent
    twice.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        pipelined: Whether a call is sent while others wait for their replies. All of them fail with
            the connection. Where a call is cancelled, its reply is dropped; on a link that is not
            pipelined, the connection is closed.
        name: What `CLIENT LIST` shows, or None.
        read_seconds: How long the store may be silent while a reply is due. A reply may take longer
            as long as bytes keep coming; a request has one second more for each 32 KiB.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        read_seconds: float = COMMAND_SECONDS,
        pipelined: bool = False,
    ) -> None:
        self.url = url
        self._name = name
        self._pipelined = pipelined
        self._read_seconds = read_seconds
        self._wire: Wire | None = None
        self._turn = asyncio.Lock()
        self._forks = forks()

    @property
    def bytes_per_second(self) -> float | None:
        """How fast the last large reply of this connection came; None before there was one."""
        return None if self._wire is None else self._wire.bytes_per_second

    @property
    def is_connecting(self) -> bool:
        """Whether a call waits for its connection.

        On a link that is not pipelined, also whether one waits for its reply.
        """
        return self._turn.locked()

    @property
    def unheard_seconds(self) -> float:
        """For how long no byte has come in the middle of a reply; infinite outside of one.

        May be read from any thread.
        """
        wire = self._wire
        return time.monotonic() - wire.heard if wire is not None and wire.receives else math.inf

    async def call(self, *command: Any, replicated: bool = False) -> Any:
        """Send one command and read its reply.

        Args:
            command: Its words.
            replicated: Whether to wait afterwards, up to `REPLICATED_SECONDS`, until a replica has
                what the command wrote. The command must write something: on Valkey 9, WAIT counts
                every replica for a connection that wrote nothing.

        Returns:
            The reply as RESP2 gives it, texts as bytes.

        Raises:
            StoreUnavailable: `outcome` is `"refused"` where the command certainly had no effect,
                else `"unknown"`, also where it was done and no replica has confirmed it.
            ResponseError: The server understood the command and answered with an error.
        """
        if self._forks != forks():
            raise StoreUnavailable(
                "this connection to the store was made before a fork, and is the parent process's"
            )
        packed = hiredis.pack_command(command)
        async with self._turn:
            wire = self._wire
            try:
                if wire is None or not await self._is_alive(wire, len(packed)):
                    wire = await self._open()
            except BaseException:
                self._drop(wire)
                raise
            reply = wire.ask(packed, self._read_seconds)
            if not self._pipelined:
                return await self._await_reply(wire, reply, replicated=replicated)
        return await self._await_reply(wire, reply, replicated=replicated)

    async def _await_reply(
        self, wire: Wire, reply: asyncio.Future[Any], *, replicated: bool
    ) -> Any:
        try:
            received = await reply
        except ResponseError as error:
            if refused := refusal(error, self.url):
                if not wire.asked:  # another call may still be answered
                    self._drop(wire)
                raise refused from error
            raise
        except OSError as error:
            self._drop(wire)
            raise unavailable(error, self.url, refused=False) from error
        except BaseException:
            if not self._pipelined:
                # An interrupted command must not go on: a blocking wait would take a marker.
                self._drop(wire)
            raise
        if replicated:
            await self._wait_for_replica(wire)
        return received

    async def close(self) -> None:
        """Close the connection; a later call opens another."""
        if self._forks != forks():
            return
        async with self._turn:
            self._drop(self._wire)
            # The loop closes the socket in its next round, and may have no later one.
            await asyncio.sleep(0)

    async def _is_alive(self, wire: Wire, size: int) -> bool:
        """Whether a connection can take a request of so many bytes; PING only where it was idle."""
        idle = 0.0 if wire.asked else time.monotonic() - wire.heard
        if wire.lost is not None or idle <= (
            IDLE_SECONDS if size < LARGE_BYTES else LARGE_IDLE_SECONDS
        ):
            return wire.lost is None
        try:
            await wire.ask(PING, min(GREETING_SECONDS, self._read_seconds))
        except OSError:
            return False
        except ResponseError:  # any answer shows that the connection works
            return True
        return True

    async def _wait_for_replica(self, wire: Wire) -> None:
        """Wait until a replica has what this connection has written.

        The store itself has it already, so every failure here has the outcome `"unknown"`.
        """
        command: tuple[Any, ...] = ("WAIT", 1, round(REPLICATED_SECONDS * 1000))
        try:
            having = await wire.ask(
                hiredis.pack_command(command), self._read_seconds + REPLICATED_SECONDS
            )
        except (ResponseError, OSError) as error:
            self._drop(wire)
            if isinstance(error, ResponseError):
                failed = unexpected(error, self.url)
                failed.outcome = "unknown"
            else:
                failed = unavailable(error, self.url, refused=False)
            raise failed from error
        except BaseException:
            self._drop(wire)
            raise
        if having < 1:
            raise unreplicated(self.url, REPLICATED_SECONDS)

    async def _open(self) -> Wire:
        self._drop(self._wire)
        try:
            self._wire = wire = await open_wire(self.url, self._name, self._read_seconds)
        except (ResponseError, OSError) as error:
            raise unavailable(error, self.url, refused=True) from error
        return wire

    def _drop(self, wire: Wire | None) -> None:
        """Close a connection, which may not be the newest."""
        if wire is not None:
            wire.abort()
        if wire is self._wire:
            self._wire = None


class ThreadLink:
    """A `Link` for a thread that has no event loop: for one thread at a time.

    Args:
        url: As for `Link`.
        read_seconds: How long connecting may take, and how long the store may be silent while a
            reply is due.
    """

    def __init__(self, url: str, read_seconds: float) -> None:
        self.url = url
        self._read_seconds = read_seconds
        self._connection: socket.socket | None = None
        self._reader = new_reader()
        on_fork(self)

    def call(self, *command: Any) -> Any:
        """As `Link.call`."""
        packed = hiredis.pack_command(command)
        try:
            return self._ask(self._connection or self._open(), packed, self._read_seconds)
        except ResponseError as error:
            if refused := refusal(error, self.url):
                self.close()
                raise refused from error
            raise
        except (OSError, hiredis.ProtocolError) as error:
            self.close()
            raise unavailable(error, self.url, refused=False) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def leave_to_parent(self) -> None:
        """In a forked child, drop the parent's connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            silence(connection.fileno())

    def _ask(self, connection: socket.socket, packed: bytes, seconds: float) -> Any:
        connection.settimeout(request_seconds(len(packed), seconds))
        connection.sendall(packed)
        while (reply := self._reader.gets()) is False:
            data = connection.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the store closed the connection")
            connection.settimeout(seconds)
            self._reader.feed(data)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def _open(self) -> socket.socket:
        to = Address.of(self.url)
        self._reader = new_reader()
        try:
            self._connection = connection = _open_socket(
                to, min(CONNECT_SECONDS, self._read_seconds)
            )
            for command in to.greeting(None):
                try:
                    self._ask(
                        connection,
                        hiredis.pack_command(command),
                        min(GREETING_SECONDS, self._read_seconds),
                    )
                except ResponseError as error:
                    if not can_do_without(command, error):
                        raise
        except (ResponseError, OSError, hiredis.ProtocolError) as error:
            self.close()
            raise unavailable(error, self.url, refused=True) from error
        return connection


def _open_socket(to: Address, seconds: float) -> socket.socket:
    if to.path:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        try:
            connection.connect(to.path)
        except BaseException:
            connection.close()
            raise
        return connection
    connection = socket.create_connection((to.host, to.port), timeout=seconds)
    try:
        notice_dead_peer(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (
            connection
            if to.tls is None
            else to.tls.wrap_socket(connection, server_hostname=to.host)
        )
    except BaseException:
        connection.close()
        raise


def blocking_link(url: str, name: str) -> Link:
    """A connection for commands that block up to `BLOCK_SECONDS`.

    Args:
        url: As for `Link`.
        name: What `CLIENT LIST` shows, see `corral.store.keys.worker_connection_name`.
    """
    return Link(url, name=name, read_seconds=BLOCK_SECONDS + READ_MARGIN_SECONDS)

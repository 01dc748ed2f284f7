"""The connections of one worker: as many as mails are sent at once, up to a limit, and reused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from corral import Fail
from corral_emails.connection import Refused, SmtpConnection

__all__ = ["ConnectionPool"]

IDLE_SECONDS = 30.0
"""How long a connection stays open without a mail.

Servers close theirs after minutes (RFC 5321: five), and firewalls forget them without a word.
"""


class ConnectionPool:
    """Lends connections, and closes those that are idle for long.

    Attributes:
        places: To be held by everybody who uses a connection: there are as many as connections.

    Args:
        make: Makes a connection that is not open yet.
        size: How many there may be at once.
    """

    def __init__(self, make: Callable[[], SmtpConnection], size: int) -> None:
        self._make = make
        self.places = asyncio.Semaphore(size)
        self._idle: list[tuple[float, SmtpConnection]] = []
        self._lent: set[SmtpConnection] = set()
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False

    def take_idle(self) -> SmtpConnection | None:
        """The connection that was used last, so that the others can be closed; None without one."""
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    @asynccontextmanager
    async def lend(self, connection: SmtpConnection | None) -> AsyncIterator[SmtpConnection]:
        """Lend a connection within the block. It is kept if the server waits for its next mail.

        After anything else than a refusal it is closed, also after a cancellation: a reply that is
        still to come would answer the next command.

        Args:
            connection: An idle one that was taken; None to open another one.
        """
        lent = self._make() if connection is None else connection
        self._lent.add(lent)
        try:
            if connection is None:
                await self._open(lent)
            yield lent
        except (Refused, Fail):
            raise
        except BaseException:
            lent.abort()
            raise
        finally:
            self._lent.discard(lent)
            if self._is_closed:
                lent.abort()
            elif lent.is_open:
                self._keep(lent)

    async def close(self) -> None:
        """Say goodbye on all idle connections, and close the others. None is kept afterwards."""
        self._is_closed = True
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.cancel()
            await asyncio.wait([closing])
        for connection in self._lent:
            connection.abort()
        idle, self._idle = self._idle, []
        async with asyncio.TaskGroup() as group:
            for number, (_, connection) in enumerate(idle):
                group.create_task(connection.quit(), name=f"corral-emails-quit-{number}")

    async def _open(self, connection: SmtpConnection) -> None:
        try:
            await connection.open()
        except BaseException:  # one that is not ready is of no use, whatever the reason
            connection.abort()
            raise

    def _keep(self, connection: SmtpConnection) -> None:
        self._idle.append((asyncio.get_running_loop().time(), connection))
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self._close_idle(), name="corral-emails-idle")

    async def _close_idle(self) -> None:
        """Close each connection that is idle for long; end when none is idle."""
        loop = asyncio.get_running_loop()
        while self._idle:
            since, connection = self._idle[0]
            wait = since + IDLE_SECONDS - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                del self._idle[0]
                await connection.quit()

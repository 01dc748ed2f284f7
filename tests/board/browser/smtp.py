"""A real SMTP server that refuses mails for a while, and answers slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiosmtpd.smtp import SMTP

__all__ = ["Postbox", "receiving"]


class Postbox:
    """What the server has received, and how it answers.

    Attributes:
        port: The port on which it listens.
        mails: The mails that it has accepted.
        is_broken: Whether it refuses mails.
        answers: While this is not set, a mail's text is not answered.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[bytes] = []
        self.is_broken = True
        self.answers = asyncio.Event()
        self.answers.set()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        await self.answers.wait()
        if self.is_broken:
            return "451 4.3.2 the queue of this server is full"
        self.mails.append(envelope.content)
        return "250 OK"


@asynccontextmanager
async def receiving() -> AsyncIterator[Postbox]:
    """The server, on a port of the kernel's choice."""
    postbox = Postbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(postbox, loop=loop), "127.0.0.1", 0)
    postbox.port = server.sockets[0].getsockname()[1]
    try:
        yield postbox
    finally:
        postbox.answers.set()
        server.close()

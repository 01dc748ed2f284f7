"""A connection that gives little at a time, and of each answer so much and no more.

The bytes of a body are counted where it is read. What stands around them is not seen there: interim
answers without end, a line for each byte. To read those is work, much more than to send them, and
all jobs of the worker wait for it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from httpcore2 import AsyncNetworkStream, ReadError

__all__ = ["MAX_ANSWER_BYTES", "Rationed"]

MAX_ANSWER_BYTES: Final = 192 * 1024
"""For a body of 64 KiB and the 100 KiB of headers that the engine takes at most. Less than a second
of work, measured with the smallest chunks.
"""

PIECE_BYTES: Final = 4 * 1024
"""What is read before others have their turn: some 30 ms of work, measured with the smallest
chunks.
"""


class Rationed(AsyncNetworkStream):
    """A connection. What is sent begins a request, and its answer has the whole ration.

    Args:
        stream: What it reads and writes.
    """

    def __init__(self, stream: AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read a piece.

        Raises:
            ReadError: The answer has used its ration up.
        """
        if self._left <= 0:
            raise ReadError(f"the answer has more than {MAX_ANSWER_BYTES // 1024} KiB")
        await asyncio.sleep(0)  # what has come already, TLS gives without a pause
        data = await self._stream.read(min(max_bytes, PIECE_BYTES, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send a part of a request."""
        self._left = MAX_ANSWER_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> AsyncNetworkStream:
        """Go on behind TLS: what counts is what comes out of it."""
        return Rationed(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What the connection knows of itself."""
        return self._stream.get_extra_info(info)

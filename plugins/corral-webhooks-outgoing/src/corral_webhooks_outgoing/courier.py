"""The courier: one POST, bounded in time, in what is read, and in where it may go.

It knows no jobs and no database.

It is made of httpx2's URL and of httpcore2, the engine below httpx2's client, because the engine
takes a network backend and the client does not. What else the client would add is what a webhook
must not have: redirects, cookies, proxies from the environment, decompression, and a log line with
the URL.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AbstractAsyncContextManager, aclosing
from importlib.metadata import version
from typing import Final

import httpcore2
import httpx2

from corral_webhooks_outgoing.answer import Answer
from corral_webhooks_outgoing.guard import Guard
from corral_webhooks_outgoing.message import Message
from corral_webhooks_outgoing.settings import WebhookSettings

__all__ = ["Courier", "Unanswered"]

MAX_BODY_BYTES: Final = 64 * 1024
"""Of an answer. What comes after it is not read."""

IDLE_CONNECTIONS: Final = 20
IDLE_SECONDS: Final = 2.0
"""A connection is kept for the next event of a burst.

Receivers on Node and uvicorn close theirs after 5 s.
"""

_OURS: Final = {
    "accept": "*/*",
    # nothing is decoded: a compressed bomb stays as small as it is sent
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": f"corral-webhooks-outgoing/{version('corral-webhooks-outgoing')}",
}

LONGEST_FAILURE: Final = 300
"""Characters of the text that says what is wrong with an answer, and may repeat some of it."""

_FAILURES: Final = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    OSError,  # what TLS says, and TimeoutError
)


class Unanswered(Exception):
    """The receiver could not be reached, or said nothing that is an answer, or not in time."""


class Courier:
    """Makes requests.

    Args:
        settings: Where they may go, and how long they may take.
        guard: Makes the connections.
    """

    def __init__(self, settings: WebhookSettings, guard: Guard) -> None:
        self._settings = settings
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=None,  # as many as the worker has jobs
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=guard,
        )

    async def post(self, url: httpx2.URL, message: Message) -> Answer:
        """Send one message.

        Returns:
            What was answered. The status is the answer: where it has come, the body is as much as
            could be read.

        Raises:
            NotPublic: The URL's name stands for an address that is not public. Nothing was
            connected to.
            Unanswered: There is no answer.
        """
        head: tuple[int, str | None] | None = None
        failure: Exception | None = None
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                self._stream_request(url, message) as response,
            ):
                head = response.status, _retry_after(response)
                async with aclosing(response.aiter_stream()) as chunks:
                    async for chunk in chunks:
                        body += chunk[: MAX_BODY_BYTES - len(body)]
                        if len(body) == MAX_BODY_BYTES:
                            break
        except _FAILURES as error:
            failure = error
        if head is None:
            raise Unanswered(self._describe_failure(failure)) from failure
        return Answer(*head, bytes(body))

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    def _stream_request(
        self, url: httpx2.URL, message: Message
    ) -> AbstractAsyncContextManager[httpcore2.Response]:
        headers = {"host": url.netloc.decode("ascii"), **_OURS, **message.headers}
        return self._pool.stream(
            "POST",
            httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=[
                (name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()
            ],
            content=message.body,
            extensions={"timeout": {"connect": self._settings.connect_timeout_seconds}},
        )

    def _describe_failure(self, failure: Exception | None) -> str:
        if isinstance(failure, httpcore2.ConnectTimeout):
            return f"no connection within {self._settings.connect_timeout_seconds:g} s"
        if isinstance(failure, TimeoutError):
            return f"no answer within {self._settings.timeout_seconds:g} s"
        return f"{type(failure).__name__}: {failure}"[:LONGEST_FAILURE]


def _retry_after(response: httpcore2.Response) -> str | None:
    found = (value for name, value in response.headers if name.lower() == b"retry-after")
    return next((value.decode("latin-1") for value in found), None)

"""Where every connection to the store is made, and how its failures are told apart.

The client library's defaults break a job queue: its read timeout turns an idle wait into a minute of silent retries,
and its retries run a script again whose reply was lost. So a `Link` is one connection that retries nothing; a command
that was interrupted closes it, and the next command starts on a new one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError, ResponseError

from corral.errors import ConfigurationError
from corral.store.replies import refusal, unavailable
from corral.veil import masked

__all__ = ["BLOCK_SECONDS", "Link", "blocking_link", "thread_client"]

CONNECT_SECONDS = 2.0
"""How long a connection may take to open: a store that is further away is not usable."""
GREETING_SECONDS = 1.0
"""How long a reply may take while a connection is being made: what is swallowed at once is tried again soon, so that a
worker works within 2 s of the end of an outage."""
COMMAND_SECONDS = 3.0
"""How long a reply may take. With BLOCK_SECONDS it bounds how long swallowed bytes stop a worker (under 8 s)."""
BLOCK_SECONDS = 4.0
"""How long a worker waits for a marker in one command: BullMQ's own wait is 5 s (wire § 7.2)."""
READ_MARGIN_SECONDS = 2.0
"""How much longer than its block a blocking read may take before its connection counts as dead."""


class Link:
    """One connection to the store, made when it is first needed and again after each failure.

    Concurrent calls take turns. No command is ever sent twice.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        name: What `CLIENT LIST` shows, or None.
        read_seconds: How long a reply may take.
    """

    def __init__(self, url: str, *, name: str | None = None, read_seconds: float = COMMAND_SECONDS) -> None:
        self.url = url
        self._name = name
        self._read_seconds = read_seconds
        self._client: redis.asyncio.Redis | None = None
        self._turn = asyncio.Lock()

    async def call(self, *command: Any) -> Any:
        """Send one command and read its reply.

        Returns:
            The reply as RESP2 gives it, texts as bytes.

        Raises:
            StoreUnavailable: `outcome` is `"refused"` where the command certainly had no effect, else `"unknown"`.
            redis.exceptions.ResponseError: The server understood the command and answered with an error.
        """
        async with self._turn:
            client = self._client or await self._open()
            try:
                return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own
            except ResponseError as error:
                if refused := refusal(error, self.url):
                    await self._drop()
                    raise refused from error
                raise
            except (RedisError, OSError) as error:
                await self._drop()
                raise unavailable(error, self.url, refused=False) from error
            except asyncio.CancelledError as error:
                await self._drop()
                if _is_asked_to_end():
                    raise
                raise unavailable(error, self.url, refused=False) from error
            except BaseException:
                # Interrupted between request and reply: whoever used this connection next would read our reply.
                await self._drop()
                raise

    async def close(self) -> None:
        """Close the connection; a later call opens another."""
        async with self._turn:
            await self._drop()

    async def _open(self) -> redis.asyncio.Redis:
        wanted: dict[str, Any] = {**parse_url(_checked(self.url)), **_settings(self._read_seconds)}
        wanted["socket_timeout"] = min(GREETING_SECONDS, self._read_seconds)
        wanted["connection_class"] = _packing(wanted.get("connection_class", redis.asyncio.Connection))
        pool = redis.asyncio.ConnectionPool(client_name=self._name, **wanted)
        client = redis.asyncio.Redis(connection_pool=pool, single_connection_client=True)
        try:
            await client.initialize()
            client.connection.socket_timeout = self._read_seconds  # type: ignore[union-attr]  # it has just been made
        except (RedisError, OSError) as error:
            await client.aclose(close_connection_pool=True)
            raise unavailable(error, self.url, refused=True) from error
        except asyncio.CancelledError as error:
            await client.aclose(close_connection_pool=True)
            if _is_asked_to_end():
                raise
            raise unavailable(error, self.url, refused=True) from error
        except BaseException:
            await client.aclose(close_connection_pool=True)
            raise
        self._client = client
        return client

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(RedisError, OSError):
                await client.aclose(close_connection_pool=True)


def _is_asked_to_end() -> bool:
    """Whether the current task was cancelled; if not, only a task was that the client library had made for it.

    A processor that cancels all tasks of the loop reaches those, too (redis-py's reads and writes, up to Python 3.11).
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


@cache
def _packing(kind: Any) -> Any:
    """A connection class that packs commands in C: in Python it takes half the time of a batch of a hundred jobs."""
    return type(kind.__name__, (kind,), {"pack_command": lambda _self, *command: [hiredis.pack_command(command)]})


def blocking_link(url: str, name: str) -> Link:
    """A connection for commands that block up to `BLOCK_SECONDS`.

    Args:
        url: As for `Link`.
        name: `<prefix>:<base64(queue)>:w:<worker>`: how Bull Board and Node's `getWorkers` recognise a worker.
    """
    return Link(url, name=name, read_seconds=BLOCK_SECONDS + READ_MARGIN_SECONDS)


def thread_client(url: str, read_seconds: float) -> redis.Redis:
    """A blocking client for a thread of its own: one connection, no retries.

    Args:
        url: As for `Link`.
        read_seconds: How long connecting and each reply may take.
    """
    return redis.Redis.from_url(_checked(url), single_connection_client=True, **_settings(read_seconds))


def _settings(read_seconds: float) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "protocol": 2,
        "retry": None,
        "socket_timeout": read_seconds,
        "socket_connect_timeout": min(CONNECT_SECONDS, read_seconds),
        "health_check_interval": 0,
    }


def _checked(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(
            f"REDIS_URL {masked(url)!r} is not a store's address",
            hint="write redis://host:6379/0, rediss://… or unix:///path/to.sock",
        )
    return url

"""Everything that needs redis-py: unusual URLs, TLS, and errors of redis-py that a plugin raises.

Loaded only where it is needed: redis-py takes 60 ms and 7 MiB to load, and our own connections work
without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis.asyncio
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ResponseError as RedisResponseError

from corral.errors import ConfigurationError
from corral.redactor import masked
from corral.store import replies
from corral.store.wire import Address

__all__ = ["as_ours", "read_url"]

_WORDS: Final[Mapping[type[RedisError], str]] = {
    NoPermissionError: "NOPERM",
    AuthenticationError: "WRONGPASS",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
    BusyLoadingError: "LOADING",
    ClusterDownError: "CLUSTERDOWN",
    MovedError: "MOVED",
    AskError: "ASK",
    TryAgainError: "TRYAGAIN",
    ClusterCrossSlotError: "CROSSSLOT",
}
"""redis-py removes the first word of these replies, and raises a class in its place."""


def read_url(url: str) -> Address:
    """Read a URL as redis-py does, with its options behind a question mark.

    Raises:
        ConfigurationError: redis-py refuses the URL, or would misread a part of it.
    """
    try:
        _check_parts(urlsplit(url))
        pool: Any = redis.asyncio.ConnectionPool.from_url(url)
        made = pool.make_connection()
        tls = made.ssl_context.get() if isinstance(made, redis.asyncio.SSLConnection) else None
    except (ValueError, TypeError, RedisError, OSError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        reason = f"redis-py has no option {unknown[1]!r}" if unknown else str(error)
        raise ConfigurationError(
            f"REDIS_URL {masked(url)!r} is not a store's address: {reason}",
            hint="write redis://host:6379/0, rediss://… or unix:///path/to.sock",
        ) from error
    login = (
        ()
        if made.password is None
        else (made.username, made.password)
        if made.username
        else (made.password,)
    )
    host, port, path = (
        getattr(made, "host", ""),
        getattr(made, "port", 0),
        getattr(made, "path", ""),
    )
    return Address(host, port, path, tls, login, made.client_name or "", int(made.db or 0))


def _check_parts(parts: SplitResult) -> None:
    """Refuse what redis-py would silently misread.

    It reads a database that is not a number as 0 and `/1/2` as 12, and ignores an option without a
    value and everything after a `#`.

    Raises:
        ValueError: One of these; its text names the part.
    """
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,9}", unquote(parts.path)):
        raise ValueError("what follows the host is no number of a database")
    if "#" in parts.geturl():
        raise ValueError("it has a '#', which ends a URL: in a password, write it as %23")
    options = parse_qsl(parts.query, keep_blank_values=True)
    for place, (name, value) in enumerate(options):
        if not value:
            raise ValueError(f"its option {name!r} has no value")
        if name in dict(options[:place]):
            raise ValueError(f"its option {name!r} is there twice")


def as_ours(error: Exception) -> replies.ResponseError | OSError | None:
    """The error that our own connection raises in place of one of redis-py's.

    Returns:
        None where the error is not redis-py's.
    """
    if not isinstance(error, RedisError):
        return None
    if isinstance(error.__cause__, RedisError):
        error = error.__cause__  # while it makes a connection, redis-py wraps a reply once more
    text = str(error) or type(error).__name__
    if isinstance(error, NoScriptError):
        return replies.NoScriptError(text)
    if text.startswith("Authentication required"):  # in the same class as a wrong password
        return replies.ResponseError(f"NOAUTH {text}")
    for made, word in _WORDS.items():
        if isinstance(error, made):
            return replies.ResponseError(f"{word} {text}")
    if isinstance(error, RedisResponseError):
        return replies.ResponseError(text)
    return ConnectionError(text)

"""What stands between a request and a handler: whose request it is, where it comes from, and what an answer may do."""

from __future__ import annotations

import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from starlette.requests import Request

from corral.board.identity import Identity

__all__ = ["HEADERS", "Authenticator", "Authorize", "HostSession", "comes_from_here", "csrf_token", "is_token"]

Authorize = Callable[[Request], "Identity | None | Awaitable[Identity | None]"]
"""What a host application says of a request: who it is, with a role or without one; None for nobody."""

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer, errors and redirects included."""


class Authenticator(Protocol):
    """Knows who makes a request.

    Attributes:
        login_url: Where somebody who is nobody yet is sent, or None where there is no such place.
    """

    login_url: str | None

    async def identify(self, request: Request) -> Identity | None:
        """Who it is, asked anew for every request, so that a grant that is taken back is gone at once."""
        ...


class HostSession:
    """The host application's own session decides.

    Args:
        authorize: Asked for every request, and while a page is open again and again; may be a coroutine function.
        login_url: Where people log in to the host application, or None.
    """

    def __init__(self, authorize: Authorize, login_url: str | None = None) -> None:
        self._authorize = authorize
        self.login_url = login_url

    async def identify(self, request: Request) -> Identity | None:
        """Ask the host application."""
        found = self._authorize(request)
        return await found if inspect.isawaitable(found) else found


def comes_from_here(request: Request) -> bool:
    """Whether a browser says that one of our own pages sent this; a request that says nothing does not.

    `Sec-Fetch-Site` cannot be set by a page, and says `same-origin`; browsers that do not know it send `Origin`.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is not None:
        return _is_same(origin, request)
    return site is not None


def _is_same(origin: str, request: Request) -> bool:
    """Whether an origin is this host's. The scheme is not compared: a proxy may have taken the TLS off."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc == request.headers.get("host", "")


def csrf_token(secret: str, identity: Identity) -> str:
    """What a form must bring back: it proves that whoever made the form knows the cookie's secret.

    Args:
        secret: The value of a cookie that no script and no other site can read.
        identity: Who is logged in: a form that somebody else was shown is worth nothing.
    """
    return hmac.digest(secret.encode(), f"corral-board {identity.name}".encode(), hashlib.sha256).hex()


def is_token(given: str, secret: str, identity: Identity) -> bool:
    """Whether a form brought back what it was given; takes the same time for every wrong answer."""
    return hmac.compare_digest(given.encode(), csrf_token(secret, identity).encode())

"""What stands between a request and a handler: whose request it is, where it comes from, and what
an answer may do.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from corral.board.identity import Identity

__all__ = [
    "HEADERS",
    "READS",
    "Authenticator",
    "Authorize",
    "HostSession",
    "comes_from_here",
    "cookie_name",
    "csrf_token",
    "is_token",
    "set_cookie",
    "wants_json",
]

READS: Final = frozenset({"GET", "HEAD"})
"""The methods that change nothing."""

Authorize = Callable[[Request], "Identity | Awaitable[Identity | None] | None"]
"""What a host application says of a request: who it is, with a role or without one; None for
nobody.
"""

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
        """Who it is, asked anew for every request, so that a grant that is taken back is gone at
        once.
        """
        ...


class HostSession:
    """The host application's own session decides.

    Args:
        authorize: Asked for every request, and while a page is open again and again; may be a
        coroutine function.
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
    """Whether a browser says that one of our own pages sent this; a request that says nothing does
    not.

    `Sec-Fetch-Site` cannot be set by a page (Fetch Metadata), and says `same-origin`. A form then
    says `Origin: null`, because our pages send no referrer (Fetch, "append a request `Origin`
    header"); a script says the origin. Browsers leave `Sec-Fetch-Site` out over plain http to other
    machines: there a script is believed for its `Origin`, and a form, whose `null` anybody's
    sandboxed frame sends too, is not.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is None:
        return origin is not None and _is_same(origin, request)
    return site == "same-origin" and (origin in {None, "null"} or _is_same(origin or "", request))


def _is_same(origin: str, request: Request) -> bool:
    """Whether an origin is this host's.

    The scheme is not compared: a proxy may have taken the TLS off.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc == request.headers.get("host", "")


def wants_json(request: Request) -> bool:
    """Whether whoever asks is a program: a browser says that it takes HTML."""
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted or "text/html" not in accepted


def csrf_token(secret: str, identity: Identity) -> str:
    """What a form must bring back: it proves that whoever made the form knows the cookie's secret.

    Args:
        secret: The value of a cookie that no script and no other site can read.
        identity: Who is logged in: a form that somebody else was shown is worth nothing.
    """
    return hmac.digest(
        secret.encode(), f"corral-board {identity.name}".encode(), hashlib.sha256
    ).hex()


def is_token(given: str, secret: str, identity: Identity) -> bool:
    """Whether a form brought back what it was given; takes the same time for every wrong answer."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), csrf_token(secret, identity).encode()
    )


def cookie_name(request: Request, name: str) -> str:
    """What a cookie of ours is called.

    Browsers take one that begins with `__Host-` over https alone, from this very host and for all
    of its paths (RFC 6265bis, section 4.1.3): no neighbouring host can plant it. Over plain http
    they would not take it at all.
    """
    return f"__Host-{name}" if request.url.scheme == "https" else name


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie of ours, which no script and no other site gets; an empty value takes it away."""
    response.set_cookie(
        cookie_name(request, name),
        value,
        max_age=None if value else 0,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )

"""What is checked of every request: who sends it, which site it comes from; and what answers allow.

The functions here decide and change nothing. `corral.board.admission` says in which order they are
asked, and what a refusal looks like.
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
    "SAFE_METHODS",
    "Authenticator",
    "Authorize",
    "HostSession",
    "cookie_name",
    "csrf_token",
    "host_name",
    "is_csrf_token",
    "is_same_origin",
    "set_cookie",
    "wants_json",
]

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
"""The methods that change nothing."""

Authorize = Callable[[Request], "Identity | Awaitable[Identity | None] | None"]
"""A host application's function: who sends this request, or None where nobody is logged in."""

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Sent with every answer, errors and redirects included."""


class Authenticator(Protocol):
    """Finds out who sends a request.

    Attributes:
        login_url: The page to which a browser without a session is sent, or None.
    """

    login_url: str | None

    async def identify(self, request: Request) -> Identity | None:
        """Who sends the request, or None.

        Asked for every request, so that a grant that was taken back ends with the next one.
        """
        ...


class HostSession:
    """Asks the host application, whose own session decides.

    Args:
        authorize: Called for every request, and for every event of an open page; may be a
            coroutine function.
        login_url: The host application's login page, or None.
    """

    def __init__(self, authorize: Authorize, login_url: str | None = None) -> None:
        self._authorize = authorize
        self.login_url = login_url

    async def identify(self, request: Request) -> Identity | None:
        """Who the host application says it is, or None."""
        identity = self._authorize(request)
        return await identity if inspect.isawaitable(identity) else identity


def host_name(request: Request) -> str | None:
    """The name in the `Host` header, in lower case and without a port; None without that header."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None


def is_same_origin(request: Request) -> bool:
    """Whether the browser says that one of the board's own pages sent this request.

    A request without these headers does not count as one of ours.

    No page can set `Sec-Fetch-Site` (Fetch Metadata): it must be `same-origin`. A form of ours then
    has `Origin: null`, because our pages send no referrer (Fetch, "append a request `Origin`
    header"), and a script has the real origin. Over plain http, and to other machines, browsers
    leave `Sec-Fetch-Site` out. There a script's `Origin` is accepted; the `null` of a form is not,
    because a sandboxed frame on any site sends it too.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is None:
        return origin is not None and _is_own_host(origin, request)
    return site == "same-origin" and (
        origin in {None, "null"} or _is_own_host(origin or "", request)
    )


def _is_own_host(origin: str, request: Request) -> bool:
    """Whether an origin names the host that this request was sent to.

    The scheme is not compared: a proxy may have terminated TLS.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc == request.headers.get("host", "")


def wants_json(request: Request) -> bool:
    """Whether the client wants JSON; a browser's `Accept` header asks for HTML."""
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted or "text/html" not in accepted


def csrf_token(secret: str, identity: Identity) -> str:
    """The token that a form must send back; only a page of this browser's session can know it.

    Args:
        secret: The value of a cookie that no script and no other site can read.
        identity: Who is logged in; a form that was shown to another person is refused.
    """
    return hmac.digest(
        secret.encode(), f"corral-board {identity.name}".encode(), hashlib.sha256
    ).hex()


def is_csrf_token(given: str, secret: str, identity: Identity) -> bool:
    """Whether a form sent the right token back; takes the same time for every wrong one."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), csrf_token(secret, identity).encode()
    )


def cookie_name(request: Request, name: str) -> str:
    """The name of one of the board's cookies, as this request's scheme requires.

    Over https it begins with `__Host-`: browsers accept such a cookie only over https, from this
    very host and for all of its paths (RFC 6265bis, section 4.1.3), so that no neighbouring host
    can plant one. Over plain http browsers would refuse it.
    """
    return f"__Host-{name}" if request.url.scheme == "https" else name


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie that no script and no other site can read; an empty value deletes it."""
    response.set_cookie(
        cookie_name(request, name),
        value,
        max_age=None if value else 0,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )

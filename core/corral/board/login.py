"""`Login`: logs the administrator in where the board runs alone, by password or by login link."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from corral.board.identity import Identity, Role
from corral.board.messages import RequestRefused, first_value
from corral.board.page_renderer import PageRenderer
from corral.board.passwords import PasswordDigest, PasswordVerifier, VerifierBusy
from corral.board.request_body import FORM, media_type, read_form
from corral.board.request_guard import (
    SAFE_METHODS,
    cookie_name,
    is_csrf_token,
    is_same_origin,
    set_cookie,
    wants_json,
)
from corral.board.sessions import (
    MAX_WAIT_SECONDS,
    LoginLimiter,
    LoginLinks,
    LoginPacer,
    Session,
    Sessions,
)

__all__ = ["AuditWriter", "Login", "login_query"]

AuditWriter = Callable[[str, str, Mapping[str, str]], Awaitable[None]]
"""Writes an entry to the audit log: who, what (`login`, `login-refused`, `logout`), details."""

ADMINISTRATOR: Final = Identity("admin", Role.ADMIN)
COOKIE: Final = "corral_board"
MAX_LOGIN_BYTES: Final = 16 * 1024
BUSY_SECONDS: Final = 5
TOO_MANY: Final = "too many login attempts: wait a moment"
_LOCAL_PATH: Final = re.compile(r"/(?!/)[!-\[\]-~]{0,1000}")
"""A path on this very host.

Two slashes would name another host; browsers remove tabs and read a backslash as a slash, so both
are excluded.
"""


def login_query(wanted: str) -> str:
    """The query of the login page's address, so that a login leads on to the page that was wanted.

    Args:
        wanted: That page: the path below the mount, with its query.

    Returns:
        `?next=…`, or nothing where the login leads to the overview anyway.
    """
    if wanted != "/" and _LOCAL_PATH.fullmatch(wanted):
        return f"?{urlencode({'next': wanted})}"
    return ""


def _next_page(request: Request) -> str:
    """Where a login leads: `next` of the query if it is a path below the mount, else `/`."""
    wanted = request.query_params.get("next", "")
    return wanted if _LOCAL_PATH.fullmatch(wanted) else "/"


@dataclass(frozen=True, slots=True)
class _LoginReply:
    """What the login page answers to a request that neither logs in nor logs out.

    Attributes:
        status: The HTTP status.
        message: One sentence; empty for the plain page.
        retry_after: After how many seconds another attempt is allowed, or 0.
    """

    status: int
    message: str
    retry_after: int = 0


class Login:
    """Logs in with the administrator's password, or with a login link that works once.

    Sessions are kept in this process's memory. Every login begins a session under a new random key,
    so that a key that was planted in a browser before never becomes valid.

    Args:
        password: The digest of the administrator's password; without it only links log in.
        clock: A clock in seconds that never goes back; tests move it.
    """

    login_url: str | None = "/login"

    def __init__(
        self, password: PasswordDigest | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._password = None if password is None else PasswordVerifier(password)
        self._sessions = Sessions(clock)
        self._links = LoginLinks(clock)
        self._limiter = LoginLimiter(clock)
        self._pacer = LoginPacer(clock)
        self._audit_limiter = LoginLimiter(clock)

    def new_link(self) -> str:
        """Create a link that logs in once, within 15 minutes; returns its path below the mount.

        Opening it only shows a page with one button. Browsers, chats and mail scanners open links
        before a person does, and would otherwise use it up.
        """
        return f"/login?link={self._links.create()}"

    async def identify(self, request: Request) -> Identity | None:
        """Who the request's session belongs to, or None."""
        session = self._find_session(request)
        return session.identity if session else None

    def secret_of(self, request: Request) -> str | None:
        """What the tokens of this session's forms are made from; None without a session."""
        session = self._find_session(request)
        return session.secret if session else None

    async def answer(
        self, request: Request, path: str, mount: str, renderer: PageRenderer, audit: AuditWriter
    ) -> Response | None:
        """Answer `/login` and `/logout`.

        Args:
            request: The request.
            path: Its path below the mount.
            mount: The path at which the board is mounted.
            renderer: Renders the login page.
            audit: Writes logins, refused logins and logouts to the audit log.

        Returns:
            The response, or None for any other path.
        """
        if path not in {"/login", "/logout"}:
            return None
        if path == "/login" and request.method in SAFE_METHODS:
            if self._find_session(request) is not None and "link" not in request.query_params:
                return RedirectResponse(f"{mount}{_next_page(request)}", 303)
            return self._render_page(request, mount, renderer, _LoginReply(200, ""))
        if request.method != "POST":
            return Response(
                "Method Not Allowed",
                405,
                {"allow": "POST" if path == "/logout" else "GET, HEAD, POST"},
            )
        if not is_same_origin(request):
            refusal = _LoginReply(403, "this was not sent by a page of the board")
            return self._render_page(request, mount, renderer, refusal)
        try:
            if path == "/logout":
                return await self._log_out(request, mount, audit)
            reply = await self._log_in(request, audit)
        except RequestRefused as refused:
            reply = _LoginReply(refused.status, refused.message)
        if isinstance(reply, _LoginReply):
            return self._render_page(request, mount, renderer, reply)
        response = _success(request, f"{mount}{_next_page(request)}", "logged in")
        set_cookie(request, response, COOKIE, reply)
        return response

    async def _log_in(self, request: Request, audit: AuditWriter) -> str | _LoginReply:
        """Check a password or a link; begin a session in place of the old one.

        Returns:
            The new session's key, or the refusal.
        """
        address = request.client.host if request.client else ""
        seconds = self._limiter.count_attempt(address)
        if seconds:
            return _LoginReply(429, "too many login attempts: wait a minute", seconds)
        form = await read_form(request, MAX_LOGIN_BYTES)
        link = first_value(form, "link")
        details = {"by": "link" if link else "password", "address": address}
        if link:
            if not self._links.redeem(link):
                return await self._refuse("this link was used before or is too old", audit, details)
        elif self._password is None:
            return _LoginReply(401, "only a login link logs in here")
        else:
            wait = 0.0 if self._find_session(request) else self._pacer.reserve_turn(address)
            if wait is None:
                return _LoginReply(429, TOO_MANY, round(MAX_WAIT_SECONDS))
            await asyncio.sleep(wait)
            try:
                is_right = await self._password.verify(first_value(form, "password"))
            except VerifierBusy:
                return _LoginReply(429, TOO_MANY, BUSY_SECONDS)
            if not is_right:
                return await self._refuse("this is not the password", audit, details)
        self._sessions.end(self._session_key(request))
        self._pacer.remember(address)
        key = self._sessions.begin(ADMINISTRATOR)
        await audit(ADMINISTRATOR.name, "login", details)
        return key

    async def _refuse(
        self, message: str, audit: AuditWriter, details: Mapping[str, str]
    ) -> _LoginReply:
        # ten entries a minute for all addresses together: a flood of attempts would push what
        # operators did out of the audit log
        if self._audit_limiter.count_attempt("") == 0:
            await audit("nobody", "login-refused", details)
        return _LoginReply(401, message)

    async def _log_out(self, request: Request, mount: str, audit: AuditWriter) -> Response:
        session = self._find_session(request)
        if session is not None:
            form = await read_form(request, MAX_LOGIN_BYTES)
            token = first_value(form, "csrf")
            if media_type(request) == FORM and not is_csrf_token(
                token, session.secret, session.identity
            ):
                raise RequestRefused(403, "this form belongs to another session")
            self._sessions.end(self._session_key(request))
            await audit(session.identity.name, "logout", {})
        response = _success(request, f"{mount}/login", "logged out")
        set_cookie(request, response, COOKIE, "")
        return response

    def _render_page(
        self, request: Request, mount: str, renderer: PageRenderer, reply: _LoginReply
    ) -> Response:
        headers = {"retry-after": str(reply.retry_after)} if reply.retry_after else {}
        if wants_json(request) and reply.status != 200:
            return Response(
                to_json({"message": reply.message}), reply.status, headers, "application/json"
            )
        values = {
            "message": reply.message,
            "action": f"{mount}/login{login_query(_next_page(request))}",
            "link": request.query_params.get("link", "") if reply.status == 200 else "",
            "has_password": self._password is not None,
        }
        page = renderer.render_login("login", mount, values)
        return HTMLResponse(page, reply.status, headers)

    def _find_session(self, request: Request) -> Session | None:
        """The request's session, or None.

        What an open page requests by itself does not count as use, or the session would never end.
        """
        by_script = request.scope["path"].endswith("/live") or "hx-request" in request.headers
        return self._sessions.find(self._session_key(request), used=not by_script)

    @staticmethod
    def _session_key(request: Request) -> str:
        return request.cookies.get(cookie_name(request, COOKIE), "")


def _success(request: Request, path: str, done: str) -> Response:
    if wants_json(request):
        return Response(to_json({"done": done}), 200, media_type="application/json")
    return RedirectResponse(path, 303)

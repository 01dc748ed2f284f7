"""`Login`: who is who where the board runs alone: one administrator's password, one-time links,
sessions.
"""

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

from corral.board.body import FORM, media_type, read_form
from corral.board.guard import READS, comes_from_here, cookie_name, is_token, set_cookie, wants_json
from corral.board.identity import Identity, Role
from corral.board.messages import Refused, first
from corral.board.passwords import Busy, Digest, Verifier
from corral.board.rendering import Renderer
from corral.board.sessions import LONGEST_TURN_SECONDS, Links, Ration, Session, Sessions, Tries

__all__ = ["Login", "Told", "way_back"]

Told = Callable[[str, str, Mapping[str, str]], Awaitable[None]]
"""Writes to the audit log who did what, and how: `login`, `login-refused`, `logout`."""

ADMINISTRATOR: Final = Identity("admin", Role.ADMIN)
COOKIE: Final = "corral_board"
MAX_BODY_BYTES: Final = 16 * 1024
BUSY_SECONDS: Final = 5
_BELOW: Final = re.compile(r"/(?!/)[!-\[\]-~]{0,1000}")
"""A path of this very host, as it stands in an address: browsers drop tabs, and take a backslash
for a slash.
"""


def way_back(wanted: str) -> str:
    """The query of the login's page that leads on to where somebody wanted to go.

    Args:
        wanted: The path below where the board is mounted, with its query.

    Returns:
        `?next=…`, or nothing where it leads to the overview in any case.
    """
    return f"?{urlencode({'next': wanted})}" if wanted != "/" and _BELOW.fullmatch(wanted) else ""


def _wanted(request: Request) -> str:
    """Where somebody who logs in wanted to go: a path below where the board is mounted."""
    wanted = request.query_params.get("next", "")
    return wanted if _BELOW.fullmatch(wanted) else "/"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is said to somebody who logs in or out.

    Attributes:
        status: The HTTP status.
        told: One sentence.
        retry_after: After how many seconds it may be tried again, or 0.
    """

    status: int
    told: str
    retry_after: int = 0


class Login:
    """Logs people in, with the administrator's password or with a link that is good once.

    Sessions are in this process's memory. Every login begins a new one under a key that nobody has
    known before, so that no key that was planted in a browser is ever anybody's.

    Args:
        password: The digest of the administrator's password; without one only links let anybody in.
        clock: Seconds that never go back; tests move it.
    """

    login_url: str | None = "/login"

    def __init__(
        self, password: Digest | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._password = None if password is None else Verifier(password)
        self._sessions = Sessions(clock)
        self._links = Links(clock)
        self._tries = Tries(clock)
        self._ration = Ration(clock)
        self._refused = Tries(clock)

    def new_link(self) -> str:
        """Make a link that logs in once, within a quarter of an hour: a path below where the board
        is mounted.

        To open it shows a page with one button, and uses nothing up: a browser, a chat or a scanner
        that looks at links before people do, would otherwise be who is logged in.
        """
        return f"/login?link={self._links.make()}"

    async def identify(self, request: Request) -> Identity | None:
        """Whose session it is."""
        session = self._session(request)
        return session.identity if session else None

    def secret_of(self, request: Request) -> str | None:
        """What the tokens of this session's forms are made of."""
        session = self._session(request)
        return session.secret if session else None

    async def answered(
        self, request: Request, path: str, mount: str, renderer: Renderer, told: Told
    ) -> Response | None:
        """The answer to `/login` and `/logout`; None for any other path.

        Args:
            request: Of anybody.
            path: Below where the board is mounted.
            mount: Where that is.
            renderer: Renders the login's page.
            told: Writes logins, refused ones and logouts to the audit log.
        """
        if path not in {"/login", "/logout"}:
            return None
        if path == "/login" and request.method in READS:
            if self._session(request) is not None and "link" not in request.query_params:
                return RedirectResponse(f"{mount}{_wanted(request)}", 303)
            return self._page(request, mount, renderer, _Answer(200, ""))
        if request.method != "POST":
            return Response(
                "Method Not Allowed",
                405,
                {"allow": "POST" if path == "/logout" else "GET, HEAD, POST"},
            )
        if not comes_from_here(request):
            return self._page(
                request, mount, renderer, _Answer(403, "this was not sent by a page of the board")
            )
        try:
            if path == "/logout":
                return await self._log_out(request, mount, told)
            answer = await self._log_in(request, told)
        except Refused as refused:
            answer = _Answer(refused.status, refused.told)
        if isinstance(answer, _Answer):
            return self._page(request, mount, renderer, answer)
        response = _done(request, f"{mount}{_wanted(request)}", "logged in")
        set_cookie(request, response, COOKIE, answer)
        return response

    async def _log_in(self, request: Request, told: Told) -> str | _Answer:
        """Begin a session, and end the one that was; returns the new one's key."""
        address = request.client.host if request.client else ""
        seconds = self._tries.count(address)
        if seconds:
            return _Answer(429, "too many tries: wait a minute", seconds)
        form = await read_form(request, MAX_BODY_BYTES)
        link = first(form, "link")
        if link:
            if not self._links.use(link):
                return await self._refuse(
                    "this link has been used, or is too old",
                    told,
                    {"by": "link", "address": address},
                )
        elif self._password is None:
            return _Answer(401, "only a link logs in here")
        else:
            wait = 0.0 if self._session(request) else self._ration.take(address)
            if wait is None:
                return _Answer(429, "too many tries: wait a moment", round(LONGEST_TURN_SECONDS))
            await asyncio.sleep(wait)
            try:
                right = await self._password.is_right(first(form, "password"))
            except Busy:
                return _Answer(429, "too many tries: wait a moment", BUSY_SECONDS)
            if not right:
                return await self._refuse(
                    "this is not the password", told, {"by": "password", "address": address}
                )
        self._sessions.end(self._key(request))
        self._ration.remember(address)
        key = self._sessions.begin(ADMINISTRATOR)
        await told(
            ADMINISTRATOR.name, "login", {"by": "link" if link else "password", "address": address}
        )
        return key

    async def _refuse(self, why: str, told: Told, how: Mapping[str, str]) -> _Answer:
        if (
            self._refused.count("") == 0
        ):  # ten a minute, of everybody: a flood would push out what operators did
            await told("nobody", "login-refused", how)
        return _Answer(401, why)

    async def _log_out(self, request: Request, mount: str, told: Told) -> Response:
        session = self._session(request)
        if session is not None:
            form = await read_form(request, MAX_BODY_BYTES)
            token = first(form, "csrf")
            if media_type(request) == FORM and not is_token(
                token, session.secret, session.identity
            ):
                raise Refused(403, "this form is of another session")
            self._sessions.end(self._key(request))
            await told(session.identity.name, "logout", {})
        response = _done(request, f"{mount}/login", "logged out")
        set_cookie(request, response, COOKIE, "")
        return response

    def _page(self, request: Request, mount: str, renderer: Renderer, answer: _Answer) -> Response:
        headers = {"retry-after": str(answer.retry_after)} if answer.retry_after else {}
        if wants_json(request) and answer.status != 200:
            return Response(
                to_json({"told": answer.told}), answer.status, headers, "application/json"
            )
        values = {
            "told": answer.told,
            "action": f"{mount}/login{way_back(_wanted(request))}",
            "link": request.query_params.get("link", "") if answer.status == 200 else "",
            "has_password": self._password is not None,
        }
        return HTMLResponse(renderer.bare("login", mount, values), answer.status, headers)

    def _session(self, request: Request) -> Session | None:
        """The session; what an open page asks by itself is no use of it, or it would never end."""
        by_itself = request.scope["path"].endswith("/live") or "hx-request" in request.headers
        return self._sessions.find(self._key(request), used=not by_itself)

    @staticmethod
    def _key(request: Request) -> str:
        return request.cookies.get(cookie_name(request, COOKIE), "")


def _done(request: Request, path: str, told: str) -> Response:
    if wants_json(request):
        return Response(to_json({"done": told}), 200, media_type="application/json")
    return RedirectResponse(path, 303)

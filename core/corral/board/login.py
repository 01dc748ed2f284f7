"""`Login`: who is who where the board runs alone: one administrator's password, one-time links, sessions."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from corral.board.body import FORM, media_type, read_form
from corral.board.exchange import Refused
from corral.board.guard import comes_from_here, is_token, wants_json
from corral.board.identity import Identity, Role
from corral.board.passwords import Busy, Digest, Verifier
from corral.board.rendering import Renderer
from corral.board.sessions import Links, Session, Sessions, Tries

__all__ = ["Login", "Told"]

log = structlog.get_logger("corral.board")

Told = Callable[[str, str], Awaitable[None]]
"""Writes to the audit log who did what: `login`, `login-refused`, `logout`."""

ADMINISTRATOR: Final = Identity("admin", Role.ADMIN)
COOKIE: Final = "corral_board"
COOKIE_UNDER_TLS: Final = "__Host-corral_board"
"""Browsers take a cookie of this prefix only from this very host, over https, for all of its paths (RFC 6265bis)."""
MAX_BODY_BYTES: Final = 16 * 1024
READS: Final = frozenset({"GET", "HEAD"})


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

    Sessions are in this process's memory. Every login begins a new one under a key that nobody has known before, so
    that no key that was planted in a browser is ever anybody's.

    Args:
        password: The digest of the administrator's password; without one only links let anybody in.
        told: Writes logins, refused ones and logouts to the audit log.
        clock: Seconds that never go back; tests move it.
    """

    login_url: str | None = "/login"

    def __init__(
        self, password: Digest | None = None, *, told: Told | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._password = None if password is None else Verifier(password)
        self._told = told
        self._sessions = Sessions(clock)
        self._links = Links(clock)
        self._tries = Tries(clock)

    def new_link(self) -> str:
        """Make a link that logs in once, within a quarter of an hour: a path below where the board is mounted.

        To open it shows a page with one button, and uses nothing up: a browser, a chat or a scanner that looks at
        links before people do, would otherwise be who is logged in.
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

    async def answered(self, request: Request, path: str, mount: str, renderer: Renderer) -> Response | None:
        """The answer to `/login` and `/logout`; None for any other path."""
        if path not in {"/login", "/logout"}:
            return None
        if path == "/login" and request.method in READS:
            if self._session(request) is not None and "link" not in request.query_params:
                return RedirectResponse(f"{mount}/", 303)
            return self._page(request, mount, renderer, _Answer(200, ""))
        if request.method != "POST":
            return Response("Method Not Allowed", 405, {"allow": "POST" if path == "/logout" else "GET, HEAD, POST"})
        if not comes_from_here(request):
            return self._page(request, mount, renderer, _Answer(403, "this was not sent by a page of the board"))
        try:
            if path == "/logout":
                return await self._log_out(request, mount)
            answer = await self._log_in(request)
        except Refused as refused:
            answer = _Answer(refused.status, refused.told)
        if isinstance(answer, _Answer):
            return self._page(request, mount, renderer, answer)
        response = _done(request, f"{mount}/", "logged in")
        self._set_cookie(request, response, answer)
        return response

    async def _log_in(self, request: Request) -> str | _Answer:
        """Begin a session, and end the one that was; returns the new one's key."""
        address = request.client.host if request.client else ""
        seconds = self._tries.count(address)
        if seconds:
            return await self._refused(_Answer(429, "too many tries: wait a minute", seconds), address, "tries")
        form = await read_form(request, MAX_BODY_BYTES)
        link = next(iter(form.get("link", ())), "")
        if link:
            if not self._links.use(link):
                return await self._refused(_Answer(401, "this link has been used, or is too old"), address, "link")
        elif self._password is None:
            return await self._refused(_Answer(401, "only a link logs in here"), address, "password")
        else:
            try:
                right = await self._password.is_right(next(iter(form.get("password", ())), ""))
            except Busy:
                return await self._refused(_Answer(429, "too many tries: wait a moment", 5), address, "tries")
            if not right:
                return await self._refused(_Answer(401, "this is not the password"), address, "password")
        self._sessions.end(self._key(request))
        key = self._sessions.begin(ADMINISTRATOR)
        log.info("login", who=ADMINISTRATOR.name, by="link" if link else "password", address=address)
        await self._tell("login")
        return key

    async def _refused(self, answer: _Answer, address: str, by: str) -> _Answer:
        log.warning("login refused", by=by, address=address)
        await self._tell("login-refused")
        return answer

    async def _log_out(self, request: Request, mount: str) -> Response:
        session = self._session(request)
        if session is not None:
            form = await read_form(request, MAX_BODY_BYTES)
            token = next(iter(form.get("csrf", ())), "")
            if media_type(request) == FORM and not is_token(token, session.secret, session.identity):
                raise Refused(403, "this form is of another session")
            self._sessions.end(self._key(request))
            log.info("logout", who=session.identity.name)
            await self._tell("logout")
        response = _done(request, f"{mount}/login", "logged out")
        response.delete_cookie(_cookie(request), path="/", secure=_is_tls(request), httponly=True, samesite="strict")
        return response

    async def _tell(self, what: str) -> None:
        if self._told is not None:
            await self._told(ADMINISTRATOR.name, what)

    def _page(self, request: Request, mount: str, renderer: Renderer, answer: _Answer) -> Response:
        headers = {"retry-after": str(answer.retry_after)} if answer.retry_after else {}
        if wants_json(request) and answer.status != 200:
            return Response(to_json({"told": answer.told}), answer.status, headers, "application/json")
        values = {
            "told": answer.told,
            "link": request.query_params.get("link", "") if answer.status == 200 else "",
            "has_password": self._password is not None,
        }
        return HTMLResponse(renderer.bare("login", mount, values), answer.status, headers)

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(self._key(request), used=not request.scope["path"].endswith("/live"))

    @staticmethod
    def _key(request: Request) -> str:
        return request.cookies.get(_cookie(request), "")

    @staticmethod
    def _set_cookie(request: Request, response: Response, key: str) -> None:
        response.set_cookie(_cookie(request), key, path="/", secure=_is_tls(request), httponly=True, samesite="strict")


def _is_tls(request: Request) -> bool:
    return request.url.scheme == "https"


def _cookie(request: Request) -> str:
    return COOKIE_UNDER_TLS if _is_tls(request) else COOKIE


def _done(request: Request, path: str, told: str) -> Response:
    if wants_json(request):
        return Response(to_json({"done": told}), 200, media_type="application/json")
    return RedirectResponse(path, 303)

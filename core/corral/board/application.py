"""`Board`: the ASGI application.

It lets requests in, finds their handler, and turns what that says into an answer.
"""

from __future__ import annotations

import hmac
import secrets
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from corral.app import log_lock, read_settings
from corral.board import messages, routes, static_files
from corral.board.body import FORM, media_type, read_form
from corral.board.context import BoardContexts
from corral.board.guard import (
    HEADERS,
    READS,
    Authenticator,
    Authorize,
    HostSession,
    comes_from_here,
    cookie_name,
    csrf_token,
    is_token,
    set_cookie,
    wants_json,
)
from corral.board.identity import Action, Identity, Role
from corral.board.login import Login, way_back
from corral.board.messages import Answer, Page, Redirect, Refused, Stream
from corral.board.rendering import Renderer
from corral.board.settings import BoardSettings, environment_of, is_on
from corral.errors import CorralError, JobRefused, StoreUnavailable, UnknownQueue
from corral.inspector import CurrentIteration, DamagedKey, JobLocked, JobNotFound, WrongState
from corral.inspector.damage import naming_damage
from corral.loggers import Logger

__all__ = ["Board"]

log = Logger("corral.board")

FORM_COOKIE: Final = "corral_board_form"
"""Where the host's session decides: the secret that the tokens of forms are made of; under TLS with
`__Host-`.
"""
STREAM_SECONDS: Final = 300.0
"""A browser asks again for a stream that has ended, and the host application looks at its session
anew.
"""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
EVENTS: Final = "text/event-stream"

_STATUS: Final[Mapping[type[CorralError], int]] = {
    UnknownQueue: 404,
    JobNotFound: 404,
    WrongState: 409,
    JobLocked: 409,
    CurrentIteration: 409,
    JobRefused: 422,
    StoreUnavailable: 503,
    DamagedKey: 503,
}
"""What a refusal of the core is over HTTP; any other is 400."""


class Board:
    """The board, to be mounted in an ASGI application, or to be run alone by `corral board`.

    ```python
    app.mount("/admin/queues", Board(authorize=who_is_it))
    ```

    It reads the environment when it is made; the store is opened by the first request, and closed
    by `close` or, where the board runs alone, with the server.

    Args:
        authorize: The host application's session: takes the Starlette request, returns an
        `Identity` or None.
        login_url: Where the host application's people log in; without it they are answered 401.
        login: Logs people in where no host does; what `corral board` uses.
        url: The store, where the settings do not say it.
        development: Whether this is development where `CORRAL_ENV` does not say what it is.

    Raises:
        ConfigurationError: A setting cannot be used, or nobody would be asked who they are.
        CatalogError: The installed plugins do not make a catalog.
    """

    def __init__(
        self,
        *,
        authorize: Authorize | None = None,
        login_url: str | None = None,
        login: Login | None = None,
        url: str | None = None,
        development: bool = False,
    ) -> None:
        self._settings = BoardSettings.from_environment()
        self._drawer = BoardContexts(url)
        environment = environment_of(read_settings(), implied=development)
        self.is_on = is_on(
            environment,
            self._settings.enabled,
            has_authenticator=authorize is not None or login is not None,
        )
        self._is_development = environment == "development"
        if self.is_on and authorize is None and login is None:
            login = Login()
            log.warning(
                "the board asks nobody: this path, below where it is mounted, logs in once",
                path=login.new_link(),
            )
        self._login = login
        self._authenticator: Authenticator = login or HostSession(authorize or _nobody, login_url)
        self._renderer = Renderer()
        if self.is_on:
            # alone; a host application does not start on half a catalog
            installed = self._drawer.read(what_fits=authorize is None)
            if not self._is_development:
                log_lock(installed)

    async def open(self) -> None:
        """Open the store now, and not with the first request.

        Raises:
            CorralError: No store is configured, or it does not start.
        """
        await self._drawer.context(Identity("corral"))

    def end_streams(self) -> None:
        """End the streams of open pages: a server that shuts down waits for them, and only then
        calls `close`.
        """
        self._drawer.end_streams()

    async def close(self) -> None:
        """End the streams of open pages and close the store's connections."""
        await self._drawer.close()

    async def metrics(self) -> bytes:
        """What `/metrics` answers, for an application that serves it elsewhere: the store's
        figures.

        Raises:
            StoreUnavailable: There is no store.
        """
        return await self._drawer.metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive)
        response = await self._answered(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answered(self, request: Request) -> Response:
        """The answer, whatever happens."""
        if not self.is_on:
            return _plain(404)
        try:
            return await self._let_in(request, request.scope.get("root_path", "").rstrip("/"))
        except ClientDisconnect:
            return _plain(400)
        except Exception as error:  # it is told
            log.error("the board failed", method=request.method, exc_info=error)  # noqa: TRY400  # the logger is ours
            return _plain(500, traceback.format_exc() if self._is_development else "")

    async def _let_in(self, request: Request, mount: str) -> Response:
        """Answer somebody who may be here; everybody else learns where to log in, and nothing else."""
        if not self._is_our_host(request):
            return _plain(421)
        path = _path_below(mount, request)
        file = static_files.served(path) if request.method in READS else None
        if (
            self._login is not None
        ):  # whoever is nobody yet sees the login's page, and what that page loads
            response = (
                _bytes(file)
                if file
                else await self._login.answered(request, path, mount, self._renderer, self._told)
            )
            if response is not None:
                return response
        identity = await self._authenticator.identify(request) or self._scraper(request, path)
        if identity is None:
            return self._to_login(request, path, mount)
        if identity.role is None:
            return _plain(403)
        return _bytes(file) if file else await self._handled(request, path, mount, identity)

    async def _handled(
        self, request: Request, path: str, mount: str, identity: Identity
    ) -> Response:
        secret = self._secret(request)
        fresh = secret or secrets.token_urlsafe(32)
        asked = messages.Request(
            method="GET" if request.method in READS else request.method,
            path=path,
            mount=mount,
            query=dict(request.query_params),
            identity=identity,
            csrf=csrf_token(fresh, identity),
            can_log_out=self._login is not None,
            is_data=wants_json(request),
        )
        answer: Page | Redirect | Answer | Stream
        try:
            answer = await self._asked(request, asked, secret)
        except (CorralError, Refused) as error:
            answer = _refusal(error)
        response = self._response(asked, answer)
        if secret is None and self._login is None:
            set_cookie(request, response, FORM_COOKIE, fresh)
        return response

    async def _asked(
        self, request: Request, asked: messages.Request, secret: str | None
    ) -> Page | Redirect | Answer | Stream:
        """What the route's handler says, if this request may have it."""
        found = routes.found(asked.method, asked.path)
        if found is None:
            known = any(each.match(asked.path) is not None for each in routes.ROUTES)
            raise (
                Refused(405, f"this takes no {asked.method}")
                if known
                else Refused(404, "there is no such page")
            )
        route, parts = found
        if not asked.identity.may(route.needs):
            raise Refused(403, f"a {asked.identity.role} may not {route.needs}")
        if asked.method == "POST":
            if not comes_from_here(request):
                raise Refused(403, "this was not sent by a page of the board")
            asked = replace(asked, form=await read_form(request))
            if media_type(request) == FORM and not (
                secret and is_token(asked.first("csrf"), secret, asked.identity)
            ):
                raise Refused(
                    403,
                    "this form is of another session",
                    "load the page again, and send it once more",
                )
        context = await self._drawer.context(asked.identity)
        queues = [parts["queue"]] if "queue" in parts else context.inspector.queues
        try:
            async with naming_damage(
                context.link, context.prefix, *queues, job_id=parts.get("job_id")
            ):
                answer = await route.handler(replace(asked, parts=parts), context)
        except DamagedKey as error:
            log.warning("keys of the store are of the wrong type", damaged=error.damaged)
            raise
        finally:
            if asked.method == "POST":
                context.recent.forget()
        if isinstance(answer, Stream):
            if request.method == "HEAD":  # its answer would be held open for nothing
                return Answer(b"", EVENTS)
            return Stream(self._while_allowed(request, asked.identity, route.needs, answer.events))
        return answer

    def _response(
        self, asked: messages.Request, answer: Page | Redirect | Answer | Stream
    ) -> Response:
        if isinstance(answer, Stream):
            return StreamingResponse(
                answer.events, media_type=EVENTS, headers={"x-accel-buffering": "no"}
            )
        if isinstance(answer, Answer):
            return _bytes(answer)
        if isinstance(answer, Redirect):
            if asked.is_data:
                return _json({"done": answer.told, **answer.values}, 200)
            query = urlencode({"told": answer.told, **answer.values}) if answer.told else ""
            separator = ("&" if "?" in answer.path else "?") if query else ""
            return RedirectResponse(f"{asked.mount}{answer.path}{separator}{query}", 303)
        if asked.is_data:
            return _json(dict(answer.values), answer.status)
        return HTMLResponse(self._renderer.page(answer, asked), answer.status)

    async def _while_allowed(
        self, request: Request, reader: Identity, needs: Action, events: AsyncIterator[str]
    ) -> AsyncGenerator[str, None]:
        """The events of a stream, until its reader may have no more, or has had enough for one
        request.
        """
        started = time.monotonic()
        try:
            async for event in events:
                identity = await self._authenticator.identify(request)
                if identity is None or identity.name != reader.name or not identity.may(needs):
                    return
                yield event
                if time.monotonic() - started > STREAM_SECONDS:
                    return
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _told(self, who: str, what: str, how: Mapping[str, str]) -> None:
        """Write to the audit log; where the store is away, its line in the log is all there is."""
        try:
            context = await self._drawer.context(Identity(who))
            await context.inspector.audit.write(who, what, after=dict(how) or None)
        except CorralError as error:
            log.warning("not written to the audit log", who=who, what=what, error=str(error), **how)

    def _to_login(self, request: Request, path: str, mount: str) -> Response:
        url = self._authenticator.login_url
        if url is None or request.method not in READS or wants_json(request):
            return _plain(401)
        if self._login:
            query = request.url.query
            url = f"{mount}{url}{way_back(f'{path}?{query}' if query else path)}"
        return RedirectResponse(url, 302)

    def _scraper(self, request: Request, path: str) -> Identity | None:
        """Whoever reads the metrics with the token that is for nothing else."""
        token = self._settings.metrics_token
        if token is None or path != "/metrics":
            return None
        expected = f"Bearer {token.get_secret_value()}".encode()
        given = request.headers.get("authorization", "").encode()
        return Identity("metrics", Role.VIEWER) if hmac.compare_digest(given, expected) else None

    def _is_our_host(self, request: Request) -> bool:
        """Whether the browser asked for one of our names: any other may have been made to lead here
        (DNS rebinding).

        A host application sees to its own names; the board does where it runs alone, or where it
        was told the names.
        """
        if self._login is None and not self._settings.hosts:
            return True
        try:
            name = urlsplit(f"//{request.headers.get('host', '')}").hostname
        except ValueError:
            return False
        return name in LOOPBACK or name in self._settings.hosts

    def _secret(self, request: Request) -> str | None:
        """What the tokens of this browser's forms are made of."""
        if self._login is not None:
            return self._login.secret_of(request)
        return request.cookies.get(cookie_name(request, FORM_COOKIE)) or None


async def _nobody(_request: Request) -> Identity | None:
    return None


def _path_below(mount: str, request: Request) -> str:
    """The path below the mount as it was sent: an escaped slash is part of a name, and nothing is
    tidied up.
    """
    raw = request.scope.get("raw_path")
    sent = quote(request.scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")
    return "/" + "/".join(sent.split("/")[1 + mount.count("/") :])


def _refusal(error: CorralError | Refused) -> Page:
    """What was refused, and what the reader can do, as a page."""
    if isinstance(error, Refused):
        status, told = error.status, error.told
    else:
        status, told = (
            next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400),
            str(error),
        )
    return Page(
        "refused",
        HTTPStatus(status).phrase,
        {"status": status, "told": told, "hint": error.hint},
        status,
    )


def _plain(status: int, told: str = "") -> Response:
    return Response(told or HTTPStatus(status).phrase, status, media_type="text/plain")


def _json(values: object, status: int) -> Response:
    return Response(to_json(values, inf_nan_mode="null"), status, media_type="application/json")


def _bytes(answer: Answer) -> Response:
    headers = {"cache-control": "public, max-age=31536000, immutable"} if answer.cacheable else {}
    return Response(answer.body, answer.status, headers, answer.content_type)

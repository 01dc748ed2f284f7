"""Admission: the steps that every request passes, in order, before a page's handler sees it.

`STEPS`, below, is the whole list. A step returns a response, which ends the request there, or None,
and the next step goes on. The headers of `request_guard.HEADERS` are put on whatever comes out.

A reader who is not logged in sees plain answers only, the same for every path, and so cannot find
out which queues or jobs exist. From `build_request` on, what a step refuses is shown as a page of
the board, or as JSON.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from corral.board import routes, static_files
from corral.board.board_context import BoardContexts
from corral.board.board_settings import BoardSettings
from corral.board.identity import Identity, Role
from corral.board.login import Login, login_query
from corral.board.messages import (
    BoardPage,
    BoardRequest,
    EventStream,
    RawBody,
    Redirect,
    RequestRefused,
)
from corral.board.page_renderer import PageRenderer
from corral.board.request_body import FORM, media_type, read_form
from corral.board.request_guard import (
    HEADERS,
    SAFE_METHODS,
    Authenticator,
    cookie_name,
    csrf_token,
    host_name,
    is_csrf_token,
    is_same_origin,
    set_cookie,
    wants_json,
)
from corral.board.responses import (
    EVENTS,
    plain_response,
    raw_response,
    refusal_page,
    render_response,
)
from corral.board.routes import Route
from corral.errors import CorralError
from corral.inspector import DamagedKey
from corral.inspector.damage import report_damage
from corral.loggers import Logger

__all__ = ["STEPS", "Admission", "Visit"]

log = Logger("corral.board")

FORM_COOKIE: Final = "corral_board_form"
"""Where the host application's session decides: the cookie with the secret of the forms' tokens.

Over TLS its name begins with `__Host-`.
"""
STREAM_SECONDS: Final = 300.0
"""How long one event stream lasts. The browser then asks again, with its present session cookie."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class Visit:
    """One request on its way through the steps, with what they have found out so far.

    Attributes:
        request: The request, as Starlette has it.
        mount: The path at which the board is mounted, without a trailing slash.
        path: The path below the mount, with its escapes as they were sent.
        identity: Who sends it; set by `require_identity`.
        asked: What the handler will get; set by `build_request`.
        can_show_pages: Whether a refusal is shown as a page; True once `asked` is set.
        form_secret: What the tokens of this browser's forms are made from; None before its first
            page. Set by `build_request`.
        new_form_secret: The secret to set as a cookie where there was none; else empty.
        route: The route of the path; set by `require_route`.
    """

    request: Request
    mount: str
    path: str
    identity: Identity = field(init=False)
    asked: BoardRequest = field(init=False)
    can_show_pages: bool = False
    form_secret: str | None = None
    new_form_secret: str = ""
    route: Route = field(init=False)


class Admission:
    """Passes requests through `STEPS`.

    Args:
        settings: The board's settings.
        contexts: Opens the store for handlers.
        authenticator: Finds out who sends a request.
        login: The board's own login, where no host application has one.
    """

    def __init__(
        self,
        settings: BoardSettings,
        contexts: BoardContexts,
        authenticator: Authenticator,
        login: Login | None,
    ) -> None:
        self.settings = settings
        self.contexts = contexts
        self.authenticator = authenticator
        self.login = login
        self.renderer = PageRenderer()

    async def answer(self, request: Request) -> Response:
        """The response to a request."""
        mount = request.scope.get("root_path", "").rstrip("/")
        visit = Visit(request, mount, _path_below(mount, request))
        response = await self._pass_steps(visit)
        if visit.new_form_secret:
            set_cookie(request, response, FORM_COOKIE, visit.new_form_secret)
        return response

    async def _pass_steps(self, visit: Visit) -> Response:
        try:
            for step in STEPS:
                response = await step(self, visit)
                if response is not None:
                    return response
        except (CorralError, RequestRefused) as error:
            if not visit.can_show_pages:  # raised by the host application's `authorize`
                raise
            return render_response(visit.asked, refusal_page(error), self.renderer)
        return plain_response(404)

    async def write_audit(self, who: str, what: str, details: Mapping[str, str]) -> None:
        """Write to the audit log; if the store cannot be reached, log the entry as a warning."""
        try:
            context = await self.contexts.open_context(Identity(who))
            await context.inspector.audit.write(who, what, after=dict(details) or None)
        except CorralError as error:
            log.warning(
                "audit entry could not be written to the store",
                who=who,
                what=what,
                error=str(error),
                **details,
            )


async def check_host(admission: Admission, visit: Visit) -> Response | None:
    """421 for a host name that is not ours: a foreign name may resolve to us (DNS rebinding).

    A host application checks its own names. The board checks where it runs alone, or where
    `CORRAL_BOARD_HOSTS` is set.
    """
    if admission.login is None and not admission.settings.hosts:
        return None
    name = host_name(visit.request)
    is_ours = name in LOOPBACK or name in admission.settings.hosts
    return None if is_ours else plain_response(421)


async def answer_login_file(admission: Admission, visit: Visit) -> Response | None:
    """A static file, where the board has its own login: the login page loads some."""
    return _find_file(visit) if admission.login is not None else None


async def answer_login(admission: Admission, visit: Visit) -> Response | None:
    """`/login` and `/logout`, where the board has its own login; they check origin and token."""
    if admission.login is None:
        return None
    return await admission.login.answer(
        visit.request, visit.path, visit.mount, admission.renderer, admission.write_audit
    )


async def require_identity(admission: Admission, visit: Visit) -> Response | None:
    """302 to the login or 401 for a reader who is not logged in, 403 for one without a role."""
    identity = await admission.authenticator.identify(visit.request)
    identity = identity or _identify_scraper(admission, visit)
    if identity is None:
        return _send_to_login(admission, visit)
    if identity.role is None:
        return plain_response(403)
    visit.identity = identity
    return None


async def answer_file(_admission: Admission, visit: Visit) -> Response | None:
    """A static file, where the board is mounted: only for readers who may see the board."""
    return _find_file(visit)


async def build_request(admission: Admission, visit: Visit) -> Response | None:
    """Build what the handler will get; from here on, refusals are shown as pages."""
    request, login = visit.request, admission.login
    if login is not None:
        visit.form_secret = login.secret_of(request)
    else:
        visit.form_secret = request.cookies.get(cookie_name(request, FORM_COOKIE)) or None
    secret = visit.form_secret or secrets.token_urlsafe(32)
    if visit.form_secret is None and login is None:
        visit.new_form_secret = secret
    visit.asked = BoardRequest(
        method="GET" if request.method in SAFE_METHODS else request.method,
        path=visit.path,
        mount=visit.mount,
        query=dict(request.query_params),
        identity=visit.identity,
        csrf=csrf_token(secret, visit.identity),
        can_log_out=login is not None,
        is_data=wants_json(request),
    )
    visit.can_show_pages = True
    return None


async def require_route(_admission: Admission, visit: Visit) -> Response | None:
    """404 for a path that no route has, 405 for a method that the path's routes do not take."""
    method, path = visit.asked.method, visit.asked.path
    found = routes.find_route(method, path)
    if found is None:
        if any(route.match(path) is not None for route in routes.ROUTES):
            raise RequestRefused(405, f"this address does not take {method}")
        raise RequestRefused(404, "there is no such page")
    visit.route, parts = found
    visit.asked = replace(visit.asked, parts=parts)
    return None


async def require_right(_admission: Admission, visit: Visit) -> Response | None:
    """403 for a role that may not do what the route needs."""
    if not visit.identity.may(visit.route.needs):
        raise RequestRefused(403, f"a {visit.identity.role} may not {visit.route.needs}")
    return None


async def require_origin(_admission: Admission, visit: Visit) -> Response | None:
    """403 for a write that no page of the board has sent."""
    if visit.asked.method == "POST" and not is_same_origin(visit.request):
        raise RequestRefused(403, "this was not sent by a page of the board")
    return None


async def require_token(_admission: Admission, visit: Visit) -> Response | None:
    """Read a write's body: 413, 415 or 400 if it is unusable, 403 for a form without its token.

    JSON needs no token: another site's page cannot send it without asking first (CORS).
    """
    if visit.asked.method != "POST":
        return None
    asked = replace(visit.asked, form=await read_form(visit.request))
    if media_type(visit.request) == FORM and not (
        visit.form_secret and is_csrf_token(asked.first("csrf"), visit.form_secret, asked.identity)
    ):
        raise RequestRefused(
            403, "this form belongs to another session", "load the page again and resend the form"
        )
    visit.asked = asked
    return None


async def call_handler(admission: Admission, visit: Visit) -> Response | None:
    """Open the store, call the route's handler, render what it returns."""
    asked, route = visit.asked, visit.route
    context = await admission.contexts.open_context(asked.identity)
    queues = [asked.parts["queue"]] if "queue" in asked.parts else context.inspector.queues
    answer: BoardPage | Redirect | RawBody | EventStream
    try:
        async with report_damage(
            context.link, context.prefix, *queues, job_id=asked.parts.get("job_id")
        ):
            answer = await route.handler(asked, context)
    except DamagedKey as error:
        log.warning("page not shown: keys in the store have a wrong type", damaged=error.damaged)
        raise
    finally:
        if asked.method == "POST":
            context.cache.clear()
    if isinstance(answer, EventStream):
        if visit.request.method == "HEAD":  # a stream would keep the connection open for nothing
            answer = RawBody(b"", EVENTS)
        else:
            events = _stream_while_allowed(admission, visit, answer.events)
            answer = EventStream(events)
    return render_response(asked, answer, admission.renderer)


Step = Callable[[Admission, Visit], Awaitable[Response | None]]

STEPS: Final[tuple[Step, ...]] = (
    check_host,
    answer_login_file,
    answer_login,
    require_identity,
    answer_file,
    build_request,
    require_route,
    require_right,
    require_origin,
    require_token,
    call_handler,
)
"""What every request passes, in this order."""


def add_headers(response: Response) -> Response:
    """Put the security headers on a response that does not set them itself."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _find_file(visit: Visit) -> Response | None:
    """The static file that a request is for, or None."""
    if visit.request.method not in SAFE_METHODS:
        return None
    file = static_files.find_file(visit.path)
    return raw_response(file) if file else None


def _send_to_login(admission: Admission, visit: Visit) -> Response:
    """A browser that wants a page is redirected to the login; any other client gets 401."""
    request, url = visit.request, admission.authenticator.login_url
    if url is None or request.method not in SAFE_METHODS or wants_json(request):
        return plain_response(401)
    if admission.login is not None:
        query = request.url.query
        url = f"{visit.mount}{url}{login_query(f'{visit.path}?{query}' if query else visit.path)}"
    return RedirectResponse(url, 302)


def _identify_scraper(admission: Admission, visit: Visit) -> Identity | None:
    """A Prometheus server that sends the metrics token; the token opens `/metrics` only."""
    token = admission.settings.metrics_token
    if token is None or visit.path != "/metrics":
        return None
    expected = f"Bearer {token.get_secret_value()}".encode()
    given = visit.request.headers.get("authorization", "").encode()
    return Identity("metrics", Role.VIEWER) if hmac.compare_digest(given, expected) else None


async def _stream_while_allowed(
    admission: Admission, visit: Visit, events: AsyncIterator[str]
) -> AsyncGenerator[str, None]:
    """Pass events on while the reader's grant lasts, and for `STREAM_SECONDS` at most.

    The grant is checked again before every event.
    """
    reader, needs = visit.identity, visit.route.needs
    started = time.monotonic()
    try:
        async for event in events:
            identity = await admission.authenticator.identify(visit.request)
            if identity is None or identity.name != reader.name or not identity.may(needs):
                return
            yield event
            if time.monotonic() - started > STREAM_SECONDS:
                return
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _path_below(mount: str, request: Request) -> str:
    """The path below the mount as it was sent.

    Nothing is decoded or normalised: an escaped slash is part of a name.
    """
    raw = request.scope.get("raw_path")
    sent = quote(request.scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")
    return "/" + "/".join(sent.split("/")[1 + mount.count("/") :])

"""`Board`: the ASGI application.

It starts the board with the first request, or when its server or its host application starts, and
turns whatever goes wrong into a response. `corral.board.admission` does the rest.
"""

from __future__ import annotations

import traceback

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral.app import log_lock, read_settings
from corral.board.admission import Admission, add_headers
from corral.board.board_context import BoardContexts
from corral.board.board_settings import BoardSettings, is_board_on, resolve_environment
from corral.board.identity import Identity
from corral.board.login import Login
from corral.board.request_guard import Authenticator, Authorize, HostSession
from corral.board.responses import plain_response
from corral.errors import CorralError
from corral.loggers import Logger

__all__ = ["Board"]

log = Logger("corral.board")


class Board:
    """The board, to be mounted in an ASGI application, or to be run alone by `corral board`.

    ```python
    app.mount("/admin/queues", Board(authorize=who_is_it))
    ```

    Making one reads nothing. The environment is read by `start`: a host application calls it when
    it starts, so that a wrong setting stops it there. Without that, the first request does it; if
    it fails, one error is logged and every request is answered with 500.

    The store is opened by the first request that needs it, or by `open`. It is closed by `close`,
    or with the server where the board runs alone.

    Args:
        authorize: The host application's session: takes the Starlette request and returns an
            `Identity`, or None where nobody is logged in. May be a coroutine function.
        login_url: The host application's login page. Without it, 401 instead of a redirect.
        login: The board's own login, where no host application has one; `corral board` uses it.
        url: The store's URL, where the settings do not name one.
        development: Whether the environment is development where `CORRAL_ENV` is not set.
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
        self._authorize = authorize
        self._login_url = login_url
        self._login = login
        self._implies_development = development
        self._contexts = BoardContexts(url)
        self._is_started = False
        self._start_error: CorralError | None = None
        self._is_development = False
        self._admission: Admission | None = None

    @property
    def is_on(self) -> bool:
        """Whether the board answers requests; False before `start` has read the settings."""
        return self._admission is not None

    def start(self) -> None:
        """Read the settings, load the plugins and build the catalog; does nothing the second time.

        Raises:
            ConfigurationError: A setting cannot be used, or nothing would check who uses the board.
            CatalogError: The installed plugins do not make a catalog.
        """
        if self._is_started:
            return
        settings = BoardSettings()
        environment = resolve_environment(read_settings(), implied=self._implies_development)
        is_on = is_board_on(
            environment,
            settings.enabled,
            has_authenticator=self._authorize is not None or self._login is not None,
        )
        self._is_development = environment == "development"
        if is_on:
            # a host application does not start with half of its plugins; the board alone does
            installed = self._contexts.load_plugins(leave_out_broken=self._authorize is None)
            if not self._is_development:
                log_lock(installed)
            self._admission = self._build_admission(settings)
        self._is_started = True

    def _build_admission(self, settings: BoardSettings) -> Admission:
        authenticator: Authenticator
        if self._login is None and self._authorize is not None:
            authenticator = HostSession(self._authorize, self._login_url)
            return Admission(settings, self._contexts, authenticator, None)
        login = self._login
        if login is None:
            login = Login()
            log.warning(
                "no authorize= given (development): open this one-time login path, below the mount",
                path=login.new_link(),
            )
        return Admission(settings, self._contexts, login, login)

    async def open(self) -> None:
        """Start the board and connect to the store now, instead of with the first request.

        Raises:
            CorralError: The board cannot start, or the store is not configured or not reachable.
        """
        self.start()
        if self.is_on:
            await self._contexts.open_context(Identity("corral"))

    def end_streams(self) -> None:
        """End the event streams of open pages.

        A server that shuts down waits for them, and calls `close` only after that.
        """
        self._contexts.end_streams()

    async def close(self) -> None:
        """End the event streams of open pages and close the store's connections."""
        await self._contexts.close()

    async def metrics(self) -> bytes:
        """The store's figures in Prometheus's text format, for an application's own `/metrics`.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        return await self._contexts.render_metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        response = add_headers(await self._answer(Request(scope, receive)))
        await response(scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] != "lifespan.startup":
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return
            try:
                self.start()
            except CorralError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})

    async def _answer(self, request: Request) -> Response:
        """The response, whatever goes wrong."""
        try:
            if not self._start_with_request():
                return plain_response(500, "the board cannot start: the log says why")
            if self._admission is None:
                return plain_response(404)
            return await self._admission.answer(request)
        except ClientDisconnect:
            return plain_response(400)
        except Exception as error:
            log.error(  # noqa: TRY400  # this logger's `exception` would need no error
                "request failed: an error inside the board", method=request.method, exc_info=error
            )
            return plain_response(500, traceback.format_exc() if self._is_development else "")

    def _start_with_request(self) -> bool:
        """Start the board if nothing has started it yet; whether it has started.

        A failure is logged once and remembered: the environment and the plugins do not change while
        the process runs.
        """
        if self._is_started:
            return True
        if self._start_error is None:
            try:
                self.start()
            except CorralError as error:
                self._start_error = error
                log.error(  # noqa: TRY400  # its sentence says all; a traceback adds nothing
                    "the board cannot start: every request is answered with 500",
                    error=str(error),
                    hint=error.hint,
                )
        return self._is_started

"""Serves the board without a host application: `corral board`, and the board in `corral dev`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from corral.app import read_settings
from corral.app.service import run_service
from corral.board.application import Board
from corral.board.board_settings import BoardSettings, resolve_environment
from corral.board.login import Login
from corral.errors import ConfigurationError, MissingExtra, StoreUnavailable
from corral.forking import silence_in_children
from corral.loggers import Logger
from corral.observe.http_server import http_url
from corral.observe.logs import configure_logs
from corral.settings import Settings
from corral.shutdown import StopHandler, on_stop
from corral.tasks import start_task

try:
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as missing:
    raise MissingExtra(
        "the board needs uvicorn, which is not installed:"
        " install the extra 'board' from where you got corral"
    ) from missing

__all__ = ["PORT", "beside_worker", "run_board"]

log = Logger("corral.board")

PORT: Final = 8765
GRACE_SECONDS: Final = 2
"""How long answers may still be sent after SIGTERM; event streams are ended before that."""
BACKLOG: Final = 128
REQUEST_SECONDS: Final = 10.0
"""How long a request may take to arrive; for the first one, from the opening of the connection."""


def run_board(host: str, port: int) -> None:
    """Serve the board until SIGTERM or SIGINT.

    Args:
        host: The address to listen on.
        port: The port; 0 for a free one.

    Raises:
        CorralError: The board is switched off, nothing would check who uses it, a setting is wrong,
            or the address cannot be used.
    """
    settings = read_settings()
    configure_logs(settings)
    board_settings = BoardSettings()
    login, link = _make_login(settings, board_settings, implied=False)
    board = Board(login=login)
    board.start()
    if not board.is_on:
        raise ConfigurationError(
            "the board is switched off",
            hint="set CORRAL_BOARD_ENABLED=true;"
            " without it the board is on where CORRAL_ENV is exactly development",
        )
    listener = _open_listener(host, port)
    if not _is_loopback(host):
        log.warning(
            "plain http beyond this machine: put a proxy with TLS before the board", host=host
        )
        if not board_settings.hosts:
            log.warning("CORRAL_BOARD_HOSTS is not set: only requests for localhost are answered")
    if board_settings.hosts and not board_settings.proxy:
        log.warning(
            "CORRAL_BOARD_PROXY is not set: X-Forwarded-For and X-Forwarded-Proto are ignored,"
            " and behind a proxy all clients count as one"
        )

    async def run() -> None:
        try:
            await board.open()
        except StoreUnavailable as error:
            log.warning(
                "the board starts without its store, and connects when the store answers",
                error=str(error),
            )
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        with on_stop(
            StopHandler(
                GRACE_SECONDS,
                stop=lambda: loop.call_soon_threadsafe(stopped.set),
                announce=_announce,
            )
        ):
            async with _serve(board, listener, link, board_settings.proxy):
                await stopped.wait()

    run_service(run())


@asynccontextmanager
async def beside_worker(url: str) -> AsyncIterator[None]:
    """Serve the board on the loopback interface while a development worker runs.

    Does nothing where the board is switched off.

    Args:
        url: The worker's store.
    """
    board_settings = BoardSettings()
    login, link = _make_login(read_settings(), board_settings, implied=True)
    board = Board(login=login, url=url, development=True)
    board.start()
    if not board.is_on:
        yield
        return
    try:
        listener = _open_listener("127.0.0.1", PORT)
    except ConfigurationError:  # the port is taken, perhaps by another project's board
        listener = _open_listener("127.0.0.1", 0)
    async with _serve(board, listener, link, board_settings.proxy):
        yield


def _make_login(
    settings: Settings, board_settings: BoardSettings, *, implied: bool
) -> tuple[Login | None, str | None]:
    """The board's own login, and in development a login link.

    Outside development and without a password: no login, and no link.
    """
    digest = board_settings.digest
    if resolve_environment(settings, implied=implied) == "development":
        login = Login(digest)
        return login, login.new_link()
    return (None if digest is None else Login(digest)), None


@asynccontextmanager
async def _serve(
    board: Board, listener: socket.socket, login_link: str | None, proxy: Sequence[str]
) -> AsyncIterator[None]:
    """Serve the board while inside; on leaving, end open streams, then the server."""
    # at INFO uvicorn logs that it starts, which is logged below
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        board,
        http=_RequestDeadlineProtocol,
        proxy_headers=bool(proxy),
        forwarded_allow_ips=[*proxy],  # given, or uvicorn reads FORWARDED_ALLOW_IPS
        log_config=None,  # its lines go to our handlers
        access_log=False,  # an address may contain a login link
        server_header=False,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    serving = start_task(server.serve(sockets=[listener]), "corral-board")
    host, port = listener.getsockname()[:2]
    address = http_url(host, port)
    log.info("board listening", url=f"{address}/")
    if login_link is not None:
        log.info("this link is good for one login within 15 minutes", url=f"{address}{login_link}")
    try:
        with silence_in_children(listener.fileno()):
            yield
    finally:
        board.end_streams()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """A server that installs no signal handlers: `on_stop` handles signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


class _RequestDeadlineProtocol(H11Protocol):
    """Closes a connection whose request is not complete after `REQUEST_SECONDS`.

    It does so even while bytes arrive: a client that sends slowly on purpose would hold the
    connection open. uvicorn itself only limits how long a connection may be idle after an answer.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """For asyncio: a client has connected."""
        super().connection_made(transport)
        self._start_deadline()

    def data_received(self, data: bytes) -> None:
        """For asyncio: a part of a request has arrived."""
        super().data_received(data)
        if self._is_complete():
            self._cancel_deadline()
        elif self._deadline is None:  # the first part of the next request
            self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """For asyncio: the connection was closed."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def _is_complete(self) -> bool:
        return self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._hang_up)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._deadline = None
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:  # no part of an answer was sent
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
        else:
            self.transport.abort()


def _open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ConfigurationError: This machine does not have the address, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"the board cannot listen on {host!r}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"the board cannot listen on {host} port {port}: {reason}",
            hint="choose another port with --port; 0 takes a free one",
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce() -> None:
    log.info(
        "board stopping",
        waits_for="answers that are being sent",
        timeout_seconds=GRACE_SECONDS,
        hint="a second signal stops at once",
    )

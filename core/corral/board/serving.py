"""Serves the board where no other application does: `corral board`, and beside the worker of
`corral dev`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from corral.app import read_settings
from corral.app.service import run_service
from corral.board.application import Board
from corral.board.login import Login
from corral.board.settings import BoardSettings, environment_of
from corral.errors import ConfigurationError, MissingExtra, StoreUnavailable
from corral.forking import left_to_parent
from corral.loggers import Logger
from corral.observe.http_server import http_url
from corral.observe.logs import configure_logs
from corral.settings import Settings
from corral.shutdown import Demand, on_stop
from corral.tasks import start_task

try:
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as missing:
    raise MissingExtra(
        "the board needs uvicorn, which is not installed: install the extra 'board' from where you got corral"
    ) from missing

__all__ = ["PORT", "beside_worker", "run_board"]

log = Logger("corral.board")

PORT: Final = 8765
GRACE_SECONDS: Final = 2
"""How long answers that are being sent may take after SIGTERM; streams are ended before that."""
BACKLOG: Final = 128
REQUEST_SECONDS: Final = 10.0
"""How long a request may take to come, from its first byte to its last; and how long none may come
at all.
"""


def run_board(host: str, port: int) -> None:
    """Serve the board until SIGTERM or SIGINT.

    Args:
        host: The address to listen on.
        port: The port; 0 for one that is free.

    Raises:
        CorralError: It is switched off, nobody would be asked who they are, or it must not start
        for another reason.
    """
    settings = read_settings()
    configure_logs(settings)
    login, link = _login(settings, implied=False)
    board = Board(login=login)
    if not board.is_on:
        raise ConfigurationError(
            "the board is switched off",
            hint="set CORRAL_BOARD_ENABLED=true; without it the board is on where CORRAL_ENV is exactly development",
        )
    listener, own = _listening(host, port), BoardSettings.from_environment()
    if not _is_loopback(host):
        log.warning(
            "plain http beyond this machine: put a proxy with TLS before the board", host=host
        )
        if not own.hosts:
            log.warning("CORRAL_BOARD_HOSTS is not set: only requests for localhost are answered")
    if own.hosts and not own.proxy:
        log.warning(
            "CORRAL_BOARD_PROXY is not set: no X-Forwarded-For and no X-Forwarded-Proto is believed, and behind a proxy"
            " all clients count as one"
        )

    async def run() -> None:
        try:
            await board.open()
        except StoreUnavailable as error:
            log.warning("the board starts without its store, and waits for it", error=str(error))
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        with on_stop(
            Demand(
                GRACE_SECONDS,
                stop=lambda: loop.call_soon_threadsafe(stopped.set),
                announce=_announce,
            )
        ):
            async with _served(board, listener, link):
                await stopped.wait()

    run_service(run())


@asynccontextmanager
async def beside_worker(url: str) -> AsyncIterator[None]:
    """Serve the board on the loopback interface while a development worker runs, unless it is
    switched off.

    Args:
        url: The worker's store.
    """
    login, link = _login(read_settings(), implied=True)
    board = Board(login=login, url=url, development=True)
    if not board.is_on:
        yield
        return
    try:
        listener = _listening("127.0.0.1", PORT)
    except ConfigurationError:  # another project's board
        listener = _listening("127.0.0.1", 0)
    async with _served(board, listener, link):
        yield


def _login(settings: Settings, *, implied: bool) -> tuple[Login | None, str | None]:
    """Who logs people in, and in development a link that does; nobody where there is neither that
    nor a password.
    """
    digest = BoardSettings.from_environment().digest
    if environment_of(settings, implied=implied) == "development":
        login = Login(digest)
        return login, login.new_link()
    return (None if digest is None else Login(digest)), None


@asynccontextmanager
async def _served(board: Board, listener: socket.socket, link: str | None) -> AsyncIterator[None]:
    """Serve the board while inside; leaving ends open streams, then the server."""
    logging.getLogger("uvicorn.error").setLevel(
        logging.WARNING
    )  # it says at INFO that it starts, as we do
    proxy = BoardSettings.from_environment().proxy
    config = uvicorn.Config(
        board,
        http=_PunctualProtocol,
        proxy_headers=bool(proxy),
        forwarded_allow_ips=[*proxy],  # given, so that no variable of uvicorn's own is read
        log_config=None,  # its lines go where ours go
        access_log=False,  # a one-time link is part of an address
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
    log.info("board", url=f"{address}/")
    if link is not None:
        log.info("this link logs in once, within a quarter of an hour", url=f"{address}{link}")
    try:
        with left_to_parent(listener.fileno()):
            yield
    finally:
        board.end_streams()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _PunctualProtocol(H11Protocol):
    """Hangs up on whoever has not sent a whole request in time, however many bytes come meanwhile.

    uvicorn bounds only how long a connection may be idle after an answer.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """For asyncio: somebody connects."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """For asyncio: a piece of a request has come."""
        super().data_received(data)
        if self._is_whole():
            self._cancel()
        elif self._late is None:  # the first piece of a further request
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """For asyncio: the connection is closed."""
        self._cancel()
        super().connection_lost(exc)

    def _is_whole(self) -> bool:
        return self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}

    def _expect(self) -> None:
        self._late = self.loop.call_later(REQUEST_SECONDS, self._hang_up)

    def _cancel(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _hang_up(self) -> None:
        self._late = None
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:  # nothing of an answer was sent
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
        else:
            self.transport.abort()


def _listening(host: str, port: int) -> socket.socket:
    """A socket of an address.

    Raises:
        ConfigurationError: There is no such address here, or the port is taken.
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
        told = f"the board cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}"
        raise ConfigurationError(
            told, hint="choose another with --port; 0 takes one that is free"
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
        hint="a second signal cuts them off",
    )

"""A small HTTP server for probes and scrapes, which answers even if the event loop is blocked.

It runs on a thread of its own, serves a fixed table of paths and nothing else, to few clients at a
time, and closes the connections of slow ones.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.forking import silence_in_children
from corral.loggers import Logger

__all__ = ["HttpAnswer", "ListenAddress", "answer_probe", "http_url", "serve_http"]

log = Logger("corral")

MAX_CONNECTIONS: Final = 16
"""Probes and scrapers are few; further connections are closed at once."""
IDLE_SECONDS: Final = 5.0
"""How long a client may send nothing."""
WHOLE_SECONDS: Final = 10.0
"""How long a connection may last, also of a client that sends a byte now and then."""
LOOK_SECONDS: Final = 0.2
"""How often the server checks for slow clients, and whether it is to end: a worker's exit waits for
that.
"""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen.

    Attributes:
        host: A name or an address of this machine.
        port: The port; 0 for one that the kernel chooses.
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An HTTP response.

    Attributes:
        status: The HTTP status.
        content_type: The body's media type.
        body: The body.
    """

    status: int
    content_type: str
    body: bytes


def answer_probe(question: str, reason_not: str, troubles: Sequence[str] = ()) -> HttpAnswer:
    """The answer to a probe: 200, or 503 with the reason, as JSON.

    Args:
        question: `healthy` or `ready`.
        reason_not: Why the answer is no, in one sentence; empty if it is yes.
        troubles: What an operator must know, a sentence each, although the answer does not depend
            on it.
    """
    body: dict[str, Any] = {question: not reason_not}
    if reason_not:
        body["reason"] = reason_not
    if troubles:
        body["troubles"] = [*troubles]
    status = HTTPStatus.SERVICE_UNAVAILABLE if reason_not else HTTPStatus.OK
    return HttpAnswer(status, "application/json", json.dumps(body).encode() + b"\n")


@contextmanager
def serve_http(
    address: ListenAddress, answers: Mapping[str, Callable[[], HttpAnswer]]
) -> Iterator[str]:
    """Serve while entered.

    Args:
        address: Where to listen.
        answers: The function that answers, by path. It is called on a thread of the server.

    Yields:
        The URL, without a path.

    Raises:
        ConfigurationError: On entering: the server cannot listen on the address.
    """
    try:
        server = _Server(address, answers)
    except OSError as error:
        raise ConfigurationError(
            f"port {address.port} of {address.host!r} cannot be listened on:"
            f" {(error.strerror or str(error)).lower()}",
            hint="another --metrics-port, or 0 for any that is free",
        ) from error
    thread = threading.Thread(
        target=server.serve_forever, args=(LOOK_SECONDS,), name="corral-http", daemon=True
    )
    thread.start()
    host, port = server.server_address[:2]
    try:
        # a process that a job forked, and that outlives the worker, must not keep its port
        with silence_in_children(server.fileno()):
            yield http_url(str(host), port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=IDLE_SECONDS)


def http_url(host: str, port: int) -> str:
    """The URL of an address, without a path."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: ListenAddress, answers: Mapping[str, Callable[[], HttpAnswer]]
    ) -> None:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family = found[0][0]
        self.answers = answers
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._deadlines: dict[socket.socket, float] = {}
        super().__init__(found[0][4][:2], _Handler)  # type: ignore[arg-type]  # typeshed knows IPv4 alone

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._deadlines[request] = time.monotonic() + WHOLE_SECONDS
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._deadlines.pop(request, None)
            self._free.release()

    def service_actions(self) -> None:
        now = time.monotonic()
        for request, deadline in tuple(self._deadlines.items()):
            if now > deadline:
                with suppress(OSError):  # the client has just closed it
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # as it is called
        log.error("request for metrics or health failed", exc_info=True)  # noqa: LOG014  # called in an except block


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_SECONDS
    server: _Server

    def handle(self) -> None:
        with suppress(ConnectionError, TimeoutError):  # the client has gone
            super().handle()

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(answer())

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the name of the status only: nothing of the request is repeated."""
        del message, explain
        self._send(
            HttpAnswer(code, "text/plain; charset=utf-8", f"{HTTPStatus(code).phrase}\n".encode())
        )

    def version_string(self) -> str:
        return "corral"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Log nothing: a probe comes every few seconds."""

    def _send(self, answer: HttpAnswer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

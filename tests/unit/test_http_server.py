"""The HTTP server of probes and scrapes: a fixed table, few clients, and none of them for long."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from corral.app.parent_process import address_options
from corral.errors import ConfigurationError
from corral.observe import http_server
from corral.observe.http_server import HttpAnswer, ListenAddress, answer_probe, serve_http


def broken() -> HttpAnswer:
    raise RuntimeError("a bug")


@pytest.fixture
def url() -> Iterator[str]:
    answers = {
        "/metrics": lambda: HttpAnswer(200, "text/plain", b"figures\n"),
        "/healthz": lambda: answer_probe("healthy", ""),
        "/readyz": lambda: answer_probe("ready", "the worker drains"),
        "/broken": broken,
    }
    with serve_http(ListenAddress("127.0.0.1", 0), answers) as url:
        yield url


def test_what_an_operator_must_know_is_reported_and_turns_no_probe_red() -> None:
    well, unwell = (
        answer_probe("healthy", "", ("a is damaged",)),
        answer_probe("healthy", "stuck", ("a is damaged",)),
    )
    assert (well.status, json.loads(well.body)) == (
        200,
        {"healthy": True, "troubles": ["a is damaged"]},
    )
    assert (unwell.status, json.loads(unwell.body)["reason"]) == (503, "stuck")
    assert json.loads(answer_probe("ready", "").body) == {"ready": True}


def ask(url: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_what_is_in_the_table_is_answered(url: str) -> None:
    assert ask(url, "/metrics?x=1")[::2] == (200, b"figures\n")
    status, headers, body = ask(url, "/healthz")
    assert (status, json.loads(body), headers["Content-Type"]) == (
        200,
        {"healthy": True},
        "application/json",
    )
    status, headers, body = ask(url, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reason": "the worker drains"})
    assert (headers["Cache-Control"], headers["Server"]) == ("no-store", "corral")


def test_a_head_has_no_body(url: str) -> None:
    status, headers, body = ask(url, "/metrics", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "8", b"")


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/a//metrics", "/healthz/../metrics", "/%6detrics", "/<script>"]
)
def test_nothing_else_is_and_nothing_of_the_request_comes_back(url: str, path: str) -> None:
    assert ask(url, path)[::2] == (404, b"Not Found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "<b>"])
def test_no_other_method_is_served(url: str, method: str) -> None:
    assert ask(url, "/metrics", method)[::2] == (501, b"Not Implemented\n")


def test_a_bug_in_an_answer_ends_that_request_alone(url: str) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        ask(url, "/broken")
    assert ask(url, "/metrics")[0] == 200


def test_whoever_comes_beyond_the_bound_is_hung_up_on_and_the_silent_are_cut(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "WHOLE_SECONDS", 0.2)
    address = urlsplit(url)
    silent = [
        socket.create_connection((address.hostname, address.port), 5)
        for _ in range(http_server.MAX_CONNECTIONS)
    ]
    try:
        for each in silent:
            each.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        beyond = socket.create_connection((address.hostname, address.port), 5)
        with beyond:
            assert beyond.recv(1) == b"", "no thread is left"
        for each in silent:
            assert each.recv(1) in {b"", b"H"}, (
                "cut, although it might have sent a byte a second for ever"
            )
    finally:
        for each in silent:
            each.close()
    assert ask(url, "/metrics")[0] == 200


def test_nothing_is_left_when_it_ends(url: str) -> None:
    with serve_http(
        ListenAddress("localhost", 0), {"/x": lambda: HttpAnswer(200, "text/plain", b"")}
    ) as other:
        assert ask(other, "/x")[0] == 200
        taken = serve_http(ListenAddress("127.0.0.1", urlsplit(url).port or 0), {})
        with pytest.raises(
            ConfigurationError, match="cannot be listened on: address already in use"
        ) as refused:
            taken.__enter__()
        assert refused.value.hint == "another --metrics-port, or 0 for any that is free"
    with pytest.raises(ConnectionRefusedError):
        ask(other, "/x")
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("corral-http") == 1, "the fixture's"


def test_a_host_that_is_none_is_refused() -> None:
    nobodys = serve_http(ListenAddress("203.0.113.1", 9300), {})
    with pytest.raises(
        ConfigurationError, match=r"port 9300 of '203\.0\.113\.1' cannot be listened on"
    ):
        nobodys.__enter__()


def test_each_process_of_a_parent_has_a_port_of_its_own() -> None:
    assert address_options(None, 0) == ()
    options = [address_options(ListenAddress("127.0.0.1", 9300), place)[-1] for place in range(3)]
    assert options == ["9301", "9302", "9303"]
    assert address_options(ListenAddress("::1", 0), 2) == (
        "--metrics-host",
        "::1",
        "--metrics-port",
        "0",
    )

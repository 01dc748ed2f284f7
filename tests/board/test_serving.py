"""`corral board` and the board of `corral dev`, as processes, over sockets."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from board.asking import DIGEST, PASSWORD

SECONDS = 20.0
SENT = {"sec-fetch-site": "same-origin", "accept": "text/html"}


class Program:
    """A running `corral`, and what it has written to stderr."""

    def __init__(self, folder: Path, cwd: Path, *arguments: str, **environment: str) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CORRAL_", "BULL_", "REDIS"))
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "corral", *arguments],
            env={
                **inherited,
                "PYTHONPATH": str(folder),
                "CORRAL_LOG_FORMAT": "json",
                **environment,
            },
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.said = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until the output matches a pattern."""
        deadline = time.monotonic() + SECONDS
        assert self.process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            while not (found := re.search(pattern, self.said)):
                left = deadline - time.monotonic()
                assert left > 0, f"not said in {SECONDS} s: {pattern}\n{self.said}"
                if selector.select(left):
                    part = os.read(self.process.stderr.fileno(), 65536).decode()
                    assert part, f"it ended without {pattern}\n{self.said}"
                    self.said += part
        return found

    def end(self, how: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal the process; returns its exit code and how many seconds it took to end."""
        started = time.monotonic()
        self.process.send_signal(how)
        _, rest = self.process.communicate(timeout=SECONDS)
        self.said += rest.decode()
        return self.process.returncode, time.monotonic() - started

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def program(
    plugin_folder: Path, tmp_path: Path, store_url: str
) -> Iterator[Callable[..., Program]]:
    """`program("board", CORRAL_ENV=…)`; on this test's store, unless that names another."""
    started: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        started.append(
            Program(plugin_folder, tmp_path, *arguments, **{"REDIS_URL": store_url, **environment})
        )
        return started[-1]

    yield start
    for each in started:
        each.close()


def url_of(program: Program) -> str:
    return program.until(r'"event": "board listening".*?"url": "(http://[^"]+?)/"')[1]


def link_of(program: Program) -> tuple[str, str]:
    found = program.until(r'"url": "(http://[^"]+)/login\?link=([^"]+)"')
    return found[1], found[2]


PRODUCTION = {"CORRAL_BOARD_ENABLED": "true", "CORRAL_BOARD_PASSWORD": str(DIGEST)}


def test_alone_in_production_it_lets_the_administrator_in(program: Callable[..., Program]) -> None:
    board = program("board", "--port", "0", **PRODUCTION)
    url = url_of(board)
    assert url.startswith("http://127.0.0.1:")
    assert "login?link" not in board.said, "a link is for development"
    with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
        assert client.get("/").headers["location"] == "/login"
        assert client.post("/login", data={"password": "wrong"}).status_code == 401
        assert client.post("/login", data={"password": PASSWORD}).status_code == 303
        page = client.get("/queues/letters")
        assert (page.status_code, "letters" in page.text) == (200, True)
        assert "server" not in page.headers
    assert board.end()[0] == 0
    assert PASSWORD not in board.said
    assert '"logger": "uvicorn' not in board.said, (
        "nothing went wrong, and nobody asked for an access log"
    )


def test_alone_in_development_it_prints_a_link(program: Callable[..., Program]) -> None:
    board = program("board", "--port", "0", CORRAL_ENV="development")
    url, link = link_of(board)
    with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
        assert client.get(f"/login?link={link}").status_code == 200
        assert client.post("/login", data={"link": link}).status_code == 303
        assert client.get("/workers").status_code == 200
    assert board.end(signal.SIGINT)[0] == 0


@pytest.mark.timing
@pytest.mark.parametrize("command", ["board", "dev"])
def test_sigterm_ends_it_at_once_although_streams_are_open(
    program: Callable[..., Program], command: str
) -> None:
    arguments = ("board", "--port", "0") if command == "board" else ("dev",)
    served = program(*arguments, CORRAL_ENV="development")
    url, link = link_of(served)
    with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
        client.post("/login", data={"link": link})
        with (
            client.stream("GET", "/live") as one,
            client.stream("GET", "/live?queue=letters") as other,
        ):
            firsts = [next(stream.iter_text()) for stream in (one, other)]
            assert all(first.startswith("retry:") for first in firsts)
            code, seconds = served.end()
    print(f"corral {command} ended {seconds:.2f} s after SIGTERM, with two streams open")
    assert code == 0
    assert seconds < 2.0


def test_dev_serves_the_board_beside_its_worker(program: Callable[..., Program]) -> None:
    """If another process has port 8765, the board takes another port, and the link has it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8765))
            taken.listen()
        except OSError:
            pass  # so it is
        dev = program("dev")
        url, link = link_of(dev)
        assert not url.endswith(":8765")
        dev.until("worker started")
        with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
            client.post("/login", data={"link": link})
            form = client.get("/queues/letters/add")
            token = re.search(r'name="csrf" value="(\w+)"', form.text)
            assert token
            added = client.post(
                "/queues/letters/add",
                data={"csrf": token[1], "data.to": "ada", "job_id": "from-the-board"},
            )
            assert added.status_code == 303
            deadline = time.monotonic() + SECONDS
            while "completed" not in client.get("/queues/letters/jobs/from-the-board").text:
                assert time.monotonic() < deadline
        assert dev.end()[0] == 0


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CORRAL_ENV": "production"}, None),
        ({"CORRAL_BOARD_ENABLED": "false"}, None),
        ({"CORRAL_ENV": "production", "CORRAL_BOARD_ENABLED": "1"}, "nothing checks who uses it"),
    ],
)
def test_dev_serves_no_board_where_it_is_off(
    program: Callable[..., Program], environment: dict[str, str], said: str | None
) -> None:
    dev = program("dev", **environment)
    if said is None:
        dev.until("worker started")
        assert dev.end()[0] == 0
    else:
        dev.until(said)
        assert dev.process.wait(SECONDS) == 2
    assert '"event": "board listening"' not in dev.said


def test_dev_goes_on_without_the_extra(
    program: Callable[..., Program], plugin_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['starlette'] = None\n")
    dev = program("dev", PYTHONPATH=f"{tmp_path}{os.pathsep}{plugin_folder}")
    dev.until("worker started")
    assert "the board is not served: the board needs starlette" in dev.said
    assert "install the extra 'board' from where you got corral" in dev.said
    assert dev.end()[0] == 0


def test_beyond_this_machine_it_warns_of_plain_http(program: Callable[..., Program]) -> None:
    board = program("board", "--port", "0", "--host", "0.0.0.0", **PRODUCTION)
    url_of(board)
    assert "plain http beyond this machine" in board.said
    assert "CORRAL_BOARD_HOSTS is not set" in board.said
    assert board.end()[0] == 0


def test_a_port_that_is_taken_is_one_sentence(program: Callable[..., Program]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        board = program("board", "--port", str(taken.getsockname()[1]), **PRODUCTION)
        board.until("address already in use")
        assert board.process.wait(SECONDS) == 2
    assert "Traceback" not in board.said


def test_it_starts_while_the_store_is_away(program: Callable[..., Program], tmp_path: Path) -> None:
    board = program("board", "--port", "0", REDIS_URL=f"unix://{tmp_path}/none.sock", **PRODUCTION)
    url = url_of(board)
    with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
        assert client.post("/login", data={"password": PASSWORD}).status_code == 303
        assert client.get("/").status_code == 503
    assert board.end()[0] == 0


RAW = [
    b"GET http://HOST/queues/letters HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET http://HOST/login/../queues/letters HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET /queues/letters HTTP/1.0\r\n\r\n",
    b"GET /queues/letters HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /queues/letters HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"TRACE /queues/letters HTTP/1.1\r\nHost: HOST\r\nCookie: secret=1\r\n\r\n",
    b"GET /queues/letters\x00 HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET //queues/letters HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET /login/..;/queues/letters HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET /static/../queues/letters HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET queues/letters HTTP/1.1\r\nHost: HOST\r\n\r\n",
    (
        b"POST /queues/letters HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    b"GET /live HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]


def test_no_request_line_gets_anything_without_a_session(program: Callable[..., Program]) -> None:
    """Through a real server, which has its own rules about paths."""
    board = program("board", "--port", "0", **PRODUCTION)
    address = url_of(board).removeprefix("http://")
    host, _, port = address.partition(":")
    for request in RAW:
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            connection.sendall(request.replace(b"HOST", address.encode()))
            answer = connection.recv(65536)
        assert re.match(rb"HTTP/1\.[01] (30[23]|4\d\d) ", answer), (request, answer)
        assert b"secret=1" not in answer
        assert b"letters" not in answer
    assert board.end()[0] == 0


LOGIN = "/login"
FROM = {**SENT, "content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("proxy", "peers"),
    [
        ("", "127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1"),
        ("127.0.0.1", "198.51.100."),
        ("127.0.0.0/8", "198.51.100."),
    ],
)
def test_x_forwarded_for_is_accepted_from_the_named_proxy_only(
    program: Callable[..., Program], proxy: str, peers: str
) -> None:
    """uvicorn's own variable is not read: by default it trusts every program on this machine."""
    board = program(
        "board",
        "--port",
        "0",
        CORRAL_BOARD_PROXY=proxy,
        FORWARDED_ALLOW_IPS="*",
        CORRAL_BOARD_HOSTS="q",
        **PRODUCTION,
    )
    url = url_of(board)
    believed = peers != "127.0.0.1"
    assert ("CORRAL_BOARD_PROXY is not set" in board.said) is not proxy
    with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
        forged = [{"x-forwarded-for": f"203.0.113.9, 198.51.100.{number}"} for number in range(11)]
        codes = [
            client.post(LOGIN, data={"password": "wrong"}, headers=each).status_code
            for each in forged
        ]
        assert codes == [401] * 10 + [401 if believed else 429], (
            "the last address is the one that the proxy itself saw"
        )
        last = client.post(
            LOGIN,
            data={"password": PASSWORD},
            headers={"x-forwarded-for": "198.51.100.77", "x-forwarded-proto": "https"},
        )
        if believed:
            assert last.status_code == 303
            assert last.headers["set-cookie"].startswith("__Host-corral_board=")
            assert "Secure" in last.headers["set-cookie"]
        else:
            assert last.status_code == 429
    assert board.end()[0] == 0
    refused = re.findall(r'"what": "login-refused".*?"address": "([^"]+)"', board.said)
    assert len(refused) == 10
    assert all(address.startswith(peers) for address in refused), refused


@pytest.mark.timing
def test_an_incomplete_request_is_cut_off_after_ten_seconds(
    program: Callable[..., Program],
) -> None:
    """Nothing at all, half a head, a byte now and then, half a body, half of a second request."""
    board = program("board", "--port", "0", **PRODUCTION)
    url = url_of(board)
    host, _, port = url.removeprefix("http://").partition(":")
    whole = f"GET /login HTTP/1.1\r\nHost: {host}\r\n\r\n"
    post = (
        f"POST /login HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\n"
        "Content-Length: 99\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\npassword="
    )
    half = f"GET /login HTTP/1.1\r\nHost: {host}\r\nX: "
    sent = {
        "nothing": "",
        "head": half,
        "drip": half,
        "body": post,
        "second": whole + half,
        "again": whole,
    }
    with contextlib.ExitStack() as opened, selectors.DefaultSelector() as selector:
        began = time.monotonic()
        for name, text in sent.items():
            connection = opened.enter_context(
                socket.create_connection((host, int(port)), timeout=SECONDS)
            )
            connection.sendall(text.encode())
            selector.register(connection, selectors.EVENT_READ, name)
        ended: dict[str, float] = {}
        said: dict[str, bytes] = dict.fromkeys(sent, b"")
        while len(ended) < len(sent):
            assert time.monotonic() < began + SECONDS, f"still open: {sent.keys() - ended.keys()}"
            for key, _ in selector.select(0.5):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(ConnectionResetError):
                    if part := key.fileobj.recv(65536):
                        if key.data == "again" and not said["again"]:
                            key.fileobj.sendall(half.encode())
                        said[key.data] += part
                        continue
                ended[key.data] = time.monotonic() - began
                selector.unregister(key.fileobj)
            for key in selector.get_map().values():
                if key.data in {"drip", "again"} and isinstance(key.fileobj, socket.socket):
                    with contextlib.suppress(OSError):
                        key.fileobj.sendall(b"x")
        with httpx2.Client(base_url=url, headers=SENT, trust_env=False) as client:
            assert client.get("/login").status_code == 200
    seconds = ", ".join(f"{name} {at:.1f} s" for name, at in sorted(ended.items()))
    print(f"half-sent requests ended after {seconds}")
    assert max(ended.values()) < 12.0
    assert all(ended[name] > 9.0 for name in ("nothing", "head", "drip", "body"))
    assert said["head"].startswith(b"HTTP/1.1 408 ")
    assert said["body"].startswith(b"HTTP/1.1 408 ")
    assert board.end()[0] == 0

"""Asks an ASGI application exactly what a test says: no client tidies paths up, adds headers, or
follows anything.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

import html5lib
import redis
from starlette.requests import Request

from corral.board import Identity, Role, passwords
from corral.board.passwords import Digest

HERE = {"sec-fetch-site": "same-origin"}
"""What a browser says when one of the board's own pages sends something."""
PAGE = {"accept": "text/html,application/xhtml+xml"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
HOST = "board.example.org"
PASSWORD = "correct horse battery"
SALT = b"the salt of tests"
DIGEST = Digest(2**14, 8, 1, SALT, passwords._scrypt(PASSWORD, 2**14, 8, 1, SALT))
"""The cheapest that is taken: every login of a test is hashed."""
ASGI_SECONDS = 15.0

PLUGIN = '''
"""Two queues, as a plugin declares them."""

from pydantic import Field, SecretStr

from corral import Payload, Processor, Queue, hookimpl


class Letter(Payload):
    to: str = "ada@example.org"
    text: str = ""
    pages: int = Field(default=1, ge=1)
    pin: SecretStr = SecretStr("")


letters = Queue("letters", Letter)
parcels = Queue("parcels", Letter)


@hookimpl
def corral_queues() -> list[Queue]:
    return [letters, parcels]


async def send(job) -> None:
    pass


@hookimpl
def corral_processors() -> list[Processor]:
    return [letters.processed_by(send), parcels.processed_by(send)]
'''


@dataclass(frozen=True)
class Got:
    """What was answered: `headers` in the order they were sent, names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that it sets."""
        set_ = [value.partition(";")[0] for name, value in self.headers if name == "set-cookie"]
        return dict(each.split("=", 1) for each in set_)


@lru_cache(maxsize=1)
def decoded(path: str) -> str:
    """A path as a server hands it on; kept, so that what asking costs is not taken for what
    answering does.
    """
    return unquote_to_bytes(path).decode("utf-8", "replace")


async def ask(
    app: Any,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | Mapping[str, Any] = b"",
    scheme: str = "http",
    host: str | None = HOST,
    address: str = "203.0.113.7",
    chunks: int = 0,
) -> Got:
    """One request.

    Args:
        target: As it stands in the request line, escapes and all.
        body: Bytes, or the fields of a form.
        chunks: Of a stream: how many parts of it are read before the browser goes.
    """
    if isinstance(body, Mapping):
        body, headers = urlencode(body, doseq=True).encode(), {**FORM, **(headers or {})}
    path, _, query = target.partition("?")
    given = {} if host is None else {"host": host}
    sent = {**given, "content-length": str(len(body)), **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": decoded(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in sent.items()
        ],
        "client": (address, 50000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    parts = [body[at : at + 65536] for at in range(0, len(body), 65536)] or [b""]
    gone = asyncio.Event()
    status, answered, received = 0, (), []

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status = message["status"]
            answered = tuple(
                (name.decode().lower(), value.decode("latin-1"))
                for name, value in message["headers"]
            )
            return
        received.append(message.get("body", b""))
        if not message.get("more_body") or (chunks and len(received) >= chunks):
            gone.set()

    async with asyncio.timeout(ASGI_SECONDS):
        await app(scope, receive, send)
    assert status, "nothing was answered"
    return Got(status, answered, b"".join(received))


class Host:
    """A host application's sessions: a header names somebody, and a table says what they are
    trusted with.
    """

    def __init__(self) -> None:
        self.roles: dict[str, Role | None] = {role.value: role for role in Role} | {
            "nobody-here": None
        }

    def who(self, request: Request) -> Identity | None:
        name = request.headers.get("x-user", "")
        return Identity(name, self.roles[name]) if name in self.roles else None


class Browser:
    """Somebody who looks at a board that is mounted in `Host`, or that they have logged in to.

    Args:
        app: The application.
        user: The name, for a host's session.
        mount: Where the board is.
    """

    def __init__(
        self, app: Any, user: str = "", mount: str = "", scheme: str = "http", host: str = HOST
    ) -> None:
        self.app = app
        self.mount = mount
        self.scheme = scheme
        self.host = host
        self.user = {"x-user": user} if user else {}
        self.cookies: dict[str, str] = {}

    async def ask(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Got:
        """One request, with the cookies that were set."""
        cookie = (
            {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
            if self.cookies
            else {}
        )
        given = {**self.user, **cookie, **(headers or {})}
        more = {"scheme": self.scheme, "host": self.host, **more}
        got = await ask(self.app, method, f"{self.mount}{target}", headers=given, **more)
        for name, value in got.cookies.items():
            if value in {"", '""'}:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return got

    async def see(self, target: str, status: int = 200) -> Got:
        """A page."""
        got = await self.ask("GET", target, headers=PAGE)
        assert got.status == status, (target, got.status, got.text[:2000])
        return got

    async def send(self, target: str, token: str, **fields: Any) -> Got:
        """A form, as a browser sends it."""
        return await self.ask(
            "POST", target, headers={**PAGE, **HERE}, body={"csrf": token, **fields}
        )

    async def token(self) -> str:
        """The token of this browser's forms."""
        return token_in((await self.see("/queues/letters/add")).text)

    async def log_in(self, **fields: str) -> Got:
        """Send the form of the login page."""
        return await self.ask("POST", "/login", headers={**PAGE, **HERE}, body=fields)


def token_in(page: str) -> str:
    """The token of a page's forms."""
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    return next(
        unescape(each.get("value")) for each in tree.iter("input") if each.get("name") == "csrf"
    )


def installed(folder: Path) -> Path:
    """Install a plugin with two queues into a folder, so that it is found when the folder is on the
    path.
    """
    package, metadata = folder / "board_test_queues.py", folder / "board_test_queues-1.0.dist-info"
    package.write_text(PLUGIN)
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: board-test-queues\nVersion: 1.0\n"
    )
    points = "[corral.queues]\nletters = board_test_queues\nparcels = board_test_queues\n"
    (metadata / "entry_points.txt").write_text(points)
    sys.modules.pop("board_test_queues", None)
    return folder


def dumped(client: redis.Redis) -> dict[bytes, tuple[Any, ...]]:
    """All that the store holds."""
    return {key: (client.dump(key), client.pttl(key) > 0) for key in sorted(client.keys("*"))}


def changed(before: Mapping[bytes, Any], after: Mapping[bytes, Any]) -> Sequence[bytes]:
    """The keys that are not what they were."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))

"""Sends exact requests to an ASGI application.

No client in between normalises paths, adds headers or follows redirects.
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
from corral.board.passwords import PasswordDigest

HERE = {"sec-fetch-site": "same-origin"}
"""The header that a browser adds to a request by one of the board's own pages."""
PAGE = {"accept": "text/html,application/xhtml+xml"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
HOST = "board.example.org"
PASSWORD = "correct horse battery"
SALT = b"the salt of tests"
DIGEST = PasswordDigest(2**14, 8, 1, SALT, passwords._scrypt(PASSWORD, 2**14, 8, 1, SALT))
"""The cheapest digest that is accepted: every login in a test is hashed."""
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
    """An answer; `headers` in the order in which they were sent, with names in lower case."""

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
        """The cookies that the answer sets."""
        set_ = [value.partition(";")[0] for name, value in self.headers if name == "set-cookie"]
        return dict(each.split("=", 1) for each in set_)


@lru_cache(maxsize=1)
def decoded(path: str) -> str:
    """A path as a server passes it on; cached, so that tests measure the board and not this."""
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
    """Send one request.

    Args:
        target: The target of the request line, with its escapes.
        body: Bytes, or the fields of a form.
        chunks: For a stream: how many parts are read before the browser disconnects.
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
    """A host application's session: a header names the reader, a table has their role."""

    def __init__(self) -> None:
        self.roles: dict[str, Role | None] = {role.value: role for role in Role} | {
            "nobody-here": None
        }

    def who(self, request: Request) -> Identity | None:
        name = request.headers.get("x-user", "")
        return Identity(name, self.roles[name]) if name in self.roles else None


class Browser:
    """A browser of a reader who uses a board in `Host`, or a board with its own login.

    Args:
        app: The application.
        user: The reader's name, for a host's session.
        mount: Where the board is mounted.
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
        """Send one request with the cookies that were set."""
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
        """Get a page, and check its status."""
        got = await self.ask("GET", target, headers=PAGE)
        assert got.status == status, (target, got.status, got.text[:2000])
        return got

    async def send(self, target: str, token: str, **fields: Any) -> Got:
        """Send a form as a browser does."""
        return await self.ask(
            "POST", target, headers={**PAGE, **HERE}, body={"csrf": token, **fields}
        )

    async def token(self) -> str:
        """Get the token of this browser's forms."""
        return token_in((await self.see("/queues/letters/add")).text)

    async def log_in(self, **fields: str) -> Got:
        """Send the form of the login page."""
        return await self.ask("POST", "/login", headers={**PAGE, **HERE}, body=fields)


def token_in(page: str) -> str:
    """The token in a page's forms."""
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    return next(
        unescape(each.get("value")) for each in tree.iter("input") if each.get("name") == "csrf"
    )


@dataclass
class Form:
    """The form in the middle of a page, as a browser has it.

    Attributes:
        target: Where it is sent.
        fields: The values of its fields, in the page's order.
        controls: Its elements, by the names of the fields.
        hints: What is said about a field, by its name.
    """

    target: str
    fields: dict[str, str]
    controls: dict[str, Any]
    hints: dict[str, str]

    @property
    def sent(self) -> dict[str, str]:
        """The fields as a browser sends them: each line break as CR LF."""
        pairs = {name: value.replace("\r\n", "\n") for name, value in self.fields.items()}
        return {
            _with_crlf(name): _with_crlf(value.replace("\r", "\n")) for name, value in pairs.items()
        }


def _with_crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


def form_in(page: str) -> Form:
    """Read the form of class `form` of a page, as HTML says that browsers do."""
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    form = next(each for each in tree.iter("form") if "form" in each.get("class", "").split())
    made = Form(form.get("action"), {}, {}, {})
    texts = {each.get("id"): "".join(each.itertext()) for each in form.iter("span")}
    for element in form.iter():
        name = element.get("name") if isinstance(element.tag, str) else None
        if name is None or element.tag not in {"input", "textarea", "select"}:
            continue
        assert name not in made.fields, f"two fields are called {name}"
        made.controls[name] = element
        made.hints[name] = texts.get(element.get("aria-describedby"), "")
        if element.tag == "textarea":
            made.fields[name] = "".join(element.itertext()).replace("\r", "\n")
        elif element.tag == "select":
            options = list(element.iter("option"))
            chosen = [each for each in options if each.get("selected") is not None]
            made.fields[name] = (chosen[-1] if chosen else options[0]).get("value")
        elif element.get("type") == "hidden":
            made.fields[name] = element.get("value", "")
        else:  # a field of one line: browsers take line breaks out
            made.fields[name] = element.get("value", "").translate({10: None, 13: None})
    return made


def installed(folder: Path) -> Path:
    """Install a plugin with two queues into a folder, which must then be put on the path."""
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
    """The whole content of the store."""
    return {key: (client.dump(key), client.pttl(key) > 0) for key in sorted(client.keys("*"))}


def changed(before: Mapping[bytes, Any], after: Mapping[bytes, Any]) -> Sequence[bytes]:
    """The keys whose content differs."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))

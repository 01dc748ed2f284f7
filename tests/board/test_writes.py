"""Only requests from the board's own pages change anything (S-04), and those do."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlencode

import pytest
import redis

from board.asking import FORM, HERE, HOST, PAGE, Browser, changed, dumped
from corral.board import Board, Identity, Role
from corral.board.request_guard import csrf_token
from corral.board.routes import ROUTES, Route
from corral.options import JobOptions
from corral.schedule import Every
from corral.store.queue_store import QueueStore
from corral.store.schedules import NewSchedule, Schedules

WAITING, DELAYED, FAILED, ASIDE = "waits", "delayed-1", "failed-1", "aside-1"
YES = {"confirmed": "on"}
WRITES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "/schedules/prune": ("", {}),
    "/queues/{queue}/pause": ("", {}),
    "/queues/{queue}/resume": ("", {}),
    "/queues/{queue}/limits": ("", {"concurrency": "3", "rate": "10", "per_seconds": "60"}),
    "/queues/{queue}/drain": ("", YES),
    "/queues/{queue}/clean": ("", {"state": "failed", **YES}),
    "/queues/{queue}/retry": ("", {"id": FAILED, **YES}),
    "/queues/{queue}/promote": ("", {"id": DELAYED, **YES}),
    "/queues/{queue}/remove": ("", {"id": WAITING, **YES}),
    "/queues/{queue}/quarantine/return": ("", {"id": ASIDE, **YES}),
    "/queues/{queue}/quarantine/discard": ("", {"id": ASIDE, **YES}),
    "/queues/{queue}/add": ("", {"data.to": "ada@example.org", "data.pages": "2"}),
    "/queues/{queue}/jobs/{job_id}/retry": (FAILED, {}),
    "/queues/{queue}/jobs/{job_id}/promote": (DELAYED, {}),
    "/queues/{queue}/jobs/{job_id}/remove": (WAITING, YES),
    "/queues/{queue}/jobs/{job_id}/edit": (
        WAITING,
        {"data.to": "grace@example.org", "data.pages": "3"},
    ),
}
"""Per route that writes: the job, and fields with which something is changed."""
ROUTES_THAT_WRITE = {route.pattern: route for route in ROUTES if route.method == "POST"}
SECRET = "the secret of this browser's forms"
ME = Identity("admin", Role.ADMIN)
TOKEN = csrf_token(SECRET, ME)
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Attack:
    """A request that is not from the board's own page.

    Attributes:
        headers: Its headers.
        token: The form's token; None for a form without one.
        method: The method.
        kind: How the fields are sent.
        user: Who is logged in.
    """

    headers: Mapping[str, str] = field(default_factory=lambda: HERE)
    token: str | None = TOKEN
    method: str = "POST"
    kind: str = "form"
    user: str = "admin"


OURS = f"http://{HOST}"
ATTACKS: Mapping[str, Attack] = {
    "no token": Attack(token=None),
    "an empty token": Attack(token=""),
    "a wrong token": Attack(token="0" * 64),
    "half a surrogate pair for a token": Attack(token="\u00ff" * 64),
    "the token of another session": Attack(token=csrf_token("another secret", ME)),
    "the token of another user": Attack(
        token=csrf_token(SECRET, Identity("operator", Role.OPERATOR))
    ),
    "the token in the address": Attack(token=None, kind="form, token in the address"),
    "cross-site": Attack({"sec-fetch-site": "cross-site"}),
    "cross-site, with our origin": Attack({"sec-fetch-site": "cross-site", "origin": OURS}),
    "same-site": Attack({"sec-fetch-site": "same-site"}),
    "typed by hand": Attack({"sec-fetch-site": "none"}),
    "a word nobody knows": Attack({"sec-fetch-site": "SAME-ORIGIN"}),
    "a foreign origin": Attack({"origin": "https://evil.example"}),
    "a foreign origin that begins as ours": Attack({"origin": f"{OURS}.evil.example"}),
    "our host with another port": Attack({"origin": f"{OURS}:8080"}),
    "our host as a user's name": Attack({"origin": f"http://{HOST}@evil.example"}),
    "our host of another scheme": Attack({"origin": f"chrome-extension://{HOST}"}),
    "an origin that is none": Attack({"origin": "http://[::1"}),
    "same-origin, with a foreign origin": Attack({**HERE, "origin": "https://evil.example"}),
    "null": Attack({"origin": "null"}),
    "neither header": Attack({}),
    "a referrer alone": Attack({"referer": f"{OURS}/"}),
    "plain text": Attack(kind="text/plain"),
    "multipart": Attack(kind="multipart"),
    "no type": Attack(kind="none"),
    "two types": Attack(kind="text/plain, application/json"),
    "JSON, cross-site": Attack({"sec-fetch-site": "cross-site"}, kind="json"),
    "JSON, neither header": Attack({}, kind="json"),
    "JSON, null": Attack({"origin": "null"}, kind="json"),
    "JSON called plain text": Attack(kind="json as text/plain"),
    "GET": Attack(method="GET", kind="query"),
    "GET with a form": Attack(method="GET"),
    "HEAD": Attack(method="HEAD", kind="query"),
    "GET that says it is a POST": Attack({**HERE, "x-http-method-override": "POST"}, method="GET"),
    "PUT": Attack(method="PUT"),
    "PATCH": Attack(method="PATCH"),
    "DELETE": Attack(method="DELETE"),
    "post": Attack(method="post"),
    "a viewer": Attack(token=csrf_token(SECRET, Identity("viewer", Role.VIEWER)), user="viewer"),
    "a viewer with JSON": Attack(kind="json", user="viewer"),
    "nobody": Attack(user=""),
    "somebody without a role": Attack(user="nobody-here"),
}


def sent(attack: Attack, fields: Mapping[str, str]) -> tuple[str, dict[str, str], bytes]:
    """The query, the headers and the body of a request."""
    given = {**fields, **({} if attack.token is None else {"csrf": attack.token})}
    form, as_json = urlencode(given).encode(), json.dumps(given).encode()
    match attack.kind:
        case "form":
            return "", FORM, form
        case "form, token in the address":
            return f"?csrf={TOKEN}", FORM, form
        case "query":
            return f"?{urlencode(given)}", {}, b""
        case "json":
            return "", JSON, as_json
        case "json as text/plain":
            return "", {"content-type": "text/plain"}, as_json
        case "multipart":
            parts = [
                f'--x\r\ncontent-disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'
                for n, v in given.items()
            ]
            return (
                "",
                {"content-type": "multipart/form-data; boundary=x"},
                "".join([*parts, "--x--\r\n"]).encode(),
            )
        case "none":
            return "", {}, form
        case kind:
            return "", {"content-type": kind}, form


async def staged(board: Board, store: redis.Redis, route: Route) -> Browser:
    """Jobs: waiting, delayed, failed, in quarantine; and a schedule that is no longer declared."""
    context = await board._contexts.open_context(ME)
    await context.jobs.enqueue("letters", {"to": "ada@example.org"}, job_id=WAITING)
    await context.jobs.enqueue("letters", {}, job_id=DELAYED, delay=timedelta(hours=1))
    await context.jobs.enqueue("letters", {}, job_id=FAILED)
    undeclared = NewSchedule("letters", "letters", b"{}", JobOptions(), Every(timedelta(hours=1)))
    await Schedules(QueueStore(context.link, "bull", "letters")).ensure(undeclared)
    now = int(time.time() * 1000)
    store.lrem("bull:letters:wait", 1, FAILED)
    store.zadd("bull:letters:failed", {FAILED: now})
    ended = {
        "failedReason": "no such street",
        "finishedOn": now,
        "processedOn": now,
        "atm": 1,
        "ats": 1,
    }
    store.hset(f"bull:letters:{FAILED}", mapping={**ended, "stacktrace": '["no such street"]'})
    kept = f"corral:bull:letters:quarantine:{ASIDE}"
    record = {
        "at": now,
        "from": "wait",
        "reason": f"bull:letters:{ASIDE} is a list, not a hash",
        "key": kept,
    }
    store.hset("corral:bull:letters:quarantine", ASIDE, json.dumps(record))
    store.hset(kept, mapping={"name": "letters", "data": "{}", "opts": "{}", "timestamp": now})
    if route.pattern.endswith("/resume"):
        await context.inspector.pause("letters")
    browser = Browser(board, "admin")
    browser.cookies["corral_board_form"] = SECRET
    return browser


def target(route: Route) -> str:
    return route.pattern.format(queue="letters", job_id=WRITES[route.pattern][0])


def test_every_write_is_in_the_table() -> None:
    assert WRITES.keys() == ROUTES_THAT_WRITE.keys()


@pytest.mark.asyncio
@pytest.mark.parametrize("route", ROUTES_THAT_WRITE.values(), ids=ROUTES_THAT_WRITE)
async def test_a_request_from_elsewhere_changes_nothing(
    board: Board, store: redis.Redis, route: Route
) -> None:
    browser = await staged(board, store, route)
    before = dumped(store)
    for name, attack in ATTACKS.items():
        query, headers, body = sent(attack, WRITES[route.pattern][1])
        browser.user = {"x-user": attack.user} if attack.user else {}
        for accept in ({}, PAGE):
            given = {**headers, **attack.headers, **accept}
            got = await browser.ask(
                attack.method, f"{target(route)}{query}", headers=given, body=body
            )
            assert changed(before, dumped(store)) == [], name
            assert got.status >= 400 or attack.method in {"GET", "HEAD"}, (name, got)
            assert got.status < 500, (name, got)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({**PAGE, **HERE}, "form"),
        ({**PAGE, **HERE, "origin": "null"}, "form"),
        ({**PAGE, **HERE, "origin": OURS}, "form"),
        ({"origin": OURS}, "json"),
        ({"origin": f"https://{HOST}"}, "json"),
    ],
    ids=[
        "a form",
        "a form of a page without referrer",
        "a script",
        "a program",
        "behind a proxy that ends TLS",
    ],
)
@pytest.mark.parametrize("route", ROUTES_THAT_WRITE.values(), ids=ROUTES_THAT_WRITE)
async def test_the_right_request_changes_something(
    board: Board, store: redis.Redis, route: Route, headers: dict[str, str], kind: str
) -> None:
    browser = await staged(board, store, route)
    before = dumped(store)
    right = Attack(headers=headers, kind=kind)
    _, types, body = sent(right, WRITES[route.pattern][1])
    got = await browser.ask("POST", target(route), headers={**types, **headers}, body=body)
    assert got.status == (303 if kind == "form" else 200), got
    keys = changed(before, dumped(store))
    assert any(b"bull:letters:" in key for key in keys)
    assert b"corral:bull:audit" in keys, "and the audit log has who did it"
    entry = store.xrevrange("corral:bull:audit", count=1)[0][1]
    assert entry[b"who"] == b"admin"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "pattern", [pattern for pattern, (_, fields) in WRITES.items() if "confirmed" in fields]
)
async def test_what_cannot_be_undone_asks_first(
    board: Board, store: redis.Redis, pattern: str
) -> None:
    route = ROUTES_THAT_WRITE[pattern]
    browser = await staged(board, store, route)
    before = dumped(store)
    fields = {name: value for name, value in WRITES[pattern][1].items() if name != "confirmed"}
    got = await browser.send(target(route), TOKEN, **fields)
    assert (got.status, changed(before, dumped(store))) == (200, [])
    assert 'name="confirmed"' in got.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x=" + b"y" * (4 * 1024 * 1024), FORM, 413),
        (b'{"x": "' + b"y" * (4 * 1024 * 1024) + b'"}', JSON, 413),
        (b"&".join(b"f%d=1" % number for number in range(2001)), FORM, 400),
        (b"a=%ff", FORM, 400),
        ("a=é".encode(), FORM, 400),
        (b"[" * 100_000, JSON, 400),
        (b"null", JSON, 400),
        (b'{"a": 1' + b"0" * 5000 + b"}", JSON, 400),
        (b'{"a": "\\udc00"}', JSON, 400),
        (b"", JSON, 400),
        (b"", FORM, 403),
    ],
    ids=range(11),
)
async def test_an_unusable_body(
    board: Board, store: redis.Redis, body: bytes, kind: dict[str, str], status: int
) -> None:
    browser = await staged(board, store, ROUTES_THAT_WRITE["/queues/{queue}/pause"])
    before = dumped(store)
    got = await browser.ask("POST", "/queues/letters/pause", headers={**HERE, **kind}, body=body)
    assert (got.status, changed(before, dumped(store))) == (status, [])


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_secret_of_forms_is_a_cookie_for_this_host_and_for_no_script(
    board: Board, scheme: str
) -> None:
    got = await Browser(board, "viewer", scheme=scheme).see("/")
    (cookie,) = [value for name, value in got.headers if name == "set-cookie"]
    name, *attributes = [part.strip().lower() for part in cookie.split(";")]
    prefix, secure = ("__host-", {"secure"}) if scheme == "https" else ("", set())
    assert name.startswith(f"{prefix}corral_board_form=")
    assert len(name.partition("=")[2]) == 43
    assert set(attributes) == {"httponly", "path=/", "samesite=strict"} | secure

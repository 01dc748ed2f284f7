"""Admission: strangers get nothing, and readers no more than their role (S-02 … S-13)."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

import corral.board
from board.asking import DIGEST, HERE, HOST, PAGE, Browser, Got, Host, ask
from corral.board import Action, Board, Identity, Role, routes, static_files
from corral.board.login import Login
from corral.board.request_guard import HEADERS, csrf_token
from corral.board.routes import ROUTES, Route

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
QUEUE, NO_QUEUE = "letters", "nothing"
TRICKS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda path: path,
    "two slashes": lambda path: f"/{path}",
    "a dot": lambda path: f"/.{path}",
    "dots": lambda path: f"/static/..{path}",
    "escaped dots": lambda path: f"/static/%2e%2e{path}",
    "escaped letter": lambda path: re.sub(
        r"[a-z]", lambda found: f"%{ord(found[0]):02x}", path, count=1
    ),
    "escaped slash": lambda path: "/" + path[1:].replace("/", "%2f"),
    "parameter": lambda path: f"{path};jsessionid=1",
    "parameter before": lambda path: f"/login;{path}",
    "case": lambda path: path.upper(),
    "slash behind": lambda path: f"{path}/",
    "NUL": lambda path: f"{path}%00",
    "overlong": lambda path: path.replace("/", "%c0%af", 1),
    "backslash": lambda path: path.replace("/", "%5c"),
    "query": lambda path: f"{path}?_method=GET&csrf=&link=&notice=retried",
    "absolute": lambda path: f"http://{HOST}{path}",
}
OVERRIDES = {
    "x-http-method-override": "GET",
    "x-original-url": "/login",
    "x-rewrite-url": "/login",
    "x-forwarded-prefix": "/static",
    "authorization": "Bearer null",
    "cookie": "corral_board=; corral_board_form=x",
}

MAY = """
             viewer operator admin
look         x      x        x
search       x      x        x
scrape       x      x        x
retry        -      x        x
promote      -      x        x
add          -      x        x
pause        -      x        x
resume       -      x        x
return       -      x        x
edit         -      -        x
remove       -      -        x
discard      -      -        x
drain        -      -        x
clean        -      -        x
limit        -      -        x
prune        -      -        x
audit        -      -        x
"""
ROWS = [line.split() for line in MAY.strip("\n").splitlines()]
ALLOWED = {
    (role, row[0]): mark == "x"
    for row in ROWS[1:]
    for role, mark in zip(ROWS[0], row[1:], strict=True)
}
ROUTE_NAMES = [f"{route.method} {route.pattern}" for route in ROUTES]


def path_of(route: Route, queue: str = QUEUE) -> str:
    return route.pattern.format(queue=queue, job_id="1")


@asynccontextmanager
async def alone() -> AsyncIterator[tuple[Any, str]]:
    board = Board(login=Login(DIGEST))
    yield board, ""
    await board.close()


@asynccontextmanager
async def mounted(host: Any) -> AsyncIterator[tuple[Any, str]]:
    board = Board(authorize=Host().who, login_url="/sign-in")
    if isinstance(host, FastAPI):
        host.mount("/admin/queues", board)
    else:
        host.routes.append(Mount("/admin/queues", board))
    yield host, "/admin/queues"
    await board.close()


SETTINGS: Mapping[str, Callable[[], Any]] = {
    "alone": alone,
    "Starlette": lambda: mounted(Starlette()),
    "FastAPI": lambda: mounted(FastAPI()),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("setting", SETTINGS)
async def test_no_trick_gets_anything_without_a_session(
    on: str, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """The answers do not depend on whether a queue exists: they are the same, byte by byte."""
    monkeypatch.setenv("CORRAL_BOARD_HOSTS", HOST)
    asked = 0
    async with SETTINGS[setting]() as (app, mount):
        for route in ROUTES:
            for trick in TRICKS.values():
                for method in METHODS:
                    headers = PAGE if asked % 2 else OVERRIDES
                    answers = []
                    for queue in (QUEUE, NO_QUEUE):
                        target = trick(path_of(route, queue))
                        absolute, _, below = (
                            target.rpartition(HOST)
                            if target.startswith("http")
                            else ("", "", target)
                        )
                        sent = f"{absolute}{HOST}{mount}{below}" if absolute else f"{mount}{target}"
                        got = await ask(app, method, sent, headers=headers)
                        assert not 200 <= got.status < 300, (method, target, got)
                        answers.append((got.status, got.headers, got.body))
                        asked += 1
                    # the host application itself may redirect, with the path in the address
                    said = [
                        repr(answer).replace(QUEUE, NO_QUEUE) if app is not None else ""
                        for answer in answers
                    ]
                    assert said[0] == said[1], (method, route.pattern)
    print(f"{asked:,} requests, {setting}")
    assert asked >= 2000


@pytest.mark.asyncio
async def test_alone_there_are_only_the_login_and_what_its_page_loads(on: str) -> None:
    board = Board(login=Login(DIGEST))
    statuses = {}
    for path in (
        "/login",
        static_files.file_url("board.css"),
        "/",
        "/live",
        "/metrics",
        "/openapi.json",
        "/docs",
    ):
        statuses[path] = (await ask(board, "GET", path, headers=PAGE, host="localhost")).status
    assert statuses.pop("/login") == statuses.pop(static_files.file_url("board.css")) == 200
    assert set(statuses.values()) == {302}
    await board.close()


@pytest.mark.asyncio
async def test_mounted_a_stranger_does_not_even_get_a_file(board: Board) -> None:
    path = static_files.file_url("board.css")
    assert (await ask(board, "GET", path)).status == 401
    assert (await Browser(board, "nobody-here").ask("GET", path)).status == 403
    assert (await Browser(board, "viewer").ask("GET", path)).status == 200


def test_the_matrix_names_every_action_and_every_role() -> None:
    assert {action for _, action in ALLOWED} == {str(action) for action in Action}
    assert {role for role, _ in ALLOWED} == {str(role) for role in Role}
    assert {route.needs for route in ROUTES} == set(Action), (
        "an action that no route needs, or a route without"
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_NAMES)
async def test_a_role_may_do_what_the_matrix_allows(board: Board, route: Route) -> None:
    """The server refuses, whatever pages show or hide (S-12)."""
    statuses: dict[str | None, int] = {}
    for role in (*Role, None):
        identity = Identity(role or "nobody-here", role)
        browser = Browser(board, identity.name)
        browser.cookies["corral_board_form"] = "secret"
        form = {"body": {"csrf": csrf_token("secret", identity)}} if route.method == "POST" else {}
        got = await browser.ask(
            route.method, path_of(route), headers={**PAGE, **HERE}, chunks=1, **form
        )
        statuses[role] = got.status
    assert {role: status != 403 for role, status in statuses.items()} == {
        **{role: ALLOWED[role, route.needs] for role in Role},
        None: False,
    }
    assert not set(statuses.values()) & {401, 405, 500}, statuses
    anonymous = await ask(board, route.method, path_of(route), headers=HERE)
    assert (anonymous.status, anonymous.body) == (401, b"Unauthorized")


@pytest.mark.asyncio
async def test_a_grant_that_is_taken_back_is_gone_with_the_next_request(
    board: Board, host: Host
) -> None:
    browser = Browser(board, "operator")
    token = await browser.token()
    assert (await browser.send("/queues/letters/pause", token)).status == 303
    host.roles["operator"] = Role.VIEWER
    assert (await browser.send("/queues/letters/resume", token)).status == 403
    assert (await browser.see("/queues/letters")).status == 200
    host.roles["operator"] = None
    assert (await browser.ask("GET", "/queues/letters", headers=PAGE)).status == 403
    del host.roles["operator"]
    assert (await browser.ask("GET", "/queues/letters", headers=PAGE)).status == 401


@pytest.mark.asyncio
async def test_every_answer_has_the_headers(
    on: str, monkeypatch: pytest.MonkeyPatch, host: Host, tmp_path: Path
) -> None:
    """Pages, files, errors, redirects, streams (S-08); and no header twice."""

    async def broken(_request: Any, _context: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(routes, "ROUTES", (*ROUTES, Route("GET", "/broken", broken, Action.LOOK)))
    board, alone = Board(authorize=host.who, login_url="/sign-in"), Board(login=Login(DIGEST))
    browser, local = Browser(board, "admin"), {"host": "localhost"}
    token = await browser.token()
    big = b"text=" + b"x" * (4 * 1024 * 1024)
    form = {"content-type": "application/x-www-form-urlencoded"}
    got: list[tuple[int, Got]] = [
        (200, await browser.see("/")),
        (200, await browser.ask("GET", "/")),
        (200, await browser.ask("HEAD", "/", headers=PAGE)),
        (200, await browser.ask("GET", "/metrics")),
        (200, await browser.ask("GET", static_files.file_url("board.css"))),
        (200, await browser.ask("GET", "/live", chunks=1)),
        (303, await browser.send("/queues/letters/pause", token)),
        (303, await browser.send("/queues/letters/resume", token)),
        (302, await ask(board, "GET", "/", headers=PAGE)),
        (401, await ask(board, "GET", "/")),
        (403, await Browser(board, "nobody-here").ask("GET", "/", headers=PAGE)),
        (403, await browser.send("/queues/letters/pause", "wrong")),
        (404, await browser.see("/nothing", 404)),
        (404, await browser.see("/queues/nothing", 404)),
        (405, await browser.ask("PUT", "/queues/letters", headers=PAGE)),
        (405, await browser.see("/queues/letters/pause", 405)),
        (413, await browser.ask("POST", "/queues/letters/add", headers={**HERE, **form}, body=big)),
        (
            415,
            await browser.ask(
                "POST", "/queues/letters/add", headers={**HERE, "content-type": "text/plain"}
            ),
        ),
        (
            400,
            await browser.ask(
                "POST", "/queues/letters/add", headers={**HERE, "content-type": "application/json"}
            ),
        ),
        (422, await browser.send("/queues/letters/add", token, **{"data.pages": "0"})),
        (500, await browser.see("/broken", 500)),
        (200, await ask(alone, "GET", "/login", headers=PAGE, **local)),
        (302, await ask(alone, "GET", "/", headers=PAGE, **local)),
        (
            401,
            await ask(alone, "POST", "/login", headers=HERE, body={"password": "wrong"}, **local),
        ),
        (403, await ask(alone, "POST", "/login", body={"password": "wrong"}, **local)),
        (405, await ask(alone, "PUT", "/login", **local)),
        (421, await ask(alone, "GET", "/login", host="evil.example")),
    ]
    for _ in range(10):
        last = await ask(alone, "POST", "/login", headers=HERE, body={"link": "no"}, **local)
    got.append((429, last))
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/none.sock")
    away = Board(authorize=host.who)
    got.append((503, await Browser(away, "viewer").see("/", 503)))
    monkeypatch.setenv("CORRAL_BOARD_ENABLED", "false")
    got.append((404, await ask(Board(authorize=host.who), "GET", "/")))
    for status, answer in got:
        assert answer.status == status, answer
        names = [name for name, _ in answer.headers]
        assert len(names) == len(set(names)), answer.headers
        wanted = dict(HEADERS)
        if "immutable" in (answer.header("cache-control") or ""):
            assert status == 200
            assert (answer.header("content-type") or "").startswith("text/css"), (
                "a file, and nothing else"
            )
            del wanted["cache-control"]
        assert {name: answer.header(name) for name in wanted} == wanted, (status, answer)
        assert not any(name.startswith("access-control") for name in names)
        assert answer.header("server") is None
    for made in (board, alone, away):
        await made.close()


def test_the_headers_are_those_of_the_specification() -> None:
    assert HEADERS["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )
    others = {name: value for name, value in HEADERS.items() if name != "content-security-policy"}
    assert others == {
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }


UP = (
    "..",
    "%2e%2e",
    ".%2e",
    "%2e.",
    "%252e%252e",
    "..%00",
    "..;",
    "....",
    "%c0%ae%c0%ae",
    "..%5c..",
)
TARGETS = ("/application.py", "/../settings.py", "%2fetc%2fpasswd", "/../../../../etc/passwd")


@pytest.mark.asyncio
@pytest.mark.parametrize("below", TARGETS)
@pytest.mark.parametrize("up", UP)
async def test_files_are_a_table_and_no_folder(board: Board, up: str, below: str) -> None:
    got = await Browser(board, "admin").ask("GET", f"/static/{up}{below}", headers=PAGE)
    assert got.status == 404
    assert "import" not in got.text
    assert "root:" not in got.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path", ["/static/", "/static", "/static/board.css", "/static/board.000000000000.css"]
)
async def test_a_file_has_one_name(board: Board, path: str) -> None:
    assert (await Browser(board, "admin").ask("GET", path)).status == 404


@pytest.mark.asyncio
@pytest.mark.parametrize("environment", ["production", "staging", "test", "development"])
async def test_a_traceback_is_shown_in_development_only(
    on: str,
    monkeypatch: pytest.MonkeyPatch,
    host: Host,
    environment: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_request: Any, _context: Any) -> Any:
        raise RuntimeError("canary-7731")

    monkeypatch.setattr(routes, "ROUTES", (Route("GET", "/broken", broken, Action.LOOK),))
    monkeypatch.setenv("CORRAL_ENV", environment)
    board = Board(authorize=host.who)
    for headers in (PAGE, {"accept": "application/json"}):
        got = await Browser(board, "admin").ask("GET", "/broken", headers=headers)
        assert got.status == 500
        assert ("canary-7731" in got.text) == (environment == "development")
        assert (got.header("content-type") or "").startswith("text/plain"), "no page is made of it"
    assert "canary-7731" in caplog.text, "the log has it"
    await board.close()


@pytest.mark.asyncio
async def test_the_metrics_token_opens_the_metrics_and_nothing_else(
    on: str, monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    token = "a-token-of-thirty-two-characters-or-more"
    monkeypatch.setenv("CORRAL_BOARD_METRICS_TOKEN", token)
    board = Board(authorize=host.who)
    statuses = {}
    for given in (
        f"Bearer {token}",
        f"bearer {token}",
        f"Bearer {token} ",
        "Bearer",
        f"Basic {token}",
        "Bearer \xff",
    ):
        statuses[given] = (
            await ask(board, "GET", "/metrics", headers={"authorization": given})
        ).status
    assert statuses.pop(f"Bearer {token}") == 200
    assert set(statuses.values()) == {401}
    with_token = {"authorization": f"Bearer {token}"}
    for path in ("/", "/queues/letters", "/live", "/metrics/", "//metrics", "/%6detrics"):
        assert (await ask(board, "GET", path, headers=with_token)).status == 401
    posted = await ask(board, "POST", "/metrics", headers={**with_token, **HERE}, body={})
    assert posted.status in {401, 405}
    await board.close()


SECRETS = re.compile(r"secret|token|password|digest|csrf|link|key|cookie", re.IGNORECASE)


def comparisons(path: Path) -> Iterator[tuple[str, int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare) and any(
            isinstance(each, ast.Eq | ast.NotEq) for each in node.ops
        ):
            for side in (node.left, *node.comparators):
                yield path.name, node.lineno, ast.unparse(side)


def test_no_secret_is_compared_with_equals() -> None:
    """`==` stops at the first wrong character: its time would reveal how many are right (S-06)."""
    folder = Path(corral.board.__file__).parent
    found = [
        (name, line, text)
        for path in folder.rglob("*.py")
        for name, line, text in comparisons(path)
        if SECRETS.search(text) and not re.search(r"^len\(|\.cost|^'\w+'$|^[A-Z_]+$", text)
    ]
    assert found == []


def test_that_rule_would_find_one(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("if given == self.token: pass\n")
    assert [text for _, _, text in comparisons(path) if SECRETS.search(text)] == ["self.token"]

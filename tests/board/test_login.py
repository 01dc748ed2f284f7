"""The board's own login: password, login links, sessions (S-05, S-06, S-09)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import pytest_asyncio
import redis

from board.asking import DIGEST, HERE, PAGE, PASSWORD, Browser, ask, token_in
from corral.board import Board
from corral.board import login as login_module
from corral.board.login import Login
from corral.board.sessions import LoginPacer

COOKIE = "corral_board"
LOCAL = "localhost:8765"


@dataclass
class Clock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def login(clock: Clock) -> Login:
    return Login(DIGEST, clock=clock)


@pytest_asyncio.fixture
async def alone(on: str, login: Login) -> AsyncIterator[Board]:
    made = Board(login=login)
    yield made
    await made.close()


@pytest.fixture
def browser(alone: Board) -> Browser:
    return Browser(alone, host=LOCAL)


@pytest.mark.asyncio
async def test_a_page_leads_to_the_login_and_the_password_to_the_page(browser: Browser) -> None:
    sent_away = await browser.ask("GET", "/", headers=PAGE)
    assert (sent_away.status, sent_away.header("location")) == (302, "/login")
    assert (await browser.ask("GET", "/queues/letters")).status == 401, "data"
    assert "Administrator" in (await browser.see("/login")).text
    inside = await browser.log_in(password=PASSWORD)
    assert (inside.status, inside.header("location")) == (303, "/")
    assert "letters" in (await browser.see("/")).text


@pytest.mark.asyncio
async def test_a_link_into_the_board_is_followed_after_the_login(browser: Browser) -> None:
    wanted = "/queues/letters?state=failed&q=a%2Fb%20c"
    sent_away = await browser.ask("GET", wanted, headers=PAGE)
    at = sent_away.header("location") or ""
    assert at == "/login?next=%2Fqueues%2Fletters%3Fstate%3Dfailed%26q%3Da%252Fb%2520c"
    (action,) = re.findall(r'action="([^"]+)"', (await browser.see(at)).text)
    assert action == at
    wrong = await browser.ask("POST", action, headers={**PAGE, **HERE}, body={"password": "wrong"})
    assert re.findall(r'action="([^"]+)"', wrong.text) == [at], "still on the way"
    right = await browser.ask("POST", action, headers={**PAGE, **HERE}, body={"password": PASSWORD})
    assert (right.status, right.header("location")) == (303, wanted)
    assert (await browser.ask("GET", at, headers=PAGE)).header("location") == wanted, (
        "who is inside goes on at once"
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "elsewhere",
    [
        *(
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "evil",
            "",
            "/\t/evil.example",
        ),
        *(
            "/\n/evil.example",
            "/x\r\nset-cookie:a=1",
            "/%0d%0a\u0000",
            "javascript:alert(1)",
            "/" + "x" * 1100,
            "/é",
        ),
    ],
)
async def test_a_login_leads_to_no_other_host(browser: Browser, elsewhere: str) -> None:
    at = f"/login?{urlencode({'next': elsewhere})}"
    (action,) = re.findall(r'action="([^"]+)"', (await browser.see(at)).text)
    assert action == "/login"
    inside = await browser.ask("POST", at, headers={**PAGE, **HERE}, body={"password": PASSWORD})
    assert (inside.status, inside.header("location")) == (303, "/")


@pytest.mark.asyncio
async def test_the_same_with_json(browser: Browser) -> None:
    headers = {"content-type": "application/json", "origin": f"http://{LOCAL}"}
    wrong = await browser.ask("POST", "/login", headers=headers, body=b'{"password": "wrong"}')
    assert (wrong.status, json.loads(wrong.body)) == (401, {"message": "this is not the password"})
    right = await browser.ask(
        "POST", "/login", headers=headers, body=json.dumps({"password": PASSWORD}).encode()
    )
    assert (right.status, json.loads(right.body)) == (200, {"done": "logged in"})
    assert (await browser.ask("GET", "/")).status == 200
    out = await browser.ask("POST", "/logout", headers=headers, body=b"{}")
    assert (out.status, (await browser.ask("GET", "/")).status) == (200, 401)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("scheme", "name", "secure"), [("http", COOKIE, False), ("https", f"__Host-{COOKIE}", True)]
)
async def test_the_cookie_is_for_this_host_and_for_no_script(
    alone: Board, scheme: str, name: str, secure: bool
) -> None:
    browser = Browser(alone, scheme=scheme, host=LOCAL)
    inside = await browser.log_in(password=PASSWORD)
    (set_,) = [value for header, value in inside.headers if header == "set-cookie"]
    named, *attributes = [part.strip().lower() for part in set_.split(";")]
    assert named.startswith(f"{name}=".lower())
    wanted = {"httponly", "path=/", "samesite=strict"} | ({"secure"} if secure else set())
    assert set(attributes) == wanted, "and neither a domain nor an age"
    assert (await browser.see("/")).status == 200


@pytest.mark.asyncio
async def test_under_tls_a_cookie_without_the_prefix_is_ignored(alone: Board) -> None:
    """Such a cookie may have been set by a neighbouring host, or over plain http."""
    browser = Browser(alone, host=LOCAL)
    await browser.log_in(password=PASSWORD)
    browser.scheme = "https"
    assert (await browser.ask("GET", "/")).status == 401


@pytest.mark.asyncio
async def test_a_login_begins_a_new_session_and_ends_the_one_that_was(browser: Browser) -> None:
    """A key that was planted in the browser before is not valid afterwards (session fixation)."""
    browser.cookies[COOKIE] = "planted"
    await browser.log_in(password=PASSWORD)
    first = browser.cookies[COOKIE]
    assert first != "planted"
    await browser.log_in(password=PASSWORD)
    assert browser.cookies[COOKIE] != first
    assert (await browser.ask("GET", "/")).status == 200
    for dead in (first, "planted"):
        browser.cookies[COOKIE] = dead
        assert (await browser.ask("GET", "/")).status == 401


@pytest.mark.asyncio
async def test_after_the_logout_the_cookie_opens_nothing(browser: Browser) -> None:
    await browser.log_in(password=PASSWORD)
    key, token = browser.cookies[COOKIE], token_in((await browser.see("/")).text)
    forged = await browser.send("/logout", "wrong")
    assert (forged.status, (await browser.ask("GET", "/")).status) == (403, 200)
    out = await browser.send("/logout", token)
    assert (out.status, out.header("location")) == (303, "/login")
    assert COOKIE not in browser.cookies
    browser.cookies[COOKIE] = key
    assert (await browser.ask("GET", "/")).status == 401, "a replay"
    assert (await browser.send("/queues/letters/pause", token)).status == 401


@pytest.mark.asyncio
@pytest.mark.parametrize(("seconds", "status"), [(12 * 3600 - 1, 200), (12 * 3600, 401)])
async def test_a_session_lasts_twelve_hours_whatever_is_done(
    browser: Browser, clock: Clock, seconds: float, status: int
) -> None:
    await browser.log_in(password=PASSWORD)
    began = clock.seconds
    while clock.seconds + 3000 < began + seconds:
        clock.seconds += 3000
        assert (await browser.ask("GET", "/workers")).status == 200
    clock.seconds = began + seconds
    assert (await browser.ask("GET", "/workers")).status == status


@pytest.mark.asyncio
async def test_a_session_ends_after_an_hour_in_which_nothing_was_asked(
    browser: Browser, clock: Clock
) -> None:
    await browser.log_in(password=PASSWORD)
    clock.seconds += 3599
    assert (await browser.ask("GET", "/workers")).status == 200
    clock.seconds += 3600
    assert (await browser.ask("GET", "/workers")).status == 401


@pytest.mark.asyncio
async def test_an_open_page_keeps_no_session_alive_by_itself(
    browser: Browser, clock: Clock
) -> None:
    await browser.log_in(password=PASSWORD)
    for path in ("/live", "/workers"):
        clock.seconds += 1700
        assert (
            await browser.ask("GET", path, headers={"hx-request": "true"}, chunks=1)
        ).status == 200
    clock.seconds += 300
    assert (await browser.ask("GET", "/workers")).status == 401


@pytest.mark.asyncio
async def test_a_link_is_good_once_and_looking_at_it_uses_nothing_up(
    browser: Browser, login: Login
) -> None:
    path = login.new_link()
    key = path.partition("=")[2]
    assert len(key) >= 43, "32 bytes"
    for method in ("GET", "HEAD", "GET"):
        assert (await browser.ask(method, path, headers=PAGE)).status == 200
    assert key in (await browser.see(path)).text
    assert (await browser.log_in(link=key)).status == 303
    assert (await browser.ask("GET", "/")).status == 200
    other = Browser(browser.app, host=LOCAL)
    assert (await other.log_in(link=key)).status == 401, "a second time"
    assert (await other.ask("GET", "/")).status == 401


@pytest.mark.asyncio
@pytest.mark.parametrize(("seconds", "status"), [(899, 303), (900, 401)])
async def test_a_link_is_good_for_a_quarter_of_an_hour(
    browser: Browser, login: Login, clock: Clock, seconds: float, status: int
) -> None:
    key = login.new_link().partition("=")[2]
    clock.seconds += seconds
    assert (await browser.log_in(link=key)).status == status


@pytest.mark.asyncio
async def test_without_a_password_only_links_log_in(on: str) -> None:
    login = Login()
    board = Board(login=login)
    browser = Browser(board, host=LOCAL)
    assert "password" not in (await browser.see("/login")).text
    for password in ("", PASSWORD):
        assert (await browser.log_in(password=password)).status == 401
    assert (await browser.log_in(link=login.new_link().partition("=")[2])).status == 303
    await board.close()


@pytest.mark.asyncio
async def test_the_eleventh_attempt_in_a_minute_is_not_checked(
    browser: Browser, clock: Clock
) -> None:
    """Not even the right password: otherwise the answer would reveal it."""
    for _ in range(10):
        assert (await browser.log_in(password="wrong")).status == 401
        clock.seconds += 1
    late = await browser.log_in(password=PASSWORD)
    assert (late.status, late.header("retry-after"), late.cookies) == (429, "50", {})
    assert (
        await browser.ask("POST", "/login", headers=HERE, body={"password": PASSWORD})
    ).status == 429
    elsewhere = await browser.ask(
        "POST", "/login", headers=HERE, body={"password": PASSWORD}, address="198.51.100.9"
    )
    assert elsewhere.status == 200, "another address"
    clock.seconds += 49
    assert (await browser.log_in(password=PASSWORD)).status == 429
    clock.seconds += 1
    assert (await browser.log_in(password=PASSWORD)).status == 303


@pytest.mark.asyncio
async def test_one_ipv6_network_counts_as_one_address(browser: Browser) -> None:
    for number in range(10):
        got = await browser.ask(
            "POST", "/login", headers=HERE, body={"link": "no"}, address=f"2001:db8:1:2::{number}"
        )
        assert got.status == 401
    same = await browser.ask(
        "POST", "/login", headers=HERE, body={"link": "no"}, address="2001:db8:1:2:ffff::1"
    )
    other = await browser.ask(
        "POST", "/login", headers=HERE, body={"link": "no"}, address="2001:db8:1:3::1"
    )
    assert (same.status, other.status) == (429, 401)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site", "origin": f"http://{LOCAL}"},
    ],
)
async def test_another_site_can_neither_log_in_nor_use_up_attempts(
    browser: Browser, login: Login, headers: dict[str, str]
) -> None:
    key = login.new_link().partition("=")[2]
    for _ in range(12):
        got = await browser.ask("POST", "/login", headers={**PAGE, **headers}, body={"link": key})
        assert (got.status, got.cookies) == (403, {})
    assert (await browser.log_in(link=key)).status == 303


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "text/plain"}, b"password=x", 415),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({"content-type": "application/json"}, b"[1]", 400),
        ({"content-type": "application/json"}, b'{"password": "\\ud800"}', 400),
        ({"content-type": "application/json"}, b"{" * 10_000, 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"password=%ff", 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"password=" + b"x" * 20_000, 413),
        ({"content-type": "application/x-www-form-urlencoded"}, b"password=" + b"x" * 2_000, 401),
        ({"content-type": "application/x-www-form-urlencoded"}, b"", 401),
    ],
)
async def test_an_unusable_login(
    browser: Browser, headers: dict[str, str], body: bytes, status: int
) -> None:
    got = await browser.ask("POST", "/login", headers={**HERE, **headers}, body=body)
    assert (got.status, got.cookies) == (status, {})


@pytest.mark.asyncio
async def test_other_methods_of_the_login(browser: Browser) -> None:
    for method, path in (
        ("PUT", "/login"),
        ("DELETE", "/login"),
        ("GET", "/logout"),
        ("OPTIONS", "/logout"),
    ):
        got = await browser.ask(method, path, headers=HERE)
        assert (got.status, "POST" in (got.header("allow") or "")) == (405, True)


@pytest.mark.asyncio
async def test_logins_refused_ones_and_logouts_are_in_the_audit_log(
    browser: Browser, store: redis.Redis
) -> None:
    await browser.log_in(password="wrong")
    await browser.log_in(password=PASSWORD)
    await browser.send("/logout", token_in((await browser.see("/")).text))
    entries = [fields for _, fields in store.xrange("corral:bull:audit")]
    assert [(each[b"who"], each[b"what"]) for each in entries] == [
        (b"nobody", b"login-refused"),
        (b"admin", b"login"),
        (b"admin", b"logout"),
    ]
    assert json.loads(entries[1][b"after"]) == {"by": "password", "address": "203.0.113.7"}


@pytest.mark.asyncio
async def test_a_flood_of_refused_logins_pushes_nothing_out_of_the_audit_log(
    browser: Browser, store: redis.Redis
) -> None:
    for number in range(30):
        await browser.ask(
            "POST", "/login", headers=HERE, body={"link": "no"}, address=f"198.51.100.{number}"
        )
    assert store.xlen("corral:bull:audit") == 10


@pytest.mark.asyncio
async def test_one_can_log_in_while_the_store_is_away(
    on: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/none.sock")
    board = Board(login=Login(DIGEST))
    browser = Browser(board, host=LOCAL)
    assert (await browser.log_in(password=PASSWORD)).status == 303
    assert (await browser.ask("GET", "/")).status == 503
    await board.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("board.example.org", 200),
        ("board.example.org:443", 200),
        ("evil.example", 421),
        ("board.example.org.evil.example", 421),
        ("evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("localhost@evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("[::1", 421),
        ("", 421),
        (None, 421),
    ],
)
async def test_only_a_request_for_one_of_our_names_is_answered(
    on: str, monkeypatch: pytest.MonkeyPatch, host: str | None, status: int
) -> None:
    """Another name may have been made to resolve to this machine (DNS rebinding, S-09)."""
    monkeypatch.setenv("CORRAL_BOARD_HOSTS", "Board.example.org, queues.internal")
    board = Board(login=Login(DIGEST))
    assert (await ask(board, "GET", "/login", host=host)).status == status
    posted = await ask(
        board, "POST", "/login", host=host, headers=HERE, body={"password": PASSWORD}
    )
    assert posted.status == status
    await board.close()


def test_thirty_attempts_of_all_addresses_go_at_once_and_each_further_one_waits_its_turn(
    clock: Clock,
) -> None:
    pacer = LoginPacer(clock)
    waits = [pacer.reserve_turn(f"198.51.100.{number}") for number in range(50)]
    assert waits[:30] == [0.0] * 30
    assert waits[30:45] == [2.0 * turn for turn in range(1, 16)]
    assert waits[45:] == [None] * 5, (
        "nobody waits for more than 30 s, and who is turned away takes no turn"
    )
    clock.seconds += 2.0
    assert pacer.reserve_turn("192.0.2.1") == 30.0
    clock.seconds += 600.0
    assert [pacer.reserve_turn("192.0.2.2") for _ in range(31)] == [0.0] * 30 + [2.0]


def test_an_address_that_has_logged_in_never_waits_and_takes_no_turn(clock: Clock) -> None:
    pacer = LoginPacer(clock)
    pacer.remember("198.51.100.1")
    pacer.remember("2001:db8:1:2::1")
    assert [pacer.reserve_turn("198.51.100.1") for _ in range(100)] == [0.0] * 100
    assert pacer.reserve_turn("2001:db8:1:2:3::4") == 0.0, "its network"
    assert [pacer.reserve_turn("198.51.100.2") for _ in range(31)] == [0.0] * 30 + [2.0]
    assert pacer.reserve_turn("198.51.100.1") == 0.0
    for number in range(1000):
        pacer.remember(f"10.0.{number // 250}.{number % 250}")
    assert pacer.reserve_turn("198.51.100.1") != 0.0, "so many are remembered"


@pytest.mark.asyncio
async def test_a_flood_from_many_addresses_slows_neither_a_session_nor_a_known_address(
    alone: Board, browser: Browser, login: Login, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def moved(seconds: float) -> None:
        waited.append(seconds)

    async def tried(address: str, password: str = "wrong") -> int:
        sent = await Browser(alone, host=LOCAL).ask(
            "POST", "/login", headers=HERE, body={"password": password}, address=address
        )
        return sent.status

    assert await tried("198.51.100.250", PASSWORD) == 200
    assert (await browser.log_in(password=PASSWORD)).status == 303
    clock.seconds += 600.0
    monkeypatch.setattr(login_module.asyncio, "sleep", moved)
    codes = [await tried(f"198.51.100.{number}") for number in range(50)]
    assert codes == [401] * 45 + [429] * 5
    assert waited == [0.0] * 30 + [2.0 * turn for turn in range(1, 16)]
    assert await tried("192.0.2.1", PASSWORD) == 429, "a new address, at the height of it"
    clock.seconds += 10.0
    waited.clear()
    assert await tried("192.0.2.1", PASSWORD) == 200, "and it gets its turn"
    assert waited.pop() > 0.0
    assert await tried("198.51.100.250", PASSWORD) == 200
    elsewhere = await browser.ask(
        "POST",
        "/login",
        headers={**PAGE, **HERE},
        body={"password": PASSWORD},
        address="192.0.2.77",
    )
    assert elsewhere.status == 303, "somebody who is logged in"
    assert waited == [0.0, 0.0]

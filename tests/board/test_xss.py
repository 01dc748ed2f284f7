"""Data never becomes an element or an attribute of a page (S-07).

Each page is read as browsers read it (html5lib), once with hostile texts and once with words of the
same shape: both have the same elements with the same attributes.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlencode

import html5lib
import pytest
import redis

from board.asking import Browser, Host
from board.hostile import PAYLOADS, fill, lists, pages
from corral.board import Board, Identity, Role
from corral.board.login import Login
from corral.board.request_guard import csrf_token
from corral.inspector import OrphanSearch
from corral.inspector.orphans import declared_names

WORDS = [
    # a form shows a text with such a character in a field of several lines
    f"harmless{number}" + ("\u2028" if {"\u2028", "\x00"} & {*text} else "")
    for number, text in enumerate(PAYLOADS)
]
GROUPS = [slice(start, start + 10) for start in range(0, 60, 10)]
TAGS = frozenset(
    [
        "a",
        "b",
        "body",
        "button",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "form",
        "h1",
        "h2",
        "head",
        "header",
        "html",
        "input",
        "label",
        "legend",
        "li",
        "link",
        "main",
        "meta",
        "nav",
        "noscript",
        "ol",
        "option",
        "p",
        "pre",
        "progress",
        "rect",
        "script",
        "section",
        "select",
        "small",
        "span",
        "summary",
        "svg",
        "table",
        "tbody",
        "td",
        "textarea",
        "th",
        "thead",
        "time",
        "title",
        "tr",
        "ul",
    ]
)
"""The elements in our templates; no `img`, `iframe`, `style` or `base` among them."""

Shape = list[tuple[str, tuple[str, ...]]]


def test_there_are_sixty_payloads() -> None:
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 60


def shape(page: str) -> Shape:
    """The elements of a page with the names of their attributes; only our own scripts run."""
    found: Shape = []
    for element in html5lib.parse(page, namespaceHTMLElements=False).iter():
        if not isinstance(element.tag, str):
            raise TypeError("a comment")
        tag = element.tag.rpartition("}")[2]
        assert tag in TAGS, tag
        for name, value in element.attrib.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name in {"href", "src", "action", "formaction", "data-live"} and value:
                assert value.startswith(("/", "#")), (tag, name, value)
                assert not value.startswith("//"), (tag, name, value)
        if tag in {"script", "style"}:
            assert not (element.text or "").strip(), "a script of its own"
            assert element.get("src", "").startswith("/static/")
        found.append((tag, tuple(sorted(map(str, element.attrib)))))
    return found


def named(url: str, texts: list[str]) -> Iterator[redis.Redis]:
    """Connections named as BullMQ's workers, as far as the store accepts the name."""
    base = base64.b64encode(b"letters").decode()
    for text in texts:
        client = redis.Redis.from_url(url)
        name = f"bull:{base}:w:{text}"
        if all("!" <= character <= "~" for character in name):
            client.client_setname(name)
        yield client


async def shapes(board: Board, store: redis.Redis, texts: list[str]) -> dict[str, Shape]:
    """The shape of every page, by page."""
    store.flushall()
    fill(store, texts)
    if (shared := board._contexts._shared) is not None:
        shared.cache.clear()
        search = OrphanSearch(shared.prefix, declared_names(shared.catalog))
        board._contexts._shared = replace(shared, orphan_search=search)
    browser = Browser(board, "admin")
    browser.cookies["corral_board_form"] = "secret"
    token = csrf_token("secret", Identity("admin", Role.ADMIN))
    found = {path: shape((await browser.see(path)).text) for path in lists()}
    for at, text in enumerate(texts):
        for number, (path, status) in enumerate(pages(text)):
            found[f"{at} page {number}"] = shape((await browser.see(path, status)).text)
        fields = {
            "data.to": text,
            "data.text": text,
            "data.pages": f"x{text}",
            "job_id": text,
            "delay_seconds": text,
        }
        sent_back = await browser.send(
            "/queues/letters/add", token, **fields, priority=text, attempts=text
        )
        asked = await browser.send(
            "/queues/letters/remove", token, id=[text, text], q=text, state=text
        )
        refused = await browser.send("/queues/letters/clean", token, state=text)
        assert (sent_back.status, asked.status, refused.status) == (422, 200, 400), text
        found |= {f"{at} sent back": shape(sent_back.text), f"{at} confirm": shape(asked.text)}
        found[f"{at} refused"] = shape(refused.text)
    return found


@pytest.mark.corral_untidy("what other clients may write: ids, fields and keys that ours never do")
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "group", GROUPS, ids=[f"{group.start}-{group.stop - 1}" for group in GROUPS]
)
async def test_no_page_has_an_element_of_data(
    board: Board, store: redis.Redis, on: str, group: slice
) -> None:
    harmless = await shapes(board, store, WORDS[group])
    clients = list(named(on, PAYLOADS[group]))
    try:
        harmful = await shapes(board, store, PAYLOADS[group])
    finally:
        for client in clients:
            client.close()
    # of connections only those that the store takes such a name of are there: other rows, and none
    # is there twice
    harmful_rows, harmless_rows = (
        Counter(harmful.pop("/workers")),
        Counter(harmless.pop("/workers")),
    )
    assert harmful_rows.keys() <= harmless_rows.keys()
    assert harmless.keys() == harmful.keys()
    for page, elements in harmless.items():
        assert harmful[page] == elements, page
    print(f"{len(harmful)} pages with {len(PAYLOADS[group])} payloads in every field")


@pytest.mark.corral_untidy("what other clients may write: ids, fields and keys that ours never do")
@pytest.mark.asyncio
async def test_as_json_a_page_is_never_html(board: Board, store: redis.Redis) -> None:
    fill(store, PAYLOADS[:10])
    browser = Browser(board, "admin")
    paths = [*lists(), *(path for path, _ in pages(PAYLOADS[0]))]
    for path in paths:
        got = await browser.ask("GET", path, headers={"accept": "application/json"})
        assert got.status < 500, (path, got)
        assert got.header("content-type") == "application/json"
        assert got.header("x-content-type-options") == "nosniff"
        json.loads(got.body)


@pytest.mark.asyncio
@pytest.mark.parametrize("text", PAYLOADS, ids=range(60))
async def test_a_name_and_a_link_are_data_too(on: str, host: Host, text: str) -> None:
    """The reader's name from a host application, and the address of the login page."""
    board, login = (
        Board(authorize=lambda _request: Identity(text, Role.ADMIN)),
        Board(login=Login()),
    )
    for made, path in ((board, "/workers"), (login, f"/login?{urlencode({'link': text})}")):
        other = path.replace(urlencode({"link": text}), "link=harmless")
        browser = Browser(made, host="localhost")
        assert shape((await browser.see(path)).text) == shape((await browser.see(other)).text)
        await made.close()


def test_this_would_find_one() -> None:
    """What a careless template would produce."""
    page = "<html><head><title>x</title></head><body><p title='{}'>{}</p></body></html>"
    harmless = shape(page.format("x", "x"))
    assert harmless == [("html", ()), ("head", ()), ("title", ()), ("body", ()), ("p", ("title",))]
    assert shape(page.format("x", "<b>x</b>")) != harmless
    assert shape(page.format("x' id='x", "x")) != harmless
    for text in (
        "<img src=x>",
        "<a href=javascript:alert(1)>",
        "<p onclick=x>",
        "<script>x</script>",
        "<p style=x>",
    ):
        with pytest.raises(AssertionError):
            shape(page.format("x", text))

"""Nothing that data says becomes an element or an attribute of a page (S-07).

Each page is read as browsers read it (html5lib), once with texts that mean harm and once with words of the same shape:
the two have the same elements, with the same attributes.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlencode

import html5lib
import pytest
import redis

from board.asking import Browser, Host
from corral.board import Board, Identity, Role
from corral.board.guard import csrf_token
from corral.board.login import Login

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>*{background:url(//evil.example)}</style>",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</time><img src=x onerror=alert(1)>",
    "</select><script>alert(1)</script>",
    "<!--<script>alert(1)</script>-->",
    "--><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "]]><script>alert(1)</script>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "x onmouseover=alert(1) y=",
    "` onmouseover=alert(1)",
    '" autofocus onfocus=alert(1) x="',
    '" style="position:fixed;inset:0',
    '" hx-get="/queues/letters/drain" hx-trigger="load',
    '" hx-on:load="alert(1)',
    '" data-live="//evil.example',
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//evil.example/x.js",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "{{ 7*7 }}{% for x in (1,) %}<script>alert(1)</script>{% endfor %}",
    "${alert(1)}<script>alert(1)</script>#{alert(1)}",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e\u2028<script>alert(1)</script>",
    "\x00<scr\x00ipt>alert(1)</script>\x1b[31m\u202e<script>alert(1)</script>",
]
WORDS = [f"harmless{number}" for number in range(len(PAYLOADS))]
GROUPS = [slice(start, start + 10) for start in range(0, 60, 10)]
STATES = {
    "failed": "zset",
    "completed": "zset",
    "delayed": "zset",
    "prioritized": "zset",
    "wait": "list",
    "active": "list",
}
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
"""Whatever our templates have; no `img`, `iframe`, `style` or `base` among them."""

Shape = list[tuple[str, tuple[str, ...]]]


def test_there_are_sixty_payloads() -> None:
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 60


def shape(page: str) -> Shape:
    """The elements of a page, each with the names of its attributes; nothing in it runs but our own scripts."""
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


def job_id(text: str, state: str) -> str:
    return f"{text}!{state}"


def fill(store: redis.Redis, texts: list[str]) -> None:
    """Put each text wherever a client, a worker or another process could."""
    now = int(time.time() * 1000)
    events = 0
    store.flushall()
    for at, text in enumerate(texts):
        for state, kind in STATES.items():
            given = job_id(text, state)
            data = {"to": text, "text": text, "pages": text, text: text, "deep": [{text: [text, {"x": text}]}]}
            fields = {
                "name": text,
                "data": json.dumps(data),
                "opts": json.dumps({"attempts": 3, "jobId": text, text: text, "repeat": {"pattern": text}}),
                "timestamp": now - 1000,
                "delay": 0,
                "priority": 0,
                "processedOn": now - 500,
                "atm": 2,
                "ats": 3,
                "pb": text,
                "parentKey": text,
                "parent": json.dumps({"id": text, "queueKey": text}),
                "deid": text,
                "rjk": text,
                "nrjid": text,
                "progress": json.dumps({text: text}) if at % 2 else json.dumps(text),
                "stacktrace": json.dumps([text, f"Traceback:\n  {text}\n{text}"]),
            }
            if state == "failed":
                fields |= {"failedReason": text, "finishedOn": now}
            if state == "completed":
                fields |= {"returnvalue": json.dumps({text: text}), "finishedOn": now}
            store.hset(f"bull:letters:{given}", mapping=fields)
            store.rpush(f"bull:letters:{given}:logs", text, text)
            if kind == "zset":
                store.zadd(f"bull:letters:{state}", {given: now + at})
            else:
                store.rpush(f"bull:letters:{state}", given)
            event = {"event": "failed", "jobId": given, "failedReason": text, "prev": text}
            events += 1
            store.xadd("bull:letters:events", event, id=f"{now - 400}-{events}")  # as long after the start, every time
        store.zadd("bull:letters:repeat", {text: now + 60_000})
        store.hset(f"bull:letters:repeat:{text}", mapping={"name": text, "pattern": text, "tz": text, "ic": 1})
        store.hset(f"bull:{text}:meta", "version", text)
        store.hset("corral:bull:alive", f"{text}-1-1", f"{now} 0 0 {now} 1 {text.replace(' ', '_')}")
        record = {"distribution": text, "version": text, "fingerprint": text, "role": "worker", "time": now}
        told = json.dumps({"letters": record, text: record})
        store.hset("corral:bull:catalog", f"{text}-1-1", f"{now} {told}")
        entry = {"who": text, "what": text, "queue": text, "job": text, "before": json.dumps(text), "after": text}
        store.xadd("corral:audit", {"prefix": "bull", **entry, "count": 1})


def named(url: str, texts: list[str]) -> Iterator[redis.Redis]:
    """Connections that call themselves BullMQ's workers, as far as the store takes such a name."""
    base = base64.b64encode(b"letters").decode()
    for text in texts:
        client = redis.Redis.from_url(url)
        name = f"bull:{base}:w:{text}"
        if all("!" <= character <= "~" for character in name):
            client.client_setname(name)
        yield client


def in_address(text: str) -> str:
    return quote(text, safe="")


SHOWN = ("failed", "completed", "delayed", "prioritized", "waiting", "active")
LISTS = [
    "/",
    *(
        f"/queues/letters?state={state}"
        for state in ("failed", "completed", "delayed", "prioritized", "waiting", "active")
    ),
    "/workers",
    "/catalog",
    "/schedules",
    "/audit",
]
PAGES: list[Callable[[str], tuple[str, int]]] = [
    lambda text: (f"/queues/letters/jobs/{in_address(job_id(text, 'failed'))}", 200),
    lambda text: (f"/queues/letters/jobs/{in_address(job_id(text, 'completed'))}", 200),
    lambda text: (f"/queues/letters/jobs/{in_address(job_id(text, 'active'))}/logs", 200),
    lambda text: (f"/queues/letters/jobs/{in_address(job_id(text, 'wait'))}/edit", 200),
    lambda text: (f"/search?{urlencode({'q': job_id(text, 'failed')})}", 200),
    lambda text: (
        f"/queues/letters?{urlencode({'q': job_id(text, 'wait'), 'told': 'added', 'id': text, 'n': text})}",
        200,
    ),
    lambda text: (f"/queues/letters?{urlencode({'state': text})}", 400),
    lambda text: (f"/queues/letters/jobs/{in_address(text)}", 404),
    lambda text: (f"/queues/{in_address(text)}", 404),
    lambda text: (f"/{in_address(text)}", 404),
]
"""Of one text each; the same path with another text is the same page."""


async def shapes(board: Board, store: redis.Redis, texts: list[str]) -> dict[str, Shape]:
    """The shape of every page, by what it is."""
    fill(store, texts)
    if board._drawer._desk is not None:
        board._drawer._desk.recent.forget()
    browser = Browser(board, "admin")
    browser.cookies["corral_board_form"] = "secret"
    token = csrf_token("secret", Identity("admin", Role.ADMIN))
    found = {path: shape((await browser.see(path)).text) for path in LISTS}
    for at, text in enumerate(texts):
        for number, page in enumerate(PAGES):
            path, status = page(text)
            found[f"{at} page {number}"] = shape((await browser.see(path, status)).text)
        fields = {"data.to": text, "data.text": text, "data.pages": f"x{text}", "job_id": text, "delay_seconds": text}
        sent_back = await browser.send("/queues/letters/add", token, **fields, priority=text, attempts=text)
        asked = await browser.send("/queues/letters/remove", token, id=[text, text], q=text, state=text)
        refused = await browser.send("/queues/letters/clean", token, state=text)
        assert (sent_back.status, asked.status, refused.status) == (422, 200, 400), text
        found |= {f"{at} sent back": shape(sent_back.text), f"{at} confirm": shape(asked.text)}
        found[f"{at} refused"] = shape(refused.text)
    return found


@pytest.mark.corral_untidy("what other clients may write: ids, fields and keys that ours never do")
@pytest.mark.asyncio
@pytest.mark.parametrize("group", GROUPS, ids=[f"{group.start}-{group.stop - 1}" for group in GROUPS])
async def test_no_page_has_an_element_of_data(board: Board, store: redis.Redis, on: str, group: slice) -> None:
    harmless = await shapes(board, store, WORDS[group])
    clients = list(named(on, PAYLOADS[group]))
    try:
        harmful = await shapes(board, store, PAYLOADS[group])
    finally:
        for client in clients:
            client.close()
    # of connections only those that the store takes such a name of are there: other rows, and none is there twice
    harmful_rows, harmless_rows = Counter(harmful.pop("/workers")), Counter(harmless.pop("/workers"))
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
    paths = [*LISTS, *(page(PAYLOADS[0])[0] for page in PAGES)]
    for path in paths:
        got = await browser.ask("GET", path, headers={"accept": "application/json"})
        assert got.status < 500, (path, got)
        assert got.header("content-type") == "application/json"
        assert got.header("x-content-type-options") == "nosniff"
        json.loads(got.body)


@pytest.mark.asyncio
@pytest.mark.parametrize("text", PAYLOADS, ids=range(60))
async def test_a_name_and_a_link_are_data_too(on: str, host: Host, text: str) -> None:
    """What a host application calls somebody, and what stands in the address of the login's page."""
    board, login = Board(authorize=lambda _request: Identity(text, Role.ADMIN)), Board(login=Login())
    for made, path in ((board, "/workers"), (login, f"/login?{urlencode({'link': text})}")):
        other = path.replace(urlencode({"link": text}), "link=harmless")
        browser = Browser(made, host="localhost")
        assert shape((await browser.see(path)).text) == shape((await browser.see(other)).text)
        await made.close()


def test_this_would_find_one() -> None:
    """What the template of a careless hand would give."""
    page = "<html><head><title>x</title></head><body><p title='{}'>{}</p></body></html>"
    harmless = shape(page.format("x", "x"))
    assert harmless == [("html", ()), ("head", ()), ("title", ()), ("body", ()), ("p", ("title",))]
    assert shape(page.format("x", "<b>x</b>")) != harmless
    assert shape(page.format("x' id='x", "x")) != harmless
    for text in ("<img src=x>", "<a href=javascript:alert(1)>", "<p onclick=x>", "<script>x</script>", "<p style=x>"):
        with pytest.raises(AssertionError):
            shape(page.format("x", text))

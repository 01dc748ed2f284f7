"""Damaged data: every page answers, the worker goes on, nothing in the store is run (S-15)."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from board.asking import PAGE, Browser
from corral import JobState
from corral.app.installed import read_installed
from corral.app.producing import open_scheduler
from corral.board import Board, Identity
from corral.board.routes import ROUTES
from corral.settings import WorkerSettings
from corral.worker.worker import Worker

CASES = 5000
PER_PAGE = 50
DATA = {"accept": "application/json"}

NUMBERS = (
    *(
        "",
        "abc",
        "NaN",
        "-nan",
        "inf",
        "-inf",
        "1e400",
        "-1e400",
        "1e308",
        "1e300",
        "9" * 400,
        "9" * 5000,
        "-1",
        "1.5",
    ),
    *(
        "0x10",
        "1_0",
        " 1 ",
        "١٢",
        "253402300800000",
        "-62135596800001",
        "8640000000000001",
        "18446744073709551616",
    ),
)
TEXTS = (
    *(
        "",
        "\0",
        "\x1b[31m",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "%s%n",
        "../../etc/passwd",
        "é" * 300,
        "x" * 20_000,
    ),
    *(
        "__import__('os').system('true')",
        "cos\nsystem\n(S'true'\ntR.",
        "!!python/object/apply:os.system ['true']",
    ),
)
RAW = (
    b"\xff\xfe\x80",
    b"\x80\x04\x95\x0b",
    b"\x82\xa1a\xc1",
    b"\xed\xa0\x80",
    b"\xc3",
    b"\xf0\x9f\x98",
)
JSONS = (
    *(
        '{"a":',
        "[",
        '"',
        "{}",
        "[]",
        "null",
        "true",
        "7",
        "NaN",
        "[NaN]",
        '{"a":NaN}',
        '{"a":1e400}',
        '"text"',
        "9" * 5000,
    ),
    *(
        '{"to":' * 400 + "1" + "}" * 400,
        "[" * 900 + "]" * 900,
        "[" * 100_000,
        '{"a":"\\ud83d"}',
        '{"\\ud83d":1}',
    ),
    *(
        '{"__proto__":{"a":1}}',
        '{"a":1,"a":2}',
        '{"to":["x"]}',
        '{"pages":1e30}',
        '{"pages":-1}',
        '{"":0}',
        "[[[]]]",
    ),
)
VALUES: tuple[str | bytes, ...] = (*NUMBERS, *TEXTS, *RAW, *JSONS)
OPTION_NAMES = (
    *(
        "attempts",
        "delay",
        "backoff",
        "priority",
        "lifo",
        "kl",
        "stackTraceLimit",
        "tm",
        "removeOnComplete",
        "de",
    ),
    *(
        "removeOnFail",
        "repeat",
        "parent",
        "rjk",
        "timestamp",
        "jobId",
        "fpof",
        "idof",
        "kl",
        "alien",
        "debounce",
        "prevMillis",
    ),
)
FIELDS = (
    *(
        "name",
        "data",
        "opts",
        "timestamp",
        "delay",
        "priority",
        "attemptsMade",
        "atm",
        "ats",
        "stc",
        "progress",
    ),
    *(
        "returnvalue",
        "failedReason",
        "stacktrace",
        "defa",
        "pb",
        "rjk",
        "deid",
        "parentKey",
        "parent",
        "processedOn",
    ),
    *("finishedOn", "nrjid", "pk", "alien"),
)


def damaged(dice: random.Random) -> dict[str, str | bytes]:
    """The fields of a job, some of them damaged."""
    fields: dict[str, str | bytes] = {
        "name": "letters",
        "data": '{"to":"ada@example.org"}',
        "opts": '{"attempts":1}',
        "timestamp": "1700000000000",
        "delay": "0",
        "priority": "0",
    }
    for _ in range(dice.choice((1, 1, 2, 4))):
        if dice.random() < 0.2:
            fields.pop(dice.choice([*fields]))
        elif dice.random() < 0.3:
            value = dice.choice([each for each in (*JSONS, *NUMBERS) if _is_json(each)])
            fields["opts"] = (
                f'{{"{dice.choice(OPTION_NAMES)}":{value},"backoff":{{"type":{value},"delay":{value}}}}}'
            )
        else:
            fields[dice.choice(FIELDS)] = dice.choice(VALUES)
    if dice.random() < 0.1 and isinstance(fields.get("data"), str):
        data = str(fields["data"])
        fields["data"] = data[: dice.randrange(len(data) + 1)]
    return fields or {"alien": ""}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


RUNS = frozenset(
    {
        "import",
        "exec",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "pickle.find_class",
    }
    | {"marshal.load", "marshal.loads", "ctypes.dlopen", "code.__new__"}
)
_watching: list[list[str]] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in RUNS:
        _watching[-1].append(f"{event} {arguments!r:.200}")


@contextmanager
def nothing_is_run() -> Iterator[None]:
    """Fail the test if Python imports or executes anything in here."""
    if not _hooked:  # it is there for good
        _hooked.append(True)
        sys.addaudithook(_hook)
    _watching.append([])
    try:
        yield
        assert _watching[-1] == []
    finally:
        _watching.pop()


def test_that_watch_sees_what_is_run() -> None:
    with pytest.raises(AssertionError, match="exec"), nothing_is_run():
        exec("1")


PAGES = [
    route.pattern.format(queue="letters", job_id="{}") for route in ROUTES if route.method == "GET"
]
WITHOUT_JOB = [page for page in PAGES if "{}" not in page and page != "/live"]
OF_JOB = [page for page in PAGES if "{}" in page]


async def look(board: Board, target: str, statuses: set[int]) -> None:
    """Every page, as HTML and as JSON."""
    for accept in (PAGE, DATA):
        got = await Browser(board, "admin").ask("GET", target, headers=accept)
        assert got.status in statuses, (target, got.status, got.text[-3000:])
        if accept is DATA and got.header("content-type") == "application/json":
            json.loads(got.body)


@pytest.fixture
def on(on: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """In development, so that an error inside the board is shown."""
    monkeypatch.setenv("CORRAL_ENV", "development")
    return on


@pytest.fixture
def warm(board: Board, store: redis.Redis) -> Callable[[], Any]:
    async def render_all() -> None:
        """Get every page once, so that all is imported and every template compiled."""
        store.hset(
            "bull:letters:warm",
            mapping={"data": "{}", "opts": "{}", "stacktrace": '["a"]', "failedReason": "b"},
        )
        store.zadd("bull:letters:failed", {"warm": 1})
        for page in (*WITHOUT_JOB, *OF_JOB):
            await look(board, page.format("warm"), {200})
        await look(board, "/queues/letters/jobs/none", {404})

    return render_all


@pytest.mark.asyncio
async def test_every_page_answers_whatever_jobs_look_like(
    board: Board, store: redis.Redis, warm: Any
) -> None:
    dice, states = random.Random(15), tuple(JobState)
    await warm()
    with store.pipeline(transaction=False) as writing:
        for number in range(CASES):
            job_id, state = f"j{number}", states[number // PER_PAGE % len(states)]
            writing.hset(f"bull:letters:{job_id}", mapping=damaged(dice))
            if state in {"waiting", "active"}:
                writing.lpush(f"bull:letters:{'wait' if state == 'waiting' else state}", job_id)
            else:
                writing.zadd(f"bull:letters:{state}", {job_id: number * 4096})
        writing.execute()
    with nothing_is_run():
        for state in states:
            for start in range(0, CASES // len(states) + PER_PAGE, PER_PAGE):
                accept = (PAGE, DATA)[start // PER_PAGE % 2]
                target = f"/queues/letters?state={state}&start={start}"
                got = await Browser(board, "admin").ask("GET", target, headers=accept)
                assert got.status == 200, (target, got.text[-3000:])
        for number in range(0, CASES, 100):
            for page in OF_JOB:
                await look(board, page.format(f"j{number}"), {200})
        for query in ("q=x", "q=to%3D7", "q=j77", "q=%22&state=failed", "q=a%3Dnull"):
            await look(board, f"/queues/letters?{query}", {200})
        for page in WITHOUT_JOB:
            await look(board, page, {200})


LISTS, SETS = (
    ("wait", "active", "paused"),
    ("prioritized", "delayed", "waiting-children", "completed", "failed"),
)
TYPES = ("string", "list", "set", "zset", "hash", "stream")
KEYS = (
    *(
        f"bull:letters:{name}"
        for name in (
            *LISTS,
            *SETS,
            "meta",
            "events",
            "marker",
            "limiter",
            "id",
            "stalled",
            "repeat",
        )
    ),
    *(
        f"bull:letters:metrics:{outcome}{part}"
        for outcome in ("completed", "failed")
        for part in ("", ":data")
    ),
    *(
        "bull:letters:one",
        "bull:letters:one:logs",
        "bull:letters:one:lock",
        "corral:bull:letters:minutes",
        "corral:bull:audit",
    ),
    *("corral:bull:alive", "corral:bull:catalog", "corral:bull:letters:quarantine"),
)


KINDS = {
    **dict.fromkeys((f"bull:letters:{name}" for name in LISTS), "list"),
    **dict.fromkeys((f"bull:letters:{name}" for name in (*SETS, "marker", "repeat")), "zset"),
    **dict.fromkeys(
        (f"bull:letters:metrics:{outcome}" for outcome in ("completed", "failed")), "hash"
    ),
    **dict.fromkeys(
        (f"bull:letters:metrics:{outcome}:data" for outcome in ("completed", "failed")), "list"
    ),
    **dict.fromkeys(
        (f"corral:bull:{name}" for name in ("letters:minutes", "letters:quarantine", "alive")),
        "hash",
    ),
    "corral:bull:catalog": "hash",
    "bull:letters:meta": "hash",
    "bull:letters:events": "stream",
    "bull:letters:limiter": "string",
    "bull:letters:id": "string",
    "bull:letters:stalled": "set",
}
"""The types that the keys of a queue's page must have."""


def of_type(store: redis.Redis, kind: str, key: str, dice: random.Random) -> None:
    """Put a value of a type under a key, with junk in it."""
    junk = [dice.choice(VALUES) for _ in range(3)]
    store.delete(key)
    match kind:
        case "string":
            store.set(key, junk[0])
        case "list":
            store.rpush(key, "one", *junk)
        case "set":
            store.sadd(key, "one", *junk)
        case "zset":
            store.zadd(key, {"one": float("inf"), **dict.fromkeys(junk, -1e308)})
        case "hash":
            own = {
                "paused": junk[0],
                "concurrency": junk[1],
                "max": junk[2],
                "duration": junk[0],
                "count": junk[1],
            }
            store.hset(
                key,
                mapping={
                    "one": junk[0],
                    **own,
                    "prevTS": junk[2],
                    "prevCount": junk[0],
                    junk[1]: junk[2],
                },
            )
        case "stream":
            store.xadd(
                key,
                {
                    "event": junk[0],
                    "jobId": "one",
                    "delay": junk[1],
                    "prefix": "bull",
                    "count": junk[2],
                },
            )


@pytest.mark.asyncio
async def test_every_page_answers_whatever_the_keys_hold(
    board: Board, store: redis.Redis, warm: Any
) -> None:
    """The page names the damaged key and shows the rest; a page without rest is 503."""
    dice = random.Random(16)
    await warm()
    damaged, named = set(), set()
    context = await board._contexts.open_context(Identity("nobody"))
    with nothing_is_run():
        for key, kind in ((key, kind) for key in KEYS for kind in dice.sample(TYPES, 3)):
            store.flushdb()
            store.hset(
                "bull:letters:one",
                mapping={"data": "{}", "opts": "{}", "failedReason": "b", "timestamp": "1"},
            )
            store.zadd("bull:letters:failed", {"one": 1})
            of_type(store, kind, key, dice)
            is_damaged = KINDS.get(key, kind) != kind
            for page in ("/", "/queues/letters", *dice.sample([*WITHOUT_JOB, *OF_JOB], 2)):
                context.cache.clear()
                got = await Browser(board, "admin").ask(
                    "GET", page.format("one"), headers=dice.choice((PAGE, DATA))
                )
                always = page in {"/", "/queues/letters"}
                assert got.status in ({200} if always else {200, 404, 503}), (
                    kind,
                    key,
                    page,
                    got.text[-3000:],
                )
                if page == "/queues/letters" and is_damaged:
                    damaged.add((key, kind))
                    if f"{key} is a {kind}, not a " in got.text:
                        named.add((key, kind))
                if got.status == 503:
                    assert f"{key} is a {kind}, not a " in got.text
    assert damaged - named == set()
    assert len(named) > 50


@pytest.mark.asyncio
async def test_a_worker_goes_on_whatever_jobs_look_like(on: str, store: redis.Redis) -> None:
    """Each damaged job is ended, delayed or dropped, and a good one behind them is done."""
    dice = random.Random(17)
    installed = read_installed(role="worker", serves=["letters"])
    processor = installed.catalog.get("letters").processor
    assert processor
    async with open_scheduler(installed, on) as jobs:

        async def work() -> None:
            worker = Worker(
                [processor],
                url=on,
                prefix="bull",
                settings=WorkerSettings(),
                plugins=installed.plugins,
                jobs=jobs,
                burst=True,
            )
            await asyncio.wait_for(worker.run(), 60)

        store.hset("bull:letters:warm", mapping={"data": '{"pages":-1}', "opts": "["})
        store.rpush("bull:letters:wait", "warm")
        await jobs.enqueue("letters", {"to": "ada@example.org"})
        await work()
        with store.pipeline(transaction=False) as writing:
            for number in range(CASES):
                writing.hset(f"bull:letters:j{number}", mapping=damaged(dice))
                writing.lpush("bull:letters:wait", f"j{number}")
            writing.execute()
        good = await jobs.enqueue("letters", {"to": "ada@example.org"})
        with nothing_is_run():
            await work()
    assert store.llen("bull:letters:wait") == store.llen("bull:letters:active") == 0
    assert store.zscore("bull:letters:completed", good.id)
    assert store.zcard("bull:letters:failed") > CASES / 10

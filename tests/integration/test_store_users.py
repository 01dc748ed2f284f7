"""The lines of docs/store-users.md, each tried as that user; and what happens where the store's
user lacks something.

On Valkey, and on Redis 7.0 where it is installed: their words differ, and what their categories
hold.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
import redis
import redis.asyncio

from board.asking import Browser, Host, token_in
from corral import Cron, Every, Fail, Job, Payload, Queue, Retry
from corral.app.child_process import keep_record, start_heartbeats
from corral.app.working import check_store
from corral.board import Board
from corral.board.routes import ROUTES
from corral.cli import cli
from corral.errors import StoreUnavailable
from corral.fleet.processes import OwnRecord, ProcessRecords
from corral.observe.health import judge_heartbeats
from corral.observe.lag import LoopLag
from corral.observe.probes import ParentProbes, WorkerProbes
from corral.observe.store_vulnerabilities import store_version, vulnerability_warning
from corral.store.connection import Link
from corral.store.rights import Role, missing_rights
from integration.conftest import Workshop
from integration.servers import KINDS, PASSWORD, Server, server
from logged import capture_logs

PAGE = Path(__file__).parents[2] / "docs" / "store-users.md"
LINES = dict(
    re.findall(r"^ACL SETUSER (\w+) on >secret (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
)
QUEUE = "acme-letters"
HOURLY = "acme-threads"
BASE = f"bull:{QUEUE}:"
Ran = tuple[int, str, str]


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for all tests here, with a user for each documented line."""
    with server(request.param) as made:
        yield made


@pytest.fixture
def users(running: Server) -> Server:
    """The server, empty, with the documented users and nothing in the log of what it denied."""
    running.admin.flushall()
    for name, rules in LINES.items():
        running.set_user(name, rules)
    running.admin.acl_log_reset()
    return running


@pytest_asyncio.fixture
async def shop(users: Server, wait_until: Any) -> AsyncIterator[Workshop]:
    """A workshop whose workers and producers are the documented users."""
    async with redis.asyncio.Redis.from_url(users.url(), decode_responses=True) as raw:
        made = Workshop(users.url("worker"), raw, wait_until)
        yield made
        for producer in made.producers:
            await producer.close()


@pytest.fixture
def corral(
    users: Server, acme: Path, in_process: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """`corral("pause", QUEUE, user="operator")`: see `in_process`."""
    monkeypatch.setenv("CORRAL_LOG_LEVEL", "WARNING")
    monkeypatch.delitem(sys.modules, "acme_letters", raising=False)
    declares = acme / "acme_letters.py"
    hourly = declares.read_text("utf-8").replace(
        f'Queue("{HOURLY}", Letter, ',
        f'Queue("{HOURLY}", Letter, schedule=Every(timedelta(hours=1)), ',
    )
    declares.write_text(
        hourly.replace(
            "import asyncio",
            "from datetime import timedelta\nfrom corral import Every\nimport asyncio",
            1,
        )
    )
    return lambda *arguments, user: in_process(users.url(user), *arguments)


def stage(store: redis.Redis) -> None:
    """Jobs in every state that a command looks for, one in quarantine, a schedule, log lines."""
    plain: dict[Any, Any] = {
        "name": QUEUE,
        "data": '{"text":"user-4711"}',
        "opts": "{}",
        "timestamp": 1000,
    }
    for job, container in {"first": "wait", "second": "wait"}.items():
        store.hset(BASE + job, mapping=plain)
        store.lpush(BASE + container, job)
    for job, container in {
        "later": "delayed",
        "broken": "failed",
        "worse": "failed",
        "done": "completed",
    }.items():
        store.hset(
            BASE + job, mapping={**plain, "failedReason": "payload refused: to", "finishedOn": 1000}
        )
        store.zadd(BASE + container, {job: 4_096_000})
    store.rpush(f"{BASE}broken:logs", "one")
    store.hset(f"{BASE}meta", "opts.maxLenEvents", 10_000)
    store.xadd(f"{BASE}events", {"event": "failed", "jobId": "broken", "failedReason": "user-4711"})
    for job in ("odd", "odder"):
        store.hset(f"corral:{BASE}quarantine:{job}", mapping=plain)
        raised = {
            "at": 1000,
            "from": "wait",
            "reason": "it was odd",
            "key": f"corral:{BASE}quarantine:{job}",
        }
        store.hset(f"corral:{BASE}quarantine", job, json.dumps(raised))
    store.xadd("corral:audit", {"prefix": "bull", "who": "ada", "what": "login"})


LOOKING = {
    "queues": (),
    "health": (),
    "job list": (QUEUE,),
    "job show": (QUEUE, "broken"),
    "job logs": (QUEUE, "broken"),
    "quarantine list": (QUEUE,),
    "audit": (),
    "schedules": (),
}
CHANGING = {
    "enqueue": (QUEUE, '{"text": "x"}'),
    "job remove": (QUEUE, "first"),
    "retry": (QUEUE, "broken"),
    "promote": (QUEUE, "later"),
    "pause": (QUEUE,),
    "resume": (QUEUE,),
    "limit": (QUEUE, "--concurrency", "3", "--rate", "5/1m"),
    "quarantine return": (QUEUE, "odd"),
    "quarantine discard": (QUEUE, "odder", "--yes"),
    "schedules prune": (),
    "scrub": ("user-4711", QUEUE, "--yes"),
    "clean": (QUEUE, "--state", "completed", "--older-than", "1s", "--yes"),
    "drain": (QUEUE, "--delayed", "--yes"),
    "schedules remove": (HOURLY,),
    "schedules restore": (HOURLY,),
}
NO_OPERATORS = {"dev", "worker", "board", "check", "lock", "plugins", "db create", "outbox relay"}


def test_every_command_is_tried_here_or_touches_no_queue_as_an_operator_does() -> None:
    def names(command: click.Command, name: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            for below in command.commands.values():
                yield from names(below, f"{name} {below.name}".strip())
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name

    assert {
        name for name in names(cli, "") if name
    } == LOOKING.keys() | CHANGING.keys() | NO_OPERATORS


@pytest.mark.asyncio
async def test_a_worker_and_a_producer_do_all_they_do_with_their_lines(
    shop: Workshop, users: Server
) -> None:
    """Every ending of a job, and schedules; the server's own log shows that nothing was denied."""

    async def process(job: Job[Any]) -> str:
        job.progress(50)
        job.log("a line")
        if job.payload.text == "fails":
            raise Fail("as it should")
        if job.payload.text == "again" and job.attempt == 1:
            raise Retry(after=timedelta(0))
        return "done"

    jobs = shop.producer(letters, url=users.url("producer"))
    async with shop.working(letters.processed_by(process), stalled_interval_seconds=0.2) as working:
        for text in ("plain", "fails", "again"):
            await jobs.enqueue(letters, Letter(text=text), job_id=text, attempts=2)
        await jobs.enqueue(letters, Letter(), job_id="soon", delay=timedelta(milliseconds=50))
        await jobs.enqueue(letters, Letter(), job_id="urgent", priority=3)
        await jobs.enqueue_many(letters, [Letter(), Letter()])
        await jobs.schedule(letters, Letter(), Every(timedelta(milliseconds=200)), id="often")
        await jobs.schedule(letters, Letter(), Cron("0 0 1 1 *"), id="rarely")
        for job_id in ("plain", "again", "soon", "urgent"):
            await shop.until(letters, job_id, "completed")
        await shop.until(letters, "fails", "failed")
        await jobs.enqueue(letters, Letter(), job_id="fails", if_failed="retry")
        await shop.until(letters, "fails", "failed")
        await shop.wait_until(lambda: working.worker.silent_seconds < 5, "it fetches")
        assert await jobs.unschedule(letters, "often")
        assert working.worker.troubles == {}
    assert users.denied() == []


def test_a_worker_process_has_all_it_needs_with_its_line(
    corral: Callable[..., Ran], users: Server
) -> None:
    """With its heartbeats, its catalog, its figures."""
    code, out, err = corral("enqueue", QUEUE, '{"text": "x"}', user="operator")
    assert code == 0, err
    code, _, err = corral("worker", QUEUE, "--burst", user="worker")
    assert code == 0, err
    assert users.admin.zscore(f"{BASE}completed", out.strip()) is not None
    assert users.admin.exists(f"corral:{BASE}minutes") == 1
    assert users.denied() == []


@pytest.mark.parametrize("command", [*LOOKING, *CHANGING])
def test_an_operator_does_every_command_with_its_line(
    corral: Callable[..., Ran], users: Server, command: str
) -> None:
    stage(users.admin)
    arguments = {**LOOKING, **CHANGING}[command]
    code, _, err = corral(*command.split(), *arguments, user="operator")
    assert code == (1 if command == "health" else 0), err
    assert users.denied() == []


@pytest.mark.asyncio
async def test_the_board_shows_its_pages_and_does_what_its_buttons_say_with_its_line(
    users: Server, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(users.admin)
    monkeypatch.syspath_prepend(str(acme))
    monkeypatch.delitem(sys.modules, "acme_letters", raising=False)
    monkeypatch.setenv("CORRAL_ENV", "production")
    monkeypatch.setenv("CORRAL_BOARD_ENABLED", "true")
    monkeypatch.setenv("REDIS_URL", users.url("board"))
    board = Board(authorize=Host().who)
    try:
        browser = Browser(board, "admin")
        for route in (each for each in ROUTES if each.method == "GET" and each.pattern != "/live"):
            path = route.pattern.replace("{queue}", QUEUE).replace("{job_id}", "broken")
            assert (await browser.ask("GET", path)).status == 200, path
        token = token_in((await browser.see(f"/queues/{QUEUE}/add")).text)
        for path in (
            f"/queues/{QUEUE}/pause",
            f"/queues/{QUEUE}/resume",
            f"/queues/{QUEUE}/jobs/broken/retry",
        ):
            got = await browser.send(path, token)
            assert got.status == 303, (path, got.text)
    finally:
        await board.close()
    assert users.denied() == []


NO_SCAN = "queues that nobody declares are not looked for: the store's user may not call SCAN"


def test_an_operator_who_may_not_scan_learns_it_and_gets_everything_else(
    users: Server, corral: Callable[..., Ran]
) -> None:
    """Queues that nobody declares are found by SCAN."""
    stage(users.admin)
    users.set_user("operator", f"{LINES['operator']} -scan")
    code, out, err = corral("queues", user="operator")
    assert (code, err) == (0, f"note: {NO_SCAN}\n")
    assert QUEUE in out
    code, _, err = corral("check", user="operator")
    assert code == 0
    assert f"note: {NO_SCAN}\n" in err


@pytest.mark.asyncio
async def test_a_board_whose_user_may_not_scan_says_so_and_shows_everything_else(
    users: Server, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(users.admin)
    users.set_user("board", f"{LINES['board']} -scan")
    monkeypatch.syspath_prepend(str(acme))
    monkeypatch.delitem(sys.modules, "acme_letters", raising=False)
    monkeypatch.setenv("CORRAL_ENV", "production")
    monkeypatch.setenv("CORRAL_BOARD_ENABLED", "true")
    monkeypatch.setenv("REDIS_URL", users.url("board"))
    board = Board(authorize=Host().who)
    try:
        browser = Browser(board, "admin")
        for path in ("/", "/catalog"):
            page = (await browser.see(path)).text
            assert f"Q{NO_SCAN[1:].replace(chr(39), '&#39;')}." in page
            assert QUEUE in page
        assert "bullmq_waiting_jobs" in (await browser.see("/metrics")).text
    finally:
        await board.close()


WITHOUT = {
    "no stream": (f"{LINES['operator']} -@stream", "the commands XADD, XTRIM"),
    "no sorted set": (
        f"{LINES['worker']} -@sortedset",
        "the commands ZCARD, ZRANGE, ZRANGEBYSCORE",
    ),
    "no wait": (f"{LINES['worker']} -bzpopmin", "the commands BZPOPMIN"),
    "no time": (f"{LINES['worker']} -time", "the commands TIME"),
    "no write": (f"{LINES['worker']} -@write", "the commands SET"),
    "no script": (f"{LINES['worker']} -@scripting", "the commands EVAL, EVALSHA"),
    "no keys of ours": (
        LINES["worker"].replace("~corral:bull:*", ""),
        "the keys corral:bull:alive",
    ),
    "no queue": (LINES["worker"].replace("~bull:*", "~bill:*"), "the keys bull:letters:*"),
    "only some queues": (
        LINES["worker"].replace("~bull:*", "~bull:parcels:*"),
        "the keys bull:letters:*",
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", WITHOUT)
async def test_a_worker_names_what_it_lacks_fetches_nothing_and_begins_once_it_may(
    shop: Workshop, users: Server, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.worker.consumer.RIGHTS_SECONDS", 0.05)
    rules, named = WITHOUT[case]
    users.set_user("worker", rules)
    ran: list[str] = []

    async def process(job: Job[Any]) -> None:
        ran.append(job.id)

    jobs = shop.producer(letters, url=users.url())
    await jobs.enqueue(letters, Letter(), job_id="one")
    with capture_logs() as logs:
        async with shop.working(letters.processed_by(process), name="parent.1") as working:
            worker = working.worker
            await shop.wait_until(lambda: worker.troubles, "it says what it lacks")
            ((kind, sentence),) = worker.troubles.items()
            assert kind == ("letters", "rights")
            assert sentence.startswith(
                f"queue 'letters' is not processed: the store's user lacks {named}"
            )
            assert WorkerProbes(worker, LoopLag(), users.url()).readiness_problem() == sentence
            assert WorkerProbes(worker, LoopLag(), users.url()).health_problem() == "", (
                "a restart cures nothing of it"
            )
            own = OwnRecord(Link(users.url()), "bull", worker.name)
            async with keep_record(own):
                start_heartbeats(worker, own)
                await shop.wait_until(
                    lambda: users.admin.exists("corral:bull:alive"), "it gives a heartbeat"
                )
                link = Link(users.url())
                found = judge_heartbeats(await ProcessRecords(link, "bull").read(), "nobody")
                await link.close()
                parent = ParentProbes("parent", users.url(), "bull", asyncio.Event())
                looking = asyncio.create_task(parent.watch(), name="the parent looks")
                await shop.wait_until(parent.troubles, "the parent has looked")
                looking.cancel()
                await asyncio.wait([looking])
            assert (parent.health_problem(), parent.readiness_problem()) == ("", sentence[:300])
            assert not found.is_healthy
            assert found.troubles == (sentence[:300],)
            assert (ran, await shop.state(letters, "one")) == ([], "wait")

            users.set_user("worker", LINES["worker"])
            await shop.until(letters, "one", "completed")
            assert worker.troubles == {}
            assert WorkerProbes(worker, LoopLag(), users.url()).readiness_problem() == ""
    raised = [line for line in logs if "store's user" in line["event"]]
    assert [line["log_level"] for line in raised] == ["error", "info"]
    assert "docs/store-users.md" in raised[0]["hint"]


@pytest.mark.asyncio
async def test_a_version_with_a_known_hole_is_warned_of(users: Server) -> None:
    link = Link(users.url())
    server_name, version = await store_version(link)
    await link.close()
    assert server_name in KINDS
    assert ".".join(map(str, version)) in users.admin.info("server").values()
    with capture_logs() as logs:
        await check_store(users.url(), lenient=False)
    warned = [line["event"] for line in logs if "a client can run code" in line["event"]]
    assert warned == list(filter(None, [vulnerability_warning(server_name, version)]))
    assert bool(warned) is (version[:2] == (7, 0)), (
        "the oldest that is tested, and the embedded one"
    )
    with capture_logs() as logs:
        await check_store(users.url(), lenient=False, warns=False)
    assert logs == []


@pytest.mark.asyncio
async def test_what_is_only_shown_is_missed_with_one_warning(
    shop: Workshop, users: Server, inspect: Any
) -> None:
    users.set_user("worker", f"{LINES['worker']} -info")
    with capture_logs() as logs:
        await check_store(users.url("worker"), lenient=False)
    assert [line["log_level"] for line in logs] == ["warning"]
    assert "INFO" in logs[0]["event"]

    users.set_user("operator", f"{LINES['operator']} -client|list")
    inspector = inspect()
    inspector._access.link = Link(users.url("operator"))
    with capture_logs() as logs:
        assert await inspector.workers() == []
        assert await inspector.acting_as("ada").workers() == []
    assert [line["log_level"] for line in logs] == ["warning"]
    assert "CLIENT LIST" in logs[0]["event"]


@pytest.mark.parametrize("missing", ["~corral:bull:*", "stream", "some writes"])
@pytest.mark.parametrize("command", [each for each in CHANGING if each != "schedules prune"])
def test_a_command_that_would_be_refused_half_way_changes_nothing(
    corral: Callable[..., Ran], users: Server, command: str, missing: str
) -> None:
    """The audit is written last: without a right to it, the change is not made either."""
    rules = {
        "~corral:bull:*": LINES["operator"].replace(
            "~corral:bull:*", "~corral:bull:acme-letters:*"
        ),
        "stream": f"{LINES['operator']} -xadd",
        "some writes": f"{LINES['operator']} -zrem -hdel -unlink -lrem",
    }[missing]
    users.set_user("operator", rules)
    stage(users.admin)
    before = dump(users.admin)
    code, out, err = corral(*command.split(), *CHANGING[command], user="operator")
    if command == "enqueue" and missing == "some writes":
        assert (code, len(users.admin.lrange(f"{BASE}wait", 0, -1))) == (0, 3), (
            "it needs none of them"
        )
        return
    assert (code, out) == (4, ""), err
    error, hint = err.splitlines()
    assert error.startswith("error: the store")
    assert "docs/store-users.md" in hint
    assert dump(users.admin) == before


def dump(store: redis.Redis) -> dict[str, Any]:
    """All that the store holds, but a probe that ends by itself."""
    with redis.Redis(connection_pool=store.connection_pool) as asking:
        keys = sorted(key for key in asking.keys("*") if not key.endswith(":probe"))
        return {key: asking.type(key) + repr(_contents(asking, key)) for key in keys}


def _contents(store: redis.Redis, key: str) -> Any:
    match store.type(key):
        case "hash":
            return sorted(store.hgetall(key).items())
        case "list":
            return store.lrange(key, 0, -1)
        case "zset":
            return store.zrange(key, 0, -1, withscores=True)
        case "stream":
            return store.xrange(key)
        case _:
            return store.get(key)


PARTLY = {
    "no streams": ("-xadd", "refused"),
    "no lists": ("-lpush", "refused"),
    "no hashes": ("-@hash", "refused"),
    "no scripts": ("-@scripting", "refused"),
    "nothing to take it back with": ("-xadd -unlink", "unknown"),
    "no marker": ("-zadd", "refused"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", PARTLY)
async def test_a_producer_learns_whether_its_job_may_be_there(
    shop: Workshop, users: Server, case: str
) -> None:
    without, outcome = PARTLY[case]
    users.set_user("producer", f"{LINES['producer']} {without}")
    jobs = shop.producer(letters, url=users.url("producer"))
    with pytest.raises(StoreUnavailable) as raised:
        await jobs.enqueue(letters, Letter(text="x"), job_id="one")
    assert raised.value.outcome == outcome
    assert raised.value.job_id == "one"
    assert "docs/store-users.md" in (raised.value.hint or "")
    assert PASSWORD not in str(raised.value)
    written = await shop.raw.exists("bull:letters:one")
    assert bool(written) == (outcome == "unknown")
    assert await shop.raw.llen("bull:letters:wait") == 0


@pytest.mark.asyncio
async def test_every_command_of_every_script_is_tried(users: Server) -> None:
    """A right that is not tried would be missed in the middle of a script."""
    core = Path(__file__).parents[2] / "core" / "corral"
    known = {name.upper() for name in users.admin.command()}
    tried = (
        set(
            re.findall(r"'([A-Z]{3,})\b", (core / "store" / "lua" / "probe.lua").read_text("utf-8"))
        )
        & known
    )
    for folder in ("store", "inspector"):
        source = "\n".join(
            path.read_text("utf-8") for path in (core / folder / "lua").glob("*.lua")
        )
        code = re.sub(r"--.*$", "", source, flags=re.MULTILINE)
        used = set(re.findall(r"'([A-Z]{3,})'", code)) & known
        assert used - tried == set(), folder
        assert len(used) > 20
    everything = " ".join(f"-{name.lower()}" for name in sorted(tried - {"SET"}))
    users.set_user("nobody", f"~* +@all {everything}")
    link = Link(users.url("nobody"))
    roles: dict[Role, int] = {"worker": 40, "operator": 50}
    for role, least in roles.items():
        found = await missing_rights(link, "bull", "letters", role)
        more = re.search(r" and (\d+) more$", found)
        assert more is not None
        assert int(more[1]) + 8 >= least
    await link.close()

"""The quarantine: it is listed, and its ids are returned or discarded with all kept keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from corral import Job, Queue
from corral.errors import ConfigurationError
from corral.inspector import DamagedKey, JobInspector, QuarantinedJob
from corral.inspector.escapes import escaped, unescaped

BASE, ASIDE = "bull:letters:", "corral:bull:letters:quarantine"
KEY_WORDS = (
    *(
        "id",
        "wait",
        "paused",
        "active",
        "prioritized",
        "pc",
        "delayed",
        "completed",
        "failed",
        "waiting-children",
    ),
    *("marker", "events", "meta", "stalled", "stalled-check", "limiter", "repeat", "priority"),
    *(f"metrics:{ending}{data}" for ending in ("completed", "failed") for data in ("", ":data")),
)
JOB = {"name": "letters", "data": '{"text":"kept"}', "opts": "{}", "timestamp": "1000"}


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client whose replies are bytes, as ids are."""
    async with redis.asyncio.Redis.from_url(store_url) as client:
        yield client


@pytest.fixture
def put_aside(store: redis.asyncio.Redis) -> Callable[..., Any]:
    """`await put_aside(b"id")`: an entry as a worker writes it, with a kept hash.

    With `key=""` nothing is kept.
    """

    async def put(
        job_id: bytes, *, key: bytes | None = None, at: int = 1000, origin: str = "wait", **job: Any
    ) -> bytes:
        kept = f"{ASIDE}:".encode() + job_id if key is None else key
        entry = {"at": at, "from": origin, "reason": "the reason", "key": "KEY"}
        await store.hset(ASIDE, job_id, json.dumps(entry).encode().replace(b"KEY", kept))
        if kept:
            await store.hset(kept, mapping={**JOB, **job})
        return kept

    return put


def why(jobs: Any) -> dict[str, str]:
    return {each.id: each.obstacle for each in jobs}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"welcome-ada", "welcome-ada"),
        ("größe 日".encode(), "größe 日"),
        (b"a\xffb", "a\\xffb"),
        (b"a\\b", "a\\\\b"),
        (b"a\\xff", "a\\\\xff"),
        (b"a\nb\x00\x1b[31m", "a\\x0ab\\x00\\x1b[31m"),
        ("a\u202eb".encode(), "a\\xe2\\x80\\xaeb"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        (b"", ""),
    ],
)
def test_an_id_is_found_by_the_text_it_is_shown_as(raw: bytes, shown: str) -> None:
    assert (escaped(raw), unescaped(shown)) == (
        raw.decode() if raw == shown.encode() else shown,
        raw,
    )
    assert shown.isprintable()
    assert unescaped("a\\b\\xzz") == b"a\\b\\xzz", "a backslash that begins no escape is one"


@pytest.mark.asyncio
class TestListing:
    async def test_everything_of_it_is_shown(
        self, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        await put_aside(b"a\xff", origin="prioritized", at=1_700_000_000_000)
        page = await inspect().list_quarantined("letters")
        assert (page.total, page.start) == (1, 0)
        (found,) = page.jobs
        at = datetime.fromtimestamp(1_700_000_000, UTC)
        key = f"{ASIDE}:a\\xff"
        assert found == QuarantinedJob("a\\xff", at, "prioritized", "the reason", key, "a\\xff", "")

    async def test_the_newest_come_first_a_page_at_a_time(
        self, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        for number in range(120):
            await put_aside(b"j%d" % number, at=1000 + number)
        inspector = inspect()
        first, second = (
            await inspector.list_quarantined("letters"),
            await inspector.list_quarantined("letters", start=100),
        )
        assert (first.total, [each.id for each in first.jobs]) == (
            120,
            [f"j{n}" for n in range(119, 19, -1)],
        )
        assert [each.id for each in second.jobs] == [f"j{n}" for n in range(19, -1, -1)]

    async def test_very_many_are_all_on_some_page(
        self, store: redis.asyncio.Redis, inspect: Callable[..., JobInspector]
    ) -> None:
        entry = json.dumps({"at": 1, "from": "wait", "reason": "the reason " * 9, "key": ""})
        await store.hset(ASIDE, mapping={f"j{number}": entry for number in range(2500)})
        inspector, ids = inspect(), set()
        for start in range(0, 2500, 100):
            page = await inspector.list_quarantined("letters", start=start)
            assert (page.total, len(page.jobs)) == (2500, 100)
            ids |= {each.id for each in page.jobs}
        assert len(ids) == 2500

    @pytest.mark.parametrize(("start", "limit"), [(-1, 1), (10_001, 1), (0, 0), (0, 101)])
    async def test_a_page_has_bounds(
        self, inspect: Callable[..., JobInspector], start: int, limit: int
    ) -> None:
        with pytest.raises(ConfigurationError, match="a page has 1 to 100 jobs"):
            await inspect().list_quarantined("letters", start=start, limit=limit)

    async def test_what_no_worker_has_written_is_shown_all_the_same(
        self, store: redis.asyncio.Redis, inspect: Callable[..., JobInspector]
    ) -> None:
        odd: dict[bytes, bytes] = {
            b"no json": b"\xff\xfe no json",
            b"a list": b"[1, 2]",
            b"numbers": b'{"at": "soon", "from": 7, "reason": {"a": 1}, "key": null}',
            b"too late": b'{"at": 1e400, "from": "wait", "reason": "", "key": ""}',
            b"deep": b"[" * 5000,
            b"elsewhere": b'{"at": 1, "from": "wait", "reason": "x", "key": "bull:letters:meta"}',
        }
        await store.hset(ASIDE, mapping=odd)
        await store.hset(f"{BASE}meta", "version", "x")
        page = await inspect().list_quarantined("letters")
        found = {each.id: each for each in page.jobs}
        assert found.keys() == {each.decode() for each in odd}
        assert found["no json"].reason == "\ufffd\ufffd no json"
        assert found["too late"].since is None
        assert found["elsewhere"].key == "", (
            "a key that is none of the quarantine's is nobody's business"
        )
        assert set(why(page.jobs).values()) == {"nothing is kept of it"}
        assert await inspect().discard_all_quarantined("letters") == len(odd)
        assert await store.hget(f"{BASE}meta", "version") == b"x"

    async def test_a_quarantine_in_the_wrong_type_is_named(
        self, store: redis.asyncio.Redis, inspect: Callable[..., JobInspector]
    ) -> None:
        await store.set(ASIDE, "junk")
        inspector = inspect()
        for refused in (
            inspector.list_quarantined("letters"),
            inspector.return_quarantined("letters", ["a"]),
            inspector.return_all_quarantined("letters"),
            inspector.discard_quarantined("letters", ["a"]),
            inspector.discard_all_quarantined("letters"),
        ):
            with pytest.raises(DamagedKey, match=f"the key {ASIDE} is a string, not a hash"):
                await refused
        assert (await inspector.sizes("letters")).quarantined is None


@pytest.mark.asyncio
class TestReturning:
    async def test_a_job_runs_as_if_nothing_had_been(
        self,
        workshop: Any,
        letters: Queue[Any],
        store: Any,
        put_aside: Any,
        inspect: Callable[..., JobInspector],
    ) -> None:
        """Behind the waiting jobs, with its log and all kept keys; an idle worker is woken."""
        jobs = workshop.producer(letters)
        kept = await put_aside(b"one", origin="delayed", delay=60_000)
        await store.rpush(kept + b":logs", "a line")
        await store.hset(kept + b":processed", "bull:letters:child", '"done"')
        await jobs.enqueue(letters, {"text": "first"}, job_id="first")
        before = len(await workshop.events(letters))
        (back,) = await inspect().return_quarantined(letters, ["one"])
        assert (back.id, back.job_id, back.refused) == ("one", "one", "")
        assert await store.lrange(f"{BASE}wait", 0, -1) == [b"one", b"first"]
        assert await workshop.hash(letters, "one") == {**JOB, "delay": "0"}
        assert await store.lrange(f"{BASE}one:logs", 0, -1) == [b"a line"]
        assert await store.hgetall(f"{BASE}one:processed") == {b"bull:letters:child": b'"done"'}
        assert await store.keys(f"{ASIDE}*") == []
        assert await store.zrange(f"{BASE}marker", 0, -1) == [b"0"]
        assert (await workshop.events(letters))[before:] == [{"event": "waiting", "jobId": "one"}]
        seen = []

        async def read(job: Job[Any]) -> None:
            seen.append((job.id, job.payload.text))

        await workshop.burst(letters.processed_by(read), concurrency={"letters": 1})
        assert seen == [("first", "first"), ("one", "kept")]

    async def test_one_with_a_priority_waits_by_it(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        await put_aside(b"urgent", priority=3)
        assert (await inspect().return_quarantined("letters", ["urgent"]))[0].job_id == "urgent"
        assert await store.zscore(f"{BASE}prioritized", "urgent") // 2**32 == 3

    async def test_a_paused_queue_wakes_nobody(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        await put_aside(b"one")
        await inspect().pause("letters")
        await inspect().return_quarantined("letters", ["one"])
        assert not await store.exists(f"{BASE}marker")
        await inspect().resume("letters")

    async def test_an_id_that_is_no_utf_8_comes_back_as_it_was(
        self, workshop: Any, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        await put_aside(b"a\xff\n")
        (found,) = (await inspect().list_quarantined("letters")).jobs
        (back,) = await inspect().return_quarantined("letters", [found.id])
        assert back.job_id == found.id == "a\\xff\\x0a"
        assert await store.lrange(f"{BASE}wait", 0, -1) == [b"a\xff\n"]
        assert await store.exists(BASE.encode() + b"a\xff\n")
        await store.flushdb()

    @pytest.mark.parametrize("word", KEY_WORDS)
    @pytest.mark.parametrize("origin", ["wait", "key"])
    async def test_a_key_word_comes_back_under_another_id(
        self,
        store: Any,
        put_aside: Any,
        inspect: Callable[..., JobInspector],
        word: str,
        origin: str,
    ) -> None:
        await put_aside(word.encode(), origin=origin)
        (found,) = (await inspect().list_quarantined("letters")).jobs
        assert (found.returns_as, found.obstacle) == (f"returned-{word}", "")
        (back,) = await inspect().return_quarantined("letters", [word])
        assert back.job_id == f"returned-{word}"
        assert await store.lrange(f"{BASE}wait", 0, -1) == [f"returned-{word}".encode()]
        await store.flushdb()

    @pytest.mark.parametrize("word", KEY_WORDS)
    async def test_a_key_word_of_which_nothing_is_kept_takes_no_key_of_the_queue_along(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector], word: str
    ) -> None:
        """Neither the queue's settings nor the keys of another job with that id are overwritten."""
        await put_aside(word.encode(), key=b"")
        own = f"{BASE}{word}"
        if word not in {"meta", "wait", "prioritized", "pc"}:
            await store.hset(own, mapping=JOB)
        await store.hset(f"{BASE}meta", "version", "x")
        before = await store.dump(own)
        (back,) = await inspect().return_quarantined("letters", [word])
        assert (back.job_id, back.refused) == (None, "nothing is kept of it")
        assert await store.dump(own) == before
        assert await inspect().discard_quarantined("letters", [word]) == [word]
        assert await store.dump(own) == before
        await store.flushdb()

    @pytest.mark.corral_untidy("what is refused stays")
    async def test_what_cannot_come_back_says_why_and_stays_as_it_is(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        list_key = await put_aside(b"list")
        await store.delete(list_key)
        await store.rpush(list_key, "junk")
        await store.delete(await put_aside(b"gone"))
        await put_aside(b"taken")
        await store.hset(f"{BASE}taken", mapping=JOB)
        logs = await put_aside(b"logs")
        await store.rpush(logs + b":logs", "one")
        await store.rpush(f"{BASE}logs:logs", "another")
        await put_aside(b"twice")
        await store.rpush(f"{BASE}wait", "twice")
        await put_aside(b"")
        await put_aside(b"nothing", key=b"")
        await put_aside(b"failed")
        await store.hset(f"{BASE}returned-failed", mapping=JOB)
        before = await store.hgetall(ASIDE), sorted(await store.keys("*"))
        expected = {
            "list": f"{ASIDE}:list is a list, not a hash",
            "gone": f"{ASIDE}:gone is gone",
            "taken": f"{BASE}taken is taken",
            "logs": f"{BASE}logs:logs is taken",
            "": "no job can have an empty id",
            "nothing": "nothing is kept of it",
            "failed": f"{BASE}returned-failed is taken",
        }
        assert why((await inspect().list_quarantined("letters")).jobs) == {**expected, "twice": ""}
        found = await inspect().return_quarantined("letters", [*expected, "twice", "nobody"])
        refusals = {each.id: each.refused for each in found}
        assert refusals == {
            **expected,
            "twice": "job twice is in wait",
            "nobody": "it is not in quarantine",
        }
        assert all(each.job_id is None for each in found)
        assert (await store.hgetall(ASIDE), sorted(await store.keys("*"))) == before

    async def test_one_that_was_repaired_comes_back(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        """Where it is kept, or in place: then the key is the job's own already."""
        kept = await put_aside(b"kept")
        await store.delete(kept)
        await store.set(kept, "junk")
        await put_aside(b"stood", key=b"")
        await store.set(f"{BASE}stood", "junk")
        both = ["kept", "stood"]
        refused = [each.refused for each in await inspect().return_quarantined("letters", both)]
        assert refused == [
            f"{ASIDE}:kept is a string, not a hash",
            f"{BASE}stood is a string, not a hash",
        ]
        for key in (kept, f"{BASE}stood"):
            await store.delete(key)
            await store.hset(key, mapping=JOB)
        found = await inspect().return_quarantined("letters", both)
        assert [each.job_id for each in found] == both
        assert await store.lrange(f"{BASE}wait", 0, -1) == [b"stood", b"kept"]

    @pytest.mark.corral_untidy("its waiting list is none")
    async def test_where_its_list_is_damaged_it_stays(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        kept = await put_aside(b"one")
        await store.set(f"{BASE}wait", "junk")
        (back,) = await inspect().return_quarantined("letters", ["one"])
        assert back.refused == f"{BASE}wait is a string, not a list"
        assert await store.exists(kept, ASIDE) == 2

    async def test_all_that_can_come_back_do(
        self, workshop: Any, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        for number in range(45):
            await put_aside(b"j%d" % number)
        await store.delete(await put_aside(b"gone"))
        inspector = inspect()
        found = await inspector.return_all_quarantined("letters")
        assert (len(found), [each.id for each in found if each.refused]) == (46, ["gone"])
        assert await store.llen(f"{BASE}wait") == 45
        assert (await inspector.sizes("letters")).quarantined == 1
        (entry,) = await inspector.audit.read()
        assert (entry.what, entry.job_id, entry.count) == ("return_quarantined", None, 45)


@pytest.mark.asyncio
class TestDiscarding:
    async def test_what_is_kept_goes_and_what_is_anothers_stays(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        kept = await put_aside(b"a")
        await store.rpush(kept + b":logs", "one")
        await store.sadd(kept + b":dependencies", "x")
        await put_aside(b"a:failed")
        await put_aside(b"a~2")
        await put_aside(b"ab")
        assert await inspect().discard_quarantined("letters", ["a", "nobody"]) == ["a"]
        names = (b"", b":a:failed", b":a~2", b":ab")
        assert set(await store.keys(f"{ASIDE}*")) == {ASIDE.encode() + name for name in names}
        assert await inspect().discard_all_quarantined("letters") == 3
        assert await store.keys(f"{ASIDE}*") == []

    @pytest.mark.parametrize("how", ["return", "discard"])
    async def test_a_key_that_was_kept_before_under_the_same_id_is_found_then(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector], how: str
    ) -> None:
        """The same id was moved twice, and another id between them has the name of a third copy."""
        await put_aside(b"a~2")
        await put_aside(b"a", at=1000, text="the first")
        await put_aside(b"a", at=2000, key=f"{ASIDE}:a~3".encode(), text="the second")
        inspector = inspect()
        if how == "return":
            assert (await inspector.return_quarantined("letters", ["a"]))[0].job_id == "a"
            assert await store.hget(f"{BASE}a", "text") == b"the second"
        else:
            assert await inspector.discard_quarantined("letters", ["a"]) == ["a"]
        left = {each.id: each.key for each in (await inspector.list_quarantined("letters")).jobs}
        assert left == {"a": f"{ASIDE}:a", "a~2": f"{ASIDE}:a~2"}
        assert await inspector.discard_quarantined("letters", ["a", "a~2"]) == ["a", "a~2"]
        assert await store.keys(f"{ASIDE}*") == []

    async def test_each_change_is_in_the_audit(
        self, store: Any, put_aside: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        for job_id in (b"one", b"completed", b"a\xff", b"two", b"three"):
            await put_aside(job_id)
        inspector = inspect(who="ada")
        await inspector.return_quarantined("letters", ["one"])
        await inspector.return_quarantined("letters", ["completed"])
        await inspector.discard_quarantined("letters", ["a\\xff"])
        await inspector.discard_quarantined("letters", ["two", "three"])
        await inspector.discard_quarantined("letters", ["nobody"])
        await inspector.return_quarantined("letters", [])
        entries = [
            (each.what, each.job_id, each.after, each.count)
            for each in reversed(await inspector.audit.read())
            if (each.who == "ada" and each.before == "quarantine") or each.count
        ]
        assert entries == [
            ("return_quarantined", "one", "waiting", None),
            (
                "return_quarantined",
                "completed",
                {"id": "returned-completed", "state": "waiting"},
                None,
            ),
            ("discard_quarantined", "a\\xff", None, None),
            ("discard_quarantined", None, None, 2),
        ]

"""Searching jobs by their contents: literally, in order, page by page while the queue changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from corral import Queue
from corral.errors import ConfigurationError
from corral.inspector import JobInspector, SearchResult, StoredJob
from corral.inspector.search import MAX_TEXT

pytestmark = pytest.mark.asyncio


@pytest.fixture
def write(workshop: Any) -> Callable[..., Any]:
    """`await write("failed", "a", {…}, at=1, failedReason="…")`: a job of another client."""

    async def write(
        container: str, job_id: str, data: Any = None, /, at: int = 0, **fields: Any
    ) -> None:
        text = data if isinstance(data, str) else json.dumps({} if data is None else data)
        held = {"name": "letters", "data": text, "timestamp": 1, **fields}
        await workshop.raw.hset(f"bull:letters:{job_id}", mapping=held)
        if container in {"wait", "paused", "active"}:
            await workshop.raw.lpush(f"bull:letters:{container}", job_id)
        else:
            await workshop.raw.zadd(f"bull:letters:{container}", {job_id: at})

    return write


def ids(found: SearchResult) -> list[str]:
    return [job.id for job in found.jobs]


async def test_a_job_is_found_by_its_id_its_payload_and_its_failed_reason(
    write: Any, inspect: Callable[..., JobInspector]
) -> None:
    await write("completed", "17", {"to": "ada@example.com"})
    await write("wait", "18", {"to": "17 Abbey Road"})
    await write(
        "failed", "19", {"to": "bob@example.com"}, failedReason="SMTPError: 550 no ada here"
    )
    inspector = inspect()
    assert ids(await inspector.search("letters", "17")) == ["17", "18"], (
        "the job of that id is first"
    )
    found = await inspector.search("letters", "ada")
    assert ids(found) == ["19", "17"]
    assert (found.looked_at, found.total, found.cut, found.next) == (3, 3, False, None)
    assert [job.state for job in found.jobs] == ["failed", "completed"]
    assert found.jobs[0].failed_reason == "SMTPError: 550 no ada here"
    assert ids(await inspector.search("letters", "Ada")) == []
    assert ids(await inspector.search("letters", "17", states=["waiting"])) == ["18"]
    assert ids(await inspector.search("letters", "17", states=[])) == []
    assert ids(await inspector.search("letters")) == ["19", "18", "17"]


@pytest.mark.parametrize(
    "text", ["100%", "a*b", "[x]", "^.", "%d+", "a.b", '"', "\\", "ä\n", "日本", "💌", "/"]
)
@pytest.mark.parametrize("is_ascii", [True, False], ids=["escaped", "raw"])
async def test_a_text_is_looked_for_literally_however_json_spells_it(
    write: Any, inspect: Callable[..., JobInspector], text: str, is_ascii: bool
) -> None:
    await write("wait", "other", {"text": "aXb 100 x 7"})
    await write("wait", "this", json.dumps({"text": f"<{text}>"}, ensure_ascii=is_ascii))
    assert ids(await inspect().search("letters", f"<{text}>")) == ["this"]
    assert ids(await inspect().search("letters", field=("text", f"<{text}>"))) == ["this"]


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (("userId", "42"), ["text", "number"]),
        (("userId", "4"), []),
        (("userId", "420"), []),
        (("userId", ""), ["empty"]),
        (("user.userId", "42"), ["nested"]),
        (("user.id", "7"), ["odd"]),
        (("on", "true"), ["number"]),
        (("on", "null"), ["nested"]),
        (("on", "false"), []),
        (("größe", "1.5"), ["odd"]),
        (("a.b", "x"), ["odd"]),
        (("list", "1"), []),
    ],
)
async def test_a_member_of_the_payload_is_found_by_its_name_and_value(
    write: Any, inspect: Callable[..., JobInspector], field: tuple[str, str], found: list[str]
) -> None:
    await write(
        "wait",
        "odd",
        json.dumps({"größe": 1.5, "a.b": "x", "user": {"x": [], "id": "7"}, "list": [1]}),
    )
    await write("wait", "empty", {"userId": ""})
    await write("wait", "nested", '{"user" : {"userId" :\n42}, "on": null}')
    await write("wait", "number", {"userId": 42, "on": True})
    await write("wait", "text", {"userId": "42"})
    await write("wait", "longer", {"userId": 421, "other": "42"})
    await write("wait", "none", "42")
    assert ids(await inspect().search("letters", field=field)) == found


async def test_text_field_and_match_must_all_hold(
    write: Any, inspect: Callable[..., JobInspector]
) -> None:
    for number in range(4):
        secret = "hunter2" if number == 3 else "x"
        await write(
            "wait", f"j{number}", {"user": number % 2, "text": f"n{number}", "password": secret}
        )

    def is_shown(job: StoredJob) -> bool:
        return "hunter2" in json.dumps({**job.data, "password": "•"})

    inspector = inspect()
    assert ids(await inspector.search("letters", "n3", field=("user", "1"))) == ["j3"]
    assert ids(await inspector.search("letters", "n3", field=("user", "0"))) == []
    assert ids(await inspector.search("letters", "j3", match=lambda job: job.id != "j3")) == []
    hidden, absent = [
        await inspector.search("letters", text, match=is_shown) for text in ("hunter2", "hunter3")
    ]
    assert hidden == absent, "a search cannot probe what its reader may not see"


@pytest.mark.parametrize(
    "container", ["completed", "failed", "prioritized", "delayed", "waiting-children"]
)
async def test_a_search_goes_on_where_it_ended_though_what_it_found_has_left(
    write: Any, workshop: Any, inspect: Callable[..., JobInspector], container: str
) -> None:
    """Many jobs of one millisecond; one job of each page is removed before the next read."""
    for number in range(20):
        await write(container, f"j{number:02}", {"n": number}, at=1 + number // 10)
    inspector = inspect()
    seen: list[str] = []
    after = None
    while True:
        found = await inspector.search("letters", '"n"', after=after, limit=3)
        seen += ids(found)
        assert found.cut is (found.next is not None)
        if not found.cut:
            break
        after = found.next
        await inspector.remove("letters", ids(found)[-1])
        await write(container, f"new{len(seen):02}", {"n": 0}, at=99)
    assert seen == [f"j{number:02}" for number in reversed(range(20))]


@pytest.mark.corral_untidy("BullMQ 5 has put jobs aside")
async def test_a_search_walks_through_lists_that_move(
    write: Any, workshop: Any, inspect: Callable[..., JobInspector]
) -> None:
    for number in range(5):
        await write("paused", f"p{number}")
    for number in range(5):
        await write("wait", f"w{number}")
    inspector = inspect()
    first = await inspector.search("letters", limit=2, states=["waiting"])
    assert (ids(first), first.total) == (["w4", "w3"], 10)
    await write("wait", "new")
    await workshop.raw.rpop("bull:letters:wait")
    second = await inspector.search("letters", limit=2, after=first.next)
    assert ids(second) == ["w2", "w1"]
    await inspector.remove("letters", "w1")  # its neighbours say where to continue
    third = await inspector.search("letters", limit=10, after=second.next)
    assert ids(third) == ["p4", "p3", "p2", "p1", "p0"]
    assert {job.state for job in third.jobs} == {"waiting"}


@pytest.mark.corral_untidy("odd content is what it is about")
async def test_odd_content_stops_no_search(
    write: Any, workshop: Any, inspect: Callable[..., JobInspector]
) -> None:
    raw = workshop.raw
    await write("failed", "broken", '{"userId": 42', at=1)
    await raw.hset("bull:letters:empty", "name", "")
    await raw.set("bull:letters:text", "no hash")
    await raw.zadd("bull:letters:failed", {"ghost": 4, "empty": 3, "text": 2})
    await raw.set(b"bull:letters:\xff\xfe", "")
    await raw.hset(b"bull:letters:\xff", mapping={b"data": b'"\xff userId"'})
    await raw.zadd("bull:letters:failed", {b"\xff": 6, b"\xff\xfe": 5})
    inspector = inspect()
    found = await inspector.search("letters", "userId")
    assert (ids(found), found.looked_at, found.cut) == (["\ufffd", "broken"], 6, False)
    assert found.jobs[1].data == '{"userId": 42'
    assert ids(await inspector.search("letters", field=("userId", "42"))) == []
    assert ids(await inspector.search("letters")) == ["\ufffd", "empty", "broken"]
    assert ids(await inspector.search("letters", "\ud83d")) == []
    walked, after = [], None
    for _ in range(3):
        found = await inspector.search("letters", after=after, limit=1)
        walked += ids(found)
        after = found.next
    assert (walked, after) == (["\ufffd", "empty", "broken"], None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "x" * (MAX_TEXT + 1)}, "at most 200 characters"),
        ({"text": "x" * 100_000}, "at most 200 characters"),
        ({"field": ("name", "x" * 100_000)}, "at most 200 characters"),
        ({"field": ("n" * 100_000, "x")}, "at most 200 characters"),
        ({"limit": 0}, "finds 1 to 100 jobs"),
        ({"limit": 101}, "finds 1 to 100 jobs"),
        ({"after": "nowhere"}, "not a place where a search can continue"),
        ({"after": "failed:soon:a"}, "not a place where a search can continue"),
        ({"after": "wait:-1:a"}, "not a place where a search can continue"),
        ({"after": "wait:1.5:a"}, "not a place where a search can continue"),
        ({"after": "meta:1:a"}, "not a place where a search can continue"),
        ({"after": "wait:1:a", "states": ["failed"]}, "not a place where a search can continue"),
    ],
)
async def test_what_is_out_of_bounds_is_refused(
    inspect: Callable[..., JobInspector], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await inspect().search("letters", **arguments)


async def test_the_newest_are_listed_first_if_asked(
    write: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    for number in range(5):
        for container in ("wait", "prioritized", "delayed", "completed"):
            await write(container, f"{container}{number}", at=number + 1)
    inspector = inspect()
    for state, container in (
        ("waiting", "wait"),
        ("prioritized",) * 2,
        ("delayed",) * 2,
        ("completed",) * 2,
    ):
        page = await inspector.list(letters, state, start=1, limit=3, newest_first=True)  # type: ignore[arg-type]  # as listed
        assert [job.id for job in page.jobs] == [f"{container}{number}" for number in (3, 2, 1)]


@pytest.mark.corral_untidy("BullMQ 5 has put jobs aside")
async def test_what_bullmq_5_has_put_aside_is_counted_and_listed_where_it_runs(
    write: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """It is older than the waiting jobs, and is listed before them."""
    for number in range(3):
        await write("paused", f"p{number}")
        await write("wait", f"w{number}")
    inspector = inspect()
    assert (await inspector.counts(letters))["waiting"] == 6
    order = ["p0", "p1", "p2", "w0", "w1", "w2"]
    for start in range(7):
        for limit in range(1, 7):
            page = await inspector.list(letters, "waiting", start=start, limit=limit)
            assert [job.id for job in page.jobs] == order[start : start + limit]
            page = await inspector.list(
                letters, "waiting", start=start, limit=limit, newest_first=True
            )
            assert [job.id for job in page.jobs] == order[::-1][start : start + limit]
            assert page.total == 6
    await inspector.resume(letters)
    assert [job.id for job in (await inspector.list(letters, "waiting")).jobs] == order

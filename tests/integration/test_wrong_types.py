"""Every key of a queue with every wrong type.

An operation names the key, or works all the same; it never does half of its work.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from corral import JobState
from corral.cli import main
from corral.inspector import CLEANABLE, DamagedKey, JobInspector

pytestmark = pytest.mark.corral_untidy("its keys are of the wrong type")

BASE, ASIDE, AUDIT = "bull:letters:", "corral:bull:letters:quarantine", "corral:bull:audit"
TYPES = ("string", "list", "set", "zset", "hash", "stream")
RIGHT: Mapping[str, str] = {
    **dict.fromkeys((f"{BASE}{name}" for name in ("wait", "active", "paused")), "list"),
    **dict.fromkeys(
        (f"{BASE}{name}" for name in ("prioritized", "delayed", "completed", "failed")), "zset"
    ),
    **dict.fromkeys((f"{BASE}{name}" for name in ("waiting-children", "marker", "repeat")), "zset"),
    **dict.fromkeys(
        (f"{BASE}{name}" for name in ("id", "pc", "limiter", "stalled-check")), "string"
    ),
    **dict.fromkeys((f"{BASE}metrics:{ending}" for ending in ("completed", "failed")), "hash"),
    **dict.fromkeys((f"{BASE}metrics:{ending}:data" for ending in ("completed", "failed")), "list"),
    **dict.fromkeys((f"{BASE}meta", ASIDE), "hash"),
    **dict.fromkeys((f"{BASE}events", AUDIT), "stream"),
    f"{BASE}stalled": "set",
}
"""The queue's own keys, and the audit's (wire § 2.1)."""
DAMAGE = [(key, kind) for key, right in RIGHT.items() for kind in TYPES if kind != right]
JOBS = {
    **dict.fromkeys(("w1", "w2", "small"), "wait"),
    **dict.fromkeys(("d1", "d2"), "delayed"),
    **dict.fromkeys(("f1", "f2", "child"), "failed"),
    "p1": "prioritized",
    "c1": "completed",
    "a1": "active",
    "parent": "waiting-children",
}


def staged(store: redis.Redis) -> None:
    """Jobs in every container, a parent with two children, one id in quarantine."""
    with store.pipeline(transaction=False) as writing:
        writing.flushdb()
        plain = {
            "name": "letters",
            "data": '{"text":"user-4711"}',
            "opts": "{}",
            "timestamp": 1000,
            "priority": 0,
        }
        for job, container in JOBS.items():
            writing.hset(f"{BASE}{job}", mapping={**plain, "priority": int(job == "p1")})
            if container in {"wait", "active"}:
                writing.lpush(f"{BASE}{container}", job)
            else:
                writing.zadd(f"{BASE}{container}", {job: 4_096_000})
        for job in ("child", "small"):
            belongs = {
                "parentKey": f"{BASE}parent",
                "parent": json.dumps({"id": "parent", "queueKey": BASE[:-1]}),
            }
            writing.hset(f"{BASE}{job}", mapping=belongs)
        writing.sadd(f"{BASE}parent:dependencies", f"{BASE}small")
        writing.zadd(f"{BASE}parent:unsuccessful", {f"{BASE}child": 1})
        writing.set(f"{BASE}a1:lock", "worker:1")
        writing.rpush(f"{BASE}c1:logs", "user-4711")
        writing.hset(f"{BASE}meta", "opts.maxLenEvents", 10_000)
        writing.xadd(
            f"{BASE}events", {"event": "failed", "jobId": "f1", "failedReason": "user-4711"}
        )
        writing.hset(f"{ASIDE}:odd", mapping=plain)
        entry = {
            "at": 1000,
            "from": "wait",
            "reason": "bull:letters:odd is a list, not a hash",
            "key": f"{ASIDE}:odd",
        }
        writing.hset(ASIDE, "odd", json.dumps(entry))
        writing.execute()


def spoil(store: redis.Redis, key: str, kind: str) -> None:
    """Replace the key by one of another type."""
    store.delete(key)
    match kind:
        case "string":
            store.set(key, "junk")
        case "list":
            store.rpush(key, "junk")
        case "set":
            store.sadd(key, "junk")
        case "zset":
            store.zadd(key, {"junk": 1})
        case "hash":
            store.hset(key, "junk", "1")
        case "stream":
            store.xadd(key, {"junk": "1"})


def held(store: redis.Redis) -> dict[bytes, bytes | None]:
    """Everything in the store except the counter `pc`, in which gaps mean nothing."""
    keys = sorted(key for key in store.keys("*") if not key.endswith(b":pc"))
    with store.pipeline(transaction=False) as reading:
        for key in keys:
            reading.dump(key)
        return dict(zip(keys, reading.execute(), strict=True))


def homeless(store: redis.Redis) -> set[str]:
    """Jobs with a hash that are in no container, and jobs that are in two."""
    lists, sets = (
        ("wait", "active", "paused"),
        ("prioritized", "delayed", "waiting-children", "completed", "failed"),
    )
    with store.pipeline(transaction=False) as reading:
        for name in lists:
            reading.lrange(f"{BASE}{name}", 0, -1)
        for name in sets:
            reading.zrange(f"{BASE}{name}", 0, -1)
        for job in JOBS:
            reading.exists(f"{BASE}{job}")
        found = reading.execute(raise_on_error=False)
    containers = [each for each in found[: len(lists) + len(sets)] if isinstance(each, list)]
    places = [job for each in containers for job in each]
    jobs = {job for job, is_there in zip(JOBS, found[-len(JOBS) :], strict=True) if is_there}
    return {job for job in jobs if places.count(job.encode()) != 1}


Operation = Callable[[JobInspector], Awaitable[Any]]
QUEUE = "letters"


async def refused(operation: Operation, inspector: JobInspector) -> tuple[str, ...]:
    """The damage that the operation reports; nothing if it succeeded."""
    try:
        await operation(inspector)
    except DamagedKey as error:
        return error.damaged
    return ()


def named(key: str) -> str:
    """A key's name in the tables below."""
    return {ASIDE: "quarantine", AUDIT: "audit"}.get(key) or key.removeprefix(BASE)


CHANGES: Mapping[str, tuple[Operation, frozenset[str]]] = {
    "remove": (lambda each: each.remove(QUEUE, "w1"), frozenset({"wait"})),
    "remove a failed one": (lambda each: each.remove(QUEUE, "f1"), frozenset({"failed"})),
    "remove the last child": (
        lambda each: each.remove(QUEUE, "small"),
        frozenset({"wait", "waiting-children", "active", "meta", "marker", "events"}),
    ),
    "retry": (lambda each: each.retry(QUEUE, "f1"), frozenset({"failed", "wait"})),
    "retry a completed one": (
        lambda each: each.retry(QUEUE, "c1"),
        frozenset({"completed", "wait"}),
    ),
    "retry a child": (lambda each: each.retry(QUEUE, "child"), frozenset({"failed", "wait"})),
    "promote": (lambda each: each.promote(QUEUE, "d1"), frozenset({"delayed", "wait"})),
    "edit": (lambda each: each.edit(QUEUE, "w1", {"text": "new"}), frozenset({"wait"})),
    "retry all": (lambda each: each.retry_all_failed(QUEUE), frozenset({"failed"})),
    "promote all": (lambda each: each.promote_all(QUEUE), frozenset({"delayed"})),
    "pause": (lambda each: each.pause(QUEUE), frozenset({"meta"})),
    "resume": (lambda each: each.resume(QUEUE), frozenset({"meta"})),
    "concurrency": (lambda each: each.set_concurrency(QUEUE, 3), frozenset({"meta"})),
    "rate": (lambda each: each.set_rate_limit(QUEUE, 3, timedelta(seconds=1)), frozenset({"meta"})),
    "drain": (
        lambda each: each.drain(QUEUE, delayed=True),
        frozenset({"wait", "prioritized", "delayed"}),
    ),
    **{
        f"clean {state}": (
            lambda each, state=state: each.clean(QUEUE, state, timedelta(0)),  # type: ignore[misc]  # of a loop
            frozenset({"wait" if state == "waiting" else state}),
        )
        for state in CLEANABLE
    },
    "scrub": (
        lambda each: each.scrub(QUEUE, "user-4711"),
        frozenset({"completed", "failed", "events"}),
    ),
    "scrub by a function": (
        lambda each: each.scrub(QUEUE, lambda _job: True),
        frozenset({"completed", "failed", "events"}),
    ),
    "scrub events": (
        lambda each: each.scrub_events(QUEUE, lambda text: "user" in text),
        frozenset({"events"}),
    ),
    "return": (lambda each: each.return_quarantined(QUEUE, ["odd"]), frozenset({"quarantine"})),
    "return all": (lambda each: each.return_all_quarantined(QUEUE), frozenset({"quarantine"})),
    "discard": (lambda each: each.discard_quarantined(QUEUE, ["odd"]), frozenset({"quarantine"})),
    "discard all": (lambda each: each.discard_all_quarantined(QUEUE), frozenset({"quarantine"})),
}
"""What changes something; and the ends of the keys without which it cannot be done.

The audit is one of them always.
"""
READS: Mapping[str, tuple[Operation, frozenset[str]]] = {
    "sizes": (lambda each: each.sizes(QUEUE), frozenset()),
    "summary": (lambda each: each.summary(QUEUE), frozenset()),
    "failures": (lambda each: each.failures(QUEUE), frozenset()),
    "workers": (lambda each: each.workers(), frozenset()),
    "search": (lambda each: each.search(QUEUE, "user"), frozenset()),
    "undeclared": (lambda each: each.find_undeclared(), frozenset()),
    "logs": (lambda each: each.logs(QUEUE, "c1"), frozenset()),
    "counts": (
        lambda each: each.counts(QUEUE),
        frozenset(
            {"wait", "active", "prioritized", "delayed", "waiting-children", "completed", "failed"}
        ),
    ),
    "limits": (lambda each: each.limits(QUEUE), frozenset({"meta"})),
    "get": (lambda each: each.get(QUEUE, "f1"), frozenset({"failed"})),
    "quarantined": (lambda each: each.list_quarantined(QUEUE), frozenset({"quarantine"})),
    "audit": (lambda each: each.audit.read(), frozenset({"audit"})),
    **{
        f"list {state}": (
            lambda each, state=state: each.list(QUEUE, state),  # type: ignore[misc]  # of a loop
            frozenset({"wait" if state == "waiting" else state}),
        )
        for state in JobState
    },
}


@pytest.fixture
def store(store_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store_url) as client:
        yield client


@pytest.mark.asyncio
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_made_whole_or_refused_with_the_key(
    store: redis.Redis, inspect: Callable[..., JobInspector], name: str
) -> None:
    operation, needs = CHANGES[name]
    inspector, missed = inspect(), set()
    for key, kind in DAMAGE:
        staged(store)
        spoil(store, key, kind)
        lost, before = homeless(store), held(store)
        if damaged := await refused(operation, inspector):
            missed.add(named(key))
            assert damaged == (f"{key} is a {kind}, not a {RIGHT[key]}",)
            assert held(store) == before, (key, kind)
        assert homeless(store) <= lost, (key, kind)
        assert store.type(key).decode() == kind, (key, kind)
    assert missed == {*needs, "audit"}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", READS)
async def test_what_is_not_affected_can_be_read(
    store: redis.Redis, inspect: Callable[..., JobInspector], name: str
) -> None:
    operation, needs = READS[name]
    inspector = inspect()
    for key, kind in DAMAGE:
        staged(store)
        spoil(store, key, kind)
        damaged = await refused(operation, inspector)
        assert damaged == (
            (f"{key} is a {kind}, not a {RIGHT[key]}",) if named(key) in needs else ()
        )


@pytest.mark.asyncio
async def test_all_keys_of_a_wrong_type_are_shown_at_a_glance(
    store: redis.Redis, inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    for key, kind in DAMAGE:
        staged(store)
        spoil(store, key, kind)
        message = f"{key} is a {kind}, not a {RIGHT[key]}"
        for damaged in (
            (await inspector.sizes(QUEUE)).damaged,
            (await inspector.summary(QUEUE)).damaged,
        ):
            assert damaged == (() if key == AUDIT else (message,))


OF_JOBS: Mapping[str, str] = {
    **dict.fromkeys(("f1", "c1", "w1", "d1", "child", "parent"), "hash"),
    **dict.fromkeys(("parent:failed", "parent:processed", "c1:processed"), "hash"),
    **dict.fromkeys(("parent:dependencies", "f1:dependencies"), "set"),
    **dict.fromkeys(("a1:lock", "de:once"), "string"),
    "parent:unsuccessful": "zset",
    "c1:logs": "list",
}
DAMAGED_JOBS = [(key, kind) for key, right in OF_JOBS.items() for kind in TYPES if kind != right]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", [*CHANGES, *READS])
async def test_a_damaged_job_hurts_no_other(
    store: redis.Redis, inspect: Callable[..., JobInspector], name: str
) -> None:
    """Its own key, and those beside it.

    An operation on it is refused and names the key; one on many jobs changes all others.
    """
    operation, _ = {**CHANGES, **READS}[name]
    inspector = inspect()
    for key, kind in DAMAGED_JOBS:
        staged(store)
        store.hset(f"{BASE}f2", "deid", "once")
        spoil(store, f"{BASE}{key}", kind)
        lost, before = homeless(store), held(store)
        if damaged := await refused(operation, inspector):
            assert damaged == (f"{BASE}{key} is a {kind}, not a {OF_JOBS[key]}",)
            assert name.startswith("scrub") or held(store) == before, (key, kind)
        assert homeless(store) <= lost, (key, kind)
        assert store.type(f"{BASE}{key}").decode() in {kind, "none"}, (key, kind)


@pytest.mark.asyncio
async def test_what_is_done_to_many_leaves_the_damaged_and_tells_which(
    store: redis.Redis, inspect: Callable[..., JobInspector], caplog: pytest.LogCaptureFixture
) -> None:
    inspector = inspect()
    for operation, key, count in (
        (inspector.retry_all_failed, "f1", 2),
        (inspector.promote_all, "d1", 1),
        (inspector.drain, "w1", 3),
        (lambda queue: inspector.clean(queue, "failed", timedelta(0)), "f1", 2),
    ):
        staged(store)
        spoil(store, f"{BASE}{key}", "list")
        caplog.clear()
        assert await operation(QUEUE) == count
        logged = caplog.text
        assert "jobs were skipped: their keys are damaged" in logged
        assert f"{BASE}{key} is a list, not a hash" in logged
        assert store.type(f"{BASE}{key}") == b"list"
    staged(store)
    spoil(store, f"{BASE}c1:logs", "string")
    with pytest.raises(DamagedKey, match="c1:logs is a string, not a list") as left:
        await inspector.scrub(QUEUE, "user-4711")
    assert left.value.done == 3
    assert store.hget(f"{BASE}f1", "data") == b"{}"
    assert store.hget(f"{BASE}c1", "data") != b"{}"


@pytest.mark.asyncio
async def test_promotion_goes_past_more_damaged_jobs_than_one_batch_has(
    store: redis.Redis, inspect: Callable[..., JobInspector]
) -> None:
    for number in range(1100):
        store.zadd(f"{BASE}delayed", {f"bad{number}": number})
        store.set(f"{BASE}bad{number}", "junk")
    store.zadd(f"{BASE}delayed", {"good": 1_000_000})
    store.hset(f"{BASE}good", mapping={"data": "{}"})
    assert await inspect().promote_all(QUEUE) == 1
    assert (store.lrange(f"{BASE}wait", 0, -1), store.zcard(f"{BASE}delayed")) == ([b"good"], 1100)


@pytest.mark.asyncio
async def test_pause_leaves_a_job_called_marker(
    store: redis.Redis, inspect: Callable[..., JobInspector]
) -> None:
    store.hset(f"{BASE}marker", mapping={"name": "x", "data": "{}"})
    assert await inspect().pause(QUEUE)
    assert store.hget(f"{BASE}marker", "name") == b"x"
    assert await inspect().resume(QUEUE)
    assert store.hget(f"{BASE}marker", "name") == b"x"


@pytest.mark.asyncio
@pytest.mark.parametrize("value", ["many", "1.5", ""])
async def test_a_counter_that_is_no_number_loses_no_job(
    store: redis.Redis, inspect: Callable[..., JobInspector], value: str
) -> None:
    staged(store)
    store.hset(f"{BASE}f1", "priority", 5)
    store.set(f"{BASE}pc", value)
    with pytest.raises(DamagedKey, match="the key bull:letters:pc is a string, not a number"):
        await inspect().retry(QUEUE, "f1")
    assert homeless(store) == set()
    assert await inspect().retry_all_failed(QUEUE) == 2, "those without a priority do not need it"


@pytest.mark.asyncio
async def test_children_that_name_each_other_end_nothing(
    store: redis.Redis, inspect: Callable[..., JobInspector]
) -> None:
    staged(store)
    store.sadd(f"{BASE}f1:dependencies", f"{BASE}f2")
    store.sadd(f"{BASE}f2:dependencies", f"{BASE}f1")
    await inspect().remove(QUEUE, "f1")
    assert store.exists(f"{BASE}f1", f"{BASE}f2") == 0
    assert homeless(store) == set()


COMMANDS: tuple[tuple[str, ...], ...] = (
    *(
        ("queues",),
        ("queues", "--json"),
        ("audit",),
        ("schedules",),
        ("schedules", "prune"),
        ("pause", "letters"),
    ),
    *(
        ("resume", "letters"),
        ("limit", "letters"),
        ("limit", "letters", "--concurrency", "2"),
        ("retry", "letters", "f1"),
    ),
    *(
        ("retry", "letters", "--all-failed"),
        ("promote", "letters", "d1"),
        ("promote", "letters", "--all"),
    ),
    *(("job", "list", "letters", "--state", state.value) for state in JobState),
    *(
        ("job", "show", "letters", "f1"),
        ("job", "logs", "letters", "c1"),
        ("job", "remove", "letters", "w1", "f1"),
    ),
    *(("drain", "letters", "--yes"), ("scrub", "user-4711", "--yes"), ("enqueue", "letters", "{}")),
    ("clean", "letters", "--state", "failed", "--older-than", "1s", "--yes"),
    *(("quarantine", "list", "letters"), ("quarantine", "return", "letters", "odd")),
    *(("quarantine", "discard", "letters", "--all", "--yes"), ("health",)),
)
PLUGIN = """
from datetime import timedelta
from corral import Every, Payload, Queue, hookimpl

class Letter(Payload):
    text: str = ""

@hookimpl
def corral_queues():
    return [Queue("letters", Letter), Queue("others", Letter, schedule=Every(timedelta(hours=1)))]
"""


@pytest.fixture
def run(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    real_plugins: str,
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """`run("pause", "letters")`: exit code, standard output, standard error."""
    site = tmp_path / "site"
    info = site / "wrong_types-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "wrong_types_queues.py").write_text(PLUGIN, "utf-8")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wrong-types\nVersion: 1.0\n", "utf-8"
    )
    points = "[corral.queues]\nletters = wrong_types_queues\nothers = wrong_types_queues\n"
    (info / "entry_points.txt").write_text(points, "utf-8")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "CORRAL_ENV": "production",
        "CORRAL_LOG_LEVEL": "ERROR",
        "CORRAL_DISABLED_PLUGINS": real_plugins,
        "REDIS_URL": store_url,
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["corral", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    yield run
    sys.modules.pop("wrong_types_queues", None)


SENTENCE = re.compile(r"error: the key \S+ is a \w+, not an? \w+(; the key .*)?")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_says_a_sentence_and_shows_no_traceback(
    store: redis.Redis, run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...]
) -> None:
    """The exit code says whether a change failed; the key is named; a third per run."""
    place = COMMANDS.index(arguments)
    for at, (key, right) in enumerate(RIGHT.items()):
        if at % 3 != place % 3:
            continue
        kind = [kind for kind in TYPES if kind != right][(at + place) % 5]
        staged(store)
        spoil(store, key, kind)
        code, out, err = run(*arguments)
        assert "Traceback" not in err + out
        if arguments == ("health",):
            assert (code, err) == (1, err), "no worker runs"
            continue
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code == 0) == (not lines), (key, kind, code, err)
        for line in lines:
            assert SENTENCE.fullmatch(line) or "was not returned: " in line, (key, kind, line)
            assert f"{key} is a {kind}, not a" in line or f"{key} is taken" in line, (
                key,
                kind,
                line,
            )


def test_queues_lists_the_others_and_a_question_mark(
    store: redis.Redis, run: Callable[..., tuple[int, str, str]]
) -> None:
    staged(store)
    spoil(store, f"{BASE}wait", "hash")
    store.hset("bull:others:1", "data", "{}")
    store.lpush("bull:others:wait", "1")
    code, out, err = run("queues")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert code == 1
    assert (rows["letters"][:3], rows["others"][:3]) == (["?", "1", "1"], ["1", "0", "0"])
    assert rows["QUEUE"][-2:] == ["QUARANTINE", "PAUSED"]
    assert err.startswith("error: the key bull:letters:wait is a hash, not a list\n  hint: ")
    code, out, err = run("queues", "--json")
    found = {row["queue"]: row for row in json.loads(out)}
    assert (code, found["letters"]["waiting"], found["letters"]["quarantined"]) == (1, None, 1)
    assert found["letters"]["damaged"] == ["bull:letters:wait is a hash, not a list"]
    assert (
        found["others"]["waiting"],
        found["others"]["quarantined"],
        found["others"]["damaged"],
    ) == (1, 0, [])


def test_a_damaged_schedule_hides_no_other(
    store: redis.Redis, run: Callable[..., tuple[int, str, str]]
) -> None:
    for schedule in ("good", "bad"):
        store.zadd(f"{BASE}repeat", {schedule: 1000})
        store.hset(f"{BASE}repeat:{schedule}", mapping={"name": "x", "every": 1000, "ic": 1})
    spoil(store, f"{BASE}repeat:bad", "string")
    code, out, err = run("schedules")
    assert code == 1
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["letters", "good"],
        ["others", "declared"],
    ]
    assert err.startswith("error: the key bull:letters:repeat:bad is a string, not a hash\n")


def test_the_sign_of_life_in_the_wrong_type_is_named(
    store: redis.Redis, run: Callable[..., tuple[int, str, str]]
) -> None:
    store.set("corral:bull:alive", "junk")
    code, _, err = run("health")
    assert (code, err.splitlines()[0]) == (
        1,
        "error: the key corral:bull:alive is a string, not a hash",
    )

"""Queues in the store that nobody declares: found, counted, listed and drained by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from corral import Queue, UnknownQueue
from corral.errors import StoreUnavailable
from corral.fleet.processes import ProcessRecord, ProcessRecords
from corral.inspector import JobInspector, OrphanSearch
from corral.job_state import JobState
from corral.observe.metrics import StoreMetrics, render, render_metrics
from corral.store import queue_search
from corral.store.connection import Link, ThreadLink
from corral.store.queue_search import MAX_FOUND, REMEMBER_SECONDS, STEPS, QueueSearch

Ran = tuple[int, str, str]
HOSTILE = (
    "with space",
    "<script>alert(1)</script>",
    'quote"\\back',
    "two\nlines",
    "\x1b[2Jescape",
    "eu:orders",
    "[glob]*?",
    "日本 🐎",
)
"""Names that a client in another language may choose."""
UNTIDY = pytest.mark.corral_untidy("queues of other clients, written by hand")


@pytest.fixture
def store(store_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


def add_job(store: redis.Redis, queue: str, job_id: str = "1", prefix: str = "bull") -> None:
    """Add a waiting job as BullMQ does."""
    base = f"{prefix}:{queue}:"
    store.hset(f"{base}meta", "version", "bullmq:6")
    fields: dict[Any, Any] = {"name": "x", "data": '{"n":1}', "opts": "{}", "timestamp": 1000}
    store.hset(base + job_id, mapping=fields)
    store.lpush(f"{base}wait", job_id)


class TestCommands:
    @pytest.fixture
    def run(
        self, in_process: Callable[..., Ran], store_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Ran]:
        monkeypatch.setenv("CORRAL_LOG_LEVEL", "WARNING")
        return lambda *arguments: in_process(store_url, *arguments)

    @UNTIDY
    def test_queues_has_a_row_for_each(self, run: Callable[..., Ran], store: redis.Redis) -> None:
        assert "CATALOG" not in run("queues")[1]
        add_job(store, "acme-legacy", "1")
        add_job(store, "acme-legacy", "2")
        store.zadd("bull:acme-legacy:failed", {"3": 1})
        _, out, err = run("queues")
        header, *rows = out.splitlines()
        (row,) = (each for each in rows if each.startswith("acme-legacy"))
        assert header.endswith("CATALOG")
        assert row.split()[1] == "2"
        assert row.endswith("not installed")
        assert sum("not installed" in each for each in rows) == 1
        assert err == ""
        found = {each["queue"]: each for each in json.loads(run("queues", "--json")[1])}
        assert not found["acme-legacy"]["installed"]
        assert (found["acme-legacy"]["waiting"], found["acme-legacy"]["failed"]) == (2, 1)
        assert found["acme-letters"]["installed"]

    @UNTIDY
    def test_check_warns_and_stays_at_exit_code_0(
        self, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        store.hset("bull:acme-empty:meta", "version", "bullmq:6")
        assert "acme-empty" not in run("check")[2], "it has no jobs"
        add_job(store, "acme-legacy")
        store.zadd("bull:acme-legacy:delayed", {"2": 1})
        code, _, err = run("check")
        assert code == 0
        assert (
            "warning: queue 'acme-legacy' is in the store and not installed: 1 waiting, 1 delayed\n"
        ) in err
        assert json.loads(run("check", "--json")[1])["not_installed"] == ["acme-legacy"]

    def test_check_needs_no_store(
        self, run: Callable[..., Ran], in_process: Callable[..., Ran]
    ) -> None:
        code, out, err = in_process("unix:///nowhere/store.sock", "check")
        assert code == 0
        assert "acme-letters" in out
        assert (
            "note: the store was not searched for queues that nobody declares: "
            "the store at unix:///nowhere/store.sock"
        ) in err
        code, out, _ = in_process("unix:///nowhere/store.sock", "check", "--json")
        assert (code, json.loads(out)["not_installed"]) == (0, None)

    @UNTIDY
    @pytest.mark.parametrize("name", ["acme-legacy", *HOSTILE])
    def test_they_are_listed_and_drained_by_name(
        self, name: str, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        add_job(store, name)
        _, out, _ = run("queues")
        assert "\x1b" not in out
        assert sum("not installed" in line for line in out.splitlines()) == 1
        code, out, err = run("job", "list", name, "--state", "waiting", "--json")
        assert (code, [each["id"] for each in json.loads(out)["jobs"]]) == (0, ["1"])
        assert "queue is not installed: it is in the store, and no plugin declares it" in err
        assert run("job", "show", name, "1", "--json")[0] == 0
        code, out, err = run("drain", name, "--yes")
        assert (code, out) == (0, "removed 1 job\n")
        assert "queue is not installed" in err
        assert store.exists(f"bull:{name}:wait", f"bull:{name}:1") == 0
        assert run("pause", name, "--json")[0] == 0
        assert run("resume", name, "--json")[0] == 0

    def test_a_name_that_the_store_does_not_have_is_refused_as_before(
        self, run: Callable[..., Ran]
    ) -> None:
        refused = "error: no queue is named 'acme-leters'\n  hint: did you mean 'acme-letters'?\n"
        for command in (("job", "list"), ("drain", "--yes"), ("pause",)):
            assert run(*command, "acme-leters") == (2, "", refused)

    @UNTIDY
    def test_nothing_is_enqueued_into_one(
        self, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        add_job(store, "acme-legacy")
        code, _, err = run("enqueue", "acme-legacy", "{}")
        assert code == 2
        assert "no queue is named 'acme-legacy'" in err
        assert store.llen("bull:acme-legacy:wait") == 1

    @UNTIDY
    def test_one_of_a_disabled_plugin_is_installed(
        self, run: Callable[..., Ran], store: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_job(store, "acme-letters")
        monkeypatch.setenv("CORRAL_DISABLED_PLUGINS", "acme")
        assert "acme-letters" not in run("queues")[1]
        code, _, err = run("drain", "acme-letters", "--yes")
        assert code == 2
        assert "CORRAL_DISABLED_PLUGINS disables it" in err

    @UNTIDY
    def test_the_prefix_of_the_settings_holds(
        self, run: Callable[..., Ran], store: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_job(store, "ours", prefix="[my]*")
        add_job(store, "theirs", prefix="mine")
        monkeypatch.setenv("CORRAL_PREFIX", "[my]*")
        out = run("queues")[1]
        assert "ours" in out
        assert "theirs" not in out


@pytest.mark.asyncio
class TestInspector:
    @UNTIDY
    async def test_it_finds_what_nobody_declares(
        self, inspect: Callable[..., JobInspector], store: redis.Redis, store_url: str
    ) -> None:
        for name in ("letters", "legacy", "elsewhere", *HOSTILE):
            add_job(store, name)
        store.lpush("bull:no-meta:wait", "1")
        store.hset("bull:letters:x:meta", "name", "a job whose id is x:meta")
        store.hset(b"bull:\xff:meta", "a", "no text")
        store.hset("bull::meta", "a", "no name")
        store.hset(f"bull:{'x' * 600}:meta", "a", "too long")
        store.set("bull:letters:weta", "another key that the pattern finds")
        link = Link(store_url)
        catalog = b'{"elsewhere":{"distribution":"d","version":"1","fingerprint":"f","role":"worker","time":1}}'
        await ProcessRecords(link, "bull").write("other", ProcessRecord(0.0, catalog=catalog))
        try:
            found = await inspect().find_orphaned()
        finally:
            await link.close()
            store.delete("corral:bull:alive")
        assert sorted(found.sizes) == sorted(("legacy", "no-meta", *HOSTILE))
        assert {each.counts[JobState.WAITING] for each in found.sizes.values()} == {1}
        assert not found.is_partial
        assert found.problem == ""
        assert "elsewhere" in await inspect().find_undeclared()

    @UNTIDY
    async def test_damage_of_one_hides_no_other(
        self, inspect: Callable[..., JobInspector], store: redis.Redis
    ) -> None:
        add_job(store, "legacy")
        store.hset("bull:odd:meta", "a", "b")
        store.set("bull:odd:wait", "no list")
        found = await inspect().find_orphaned()
        assert found.sizes["legacy"].counts[JobState.WAITING] == 1
        assert found.sizes["odd"].counts[JobState.WAITING] is None
        assert found.with_jobs.keys() == {"legacy", "odd"}

    @UNTIDY
    async def test_one_that_is_included_is_taken_and_no_other(
        self, inspect: Callable[..., JobInspector], store: redis.Redis, letters: Queue[Any]
    ) -> None:
        add_job(store, "legacy")
        plain = inspect()
        with pytest.raises(UnknownQueue):
            await plain.including_undeclared("legacy", "absent")
        including = await plain.including_undeclared("legacy", letters.name)
        assert (await including.counts("legacy"))[JobState.WAITING] == 1
        await including.remove("legacy", "1")
        assert await including.counts(letters)
        for refused in (plain.counts("legacy"), including.counts("absent")):
            with pytest.raises(UnknownQueue):
                await refused


@pytest.mark.asyncio
class TestSearch:
    @UNTIDY
    async def test_a_long_lived_process_goes_in_small_steps_and_remembers(
        self, store: redis.Redis, store_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue_search, "COUNT", 10)
        with store.pipeline() as filling:
            for number in range(1000):
                filling.set(f"filler:{number}", "")
            filling.execute()
        add_job(store, "legacy")
        search, link = OrphanSearch("bull", ["letters"]), ThreadLink(store_url, 5.0)

        def scans() -> int:
            return int(store.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"])

        try:
            before, rounds = scans(), 0
            while search.read_blocking(link).is_partial:
                rounds += 1
                assert scans() - before <= STEPS * rounds
                assert rounds < 100
            assert rounds > 2
            assert search.read_blocking(link).sizes.keys() == {"legacy"}
            done = scans()
            add_job(store, "later")
            add_job(store, "legacy", "2")
            again = search.read_blocking(link)
            assert scans() == done, "the result is used for some minutes"
            assert again.sizes["legacy"].counts[JobState.WAITING] == 2, "and counted each time"
            assert again.sizes.keys() == {"legacy"}
        finally:
            link.close()

    async def test_it_begins_again_after_some_minutes(self) -> None:
        search = QueueSearch("bull", ["letters"])
        self.step(search, 0.0, b"7", b"bull:a:meta", b"bull:letters:meta")
        assert search.names == ("a",)
        self.step(search, 1.0, b"0", b"bull:b:wait", b"bull:b:meta")
        assert (search.names, search.is_partial) == (("a", "b"), False)
        assert search.next_command(REMEMBER_SECONDS) is None
        later = REMEMBER_SECONDS + 1.0
        self.step(search, later, b"7", b"bull:c:meta")
        assert search.names == ("a", "b"), "until the next search has finished"
        self.step(search, later, b"0")
        assert search.names == ("c",)

    async def test_two_callers_at_once_skip_no_key(self) -> None:
        search = QueueSearch("bull", [])
        first = search.next_command(0.0)
        assert first is not None
        search.take(first, [b"7", [b"bull:a:meta"]], 0.0)
        second = search.next_command(0.0)
        assert second is not None
        search.take(second, [b"9", [b"bull:b:meta"]], 0.0)
        search.take(second, [b"9", [b"bull:b:meta"]], 0.0)
        self.step(search, 0.0, b"0", b"bull:c:meta")
        assert search.take(second, [b"9", [b"bull:b:meta"]], 0.0), "it has finished meanwhile"
        command = search.next_command(REMEMBER_SECONDS)
        assert command is not None
        assert command[1] == b"0", "the next search begins with the first key"
        assert search.names == ("a", "b", "c")

    async def test_it_collects_a_bounded_number_of_names(self) -> None:
        search = QueueSearch("bull", [])
        keys = [f"bull:q{number}:meta".encode() for number in range(MAX_FOUND + 50)]
        self.step(search, 0.0, b"7", *keys)
        assert search.next_command(1.0) is None, "it goes no further"
        assert len(search.names) == MAX_FOUND
        assert search.is_partial

    @staticmethod
    def step(search: QueueSearch, now: float, cursor: bytes, *keys: bytes) -> None:
        command = search.next_command(now)
        assert command is not None
        assert search.take(command, [cursor, [*keys]], now) == (
            cursor == b"0" or len(keys) > MAX_FOUND
        )

    async def test_a_store_that_is_away_is_an_error(self) -> None:
        link = Link("unix:///nowhere/store.sock")
        with pytest.raises(StoreUnavailable):
            await OrphanSearch("bull", []).read(link)


@pytest.mark.asyncio
class TestMetrics:
    @UNTIDY
    async def test_a_series_for_each_queue_and_state(
        self, store: redis.Redis, store_url: str
    ) -> None:
        for name in ("letters", *HOSTILE):
            add_job(store, name)
        collector = StoreMetrics(["letters"], url=store_url, prefix="bull")
        link = Link(store_url)
        try:
            bodies = [
                await asyncio.to_thread(render, collector),
                await render_metrics(
                    link, "bull", ["letters"], search=OrphanSearch("bull", ["letters"])
                ),
            ]
        finally:
            collector.close()
            await link.close()
        for body in bodies:
            samples = {
                (sample.labels["queue"], sample.labels["state"]): sample.value
                for family in text_string_to_metric_families(body.decode())
                for sample in family.samples
                if sample.name == "corral_orphaned_jobs"
            }
            assert samples == {
                (name, state.value): float(state == "waiting")
                for name in HOSTILE
                for state in JobState
            }

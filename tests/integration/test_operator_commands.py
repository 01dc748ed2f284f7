"""The operator's commands: exit codes, one JSON document, and a question before a removal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import redis
import redis.asyncio

from corral import JobState
from corral.cli import cli
from corral.cli.job_commands import STATES
from corral.cli.operator_commands import CLEANABLE
from corral.inspector import CLEANABLE as CLEANABLE_STATES

Ran = tuple[int, str, str]
QUEUE = "acme-letters"


@pytest.fixture
def run(
    store_url: str, in_process: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """`run("pause", QUEUE)`: see `in_process`."""
    monkeypatch.setenv(
        "CORRAL_LOG_LEVEL", "WARNING"
    )  # the audit's lines are not what these tests read
    return lambda *arguments, url=store_url: in_process(url, *arguments)


@pytest.fixture
def store(store_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def jobs(
    store: redis.Redis, store_url: str, assert_no_leaks: Callable[..., Any]
) -> Iterator[redis.Redis]:
    """Two failed jobs, one of them refused; two waiting, one delayed, one with log lines.

    Whatever a command does with them, it leaves the store tidy.
    """
    base = f"bull:{QUEUE}:"
    now = int(time.time() * 1000)

    def make(job: str, **fields: Any) -> None:
        common = {
            "name": QUEUE,
            "data": '{"text":"user-4711"}',
            "opts": '{"attempts":1}',
            "timestamp": now - 60_000,
        }
        store.hset(base + job, mapping={**common, **fields})

    for job, reason in (
        ("broken", "Fail: no\x1b[31m such user"),
        ("refused", "payload refused: to: Field required"),
    ):
        ended = {"finishedOn": now - 50_000, "processedOn": now - 51_000, "atm": 1, "ats": 1}
        make(job, failedReason=reason, stacktrace='["Traceback of user-4711"]', **ended)
        store.zadd(base + "failed", {job: now - 50_000})
    for job in ("first", "second"):
        make(job)
        store.lpush(base + "wait", job)
    make("later", delay=3_600_000)
    store.zadd(base + "delayed", {"later": (now + 3_600_000) * 4096})
    store.rpush(base + "broken:logs", "one", "two\x1b[2J", "three")
    yield store

    async def check() -> None:
        async with redis.asyncio.Redis.from_url(store_url) as client:
            await assert_no_leaks(client)

    asyncio.run(check())


def document(ran: Ran) -> Any:
    """The one JSON document of a command that has succeeded."""
    code, out, err = ran
    assert code == 0, err
    return json.loads(out)


def state_of(store: redis.Redis, job: str) -> str | None:
    base = f"bull:{QUEUE}:"
    for state in ("failed", "completed", "delayed", "prioritized"):
        if store.zscore(base + state, job) is not None:
            return state
    return next(
        (state for state in ("wait", "active") if job in store.lrange(base + state, 0, -1)), None
    )


class TestLooking:
    def test_list(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        found = document(run("job", "list", QUEUE, "--json", "--limit", "1"))
        assert (found["queue"], found["state"], found["total"], found["start"]) == (
            QUEUE,
            "failed",
            2,
            0,
        )
        (job,) = found["jobs"]
        assert job["id"] == "refused"
        assert job["finished_on"].endswith("+00:00")
        assert job["delay_seconds"] == 0
        code, out, err = run("job", "list", QUEUE, "--limit", "1", "--start", "1")
        assert code == 0
        assert out.splitlines()[0].split() == ["ID", "FAILED", "ATTEMPTS", "REASON"]
        assert re.fullmatch(
            r"broken  5\ds ago  1/1       Fail: no\\x1b\[31m such user", out.splitlines()[1]
        )
        assert err == f"2 to 2 of 2 failed jobs in queue '{QUEUE}'\n"
        for state in STATES:
            assert run("job", "list", QUEUE, "--state", state)[0] == 0

    def test_show(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        """The payload is shown; control characters in it are escaped."""
        found = document(run("job", "show", QUEUE, "broken", "--json"))
        assert (found["state"], found["data"], found["log_lines"]) == (
            "failed",
            {"text": "user-4711"},
            3,
        )
        code, out, _ = run("job", "show", QUEUE, "broken")
        assert code == 0
        for text in (
            "failed reason  Fail: no\\x1b[31m such user",
            '"text": "user-4711"',
            "Traceback of user-4711",
        ):
            assert text in out
        assert "\x1b" not in out

    def test_logs(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert run("job", "logs", QUEUE, "broken") == (0, "one\ntwo\\x1b[2J\nthree\n", "")
        found = document(run("job", "logs", QUEUE, "broken", "--limit", "2", "--json"))
        assert found == {"queue": QUEUE, "id": "broken", "lines": ["two\x1b[2J", "three"]}

    def test_queues_says_which_are_paused(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert document(run("pause", QUEUE, "--json")) == {
            "queue": QUEUE,
            "paused": True,
            "changed": True,
        }
        rows = {row["queue"]: row for row in document(run("queues", "--json"))}
        assert (rows[QUEUE]["paused"], rows["acme-threads"]["paused"]) == (True, False)
        assert (rows[QUEUE]["waiting"], rows[QUEUE]["failed"]) == (2, 2)
        _, out, _ = run("queues")
        last = {line.split()[0]: line.split()[-1] for line in out.splitlines()}
        assert (last["QUEUE"], last[QUEUE], last["acme-threads"]) == ("PAUSED", "paused", "0")


class TestChanging:
    def test_remove(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        """Possible changes are made, others are reported; the exit code says one failed."""
        code, out, err = run("job", "remove", QUEUE, "nobody", "first", "--json")
        assert code == 1
        assert json.loads(out)["jobs"] == [
            {"id": "nobody", "removed": False, "error": f"queue '{QUEUE}' has no job 'nobody'"},
            {"id": "first", "removed": True, "error": None},
        ]
        assert err.startswith(f"error: queue '{QUEUE}' has no job 'nobody'\n  hint: ")
        assert jobs.lrange(f"bull:{QUEUE}:wait", 0, -1) == ["second"]
        jobs.set(f"bull:{QUEUE}:second:lock", "worker:1")
        code, _, err = run("job", "remove", QUEUE, "second")
        assert (code, "is held by a worker" in err) == (1, True)
        jobs.delete(f"bull:{QUEUE}:second:lock")

    def test_retry(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert run("retry", QUEUE, "broken") == (0, "retried broken\n", "")
        assert state_of(jobs, "broken") == "wait"
        code, _, err = run("retry", QUEUE, "broken")
        assert (code, err.splitlines()[0]) == (
            1,
            f"error: job 'broken' of queue '{QUEUE}' is not failed or completed",
        )

    def test_retry_refused_and_all_failed(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert document(run("retry", QUEUE, "--refused", "--json")) == {
            "queue": QUEUE,
            "retried": 1,
        }
        assert (state_of(jobs, "refused"), state_of(jobs, "broken")) == ("wait", "failed")
        assert run("retry", QUEUE, "--all-failed", "--reset") == (0, "retried 1 job\n", "")
        assert jobs.hget(f"bull:{QUEUE}:broken", "atm") is None

    def test_promote(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert document(run("promote", QUEUE, "later", "--json"))["jobs"][0]["promoted"]
        assert run("promote", QUEUE, "later")[0] == 1
        assert document(run("promote", QUEUE, "--all", "--json")) == {"queue": QUEUE, "promoted": 0}

    def test_pause_and_resume(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert run("pause", QUEUE)[:2] == (0, f"{QUEUE} is paused\n")
        assert run("pause", QUEUE)[:2] == (0, f"{QUEUE} was paused already\n")
        assert run("resume", QUEUE)[:2] == (0, f"{QUEUE} is resumed\n")
        assert document(run("resume", QUEUE, "--json")) == {
            "queue": QUEUE,
            "paused": False,
            "changed": False,
        }

    def test_drain(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        assert document(run("drain", QUEUE, "--yes", "--json")) == {"queue": QUEUE, "removed": 2}
        assert run("drain", QUEUE, "--delayed", "--yes")[:2] == (0, "removed 1 job\n")

    def test_clean(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        asked = ("clean", QUEUE, "--state", "failed", "--yes", "--older-than")
        assert run(*asked, "1h")[:2] == (0, "removed 0 jobs\n")
        assert document(run(*asked, "10s", "--limit", "1", "--json")) == {
            "queue": QUEUE,
            "removed": 1,
        }

    def test_scrub(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        found = document(run("scrub", "user-4711", "--yes", "--json"))
        counts = {row["queue"]: row["scrubbed"] for row in found}
        assert (counts[QUEUE], counts["acme-threads"]) == (2, 0)
        assert jobs.hget(f"bull:{QUEUE}:broken", "data") == "{}"
        assert run("scrub", "user-4711", QUEUE, "--yes")[1] == f"{QUEUE}: 0 jobs scrubbed\n"

    def test_limit(self, run: Callable[..., Ran], jobs: redis.Redis) -> None:
        nothing = {
            "queue": QUEUE,
            "paused": False,
            "concurrency": None,
            "rate": None,
            "per_seconds": None,
        }
        assert document(run("limit", QUEUE, "--json")) == nothing
        set_to = document(run("limit", QUEUE, "--concurrency", "3", "--rate", "100/1m", "--json"))
        assert set_to == {**nothing, "concurrency": 3, "rate": 100, "per_seconds": 60.0}
        assert run("limit", QUEUE)[1].splitlines()[1:] == ["concurrency  3", "rate         100/1m"]
        assert document(run("limit", QUEUE, "--rate", "none", "--json")) == {
            **nothing,
            "concurrency": 3,
        }


class TestQuarantine:
    """Commands take ids in the spelling in which they are shown."""

    ASIDE = f"corral:bull:{QUEUE}:quarantine"

    @pytest.fixture
    def aside(self, jobs: redis.Redis) -> redis.Redis:
        """An id that is not UTF-8, one with the name of a queue's key, one with a kept list."""
        for at, (job, kind) in enumerate(
            ((b"a\xff\x1b[31m", "hash"), (b"completed", "hash"), (b"lost", "list"))
        ):
            key = self.ASIDE.encode() + b":" + job
            entry = json.dumps(
                {"at": 1000 + at, "from": "wait", "reason": "no\x1b[31m hash", "key": "KEY"}
            ).encode()
            jobs.hset(self.ASIDE, job, entry.replace(b"KEY", key.replace(b"\x1b", b"\\u001b")))
            if kind == "hash":
                jobs.hset(
                    key, mapping={"name": QUEUE, "data": "{}", "opts": "{}", "timestamp": 1000}
                )
            else:
                jobs.rpush(key, "junk")
        return jobs

    def test_list(self, run: Callable[..., Ran], aside: redis.Redis) -> None:
        found = document(run("quarantine", "list", QUEUE, "--json"))
        assert (found["queue"], found["total"], found["start"]) == (QUEUE, 3, 0)
        by_id = {job["id"]: job for job in found["jobs"]}
        assert list(by_id) == ["lost", "completed", "a\\xff\\x1b[31m"]
        assert by_id["completed"] == {
            "id": "completed",
            "since": "1970-01-01T00:00:01.001000+00:00",
            "from": "wait",
            "reason": "no\x1b[31m hash",
            "key": f"{self.ASIDE}:completed",
            "returnable": True,
            "returns_as": "returned-completed",
            "obstacle": "",
        }
        assert (by_id["lost"]["returnable"], by_id["lost"]["obstacle"]) == (
            False,
            f"{self.ASIDE}:lost is a list, not a hash",
        )
        code, out, err = run("quarantine", "list", QUEUE, "--limit", "2", "--start", "1")
        assert (code, err) == (
            0,
            f"2 to 3 of 3 ids in quarantine of queue '{QUEUE}'\n",
        )
        assert "\x1b" not in out
        heading, first, second = (re.split(r"  +", line) for line in out.splitlines())
        assert heading == ["ID", "WHEN", "FROM", "RETURNS", "REASON"]
        assert (first[0], first[2:]) == (
            "completed",
            ["wait", "as returned-completed", "no\\x1b[31m hash"],
        )
        assert (second[0], second[2:]) == ("a\\xff\\x1b[31m", ["wait", "yes", "no\\x1b[31m hash"])

    def test_queues_counts_it_where_there_is_any(
        self, run: Callable[..., Ran], aside: redis.Redis
    ) -> None:
        rows = {row["queue"]: row for row in document(run("queues", "--json"))}
        assert (rows[QUEUE]["quarantined"], rows["acme-threads"]["quarantined"]) == (3, 0)
        lines = {line.split()[0]: line.split() for line in run("queues")[1].splitlines()}
        assert lines["QUEUE"][-2:] == ["QUARANTINE", "PAUSED"]
        assert (lines[QUEUE][-1], lines["acme-threads"][-1]) == ("3", "0")
        aside.delete(self.ASIDE)
        assert "QUARANTINE" not in run("queues")[1]
        rows = {row["queue"]: row for row in document(run("queues", "--json"))}
        assert rows[QUEUE]["quarantined"] == 0

    def test_return(self, run: Callable[..., Ran], aside: redis.Redis, store_url: str) -> None:
        shown = document(run("quarantine", "list", QUEUE, "--json"))["jobs"][-1]["id"]
        code, out, err = run("quarantine", "return", QUEUE, shown, "completed", "lost", "nobody")
        assert code == 1
        assert out.splitlines() == [f"returned {shown}", "returned completed as returned-completed"]
        assert err.splitlines() == [
            f"error: lost was not returned: {self.ASIDE}:lost is a list, not a hash",
            "error: nobody was not returned: it is not in quarantine",
        ]
        with redis.Redis.from_url(store_url) as raw:
            assert raw.lrange(f"bull:{QUEUE}:wait", 0, 1) == [
                b"returned-completed",
                b"a\xff\x1b[31m",
            ]
            raw.lrem(f"bull:{QUEUE}:wait", 1, b"a\xff\x1b[31m")  # the check for leaks reads texts
            raw.delete(f"bull:{QUEUE}:".encode() + b"a\xff\x1b[31m")
        code, out, _ = run("quarantine", "return", QUEUE, "lost", "--json")
        row = {
            "id": "lost",
            "returned": False,
            "job_id": None,
            "error": f"{self.ASIDE}:lost is a list, not a hash",
        }
        assert (code, json.loads(out)) == (1, {"queue": QUEUE, "jobs": [row]})

    def test_return_all(self, run: Callable[..., Ran], aside: redis.Redis) -> None:
        aside.hdel(self.ASIDE, "lost")
        aside.execute_command("HDEL", self.ASIDE, b"a\xff\x1b[31m")
        assert run("quarantine", "return", QUEUE, "--all") == (
            0,
            "returned completed as returned-completed\n",
            "",
        )
        assert run("quarantine", "return", QUEUE, "--all") == (
            0,
            "",
            f"no ids in quarantine of queue '{QUEUE}'\n",
        )
        assert document(run("quarantine", "return", QUEUE, "--all", "--json")) == {
            "queue": QUEUE,
            "jobs": [],
        }
        assert state_of(aside, "returned-completed") == "wait"

    def test_discard(self, run: Callable[..., Ran], aside: redis.Redis) -> None:
        code, out, err = run("quarantine", "discard", QUEUE, "lost", "nobody", "--yes")
        assert (code, out, err) == (1, "discarded 1 job\n", "error: nobody is not in quarantine\n")
        assert not aside.exists(f"{self.ASIDE}:lost")
        discarded = document(run("quarantine", "discard", QUEUE, "--all", "--yes", "--json"))
        assert discarded == {"queue": QUEUE, "discarded": 2, "missing": []}
        assert aside.keys("corral:bull:*:quarantine*") == []
        assert run("quarantine", "discard", QUEUE, "--all", "--yes")[:2] == (
            0,
            "discarded 0 jobs\n",
        )


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a misspelt queue": (("job", "list", "acme-leters"), 2, "did you mean 'acme-letters'?"),
    "a misspelt queue to scrub": (
        ("scrub", "x", "acme-leters", "--yes"),
        2,
        "did you mean 'acme-letters'?",
    ),
    "no such job": (("job", "show", QUEUE, "nobody"), 1, f"queue '{QUEUE}' has no job 'nobody'"),
    "no logs of no job": (
        ("job", "logs", QUEUE, "nobody"),
        1,
        f"queue '{QUEUE}' has no job 'nobody'",
    ),
    "a page too long": (("job", "list", QUEUE, "--limit", "101"), 2, "101 is not in the range"),
    "nothing to retry": (("retry", QUEUE), 2, "name the jobs: IDs, or --all-failed, or --refused"),
    "too much to retry": (("retry", QUEUE, "a", "--refused"), 2, "name the jobs"),
    "nothing to promote": (("promote", QUEUE), 2, "name the jobs: IDs, or --all"),
    "an unknown age": (
        ("clean", QUEUE, "--state", "failed", "--older-than", "7", "--yes"),
        2,
        "write 7d, 12h",
    ),
    "an unknown rate": (("limit", QUEUE, "--rate", "5"), 2, "write 100/1m"),
    "a rate of none": (("limit", QUEUE, "--rate", "0/1m"), 2, "at least 1 job"),
    "an unknown concurrency": (
        ("limit", QUEUE, "--concurrency", "many"),
        2,
        "write a whole number, or none",
    ),
    "a concurrency of none": (("limit", QUEUE, "--concurrency", "0"), 2, "pause the queue instead"),
    "an empty text": (("scrub", "", "--yes"), 2, "an empty text is in every job"),
    "nothing to return": (("quarantine", "return", QUEUE), 2, "name the jobs: IDs, or --all"),
    "too much to discard": (
        ("quarantine", "discard", QUEUE, "a", "--all", "--yes"),
        2,
        "name the jobs: IDs, or --all",
    ),
    "a quarantine's page too far": (
        ("quarantine", "list", QUEUE, "--start", "10001"),
        2,
        "is not in the range",
    ),
    "discard, unconfirmed": (("quarantine", "discard", QUEUE, "a"), 2, "hint: add --yes"),
    "discard all, unconfirmed": (("quarantine", "discard", QUEUE, "--all"), 2, "hint: add --yes"),
    "drain, unconfirmed": (("drain", QUEUE), 2, "hint: add --yes"),
    "clean, unconfirmed": (
        ("clean", QUEUE, "--state", "failed", "--older-than", "1s"),
        2,
        "hint: add --yes",
    ),
    "scrub, unconfirmed": (("scrub", "user-4711"), 2, "hint: add --yes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(
    run: Callable[..., Ran], jobs: redis.Redis, name: str
) -> None:
    def kept() -> dict[str, bytes | None]:
        return {
            key: jobs.execute_command("DUMP", key, NEVER_DECODE=True)
            for key in sorted(jobs.keys("bull:*"))
        }

    arguments, expected, message = REFUSED[name]
    before = kept()
    code, out, err = run(*arguments)
    assert (code, out) == (expected, ""), err
    assert message in err
    assert kept() == before


def test_a_store_that_is_away_is_said_once(run: Callable[..., Ran]) -> None:
    code, out, err = run("retry", QUEUE, "a", "b", url="unix:///nowhere/store.sock")
    assert (code, out) == (4, "")
    assert len(err.splitlines()) == 1


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands(cli, "corral"))


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_every_command_has_an_example_and_fits_80_columns(path: str) -> None:
    context = click.Context(COMMANDS[path], info_name=path, terminal_width=80)
    shown = COMMANDS[path].get_help(context).splitlines()
    assert any(re.match(rf"  (.*\| )?{path} ", line + " ") for line in shown[2:]), "\n".join(shown)
    assert [line for line in shown if len(line) > 80] == []


def test_the_states_of_the_options_are_those_of_the_inspector() -> None:
    assert tuple(JobState) == STATES
    assert CLEANABLE == CLEANABLE_STATES


class Terminal:
    """A command on a terminal of 80 columns."""

    def __init__(
        self, arguments: tuple[str, ...], environment: dict[str, str], folder: Path
    ) -> None:
        self.screen = ""
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "corral", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**environment, "COLUMNS": "80", "TERM": "xterm"},
        )
        os.close(slave)

    def until(self, text: str) -> None:
        while text not in self.screen:
            assert self._read(), f"{text!r} never came:\n{self.screen}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def ended(self) -> int:
        while self._read():
            pass
        os.close(self._master)
        return self._process.wait(10)

    def _read(self) -> bool:
        assert select.select([self._master], [], [], 20)[0], f"nothing more came:\n{self.screen}"
        try:
            output = os.read(self._master, 65536).decode()
        except OSError:  # Linux: the other end is closed
            return False
        self.screen += output
        return bool(output)

    @property
    def lines(self) -> list[str]:
        """The output without colours and cursor movements."""
        return [
            line.rstrip()
            for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.screen).splitlines()
        ]


@pytest.fixture
def terminal(store_url: str, acme: Path, tmp_path: Path) -> Callable[..., Terminal]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_"))
    }
    environment = {
        **kept,
        "PYTHONPATH": str(acme),
        "REDIS_URL": store_url,
        "CORRAL_ENV": "production",
    }
    return lambda *arguments: Terminal(arguments, environment, tmp_path)


class TestTerminal:
    def test_what_cannot_be_undone_is_asked_first(
        self, terminal: Callable[..., Terminal], jobs: redis.Redis
    ) -> None:
        asked = terminal("drain", QUEUE)
        asked.until(f"remove the 2 waiting jobs of queue '{QUEUE}'? [y/N]: ")
        asked.type("n\n")
        assert asked.ended() == 1
        assert asked.lines[-1] == "nothing was changed"
        assert jobs.llen(f"bull:{QUEUE}:wait") == 2
        asked = terminal("drain", QUEUE)
        asked.until("[y/N]: ")
        asked.type("y\n")
        assert asked.ended() == 0
        assert asked.lines[-1] == "removed 2 jobs"
        assert jobs.llen(f"bull:{QUEUE}:wait") == 0

    def test_a_discard_asks_first(
        self, terminal: Callable[..., Terminal], jobs: redis.Redis
    ) -> None:
        jobs.hset(f"corral:bull:{QUEUE}:quarantine", "lost", "{}")
        asked = terminal("quarantine", "discard", QUEUE, "--all")
        asked.until(f"remove everything in quarantine of queue '{QUEUE}', 1 id? [y/N]: ")
        asked.type("n\n")
        assert asked.ended() == 1
        assert asked.lines[-1] == "nothing was changed"
        asked = terminal("quarantine", "discard", QUEUE, "lost")
        asked.until("[y/N]: ")
        asked.type("y\n")
        assert asked.ended() == 0
        assert asked.lines[-1] == "discarded 1 job"

    def test_tables_fit(self, terminal: Callable[..., Terminal], jobs: redis.Redis) -> None:
        jobs.hset(f"bull:{QUEUE}:broken", "failedReason", "TypeError: " + "a long story " * 20)
        listed = terminal("job", "list", QUEUE)
        assert listed.ended() == 0
        assert listed.lines[0].split() == ["ID", "FAILED", "ATTEMPTS", "REASON"]
        assert any(line.startswith("broken") and line.endswith("…") for line in listed.lines), (
            listed.lines
        )
        counted = terminal("queues")
        assert counted.ended() == 0
        assert counted.lines[0].split() == [
            "QUEUE",
            "WAITING",
            "ACTIVE",
            "DELAYED",
            "COMPLETED",
            "FAILED",
        ]
        jobs.hset(f"bull:{QUEUE}:meta", "paused", 1)
        jobs.hset(f"bull:{QUEUE}:parent", "name", "parent")
        jobs.zadd(f"bull:{QUEUE}:waiting-children", {"parent": 1})
        jobs.hset(f"bull:{QUEUE}:urgent", "name", "urgent")
        jobs.zadd(f"bull:{QUEUE}:prioritized", {"urgent": 1})
        all_used = terminal("queues")
        assert all_used.ended() == 0
        assert re.fullmatch(
            r"QUEUE +WAITING +ACTIVE +TIZED .* CHILDREN +COMPLETED +FAILED +PAUSED",
            all_used.lines[1],
        )
        assert any(
            re.fullmatch(r"acme-le… +2 +0 +1 +1 +1 +0 +2  paused", line) for line in all_used.lines
        )
        for line in (*listed.lines, *counted.lines, *all_used.lines):
            assert len(line) <= 80, line

    def test_who_waits_sees_a_bar(
        self, terminal: Callable[..., Terminal], jobs: redis.Redis
    ) -> None:
        waited = terminal("retry", QUEUE, "--all-failed")
        assert waited.ended() == 0
        assert any(f"retrying {QUEUE} ━" in line for line in waited.lines)
        assert waited.lines[-1].endswith("retried 2 jobs")

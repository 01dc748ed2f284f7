"""The command line as a user sees it: its output, and one sentence and exit code per refusal."""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

Ran = tuple[int, str, str]


@pytest.fixture
def run(command: Any) -> Callable[..., Ran]:
    """`run("check")`: exit code, standard output, standard error."""

    def run(*arguments: str, stdin: bytes = b"", **environment: str | None) -> Ran:
        started = command(*arguments, stdin=stdin, **environment)
        return started.wait(), started.result, started.said

    return run


@pytest.fixture
def store(store_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        client.set("something", "is here")
        yield client


NOWHERE = "unix:///nowhere/store.sock"
REFUSALS: dict[str, tuple[tuple[str, ...], dict[str, Any], int, str]] = {
    "a misspelt queue": (
        ("enqueue", "acme-leters", "{}"),
        {},
        2,
        "error: no queue is named 'acme-leters'\n  hint: did you mean 'acme-letters'?\n",
    ),
    "a wrong field": (
        ("enqueue", "acme-letters", '{"copies": "many"}'),
        {},
        2,
        (
            "error: payload of queue 'acme-letters' refused: copies: Input "
            "should be a valid integer, "
            "unable to parse string as an integer\n"
        ),
    ),
    "a misspelt field": (
        ("enqueue", "acme-letters", '{"txet": "a"}'),
        {},
        2,
        "error: payload of queue 'acme-letters' refused: txet: Extra inputs are not permitted\n",
    ),
    "malformed JSON": (
        ("enqueue", "acme-letters", "{text: a}"),
        {},
        2,
        (
            "error: the payload is not JSON: Expecting property name enclosed in "
            "double quotes: line 1 column 2 "
            "(char 1)\n"
            "  hint: quote it for the shell: '{\"name\": 1}'\n"
        ),
    ),
    "JSON with what is no number": (
        ("enqueue", "acme-letters", '{"copies": NaN}'),
        {},
        2,
        "error: the payload is not JSON: NaN is not a number in JSON\n",
    ),
    "JSON that is no object": (
        ("enqueue", "acme-letters", "[1]"),
        {},
        2,
        "error: the payload is not a JSON object\n",
    ),
    "JSON that is too deep": (
        ("enqueue", "acme-letters", "-"),
        {"stdin": b'{"text":' + b"[" * 200_000 + b"]" * 200_000 + b"}"},
        2,
        "error: standard input is not JSON: maximum recursion depth exceeded",
    ),
    "half a character": (
        ("enqueue", "acme-letters", '{"text": "\\ud83d"}'),
        {},
        2,
        "error: payload of queue 'acme-letters' refused: cannot be written as JSON: ",
    ),
    "standard input that is no text": (
        ("enqueue", "acme-letters", "-"),
        {"stdin": b'{"text": "\xff"}'},
        2,
        "error: cannot read standard input: not UTF-8\n",
    ),
    "a file that is not there": (
        ("enqueue", "acme-letters", "@mail.json"),
        {},
        2,
        "error: cannot read mail.json: No such file or directory\n",
    ),
    "a bad id": (
        ("enqueue", "acme-letters", "{}", "--job-id", "42"),
        {},
        2,
        (
            "error: job id '42' is an integer: the store numbers its own jobs so\n"
            "  hint: put a word before it\n"
        ),
    ),
    "a delay without a unit": (
        ("enqueue", "acme-letters", "{}", "--delay", "30"),
        {},
        2,
        (
            "error: delay '30' is not understood\n"
            "  hint: write 30s, 5m, 2h, or 2030-01-31T08:00:00+01:00\n"
        ),
    ),
    "a time without its zone": (
        ("enqueue", "acme-letters", "{}", "--delay", "2030-01-31T08:00:00"),
        {},
        2,
        "error: delay '2030-01-31T08:00:00' is not understood\n",
    ),
    "a delay beyond all times": (
        ("enqueue", "acme-letters", "{}", "--delay", "99999999999999d"),
        {},
        2,
        "error: delay '99999999999999d' is not understood\n",
    ),
    "a priority beyond all bounds": (
        ("enqueue", "acme-letters", "{}", "--priority", "9999999"),
        {},
        2,
        "error: priority 9999999 is not between 0 and 2097151\n",
    ),
    "a payload over the limit": (
        ("enqueue", "acme-letters", '{"text": "' + "x" * 200 + '"}'),
        {"CORRAL_MAX_PAYLOAD_BYTES": "100"},
        2,
        (
            "error: payload of queue 'acme-letters' has 222 bytes, more than 100\n"
            "  hint: store the content elsewhere"
        ),
    ),
    "an unknown setting": (
        ("enqueue", "acme-letters", "{}"),
        {"CORRAL_PREFX": "x"},
        2,
        "error: CORRAL_PREFX is not a setting; did you mean CORRAL_PREFIX?\n",
    ),
    "an unknown worker setting": (
        ("worker",),
        {"CORRAL_WORKER__CONCURENCY": "5"},
        2,
        (
            "error: CORRAL_WORKER__CONCURENCY is not a setting; did you mean "
            "CORRAL_WORKER__CONCURRENCY?\n"
        ),
    ),
    "no store in production": (
        ("enqueue", "acme-letters", "{}"),
        {"REDIS_URL": None},
        2,
        (
            "error: no store is configured: REDIS_URL is not set and CORRAL_ENV is 'production'\n"
            "  hint: set REDIS_URL=redis://host:6379/0\n"
        ),
    ),
    "no store and nothing said": (
        ("queues",),
        {"REDIS_URL": None, "CORRAL_ENV": None},
        2,
        (
            "error: no store is configured: REDIS_URL is not set, and none is "
            "running in '.corral'\n  hint: "
        ),
    ),
    "no store to work for": (
        ("worker",),
        {"REDIS_URL": None},
        2,
        "error: no store is configured: ",
    ),
    "an unreachable store, to enqueue": (
        ("enqueue", "acme-letters", "{}"),
        {"REDIS_URL": NOWHERE},
        4,
        f"error: the store at {NOWHERE} is unavailable: ",
    ),
    "an unreachable store, to work": (
        ("worker",),
        {"REDIS_URL": NOWHERE},
        4,
        f"error: the store at {NOWHERE} is unavailable: ",
    ),
    "an unreachable store, to look": (
        ("queues",),
        {"REDIS_URL": NOWHERE},
        4,
        f"error: the store at {NOWHERE} is unavailable: ",
    ),
    "an unwritable data directory": (
        ("enqueue", "acme-letters", "{}"),
        {"REDIS_URL": None, "CORRAL_ENV": "development", "CORRAL_DATA_DIR": "/proc/corral"},
        2,
        "error: the data directory '/proc/corral' cannot be used: ",
    ),
    "no jobs at once": (
        ("worker", "acme-letters=0"),
        {},
        2,
        (
            "error: 'acme-letters=0' does not say how many jobs run at once\n"
            "  hint: write acme-letters=10\n"
        ),
    ),
    "words for a number": (
        ("worker", "acme-letters=many"),
        {},
        2,
        "error: 'acme-letters=many' does not say",
    ),
    "a worker for a misspelt queue": (
        ("worker", "acme-leters=5"),
        {},
        2,
        "error: no queue is named 'acme-leters'\n  hint: did you mean 'acme-letters'?\n",
    ),
    "an option that does not exist": (("worker", "--bursts"), {}, 2, "Usage: corral worker"),
    "nothing to work off": (
        ("worker",),
        {"CORRAL_DISABLED_PLUGINS": "acme"},
        2,
        "error: no queues are installed: there is nothing to work off\n",
    ),
    "an application that is not there": (
        ("enqueue", "acme-letters", "{}"),
        {"CORRAL_APP": "acme_nowhere"},
        3,
        "error: the catalog was refused: 1 problem\n",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_sentence_an_exit_code_and_no_change(
    run: Callable[..., Ran], store: redis.Redis, case: str
) -> None:
    arguments, given, code, message = REFUSALS[case]
    before = store.dbsize()
    ended, out, err = run(*arguments, **given)
    assert (ended, out) == (code, ""), err
    lines = "".join(
        line for line in err.splitlines(keepends=True) if not line.startswith("{")
    )  # but for log lines
    assert lines.startswith(message)
    assert "Traceback" not in err or code == 3, "but for what a plugin raised"
    assert store.dbsize() == before


class TestEnqueue:
    def test_prints_the_id_and_writes_the_job(
        self, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        code, out, err = run(
            *("enqueue", "acme-letters", '{"text": "größe"}', "--job-id", "a.1", "--priority", "3"),
            *("--attempts", "7", "--delay", "1.5h"),
        )
        assert (code, out) == (0, "a.1\n"), err
        job: Any = store.hgetall("bull:acme-letters:a.1")
        assert job["data"] == '{"text":"größe","copies":1}'
        assert json.loads(job["opts"])["attempts"] == 7
        assert (job["delay"], job["priority"]) == ("5400000", "3")
        code, out, err = run("enqueue", "acme-letters", "{}", "--job-id", "a.1")
        assert (code, out) == (0, "a.1\n")
        assert err.endswith("job a.1 exists already and is delayed; nothing was added\n")

    def test_runs_a_failed_job_again_where_it_is_asked_for(
        self, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        run("enqueue", "acme-letters", '{"text": "first"}', "--job-id", "a.1")
        store.lrem("bull:acme-letters:wait", 0, "a.1")
        store.zadd("bull:acme-letters:failed", {"a.1": 1})
        retrying = ("enqueue", "acme-letters", "{}", "--job-id", "a.1", "--retry-failed")
        code, out, err = run(*retrying)
        assert (code, out) == (0, "a.1\n")
        assert err.endswith("job a.1 had failed; it runs again with its own payload\n")
        assert store.lrange("bull:acme-letters:wait", 0, -1) == ["a.1"]
        code, out, err = run(*retrying)
        assert (code, out) == (0, "a.1\n")
        assert err.endswith("job a.1 exists already and is waiting; nothing was added\n")

    @pytest.mark.corral_untidy("its job is in no state")
    def test_an_id_whose_job_is_in_no_state_exists(
        self, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        store.hset("bull:acme-letters:a.1", mapping={"name": "acme-letters", "data": "{}"})
        code, out, err = run("enqueue", "acme-letters", "{}", "--job-id", "a.1")
        assert (code, out) == (0, "a.1\n")
        assert err.endswith("job a.1 exists already; nothing was added\n")

    def test_reads_standard_input_and_files(
        self, run: Callable[..., Ran], store: redis.Redis, tmp_path: Path
    ) -> None:
        (tmp_path / "mail.json").write_text('{"text": "from a file"}', "utf-8")
        _, first, _ = run("enqueue", "acme-letters", "-", stdin='{"text": "größe"}'.encode())
        _, second, _ = run("enqueue", "acme-letters", f"@{tmp_path}/mail.json")
        data = [store.hget(f"bull:acme-letters:{out.strip()}", "data") for out in (first, second)]
        assert data == ['{"text":"größe","copies":1}', '{"text":"from a file","copies":1}']

    def test_waits_until_a_time(self, run: Callable[..., Ran], store: redis.Redis) -> None:
        code, out, err = run(
            "enqueue", "acme-letters", "{}", "--delay", "2099-01-01T00:00:00+01:00"
        )
        assert code == 0, err
        ((job_id, score),) = store.zrange("bull:acme-letters:delayed", 0, -1, withscores=True)
        assert job_id == out.strip()
        assert round(score / 4096 / 1000) == pytest.approx(4_070_905_200, abs=1)


class TestListings:
    def test_check_lists_the_queues_and_says_that_the_catalog_is_open(
        self, run: Callable[..., Ran]
    ) -> None:
        code, out, err = run("check")
        assert code == 0, err
        lines = [line.split() for line in out.splitlines()]
        assert lines[0] == ["QUEUE", "DISTRIBUTION", "VERSION", "ORIGIN"]
        assert ["acme-letters", "acme", "1.0", "wheel"] in lines
        assert out.endswith("catalog is open: no corral.lock\n")
        code, out, err = run("check", "--producer", "--json")
        result = json.loads(out)
        assert (code, result["ok"], result["problems"]) == (0, True, [])
        queue = {
            "name": "acme-threads",
            "distribution": "acme",
            "version": "1.0",
            "origin": "wheel",
        }
        assert queue in result["queues"]

    def test_a_refused_catalog_is_one_report_and_exit_3_for_people_and_for_machines(
        self, run: Callable[..., Ran], acme: Path
    ) -> None:
        with (acme / "acme_letters.py").open("a") as module:
            module.write("\nletters = Queue('acme-others', Letter)\nimport acme_nowhere\n")
        code, out, err = run("check")
        assert (code, out) == (3, "")
        assert "error: the catalog was refused: 1 problem\n" in err
        assert (
            "failed to import 'acme_letters': ModuleNotFoundError: No module named 'acme_nowhere'"
            in err
        )
        assert "Traceback (most recent call last)" in err, "a plugin's traceback is never cut"
        code, out, err = run("check", "--json")
        result = json.loads(out)
        assert (code, result["ok"], err) == (3, False, "")
        (problem,) = result["problems"]
        assert problem["code"] == "import-error"
        assert problem["providers"] == ["acme 1.0"]
        assert run("worker")[0] == run("enqueue", "acme-letters", "{}")[0] == 3

    def test_lock_closes_the_catalog(self, run: Callable[..., Ran], acme: Path) -> None:
        code, out, err = run("lock")
        assert (code, out) == (0, "corral.lock: 2 queues\n"), err
        assert run("check")[1].endswith("catalog is locked: corral.lock\n")
        points = acme / "acme-1.0.dist-info" / "entry_points.txt"
        points.write_text(points.read_text() + "acme-more = acme_letters\n")
        module = acme / "acme_letters.py"
        module.write_text(
            module.read_text().replace(
                "return [letters, threaded]", "return [letters, threaded, more]"
            )
            + "\nmore = Queue('acme-more', Letter)\n"
        )
        code, _, err = run("check", "--producer")
        assert code == 3
        assert "queue 'acme-more' of acme 1.0 is not in the lock file" in err

    def test_plugins_names_each_with_its_hooks_and_what_is_disabled(
        self, run: Callable[..., Ran]
    ) -> None:
        code, out, err = run("plugins", "--json", CORRAL_DISABLED_PLUGINS="acme-threads")
        assert code == 0, err
        mine = {row["name"]: row for row in json.loads(out) if row["distribution"] == "acme"}
        assert mine["acme-letters"]["state"] == "loaded"
        assert mine["acme-letters"]["hooks"] == ["corral_processors", "corral_queues"]
        assert (mine["acme-letters"]["offers"], mine["acme-letters"]["reason"]) == ("queue", None)
        assert mine["acme-threads"]["state"] == "disabled"
        assert mine["acme-threads"]["reason"] == "CORRAL_DISABLED_PLUGINS names acme-threads"
        code, out, err = run("plugins", CORRAL_DISABLED_PLUGINS="acme-threads,acme-leters")
        assert code == 0
        heading, *rows = [re.split(r"  +", line) for line in out.splitlines()]
        assert heading == [
            *("PLUGIN", "OFFERS", "DISTRIBUTION", "VERSION", "ORIGIN", "STATE", "HOOKS"),
        ]
        by_name = {row[0]: row for row in rows}
        assert by_name["acme-letters"][1:4] == ["queue", "acme", "1.0"]
        assert by_name["acme-letters"][5:] == ["loaded", "corral_processors corral_queues"]
        assert by_name["acme-threads"][5:] == ["disabled"]
        assert "acme-threads is disabled: CORRAL_DISABLED_PLUGINS names acme-threads" in out
        assert "warning: CORRAL_DISABLED_PLUGINS names 'acme-leters'" in err

    def test_plugins_says_which_one_is_broken_and_why(
        self, run: Callable[..., Ran], acme: Path
    ) -> None:
        """Even if it can be imported: its declaration is checked as `corral check` does."""
        module = acme / "acme_letters.py"
        module.write_text(
            module.read_text().replace(
                "return [letters, threaded]", "return [letters, threaded, more]"
            )
            + "\nmore = Queue('acme-more', Letter)\n"
        )
        code, out, err = run("plugins", "--json")
        assert code == 0, err
        mine = {row["name"]: row for row in json.loads(out) if row["distribution"] == "acme"}
        assert {row["state"] for row in mine.values()} == {"failed"}
        assert "acme-more" in mine["acme-letters"]["reason"]
        code, out, err = run("plugins")
        assert (code, "failed" in out) == (0, True)
        assert "error: " in err
        assert "acme-more" in err

    @pytest.mark.corral_untidy("what is counted are ids without jobs")
    def test_queues_counts_jobs_by_state(self, run: Callable[..., Ran], store: redis.Redis) -> None:
        store.lpush("bull:acme-letters:wait", "a", "b")
        store.zadd("bull:acme-letters:delayed", {"c": 1})
        _, out, _ = run("queues")
        assert "RETRYING" not in out
        store.hset(
            "bull:acme-letters:d",
            mapping={"name": "x", "atm": 1, "failedReason": "ValueError: no", "timestamp": 1},
        )
        store.zadd("bull:acme-letters:delayed", {"d": 2})
        code, out, err = run("queues", "--json")
        assert code == 0, err
        counts = {row.pop("queue"): row for row in json.loads(out)}
        assert counts["acme-letters"] == {
            **dict.fromkeys(
                ("active", "prioritized", "waiting-children", "completed", "failed"), 0
            ),
            "waiting": 2,
            "delayed": 2,
            "retrying": 1,
            "retrying_is_bound": False,
            "paused": False,
            "quarantined": 0,
            "damaged": [],
            "installed": True,
        }
        _, out, _ = run("queues")
        assert out.splitlines()[0].split()[:3] == ["QUEUE", "WAITING", "ACTIVE"]
        assert "DELAYED  RETRYING" in out
        code, out, err = run("job", "list", "acme-letters", "--state", "retrying")
        assert (code, out.splitlines()[1].split()[0]) == (0, "d"), err
        assert "ValueError: no" in out
        assert "1 to 1 of 1 retrying job in queue 'acme-letters'" in err
        _, out, _ = run("job", "list", "acme-letters", "--state", "retrying", "--json")
        assert [each["id"] for each in json.loads(out)["jobs"]] == ["d"]


class TestWorker:
    def test_burst_works_off_what_waits_and_ends(
        self, run: Callable[..., Ran], store: redis.Redis
    ) -> None:
        for text in ("one", "fail two"):
            assert run("enqueue", "acme-letters", json.dumps({"text": text}))[0] == 0
        code, out, err = run(
            "worker", "acme-letters=2", "acme-threads", "--burst", CORRAL_LOG_FORMAT="json"
        )
        assert (code, out) == (0, ""), err
        assert (
            store.zcard("bull:acme-letters:completed")
            == store.zcard("bull:acme-letters:failed")
            == 1
        )
        lines = [json.loads(line) for line in err.splitlines()]
        by_event = {line["event"]: line for line in lines}
        assert by_event["worker started"]["queues"] == {"acme-letters": 2, "acme-threads": 4}
        assert by_event["job failed"]["reason"] == "Fail: two"
        assert by_event["job failed"]["level"] == "error"
        assert {line["worker"] for line in lines if line["logger"] == "corral.worker"} == {
            by_event["job failed"]["worker"]
        }
        assert store.hgetall("corral:bull:alive") == {}, "it takes its record away"

    @pytest.mark.parametrize("name", ["asyncio", "uvloop"])
    def test_the_event_loop_is_the_one_of_the_setting(
        self, run: Callable[..., Ran], store: redis.Redis, name: str
    ) -> None:
        """`async` processors run on the event loop, others beside it on threads."""
        assert (
            run("enqueue", "acme-letters", json.dumps({"text": "loop"}), "--job-id", "on-loop")[0]
            == 0
        )
        assert (
            run(
                "enqueue",
                "acme-threads",
                json.dumps({"text": "sleep 0.1"}),
                "--job-id",
                "on-thread",
            )[0]
            == 0
        )
        code, _, err = run("worker", "--burst", CORRAL_WORKER__EVENT_LOOP=name)
        assert code == 0, err
        module = json.loads(store.hget("bull:acme-letters:on-loop", "returnvalue") or "null")
        assert module.partition(".")[0] == name
        assert store.zscore("bull:acme-threads:completed", "on-thread")

    @pytest.mark.trap(21)
    @pytest.mark.parametrize(
        ("environment", "code"),
        [("production", 2), ("development", 0)],
        ids=["production", "development"],
    )
    def test_a_store_that_evicts_is_refused_in_production(
        self, run: Callable[..., Ran], store: redis.Redis, environment: str, code: int
    ) -> None:
        store.config_set("maxmemory-policy", "allkeys-lru")
        try:
            ended, _, err = run("worker", "acme-letters", "--burst", CORRAL_ENV=environment)
        finally:
            store.config_set("maxmemory-policy", "noeviction")
        assert ended == code
        assert "the store evicts keys when its memory is full (maxmemory-policy allkeys-lru)" in err

    def test_dev_starts_a_store_and_stops_it_with_ctrl_c(self, command: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="corral-dev-") as folder:
            dev = command("dev", REDIS_URL=None, CORRAL_ENV=None, CORRAL_DATA_DIR=folder)
            while "worker started" not in dev.said:
                assert dev.process.poll() is None, dev.said
                with pytest.raises(Exception, match="timed out"):
                    dev.process.wait(0.02)
            assert f"unix://{folder}/store.sock" in dev.said, "it says what it started"
            dev.process.send_signal(signal.SIGINT)
            assert dev.wait() == 0
            assert not (Path(folder) / "store.sock").exists()


class TestHelp:
    def test_the_program_names_its_commands_and_exit_codes(self, run: Callable[..., Ran]) -> None:
        code, out, err = run("--help")
        assert (code, err) == (0, "")
        for word in (
            "dev",
            "worker",
            "check",
            "lock",
            "plugins",
            "queues",
            "enqueue",
            "Exit codes: 0 done",
        ):
            assert word in out
        assert run("--version")[1] == "corral 0.1.0\n"

    @pytest.mark.parametrize(
        "name", ["dev", "worker", "check", "lock", "plugins", "queues", "enqueue"]
    )
    def test_each_command_shows_an_example(self, run: Callable[..., Ran], name: str) -> None:
        code, out, err = run(name, "--help")
        assert (code, err) == (0, "")
        assert f"\n  corral {name}" in out

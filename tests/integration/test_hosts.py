"""Corral in other people's programs: it uses neither their stdout nor their logging's settings.

Secrets are shown to none of them. The programs run in processes of their own, each with another way
to log: none, `logging.basicConfig`, structlog as its documentation sets it up beside `logging`, and
Sentry's SDK with a transport that records what would be sent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

SECRET = "https://example.org/reset?code=8861-PRIVATE"

GUEST = """
import os, subprocess, sys
print("the application's module is imported")
from corral import hookimpl

@hookimpl
def corral_enqueuing(queue, payload):
    link = payload.text
    raise LookupError("the metrics backend is away")
"""
"""The application's module: it prints when it is imported, and its subscriber raises with a payload
in its frame.
"""

PRODUCER = """
import asyncio, sys
{setup}
import corral

async def main():
    async with corral.connect() as jobs:
        await jobs.enqueue("acme-letters", {{"text": sys.stdin.read()}})
        await jobs.enqueue("acme-letters", {{"text": "x" * 70_000}})

asyncio.run(main())
{teardown}
"""

STRUCTLOG = """
import logging, structlog
shared = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name]
structlog.configure(
    processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
handler = logging.StreamHandler()
handler.setFormatter(structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
    processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.dict_tracebacks,
        structlog.processors.JSONRenderer(),
    ],
))
logging.getLogger().addHandler(handler)
"""

SENTRY = """
import json, sentry_sdk
from sentry_sdk.transport import Transport

class Recording(Transport):
    def capture_envelope(self, envelope):
        with open("sentry.jsonl", "a", encoding="utf-8") as out:
            for item in envelope.items:
                out.write(json.dumps([item.type, item.payload.json], default=repr) + "\\n")

# nothing is looked for that happens to be installed beside: importing web frameworks takes seconds
sentry_sdk.init(dsn="http://a@127.0.0.1:1/1", transport=Recording, auto_enabling_integrations=False)
"""

HOSTS = {
    "none": "",
    "basicConfig": "import logging; logging.basicConfig()",
    "structlog": STRUCTLOG,
    "structlog's defaults": "import structlog; structlog.get_logger()",
    "sentry": SENTRY,
}


@pytest.fixture
def host(
    acme: Path, tmp_path: Path, store_url: str, real_plugins: str
) -> Callable[..., subprocess.CompletedProcess]:
    """`host(program, stdin)` runs a program in a process of its own."""
    (acme / "acme_guest.py").write_text(GUEST, "utf-8")
    (tmp_path / "work").mkdir(exist_ok=True)
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_"))
    }
    own |= {"PYTHONPATH": str(acme), "REDIS_URL": store_url, "CORRAL_ENV": "production"}
    own |= {"CORRAL_DISABLED_PLUGINS": real_plugins, "CORRAL_APP": "acme_guest"}

    def run(program: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", program],
            input=stdin,
            env=own | environment,
            cwd=tmp_path / "work",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("name", HOSTS)
def test_a_producer_prints_nothing_on_its_host_s_stdout_and_shows_no_local_variable(
    name: str, host: Any
) -> None:
    ended = host(PRODUCER.format(setup=HOSTS[name], teardown=""), SECRET)
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[0] == "the application's module is imported"
    assert ended.stderr.count("a hook raised") == 1
    assert "large payload" in ended.stderr
    assert "LookupError: the metrics backend is away" in ended.stderr
    assert "in corral_enqueuing" in ended.stderr, "the traceback says where"
    assert "PRIVATE" not in ended.stderr
    assert "locals" not in ended.stderr


def test_a_host_that_wants_silence_gets_it(host: Any) -> None:
    setup = "import logging; logging.basicConfig(level=logging.CRITICAL)"
    ended = host(PRODUCER.format(setup=setup, teardown=""), SECRET)
    assert (ended.stdout, ended.stderr) == ("", "the application's module is imported\n")


def test_a_host_with_structlog_gets_fields_as_fields(host: Any) -> None:
    ended = host(PRODUCER.format(setup=STRUCTLOG, teardown=""), SECRET)
    lines = [json.loads(line) for line in ended.stderr.splitlines()[1:]]
    by_logger = {line["logger"]: line for line in lines}
    assert by_logger["corral.producer"]["queue"] == "acme-letters"
    assert by_logger["corral.producer"]["bytes"] > 70_000
    assert by_logger["corral.plugins"]["exception"].endswith(
        "\nLookupError: the metrics backend is away"
    )


def test_what_another_thread_prints_while_a_producer_connects_stays_on_stdout(host: Any) -> None:
    """The plugin's import waits until the other thread has printed, and that until the import has
    begun.
    """
    program = """
import sys, threading, types
importing, printed = threading.Event(), threading.Event()
sys.modules["acme_events"] = types.SimpleNamespace(importing=importing, printed=printed)

def other():
    assert importing.wait(30)
    print("data")
    printed.set()

thread = threading.Thread(target=other)
thread.start()
import corral
with corral.connect_blocking():
    pass
thread.join()
print("more data")
"""
    ended = host(program, CORRAL_APP="acme_slow")
    assert ended.stdout == "data\nmore data\n"
    assert ended.stderr.splitlines() == ["imported"]


@pytest.fixture
def acme(acme: Path) -> Path:
    (acme / "acme_slow.py").write_text(
        "import acme_events\nprint('imported')\nacme_events.importing.set()\nassert acme_events.printed.wait(30)\n",
        "utf-8",
    )
    return acme


def events(folder: Path) -> list[dict[str, Any]]:
    """What would have been sent to Sentry as an error."""
    lines = (folder / "sentry.jsonl").read_text("utf-8").splitlines()
    return [body for kind, body in map(json.loads, lines) if kind == "event"]


def test_sentry_hears_of_a_hook_that_raises_and_is_shown_no_local_variable(
    host: Any, tmp_path: Path
) -> None:
    host(PRODUCER.format(setup=SENTRY, teardown="sentry_sdk.flush()"), SECRET)
    (event,) = events(tmp_path / "work")
    assert (event["logger"], event["level"]) == ("corral.plugins", "error")
    assert event["logentry"]["message"].startswith("a hook raised; ")
    assert event["extra"]["exception"].endswith("\nLookupError: the metrics backend is away")
    assert "PRIVATE" not in json.dumps(event)
    assert '"vars"' not in json.dumps(event)


def test_sentry_gets_warnings_where_it_is_configured_to(host: Any, tmp_path: Path) -> None:
    setup = SENTRY.replace(
        "auto_enabling",
        "integrations=[LoggingIntegration(event_level=logging.WARNING)], auto_enabling",
    )
    setup = (
        "import logging\nfrom sentry_sdk.integrations.logging import LoggingIntegration\n" + setup
    )
    host(PRODUCER.format(setup=setup, teardown="sentry_sdk.flush()"), SECRET)
    messages = {
        event["logentry"]["formatted"].partition(" queue=")[0]
        for event in events(tmp_path / "work")
    }
    assert {"large payload"} < messages


def test_sentry_hears_of_a_job_that_fails_for_good(
    command: Any, acme: Path, tmp_path: Path, store_url: str
) -> None:
    (acme / "acme_sentry.py").write_text(SENTRY, "utf-8")
    assert command("enqueue", "acme-letters", json.dumps({"text": "fail no such user"})).wait() == 0
    worker = command("worker", "--burst", CORRAL_APP="acme_sentry")
    assert worker.wait() == 0, worker.said
    (event,) = events(tmp_path / "work")
    assert (event["logger"], event["level"]) == ("corral.worker", "error")
    assert event["logentry"]["message"].startswith("job failed ")
    assert event["extra"]["reason"] == "Fail: no such user"
    assert event["extra"]["queue"] == "acme-letters"
    assert '"vars"' not in json.dumps(event)
    assert worker.result == ""
    with redis.Redis.from_url(store_url) as store:
        assert store.zcard("bull:acme-letters:failed") == 1


NOISY = """
import atexit, os, subprocess, sys
from corral import hookimpl
print("printed at import")
os.write(1, b"written at import\\n")
subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
atexit.register(print, "printed at the exit")

@hookimpl
def corral_enqueuing(queue, payload):
    print("printed by a hook")

@hookimpl
def corral_job_ended(job, outcome):
    print("printed in a worker")
"""


class TestCommands:
    @pytest.fixture(autouse=True)
    def noisy(self, acme: Path) -> None:
        (acme / "acme_noisy.py").write_text(NOISY, "utf-8")

    def test_an_id_is_all_that_enqueue_prints_whatever_plugins_print(self, command: Any) -> None:
        ran = command("enqueue", "acme-letters", "{}", CORRAL_APP="acme_noisy")
        assert ran.wait() == 0, ran.said
        (job_id,) = ran.result.splitlines()
        assert len(job_id) == 26
        for said in ("at import", "by a child", "by a hook", "at the exit"):
            assert f"printed {said}" in ran.said
        assert "written at import" in ran.said

    @pytest.mark.parametrize(
        "arguments",
        [("check", "--json"), ("queues", "--json"), ("plugins", "--json"), ("audit", "--json")],
    )
    def test_json_stays_json(self, command: Any, arguments: tuple[str, ...]) -> None:
        ran = command(*arguments, CORRAL_APP="acme_noisy")
        assert ran.wait() == 0, ran.said
        json.loads(ran.result)
        assert "printed at import" in ran.said

    def test_a_worker_s_stdout_stays_empty(self, command: Any) -> None:
        assert command("enqueue", "acme-letters", "{}").wait() == 0
        worker = command("worker", "--burst", CORRAL_APP="acme_noisy")
        assert worker.wait() == 0, worker.said
        assert worker.result == ""
        assert "printed in a worker" in worker.said

    def test_help_is_a_result(self, command: Any) -> None:
        for arguments in (
            ("--help",),
            ("enqueue", "--help"),
            ("job", "list", "--help"),
            ("--version",),
        ):
            ran = command(*arguments)
            assert (ran.wait(), ran.said) == (0, "")
            assert "corral" in ran.result

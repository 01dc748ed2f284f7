"""The whole of it: jobs in a real store, a worker that takes them, and may be killed, a server that
takes the mail.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from corral import testing
from corral.outcome import Completed, Failed, Retried
from corral_emails import EmailJob, emails
from corral_emails.processor import open_mailer, send_email
from corral_emails.settings import PREFIX

pytestmark = pytest.mark.asyncio

APPLICATION = '''
"""Dies as the server has taken a mail, once."""
import os, signal
from contextlib import contextmanager
from pathlib import Path
from corral import hookimpl

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if Path("die").exists():  # the processor has returned, and the store does not know of it
        Path("die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
'''

SECONDS = 10

PROCESSOR = emails.processed_by(send_email, using=open_mailer)


def welcome(to: str) -> EmailJob:
    return EmailJob(
        to=to, template="welcome", variables={"name": "Ada", "url": "https://acme.example/"}
    )


@pytest.fixture(autouse=True)
def _to_the_postbox(postbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}HOST", "127.0.0.1")
    monkeypatch.setenv(f"{PREFIX}PORT", str(postbox.port))


async def test_550_is_final_and_451_is_tried_again(corral_kit: testing.Kit, postbox) -> None:
    postbox.replies["gone@example.org"] = ["550 5.1.1 nobody here"]
    postbox.replies["busy@example.org"] = ["451 4.7.1 greylisted", "451 4.7.1 greylisted"]
    for name in ("gone", "busy"):
        await corral_kit.enqueue(emails, welcome(f"{name}@example.org"), job_id=name)

    drained = await corral_kit.drain(PROCESSOR, for_=timedelta(hours=1))

    (failed,) = drained.outcomes(emails, "gone")
    assert isinstance(failed, Failed)
    assert failed.reason == f"Fail: 127.0.0.1:{postbox.port} answered 550 5.1.1 nobody here"
    first, second, sent = drained.outcomes(emails, "busy")
    assert isinstance(first, Retried)
    assert 7_500 <= first.delay_ms <= 10_000
    assert isinstance(second, Retried)
    assert 15_000 <= second.delay_ms <= 20_000
    assert isinstance(sent, Completed)
    assert {job.id: job.state for job in corral_kit.jobs(emails)} == {
        "gone": "failed",
        "busy": "completed",
    }
    assert [envelope.rcpt_tos for envelope in postbox.envelopes] == [["busy@example.org"]]


class TestTheHorizon:
    """How long the mail server may be away, or refuse us, before a mail is lost."""

    async def test_a_server_that_refuses_us_for_a_day_has_the_mail_afterwards(
        self, corral_kit: testing.Kit, scripted, monkeypatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PORT", str(scripted.port))
        scripted.always = {"MAIL": "530 5.7.0 authentication required"}
        await corral_kit.enqueue(emails, welcome("ada@example.org"))
        await corral_kit.drain(PROCESSOR, for_=timedelta(hours=23.5))
        assert [job.state for job in corral_kit.jobs(emails)] == ["delayed"]
        scripted.always = {}
        await corral_kit.drain(PROCESSOR, for_=timedelta(hours=1))
        assert [recipients for recipients, _ in scripted.mails] == [["ada@example.org"]]

    async def test_so_has_one_that_cannot_be_reached(
        self, corral_kit: testing.Kit, scripted, monkeypatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PORT", "1")
        await corral_kit.enqueue(emails, welcome("ada@example.org"))
        await corral_kit.drain(PROCESSOR, for_=timedelta(hours=23.5))
        assert [job.state for job in corral_kit.jobs(emails)] == ["delayed"]
        monkeypatch.setenv(f"{PREFIX}PORT", str(scripted.port))
        await corral_kit.drain(PROCESSOR, for_=timedelta(hours=1))
        assert len(scripted.mails) == 1

    async def test_one_that_greylists_for_five_minutes_has_it_within_ten(
        self, corral_kit: testing.Kit, scripted, monkeypatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PORT", str(scripted.port))
        scripted.always = {"RCPT": "451 4.7.1 greylisted, try again in 300 seconds"}
        await corral_kit.enqueue(emails, welcome("ada@example.org"))
        await corral_kit.drain(PROCESSOR, for_=timedelta(minutes=5))
        scripted.always = {}
        await corral_kit.drain(PROCESSOR, for_=timedelta(minutes=5))
        assert len(scripted.mails) == 1

    async def test_it_ends(self, corral_kit: testing.Kit, scripted, monkeypatch) -> None:
        """A day later nobody wants the mail; until then it took some forty attempts."""
        monkeypatch.setenv(f"{PREFIX}PORT", str(scripted.port))
        scripted.always = {"RCPT": "451 4.7.1 greylisted"}
        await corral_kit.enqueue(emails, welcome("ada@example.org"))
        drained = await corral_kit.drain(PROCESSOR, for_=timedelta(hours=36))
        *retried, failed = drained.outcomes(emails)
        assert {type(each) for each in retried} == {Retried}
        assert isinstance(failed, Failed)
        waited = timedelta(milliseconds=sum(each.delay_ms for each in retried))
        assert timedelta(hours=24) <= waited <= timedelta(hours=33)
        assert len(retried) < 50


@pytest.fixture
def worker(
    corral_kit: testing.Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `corral worker` with the application above; none outlives the test."""
    (tmp_path / "acme_mail.py").write_text(APPLICATION, "utf-8")
    settings = {
        "CORRAL_APP": "acme_mail",
        "CORRAL_WORKER__LOCK_SECONDS": "1",
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(
        tmp_path
    )  # this process is a producer, and loads the application too
    monkeypatch.delitem(sys.modules, "acme_mail", raising=False)
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "corral", "worker", "emails", *options]
            started.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(timeout=15)


@pytest.fixture
def crashed(
    corral_kit: testing.Kit, worker, postbox, tmp_path: Path, wait_until
) -> Callable[..., object]:
    """A job whose worker is killed as the mail is accepted and before the job is completed, and
    which then runs again.

    Returns what the job returned in the end.
    """

    async def run() -> dict[str, str]:
        await corral_kit.enqueue(emails, welcome("ada@example.org"), job_id="welcome")
        (tmp_path / "die").touch()
        first = worker()
        await wait_until(lambda: first.poll() is not None, "the worker is killed")
        assert first.returncode == -signal.SIGKILL
        assert [job.state for job in corral_kit.jobs(emails)] == ["active"]
        assert len(postbox.envelopes) == 1, "the server has taken it"

        second = worker()
        await wait_until(
            lambda: [job.state for job in corral_kit.jobs(emails)] == ["completed"], "it ran again"
        )
        second.terminate()
        await wait_until(lambda: second.poll() is not None, "the worker has stopped")
        assert second.returncode == 0
        with redis.Redis.from_url(corral_kit.url) as store:
            stored = store.hgetall(f"{corral_kit.prefix}:emails:welcome")
        assert (stored[b"ats"], stored[b"stc"]) == (b"2", b"1"), (
            "it was started again, because its worker had died"
        )
        return json.loads(stored[b"returnvalue"])

    return run


async def test_a_crash_after_acceptance_leaves_one_mail_where_there_is_a_ledger(
    corral_database_with_tables: str, crashed, postbox
) -> None:
    result = await crashed()
    (mail,) = postbox.mails
    assert result == {"messageId": mail["Message-ID"]}


async def test_without_a_ledger_the_second_mail_can_be_recognised(crashed, postbox) -> None:
    result = await crashed()
    first, second = postbox.mails
    assert result == {"messageId": first["Message-ID"]} == {"messageId": second["Message-ID"]}


async def test_operators_see_in_health_and_metrics_that_a_server_refuses_us(
    corral_kit: testing.Kit, worker, scripted, wait_until, monkeypatch, tmp_path: Path
) -> None:
    """From the reply to what `corral health` prints and Prometheus scrapes, and back to health."""
    monkeypatch.setenv(f"{PREFIX}PORT", str(scripted.port))
    scripted.always = {"MAIL": "530 5.7.0 authentication required"}
    for number in range(3):
        await corral_kit.enqueue(emails, welcome(f"user{number}@example.org"), job_id=f"m{number}")
    process = worker("--metrics-port", "0")

    async def corral(*arguments: str) -> tuple[int, str]:
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "corral", *arguments),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _, error = await asked.communicate()
        return asked.returncode, error.decode()

    def served() -> str | None:
        found = re.search(r"http://127\.0\.0\.1:\d+", (tmp_path / "worker.log").read_text("utf-8"))
        return found and found[0]

    def get(path: str) -> str:
        with urllib.request.urlopen(f"{url}{path}", timeout=SECONDS) as answer:
            return answer.read().decode()

    async def is_refused() -> bool:
        return (await corral("health"))[0] == 1 and "refuses us" in (await corral("health"))[1]

    async def is_well() -> bool:
        return (await corral("health"))[0] == 0

    url = await wait_until(served, "metrics are served")
    await wait_until(is_refused, "corral health fails")
    sentence = (
        f"the mail server refuses us: 127.0.0.1:{scripted.port} answered MAIL with"
        " 530 5.7.0 authentication required"
    )
    assert await corral("health") == (1, f"error: {sentence}\n")
    body = await asyncio.to_thread(get, "/metrics")
    counted = dict(
        re.findall(r'^corral_emails_refused_total{about="(\w+)"} (.+)$', body, re.MULTILINE)
    )
    assert counted.keys() == {"sender", "recipient", "content"}
    assert (counted["recipient"], counted["content"]) == ("0.0", "0.0")
    assert float(counted["sender"]) >= 3
    assert "# TYPE corral_emails_refused_total counter" in body
    ready = json.loads(await asyncio.to_thread(get, "/readyz"))
    assert ready == {"ready": True, "troubles": [sentence]}, "it goes on taking jobs"

    scripted.always = {}
    await wait_until(is_well, "the next attempt is taken")
    process.terminate()
    await wait_until(lambda: process.poll() is not None, "the worker has stopped")
    assert process.returncode == 0

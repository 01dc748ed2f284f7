"""The whole of it: jobs in a real store, a worker that takes them, and may be killed, a server that
takes the mail.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
    *deferred, sent = drained.outcomes(emails, "busy")
    assert [(type(each), each.delay_ms) for each in deferred] == [
        (Retried, 5_000),
        (Retried, 10_000),
    ]
    assert isinstance(sent, Completed)
    assert {job.id: job.state for job in corral_kit.jobs(emails)} == {
        "gone": "failed",
        "busy": "completed",
    }
    assert [envelope.rcpt_tos for envelope in postbox.envelopes] == [["busy@example.org"]]


async def test_451_at_every_attempt_is_given_up_when_they_are_spent(
    corral_kit: testing.Kit, postbox
) -> None:
    postbox.replies["busy@example.org"] = ["451 4.7.1 greylisted"] * 9
    await corral_kit.enqueue(emails, welcome("busy@example.org"))
    drained = await corral_kit.drain(PROCESSOR, for_=timedelta(hours=1))
    assert [type(outcome) for outcome in drained.outcomes(emails)] == [Retried, Retried, Failed]
    assert postbox.envelopes == []


@pytest.fixture
def worker(
    corral_kit: testing.Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
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

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "corral", "worker", "emails"]
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

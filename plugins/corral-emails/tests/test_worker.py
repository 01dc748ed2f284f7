"""The whole of it: jobs in a real store, a worker that takes them, a server that takes the mail or does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from corral import testing
from corral.outcome import Completed, Failed, Retried
from corral_emails import EmailJob, emails
from corral_emails.processor import open_mailer, send_email
from corral_emails.settings import PREFIX

pytestmark = pytest.mark.asyncio

PROCESSOR = emails.processed_by(send_email, using=open_mailer)


def welcome(to: str) -> EmailJob:
    return EmailJob(to=to, template="welcome", variables={"name": "Ada", "url": "https://acme.example/"})


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
    assert [(type(each), each.delay_ms) for each in deferred] == [(Retried, 5_000), (Retried, 10_000)]
    assert isinstance(sent, Completed)
    assert {job.id: job.state for job in corral_kit.jobs(emails)} == {"gone": "failed", "busy": "completed"}
    assert [envelope.rcpt_tos for envelope in postbox.envelopes] == [["busy@example.org"]]


async def test_451_at_every_attempt_is_given_up_when_they_are_spent(corral_kit: testing.Kit, postbox) -> None:
    postbox.replies["busy@example.org"] = ["451 4.7.1 greylisted"] * 9
    await corral_kit.enqueue(emails, welcome("busy@example.org"))
    drained = await corral_kit.drain(PROCESSOR, for_=timedelta(hours=1))
    assert [type(outcome) for outcome in drained.outcomes(emails)] == [Retried, Retried, Failed]
    assert postbox.envelopes == []

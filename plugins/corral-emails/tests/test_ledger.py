"""With a database, a job that runs again knows that its mail was taken: but for one moment, between
reply and row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.exc import ProgrammingError

from corral import Deps, sql, testing
from corral.errors import ConfigurationError, DatabaseUnavailable
from corral_emails import emails
from corral_emails.processor import open_mailer, send_email
from corral_emails.settings import PREFIX
from corral_emails.smtp import Deferred, Mailer

WELCOME = {
    "to": "ada@example.org",
    "template": "welcome",
    "variables": {"name": "Ada", "url": "https://acme.example/"},
}

pytestmark = pytest.mark.asyncio


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, postbox) -> pytest.MonkeyPatch:
    monkeypatch.setenv(f"{PREFIX}HOST", "127.0.0.1")
    monkeypatch.setenv(f"{PREFIX}PORT", str(postbox.port))
    return monkeypatch


@pytest_asyncio.fixture
async def remembering(
    settings, corral_database_with_tables: str, deps: Deps
) -> AsyncIterator[Mailer]:
    """A mailer as a worker opens it that has a database with a ledger."""
    async with open_mailer(deps) as mailer:
        yield mailer


async def test_a_second_run_after_the_row_sends_nothing_and_returns_the_same(
    postbox, remembering
) -> None:
    """Also the run after a crash between the row and the job's completion: it finds what this one
    finds.
    """
    results = [
        await send_email(testing.job(emails, WELCOME, attempt=attempt), remembering)
        for attempt in (1, 2)
    ]
    assert len(postbox.envelopes) == 1
    assert results[0] == results[1]
    await send_email(testing.job(emails, WELCOME, id="another"), remembering)
    assert len(postbox.envelopes) == 2


async def test_a_crash_between_acceptance_and_the_row_is_the_window_and_the_mails_can_be_recognised(
    postbox, remembering, monkeypatch
) -> None:
    class Killed(BaseException):
        pass

    async def killed(_key: str) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(remembering.accepted, "record", killed)
        with pytest.raises(Killed):
            await send_email(testing.job(emails, WELCOME), remembering)
    for attempt in (2, 3):
        await send_email(testing.job(emails, WELCOME, attempt=attempt), remembering)
    first, second = postbox.mails
    assert first["Message-ID"] == second["Message-ID"]


async def test_a_mail_that_was_refused_for_now_is_sent_by_the_next_attempt(
    postbox, remembering
) -> None:
    postbox.replies["DATA"] = ["452 4.3.1 disk full"]
    with pytest.raises(Deferred):
        await send_email(testing.job(emails, WELCOME), remembering)
    await send_email(testing.job(emails, WELCOME, attempt=2), remembering)
    assert len(postbox.envelopes) == 1


async def test_without_a_database_nothing_is_remembered(postbox, settings, deps) -> None:
    async with open_mailer(deps) as mailer:
        assert mailer.accepted is None
        for attempt in (1, 2):
            await send_email(testing.job(emails, WELCOME, attempt=attempt), mailer)
    assert len(postbox.envelopes) == 2


async def test_a_database_without_a_ledger_refuses_the_start(
    settings, corral_database_url: str, deps
) -> None:
    with pytest.raises(ConfigurationError, match="lacks a table") as refused:
        async with open_mailer(deps):
            pass
    assert refused.value.hint == "corral db create"


async def test_while_the_database_is_away_a_worker_starts_and_sends_nothing(
    postbox, settings, deps
) -> None:
    settings.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://app@/app?host=/nowhere")
    async with open_mailer(deps) as mailer:
        with pytest.raises(DatabaseUnavailable):
            await send_email(testing.job(emails, WELCOME), mailer)
    assert postbox.envelopes == []


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), ProgrammingError("INSERT", {}, Exception("permission denied"))],
    ids=["away", "refused"],
)
async def test_an_acceptance_that_cannot_be_recorded_is_logged_and_the_job_completes(
    postbox, remembering, monkeypatch, caplog, error
) -> None:
    async def claim(*_: object) -> bool:
        raise error

    monkeypatch.setattr(sql.Ledger, "claim", claim)
    await send_email(testing.job(emails, WELCOME), remembering)
    assert len(postbox.envelopes) == 1
    (message,) = caplog.messages
    assert message.startswith("a mail was sent, but this could not be recorded: ")

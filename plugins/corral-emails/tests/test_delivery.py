"""Mail that arrives at a real SMTP server, or does not, and what the job reports then."""

from __future__ import annotations

import asyncio
import socket
from email.message import EmailMessage

import pytest

from corral import Fail, testing
from corral_emails import EmailJob, emails
from corral_emails.processor import SentEmail, send_email
from corral_emails.settings import EmailSettings
from corral_emails.smtp import Deferred, Mailer

WELCOME = EmailJob(
    to="ada@example.org",
    template="welcome",
    variables={"name": "Ada", "url": "https://acme.example/?a=1&b=2"},
)

pytestmark = pytest.mark.asyncio


def welcome(to: str = "ada@example.org", **fields: object) -> EmailJob:
    return EmailJob.model_validate({**WELCOME.model_dump(), "to": to, **fields})


def bodies(mail: EmailMessage) -> list[str]:
    return [part.get_content().replace("\r\n", "\n") for part in mail.iter_parts()]


async def test_arrives_as_text_and_html(postbox, mailer) -> None:
    sent = await send_email(testing.job(emails, WELCOME, id="7f"), mailer)

    (envelope,), (mail,) = postbox.envelopes, postbox.mails
    assert sent == SentEmail(message_id="<emails.7f@acme.example>")
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@acme.example", ["ada@example.org"])
    assert {
        name: mail[name]
        for name in ("From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted")
    } == {
        "From": "Acme <no-reply@acme.example>",
        "To": "ada@example.org",
        "Subject": "Welcome to Acme, Ada",
        "Message-ID": "<emails.7f@acme.example>",
        "Date": "Tue, 01 Jan 2030 00:00:00 +0000",
        "Auto-Submitted": "auto-generated",
    }
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    text, html = bodies(mail)
    assert "https://acme.example/?a=1&b=2\n" in text
    assert 'href="https://acme.example/?a=1&amp;b=2"' in html


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        ("welcome", {"name": "Ada", "url": "https://acme.example/"}),
        ("password-reset", {"url": "https://acme.example/", "expires": "noon"}),
        ("export-ready", {"url": "https://acme.example/", "expires": "noon"}),
        ("account-deleted", {}),
    ],
)
async def test_each_shipped_template_says_the_same_in_text_and_html(
    postbox, mailer, template, variables
) -> None:
    await send_email(
        testing.job(
            emails, {"to": "ada@example.org", "template": template, "variables": variables}
        ),
        mailer,
    )
    text, html = bodies(postbox.mails[0])
    for value in [*variables.values(), "Acme"]:
        assert value in text
        assert value in html
    assert "<" not in text
    assert html.startswith("<!doctype html>")


async def test_result_is_camel_case_in_json() -> None:
    assert SentEmail(message_id="<a@b>").model_dump_json(by_alias=True) == '{"messageId":"<a@b>"}'


async def test_goes_to_everybody_it_names_once(postbox, mailer) -> None:
    job = welcome(cc=["bob@example.org", "ada@example.org"], reply_to="help@example.org")
    await send_email(testing.job(emails, job), mailer)
    (envelope,), (mail,) = postbox.envelopes, postbox.mails
    assert envelope.rcpt_tos == ["ada@example.org", "bob@example.org"]
    assert (mail["Cc"], mail["Reply-To"]) == (
        "bob@example.org, ada@example.org",
        "help@example.org",
    )


async def test_text_arrives_as_it_was_written(postbox, mailer_with, tmp_path) -> None:
    """A line that is one dot would end the mail, one of 2,000 letters would be cut: neither
    happens.
    """
    folder = tmp_path / "odd"
    folder.mkdir()
    text = ".\n..two\nGrüße 😀\n" + "x" * 2000 + "\n.\n"
    (folder / "subject.txt").write_text("Größe 😀 " * 20, "utf-8")
    (folder / "body.txt").write_text(text, "utf-8")
    (folder / "body.html").write_text("<p>ä</p>", "utf-8")
    mailer = await mailer_with(port=postbox.port, templates_dir=tmp_path)
    await send_email(
        testing.job(emails, {"to": "a@example.org", "template": "odd", "variables": {}}), mailer
    )
    (mail,) = postbox.mails
    assert bodies(mail)[0].rstrip("\n") == text.rstrip("\n")
    assert mail["Subject"] == ("Größe 😀 " * 20).strip()
    assert postbox.envelopes[0].content.isascii()


async def test_an_address_with_an_international_domain_goes_out_in_ascii(postbox, mailer) -> None:
    await send_email(testing.job(emails, welcome("ada@bücher.example")), mailer)
    assert postbox.envelopes[0].rcpt_tos == ["ada@xn--bcher-kva.example"]


async def test_an_international_local_part_uses_smtputf8(postbox, mailer) -> None:
    await send_email(testing.job(emails, welcome("jörg@bücher.example")), mailer)
    assert postbox.envelopes[0].rcpt_tos == ["jörg@xn--bcher-kva.example"]
    assert postbox.envelopes[0].smtp_utf8


@pytest.mark.parametrize("key", ["x" * 121, "a..b.", "a...", "~_-."])
async def test_any_job_id_makes_a_message_id_that_arrives_unchanged(postbox, mailer, key) -> None:
    sent = await send_email(testing.job(emails, WELCOME, id=key), mailer)
    raw = postbox.envelopes[0].content.decode()
    assert f"Message-ID: {sent.message_id}\r\n" in raw
    left, _, right = sent.message_id.strip("<>").partition("@")
    assert right == "acme.example"
    assert all(left.split("."))


async def test_a_second_run_after_acceptance_sends_a_mail_that_can_be_recognised_as_the_same(
    postbox, mailer
) -> None:
    """A worker that dies after the server's `250` leaves no trace of it: SMTP has no question for
    that.
    """
    for attempt in (1, 2):
        await send_email(testing.job(emails, WELCOME, attempt=attempt), mailer)
    first, second = postbox.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert bodies(first) == bodies(second)


class TestARefusalForNow:
    async def test_is_an_ordinary_failure_and_the_next_attempt_sends_the_same_message_id(
        self, postbox, mailer
    ) -> None:
        postbox.replies["ada@example.org"] = ["451 4.7.1 greylisted"]
        with pytest.raises(Deferred, match=r"answered 451 4\.7\.1 greylisted"):
            await send_email(testing.job(emails, WELCOME), mailer)
        assert postbox.envelopes == []

        sent = await send_email(testing.job(emails, WELCOME, attempt=2), mailer)
        assert (
            [mail["Message-ID"] for mail in postbox.mails]
            == [sent.message_id]
            == ["<emails.test-job@acme.example>"]
        )
        assert postbox.connections == 1

    async def test_of_the_text_or_by_closing_down_is_one_too(self, postbox, mailer) -> None:
        for reply in ("452 4.3.1 disk full", "421 4.3.2 closing down"):
            postbox.replies["DATA"] = [reply, reply]
            with pytest.raises(Deferred, match=reply):
                await send_email(testing.job(emails, WELCOME), mailer)
        postbox.replies["DATA"] = []
        await send_email(testing.job(emails, WELCOME), mailer)
        assert len(postbox.envelopes) == 1


class TestARefusalForGood:
    @pytest.mark.parametrize(
        ("step", "reply"),
        [("ada@example.org", "550 5.1.1 nobody here"), ("DATA", "554 5.6.0 not a mail")],
    )
    async def test_fails_the_job_with_the_servers_words(self, postbox, mailer, step, reply) -> None:
        postbox.replies[step] = [reply]
        with pytest.raises(Fail) as failed:
            await send_email(testing.job(emails, WELCOME), mailer)
        assert str(failed.value) == f"127.0.0.1:{postbox.port} answered {reply}"
        assert postbox.envelopes == []

    async def test_by_bytes_that_are_no_text_is_still_text(self, postbox, mailer) -> None:
        postbox.replies["ada@example.org"] = ["550 caf\udce9"]
        with pytest.raises(Fail) as failed:
            await send_email(testing.job(emails, WELCOME), mailer)
        assert "550 caf" in str(failed.value)
        str(failed.value).encode()


class TestTheConnection:
    async def test_is_one_for_one_mail_after_the_other(self, postbox, mailer) -> None:
        for n in range(5):
            await send_email(testing.job(emails, WELCOME, id=f"j{n}"), mailer)
        assert (len(postbox.envelopes), postbox.connections) == (5, 1)

    async def test_is_never_shared_by_mails_at_once(self, postbox, mailer) -> None:
        jobs = [testing.job(emails, welcome(f"user{n}@example.org"), id=f"j{n}") for n in range(20)]
        await asyncio.gather(*(send_email(job, mailer) for job in jobs))
        assert sorted(envelope.rcpt_tos[0] for envelope in postbox.envelopes) == sorted(
            job.payload.to for job in jobs
        )
        assert {mail["To"]: mail["Message-ID"] for mail in postbox.mails} == {
            job.payload.to: f"<emails.{job.id}@acme.example>" for job in jobs
        }
        assert postbox.connections <= 10

    async def test_that_the_server_closed_while_idle_is_opened_again(self, postbox, mailer) -> None:
        await send_email(testing.job(emails, WELCOME), mailer)
        postbox.hang_up()
        await send_email(testing.job(emails, WELCOME), mailer)
        assert (len(postbox.envelopes), postbox.connections) == (2, 2)

    async def test_that_cannot_be_made_is_an_ordinary_failure(self, mailer_with) -> None:
        """Not `Fail`: the job is tried again, for a server that restarts comes back."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        mailer = await mailer_with(port=port)
        with pytest.raises(ConnectionError, match=str(port)) as failed:
            await send_email(testing.job(emails, WELCOME), mailer)
        assert not isinstance(failed.value, Fail)

    async def test_that_stops_answering_is_given_up_and_made_anew(
        self, postbox, mailer_with
    ) -> None:
        mailer = await mailer_with(port=postbox.port, timeout_seconds=0.2)
        postbox.answers.clear()
        with pytest.raises(TimeoutError):
            await send_email(testing.job(emails, WELCOME), mailer)
        postbox.answers.set()
        await send_email(testing.job(emails, welcome("bob@example.org")), mailer)
        assert postbox.envelopes[-1].rcpt_tos == ["bob@example.org"]
        assert postbox.connections == 2

    async def test_of_a_cancelled_mail_is_not_used_again(self, postbox, mailer) -> None:
        """The reply to the cancelled mail would be taken for the reply to the next one's first
        command.
        """
        postbox.answers.clear()
        sending = asyncio.create_task(send_email(testing.job(emails, WELCOME), mailer))
        await asyncio.wait_for(postbox.entered.wait(), 10)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        postbox.answers.set()
        await send_email(testing.job(emails, welcome("bob@example.org")), mailer)
        assert postbox.connections == 2

    async def test_is_not_needed_to_start(self, mailer_with) -> None:
        assert await mailer_with(host="localhost", port=1)


async def test_a_processor_needs_no_server_in_a_unit_test() -> None:
    """A fake replaces the network only: templates, addresses and headers are the real ones."""

    class FakeMailer(Mailer):
        async def send(self, message: EmailMessage, *, attempt: int = 1) -> tuple[()]:
            outbox.append(message)
            return ()

    outbox: list[EmailMessage] = []
    sent = await send_email(testing.job(emails, WELCOME), FakeMailer(EmailSettings()))
    assert sent == SentEmail(message_id="<emails.test-job@localhost>")
    assert [mail["Subject"] for mail in outbox] == ["Welcome to localhost, Ada"]


async def test_a_server_without_smtputf8_never_takes_an_international_local_part(
    plain_postbox, mailer_with
) -> None:
    mailer = await mailer_with(port=plain_postbox.port)
    with pytest.raises(Fail, match="SMTPUTF8"):
        await send_email(testing.job(emails, welcome("jörg@example.org")), mailer)
    assert plain_postbox.envelopes == []

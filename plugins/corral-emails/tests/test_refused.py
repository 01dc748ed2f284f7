"""Conversations with a server that refuses: what the job does, and what operators learn."""

from __future__ import annotations

import base64
import logging
import time
import traceback

import pytest

from corral import Fail, testing
from corral_emails import EmailJob, emails
from corral_emails.processor import SentEmail, send_email
from corral_emails.server_report import LISTED_AFTER, REMIND_SECONDS
from corral_emails.smtp import Deferred

pytestmark = pytest.mark.asyncio

TO, CC, OTHER = "ada@example.org", "bob@example.org", "carol@example.org"


def mail(attempt: int = 1, cc: tuple[str, ...] = (), *, to: str = TO, key: str = "m"):
    payload = EmailJob(to=to, cc=cc, template="account-deleted", variables={})
    return testing.job(emails, payload, id=key, attempt=attempt)


@pytest.fixture
def mailer_at(scripted, mailer_with):
    """A mailer of the scripted server: `await mailer_at(username=…)`."""

    async def opening(**settings: object):
        return await mailer_with(port=scripted.port, **settings)

    return opening


LOGIN = {"username": "ada", "password": "correct horse"}


class TestARefusalThatIsAboutUs:
    @pytest.mark.parametrize(
        ("command", "reply", "settings"),
        [
            ("CONNECT", "554 5.7.1 blocked", {}),
            ("CONNECT", "421 too many", {}),
            ("EHLO", "504 5.5.2 <localhost>: need fully-qualified hostname", {}),
            ("EHLO", "550 5.7.1 go away", {}),
            ("STARTTLS", "454 4.7.0 TLS not available", {"tls": "starttls"}),
            ("STARTTLS", "501 5.5.4 no", {"tls": "starttls"}),
            ("AUTH", "535 5.7.8 bad credentials", LOGIN),
            ("AUTH", "454 4.7.0 temporary", LOGIN),
            ("MAIL", "530 5.7.0 authentication required", {}),
            ("MAIL", "550 5.7.60 not permitted to send as this sender", {}),
            ("MAIL", "550 5.4.5 daily quota", {}),
            ("MAIL", "550 5.1.1 nobody", {}),
            ("RCPT", "554 5.7.1 relay access denied", {}),
            ("RCPT", "450 4.7.1 greylisted", {}),
            ("DATA", "451 4.3.0 later", {}),
            (".", "550 5.4.5 daily quota", {}),
            (".", "554 not verified", {}),
        ],
    )
    async def test_is_tried_again_counted_and_listed_until_a_mail_is_taken(  # fixtures
        self, scripted, mailer_at, refused, deps, caplog, command, reply, settings
    ) -> None:
        scripted.offers += ["STARTTLS", "AUTH PLAIN"]
        scripted.always = {command: reply, "HELO": reply}
        mailer = await mailer_at(**settings)
        answered = f"127.0.0.1:{scripted.port} answered"
        for attempt in range(1, LISTED_AFTER + 1):
            assert deps.troubles == {}
            with pytest.raises(Deferred) as failed:
                await send_email(mail(attempt), mailer)
            assert str(failed.value) == f"{answered} {reply}"
        assert scripted.mails == []
        assert refused() == {"sender": LISTED_AFTER}
        named = "DATA" if command == "." else command
        sentence = f"the mail server refuses us: {answered} {named} with {reply}"
        assert deps.troubles == {("emails", "reported"): sentence}
        assert caplog.messages == [f"{sentence} (mail is tried again)"], "once, not three times"

        scripted.always = {}
        if "tls" in settings:  # this server cannot really do it
            return
        with caplog.at_level(logging.INFO):
            await send_email(mail(4), mailer)
        assert len(scripted.mails) == 1
        assert deps.troubles == {}
        assert caplog.messages[1:] == ["the mail server takes mail again, after 3 failures"]

    async def test_is_not_listed_for_one_mail_while_others_are_taken(
        self, scripted, mailer_at, refused, deps, caplog
    ) -> None:
        """Nor does each of its refusals fill a line of the log, whatever else the server says."""
        caplog.set_level(logging.INFO, "corral_emails")
        mailer = await mailer_at()
        for attempt in range(1, 6):
            scripted.replies["RCPT"] = [f"450 4.7.1 greylisted (id {attempt})"]
            with pytest.raises(Deferred):
                await send_email(mail(attempt), mailer)
            await send_email(mail(key=f"other-{attempt}"), mailer)
        assert refused() == {"sender": 5}
        assert deps.troubles == {}
        assert [each for each in caplog.messages if "greylisted" not in each] == []
        assert len(caplog.messages) == 1

    async def test_of_another_kind_is_logged_at_once_and_the_same_after_a_minute(
        self, scripted, mailer_at, caplog, monkeypatch
    ) -> None:
        mailer = await mailer_at()
        now = time.monotonic()
        monkeypatch.setattr("corral_emails.server_report.monotonic", lambda: now)
        for reply in ("450 4.7.1 later", "454 4.7.0 login", "450 4.7.1 later", "454 4.7.0 login"):
            scripted.replies["MAIL"] = [reply]
            with pytest.raises(Deferred):
                await send_email(mail(), mailer)
        assert len(caplog.messages) == 2
        now += REMIND_SECONDS
        scripted.replies["MAIL"] = ["450 4.7.1 later"]
        with pytest.raises(Deferred):
            await send_email(mail(), mailer)
        assert len(caplog.messages) == 3

    async def test_a_server_that_cannot_be_reached_is_listed_too(
        self, scripted, mailer_at, refused, deps, caplog
    ) -> None:
        scripted.always = {"CONNECT": ""}
        mailer = await mailer_at()
        for attempt in range(1, LISTED_AFTER + 1):
            with pytest.raises(ConnectionError):
                await send_email(mail(attempt), mailer)
        (sentence,) = deps.troubles.values()
        assert sentence.startswith("the mail server cannot be used: Error connecting to 127.0.0.1")
        assert caplog.messages == [f"{sentence} (mail is tried again)"]
        assert refused() == {}, "it said nothing"

    async def test_of_starttls_that_is_not_offered_is_listed_too(
        self, scripted, mailer_at, deps
    ) -> None:
        mailer = await mailer_at(tls="starttls")
        for attempt in range(1, LISTED_AFTER + 1):
            with pytest.raises(Exception, match="STARTTLS"):
                await send_email(mail(attempt), mailer)
        (sentence,) = deps.troubles.values()
        assert sentence.startswith("the mail server cannot be used: SMTP STARTTLS extension")


class TestARefusalThatIsAboutTheMail:
    async def test_of_an_address_is_final_and_no_trouble_of_the_operator(
        self, scripted, mailer_at, refused, deps, caplog
    ) -> None:
        mailer = await mailer_at()
        scripted.always = {"RCPT": "550 5.1.1 nobody here"}
        for number in range(LISTED_AFTER + 1):
            with pytest.raises(Fail, match=r"answered 550 5\.1\.1 nobody here$"):
                await send_email(mail(key=f"m{number}"), mailer)
        assert refused() == {"recipient": LISTED_AFTER + 1}
        assert (deps.troubles, caplog.messages) == ({}, [])

    @pytest.mark.parametrize("command", ["RCPT", "."])
    async def test_of_a_full_mailbox_is_tried_again(
        self, scripted, mailer_at, refused, command
    ) -> None:
        mailer = await mailer_at()
        for attempt, reply in enumerate(["552 5.2.2 full", "552 full", "552 5.2.2 full"], 1):
            scripted.replies[command] = [reply]
            with pytest.raises(Deferred, match=f"{reply}$"):
                await send_email(mail(attempt), mailer)
        await send_email(mail(4), mailer)
        assert len(scripted.mails) == 1
        assert refused() == {"recipient": 3}

    async def test_of_spam_fails_at_the_third_attempt(self, scripted, mailer_at, refused) -> None:
        mailer = await mailer_at()
        scripted.always = {".": "550 5.7.26 unauthenticated mail (DMARC)"}
        for attempt in (1, 2):
            with pytest.raises(Deferred):
                await send_email(mail(attempt), mailer)
        for attempt in (3, 4):
            with pytest.raises(Fail, match="DMARC"):
                await send_email(mail(attempt), mailer)
        assert refused() == {"content": 4}

    @pytest.mark.parametrize(
        "reply", ["554 5.6.0 malformed", "552 5.2.3 too long", "552 5.3.4 too big"]
    )
    async def test_of_the_text_is_final(self, scripted, mailer_at, refused, reply) -> None:
        mailer = await mailer_at()
        scripted.replies["."] = [reply]
        with pytest.raises(Fail, match=reply):
            await send_email(mail(), mailer)
        assert refused() == {"content": 1}

    @pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
    async def test_leaves_the_connection_ready_for_the_next_mail(
        self, scripted, mailer_at, command
    ) -> None:
        mailer = await mailer_at()
        scripted.replies[command] = ["550 5.7.1 no"]
        with pytest.raises((Fail, Deferred)):
            await send_email(mail(), mailer)
        await send_email(mail(to=CC, key="next"), mailer)
        assert [recipients for recipients, _ in scripted.mails] == [[CC]]
        assert len(scripted.said) == 1
        assert "RSET" in scripted.commands()

    async def test_a_reply_that_is_none_closes_the_connection(self, scripted, mailer_at) -> None:
        mailer = await mailer_at()
        scripted.replies["MAIL"] = ["25O OK"]
        with pytest.raises(Deferred):
            await send_email(mail(), mailer)
        await send_email(mail(2), mailer)
        assert (len(scripted.mails), len(scripted.said)) == (1, 2)


class TestA421:
    @pytest.mark.parametrize("command", ["CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "."])
    async def test_costs_a_connection_and_no_attempt(
        self, scripted, mailer_at, refused, caplog, command
    ) -> None:
        scripted.offers += ["AUTH PLAIN LOGIN CRAM-MD5"]
        scripted.replies[command] = ["421 4.3.2 closing"]
        mailer = await mailer_at(**LOGIN)
        assert await send_email(mail(), mailer) == SentEmail(message_id="<emails.m@localhost>")
        assert [recipients for recipients, _ in scripted.mails] == [[TO]]
        assert len(scripted.said) == 2
        assert (refused(), caplog.messages) == ({}, [])

    async def test_at_starttls_costs_none_either(self, scripted, mailer_at) -> None:
        scripted.offers += ["STARTTLS"]
        scripted.replies["STARTTLS"] = ["421 closing", "454 4.7.0 not now"]
        with pytest.raises(Deferred, match=r"454 4\.7\.0 not now$"):
            await send_email(mail(), await mailer_at(tls="starttls"))
        assert len(scripted.said) == 2

    @pytest.mark.parametrize("command", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."])
    async def test_is_not_asked_for_a_third_time(
        self, scripted, mailer_at, refused, command
    ) -> None:
        scripted.always[command] = "421 4.3.2 closing"
        with pytest.raises(Deferred, match=r"421 4\.3\.2 closing$"):
            await send_email(mail(), await mailer_at())
        assert len(scripted.said) == 2
        assert refused() == {"sender": 1}

    async def test_after_many_mails_on_a_connection_is_no_failure_of_any(
        self, scripted, mailer_at
    ) -> None:
        """A server that takes three mails per connection."""
        mailer = await mailer_at()
        for number in range(10):
            if number and number % 3 == 0:
                scripted.replies["MAIL"] = ["421 4.7.0 too many messages on this connection"]
            await send_email(mail(key=f"m{number}"), mailer)
        assert (len(scripted.mails), len(scripted.said)) == (10, 4)


class TestCc:
    @pytest.mark.parametrize(
        ("reply", "final", "about"),
        [
            ("550 5.1.1 no such user", True, "recipient"),
            ("450 4.7.1 greylisted", False, "sender"),
            ("552 5.2.2 full", False, "recipient"),
            ("554 5.7.1 relay access denied", False, "sender"),
        ],
    )
    async def test_one_that_is_refused_does_not_stop_the_mail_to_the_others(  # fixtures
        self, scripted, mailer_at, refused, deps, caplog, reply, final, about
    ) -> None:
        scripted.replies["RCPT"] = [None, reply, None]
        sent = await send_email(mail(cc=(CC, OTHER)), await mailer_at())
        assert [recipients for recipients, _ in scripted.mails] == [[TO, OTHER]]
        assert sent.model_dump(mode="json", by_alias=True) == {
            "messageId": "<emails.m@localhost>",
            "refused": [{"address": CC, "reply": reply, "final": final}],
        }
        assert refused() == {about: 1}
        assert (deps.troubles, caplog.messages) == ({}, []), "the mail is on its way"

    async def test_all_that_are_refused_are_named(self, scripted, mailer_at) -> None:
        scripted.replies["RCPT"] = [None, "550 5.1.1 no", "450 4.2.1 later"]
        sent = await send_email(mail(cc=(CC, OTHER)), await mailer_at())
        assert [(each.address, each.final) for each in sent.refused] == [(CC, True), (OTHER, False)]
        assert [recipients for recipients, _ in scripted.mails] == [[TO]]

    async def test_to_decides_the_job(self, scripted, mailer_at) -> None:
        """The mail is written to that address: a copy alone is not what anybody expects."""
        mailer = await mailer_at()
        scripted.replies["RCPT"] = ["550 5.1.1 no such user"]
        with pytest.raises(Fail, match=r"5\.1\.1"):
            await send_email(mail(cc=(CC,)), mailer)
        scripted.replies["RCPT"] = ["450 4.7.1 greylisted"]
        with pytest.raises(Deferred):
            await send_email(mail(cc=(CC,)), mailer)
        assert scripted.mails == []
        await send_email(mail(2, cc=(CC,)), mailer)
        assert [recipients for recipients, _ in scripted.mails] == [[TO, CC]]

    async def test_a_421_at_one_sends_the_mail_to_all_over_a_new_connection(
        self, scripted, mailer_at
    ) -> None:
        scripted.replies["RCPT"] = [None, "421 closing"]
        sent = await send_email(mail(cc=(CC,)), await mailer_at())
        assert sent.refused == ()
        assert [recipients for recipients, _ in scripted.mails] == [[TO, CC]]

    async def test_nobody_is_named_where_nobody_was_refused(self) -> None:
        assert SentEmail(message_id="<a@b>").model_dump_json(by_alias=True) == (
            '{"messageId":"<a@b>"}'
        )


async def test_no_address_password_or_text_is_in_logs_reasons_or_troubles(
    scripted, mailer_at, deps, caplog
) -> None:
    """The server quotes everything that it receives."""
    caplog.set_level(logging.DEBUG)
    scripted.offers += ["AUTH PLAIN LOGIN"]
    plain = base64.b64encode(b"\0ada\0correct horse").decode()
    quotes = {
        "AUTH": f"501 5.5.4 cannot decode AUTH PLAIN {plain} "
        + base64.b64encode(b"correct horse").decode()
        + " correct horse",
        "MAIL": f"550 5.7.60 <no-reply@localhost> may not write to {TO}",
        "RCPT": f"550 5.1.1 <{TO}>: no such user",
        ".": f"550 5.7.1 <{TO}> the text for {TO} is spam",
    }
    mailer = await mailer_at(**LOGIN)
    shown = []
    for command, reply in quotes.items():
        scripted.always = {command: reply}
        for attempt in (1, 2, 3):
            with pytest.raises((Fail, Deferred)) as failed:
                await send_email(mail(attempt), mailer)
            shown += [str(failed.value), "".join(traceback.format_exception(failed.value))]
        shown += deps.troubles.values()
    shown += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    assert any("no such user" in text for text in shown)
    for private in ("ada@example", "no-reply@", plain, "correct", "Y29ycmVjdCBob3JzZQ", "account"):
        assert [text for text in shown if private in text] == [], private

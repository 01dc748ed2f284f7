"""TLS and login as the settings have them, and values that try to add a header or a recipient."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from aiosmtpd.smtp import AuthResult
from pydantic import ValidationError

from corral import Fail, Job, testing
from corral_emails import EmailJob, emails
from corral_emails.message import compose_message, recipients
from corral_emails.processor import send_email
from corral_emails.rendering import Rendered

pytestmark = pytest.mark.asyncio

LOGIN = {"username": "ada", "password": "correct horse"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_side(authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def checks_login(server, session, envelope, mechanism, data) -> AuthResult:
    return AuthResult(
        success=(data.login, data.password) == (b"ada", b"correct horse"), handled=False
    )


async def send(mailer) -> None:
    await send_email(
        testing.job(
            emails, {"to": "a@example.org", "template": "account-deleted", "variables": {}}
        ),
        mailer,
    )


def forged(payload: EmailJob) -> Job[EmailJob]:
    """A job whose payload no producer would write, and no worker would read."""
    mail = {"to": "a@example.org", "template": "account-deleted", "variables": {}}
    return replace(testing.job(emails, mail), payload=payload)


class TestTLS:
    async def test_starttls_and_login(self, server_side, trusted, serving, mailer_with) -> None:
        async with serving(
            tls_context=server_side, require_starttls=True, authenticator=checks_login
        ) as postbox:
            await send(await mailer_with(port=postbox.port, tls="starttls", **LOGIN))
        assert len(postbox.envelopes) == 1

    async def test_implicit(self, server_side, trusted, serving, mailer_with) -> None:
        async with serving(ssl=server_side) as postbox:
            await send(await mailer_with(port=postbox.port, tls="implicit"))
        assert len(postbox.envelopes) == 1

    async def test_starttls_that_the_server_does_not_offer_sends_nothing(
        self, postbox, mailer_with
    ) -> None:
        """Somebody in between can take the offer out of the conversation: then there is none."""
        mailer = await mailer_with(port=postbox.port, tls="starttls")
        with pytest.raises(Exception, match="STARTTLS") as failed:
            await send(mailer)
        assert not isinstance(failed.value, Fail)
        assert postbox.envelopes == []

    @pytest.mark.parametrize("mode", ["starttls", "implicit"])
    async def test_a_certificate_that_nobody_vouches_for_sends_nothing(
        self, server_side, serving, mailer_with, mode
    ) -> None:
        options = {"ssl": server_side} if mode == "implicit" else {"tls_context": server_side}
        async with serving(**options) as postbox:
            mailer = await mailer_with(port=postbox.port, tls=mode)
            with pytest.raises(Exception, match=r"(?i)certificate") as failed:
                await send(mailer)
        assert not isinstance(failed.value, Fail)
        assert postbox.envelopes == []

    async def test_a_wrong_password_is_a_failure_that_is_tried_again(
        self, server_side, trusted, serving, mailer_with
    ) -> None:
        """It is wrong for every mail: once it is right, the jobs that waited go out."""
        async with serving(tls_context=server_side, authenticator=checks_login) as postbox:
            mailer = await mailer_with(
                port=postbox.port, tls="starttls", username="ada", password="wrong"
            )
            with pytest.raises(Exception, match="535") as failed:
                await send(mailer)
        assert not isinstance(failed.value, Fail)
        assert "wrong" not in str(failed.value)
        assert postbox.envelopes == []


BREAKS = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\v",
    "\f",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "%0d%0a",
    "\\r\\n",
]
INJECTED = [
    "Bcc: evil@example.net",
    "RCPT TO:<evil@example.net>",
    "\r\n.\r\nMAIL FROM:<evil@example.net>",
    " evil@example.net",
]
AROUND = ["{a}{b}{i}", "{a} {b}{i}", '"{b}{i}" <{a}>', "{i}{b}{a}"]
ADDRESSES = [
    form.format(a="ada@example.org", b=line_break, i=injected)
    for line_break in BREAKS
    for injected in INJECTED
    for form in AROUND
]
ENCODED = [
    *(
        f"=?utf-8?q?hello{line_break}Bcc=3a_evil=40example=2enet?="
        for line_break in ("=0d=0a", "=0a", "=00", "=0b")
    ),
    "=?utf-8?q?hello=c2=85Bcc=3a_evil=40example=2enet?=",
    "=?utf-8?b?DQpCY2M6IGV2aWxAZXhhbXBsZS5uZXQ=?=",
]
"""Encoded words (RFC 2047): the standard library decodes them before it writes the header, whoever
they come from.
"""

OTHER_ADDRESSES = [
    *(f"{word}@example.org" for word in ENCODED),
    *(f"{word} <ada@example.org>" for word in ENCODED),
    "ada@example.org, evil@example.net",
    "ada@example.org; evil@example.net",
    "ada@example.org evil@example.net",
    "ada@example.org>, <evil@example.net",
    "ada@example.org> SIZE=1 <evil@example.net",
    "<ada@example.org><evil@example.net>",
    "group: ada@example.org, evil@example.net;",
    "ada@example.org (evil@example.net)",
    "evil@example.net(\r\n)@example.org",
    "=?utf-8?q?evil=40example=2enet=2c?=@example.org",
    '"ada@example.org, evil@example.net"@example.org',
    "@example.net:ada@example.org",
    "evil%example.net@example.org",
    "ada@example.org\u0000@example.net",
    "ada@[127.0.0.1]",
    "ada\uff0cevil@example.org",
    "",
    "@",
    "ada@" + "e" * 300 + ".org",
]
HOSTILE = ADDRESSES + OTHER_ADDRESSES
HEADERS = {
    *(b"From", b"To", b"Cc", b"Reply-To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted"),
    *(b"MIME-Version", b"Content-Type"),
}


def has_only_our_headers(content: bytes) -> bool:
    head = content.partition(b"\r\n\r\n")[0]
    names = [
        line.partition(b":")[0]
        for line in head.split(b"\r\n")
        if not line.startswith((b" ", b"\t"))
    ]
    return len(names) == len(set(names)) and HEADERS.issuperset(names)


class TestInjection:
    async def test_no_address_adds_a_header_or_a_recipient(self, postbox, mailer) -> None:
        """What the payload refuses never gets here; what it lets pass must be one address, whatever
        it looks like.
        """
        assert len(HOSTILE) >= 200
        for place in ("to", "cc", "reply_to"):
            for address in HOSTILE:
                fields = {"to": "ada@example.org", place: [address] if place == "cc" else address}
                try:
                    job = EmailJob.model_validate(
                        {"template": "account-deleted", "variables": {}, **fields}
                    )
                except ValidationError:
                    continue
                postbox.envelopes.clear()
                await send_email(testing.job(emails, job), mailer)
                (envelope,) = postbox.envelopes
                assert sorted(envelope.rcpt_tos) == sorted({job.to, *job.cc})
                assert "evil@example.net" not in envelope.rcpt_tos
                assert has_only_our_headers(envelope.content)
        assert postbox.envelopes, (
            "at least an honest address with a harmless comment around it must have passed"
        )

    async def test_no_address_that_was_not_validated_does_either(self, mailer_with) -> None:
        """Past the payload's own check, the processor's still holds."""
        mailer = await mailer_with()
        for address in HOSTILE:
            job = forged(EmailJob.model_construct(to=address, template="x", variables={}))
            try:
                message = compose_message(job, Rendered("s", "t", "<p>h</p>"), mailer.sender)
            except Fail:
                continue
            assert len(recipients(message)) == 1
            assert has_only_our_headers(message.as_bytes())

    async def test_no_variable_adds_a_header_or_ends_the_mail(
        self, postbox, mailer_with, tmp_path: Path
    ) -> None:
        """The subject is a variable and nothing else; the bodies take everything that a JSON text
        can hold.
        """
        (tmp_path / "raw").mkdir()
        for name in ("subject.txt", "body.txt", "body.html"):
            (tmp_path / "raw" / name).write_text("{{ value }}", "utf-8")
        mailer = await mailer_with(port=postbox.port, templates_dir=tmp_path)
        values = (
            [f"hello{line_break}{injected}" for line_break in BREAKS for injected in INJECTED]
            + ENCODED
            + HOSTILE
        )
        assert len(values) >= 200
        refused = []
        for value in values:
            job = EmailJob.model_construct(
                to="ada@example.org",
                template="raw",
                variables={"value": value},
                locale=None,
                cc=(),
                reply_to=None,
            )
            try:
                await send_email(forged(job), mailer)
            except Fail:
                refused.append(value)
        breaking = [
            value
            for value in values
            if not value.isprintable() or any(word in value for word in ENCODED)
        ]
        assert refused == breaking
        assert len(postbox.envelopes) == len(values) - len(refused) > 0
        assert all(envelope.rcpt_tos == ["ada@example.org"] for envelope in postbox.envelopes)
        assert all(has_only_our_headers(envelope.content) for envelope in postbox.envelopes)

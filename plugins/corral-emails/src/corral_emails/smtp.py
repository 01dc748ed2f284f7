"""Sends mail by SMTP: one connection per worker, one mail at a time, all recipients or none.

It knows nothing of jobs; of Corral it knows `Fail`, because a 5xx reply is one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from email.message import EmailMessage
from functools import cached_property
from typing import TYPE_CHECKING

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from corral import Fail
from corral_emails.accepted import Accepted
from corral_emails.message import POLICY, from_address, needs_utf8, recipients, sender_of
from corral_emails.settings import EmailSettings

if TYPE_CHECKING:
    from corral_emails.rendering import Templates

__all__ = ["Deferred", "Mailer"]

QUIT_SECONDS = 2.0
"""How long the server may take to say goodbye; nothing depends on it."""


class Deferred(Exception):
    """The server does not take this mail now (a 4xx reply); another attempt may succeed."""


class Mailer:
    """Sends mail over one connection, opened for the first mail and again after it was lost.

    Args:
        settings: Where to, as whom, and how.
        accepted: Remembers which mails were taken, or None.

    Attributes:
        sender: The From address.
        accepted: What it was given.
    """

    def __init__(self, settings: EmailSettings, *, accepted: Accepted | None = None) -> None:
        self.accepted = accepted
        self.sender = from_address(settings.sender)
        self._templates_dir = settings.templates_dir
        self._server = f"{settings.host}:{settings.effective_port}"
        self._client = SMTP(
            hostname=settings.host,
            port=settings.effective_port,
            use_tls=settings.tls_mode == "implicit",
            start_tls=settings.tls_mode == "starttls",
            username=settings.username,
            password=settings.password.get_secret_value() if settings.password else None,
            timeout=settings.timeout_seconds,
        )
        self._turn = asyncio.Lock()

    @cached_property
    def templates(self) -> Templates:
        """The application's templates and the shipped ones; Jinja is loaded for the first mail."""
        from corral_emails.rendering import Templates  # noqa: PLC0415  # 2 MiB that an idle worker need not have

        return Templates(self._templates_dir, sender=self.sender.display_name or self.sender.domain)

    async def send(self, message: EmailMessage) -> None:
        """Send one mail to everybody whom it names.

        If the server refuses one recipient, nobody gets it.

        Raises:
            Fail: The server refused the mail for good (5xx).
            Deferred: The server refused it for now (4xx).
            SMTPException: The server could not be reached, did not answer in time, or refused us
            rather than the mail.
        """
        async with self._turn:
            try:
                await self._ensure_connected()
                await self._hand_over(message)
            except (Fail, Deferred):
                raise  # the connection is fine; the next mail resets what is left of this one
            except (
                BaseException
            ):  # a cancellation too: a reply that is still to come would answer the next command
                self._client.close()
                raise

    async def _ensure_connected(self) -> None:
        """Make sure that a connection is open, greeted, and ready for the next mail."""
        if self._client.is_connected:
            try:
                await self._client.rset()
            except (
                SMTPException
            ):  # closed by the server while nobody looked: idle connections live some minutes
                self._client.close()
            else:
                return
        await self._client.connect()
        await self._client.rset()

    async def _hand_over(self, message: EmailMessage) -> None:
        envelope = [sender_of(message), *recipients(message)]
        utf8 = needs_utf8(message)
        if utf8 and not self._client.supports_extension("smtputf8"):
            raise Fail(f"{self._server} takes no addresses beyond ASCII (it offers no SMTPUTF8)")
        encoding = "utf-8" if utf8 else "ascii"
        try:
            await self._client.mail(
                envelope[0], options=["SMTPUTF8"] if utf8 else [], encoding=encoding
            )
            for recipient in envelope[1:]:
                await self._client.rcpt(recipient, encoding=encoding)
            await self._client.data(message.as_bytes(policy=POLICY.clone(utf8=utf8)))
        except SMTPResponseException as refused:
            text = " ".join(
                refused.message.encode(errors="replace").decode().split()
            )  # a server may say any bytes
            reply = f"{self._server} answered {refused.code} {text}"
            if 500 <= refused.code < 600:
                raise Fail(reply) from refused
            if 400 <= refused.code < 500:
                raise Deferred(reply) from refused
            raise

    async def close(self) -> None:
        """Say goodbye."""
        if self._client.is_connected:
            with suppress(SMTPException):
                await self._client.quit(timeout=QUIT_SECONDS)
        self._client.close()

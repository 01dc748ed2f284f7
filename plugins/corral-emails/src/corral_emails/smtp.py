"""Sends mail by SMTP, over reused connections, and decides what a refusal does to the job.

It knows of Corral what a job may raise, and of jobs only which attempt it is.
"""

from __future__ import annotations

import asyncio
import socket
from email.message import EmailMessage
from functools import cached_property
from typing import TYPE_CHECKING

from aiosmtplib import SMTPException, SMTPServerDisconnected, SMTPTimeoutError

from corral import Fail
from corral_emails.accepted import Accepted
from corral_emails.connection import Envelope, Refused, SmtpConnection
from corral_emails.connection_pool import ConnectionPool
from corral_emails.ehlo import usable_name
from corral_emails.message import from_address
from corral_emails.refusals import Refusal
from corral_emails.server_report import ServerReport
from corral_emails.settings import EmailSettings

if TYPE_CHECKING:
    from corral_emails.rendering import Templates

__all__ = ["Deferred", "Mailer"]


class Deferred(Exception):
    """The server does not take this mail now; another attempt may succeed."""


class Mailer:
    """Sends mail over connections that are opened as they are needed, and again after a loss.

    Args:
        settings: Where to, as whom, how, and over how many connections.
        accepted: Remembers which mails were taken, or None.
        report: Reports how the server treats us; by default only to the log.

    Attributes:
        sender: The From address.
        accepted: What it was given.
    """

    def __init__(
        self,
        settings: EmailSettings,
        *,
        accepted: Accepted | None = None,
        report: ServerReport | None = None,
    ) -> None:
        self.accepted = accepted
        self.sender = from_address(settings.sender)
        self._settings = settings
        self._server = f"{settings.host}:{settings.effective_port}"
        self._report = report or ServerReport()
        self._ehlo_name = settings.ehlo_name
        self._knows_ehlo_name = settings.ehlo_name is not None
        self._pool = ConnectionPool(
            lambda: SmtpConnection(settings, self._ehlo_name), settings.connections
        )

    @cached_property
    def templates(self) -> Templates:
        """The application's templates and the shipped ones; Jinja is loaded for the first mail."""
        from corral_emails.rendering import Templates  # noqa: PLC0415  # 2 MiB that an idle worker need not have

        sender = self.sender.display_name or self.sender.domain
        return Templates(self._settings.templates_dir, sender=sender)

    async def send(
        self, message: EmailMessage, *, attempt: int = 1
    ) -> tuple[tuple[str, Refusal], ...]:
        """Send one mail.

        Everybody in `Cc` whom the server accepts gets it. If it refuses the address in `To`,
        nobody does.

        Args:
            message: The mail.
            attempt: Which attempt of its job this is, from 1.

        Returns:
            The addresses of `Cc` that the server refused, for now or for good, each with its reply.

        Raises:
            Fail: The server refused the mail, and no further attempt can help.
            Deferred: The server refused the mail, and another attempt may succeed.
            SMTPException: The server could not be reached or did not answer in time.
        """
        envelope = Envelope.of(message)
        try:
            async with self._pool.places:
                refused = await self._hand_over(envelope)
        except Refused as error:
            self._report.report_refusal(self._server, error.refusal)
            reason = f"{self._server} answered {error.refusal}"
            attempts = error.refusal.verdict.attempts
            is_last = attempts is not None and attempt >= attempts
            raise (Fail(reason) if is_last else Deferred(reason)) from None
        except (SMTPException, OSError) as error:
            self._report.report_failure(error)
            raise
        self._report.report_taken()
        for _, refusal in refused:
            self._report.count(refusal)
        return refused

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def _hand_over(self, envelope: Envelope) -> tuple[tuple[str, Refusal], ...]:
        """Hand a mail over. If the server closes the connection, do it once more on a new one.

        So an idle connection that is dead costs no attempt, nor does a 421 at any command. It is
        not done after the text began and no reply came: the server may have taken the mail.
        """
        if not self._knows_ehlo_name:
            self._ehlo_name = usable_name(await asyncio.to_thread(socket.getfqdn))
            self._knows_ehlo_name = True
        idle = self._pool.take_idle()
        was_closed = False
        while True:
            try:
                async with self._pool.lend(idle) as connection:
                    return await connection.send(envelope)
            except Refused as error:
                if was_closed or not error.closes:
                    raise
                was_closed = True
            except (SMTPServerDisconnected, SMTPTimeoutError):
                if idle is None or idle.hands_over:
                    raise
            idle = None

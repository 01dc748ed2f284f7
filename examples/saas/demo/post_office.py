"""An SMTP server that keeps all mail, and refuses one recipient for now and another for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY

from aiosmtpd.smtp import SMTP, Envelope, Session

__all__ = ["GREYLISTED", "UNKNOWN", "Mail", "PostOffice", "Refusal", "open_post_office"]

GREYLISTED = "grace@example.org"
"""Gets a temporary refusal, the first time."""

UNKNOWN = "nobody@example.org"
"""Does not exist."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was accepted.

    Attributes:
        to: The envelope's recipients.
        message: The mail.
    """

    to: tuple[str, ...]
    message: EmailMessage

    @property
    def link(self) -> str:
        """The first link of its text."""
        return next(word for word in self.body("plain").split() if word.startswith("http"))

    def body(self, subtype: str) -> str:
        """The mail's text as `plain` or as `html`."""
        part = self.message.get_body((subtype,))
        return part.get_content() if part else ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A recipient that was turned away.

    Attributes:
        to: The recipient.
        reply: The server's words.
    """

    to: str
    reply: str


class PostOffice:
    """What the server has done.

    Attributes:
        port: Where it listens.
        mails: What it accepted, in order.
        refusals: What it did not, in order.
    """

    def __init__(self, on_event: Callable[[Mail | Refusal], None]) -> None:
        self.port = 0
        self._on_event = on_event
        self.mails: list[Mail] = []
        self.refusals: list[Refusal] = []

    async def handle_RCPT(  # noqa: N802  # aiosmtpd calls it by this name
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """Answer a recipient."""
        refused_before = any(address == refusal.to for refusal in self.refusals)
        reply = "250 OK"
        if address == UNKNOWN:
            reply = "550 5.1.1 nobody of this name here"
        elif address == GREYLISTED and not refused_before:
            reply = "451 4.7.1 greylisted, come back in a moment"
        if reply == "250 OK":
            envelope.rcpt_tos.append(address)
        else:
            self.refusals.append(Refusal(address, reply))
            self._on_event(self.refusals[-1])
        return reply

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # as above
        """Keep a mail."""
        message = message_from_bytes(envelope.content or b"", policy=POLICY)  # type: ignore[arg-type]  # bytes, as we did not ask for text
        self.mails.append(Mail(tuple(envelope.rcpt_tos), message))
        self._on_event(self.mails[-1])
        return "250 OK: kept"


@asynccontextmanager
async def open_post_office(on_event: Callable[[Mail | Refusal], None]) -> AsyncIterator[PostOffice]:
    """Listen on a port of the kernel's choice until the block ends.

    Args:
        on_event: Called with each mail and each refusal.
    """
    office = PostOffice(on_event)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(office, hostname="post.example.org", timeout=30), "127.0.0.1", 0
    )
    office.port = server.sockets[0].getsockname()[1]
    try:
        yield office
    finally:
        server.close()

"""One SMTP connection: opened, greeted, encrypted, logged in, and one mail after the other.

It knows aiosmtplib, and turns each refusal into a `Refused`. It does not decide what follows.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from corral import Fail
from corral_emails.ehlo import address_literal
from corral_emails.message import POLICY, needs_utf8, recipients, sender_of
from corral_emails.refusals import Command, Refusal
from corral_emails.settings import EmailSettings

__all__ = ["Envelope", "Refused", "SmtpConnection"]

QUIT_SECONDS = 2.0
"""How long the server may take to say goodbye; nothing depends on it."""

CLOSING: Final = 421
"""The server closes the connection, whatever it was asked."""


class Refused(Exception):
    """The server refused something.

    Attributes:
        refusal: Its reply.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection."""
        return self.refusal.code == CLOSING


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail as SMTP takes it.

    Attributes:
        sender: Whom it is from.
        to: Whom it is for.
        cc: Who gets it too.
        needs_utf8: Whether an address is not ASCII.
        content: The mail's bytes.
    """

    sender: str
    to: str
    cc: tuple[str, ...]
    needs_utf8: bool
    content: bytes

    @classmethod
    def of(cls, message: EmailMessage) -> Envelope:
        """Read the envelope from the mail's headers."""
        to, *cc = recipients(message)
        utf8 = needs_utf8(message)
        content = message.as_bytes(policy=POLICY.clone(utf8=utf8))
        return cls(sender_of(message), to, tuple(cc), utf8, content)


class SmtpConnection:
    """A connection to the server. It is used by one mail at a time.

    Attributes:
        hands_over: Whether the text of the last mail was sent, or some of it: if the connection
            broke, nobody knows whether the server took it.

    Args:
        settings: Where to, as whom, and how.
        ehlo_name: The name to greet with; None for the address of our end of the connection.
    """

    def __init__(self, settings: EmailSettings, ehlo_name: str | None) -> None:
        self.hands_over = False
        self._settings = settings
        self._ehlo_name = ehlo_name
        self._is_used = False
        self._client = SMTP(
            hostname=settings.host,
            port=settings.effective_port,
            use_tls=settings.tls_mode == "implicit",
            start_tls=False,  # `open` does it, with a name that is known only when it is connected
            local_hostname=ehlo_name or "localhost",
            timeout=settings.timeout_seconds,
        )

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it, as far as we know."""
        return self._client.is_connected

    async def open(self) -> None:
        """Connect, greet the server, start TLS and log in, as the settings have it.

        Raises:
            Refused: The server refused one of them.
            SMTPException: The server could not be reached or did not answer in time, its
                certificate is not to be trusted, or it does not offer what the settings ask for.
        """
        client, settings = self._client, self._settings
        await self._ask("CONNECT", client.connect())
        if self._ehlo_name is None:
            own = client.get_transport_info("sockname")
            client.local_hostname = address_literal(own[0])
        await self._ask("EHLO", self._greet())
        if settings.tls_mode == "starttls":
            await self._ask("STARTTLS", client.starttls())
            await self._ask("EHLO", self._greet())
        if settings.username is not None and settings.password is not None:
            await self._ask(
                "AUTH", self._log_in(settings.username, settings.password.get_secret_value())
            )

    async def send(self, envelope: Envelope) -> tuple[tuple[str, Refusal], ...]:
        """Send a mail to everybody whom the server accepts for it.

        Returns:
            The addresses of `cc` that the server refused, each with its reply.

        Raises:
            Refused: The server refused the mail, or `to`: nobody gets it.
            Fail: The server takes no address beyond ASCII, and the mail has one.
            SMTPException: The connection broke, or an answer did not come in time.
        """
        client = self._client
        self.hands_over = False
        if envelope.needs_utf8 and not client.supports_extension("smtputf8"):
            server = f"{self._settings.host}:{self._settings.effective_port}"
            raise Fail(f"{server} takes no addresses beyond ASCII (it offers no SMTPUTF8)")
        encoding = "utf-8" if envelope.needs_utf8 else "ascii"
        options = ["SMTPUTF8"] if envelope.needs_utf8 else []
        await self._reset()
        self._is_used = True
        await self._ask("MAIL", client.mail(envelope.sender, options=options, encoding=encoding))
        await self._ask("RCPT", client.rcpt(envelope.to, encoding=encoding))
        refused: list[tuple[str, Refusal]] = []
        for address in envelope.cc:
            try:
                await self._ask("RCPT", client.rcpt(address, encoding=encoding))
            except Refused as error:
                if error.closes:
                    raise
                refused.append((address, error.refusal))
        self.hands_over = True
        await self._ask("DATA", client.data(envelope.content))
        self._is_used = False
        return tuple(refused)

    async def quit(self) -> None:
        """Say goodbye and close it."""
        try:
            with suppress(SMTPException):
                await self._client.quit(timeout=QUIT_SECONDS)
        finally:
            self.abort()

    def abort(self) -> None:
        """Close it without a word, in whatever state it is."""
        self._client.close()

    async def _reset(self) -> None:
        """Remove what the server still has of a mail that it did not take."""
        if self._is_used:
            try:
                await self._client.rset()
            except SMTPResponseException as error:
                self.abort()
                raise SMTPServerDisconnected("it could not be reset") from error

    async def _greet(self) -> None:
        """EHLO, or HELO where the server does not know that."""
        try:
            await self._client.ehlo()
        except SMTPHeloError as error:
            if error.code == CLOSING or not self.is_open:
                raise
            await self._client.helo()

    async def _log_in(self, username: str, password: str) -> None:
        """Log in by the first method that the server offers and accepts.

        `SMTP.login` goes on with the next method after a 421, on a connection that is closed.
        """
        client = self._client
        methods = client.supported_auth_methods
        if not methods:
            await client.login(username, password)  # raises, and says why
        for number, method in enumerate(methods, 1):
            log_in = getattr(client, f"auth_{method.replace('-', '')}")
            try:
                await log_in(username, password)
            except SMTPAuthenticationError as error:
                if error.code == CLOSING or number == len(methods):
                    raise
            else:
                return

    async def _ask(self, command: Command, reply: Awaitable[object]) -> None:
        """Wait for a reply.

        Raises:
            Refused: The server refused; not chained, because aiosmtplib's error has the address.
        """
        try:
            await reply
        except SMTPResponseException as error:
            refusal = Refusal.of_reply(command, error.code, error.message, self._secrets)
            if refusal.code == CLOSING or not 400 <= refusal.code < 600:
                self.abort()  # after another reply, nobody knows what the next one answers
            raise Refused(refusal) from None

    @property
    def _secrets(self) -> tuple[str, ...]:
        """The password, as AUTH sends it: some servers quote the command that they refuse."""
        username, password = self._settings.username, self._settings.password
        if username is None or password is None:
            return ()
        plain = password.get_secret_value()
        sent = (plain, f"\0{username}\0{plain}", f"{username}\0{username}\0{plain}")
        return (plain, *(base64.b64encode(each.encode()).decode() for each in sent))

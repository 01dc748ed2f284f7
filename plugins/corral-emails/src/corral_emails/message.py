"""The mail itself: headers, both bodies, and a `Message-ID` that is the same on every attempt.

Only parsed addresses and checked lines become headers; the envelope is read back from them
(`recipients`), so that nobody gets the mail whom it does not name. It knows neither templates nor
SMTP.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import TYPE_CHECKING

from email_validator import EmailNotValidError, validate_email
from pydantic import NameEmail

from corral import Fail, Job
from corral_emails import EmailJob

if TYPE_CHECKING:
    from corral_emails.rendering import Rendered

__all__ = ["compose_message", "from_address", "needs_utf8", "recipients", "sender_of"]

POLICY = SMTP.clone(cte_type="7bit")
"""Bodies pass every server, also one that takes no 8-bit text."""


LINE_BREAKING = frozenset({"Cc", "Zl", "Zp", "Cs"})
"""Unicode categories: control characters, line and paragraph separators, and what no UTF-8 can
hold. Each ends a line for some reader of headers, or has no place in one.
"""


def compose_message(job: Job[EmailJob], rendered: Rendered, sender: Address) -> EmailMessage:
    """Compose the mail of one job; the same for every attempt but for its `Date`.

    Raises:
        Fail: An address cannot be used, or a header would be more than one line.
    """
    payload = job.payload
    message = EmailMessage(POLICY)
    headers: dict[str, str | datetime | Address | list[Address]] = {
        "From": sender,
        "To": _address(payload.to),
        "Cc": [_address(address) for address in payload.cc],
        "Reply-To": [_address(payload.reply_to)] if payload.reply_to else [],
        "Subject": rendered.subject,
        "Date": job.processed_on,
        "Message-ID": f"<{_dot_atom(job.idempotency_key)}@{sender.domain}>",
        "Auto-Submitted": "auto-generated",  # RFC 3834: no out-of-office reply, please
    }
    for name, value in headers.items():
        if value:
            _add(message, name, value)
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    return message


def _add(message: EmailMessage, name: str, value: object) -> None:
    """Add a header that is one line, whatever it was made of.

    It is looked at as it stands in the message, not as it was given: the standard library decodes
    encoded words, from wherever they come, and writes a line break that it found in one.
    """
    try:
        message[name] = value
    except ValueError as error:
        raise Fail(f"header {name}: {error}") from error
    if any(unicodedata.category(character) in LINE_BREAKING for character in str(message[name])):
        raise Fail(f"header {name}: line breaks and control characters are not allowed")


def from_address(sender: NameEmail) -> Address:
    """The From address of a setting, without the name that pydantic makes of its local part."""
    plain = (
        sender.email.isascii()
    )  # no-reply@localhost too, which is no address to anybody but this machine
    address = Address(addr_spec=sender.email) if plain else _address(sender.email)
    return Address(
        "" if sender.name == address.username else sender.name, address.username, address.domain
    )


def sender_of(message: EmailMessage) -> str:
    """The envelope's sender."""
    return _addresses(message, "From")[0]


def recipients(message: EmailMessage) -> list[str]:
    """The envelope's recipients: everybody whom the mail names, once each."""
    return list(dict.fromkeys(_addresses(message, "To", "Cc")))


def needs_utf8(message: EmailMessage) -> bool:
    """Whether an address needs SMTPUTF8 (RFC 6531): its local part is not ASCII."""
    return not all(
        address.isascii() for address in _addresses(message, "From", "To", "Cc", "Reply-To")
    )


def _addresses(message: EmailMessage, *headers: str) -> list[str]:
    return [
        address.addr_spec
        for name in headers
        for header in message.get_all(name, [])
        for address in header.addresses
    ]


def _address(text: str) -> Address:
    """An address for a header, its domain in ASCII: `bücher.example` is `xn--bcher-kva.example`."""
    try:
        parsed = validate_email(text, check_deliverability=False)
    except EmailNotValidError as error:
        raise Fail(f"bad address: {error}") from error
    if "=?" in parsed.local_part:
        raise Fail("bad address: an encoded word is not allowed before the @-sign")
    return Address(username=parsed.local_part, domain=parsed.ascii_domain)


def _dot_atom(key: str) -> str:
    """An idempotency key as RFC 5322 allows it left of the `@`: no double dot, none at the end."""
    return re.sub(r"(?<=\.)\.|\.$", "=2E", key)

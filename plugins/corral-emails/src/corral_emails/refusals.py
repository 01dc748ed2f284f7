"""What a refusal of the mail server is about, and how often its mail is tried.

This is the one place that decides it. The decision is a function of the command that was refused,
the reply's code (RFC 5321) and its enhanced code (RFC 3463), where it has one. This module does not
know connections or jobs.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = ["About", "Command", "EnhancedCode", "Refusal", "Verdict", "classify"]

Command = Literal["CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA"]
"""What was refused. `CONNECT` is the connection itself, by the server's greeting; `DATA` is the
command and the text after it.
"""

About = Literal["sender", "recipient", "content"]
"""What a refusal is about: us, who send; an address that the mail goes to; or the mail's text."""

ONCE: Final = 1
"""Attempts of a mail that no further attempt can help."""
THREE_TIMES: Final = 3
"""Attempts of a mail that is taken for spam or fails a policy.

Reputation and DNS change, but seldom within a day, and each attempt costs reputation.
"""

AUTHENTICATION: Final = frozenset({530, 534, 535, 538})
"""Codes of RFC 4954: the server wants to know who we are, whatever command it says that to."""

LONGEST_TEXT: Final = 200
"""Characters of a reply that are kept; a trouble of a worker has 300."""
LONGEST_READ: Final = 1000
"""Characters of a reply that are looked through: looking for addresses takes the square of it."""

_ENHANCED = re.compile(r"(?:^|#)([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
"""At the beginning of a reply; or anywhere after a `#`, as qmail writes it."""
_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"'/]+(?:@|%40)[^\s<>()\[\],;:\"'&]+")
"""An address, also within a link."""
MASK: Final = "…"


class EnhancedCode(NamedTuple):
    """An enhanced status code, `5.1.1`.

    Attributes:
        kind: Its class: 2, 4 (for now) or 5 (for good).
        subject: What it concerns: 1 an address, 2 a mailbox, 3 the server, 4 the network, 5 the
            protocol, 6 the text, 7 security or a policy, 0 anything.
        detail: What exactly.
    """

    kind: int
    subject: int
    detail: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a refusal.

    Attributes:
        about: Whom or what it is about.
        attempts: After how many attempts the job fails for good: 1, 3, or None for as many as the
            job has.
    """

    about: About
    attempts: int | None = None


def classify(command: Command, code: int, enhanced: EnhancedCode | None = None) -> Verdict:
    """Decide what a refusal is about, and how often its mail is tried.

    A combination that is unknown here is about us, and tried for as long as the job is: a mail
    that comes late does less harm than one that is lost.

    Args:
        command: What was refused.
        code: The reply's code, 400 to 599; another one is a reply that nobody expects.
        enhanced: Its enhanced code, or None.
    """
    if command not in ("RCPT", "DATA") or code in AUTHENTICATION:
        return Verdict("sender")
    _, subject, detail = enhanced or _implied(command, code)
    if code // 100 != 5 or (enhanced is not None and enhanced.kind != 5):
        return Verdict(_about_for_now(command, subject, detail))
    match command, subject, detail:
        case _, 1, 7 | 8:  # the sender's own address, which most servers judge at RCPT
            return Verdict("sender")
        case ("RCPT", 1, _) | ("RCPT", 2, 1):
            return Verdict("recipient", ONCE)
        case ("DATA", 6, _) | ("DATA", 2, 3) | ("DATA", 3, 4):
            return Verdict("content", ONCE)
        case "DATA", 7, _:
            return Verdict("content", THREE_TIMES)
        case _, 1 | 2, _:  # 5.2.2, a full mailbox, and what is rare
            return Verdict("recipient")
        case _, 6, _:
            return Verdict("content")
        case _, 0, _ if code == 552:  # RFC 5321: exceeded storage allocation
            return Verdict("recipient")
        case _:
            return Verdict("sender")


def _implied(command: Command, code: int) -> EnhancedCode:
    """What RFC 5321 lets a code mean that has no enhanced one."""
    if command == "RCPT" and code in (550, 551, 553):
        return EnhancedCode(5, 1, 0)
    return EnhancedCode(code // 100, 0, 0)


def _about_for_now(command: Command, subject: int, detail: int) -> About:
    match command, subject, detail:
        case _, 1, 7 | 8:
            return "sender"
        case _, 1 | 2, _:
            return "recipient"
        case "DATA", 6, _:
            return "content"
        case _:  # greylisting, rates, a full disk
            return "sender"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reply by which the server refused something, with nothing private in it.

    Attributes:
        command: What was refused.
        code: The reply's code.
        enhanced: Its enhanced code, or None.
        text: The server's words on one line, at most 200 characters. Addresses are masked.
    """

    command: Command
    code: int
    enhanced: EnhancedCode | None
    text: str

    @classmethod
    def of_reply(
        cls, command: Command, code: int, message: str, secrets: Collection[str] = ()
    ) -> Refusal:
        """Read a reply.

        Args:
            command: What was refused.
            code: The reply's code.
            message: Its text: several lines, and any bytes, as surrogates.
            secrets: Texts that are masked where the server quotes them.
        """
        words = " ".join(message.encode(errors="replace").decode().split())
        found = _ENHANCED.search(words)
        text = words
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, MASK)
        text = _ADDRESS.sub(MASK, text[:LONGEST_READ])
        text = "".join(each if each.isprintable() else "?" for each in text[:LONGEST_TEXT])
        enhanced = EnhancedCode(*map(int, found.groups())) if found else None
        return cls(command, code, enhanced, text)

    @property
    def verdict(self) -> Verdict:
        """What follows from it."""
        return classify(self.command, self.code, self.enhanced)

    def __str__(self) -> str:
        """`550 5.1.1 nobody here`."""
        return f"{self.code} {self.text}".strip()

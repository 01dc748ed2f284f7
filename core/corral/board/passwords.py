"""The administrator's password as a scrypt digest (RFC 7914).

The setting holds the digest; a login is checked against it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

__all__ = ["PasswordDigest", "PasswordVerifier", "VerifierBusy"]

COST: Final = 2**15
BLOCK: Final = 8
LANES: Final = 3
"""scrypt's N, r and p: 32 MiB and a fifth of a second for one check.

OWASP's password storage cheat sheet lists these as equal in strength to 128 MiB with one lane.
"""
MAX_COST: Final = 2**18
MAX_BLOCK: Final = 16
MAX_LANES: Final = 16
SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32
MIN_PASSWORD: Final = 12
"""Characters of a new password: its digest is kept in files that several people can read."""
MAX_PASSWORD: Final = 1024
MAX_WAITING: Final = 8
"""Checks that may wait while one runs; more are refused, so that a flood cannot fill the memory."""


class VerifierBusy(Exception):  # an answer to the client, not an error of ours
    """Too many passwords are being checked at once; this one was not checked."""


@dataclass(frozen=True, slots=True)
class PasswordDigest:
    """A password's digest; as text `scrypt:N:r:p:salt:digest`.

    The parts are separated by colons and written in URL-safe base64, because shells and Compose
    files would read a `$` as the start of a variable.

    Attributes:
        cost: scrypt's N.
        block: scrypt's r.
        lanes: scrypt's p.
        salt: The salt.
        digest: The digest itself.
    """

    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> PasswordDigest:
        """Hash a new password with a new salt.

        Raises:
            ValueError: The password is too short or too long.
        """
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise ValueError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(COST, BLOCK, LANES, salt, _scrypt(password, COST, BLOCK, LANES, salt))

    @classmethod
    def parsed(cls, text: str) -> PasswordDigest:
        """Parse a digest's text.

        Raises:
            ValueError: The text is not a digest, or one that is too cheap or too costly to check.
        """
        kind, *numbers, salt, digest = text.split(":") if text.count(":") == 5 else ("", "", "")
        if kind != "scrypt" or not all(
            number.isascii() and number.isdecimal() for number in numbers
        ):
            raise ValueError("this is not the digest of a password")
        cost, block, lanes = map(int, numbers)
        made = cls(cost, block, lanes, _decode(salt), _decode(digest))
        is_power_of_two = made.cost & (made.cost - 1) == 0
        if not (
            is_power_of_two
            and 2**14 <= made.cost <= MAX_COST
            and BLOCK <= made.block <= MAX_BLOCK
            and 1 <= made.lanes <= MAX_LANES
            and len(made.salt) >= SALT_BYTES
            and len(made.digest) == DIGEST_BYTES
        ):
            raise ValueError("this digest is weaker or costlier than the board accepts")
        return made

    def __str__(self) -> str:
        """The text that the setting holds."""
        salt, digest = _encode(self.salt), _encode(self.digest)
        return f"scrypt:{self.cost}:{self.block}:{self.lanes}:{salt}:{digest}"

    def matches(self, password: str) -> bool:
        """Whether it is this password's digest; takes the same time for every wrong password."""
        return hmac.compare_digest(
            _scrypt(password, self.cost, self.block, self.lanes, self.salt), self.digest
        )


class PasswordVerifier:
    """Checks passwords in a thread, so that the event loop goes on; one at a time.

    Args:
        digest: The digest of the right password.
    """

    def __init__(self, digest: PasswordDigest) -> None:
        self._digest = digest
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def verify(self, password: str) -> bool:
        """Check a password.

        Raises:
            VerifierBusy: Too many checks are waiting already.
        """
        if len(password) > MAX_PASSWORD:
            return False
        if self._waiting >= MAX_WAITING:
            raise VerifierBusy
        self._waiting += 1
        try:
            async with self._lock:
                return await asyncio.to_thread(self._digest.matches, password)
        finally:
            self._waiting -= 1


def _scrypt(password: str, cost: int, block: int, lanes: int, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=cost,
        r=block,
        p=lanes,
        maxmem=129 * block * (cost + lanes + 2),  # 128 are needed
        dklen=DIGEST_BYTES,
    )


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

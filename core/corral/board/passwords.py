"""Passwords as scrypt digests (RFC 7914): what the setting holds, and whether what somebody typed
is it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

__all__ = ["Busy", "Digest", "Verifier"]

COST: Final = 2**15
BLOCK: Final = 8
LANES: Final = 3
"""32 MiB and a fifth of a second a try; OWASP's cheat sheet on storing passwords counts it as much
as 128 MiB once.
"""
MOST_COST: Final = 2**18
MOST_BLOCK: Final = 16
MOST_LANES: Final = 16
SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32
SHORTEST_PASSWORD: Final = 12
"""Characters of a new password: the digest lies in files that are read by more than one person."""
LONGEST_PASSWORD: Final = 1024
MOST_WAITING: Final = 8
"""Tries that wait while one is hashed; more are turned away, or many addresses at once would take
all memory.
"""


class Busy(Exception):
    """So many passwords are being checked that this one is not."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A password's digest; as text `scrypt:N:r:p:salt:digest`.

    Colons, and base64 of the kind without `+` and `/`: a `$` would be a variable to shells and to
    Compose files.
    """

    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> Digest:
        """Hash a new password.

        Raises:
            ValueError: It is too short, or too long.
        """
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise ValueError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(COST, BLOCK, LANES, salt, _scrypt(password, COST, BLOCK, LANES, salt))

    @classmethod
    def parsed(cls, text: str) -> Digest:
        """Read a digest's text.

        Raises:
            ValueError: It is none, or one that is too cheap or too dear to check.
        """
        kind, *numbers, salt, digest = text.split(":") if text.count(":") == 5 else ("", "", "")
        if kind != "scrypt" or not all(
            number.isascii() and number.isdecimal() for number in numbers
        ):
            raise ValueError("this is no digest of a password")
        cost, block, lanes = map(int, numbers)
        made = cls(cost, block, lanes, _bytes(salt), _bytes(digest))
        is_power = made.cost & (made.cost - 1) == 0
        if not (
            is_power
            and 2**14 <= made.cost <= MOST_COST
            and BLOCK <= made.block <= MOST_BLOCK
            and 1 <= made.lanes <= MOST_LANES
            and len(made.salt) >= SALT_BYTES
            and len(made.digest) == DIGEST_BYTES
        ):
            raise ValueError("this digest is not of the strength that is used here")
        return made

    def __str__(self) -> str:
        """As the setting holds it."""
        return (
            f"scrypt:{self.cost}:{self.block}:{self.lanes}:{_text(self.salt)}:{_text(self.digest)}"
        )

    def is_of(self, password: str) -> bool:
        """Whether it is this password's; takes the time of one hashing, and the same for every
        wrong one.
        """
        return hmac.compare_digest(
            _scrypt(password, self.cost, self.block, self.lanes, self.salt), self.digest
        )


class Verifier:
    """Checks passwords beside the event loop, one at a time.

    Args:
        digest: The password's.
    """

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def is_right(self, password: str) -> bool:
        """Whether it is the password.

        Raises:
            Busy: Too many others are asked about already.
        """
        if len(password) > LONGEST_PASSWORD:
            return False
        if self._waiting >= MOST_WAITING:
            raise Busy
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._digest.is_of, password)
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


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

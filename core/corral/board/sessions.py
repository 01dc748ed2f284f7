"""The state of logins where the board runs alone: sessions, login links, limits on attempts.

All of it is in this process's memory: a restart ends every session, and no secret that opens the
board is ever stored. Secrets are kept as their SHA-256 and looked up by it, so that no code here
compares a secret with another one.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from corral.board.identity import Identity

__all__ = ["LoginLimiter", "LoginLinks", "LoginPacer", "Session", "Sessions"]

Monotonic = Callable[[], float]

KEY_BYTES: Final = 32
SESSION_SECONDS: Final = 12 * 3600.0
IDLE_SECONDS: Final = 3600.0
LINK_SECONDS: Final = 15 * 60.0
MAX_LINKS: Final = 16
WINDOW_SECONDS: Final = 60.0
"""The time over which login attempts are counted."""
ATTEMPTS_PER_ADDRESS: Final = 10
"""Login attempts that one address has in `WINDOW_SECONDS`."""
ATTEMPTS_AT_ONCE: Final = 30
"""Password checks in `WINDOW_SECONDS` for all unknown addresses together.

A botnet has any number of addresses, so a limit per address does not stop it.
"""
MAX_WAIT_SECONDS: Final = 30.0
"""How long a further password check may wait for its turn: proxies give up after a minute."""
MAX_KNOWN: Final = 1000
"""Addresses with a successful login that are remembered; the oldest login is forgotten first."""
MAX_ADDRESSES: Final = 10_000
"""Addresses whose attempts are counted; the one without attempts for longest is forgotten first."""


@dataclass(slots=True)
class Session:
    """One session of a person who is logged in.

    Attributes:
        identity: The person.
        began: When it began, in the clock's seconds.
        seen: When its last request came, in the clock's seconds.
        secret: What the tokens of its forms are made from.
    """

    identity: Identity
    began: float
    seen: float
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(KEY_BYTES), repr=False)


class Sessions:
    """The open sessions; each ends after 12 hours, or after one hour without a request.

    Args:
        clock: A clock in seconds that never goes back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[bytes, Session] = {}

    def begin(self, identity: Identity) -> str:
        """Begin a session and return its key, which is new and random."""
        now = self._clock()
        self._open = {
            name: session for name, session in self._open.items() if self._is_open(session, now)
        }
        key = secrets.token_urlsafe(KEY_BYTES)
        self._open[_digest(key)] = Session(identity, now, now)
        return key

    def find(self, key: str, *, used: bool = True) -> Session | None:
        """The open session of a key, or None.

        Args:
            key: The key that the browser sent.
            used: Whether a person made this request, so that the idle hour begins again.
        """
        session = self._open.get(_digest(key))
        if session is None or not self._is_open(session, now := self._clock()):
            return None
        if used:
            session.seen = now
        return session

    def end(self, key: str) -> None:
        """End the session of a key, if there is one."""
        self._open.pop(_digest(key), None)

    @staticmethod
    def _is_open(session: Session, now: float) -> bool:
        return now - session.began < SESSION_SECONDS and now - session.seen < IDLE_SECONDS


class LoginLinks:
    """Keys of login links: each logs in once, within 15 minutes.

    Args:
        clock: A clock in seconds that never goes back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._created: dict[bytes, float] = {}

    def create(self) -> str:
        """Create a key; beyond `MAX_LINKS` unused ones, the oldest becomes invalid."""
        while len(self._created) >= MAX_LINKS:
            del self._created[next(iter(self._created))]
        key = secrets.token_urlsafe(KEY_BYTES)
        self._created[_digest(key)] = self._clock()
        return key

    def redeem(self, key: str) -> bool:
        """Use a key up; returns whether it was valid."""
        created = self._created.pop(_digest(key), None)
        return created is not None and self._clock() - created < LINK_SECONDS


class LoginLimiter:
    """Allows each address ten attempts a minute.

    Args:
        clock: A clock in seconds that never goes back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._attempts: dict[str, deque[float]] = {}

    def count_attempt(self, address: str) -> int:
        """Count one attempt.

        Returns:
            0 if it is allowed, else after how many seconds the address may try again.
        """
        now, network = self._clock(), _network(address)
        attempts = self._attempts.pop(network, deque())
        while attempts and now - attempts[0] >= WINDOW_SECONDS:
            attempts.popleft()
        self._attempts[network] = attempts  # moved to the end: the front is dropped first
        if len(self._attempts) > MAX_ADDRESSES:
            del self._attempts[next(iter(self._attempts))]
        if len(attempts) >= ATTEMPTS_PER_ADDRESS:
            return max(1, math.ceil(WINDOW_SECONDS - (now - attempts[0])))
        attempts.append(now)
        return 0


class LoginPacer:
    """Spaces the password checks of all addresses that have not had a successful login before.

    The first `ATTEMPTS_AT_ONCE` of a minute are checked at once. After them each check waits for a
    turn of its own. An attacker with many addresses becomes slow; an administrator at a new address
    becomes slow too, but is not locked out.

    Args:
        clock: A clock in seconds that never goes back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._reserved_until = -math.inf
        self._known: dict[str, None] = {}

    def reserve_turn(self, address: str) -> float | None:
        """Reserve the next free turn for an address.

        Returns:
            How many seconds to wait for it; None where the wait would be longer than
            `MAX_WAIT_SECONDS`, and then no turn is reserved.
        """
        if _network(address) in self._known:
            return 0.0
        now, seconds_each = self._clock(), WINDOW_SECONDS / ATTEMPTS_AT_ONCE
        reserved_until = max(self._reserved_until, now) + seconds_each
        wait = max(reserved_until - now - WINDOW_SECONDS, 0.0)
        if wait > MAX_WAIT_SECONDS:
            return None
        self._reserved_until = reserved_until
        return wait

    def remember(self, address: str) -> None:
        """Remember a successful login: checks from this address never wait from now on."""
        network = _network(address)
        self._known.pop(network, None)
        self._known[network] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one (one customer's)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

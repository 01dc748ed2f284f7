"""Who has logged in where the board runs alone: sessions, one-time links, and how often somebody
may try.

All of it is in this process's memory: a restart ends every session, and nothing that opens the
board is ever stored. Whatever is a secret is kept as its SHA-256, and found by that: nothing here
compares a secret with another.
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

__all__ = ["Links", "Ration", "Session", "Sessions", "Tries"]

Monotonic = Callable[[], float]

KEY_BYTES: Final = 32
SESSION_SECONDS: Final = 12 * 3600.0
IDLE_SECONDS: Final = 3600.0
LINK_SECONDS: Final = 15 * 60.0
MOST_LINKS: Final = 16
TRIES: Final = 10
TRIES_SECONDS: Final = 60.0
RATION: Final = 30
"""Password tries a minute of all unknown addresses together: whoever has a botnet has any number of
addresses.
"""
LONGEST_TURN_SECONDS: Final = 30.0
"""How long a try beyond the ration may wait for its turn: proxies give up on an answer after a
minute.
"""
MOST_KNOWN: Final = 1000
"""Addresses that are remembered to have logged in; of more, the one whose login is the oldest is
forgotten.
"""
MOST_ADDRESSES: Final = 10_000
"""Addresses whose tries are remembered; of more, the one that has tried nothing for the longest
time is forgotten.
"""


@dataclass(slots=True)
class Session:
    """Somebody's session.

    Attributes:
        identity: Whose.
        began: When, in the clock's seconds.
        seen: When the last request of it came.
        secret: What the tokens of its forms are made of.
    """

    identity: Identity
    began: float
    seen: float
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(KEY_BYTES), repr=False)


class Sessions:
    """The sessions that are open: each for 12 h at most, and until nothing has come of it for an
    hour.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[bytes, Session] = {}

    def begin(self, identity: Identity) -> str:
        """Open one; returns its key, which nobody has known before."""
        now = self._clock()
        self._open = {
            name: session for name, session in self._open.items() if self._is_open(session, now)
        }
        key = secrets.token_urlsafe(KEY_BYTES)
        self._open[_name(key)] = Session(identity, now, now)
        return key

    def find(self, key: str, *, used: bool = True) -> Session | None:
        """The session of a key, or None where there is none any more.

        Args:
            key: What the browser sent.
            used: Whether somebody does something, so that the hour begins anew.
        """
        session = self._open.get(_name(key))
        if session is None or not self._is_open(session, now := self._clock()):
            return None
        if used:
            session.seen = now
        return session

    def end(self, key: str) -> None:
        """Close one, at once."""
        self._open.pop(_name(key), None)

    @staticmethod
    def _is_open(session: Session, now: float) -> bool:
        return now - session.began < SESSION_SECONDS and now - session.seen < IDLE_SECONDS


class Links:
    """Keys that let somebody in once, within a quarter of an hour.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._made: dict[bytes, float] = {}

    def make(self) -> str:
        """Make one; of too many the oldest is void."""
        while len(self._made) >= MOST_LINKS:
            del self._made[next(iter(self._made))]
        key = secrets.token_urlsafe(KEY_BYTES)
        self._made[_name(key)] = self._clock()
        return key

    def use(self, key: str) -> bool:
        """Use one up; returns whether it was good."""
        made = self._made.pop(_name(key), None)
        return made is not None and self._clock() - made < LINK_SECONDS


class Tries:
    """Counts what an address tries: ten in a minute.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._tried: dict[str, deque[float]] = {}

    def count(self, address: str) -> int:
        """Count one try; returns 0, or after how many seconds the address may try again."""
        now, who = self._clock(), _network(address)
        tried = self._tried.pop(who, deque())
        while tried and now - tried[0] >= TRIES_SECONDS:
            tried.popleft()
        self._tried[who] = tried  # at the end: what has tried last is forgotten last
        if len(self._tried) > MOST_ADDRESSES:
            del self._tried[next(iter(self._tried))]
        if len(tried) >= TRIES:
            return max(1, math.ceil(TRIES_SECONDS - (now - tried[0])))
        tried.append(now)
        return 0


class Ration:
    """Spaces the password tries of all addresses that have not logged in before.

    The first `RATION` of a minute go at once. Beyond them each waits for a turn of its own, so that
    somebody who tries from many addresses is slow, and the administrator at a new address is slow
    and not locked out.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Monotonic = time.monotonic) -> None:
        self._clock = clock
        self._spent_until = -math.inf
        self._known: dict[str, None] = {}

    def take(self, address: str) -> float | None:
        """Take a turn.

        Returns:
            How many seconds to wait for it; None where there are too many before it, and no turn
            was taken.
        """
        if _network(address) in self._known:
            return 0.0
        now, each = self._clock(), TRIES_SECONDS / RATION
        spent_until = max(self._spent_until, now) + each
        seconds = max(spent_until - now - TRIES_SECONDS, 0.0)
        if seconds > LONGEST_TURN_SECONDS:
            return None
        self._spent_until = spent_until
        return seconds

    def remember(self, address: str) -> None:
        """Somebody has logged in from this address: what is tried there is not counted any more."""
        who = _network(address)
        self._known.pop(who, None)
        self._known[who] = None
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]


def _name(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """An IPv4 address; of IPv6 the 64 bits that one customer has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)

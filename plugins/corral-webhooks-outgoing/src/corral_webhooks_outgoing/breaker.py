"""Decides which jobs may be sent now: few at once to one endpoint, few at all to one that is down.

Every process decides for itself, from what it has seen since it started. Nothing in here reads a
clock: the time is an argument, in seconds since any fixed moment.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Breaker", "Breakers", "Permit"]

FIRST_TEST_SECONDS: Final = 10.0
LONGEST_TEST_SECONDS: Final = 300.0
"""From one test of an endpoint that is down to the next: the first time, and at most.

The interval doubles in between. One that is back is found within five minutes.
"""

SHORTEST_WAIT_SECONDS: Final = 1.0
RANDOM_WAIT_SECONDS: Final = 1.0
"""A job that must wait waits for one to two seconds, and longer where others wait before it."""

SLOWEST_RETURNS_PER_SECOND: Final = 20.0
FASTEST_RETURNS_PER_SECOND: Final = 200.0
"""How many waiting jobs of one endpoint come back per second, to be sent or to wait again.

Twenty cost a worker 3 % of a core (measured with 10,000 jobs of an endpoint that hangs). A healthy
endpoint's jobs come back as fast as it takes them.
"""

ALL_RETURNS_PER_SECOND: Final = 500.0
"""Of all endpoints together: the jobs of more than 25 that are down come back more slowly. A
thousand would cost 40 % of a core (measured with 30,000 jobs of a hundred endpoints).
"""

LONGEST_WAIT_SECONDS: Final = 3600.0
"""Beyond 72,000 waiting jobs of one endpoint, several share a place in the line."""

MAX_ENDPOINTS: Final = 10_000
"""Of which a process remembers that they fail: some MiB. Of more, those that were sent to longest
ago are forgotten.
"""


@dataclass(frozen=True, slots=True)
class Permit:
    """That a job may be sent now.

    Attributes:
        given_at: When it was given, in seconds.
        is_test: Whether the endpoint is down, and this job tests it.
    """

    given_at: float
    is_test: bool


@dataclass(slots=True, eq=False)
class Breaker:
    """What a process knows of one endpoint: a circuit breaker, with a bound for requests at once.

    It is closed as long as the endpoint answers. After `threshold` failures in a row it opens:
    jobs wait, and at growing intervals one of them is sent, which closes it or leaves it open.

    Attributes:
        limit: How many jobs may be sent at once.
        threshold: How many failures in a row open it.
        rand: Returns a random number from 0.0 to 1.0.
        url: Where the endpoint was last sent to; None before.
        last_failure: What went wrong last, for people; empty where nothing has.
        returns_per_second: How many waiting jobs come back at least.
    """

    limit: int
    threshold: int
    rand: Callable[[], float] = random.random
    url: str | None = field(default=None, repr=False)  # receivers put tokens of their own into it
    last_failure: str = ""
    returns_per_second: float = SLOWEST_RETURNS_PER_SECOND
    _running: int = 0
    _failures: int = 0
    _interval: float = 0.0
    _test_due: float = 0.0
    _is_tested: bool = False
    _last_place: float = 0.0
    _last_seconds: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the endpoint is down, as far as is known."""
        return self._interval > 0

    @property
    def is_running(self) -> bool:
        """Whether a job is being sent."""
        return self._running > 0

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to remember: no job is sent or waits, and none has failed."""
        return not self._running and not self._failures and self._last_place <= now

    def admit(self, now: float) -> Permit | float:
        """Let a job be sent, or not.

        Args:
            now: The time, in seconds.

        Returns:
            A permit, which `release` takes back; or for how many seconds the job has to wait.
        """
        if self.is_open and (self._is_tested or not self._is_test_due(now)):
            due = now + self._interval if self._is_tested else self._test_due
            return self._wait(now, due, self.returns_per_second)
        if self._running >= self.limit:
            return self._wait(now, now, self._speed())
        self._running += 1
        self._is_tested = self.is_open
        return Permit(now, self.is_open)

    def release(self, permit: Permit, now: float) -> None:
        """Take a permit back, after what became of the job was recorded, if anything did."""
        self._running -= 1
        self._last_seconds = now - permit.given_at
        if permit.is_test:
            self._is_tested = False

    def record_answer(self) -> bool:
        """Close it: the endpoint is up, even if it refused this job.

        Returns:
            Whether it was open.
        """
        was_open = self.is_open
        self._failures, self._interval, self.last_failure = 0, 0.0, ""
        return was_open

    def record_failure(
        self, permit: Permit, now: float, failure: str, *, at_least: float = 0.0
    ) -> bool:
        """Count a failure that concerns every job of the endpoint.

        Args:
            permit: The job's.
            now: The time, in seconds.
            failure: What went wrong, for people.
            at_least: For how many seconds the endpoint asks us to wait.

        Returns:
            Whether this opened it.
        """
        self._failures += 1
        self.last_failure = failure
        opens = not self.is_open and self._failures >= self.threshold
        if opens:
            self._interval = FIRST_TEST_SECONDS
        elif self.is_open and permit.is_test:
            self._interval = min(2 * self._interval, LONGEST_TEST_SECONDS)
        else:  # too few; or it was sent before the breaker opened, and tells nothing new
            return False
        self._test_due = now + max(self._interval, min(at_least, LONGEST_TEST_SECONDS))
        return opens

    def visit(self, url: str) -> None:
        """Remember where the endpoint is sent to; begin anew where that is another address."""
        if url != self.url:
            self.url = url
            self.record_answer()

    def _is_test_due(self, now: float) -> bool:
        # a time further away than that was computed by a clock that has been set back
        return not 0 < self._test_due - now <= LONGEST_TEST_SECONDS

    def _speed(self) -> float:
        """How many jobs the endpoint takes per second, judged by the last one, within bounds."""
        taken = self.limit / self._last_seconds if self._last_seconds > 0 else 0.0
        return min(max(taken, self.returns_per_second), FASTEST_RETURNS_PER_SECOND)

    def _wait(self, now: float, due: float, per_second: float) -> float:
        """Give a job the next place in the line of those that wait.

        However many jobs wait for an endpoint, no more than `per_second` come back.

        Args:
            now: The time, in seconds.
            due: The time of the first place.
            per_second: How many places there are.

        Returns:
            For how many seconds the job waits.
        """
        place = max(self._last_place + 1 / per_second, due)
        if place > due + LONGEST_WAIT_SECONDS:
            place = due
        self._last_place = place
        return place - now + SHORTEST_WAIT_SECONDS + self.rand() * RANDOM_WAIT_SECONDS


class Breakers:
    """The breakers of a process, by the ids of their endpoints.

    Healthy endpoints to which nothing is sent have none.

    Args:
        limit: As `Breaker`.
        threshold: As `Breaker`.
        rand: As `Breaker`.
    """

    def __init__(
        self, *, limit: int, threshold: int, rand: Callable[[], float] = random.random
    ) -> None:
        self._limit = limit
        self._threshold = threshold
        self._rand = rand
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._breakers)

    def of(self, endpoint_id: str) -> Breaker:
        """The breaker of an endpoint; a closed one where none is known."""
        found = self._breakers.get(endpoint_id)
        if found is None:
            if len(self._breakers) >= MAX_ENDPOINTS:
                self._forget_oldest()
            found = Breaker(self._limit, self._threshold, self._rand)
            self._breakers[endpoint_id] = found
        else:
            self._breakers.move_to_end(endpoint_id)
        share = ALL_RETURNS_PER_SECOND / len(self._breakers)
        found.returns_per_second = min(share, SLOWEST_RETURNS_PER_SECOND)
        return found

    def release(self, endpoint_id: str, permit: Permit, now: float) -> None:
        """Take a permit back, and forget the endpoint where there is nothing to remember of it."""
        breaker = self._breakers[endpoint_id]
        breaker.release(permit, now)
        if breaker.is_idle(now):
            del self._breakers[endpoint_id]

    def _forget_oldest(self) -> None:
        """Forget the endpoint that was asked for longest ago, of those to which nothing is sent."""
        for endpoint_id, breaker in self._breakers.items():
            if not breaker.is_running:
                del self._breakers[endpoint_id]
                return

"""Which jobs may be sent now: decided without a network, and with time that is only a number."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter

import pytest

from corral_webhooks_outgoing import breaker as breaker_module
from corral_webhooks_outgoing.breaker import Breaker, Breakers, Permit


def no_jitter() -> float:
    return 0.0


def new(limit: int = 2, threshold: int = 3) -> Breaker:
    return Breaker(limit, threshold, no_jitter)


def permitted(breaker: Breaker, now: float) -> Permit:
    permit = breaker.admit(now)
    assert isinstance(permit, Permit), f"has to wait for {permit} s"
    return permit


def refused(breaker: Breaker, now: float) -> float:
    wait = breaker.admit(now)
    assert not isinstance(wait, Permit)
    return wait


def fail(breaker: Breaker, now: float, *, at_least: float = 0.0) -> bool:
    """Send a job that fails at once; whether that opens the breaker."""
    permit = permitted(breaker, now)
    opens = breaker.record_failure(permit, now, f"failed at {now:g}", at_least=at_least)
    breaker.release(permit, now)
    return opens


def opened(now: float = 0.0) -> Breaker:
    """A breaker that three failures have opened: the first test is due 10 s later."""
    breaker = new()
    assert [fail(breaker, now) for _ in range(3)] == [False, False, True]
    return breaker


def test_no_more_than_the_limit_is_sent_at_once() -> None:
    breaker = new(limit=2)
    first, _ = permitted(breaker, 0), permitted(breaker, 0)
    assert 1 <= refused(breaker, 0) <= 2
    breaker.release(first, 5)
    permitted(breaker, 5)
    refused(breaker, 5)


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_the_first_that_waits_waits_one_to_two_seconds(random, seconds) -> None:
    breaker = Breaker(1, 3, lambda: random)
    permitted(breaker, 100)
    assert refused(breaker, 100) == pytest.approx(seconds)


def test_however_many_wait_for_one_that_hangs_twenty_come_back_per_second() -> None:
    breaker = new()
    permitted(breaker, 0), permitted(breaker, 0)
    returns = [refused(breaker, 0) for _ in range(10_000)]
    assert max(Counter(int(at) for at in returns).values()) <= 21
    assert max(returns) == pytest.approx(10_000 / 20, abs=2)


@pytest.mark.parametrize(("answered_in", "per_second"), [(0.02, 100), (0.001, 200), (15, 20)])
def test_the_jobs_of_one_that_answers_come_back_as_fast_as_it_takes_them(
    answered_in, per_second
) -> None:
    breaker = new(limit=2)
    first, _ = permitted(breaker, 0), permitted(breaker, 0)
    breaker.release(first, answered_in)
    permitted(breaker, answered_in)
    returns = [refused(breaker, answered_in) for _ in range(1000)]
    assert returns[-1] - returns[0] == pytest.approx(999 / per_second)


def test_so_many_failures_in_a_row_open_it() -> None:
    breaker = new(threshold=3)
    fail(breaker, 0)
    fail(breaker, 0)
    breaker.record_answer()
    assert not fail(breaker, 1)
    assert not fail(breaker, 2)
    assert not breaker.is_open
    assert fail(breaker, 3)
    assert breaker.is_open
    assert breaker.last_failure == "failed at 3"


def test_while_it_is_open_jobs_wait_for_the_next_test_and_one_makes_it() -> None:
    breaker = opened(now=0)
    assert [refused(breaker, 4) for _ in range(3)] == pytest.approx([7.0, 7.05, 7.1])
    test = permitted(breaker, 11)
    assert test.is_test
    assert refused(breaker, 11) >= 10, "another test is not due before this one has ended"
    assert not breaker.record_failure(test, 26, "again")
    breaker.release(test, 26)
    assert 20 <= refused(breaker, 26) <= 22
    assert not isinstance(breaker.admit(45.9), Permit)
    assert permitted(breaker, 46).is_test


def test_tests_are_twice_as_far_apart_each_time_and_five_minutes_at_most() -> None:
    breaker, now, intervals = opened(now=0), 0.0, []
    for _ in range(8):
        due = now
        while not isinstance(permit := breaker.admit(due), Permit):
            due += 1
        breaker.record_failure(permit, due, "again")
        breaker.release(permit, due)
        intervals.append(due - now)
        now = due
    assert intervals == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_test_that_is_answered_closes_it_and_the_next_outage_begins_with_short_intervals() -> (
    None
):
    breaker = opened(now=0)
    fail(breaker, 10)
    test = permitted(breaker, 30)
    assert breaker.record_answer()
    breaker.release(test, 30)
    assert not breaker.is_open
    assert not breaker.last_failure
    assert not permitted(breaker, 30).is_test
    assert not breaker.record_answer(), "it was closed already"
    assert [fail(breaker, 31) for _ in range(3)] == [False, False, True]
    assert 10 <= refused(breaker, 31) <= 12.1


def test_a_test_that_says_nothing_leaves_it_open_and_the_next_job_tests() -> None:
    """As when the database was away, or the worker stopped."""
    breaker = opened(now=0)
    breaker.release(permitted(breaker, 10), 11)
    assert breaker.is_open
    assert permitted(breaker, 11).is_test


def test_what_was_sent_before_it_opened_and_fails_afterwards_puts_no_test_off() -> None:
    breaker = new(limit=2)
    old = permitted(breaker, 0)
    for _ in range(3):
        fail(breaker, 1)
    assert not breaker.record_failure(old, 9, "late")
    breaker.release(old, 9)
    assert permitted(breaker, 11).is_test


def test_a_test_waits_for_a_place_as_well() -> None:
    breaker = new(limit=1, threshold=1)
    old = permitted(breaker, 0)
    breaker.record_failure(old, 0, "hangs, and is still under way")
    refused(breaker, 20)
    breaker.release(old, 20)
    assert permitted(breaker, 20).is_test


@pytest.mark.parametrize(("asked", "interval"), [(3, 10), (60, 60), (86_400, 300)])
def test_a_test_waits_as_long_as_the_receiver_asks_and_five_minutes_at_most(
    asked, interval
) -> None:
    breaker = new(threshold=1)
    fail(breaker, 0, at_least=asked)
    refused(breaker, interval - 0.1)
    assert permitted(breaker, interval).is_test


def test_another_address_is_another_receiver() -> None:
    breaker = new()
    breaker.visit("https://old.example.org/")
    for _ in range(3):
        fail(breaker, 0)
    breaker.visit("https://old.example.org/")
    assert breaker.is_open
    breaker.visit("https://new.example.org/")
    assert not breaker.is_open
    assert not fail(breaker, 1)
    assert "example.org" not in repr(breaker)


def test_a_clock_that_is_set_back_does_not_put_the_test_off() -> None:
    breaker = opened(now=1_000_000)
    assert permitted(breaker, 500_000).is_test


def test_a_line_without_end_begins_anew_after_an_hour() -> None:
    breaker = new(limit=1)
    permitted(breaker, 0)
    assert max(refused(breaker, 0) for _ in range(200_000)) <= 3603


def test_hours_of_ten_thousand_jobs_for_one_that_is_down() -> None:
    """Few of them come back in any second, and the next test is never far."""
    breaker, waiting, now = opened(now=0), [(0.0, n) for n in range(10_000)], 0.0
    per_second: Counter[int] = Counter()
    tests: list[float] = []
    while now < 4 * 3600:
        now, job = heapq.heappop(waiting)
        per_second[int(now)] += 1
        permit = breaker.admit(now)
        if isinstance(permit, Permit):
            tests.append(now)
            breaker.record_failure(permit, now, "again")
            breaker.release(permit, now)
            heapq.heappush(waiting, (now + 7200, job))  # its backoff
        else:
            heapq.heappush(waiting, (now + permit, job))
    del per_second[0]  # each is started once
    assert max(per_second.values()) <= 22
    assert max(after - before for before, after in itertools.pairwise(tests)) <= 302


def test_healthy_endpoints_are_forgotten_and_failing_ones_are_not() -> None:
    breakers = Breakers(limit=2, threshold=3, rand=no_jitter)
    for name in ("well", "failing"):
        permit = permitted(breakers.of(name), 0)
        if name == "failing":
            breakers.of(name).record_failure(permit, 1, "no answer")
        breakers.release(name, permit, 1)
    assert len(breakers) == 1
    assert breakers.of("failing").last_failure == "no answer"
    permit = permitted(breakers.of("failing"), 2)
    breakers.of("failing").record_answer()
    breakers.release("failing", permit, 2)
    assert len(breakers) == 0


def test_an_endpoint_for_which_jobs_wait_is_not_forgotten_before_they_have_come_back() -> None:
    breakers = Breakers(limit=1, threshold=3, rand=no_jitter)
    permit = permitted(breakers.of("one"), 0)
    for _ in range(100):
        refused(breakers.of("one"), 0)
    breakers.release("one", permit, 1)
    assert len(breakers) == 1
    permit = permitted(breakers.of("one"), 10)
    breakers.release("one", permit, 10)
    assert len(breakers) == 0


def test_of_too_many_those_that_were_sent_to_longest_ago_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(breaker_module, "MAX_ENDPOINTS", 3)
    breakers = Breakers(limit=1, threshold=3, rand=no_jitter)
    under_way = permitted(breakers.of("under way"), 0)
    for name in ("old", "new", "newest"):
        permit = permitted(breakers.of(name), 0)
        breakers.of(name).record_failure(permit, 0, "down")
        breakers.release(name, permit, 0)
    assert len(breakers) == 3
    assert [breakers.of(name).last_failure for name in ("new", "newest")] == ["down", "down"]
    assert not breakers.of("old").last_failure
    breakers.release("under way", under_way, 1)


def test_the_jobs_of_many_endpoints_that_are_down_come_back_five_hundred_per_second_together() -> (
    None
):
    breakers = Breakers(limit=1, threshold=1, rand=no_jitter)
    names = [f"ep_{n}" for n in range(200)]
    for name in names:
        permit = permitted(breakers.of(name), 0)
        breakers.of(name).record_failure(permit, 0, "down")
        breakers.release(name, permit, 0)
    returns = Counter(int(refused(breakers.of(name), 0)) for name in names for _ in range(50))
    del returns[min(returns)]  # the first of each
    assert 400 <= max(returns.values()) <= 600

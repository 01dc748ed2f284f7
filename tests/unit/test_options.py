"""Options: what a producer may override, what is refused, which ids are legal, how long to wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from corral.errors import JobRefused
from corral.options import (
    DEFAULT_COMPLETED,
    DEFAULT_FAILED,
    MAX_PRIORITY,
    Exponential,
    Fixed,
    JobOptions,
    Retention,
    backoff_delay_ms,
    check_job_id,
    check_options,
    may_be_job,
    merged,
    milliseconds,
)

SECOND = timedelta(seconds=1)


class TestMerged:
    def test_an_override_replaces_its_option_and_no_other(self) -> None:
        declared = JobOptions(attempts=7, backoff=Fixed(SECOND), keep_failed=Retention(count=5))
        options = merged(
            declared, {"attempts": 2, "keep_completed": Retention(count=0), "job_id": "a"}
        )
        assert options == JobOptions(
            attempts=2,
            backoff=Fixed(SECOND),
            keep_completed=Retention(count=0),
            keep_failed=Retention(count=5),
        )

    def test_the_default_policy_is_the_documented_one(self) -> None:
        assert merged(JobOptions(), {}) == JobOptions(
            attempts=3,
            backoff=Exponential(timedelta(seconds=5)),
            keep_completed=None,
            keep_failed=None,
        )
        assert Retention(age=timedelta(days=1), count=1000) == DEFAULT_COMPLETED
        assert Retention(age=timedelta(days=7)) == DEFAULT_FAILED

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"priority": -1}, "priority -1 is not between 0 and 2097151"),
            ({"priority": MAX_PRIORITY + 1}, "priority 2097152 is not between"),
            ({"attempts": -1}, "attempts -1 is negative"),
            ({"delay": -SECOND}, "is negative"),
            ({"backoff": Fixed(SECOND, jitter=1.5)}, "jitter 1.5 is not between 0 and 1"),
            ({"backoff": Exponential(jitter=-0.1)}, "jitter -0.1 is not between 0 and 1"),
            ({"retries": 3}, "no enqueue option is named 'retries'"),
            ({"backoff": Fixed(5)}, "the backoff's delay 5 is no timedelta"),
            ({"backoff": Exponential(-SECOND)}, "the backoff's delay -1 day, 23:59:59 is negative"),
            (
                {"backoff": Exponential(timedelta.max)},
                "the backoff's delay .* is longer than 3,000 years",
            ),
            (
                {"backoff": Exponential(SECOND, max=timedelta(milliseconds=999))},
                "the backoff's max 0:00:00.999000 is shorter than its delay 0:00:01",
            ),
            ({"backoff": Exponential(SECOND, max=60)}, "the backoff's max 60 is no timedelta"),
            (
                {"backoff": Exponential(SECOND, max=timedelta.max)},
                "the backoff's max .* is longer than 3,000 years",
            ),
            ({"backoff": Fixed(SECOND, jitter="x")}, "jitter 'x' is no int or float"),
            ({"backoff": Fixed(SECOND, jitter=True)}, "jitter True is no int or float"),
            ({"backoff": Fixed(SECOND, jitter=float("nan"))}, "jitter nan is not between 0 and 1"),
            ({"backoff": 5}, "backoff 5 is no Exponential or Fixed"),
            ({"attempts": 10**30}, "attempts 10+ is more than 9007199254740991"),
            ({"attempts": 10**5000}, "attempts of the type int is more than"),
            ({"attempts": None}, "attempts None is no int"),
            ({"attempts": True}, "attempts True is no int"),
            ({"priority": "x" * 1000}, "priority 'x{59}… is no int"),
            ({"delay": 30}, "delay 30 is no timedelta"),
            ({"delay": timedelta.max}, "delay .* is longer than 3,000 years"),
            ({"keep_failed": Retention(count=-5)}, "the count of keep_failed -5 is negative"),
            ({"keep_completed": Retention(count=1.5)}, "the count of keep_completed 1.5 is no int"),
            (
                {"keep_completed": Retention(count=True)},
                "the count of keep_completed True is no int",
            ),
            (
                {"keep_completed": Retention(count=2**53)},
                "the count of keep_completed 9007199254740992 is more than",
            ),
            (
                {"keep_completed": Retention(age=3600)},
                "the age of keep_completed 3600 is no timedelta",
            ),
            (
                {"keep_completed": Retention(age=-SECOND)},
                "the age of keep_completed .* is negative",
            ),
            (
                {"keep_completed": Retention(age=timedelta.max)},
                "the age of keep_completed .* is longer than",
            ),
            ({"keep_completed": 5}, "keep_completed 5 is no Retention"),
        ],
    )
    def test_refuses_what_the_store_cannot_hold(self, overrides: Any, message: str) -> None:
        with pytest.raises(JobRefused, match=message):
            merged(JobOptions(), overrides)

    def test_options_that_are_none_are_refused_with_a_sentence(self) -> None:
        with pytest.raises(JobRefused, match=r"options \{'attempts': 3\} are no JobOptions"):
            check_options({"attempts": 3})

    def test_takes_the_longest_and_the_most(self) -> None:
        longest = timedelta(milliseconds=10**14)
        most = Retention(age=longest, count=2**53 - 1)
        options = merged(
            JobOptions(), {"attempts": 2**53 - 1, "delay": longest, "keep_failed": most}
        )
        assert (options.attempts, options.delay, options.keep_failed) == (2**53 - 1, longest, most)

    def test_takes_the_bounds_themselves(self) -> None:
        options = merged(
            JobOptions(),
            {"priority": MAX_PRIORITY, "attempts": 0, "backoff": Fixed(SECOND, jitter=1.0)},
        )
        assert (options.priority, options.attempts) == (MAX_PRIORITY, 0)


class TestJobIds:
    @pytest.mark.parametrize(
        "job_id", ["a", "welcome-ada", "5a", "a.b_c~d-E", "0x1", "x" * 128, "waiting", "-"]
    )
    def test_a_plain_word_is_an_id(self, job_id: str) -> None:
        check_job_id(job_id)

    @pytest.mark.trap(9)
    @pytest.mark.parametrize(
        ("job_id", "message"),
        [
            ("", "1 to 128 characters"),
            ("x" * 129, "1 to 128 characters"),
            ("a:b", "1 to 128 characters"),
            ("a b", "1 to 128 characters"),
            ("a\n", "1 to 128 characters"),
            ("größe", "1 to 128 characters"),
            ("٣", "1 to 128 characters"),
            ("0", "is an integer"),
            ("42", "is an integer"),
            ("-42", "is an integer"),
            ("wait", "a key of the queue"),
            ("delayed", "a key of the queue"),
            ("meta", "a key of the queue"),
            ("waiting-children", "a key of the queue"),
        ],
    )
    def test_what_would_damage_the_queue_is_refused(self, job_id: str, message: str) -> None:
        with pytest.raises(JobRefused, match=message):
            check_job_id(job_id)

    @pytest.mark.parametrize("job_id", [uuid4(), 5, b"abc", None, ["a"]])
    def test_what_is_no_text_is_refused_with_a_sentence(self, job_id: Any) -> None:
        with pytest.raises(JobRefused, match=r"^job id .* is no str$") as refused:
            check_job_id(job_id)
        assert refused.value.hint


class TestHorizon:
    """`JobOptions.retrying_for`: so many attempts that their shortest waits last long enough."""

    @pytest.mark.parametrize(
        ("backoff", "horizon", "attempts"),
        [
            (Fixed(SECOND), timedelta(0), 1),
            (Fixed(SECOND), timedelta(seconds=10), 11),
            (Fixed(SECOND), timedelta(seconds=10.5), 12),
            (Fixed(SECOND, jitter=0.5), timedelta(seconds=10), 21),
            (Exponential(SECOND), timedelta(seconds=7), 4),
            (Exponential(SECOND), timedelta(seconds=8), 5),
            (Exponential(SECOND, max=SECOND * 2), timedelta(seconds=7), 5),
            (Exponential(SECOND, jitter=0.5, max=SECOND * 2), timedelta(seconds=7), 9),
        ],
    )
    def test_the_shortest_waits_are_counted(
        self, backoff: Exponential | Fixed, horizon: timedelta, attempts: int
    ) -> None:
        options = JobOptions(priority=5, backoff=backoff).retrying_for(horizon)
        assert options == JobOptions(priority=5, backoff=backoff, attempts=attempts)
        waits = [backoff_delay_ms(backoff, failed, lambda: 0.0) for failed in range(1, attempts)]
        assert sum(waits) >= horizon / timedelta(milliseconds=1)

    @pytest.mark.parametrize(
        "backoff",
        [Fixed(timedelta(0)), Exponential(jitter=1.0), Fixed(timedelta(milliseconds=1))],
    )
    def test_a_backoff_that_takes_too_many_attempts_is_refused(
        self, backoff: Exponential | Fixed
    ) -> None:
        with pytest.raises(ValueError, match=r"takes more than 10,000 attempts to retry for 1 day"):
            JobOptions(backoff=backoff).retrying_for(timedelta(days=1))


class TestBackoff:
    """The formulas of wire § 6.8."""

    def test_exponential_doubles(self) -> None:
        waits = [
            backoff_delay_ms(Exponential(timedelta(milliseconds=100)), failed)
            for failed in (1, 2, 3, 4)
        ]
        assert waits == [100, 200, 400, 800]

    def test_exponential_stays_at_its_longest_wait(self) -> None:
        policy = Exponential(SECOND, max=timedelta(seconds=5))
        assert [backoff_delay_ms(policy, failed) for failed in (1, 2, 3, 4, 10**12)] == [
            1000,
            2000,
            4000,
            5000,
            5000,
        ]

    def test_jitter_shortens_the_longest_wait(self) -> None:
        policy = Exponential(SECOND, jitter=0.5, max=timedelta(seconds=5))
        assert [backoff_delay_ms(policy, 9, lambda share=share: share) for share in (0, 0.5)] == [
            2500,
            3750,
        ]

    def test_fixed_stays(self) -> None:
        assert [backoff_delay_ms(Fixed(SECOND), failed) for failed in (1, 2, 9)] == [1000] * 3

    @pytest.mark.parametrize(("rand", "wait"), [(0.0, 300), (0.5, 350), (0.999999, 399)])
    def test_jitter_makes_its_share_of_the_wait_random_and_rounds_down(
        self, rand: float, wait: int
    ) -> None:
        policy = Exponential(timedelta(milliseconds=200), jitter=0.25)
        assert backoff_delay_ms(policy, 2, lambda: rand) == wait

    def test_full_jitter_reaches_from_nothing_to_the_whole_wait(self) -> None:
        waits = [
            backoff_delay_ms(Fixed(SECOND, jitter=1.0), 1, lambda share=share: share)
            for share in (0.0, 0.25)
        ]
        assert waits == [0, 250]

    def test_a_damaged_count_of_attempts_costs_no_memory(self) -> None:
        assert backoff_delay_ms(Exponential(SECOND), 10**12) == 1000 * 2**62
        assert (
            backoff_delay_ms(Exponential(SECOND, jitter=1.0), 10**12, lambda: 0.5) == 1000 * 2**61
        )


def test_durations_are_whole_milliseconds() -> None:
    assert milliseconds(timedelta(microseconds=1999)) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delay": 30}, "delay 30 is no timedelta"),
        ({"attempts": "5"}, "attempts '5' is no int"),
        ({"attempts": True}, "attempts True is no int"),
        ({"backoff": 5}, "backoff 5 is no Exponential or Fixed"),
        ({"keep_failed": 10}, "keep_failed 10 is no Retention"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(
    given: dict[str, object], message: str
) -> None:
    """A caller without a type checker learns it where the job is enqueued, and nothing is written."""
    with pytest.raises(JobRefused, match=message):
        merged(JobOptions(), given)  # type: ignore[arg-type]  # what an untyped program would pass


@pytest.mark.parametrize(
    ("job_id", "may"),
    [
        ("one", True),
        ("17", True),
        ("a:b", True),
        ("repeat:daily:1767225600000", True),
        ("repeat:a:b:1767225600000", True),
        ("logs", True),
        ("", False),
        ("meta", False),
        ("repeat", False),
        ("repeat:daily", False),
        ("repeat:daily:noon", False),
        ("de:x", False),
        ("dn:x", False),
        ("metrics:completed", False),
        ("one:lock", False),
        ("repeat:daily:1767225600000:logs", False),
        ("x\n:processed", False),
    ],
)
def test_a_key_of_the_queue_is_no_job(job_id: str, may: bool) -> None:
    assert may_be_job(job_id) is may

"""A job's id is its event's: legal whatever the provider calls it, and never that of another event."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import check_job_id
from corral_billing_webhooks_retry import job_id_for

HASHED = re.compile(r"sha256\.[0-9a-f]{64}")

ODD = st.text(st.sampled_from("aZ1-.~_: é😀\ud83d\0"), max_size=6)
"""Few characters, so that two texts are often almost the same; half a surrogate pair is one of
them.
"""


@pytest.mark.parametrize(
    ("provider", "event_id", "job_id"),
    [
        ("stripe", "evt_1Abc", "stripe-evt_1Abc"),
        ("stripe", "delayed", "stripe-delayed"),
        ("stripe", "4711", "stripe-4711"),
        ("stripe", "-1", "stripe--1"),
        ("stripe", "2f0c-11ee", "stripe-2f0c-11ee"),
        ("stripe", "x" * 121, "stripe-" + "x" * 121),
    ],
)
def test_is_provider_and_event_where_that_can_be_read(
    provider: str, event_id: str, job_id: str
) -> None:
    assert job_id_for(provider, event_id) == job_id


@pytest.mark.parametrize(
    ("provider", "event_id"),
    [
        ("stalled", "check"),  # a key of the queue itself, like the next
        ("waiting", "children"),
        ("", "4711"),  # an integer
        ("stripe", "x" * 122),
        ("stripe", "x" * 10_240),
        ("stripe", "evt_😀"),
        ("stripe", "evt 1"),
        ("stripe", "evt:1"),
        ("stripe", "evt_1\n"),
        ("stripe", "evt_\0"),
        ("stripe", "\ud83d"),
        ("google-play", "1"),  # is it google's play-1?
    ],
)
def test_is_a_hash_elsewhere(provider: str, event_id: str) -> None:
    assert HASHED.fullmatch(job_id_for(provider, event_id))


def test_a_dash_does_not_make_two_events_one() -> None:
    assert job_id_for("google-play", "1") != job_id_for("google", "play-1")


def test_is_the_same_in_every_release() -> None:
    """Else what comes again after an upgrade is another job, and another row of the ledger: an
    effect more.
    """
    assert (
        job_id_for("google-play", "1")
        == "sha256.55937e6e407547391418cd88d1a0c8a03ccc7d9fd5b3e8752e139c27781b55a6"
    )


@given(ODD, ODD)
def test_is_always_legal(provider: str, event_id: str) -> None:
    check_job_id(job_id_for(provider, event_id))


@given(st.tuples(ODD, ODD), st.tuples(ODD, ODD))
def test_two_events_never_share_one(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (job_id_for(*one) == job_id_for(*other)) == (one == other)


@given(ODD, st.text(st.sampled_from("ab-"), min_size=1, max_size=4), ODD)
def test_wherever_the_dash_is_taken_to_stand(head: str, middle: str, tail: str) -> None:
    """The pairs that look alike once a dash stands between their halves."""
    alike = f"{head}-{middle}-{tail}"
    pairs = {
        (alike[:at], alike[at + 1 :]) for at, character in enumerate(alike) if character == "-"
    }
    assert len({job_id_for(*pair) for pair in pairs}) == len(pairs)

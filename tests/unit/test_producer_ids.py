"""The ids that a producer makes for its jobs."""

from __future__ import annotations

import re
import time

import pytest

from corral.jobs import new_job_id
from corral.options import JobOptions, check_job_id
from corral.store.codec import decode_job, encode_options, is_ours


def test_an_id_has_26_characters_and_is_a_legal_one() -> None:
    job_id = new_job_id()
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", job_id)
    check_job_id(job_id)


def test_ids_sort_by_the_millisecond_they_were_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0, 1, 31, 32, 1_900_000_000_000, 1_900_000_000_001, 4_000_000_000_000]
    made = []
    for moment in moments:
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment * 1_000_000)
        made.append(new_job_id())
    assert made == sorted(made)
    assert len({job_id[:10] for job_id in made}) == len(moments), (
        "the time is in the first ten characters"
    )


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_900_000_000_000_000_000)
    assert len({new_job_id() for _ in range(10_000)}) == 10_000


class TestWhoMadeAJob:
    """Corral's default retention holds for its own jobs alone."""

    def read(self, job_id: str, opts: bytes) -> bool:
        job = decode_job(job_id.encode(), [b"opts", opts], "worker:1", 0)
        return is_ours(job.id, job.options)

    def test_what_our_producers_write_is_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for moment_ms in (0, 1_900_000_000_000, 2**48 - 1):
            monkeypatch.setattr(time, "time_ns", lambda moment_ms=moment_ms: moment_ms * 1_000_000)
            assert self.read(new_job_id(), encode_options(JobOptions()))
        assert self.read("welcome-ada", encode_options(JobOptions(), nonce="0123456789abcdef"))
        assert self.read(
            "repeat:hourly:1900000000000", encode_options(JobOptions(), scheduled=True)
        )
        assert self.read(new_job_id(), b"no JSON"), "its options were damaged later"

    @pytest.mark.parametrize(
        "job_id", ["1", "welcome-ada", "7d4a1c1e-98b5-4b1e-9f0c-0f2f1b7f6a11", "repeat:hourly:19"]
    )
    def test_what_others_write_is_not(self, job_id: str) -> None:
        assert not self.read(job_id, b"{}")
        assert not self.read(job_id, b"[]")

    def test_nor_is_a_job_of_theirs_that_its_caller_named_as_we_name_ours(self) -> None:
        job_id = new_job_id()
        assert not self.read(job_id, b'{"attempts":0,"jobId":"%s"}' % job_id.encode())
        for near in (
            job_id.upper() + "Z",
            job_id[1:],
            job_id + "0",
            "8" + job_id[1:],
            job_id[:-1] + "u",
        ):
            assert not self.read(near, b"{}")

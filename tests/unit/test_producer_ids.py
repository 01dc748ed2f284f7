"""The ids that a producer makes for its jobs."""

from __future__ import annotations

import re
import time

import pytest

from corral.options import check_job_id
from corral.producer import new_job_id


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
    assert len({job_id[:10] for job_id in made}) == len(moments), "the time is in the first ten characters"


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_900_000_000_000_000_000)
    assert len({new_job_id() for _ in range(10_000)}) == 10_000

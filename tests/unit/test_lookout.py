"""The reasons why a worker asks for jobs: each lasts until a call has answered it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from corral.store.codec import Advanced, decode_job
from corral.worker.lookout import Lookout, Reason

pytestmark = pytest.mark.asyncio


def reply(
    jobs: int = 0, *, due_ms: int | None = None, limited_ms: int = 0, **more: Any
) -> Advanced:
    fetched = [decode_job(b"%d" % n, (), "worker:1", 1) for n in range(jobs)]
    known = {"now_ms": 1, "codes": (), "jobs": fetched, "repeated": False, **more}
    return Advanced(due_ms=due_ms, limited_ms=limited_ms, **known)


@pytest.fixture
def woken() -> list[None]:
    return []


@pytest.fixture
def lookout(woken: list[None]) -> Lookout:
    return Lookout(lambda: woken.append(None))


async def test_a_signal_that_comes_while_a_call_is_on_its_way_is_a_reason_for_the_next_one(
    lookout: Lookout,
) -> None:
    lookout.add(Reason.START)
    lookout.clear(for_all_slots=True)
    assert not lookout
    lookout.look(Reason.SIGNAL)
    lookout.read_reply(reply(), 1, clock_by_hand=False)
    assert lookout


async def test_after_a_full_reply_there_may_be_more_and_after_a_smaller_one_not(
    lookout: Lookout,
) -> None:
    for jobs, more in ((2, True), (1, False), (0, False)):
        lookout.clear(for_all_slots=True)
        lookout.read_reply(reply(jobs), 2, clock_by_hand=False)
        assert bool(lookout) is more


async def test_slots_that_a_call_left_free_are_a_reason_unless_it_found_too_few_jobs(
    lookout: Lookout,
) -> None:
    lookout.clear(for_all_slots=False)
    assert lookout
    lookout.read_reply(reply(1), 2, clock_by_hand=False)
    assert not lookout
    lookout.clear(for_all_slots=False)
    lookout.read_reply(reply(), 0, clock_by_hand=False)
    assert lookout, "a call that asks for no jobs does not answer it"


@pytest.mark.parametrize(
    ("facts", "nothing"),
    [
        ({}, True),
        ({"jobs": 1}, False),
        ({"held": 1}, False),
        ({"limited_ms": 5}, False),
        ({"due_ms": 3_600_000}, True),
    ],
)
async def test_a_queue_in_which_only_delayed_jobs_wait_is_empty_to_a_burst(
    lookout: Lookout, facts: dict[str, Any], nothing: bool
) -> None:
    lookout.read_reply(reply(**facts), 2, clock_by_hand=False)
    lookout.stop()
    assert lookout.found_nothing is nothing


async def test_it_looks_by_itself_when_a_job_is_due_and_when_a_limit_ends(
    lookout: Lookout, woken: list[None], wait_until: Any
) -> None:
    for facts in ({"due_ms": 1}, {"limited_ms": 1}):
        lookout.clear(for_all_slots=True)
        before = len(woken)
        lookout.read_reply(reply(**facts), 1, clock_by_hand=False)
        await wait_until(lambda: len(woken) > before, "it has looked")
        assert lookout


async def test_a_new_time_replaces_the_previous_one(lookout: Lookout, woken: list[None]) -> None:
    lookout.read_reply(reply(due_ms=1), 1, clock_by_hand=False)
    lookout.read_reply(reply(due_ms=3_000), 1, clock_by_hand=False)
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, passed.set)
    await passed.wait()
    lookout.stop()
    assert woken == []

"""A replica is promoted behind a fixed address: what was acknowledged, and who goes on by themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.failover import fail_over
from chaos.scene import Scene

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("the store is killed for good; its replica is looked through by the run"),
]

RESUME_SECONDS = 2.0

Figure = Callable[[str], None]


async def test_a_failover_loses_only_what_no_replica_had(scene: Scene, figure: Figure) -> None:
    """That is what was acknowledged while the link was cut."""
    seen = await fail_over(scene)
    figure(f"plain: {seen}")
    assert seen.lost > 0, "nothing was in danger: nothing was shown"
    assert seen.older == 0


async def test_a_failover_loses_no_job_that_was_acknowledged_as_replicated(scene: Scene, figure: Figure) -> None:
    seen = await fail_over(scene, "replicated")
    figure(f"replicated: {seen}")
    assert seen.unknown > 0, "nothing was in danger: nothing was shown"
    assert seen.lost == 0


@pytest.mark.timing
async def test_workers_and_producers_go_on_by_themselves_after_a_failover(scene: Scene, figure: Figure) -> None:
    seen = await fail_over(scene)
    figure(f"first start after {seen.recovered_seconds:.2f} s, first ack after {seen.accepted_seconds:.2f} s")
    assert max(seen.recovered_seconds, seen.accepted_seconds) <= RESUME_SECONDS

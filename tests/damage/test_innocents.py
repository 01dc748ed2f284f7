"""Whatever is damaged beside them, twenty innocent jobs complete, and at no moment is one of them
in no place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from damage.layout import Layout
from damage.matrix import CONCURRENCIES, all_cases, chosen

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("each case damages its queue; it is judged, and cleared, by itself"),
]

SHARDS = 4
"""Tests per concurrency: they run side by side, in processes of their own."""


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("slots", CONCURRENCIES)
async def test_no_innocent_is_lost(
    slots: int, shard: int, path: str, stage: Any, figure: Callable[[str], None]
) -> None:
    """I1 and I2 at every moment; in the end what was hurt has completed, or says why not, or is in
    the quarantine.
    """
    cases = [case for case, at in chosen(all_cases()) if at == slots][shard::SHARDS]
    if not cases:
        pytest.skip("no chosen case has this concurrency")
    layouts = [Layout(stage.client, case, f"d{number}") for number, case in enumerate(cases)]
    trials = await stage.run([(layout, slots) for layout in layouts], stage.ours)
    lost, unfinished = (
        sum(trial.lost for trial in trials),
        sum(trial.unfinished for trial in trials),
    )
    figure(
        f"{len(trials)} cases at concurrency {slots}, {path}: "
        f"{lost} innocents in no place or in two, "
        f"{unfinished} not completed; {stage.watch.looks} snapshots, "
        f"{stage.watch.errors} of them after an error"
    )
    stage.judge(trials)

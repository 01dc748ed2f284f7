"""`Late`: a fetched iteration of a cron schedule whose next one could not be made in the same step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Late", "decode_late"]


@dataclass(frozen=True, slots=True)
class Late:
    """Such an iteration, and what its next one follows from.

    Attributes:
        job_id: The iteration, as the store has it.
        schedule_id: Its job scheduler.
        pattern: The cron expression.
        tz: The time zone, empty where the scheduler names none.
        at_ms: The next tick is later than this, Unix milliseconds.
    """

    job_id: bytes
    schedule_id: str
    pattern: str
    tz: str
    at_ms: int


def decode_late(reply: Sequence[Sequence[Any]]) -> list[Late]:
    """What a script has left in `late`, see `lua/iterate.lua`."""
    late: list[Late] = []
    for job_id, *texts, at_ms in reply:
        schedule_id, pattern, tz = (text.decode(errors="replace") for text in texts)
        late.append(Late(job_id, schedule_id, pattern, tz, at_ms))
    return late

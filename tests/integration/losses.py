"""The ways in which a store loses a schedule, or a part of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from integration.by_hand import NAME

__all__ = ["LOSSES", "Loss"]

Loss = Callable[[Any], Awaitable[None]]
"""Called with a plain client."""

Q = f"bull:{NAME}"


async def _coming(raw: Any) -> list[str]:
    found: list[str] = await raw.zrange(f"{Q}:delayed", 0, -1)
    return found


async def flush(raw: Any) -> None:
    """By another team; or an empty replica has taken over."""
    await raw.flushall()


async def next_run(raw: Any) -> None:
    """An operator, or another client's clean, has removed the coming run with its job."""
    for job in await _coming(raw):
        await raw.zrem(f"{Q}:delayed", job)
        await raw.delete(f"{Q}:{job}")


async def next_run_s_place(raw: Any) -> None:
    """Its job is there, and in no container."""
    await raw.delete(f"{Q}:delayed")


async def next_run_s_job(raw: Any) -> None:
    """Its id is there, and has no job."""
    for job in await _coming(raw):
        await raw.delete(f"{Q}:{job}")


async def all_of_it(raw: Any) -> None:
    """All keys of schedules and their runs, and what is delayed."""
    await raw.delete(
        f"{Q}:delayed", f"{Q}:completed", *[key async for key in raw.scan_iter(f"{Q}:repeat*")]
    )


async def record(raw: Any) -> None:
    """What it does is gone; when it runs next is not."""
    await raw.delete(f"{Q}:repeat:{NAME}")


async def place(raw: Any) -> None:
    """Which of its runs is the current one is gone."""
    await raw.delete(f"{Q}:repeat")


async def record_and_place(raw: Any) -> None:
    """All but its next run."""
    await raw.delete(f"{Q}:repeat", f"{Q}:repeat:{NAME}")


async def settings(raw: Any) -> None:
    """Of the queue; nothing of the schedule."""
    await raw.delete(f"{Q}:meta")


LOSSES: dict[str, Loss] = {
    each.__name__: each
    for each in (
        flush,
        next_run,
        next_run_s_place,
        next_run_s_job,
        all_of_it,
        record,
        place,
        record_and_place,
        settings,
    )
}
"""By name."""

"""`find_leaks`: finds keys that a store must not hold when no worker runs.

It knows BullMQ's keys (wire § 2), and no others.
"""

from __future__ import annotations

from typing import Any

import redis

from corral.store.keys import (
    CONTAINERS,
    JOB_KEYS,
    LISTS,
    LOCK,
    PAUSED,
    QUEUE_KEYS,
    is_deduplication,
    is_iteration,
    is_schedule,
    queue_base,
    queue_pattern,
)
from corral.testing.stored import open_client

__all__ = ["find_leaks"]

JOB_PARTS = frozenset(JOB_KEYS) - {"", LOCK}
"""The keys of a job that may stay beside it: all but its lock, which ends with its worker."""


def find_leaks(url: str, prefix: str = "bull") -> list[str]:
    """Check all queues of a prefix at the end of a test, when no worker runs.

    A leak is a lock, an unknown key, a job in no state or in several, or an id without a job.

    Args:
        url: The store.
        prefix: The first part of the keys.

    Returns:
        One sentence per leak, sorted; empty if the store is tidy.
    """
    keys: dict[str, dict[str, str]] = {}
    with open_client(url) as client:
        found = [_text(key) for key in client.scan_iter(match=queue_pattern(prefix), count=1000)]
        with client.pipeline() as asking:
            for key in found:
                asking.type(key)
            kinds = asking.execute()
        for key, kind in zip(found, kinds, strict=True):
            queue, _, rest = key[len(prefix) + 1 :].partition(":")
            keys.setdefault(queue, {})[rest] = _text(kind)
        return sorted(
            leak
            for queue, held in keys.items()
            for leak in _leaks(client, queue_base(prefix, queue), held)
        )


def _leaks(client: redis.Redis, base: str, keys: dict[str, str]) -> list[str]:
    queue = base.removesuffix(":")
    places: dict[str, list[str]] = {}
    for state in (*CONTAINERS, *([PAUSED] if keys.get(PAUSED) == "list" else [])):
        key = base + state
        ids = client.lrange(key, 0, -1) if state in LISTS else client.zrange(key, 0, -1)
        for job in map(_text, ids):
            places.setdefault(job, []).append(state)
    jobs = {key for key, kind in keys.items() if kind == "hash" and (key in places or _is_job(key))}
    leaks = [
        f"{queue}: job {job} is in {' and '.join(states)}"
        for job, states in places.items()
        if len(states) > 1
    ]
    leaks += [f"{queue}: job {job} is in no state" for job in jobs - places.keys()]
    leaks += [
        f"{queue}: id {job} is in {places[job][0]} and has no job" for job in places.keys() - jobs
    ]
    leaks += [f"{base}{key} is left ({keys[key]})" for key in keys if not _is_known(key, jobs)]
    return leaks


def _is_job(key: str) -> bool:
    """Whether a hash with this name is a job, not another hash of a queue or of a job."""
    if key in QUEUE_KEYS or is_deduplication(key) or _split(key)[1] in JOB_PARTS:
        return False
    return ":" not in key or is_iteration(key)


def _is_known(key: str, jobs: set[str]) -> bool:
    if key in QUEUE_KEYS or key in jobs or is_deduplication(key):
        return True
    owner, part = _split(key)
    if part in JOB_PARTS:
        return owner in jobs
    return is_schedule(key) and part != LOCK


def _split(key: str) -> tuple[str, str]:
    """A job's id, and which of its keys this is."""
    owner, colon, name = key.rpartition(":")
    return owner, colon + name


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

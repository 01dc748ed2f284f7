"""`find_leaks`: finds keys that a store must not hold when no worker runs.

It knows BullMQ's keys (wire § 2), and no others.
"""

from __future__ import annotations

import re
from typing import Any

import redis

from corral.store.queue_store import CONTAINERS
from corral.testing.stored import open_client

__all__ = ["find_leaks"]

LISTS = ("wait", "paused", "active")
QUEUE_KEYS = frozenset(
    {
        *CONTAINERS,
        "paused",
        "id",
        "pc",
        "marker",
        "events",
        "meta",
        "stalled",
        "stalled-check",
        "limiter",
        "repeat",
    }
    | {f"metrics:{ending}{data}" for ending in ("completed", "failed") for data in ("", ":data")}
)
"""The keys of a queue (wire § 2.1)."""
JOB_SUFFIXES = ("logs", "dependencies", "processed", "failed", "unsuccessful")
"""The keys of a job (wire § 2.2), without `lock`: no lock may outlive its worker."""


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
        found = [
            _text(key) for key in client.scan_iter(match=_literal(f"{prefix}:") + "*", count=1000)
        ]
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
            for leak in _leaks(client, f"{prefix}:{queue}", held)
        )


def _leaks(client: redis.Redis, queue: str, keys: dict[str, str]) -> list[str]:
    places: dict[str, list[str]] = {}
    for state in (*CONTAINERS, *(["paused"] if keys.get("paused") == "list" else [])):
        key = f"{queue}:{state}"
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
    leaks += [f"{queue}:{key} is left ({keys[key]})" for key in keys if not _is_known(key, jobs)]
    return leaks


def _is_job(key: str) -> bool:
    """Whether a hash with this name is a job, not another hash of a queue or of a job."""
    if key in QUEUE_KEYS or key.startswith("dn:") or key.rpartition(":")[2] in JOB_SUFFIXES:
        return False
    return ":" not in key or re.fullmatch(r"repeat:.+:\d+", key) is not None


def _is_known(key: str, jobs: set[str]) -> bool:
    if key in QUEUE_KEYS or key in jobs or key.startswith(("de:", "dn:")):
        return True
    owner, _, suffix = key.rpartition(":")
    if suffix in JOB_SUFFIXES:
        return owner in jobs
    return key.startswith("repeat:") and suffix != "lock"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _literal(text: str) -> str:
    """The text as a `SCAN` pattern that matches only itself."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)

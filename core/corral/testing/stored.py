"""Reads a test's store directly: its jobs, its time, and what is due next.

It changes rate limits only. It uses a blocking client, so it serves tests with and without an event
loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from corral.errors import PayloadRefused
from corral.inspector.stored_job import CONTAINER
from corral.job_state import JobState
from corral.payload import Payload
from corral.queue import Queue
from corral.store.codec import decode_job
from corral.store.keys import (
    CONTAINERS,
    DELAYED,
    LIMITER,
    LISTS,
    META,
    PAUSED,
    PRIORITIZED,
    WAIT,
    due_ms,
    queue_base,
    queue_key,
    queue_of,
    queue_pattern,
)

__all__ = ["FoundJob", "StoredQueues", "open_client"]

READ_SECONDS = 5.0
"""How long a reply may take. A test's store is on this machine."""
_STATE: dict[str, JobState] = {container: state for state, container in CONTAINER.items()} | {
    PAUSED: JobState.WAITING
}
PLACES = (*CONTAINERS, PAUSED)
"""`paused` holds waiting jobs of a paused queue that BullMQ 5 may use (wire § 6.14)."""


@dataclass(frozen=True, slots=True)
class FoundJob:
    """A job in a test's store.

    Attributes:
        id: The job's id.
        queue: The queue's name.
        state: The state of the job.
        payload: The payload; None if it does not fit the queue's model.
        raw: The payload as the JSON text that the store holds.
        attempts_made: How many attempts have ended.
    """

    id: str
    queue: str
    state: JobState
    payload: Payload | None
    raw: bytes
    attempts_made: int


def open_client(url: str) -> redis.Redis:
    """A blocking client of the store, of one connection and without retries; close it."""
    return redis.Redis.from_url(
        url, single_connection_client=True, retry=None, protocol=2, socket_timeout=READ_SECONDS
    )


class StoredQueues:
    """The queues of one prefix, read through one connection.

    Args:
        client: The connection.
        prefix: The first part of the keys.
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    @classmethod
    @contextmanager
    def at(cls, url: str, prefix: str) -> Iterator[StoredQueues]:
        """Open the connection, and close it."""
        with open_client(url) as client:
            yield cls(client, prefix)

    def now_ms(self) -> int:
        """The store's own time, which a kit does not move."""
        return _time_ms(self._client.time())

    def jobs(self, queue: Queue[Any]) -> list[FoundJob]:
        """All jobs of a queue, in whatever state, in the order they were enqueued."""
        base = queue_base(self._prefix, queue.name)
        with self._client.pipeline() as asking:
            for container in PLACES:
                (asking.lrange if container in LISTS else asking.zrange)(base + container, 0, -1)
            held = zip(PLACES, asking.execute(), strict=True)
            places = [(_STATE[container], job_id) for container, ids in held for job_id in ids]
            for _, job_id in places:
                asking.hgetall(base.encode() + job_id)
            hashes = asking.execute()
        found: list[tuple[int, FoundJob]] = []
        for (state, job_id), fields in zip(places, hashes, strict=True):
            job = decode_job(job_id, [part for field in fields.items() for part in field], "", 0)
            try:
                payload, _ = queue.parsed(job.data)
            except PayloadRefused:
                payload = None
            stored = FoundJob(job.id, queue.name, state, payload, job.data, job.attempts_made)
            found.append((job.timestamp_ms, stored))
        return [job for _, job in sorted(found, key=lambda each: (each[0], each[1].id))]

    def due_in_ms(self, queues: Iterable[str], offset_ms: int) -> int | None:
        """How long until one of these queues has something to do.

        Args:
            queues: Their names.
            offset_ms: How far time was moved.

        Returns:
            Milliseconds: 0 if a job can be fetched now; else until a delayed job is due, or until
            the rate limit of waiting jobs ends. None if there is neither.
        """
        with self._client.pipeline() as asking:
            asking.time()
            for queue in queues:
                base = queue_base(self._prefix, queue)
                asking.hexists(base + META, "paused")
                asking.zrange(base + DELAYED, 0, 0, withscores=True)
                asking.exists(base + WAIT, base + PRIORITIZED)
                asking.pttl(base + LIMITER)
            clock, *replies = asking.execute()
        now_ms = _time_ms(clock) + offset_ms
        waits: list[int] = []
        for paused, delayed, waiting, limited_ms in zip(*[iter(replies)] * 4, strict=True):
            if paused:
                continue
            if delayed:
                waits.append(max(int(due_ms(delayed[0][1])) - now_ms, 0))
            if waiting:
                waits.append(max(limited_ms, 0))
        return min(waits, default=None)

    def find_limited(self) -> list[str]:
        """Find the names of all queues that have a rate limit running."""
        pattern = queue_pattern(self._prefix, LIMITER)
        keys = self._client.scan_iter(match=pattern, count=1000)
        return [queue_of(key.decode(), self._prefix, LIMITER) for key in keys]

    def shorten_limits(self, queues: Iterable[str], by_ms: int) -> None:
        """Shorten rate limits: they expire by the server's clock, which a kit does not move."""
        keys = [queue_key(self._prefix, queue, LIMITER) for queue in queues]
        with self._client.pipeline() as asking:
            for key in keys:
                asking.pttl(key)
            for key, left_ms in zip(keys, asking.execute(), strict=True):
                if left_ms > by_ms:
                    self._client.pexpire(key, left_ms - by_ms)
                elif left_ms >= 0:
                    self._client.delete(key)


def _time_ms(clock: tuple[int, int]) -> int:
    seconds, micros = clock
    return seconds * 1000 + micros // 1000

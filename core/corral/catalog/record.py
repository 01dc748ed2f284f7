"""Compares the catalogs of all processes that use one prefix.

Each process writes the records of its queues at its start, into the field of its own name in the
hash `corral:<prefix>:catalog`. The functions here are pure: the caller reads and writes the hash,
and knows which processes have ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from corral.catalog import Catalog

__all__ = ["Record", "differences", "dumped", "parsed", "recorded"]


@dataclass(frozen=True, slots=True)
class Record:
    """One queue in the catalog of one process.

    Attributes:
        distribution: The distribution that provides the queue.
        version: That distribution's version.
        fingerprint: The digest of its payload's JSON schema.
        role: `worker` if the process serves the queue, else `producer`.
        time: When the process started: Unix milliseconds, by the store's clock.
    """

    distribution: str
    version: str
    fingerprint: str
    role: Literal["producer", "worker"]
    time: int


def recorded(catalog: Catalog, now_ms: int) -> dict[str, Record]:
    """The records of this process, by queue.

    Args:
        catalog: The process's catalog.
        now_ms: Unix milliseconds, by the store's clock.
    """
    return {
        name: Record(
            entry.provider.distribution,
            entry.provider.version,
            entry.fingerprint,
            "worker" if name in catalog.served else "producer",
            now_ms,
        )
        for name, entry in catalog.entries.items()
    }


def dumped(records: Mapping[str, Record]) -> bytes:
    """A process's records as JSON: `{queue: {distribution, version, fingerprint, role, time}}`."""
    return TypeAdapter(dict[str, Record]).dump_json(dict(records))


def parsed(raw: bytes) -> dict[str, Record]:
    """A process's records from JSON.

    Empty if another release of Corral wrote them in a form that this one cannot read.
    """
    try:
        return TypeAdapter(dict[str, Record]).validate_json(raw)
    except ValidationError:
        return {}


def differences(
    own: Mapping[str, Record], others: Mapping[str, Mapping[str, Record]]
) -> tuple[str, ...]:
    """Warnings about processes that have another declaration under the same queue name.

    Jobs can be lost between such processes. Another version of the same distribution with the same
    payload is not reported: that is what a rolling deployment looks like.

    Args:
        own: This process's records.
        others: The records of the other processes under its prefix, by the process's name.

    Returns:
        Sentences, one per queue and difference.
    """
    return tuple(
        warning
        for queue in sorted(own)
        for warning in _queue_differences(queue, own[queue], others)
    )


def _queue_differences(
    queue: str, mine: Record, others: Mapping[str, Mapping[str, Record]]
) -> Iterator[str]:
    """A warning for each other declaration of one queue."""
    theirs: dict[str, list[str]] = {}
    for process, records in sorted(others.items()):
        record = records.get(queue)
        if record and (record.distribution, record.fingerprint) != (
            mine.distribution,
            mine.fingerprint,
        ):
            theirs.setdefault(_description(record), []).append(f"{record.role} {process}")
    for other, processes in theirs.items():
        more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
        yield f"queue {queue!r} is {_description(mine)} here, and {other} in {processes[0]}{more}"


def _description(record: Record) -> str:
    return f"{record.distribution} {record.version} with payload {record.fingerprint}"

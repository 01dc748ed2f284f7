"""What a process tells the others about its catalog, and what it learns from theirs.

A record is one field of the hash `corral:<prefix>:catalog`, named after the process that writes it
at its start. Pure functions: who reads and writes the hash, and which processes are gone, is known
elsewhere.
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
    """What one process runs one queue with.

    Attributes:
        distribution: Who provides it.
        version: In which version.
        fingerprint: The digest of its payload's JSON schema.
        role: `worker` where the process works the queue off, else `producer`.
        time: When the process started: Unix milliseconds, by the store's clock.
    """

    distribution: str
    version: str
    fingerprint: str
    role: Literal["producer", "worker"]
    time: int


def recorded(catalog: Catalog, now_ms: int) -> dict[str, Record]:
    """What this process runs, by queue.

    Args:
        catalog: Its catalog.
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
    """A process's records from JSON; none where another release of Corral wrote something that this
    one cannot read.
    """
    try:
        return TypeAdapter(dict[str, Record]).validate_json(raw)
    except ValidationError:
        return {}


def differences(
    own: Mapping[str, Record], others: Mapping[str, Mapping[str, Record]]
) -> tuple[str, ...]:
    """What an operator should know before jobs are lost between processes that mean different
    things by one name.

    Another version of the same distribution is none: that is what a rolling deployment looks like.

    Args:
        own: What this process runs.
        others: What the others under its prefix run, by the name of the process.

    Returns:
        Sentences, one per queue and difference.
    """
    return tuple(
        warning for queue in sorted(own) for warning in _differing(queue, own[queue], others)
    )


def _differing(
    queue: str, mine: Record, others: Mapping[str, Mapping[str, Record]]
) -> Iterator[str]:
    theirs: dict[str, list[str]] = {}
    for process, records in sorted(others.items()):
        record = records.get(queue)
        if record and (record.distribution, record.fingerprint) != (
            mine.distribution,
            mine.fingerprint,
        ):
            theirs.setdefault(_told(record), []).append(f"{record.role} {process}")
    for told, processes in theirs.items():
        more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
        yield f"queue {queue!r} is {_told(mine)} here, and {told} in {processes[0]}{more}"


def _told(record: Record) -> str:
    return f"{record.distribution} {record.version} with payload {record.fingerprint}"

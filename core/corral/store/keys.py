"""Every key in the store, every score and every suffix: spelt here and nowhere else in Python.

BullMQ's keys are `<prefix>:<queue>:<name>` (wire § 2). Corral's own begin with `corral:` and are
outside of a queue's keys, where BullMQ's `removeOrphanedJobs` would delete them (trap T11). The Lua
scripts get a queue's base, `<prefix>:<queue>:`, and append the names themselves.

Pure functions on texts: nothing here talks to the store.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final

__all__ = [
    "ACTIVE",
    "COMPLETED",
    "CONTAINERS",
    "DELAYED",
    "EVENTS",
    "FAILED",
    "FORMER_AUDIT",
    "JOB_KEYS",
    "LIMITER",
    "LISTS",
    "LOCK",
    "LOGS",
    "MARKER",
    "META",
    "OWN_QUEUE_KEYS",
    "PAUSED",
    "PRIORITIZED",
    "PROCESS_KEYS",
    "QUEUE_KEYS",
    "READY",
    "REPEAT",
    "STALLED_CHECK",
    "WAIT",
    "WAITING_CHILDREN",
    "audit_key",
    "call_key",
    "due_ms",
    "former_process_key",
    "is_deduplication",
    "is_iteration",
    "is_schedule",
    "job_key",
    "literal",
    "minutes_key",
    "notes_key",
    "parse_connection_name",
    "probe_key",
    "process_key",
    "quarantine_key",
    "queue_base",
    "queue_key",
    "queue_of",
    "queue_of_found_key",
    "queue_pattern",
    "queues_pattern",
    "removed_schedules_key",
    "schedule_key",
    "worker_connection_name",
]

WAIT: Final = "wait"
ACTIVE: Final = "active"
PAUSED: Final = "paused"
PRIORITIZED: Final = "prioritized"
DELAYED: Final = "delayed"
WAITING_CHILDREN: Final = "waiting-children"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CONTAINERS: Final = (WAIT, ACTIVE, PRIORITIZED, DELAYED, WAITING_CHILDREN, COMPLETED, FAILED)
"""A job is in exactly one of these (wire § 1). BullMQ 5 uses `PAUSED` while a queue is paused."""
LISTS: Final = frozenset({WAIT, PAUSED, ACTIVE})
"""The containers that are lists; the others are sorted sets."""

META: Final = "meta"
EVENTS: Final = "events"
MARKER: Final = "marker"
LIMITER: Final = "limiter"
REPEAT: Final = "repeat"
STALLED_CHECK: Final = "stalled-check"
READY: Final = "0"
"""The member of `MARKER` that means "jobs wait now", with score 0 (wire § 5.4).

Member `1` has the due time of the next delayed job as its score.
"""

QUEUE_KEYS: Final[Mapping[str, str]] = {
    WAIT: "list",
    ACTIVE: "list",
    PAUSED: "list",
    PRIORITIZED: "zset",
    DELAYED: "zset",
    WAITING_CHILDREN: "zset",
    COMPLETED: "zset",
    FAILED: "zset",
    REPEAT: "zset",
    MARKER: "zset",
    META: "hash",
    EVENTS: "stream",
    "stalled": "set",
    STALLED_CHECK: "string",
    LIMITER: "string",
    "id": "number",
    "pc": "number",
    "metrics:completed": "hash",
    "metrics:failed": "hash",
    "metrics:completed:data": "list",
    "metrics:failed:data": "list",
}
"""The keys of a queue, by what follows its base, each with its type (wire § 2.1).

`number` is a string that holds an integer.
"""

LOGS: Final = ":logs"
LOCK: Final = ":lock"
JOB_KEYS: Final[Mapping[str, str]] = {
    "": "hash",
    LOGS: "list",
    LOCK: "string",
    ":dependencies": "set",
    ":processed": "hash",
    ":failed": "hash",
    ":unsuccessful": "zset",
}
"""The keys of a job, by what follows its id, each with its type (wire § 2.2)."""

OWN_QUEUE_KEYS: Final[Mapping[str, str]] = {
    "quarantine": "hash",
    "minutes": "hash",
    "attempts": "hash",
    "attempts:data": "list",
}
"""The keys of Corral's own that a page or a command reads of a queue, each with its type."""
PROCESS_KEYS: Final[Mapping[str, str]] = {"alive": "hash", "catalog": "hash"}
"""The keys in which processes write about themselves; `catalog` only by former releases."""
FORMER_AUDIT: Final = "corral:audit"
"""Where former releases wrote the audit, for all prefixes of a store. It is only read."""

_OWN: Final = "corral:"
_SCORES_PER_MS: Final = 4096
"""A delayed job's score is its due time in ms times this, plus a sequence number (wire § 5.2)."""
_WORKER: Final = ":w:"
_ITERATION: Final = re.compile(r"repeat:.+:\d+", re.DOTALL)


def queue_base(prefix: str, queue: str) -> str:
    """`<prefix>:<queue>:`, what all keys of a queue begin with."""
    return f"{prefix}:{queue}:"


def queue_key(prefix: str, queue: str, name: str) -> str:
    """A key of a queue; `name` is one of `QUEUE_KEYS`."""
    return f"{prefix}:{queue}:{name}"


def queue_pattern(prefix: str, name: str = "") -> str:
    """A `SCAN` pattern for one key of every queue below a prefix, or for all keys of all queues.

    Args:
        prefix: The first part of the keys; characters that mean something in a pattern are escaped.
        name: One of `QUEUE_KEYS`; empty for all keys.
    """
    return f"{literal(prefix)}:" + (f"*:{name}" if name else "*")


def queue_of(key: str, prefix: str, name: str) -> str:
    """The queue's name in a key that `queue_pattern` has found."""
    return key[len(prefix) + 1 : -len(name) - 1]


def queues_pattern(prefix: str) -> str:
    """A `SCAN` pattern that finds every queue below a prefix: by its key `meta`, or by `wait`.

    BullMQ and Corral write `meta` for each queue; a queue that has lost it may still have jobs that
    wait. One pattern finds both, and so the store walks through its keys only once; it also finds a
    few other words (`weta`), which `queue_of_found_key` tells apart.
    """
    return f"{literal(prefix)}:*:[mw][ea][ti][at]"


def queue_of_found_key(key: str, prefix: str) -> str | None:
    """The queue's name in a key that `queues_pattern` has found; None if it is another key."""
    name, _, last = key[len(prefix) + 1 :].rpartition(":")
    return name if last in {META, WAIT} else None


def literal(text: str) -> str:
    """The text as a `SCAN` pattern that matches only itself."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def job_key(base: str, job_id: str, part: str = "") -> str:
    """A key of a job: its hash, or another of `JOB_KEYS`.

    Args:
        base: `queue_base`.
        job_id: The job's id.
        part: The suffix, as `LOGS`.
    """
    return f"{base}{job_id}{part}"


def schedule_key(base: str, schedule_id: str) -> str:
    """The hash of a job scheduler (wire § 2.4)."""
    return f"{base}{REPEAT}:{schedule_id}"


def is_schedule(name: str) -> bool:
    """Whether a key, without its queue's base, belongs to a job scheduler or to its jobs."""
    return name.startswith(f"{REPEAT}:")


def is_iteration(name: str) -> bool:
    """Whether a key, without its queue's base, is the job of a tick: `repeat:<id>:<ms>`."""
    return _ITERATION.fullmatch(name) is not None


def is_deduplication(name: str) -> bool:
    """Whether a key, without its queue's base, belongs to a deduplication id (wire § 6.20)."""
    return name.startswith(("de:", "dn:"))


def due_ms(score: float) -> float:
    """When a delayed job is due, Unix milliseconds, by its score."""
    return score // _SCORES_PER_MS


def worker_connection_name(prefix: str, queue: str, worker: str) -> str:
    """What `CLIENT LIST` shows of a worker: `<prefix>:<base64(queue)>:w:<worker>` (wire § 7.3).

    Bull Board and Node's `getWorkers` recognise a worker by it.
    """
    return f"{prefix}:{b64encode(queue.encode()).decode()}{_WORKER}{worker}"


def parse_connection_name(name: str, prefix: str) -> tuple[str, str, str] | None:
    """Read the name of a worker's connection.

    Returns:
        The queue as it is written, the queue decoded from base64 (empty where it is no base64), and
        the worker's name, which may be empty. None where the connection is no worker's.
    """
    start = f"{prefix}:"
    if not name.startswith(start):
        return None
    written, _, worker = name.removeprefix(start).partition(_WORKER)
    if ":" in written:
        return None  # a listener's, which ends with `:qe`
    try:
        decoded = b64decode(written, validate=True).decode()
    except ValueError:
        decoded = ""
    return written, decoded, worker


def call_key(base: str, worker: str, lane: int = 0) -> str:
    """The record of what a worker's last call did, see `lua/advance.lua`."""
    return f"{_OWN}{base}call:{worker}" + (f":{lane}" if lane else "")


def notes_key(base: str, worker: str) -> str:
    """The number of a worker's last call that wrote progress and log lines, see `lua/note.lua`."""
    return f"{_OWN}{base}call:{worker}:notes"


def removed_schedules_key(base: str) -> str:
    """The hash that has a field for each declared schedule that an operator has removed."""
    return f"{_OWN}{base}removed-schedules"


def quarantine_key(base: str) -> str:
    """The hash that has a field for each id that a worker has put aside."""
    return f"{_OWN}{base}quarantine"


def minutes_key(base: str) -> str:
    """The hash of a queue's wait and run times, by minutes."""
    return f"{_OWN}{base}minutes"


def probe_key(base: str) -> str:
    """The key on which a worker and an operator try their rights; it lives for seconds."""
    return f"{_OWN}{base}probe"


def process_key(prefix: str) -> str:
    """The hash that has a field for each running process of ours."""
    return f"{_OWN}{prefix}:alive"


def former_process_key(prefix: str) -> str:
    """The hash in which former releases wrote which queues a process has."""
    return f"{_OWN}{prefix}:catalog"


def audit_key(prefix: str) -> str:
    """The stream in which the changes of operators are written down."""
    return f"{_OWN}{prefix}:audit"

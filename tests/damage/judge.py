"""Where the jobs of a queue are, and what is wrong with that: I1 (no loss) and I2 (one place).

A snapshot is one script, hence one moment: at every moment each job is in exactly one container.
What is left at the end is read at leisure, when no worker runs. The judge knows BullMQ's keys and
the quarantine, and no worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CONTAINERS",
    "KEY_WORDS",
    "QUARANTINE",
    "Fault",
    "Left",
    "Snapshot",
    "final_faults",
    "misplaced",
    "read_left",
    "take_snapshots",
]

LISTS = ("wait", "paused", "active")
SORTED_SETS = ("prioritized", "delayed", "waiting-children", "completed", "failed")
CONTAINERS = (*LISTS, *SORTED_SETS)
"""A job is in exactly one of these (wire § 1), or in the quarantine."""
QUARANTINE = "quarantine"
KEY_WORDS = frozenset(
    {
        *CONTAINERS,
        "id",
        "pc",
        "marker",
        "events",
        "meta",
        "stalled",
        "stalled-check",
        "limiter",
        "repeat",
        "priority",
    }
    | {f"metrics:{ending}{data}" for ending in ("completed", "failed") for data in ("", ":data")}
)
"""The queue's own keys (wire § 2.1): as job ids they are trap T9."""
SUFFIXES = ("lock", "logs", "dependencies", "processed", "failed", "unsuccessful")
"""The keys beside a job (wire § 2.2)."""

# KEYS: per queue `<prefix>:<queue>:`. ARGV: per queue the name of a container whose former content
# was put aside by the test, under `aside:<key>`, or ''. A container of a wrong type holds nothing.
SNAPSHOT = """
local lists, zsets = {'wait', 'paused', 'active'},
  {'prioritized', 'delayed', 'waiting-children', 'completed', 'failed'}
local function append(ids, reply)
  if not reply.err then for _, id in ipairs(reply) do ids[#ids + 1] = id end end
end
local found = {}
for i, base in ipairs(KEYS) do
  local places = {}
  local function read(command, name)
    local ids = {}
    append(ids, redis.pcall(command, base .. name, 0, -1))
    if name == ARGV[i] then append(ids, redis.pcall(command, 'aside:' .. base .. name, 0, -1)) end
    places[#places + 1] = ids
  end
  for _, name in ipairs(lists) do read('LRANGE', name) end
  for _, name in ipairs(zsets) do read('ZRANGE', name) end
  local quarantined = {}
  append(quarantined, redis.pcall('HKEYS', 'corral:' .. base .. 'quarantine'))
  places[#places + 1] = quarantined
  found[i] = places
end
return found
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One queue at one moment.

    Attributes:
        places: The containers of each id that is in any; twice the same one where it is in there
        twice.
    """

    places: Mapping[bytes, tuple[str, ...]]

    def holds(self, container: str) -> bool:
        """Whether a container has any id."""
        return any(container in where for where in self.places.values())


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be.

    Attributes:
        kind: `lost`: in no place. `doubled`: in two. `stuck`: in a place where it must not stay.
            `reason`: failed, and the reason does not name the damaged key. `locked`: the lock was
            left. `orphan`: a job's hash without a place, or with one and an id of nothing.
        job: The job's id.
        text: What it is, in a sentence.
    """

    kind: str
    job: bytes
    text: str


async def take_snapshots(client: Any, queues: Sequence[tuple[str, str]]) -> list[Snapshot]:
    """Read queues at one moment.

    Args:
        client: An asyncio client that does not decode replies.
        queues: Per queue `<prefix>:<queue>:`, and the container whose content was put aside, or an
        empty text.
    """
    bases, aside = [base for base, _ in queues], [name for _, name in queues]
    reply = await client.eval(SNAPSHOT, len(bases), *bases, *aside)
    return [_snapshot(places) for places in reply]


def _snapshot(places: Sequence[Sequence[bytes]]) -> Snapshot:
    found: dict[bytes, tuple[str, ...]] = {}
    for name, ids in zip((*CONTAINERS, QUARANTINE), places, strict=True):
        for job in ids:
            found[job] = (*found.get(job, ()), name)
    return Snapshot(found)


def misplaced(snapshot: Snapshot, jobs: Collection[bytes]) -> list[Fault]:
    """Those jobs that are not in exactly one place at this moment."""
    found = []
    for job in jobs:
        where = snapshot.places.get(job, ())
        if len(where) == 1:
            continue
        kind, text = ("doubled", f"in {' and '.join(where)}") if where else ("lost", "in no place")
        found.append(Fault(kind, job, f"{_text(job)} is {text}"))
    return found


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one queue when nobody works on it any more.

    Attributes:
        places: As in `Snapshot`.
        kinds: The type of each key of the queue, by what follows `<prefix>:<queue>:`.
        reasons: Why each failed job failed.
        quarantine: The values of the quarantine, by id.
    """

    places: Mapping[bytes, tuple[str, ...]]
    kinds: Mapping[bytes, str]
    reasons: Mapping[bytes, str]
    quarantine: Mapping[bytes, bytes]


async def read_left(client: Any, base: str, aside: str = "") -> Left:
    """Read a queue that nobody works on.

    Args:
        client: An asyncio client that does not decode replies.
        base: `<prefix>:<queue>:`.
        aside: The container whose content was put aside, or an empty text.
    """
    (snapshot,) = await take_snapshots(client, [(base, aside)])
    start = base.encode()
    keys = await client.keys(re.sub(r"([*?\[\]\\])", r"\\\1", base) + "*")
    failed = [job for job, where in snapshot.places.items() if "failed" in where]
    async with client.pipeline() as asking:
        for key in keys:
            asking.type(key)
        for job in failed:
            asking.hget(start + job, "failedReason")
        asking.hgetall(f"corral:{base}quarantine")
        *replies, quarantine = await asking.execute(raise_on_error=False)
    kinds, reasons = replies[: len(keys)], replies[len(keys) :]
    return Left(
        places=snapshot.places,
        kinds={key[len(start) :]: kind.decode() for key, kind in zip(keys, kinds, strict=True)},
        reasons={
            job: _text(reason)
            for job, reason in zip(failed, reasons, strict=True)
            if isinstance(reason, bytes)
        },
        quarantine=quarantine if isinstance(quarantine, dict) else {},
    )


def final_faults(
    left: Left,
    *,
    innocents: Collection[bytes] = (),
    hurt: Mapping[bytes, Collection[str]] | None = None,
    key_words: Collection[bytes] = (),
    ghosts: Collection[bytes] = (),
    waiting: Collection[bytes] = (),
    ignored: Collection[bytes] = (),
) -> list[Fault]:
    """What is wrong in the end.

    Args:
        left: What is left of the queue.
        innocents: Must be completed.
        hurt: Must have ended: completed, failed, or in the quarantine. Where any text is given for
            one, a reason must contain one of them.
        key_words: Jobs whose id is a key word: must be in the quarantine and nowhere else.
        ghosts: Ids without a job: must be nowhere, at most in the quarantine, and have got no job.
        waiting: Jobs that nobody works on: must be in one place, wherever.
        ignored: Ids of which nothing is asked.
    """
    hurt = hurt or {}
    found = misplaced(Snapshot(left.places), [*innocents, *hurt, *waiting])
    lost = {fault.job for fault in found}
    found += _unfinished(left, [job for job in innocents if job not in lost])
    for job, names in hurt.items():
        if job not in lost:
            found += _badly_ended(left, job, names)
    for job in key_words:
        where = left.places.get(job, ())
        if where != (QUARANTINE,):
            found.append(
                Fault(
                    "stuck" if where else "lost",
                    job,
                    f"{_text(job)} is not in the quarantine: {where}",
                )
            )
    for ghost in ghosts:
        if set(left.places.get(ghost, ())) - {QUARANTINE}:
            found.append(
                Fault(
                    "stuck",
                    ghost,
                    f"nothing is called {_text(ghost)} and it is in {left.places[ghost]}",
                )
            )
        if ghost in left.kinds and ghost.decode(errors="replace") not in KEY_WORDS:
            found.append(Fault("orphan", ghost, f"{_text(ghost)} became a {left.kinds[ghost]}"))
    known = {*innocents, *hurt, *waiting, *key_words, *ghosts, *ignored}
    found += _orphans(left, known)
    found += [
        Fault("locked", job, f"{_text(job)} is still locked")
        for job in innocents
        if job + b":lock" in left.kinds
    ]
    return found


def _unfinished(left: Left, innocents: Collection[bytes]) -> Iterator[Fault]:
    for job in innocents:
        (where,) = left.places[job]
        if where != "completed":
            yield Fault("stuck", job, f"{_text(job)} is in {where}: {left.reasons.get(job, '')}")
        elif left.kinds.get(job) != "hash":
            yield Fault(
                "lost",
                job,
                f"{_text(job)} is completed and its key is {left.kinds.get(job, 'gone')}",
            )


def _badly_ended(left: Left, job: bytes, names: Collection[str]) -> Iterator[Fault]:
    (where,) = left.places[job]
    if where not in {"completed", "failed", QUARANTINE}:
        yield Fault("stuck", job, f"{_text(job)} never ended: it is in {where}")
        return
    if where == "completed" or not names:
        return
    reason = (
        left.reasons.get(job, "")
        if where == "failed"
        else _stored_reason(left.quarantine.get(job, b""))
    )
    if not any(name in reason for name in names):
        yield Fault(
            "reason",
            job,
            f"{_text(job)} is in {where}, and {reason!r} names none of {sorted(names)}",
        )


def _stored_reason(value: bytes) -> str:
    """The reason in a value of the quarantine, or the whole value if it has none."""
    text = _text(value)
    try:
        return str(json.loads(text)["reason"])
    except (ValueError, TypeError, LookupError):
        return text


def _orphans(left: Left, known: Collection[bytes]) -> Iterator[Fault]:
    """Jobs that were made meanwhile, as the next one of a schedule, are also in one place."""
    for key, kind in left.kinds.items():
        if kind == "hash" and key not in known and _must_be_job(key):
            where = left.places.get(key, ())
            if len(where) != 1:
                yield Fault(
                    "orphan", key, f"the job {_text(key)} is in {' and '.join(where) or 'no place'}"
                )
    for job in left.places.keys() - set(known):
        if job not in left.kinds and left.places[job] != (QUARANTINE,):
            yield Fault("orphan", job, f"{_text(job)} is in {left.places[job]} and has no job")


def _must_be_job(key: bytes) -> bool:
    """Whether a hash of this name is a job: not a queue's own hash, and not a hash beside a job."""
    name = _text(key)
    own = {*KEY_WORDS, "delay"}
    if (
        name in own
        or name.startswith(("dn:", "de:", "metrics:"))
        or name.rpartition(":")[2] in SUFFIXES
    ):
        return False
    return (
        not name.startswith("repeat:")
        or re.fullmatch(r"repeat:.+:\d+", name, re.DOTALL) is not None
    )


def _text(value: bytes) -> str:
    return value.decode(errors="replace")

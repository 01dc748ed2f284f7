"""Lays out a case in the store, as other clients would have left it: twenty innocent jobs, and
others among them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from damage.matrix import ITERATION, ROLES, Case, Damage, Intruder

__all__ = ["GOOD", "INNOCENTS", "Layout"]

INNOCENTS = tuple(f"i{number:02}" for number in range(20))
GOOD = ("g0", "g1", "g2")
"""Jobs that are added when all others have ended: the worker must still be at work."""
HOUR_MS = 3_600_000
DEAD = "dead"
"""The worker that left everything in `active`."""
LATER = {"attempts": 2, "backoff": {"type": "fixed", "delay": 5}}
BEHAVIOUR = {
    3: "retry",
    6: "later",
    9: "snooze",
    11: "talk",
    13: "retry",
    14: "later",
    17: "snooze",
    19: "retry",
}
"""What some innocents do on their first attempt: so a batch has endings of all kinds."""
OPTIONS: Mapping[str, Any] = {"retry": {"attempts": 2}, "later": LATER}

# KEYS: the key, where its content is put aside. ARGV: kind, value, name, then a job's fields.
DAMAGE = """
local key, aside, kind, value, name = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local call = redis.call
if kind == 'field' then return call('HSET', key, name, value) end
if kind == 'nofield' then return call('HDEL', key, name) end
if kind == 'member' then return call('ZADD', key, value, name) end
if call('EXISTS', key) == 1 then call('RENAME', key, aside) end
if kind == 'text' then return call('SET', key, value) end
if kind == 'job' then return call('HSET', key, unpack(ARGV, 4)) end
local make = {string = {'SET', 'x'}, list = {'RPUSH', 'x'}, set = {'SADD', 'x'},
  zset = {'ZADD', 1, 'x'},
  hash = {'HSET', 'x', 'y'}, stream = {'XADD', '*', 'x', 'y'}}
return call(make[value][1], key, unpack(make[value], 2))
"""
REPAIR = """
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
"""
# KEYS: the key, where its content was put aside, the marker. Returns whether the key can be used,
# and has it again.
GIVE_BACK = """
local kind = redis.call('TYPE', KEYS[1]).ok
if redis.call('EXISTS', KEYS[2]) == 0 then return 1 end
if kind ~= 'none' and kind ~= redis.call('TYPE', KEYS[2]).ok then return 0 end
redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], KEYS[2])
redis.call('DEL', KEYS[2])
redis.call('ZADD', KEYS[3], 0, '0')
return 1
"""
# KEYS: the key of the job, the container. ARGV: the id, its score or '', then the job's fields.
INTRUDE = """
if #ARGV > 2 then redis.pcall('HSET', KEYS[1], unpack(ARGV, 3)) end
if ARGV[2] ~= '' then return redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1]) end
redis.call('LPUSH', KEYS[2], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """A case on a queue of its own.

    Attributes:
        client: An asyncio client that does not decode replies.
        case: The case.
        queue: The queue's name.
        base: `<prefix>:<queue>:`.
        up: The same of the queue that has the parent.
        first: Does something to the empty queue, instead of what the case says is done to it
        beforehand; or None.
    """

    client: Any
    case: Case
    queue: str
    first: Callable[[], Awaitable[None]] | None = None

    @property
    def base(self) -> str:
        return f"bull:{self.queue}:"

    @property
    def up(self) -> str:
        return f"bull:{self.queue}-up:"

    def key(self, name: str) -> str:
        """The key that a case names."""
        return self.up + name[1:] if name.startswith("^") else self.base + name

    async def lay_out(self) -> None:
        """Write the jobs; what is damaged beforehand, too."""
        now = int(time.time() * 1000)
        client, base, case = self.client, self.base, self.case
        if self.first is not None:
            await self.first()
        async with client.pipeline(transaction=True) as writing:
            for job, fields in self._jobs(now):
                writing.hset(base + job, mapping=fields)
            writing.set(f"{base}id", 40)
            writing.hset(f"{base}meta", mapping={"opts.maxLenEvents": "10000", **case.meta})
            self._relate(writing, now)
            if case.when in {"before", "held"}:
                self._line_up(writing, now)
            else:
                self._abandon(writing)
            await writing.execute(raise_on_error=self.first is None)
        if case.when != "held" and self.first is None:
            await self.harm()

    def _jobs(self, now: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, job in enumerate(INNOCENTS):
            # those that wait in `prioritized` have one, and some of those that are delayed
            priority = 0 if number < 12 or self.case.in_line else number % 3 + (number < 16)
            yield job, _job(now, BEHAVIOUR.get(number, "complete"), priority=priority)
        for role in ROLES:
            does = self.case.ends if role == self.case.victim else "complete"
            priority = 3 if role == "urgent" and not self.case.in_line else 0
            yield role, _job(now, does, priority=priority) | self._role(role)

    def _role(self, role: str) -> dict[str, str]:
        match role:
            case "child":
                policy = {self.case.policy: True} if self.case.policy else {}
                parent = {"id": "1", "queueKey": self.up[:-1], **policy}
                return {"parentKey": f"{self.up}1", "parent": json.dumps(parent)}
            case "owner":
                return {"deid": "d"}
            case _ if role == ITERATION:
                return {"rjk": "s", "opts": json.dumps({"repeat": {"count": 1, "every": HOUR_MS}})}
            case _:
                return {}

    def _relate(self, writing: Any, now: int) -> None:
        """The parent, the deduplication id, the job scheduler."""
        up, base = self.up, self.base
        writing.hset(f"{up}1", mapping=_job(now, "complete") | dict(self.case.parent))
        writing.zadd(f"{up}waiting-children", {"1": now})
        writing.sadd(f"{up}1:dependencies", f"{base}child")
        writing.set(f"{base}de:d", "owner")
        next_job = {
            "name": "x",
            "data": "{}",
            "opts": json.dumps({"de": {"id": "d"}}),
            "jid": "next",
        }
        writing.hset(f"{base}dn:d", mapping=next_job)
        writing.zadd(f"{base}repeat", {"s": ITERATION.rpartition(":")[2]})
        writing.hset(
            f"{base}repeat:s", mapping={"name": "x", "every": HOUR_MS, "offset": 0, "ic": 1}
        )

    def _line_up(self, writing: Any, now: int) -> None:
        """Put the jobs where they wait.

        What is damaged holds none but the waiting list, which is repaired.
        """
        damaged = self.case.aside[0]
        waiting = [*INNOCENTS[:6], "plain", "child", "owner", ITERATION, *INNOCENTS[6:12]]
        prioritized, delayed = [*INNOCENTS[12:16], "urgent"], [*INNOCENTS[16:], "late"]
        for name, jobs in (("prioritized", prioritized), ("delayed", delayed)):
            if damaged == name or self.case.in_line:
                waiting += jobs
                jobs.clear()
        writing.lpush(f"{self.base}wait", *waiting)
        for number, job in enumerate(prioritized):
            writing.zadd(f"{self.base}prioritized", {job: (number + 1) * 2**32})
        for number, job in enumerate(delayed):
            writing.zadd(f"{self.base}delayed", {job: (now - 20 + number) * 4096})
        writing.zadd(f"{self.base}marker", {"0": 0})

    def _abandon(self, writing: Any) -> None:
        """A dead worker held them all."""
        jobs = (*INNOCENTS[:10], *ROLES, *INNOCENTS[10:])
        writing.lpush(f"{self.base}active", *jobs)
        writing.sadd(f"{self.base}stalled", *jobs)
        if self.case.when == "released":
            for job in jobs:
                writing.set(f"{self.base}{job}:lock", f"{DEAD}:1", px=300)

    async def harm(self) -> None:
        """Do the damage, and put the intruder there."""
        case = self.case
        if case.damage is not None:
            for key, damage in ((case.key, case.damage), *case.more):
                await self._damage(key, damage)
        if case.intruder is not None:
            await self._intrude(case.intruder)

    async def _damage(self, name: str, damage: Damage) -> None:
        key, value, kind = self.key(name), damage.value, damage.kind
        if isinstance(value, str):
            value = value.replace("{base}", self.base)
        if kind == "field" and value is None:
            kind = "nofield"
        fields = [part for pair in _job(0, "complete").items() for part in pair]
        await self.client.eval(
            DAMAGE, 2, key, f"aside:{key}", kind, value or "", damage.name, *fields
        )

    async def _intrude(self, intruder: Intruder) -> None:
        score: int | str = {"prioritized": 2**32, "delayed": 4096}.get(intruder.place, "")
        fields = _job(0, "complete") | {"data": intruder.data}
        flat = (
            [part for pair in fields.items() for part in pair]
            if intruder.own in {"job", "clash"}
            else []
        )
        keys = self.base.encode() + intruder.id, f"{self.base}{intruder.place}"
        await self.client.eval(INTRUDE, 2, *keys, intruder.id, score, *flat)
        if intruder.place == "active":
            await self.client.sadd(f"{self.base}stalled", intruder.id)

    async def repair(self) -> None:
        """Put back what was put aside."""
        key = self.key(self.case.key)
        await self.client.eval(REPAIR, 2, key, f"aside:{key}")

    async def give_back(self) -> bool:
        """Put back the jobs that were put aside, as soon as the worker has put the damage aside;
        whether it has.
        """
        key = self.key(self.case.aside[0])
        return bool(await self.client.eval(GIVE_BACK, 3, key, f"aside:{key}", f"{self.base}marker"))

    async def add_good(self) -> None:
        """Add jobs when all is over; past what is damaged."""
        now = int(time.time() * 1000)
        async with self.client.pipeline(transaction=False) as writing:
            for job in GOOD:
                writing.hset(self.base + job, mapping=_job(now, "complete"))
            writing.lpush(f"{self.base}wait", *GOOD)
            writing.zadd(f"{self.base}marker", {"0": 0})
            await writing.execute(raise_on_error=False)

    async def clear(self) -> None:
        """Remove what is left of the queue and of the parent's."""
        patterns = [
            f"{start}bull:{name}:*"
            for name in (self.queue, f"{self.queue}-up")
            for start in ("", "aside:", "corral:")
        ]
        for pattern in patterns:
            if keys := await self.client.keys(pattern):
                await self.client.unlink(*keys)


def _job(now: int, does: str, *, priority: int = 0) -> dict[str, Any]:
    options = OPTIONS.get(does, {}) | ({"priority": priority} if priority else {})
    options[
        "corral"
    ] = {}  # as if made by us: it ends under our default retention, which has keys of its own
    return {
        "name": "x",
        "data": json.dumps({"does": does}),
        "opts": json.dumps(options),
        "timestamp": now,
        "delay": 0,
        "priority": priority,
    }

"""What a program leaves behind: every key below a prefix, read raw, and compared entry by entry.

Whatever is not equal is a difference, unless an entry of `ALLOWED` explains it; those are counted
and printed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from parity.programs import MARGIN_MS

Entries = dict[tuple[str, str], str]
"""`(key without its prefix, field)` → text."""

_DUMP = """
local dump = {}
local read = {
  string = function(key) return {redis.call('GET', key)} end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  hash = function(key) return redis.call('HGETALL', key) end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
}
for i, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind = redis.call('TYPE', key).ok
  dump[i] = {key, kind, redis.call('PTTL', key) >= 0 and 1 or 0, read[kind](key)}
end
return dump
"""


async def read(client: Redis, prefix: str) -> Entries:
    """Every key below `<prefix>:`, its own prefix replaced wherever it occurs: parents and children
    name keys.
    """
    own = re.compile(rf"\b{re.escape(prefix)}:")
    entries: Entries = {}
    for key, kind, expires, content in await client.eval(_DUMP, 0, f"{prefix}:"):
        name = own.sub("", _text(key), count=1)
        entries[name, "type"] = _text(kind)
        entries[name, "expires"] = "yes" if expires else "no"
        for field, value in _FLATTEN[_text(kind)](name, content):
            entries[name, own.sub("~:", field)] = own.sub("~:", value)
    return entries


def _string(_key: str, content: list[bytes]) -> Iterator[tuple[str, str]]:
    yield "value", _text(content[0])


def _list(_key: str, content: list[bytes]) -> Iterator[tuple[str, str]]:
    yield "length", str(len(content))
    for at, item in enumerate(content):
        yield f"[{at}]", _text(item)


def _set(_key: str, content: list[bytes]) -> Iterator[tuple[str, str]]:
    for member in content:
        yield _text(member), "member"


def _zset(key: str, content: list[bytes]) -> Iterator[tuple[str, str]]:
    """The order, and what each score means: the sequence inside one millisecond shows in the order
    alone.
    """
    for rank, at in enumerate(range(0, len(content), 2)):
        member, score = _text(content[at]), float(content[at + 1])
        yield f"[{rank}]", member
        if key.endswith(":delayed"):
            yield f"{member} at", str(math.floor(score / 4096))
        elif key.endswith(":prioritized"):
            yield f"{member} score", str(int(score))
        else:
            yield f"{member} at", f"{score:.15g}"


def _hash(_key: str, content: list[bytes]) -> Iterator[tuple[str, str]]:
    for at in range(0, len(content), 2):
        field, value = _text(content[at]), _text(content[at + 1])
        if field in {"opts", "parent"}:
            for name, member in json.loads(value).items():  # in any order
                yield from _flat(f"{field}.{name}", member)
        else:
            yield field, value


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from _flat(f"{path}.{name}", member)
    else:
        yield path, json.dumps(value)


def _stream(_key: str, content: list[tuple[bytes, list[bytes]]]) -> Iterator[tuple[str, str]]:
    for number, (_, fields) in enumerate(content, 1):
        yield f"#{number}", " ".join(_text(name) for name in fields[::2])
        for at in range(0, len(fields), 2):
            yield f"#{number} {_text(fields[at])}", _text(fields[at + 1])


_FLATTEN: Mapping[str, Callable[[str, Any], Iterator[tuple[str, str]]]] = {
    "string": _string,
    "list": _list,
    "set": _set,
    "zset": _zset,
    "hash": _hash,
    "stream": _stream,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry that is not the same on both sides; a side that has none says None."""

    key: str
    field: str
    bullmq: str | None
    corral: str | None

    def __str__(self) -> str:
        return (
            f"{self.key} · {self.field}\n    BullMQ  {self.bullmq!r}\n    Corral  {self.corral!r}"
        )


@dataclass(frozen=True, slots=True)
class Allowed:
    """A way in which the two sides may differ, and why it does no harm."""

    name: str
    why: str
    covers: Callable[[Entry], bool]


_TIME = re.compile(r"timestamp|processedOn|finishedOn|prevTS|.* at|#\d+ delay")


def _times(entry: Entry) -> bool:
    if not (_TIME.fullmatch(entry.field) or entry.key.endswith(":stalled-check")):
        return False
    if entry.bullmq is None or entry.corral is None:
        return False
    return float(entry.bullmq) // MARGIN_MS == float(entry.corral) // MARGIN_MS


def _lock_tokens(entry: Entry) -> bool:
    return (
        entry.key.endswith(":lock")
        and entry.field == "value"
        and None not in {entry.bullmq, entry.corral}
    )


def _marker(entry: Entry) -> bool:
    return entry.key.endswith(":marker")


def _events_cap(entry: Entry) -> bool:
    written = {"opts.maxLenEvents": "10000", "type": "hash", "expires": "no"}
    return (
        entry.key.endswith(":meta")
        and entry.corral is None
        and written.get(entry.field) == entry.bullmq
    )


def _written_by_node_only(entry: Entry) -> bool:
    return entry.corral is None and (
        entry.field == "opts.jobId" or (entry.field, entry.bullmq) == ("opts.attempts", "0")
    )


def _written_by_corral_only(entry: Entry) -> bool:
    return entry.bullmq is None and entry.field.startswith("opts.corral.")


ALLOWED = (
    Allowed(
        "time", "one clock for both, ours some milliseconds late: equal in steps of 5 s", _times
    ),
    Allowed("lock token", "any text that is unique (wire 5.5); both must be there", _lock_tokens),
    Allowed(
        "marker",
        "ours is put back only while work is left; asserted after each step instead",
        _marker,
    ),
    Allowed(
        "events cap",
        "BullMQ writes its default into meta at once, ours with the first job",
        _events_cap,
    ),
    Allowed(
        "opts of Node",
        "jobId, and attempts 0, which mean nothing to a reader",
        _written_by_node_only,
    ),
    Allowed(
        "opts.corral", "our own member of opts, carried along untouched", _written_by_corral_only
    ),
)


def differences(bullmq: Entries, corral: Entries, allowed: Counter[str]) -> list[Entry]:
    """What differs and is not allowed to, in the order of the keys; what is allowed is counted."""
    found: list[Entry] = []
    for key, field in sorted(bullmq.keys() | corral.keys()):
        entry = Entry(key, field, bullmq.get((key, field)), corral.get((key, field)))
        if entry.bullmq == entry.corral:
            continue
        for exception in ALLOWED:
            if exception.covers(entry):
                allowed[exception.name] += 1
                break
        else:
            found.append(entry)
    return found


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")

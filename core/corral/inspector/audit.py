"""What operators have changed, and who they were: a stream for each prefix, and the lines of logger
`corral.audit`.

An entry names states and settings, never what a job carries: no payload, no result, no reason. So
an account that is scrubbed out of jobs need not be scrubbed out of here.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from pydantic_core import to_json

from corral.errors import ConfigurationError, StoreUnavailable
from corral.inspector.damage import naming_damage
from corral.inspector.refusals import DamagedKey
from corral.loggers import Logger
from corral.store.codec import fields_of
from corral.store.connection import Link
from corral.store.replies import ResponseError
from corral.store.rights import audit_key
from corral.store.scripts import call_again

__all__ = ["FORMER_STREAM", "MAX_ENTRIES", "Audit", "Audited", "log_entry", "named", "this_process"]

log = Logger("corral.audit")

FORMER_STREAM: Final = "corral:audit"
"""Where releases up to this one wrote, of all prefixes of a store: it is read, and not written any
more.
"""
KEPT: Final = 10_000
"""About so many entries are kept; Redis drops the oldest in whole nodes."""
MAX_ENTRIES: Final = 500
"""Per reading."""
SCANNED: Final = 1000
"""Entries of the former stream per call; those of other prefixes are skipped."""
MAX_NAME_LENGTH: Final = 200
"""A refused login is told under the name that somebody typed."""
_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Audited:
    """One change.

    Attributes:
        id: The entry's id in the stream.
        at: When, by the store's clock (aware, UTC).
        who: Whose change it was: `cli:<login>@<host>`, `worker:<name>`, or whom the board has
        logged in.
        what: The operation: `retry`, `pause`, `login`, …
        queue: The queue, or None.
        job_id: The job, or None where there were many, or none.
        before: The state, or the settings that were changed, as they were; None where that says
        nothing.
        after: As `before`, now.
        count: How many jobs (of `scrub_events`, events) were changed by an operation on many.
    """

    id: str
    at: datetime
    who: str
    what: str
    queue: str | None
    job_id: str | None
    before: Any
    after: Any
    count: int | None


class Audit:
    """The audit of the queues below one prefix.

    What `JobInspector` changes is in here by itself: its entry is written by the script that makes
    the change, so that the store has both or neither. The line in the log follows when the store
    has answered.

    Attributes:
        stream: Its key, `corral:<prefix>:audit`.

    Args:
        link: The connection.
        prefix: The first part of the queues' keys.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self.stream = audit_key(prefix)
        self._link = link
        self._prefix = prefix

    async def write(
        self,
        who: str,
        what: str,
        *,
        queue: str | None = None,
        job_id: str | None = None,
        before: Any = None,
        after: Any = None,
        count: int | None = None,
    ) -> None:
        """Tell of something that no `JobInspector` did: a login, a job that was added.

        First to the log, so that it is told even where the store is away. Whoever calls this after
        a change and dies in between leaves a change of which nothing is told.

        Args:
            who: Who did it; cut after 200 characters.
            what: What was done, in a word.
            queue: The queue it was done to.
            job_id: The job it was done to.
            before: What it was, serialisable as JSON. Never what a job carries: of an edited one,
            which fields changed.
            after: As `before`, what it is.
            count: How many jobs it was done to.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
            DamagedKey: The stream's key is of another type.
        """
        entry: dict[str, Any] = {"who": named(who), "what": what, "queue": queue, "job": job_id}
        entry |= {"before": before, "after": after, "count": count}
        held = {field: value for field, value in entry.items() if value is not None}
        log_entry(held)
        for field in ("before", "after"):
            if field in held:
                held[field] = to_json(held[field])
        flat = [part for pair in held.items() for part in pair]
        async with naming_damage(self._link, self._prefix):
            await self._link.call(
                "XADD", self.stream, "MAXLEN", "~", KEPT, "*", "prefix", self._prefix, *flat
            )

    async def ensure_writable(self) -> None:
        """Refuse a change whose entry could not be written after it.

        A damaged stream passes: `write` reports it.

        Raises:
            StoreUnavailable: The store is away, or its user may not write the stream.
        """
        with suppress(
            ResponseError
        ):  # an entry of this id is always refused, after the user's rights were checked
            await self._link.call("XADD", self.stream, "0-0", "what", "nothing")

    async def added(self, who: str, queue: str, job_id: str) -> None:
        """Tell of a job that somebody added by hand.

        Where the store has gone away since, or the audit's key is damaged, the line in the log is
        all there is: the job is there, and who was told of a failure would add it again.
        """
        with suppress(StoreUnavailable, DamagedKey):
            await self.write(who, "add", queue=queue, job_id=job_id)

    async def read(self, *, limit: int = 50, before_id: str | None = None) -> Sequence[Audited]:
        """Some entries, the newest first.

        Those of the former stream are among them: of that, at most all is looked at, about 10,000
        entries in calls of 1,000, where other prefixes of the store have written most of them.

        Args:
            limit: How many, at most 500.
            before_id: Only those older than this entry: the `id` of the last one of the page
            before.

        Raises:
            ConfigurationError: `limit` is out of bounds, or `before_id` is no entry's id.
            StoreUnavailable: The store is away.
            DamagedKey: The stream's key is of another type.
        """
        if not 1 <= limit <= MAX_ENTRIES:
            raise ConfigurationError(f"a page of the audit has 1 to {MAX_ENTRIES} entries")
        if before_id is not None and not _ID.fullmatch(before_id):
            raise ConfigurationError(f"{before_id!r} is no entry of the audit")
        end = f"({before_id}" if before_id else "+"
        async with naming_damage(self._link, self._prefix):
            entries = await self._read_stream(self.stream, end, limit)
        found = [_read(*entry) for entry in entries]
        found += await self._read_former(end, limit)
        return sorted(found, key=lambda each: tuple(map(int, each.id.split("-"))), reverse=True)[
            :limit
        ]

    async def _read_former(self, end: str, limit: int) -> list[Audited]:
        """Entries of the former stream; none where that may not be read, or is on another node of a
        cluster.
        """
        found: list[Audited] = []
        batch = limit
        try:
            while entries := await self._read_stream(FORMER_STREAM, end, batch):
                own = (
                    _read(entry_id, fields) for entry_id, fields in entries if self._is_own(fields)
                )
                found += list(own)[: limit - len(found)]
                if len(found) == limit or len(entries) < batch:
                    break
                end, batch = f"({entries[-1][0].decode()}", SCANNED
        except ResponseError:
            pass  # something else stands there
        except StoreUnavailable as error:
            if error.outcome == "unknown":
                raise
        return found

    async def _read_stream(
        self, stream: str, end: str, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The entries before one of them, or of the end `+`; the newest first."""
        found = await call_again(
            partial(self._link.call, "XREVRANGE", stream, end, "-", "COUNT", count)
        )
        return [(entry_id, fields_of(flat)) for entry_id, flat in found]

    def _is_own(self, fields: Mapping[bytes, bytes]) -> bool:
        return fields.get(b"prefix", b"").decode(errors="replace") == self._prefix


def log_entry(entry: Mapping[str, Any], *, outcome: str | None = None) -> None:
    """Write one entry to the log, at INFO.

    Args:
        entry: Its fields, `before` and `after` as values.
        outcome: `"unknown"`: the store was lost before it answered, so that only the stream says
        whether it was done.
    """
    told = {("job_id" if field == "job" else field): value for field, value in entry.items()}
    log.info("audit", **told, **({"outcome": outcome} if outcome else {}))


def named(who: str) -> str:
    """A name as it is kept: not empty, not longer than a line."""
    return who[:MAX_NAME_LENGTH].encode(errors="replace").decode() or "nobody"


def this_process(kind: str = "process") -> str:
    """`<kind>:<login>@<host>`: in whose name a process changes things that was not told another.

    The login is that of the account that it runs under, whatever the environment says.
    """
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's process may run under a number that nobody has named
        login = str(os.getuid())
    return named(f"{kind}:{login}@{socket.gethostname()}")


def _read(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Audited:
    held = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in fields.items()
    }
    count = held.get("count", "")
    return Audited(
        id=entry_id.decode(),
        at=datetime.fromtimestamp(int(entry_id.partition(b"-")[0]) / 1000, UTC),
        who=held.get("who", ""),
        what=held.get("what", ""),
        queue=held.get("queue"),
        job_id=held.get("job"),
        before=_parsed(held.get("before")),
        after=_parsed(held.get("after")),
        count=int(count) if count.isdecimal() and len(count) < 16 else None,
    )


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text

"""The audit: what operators changed, and who they were.

Entries are kept in one stream per prefix, and are also logged by the logger `corral.audit`. An
entry holds states and settings, and never the contents of a job (payload, result, failed reason).
Therefore personal data that is scrubbed from jobs never has to be scrubbed from the audit.
"""

from __future__ import annotations

import json
import os
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
from corral.inspector.damage import report_damage
from corral.inspector.refusals import DamagedKey
from corral.loggers import Logger
from corral.store.codec import fields_of
from corral.store.connection import Link
from corral.store.keys import FORMER_AUDIT, audit_key
from corral.store.replies import ResponseError
from corral.store.scripts import call_again

__all__ = [
    "MAX_ENTRIES",
    "Audit",
    "AuditEntry",
    "bounded_name",
    "log_entry",
    "process_identity",
]

log = Logger("corral.audit")

KEPT: Final = 10_000
"""How many entries the stream keeps, approximately: Redis trims whole nodes of a stream."""
MAX_ENTRIES: Final = 500
"""The most entries that one `Audit.read` returns."""
SCANNED: Final = 1000
"""Entries of the former stream that are read per call; entries of other prefixes are skipped."""
MAX_NAME_LENGTH: Final = 200
"""Characters of a user's name. A refused login is recorded under the name that was typed."""
_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One recorded change.

    Attributes:
        id: The entry's id in the stream.
        at: When the change was made, by the store's clock (aware, UTC).
        who: Who made the change: `cli:<login>@<host>`, `worker:<name>`, or the user who was logged
            in to the board.
        what: The operation: `retry`, `pause`, `login`, …
        queue: The queue, or None.
        job_id: The job; None if the operation changed several jobs, or none.
        before: The state, or the changed settings, before the change; None if it does not apply.
        after: The same after the change.
        count: How many jobs an operation on many jobs changed (for `scrub_events`: how many
            events).
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
    """The audit of all queues that share a prefix.

    Changes made by a `JobInspector` are recorded automatically: the script that makes the change
    also writes the entry, so the store has both or neither. The log line is written after the store
    has answered.

    Attributes:
        stream: The key of the stream, `corral:<prefix>:audit`.

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
        """Record something that was not done by a `JobInspector`: a login, an added job.

        The log line is written first, so that it exists even if the store is away. If the caller
        crashes between its change and this call, the change is not recorded.

        Args:
            who: Who did it; cut after 200 characters.
            what: The operation, in one word.
            queue: The queue that was changed.
            job_id: The job that was changed.
            before: The state or settings before the change, serialisable as JSON. Never the
                contents of a job: for an edited job, pass the names of the changed fields.
            after: The same after the change.
            count: How many jobs were changed.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
            DamagedKey: The stream's key is of another type.
        """
        entry: dict[str, Any] = {
            "who": bounded_name(who),
            "what": what,
            "queue": queue,
            "job": job_id,
        }
        entry |= {"before": before, "after": after, "count": count}
        given = {field: value for field, value in entry.items() if value is not None}
        log_entry(given)
        for field in ("before", "after"):
            if field in given:
                given[field] = to_json(given[field])
        flat = [part for pair in given.items() for part in pair]
        async with report_damage(self._link, self._prefix):
            await self._link.call(
                "XADD", self.stream, "MAXLEN", "~", KEPT, "*", "prefix", self._prefix, *flat
            )

    async def ensure_writable(self) -> None:
        """Check, before a change is made, that its entry could be written afterwards.

        A damaged stream is not noticed here: `write` reports it.

        Raises:
            StoreUnavailable: The store is away, or its user may not write the stream.
        """
        # The store checks the user's rights first, and then always refuses the id 0-0.
        with suppress(ResponseError):
            await self._link.call("XADD", self.stream, "0-0", "what", "nothing")

    async def record_added_job(self, who: str, queue: str, job_id: str) -> None:
        """Record a job that an operator added by hand.

        If the store is away by now, or the audit's key is damaged, only the log line is written and
        no error is raised: the job exists, and an operator who sees an error would add it again.

        Args:
            who: Who added it.
            queue: The queue's name.
            job_id: The job's id.
        """
        with suppress(StoreUnavailable, DamagedKey):
            await self.write(who, "add", queue=queue, job_id=job_id)

    async def read(self, *, limit: int = 50, before_id: str | None = None) -> Sequence[AuditEntry]:
        """Read a page of entries, the newest first.

        Entries of the former stream are included. If other prefixes of the store wrote most of that
        stream, all of it may have to be read: about 10,000 entries, in calls of 1,000.

        Args:
            limit: How many entries, at most 500.
            before_id: Read only entries older than this one: pass the `id` of the last entry of the
                previous page.

        Raises:
            ConfigurationError: `limit` is out of bounds, or `before_id` is not an entry's id.
            StoreUnavailable: The store is away.
            DamagedKey: The stream's key is of another type.
        """
        if not 1 <= limit <= MAX_ENTRIES:
            raise ConfigurationError(f"a page of the audit has 1 to {MAX_ENTRIES} entries")
        if before_id is not None and not _ID.fullmatch(before_id):
            raise ConfigurationError(f"{before_id!r} is no entry of the audit")
        end = f"({before_id}" if before_id else "+"
        async with report_damage(self._link, self._prefix):
            entries = await self._read_stream(self.stream, end, limit)
        found = [_decode_entry(*entry) for entry in entries]
        found += await self._read_former(end, limit)
        return sorted(found, key=lambda each: tuple(map(int, each.id.split("-"))), reverse=True)[
            :limit
        ]

    async def _read_former(self, end: str, limit: int) -> list[AuditEntry]:
        """Read entries of the former stream.

        There are none if the user may not read that key, or if a cluster keeps it on another node.
        """
        found: list[AuditEntry] = []
        batch = limit
        try:
            while entries := await self._read_stream(FORMER_AUDIT, end, batch):
                own = (
                    _decode_entry(entry_id, fields)
                    for entry_id, fields in entries
                    if self._is_own(fields)
                )
                found += list(own)[: limit - len(found)]
                if len(found) == limit or len(entries) < batch:
                    break
                end, batch = f"({entries[-1][0].decode()}", SCANNED
        except ResponseError:
            pass  # the key is not a stream
        except StoreUnavailable as error:
            if error.outcome == "unknown":
                raise
        return found

    async def _read_stream(
        self, stream: str, end: str, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Read entries, the newest first, from `end` backwards (`+` is the end of the stream)."""
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
        outcome: `"unknown"` if the connection was lost before the store answered: only the stream
            shows whether the change was made.
    """
    logged = {("job_id" if field == "job" else field): value for field, value in entry.items()}
    log.info("audit", **logged, **({"outcome": outcome} if outcome else {}))


def bounded_name(who: str) -> str:
    """A user's name as it is recorded: at most `MAX_NAME_LENGTH` characters, `nobody` if empty."""
    return who[:MAX_NAME_LENGTH].encode(errors="replace").decode() or "nobody"


def process_identity(kind: str = "process") -> str:
    """The name under which this process records its changes: `<kind>:<login>@<host>`.

    The login is that of the operating system account; the environment cannot change it.

    Args:
        kind: What kind of process this is, such as `cli`.
    """
    import pwd  # noqa: PLC0415  # Windows has none

    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, a process may run under a user id that has no account
        login = str(os.getuid())
    return bounded_name(f"{kind}:{login}@{socket.gethostname()}")


def _decode_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> AuditEntry:
    texts = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in fields.items()
    }
    count = texts.get("count", "")
    return AuditEntry(
        id=entry_id.decode(),
        at=datetime.fromtimestamp(int(entry_id.partition(b"-")[0]) / 1000, UTC),
        who=texts.get("who", ""),
        what=texts.get("what", ""),
        queue=texts.get("queue"),
        job_id=texts.get("job"),
        before=_parsed(texts.get("before")),
        after=_parsed(texts.get("after")),
        count=int(count) if count.isdecimal() and len(count) < 16 else None,
    )


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text

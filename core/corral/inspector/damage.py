"""Keys of the store that are of another type than they must be: an operator is told which, instead
of a traceback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from corral.errors import StoreUnavailable
from corral.inspector.escapes import escaped
from corral.inspector.refusals import DamagedKey
from corral.store.connection import Link
from corral.store.replies import ResponseError, refusal, unexpected
from corral.store.rights import audit_key

__all__ = ["damaged_keys", "damages", "naming_damage"]

OF_QUEUE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("wait", "active", "paused", "metrics:completed:data", "metrics:failed:data"), "list"
    ),
    **dict.fromkeys(
        ("prioritized", "delayed", "waiting-children", "completed", "failed", "repeat", "marker"),
        "zset",
    ),
    **dict.fromkeys(("meta", "metrics:completed", "metrics:failed"), "hash"),
    **dict.fromkeys(("id", "pc"), "number"),
    **dict.fromkeys(("limiter", "stalled-check"), "string"),
    "events": "stream",
    "stalled": "set",
}
"""What a queue's keys are (wire § 2.1)."""
OF_JOB: Final[Mapping[str, str]] = {
    "": "hash",
    ":logs": "list",
    ":lock": "string",
    ":dependencies": "set",
    ":processed": "hash",
    ":failed": "hash",
    ":unsuccessful": "zset",
}
"""What a job's keys are (wire § 2.2)."""
_SAYS_DAMAGE: Final = ("WRONGTYPE", "not an integer", "not a valid float")
"""What the store answers to a command whose key is of another type, or holds no number."""


@asynccontextmanager
async def naming_damage(
    link: Link, prefix: str, *queues: str, job_id: str | None = None
) -> AsyncIterator[None]:
    """Let the store's answer that a key is of the wrong type become a `DamagedKey` that says which.

    No error of the client library passes: here what an operator does, on a page or at a terminal,
    meets the store.

    Args:
        link: The connection, to look at the keys once something went wrong: some twenty commands
        for each queue.
        prefix: The first part of the keys.
        queues: What was being read or changed.
        job_id: The job, where it was one.

    Raises:
        DamagedKey: A key is of the wrong type.
        StoreUnavailable: The store is away, refused, or answered with an error for another reason.
    """
    try:
        yield
    except (ResponseError, StoreUnavailable) as error:
        reply = error if isinstance(error, ResponseError) else error.__cause__
        if not isinstance(reply, ResponseError) or refusal(reply, link.url):
            raise
        found = damages(reply)
        if not found and any(word in str(reply) for word in _SAYS_DAMAGE):
            found = await damaged_keys(link, _keys(prefix, queues, job_id))
        if found:
            raise DamagedKey(*found) from reply
        raise unexpected(reply, link.url) from reply


def damages(error: ResponseError) -> list[str]:
    """What a script says is damaged: `DAMAGED <key> is a <type>, not a <type>`; nothing of another
    error.
    """
    word, _, told = str(error).partition(" ")
    return [escaped(told.encode(errors="replace"))] if word == "DAMAGED" else []


async def damaged_keys(link: Link, keys: Iterable[tuple[str, str]]) -> list[str]:
    """Those of some keys that are of another type than they must be, each as `<key> is a <type>,
    not a <type>`.

    Args:
        link: The connection.
        keys: Each with the type it must have; `number` for a text that is one.

    Raises:
        StoreUnavailable: The store is away.
    """
    wrong = []
    for key, wanted in keys:
        found = (await link.call("TYPE", key)).decode()
        is_right = found in {"none", "string" if wanted == "number" else wanted}
        if is_right and wanted == "number" and found == "string":
            is_right = _is_number(await link.call("GET", key))
        if not is_right:
            wrong.append(
                f"{escaped(key.encode(errors='surrogatepass'))} is a {found}, not a {wanted}"
            )
    return wrong


def _is_number(text: bytes | None) -> bool:
    return text is None or (text.removeprefix(b"-").isdigit() and len(text) < 20)


def _keys(prefix: str, queues: Iterable[str], job_id: str | None) -> Iterator[tuple[str, str]]:
    for queue in queues:
        yield from ((f"{prefix}:{queue}:{name}", kind) for name, kind in OF_QUEUE.items())
        yield from (
            (f"corral:{prefix}:{queue}:{name}", "hash") for name in ("quarantine", "minutes")
        )
        if job_id is not None:
            yield from ((f"{prefix}:{queue}:{job_id}{end}", kind) for end, kind in OF_JOB.items())
    yield from ((f"corral:{prefix}:{name}", "hash") for name in ("alive", "catalog"))
    yield audit_key(prefix), "stream"

"""Keys of the store that have the wrong type: errors name the key, instead of a traceback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from corral.errors import StoreUnavailable
from corral.inspector.escapes import escaped
from corral.inspector.refusals import DamagedKey
from corral.store.connection import Link
from corral.store.keys import (
    JOB_KEYS,
    QUEUE_KEYS,
    audit_key,
    former_process_key,
    job_key,
    minutes_key,
    process_key,
    quarantine_key,
    queue_base,
)
from corral.store.replies import ResponseError, refusal, unexpected

__all__ = ["damage_in_error", "find_damaged_keys", "report_damage"]

_DAMAGE_REPLIES: Final = ("WRONGTYPE", "not an integer", "not a valid float")
"""Parts of the store's error replies if a key has the wrong type, or does not hold a number."""


@asynccontextmanager
async def report_damage(
    link: Link, prefix: str, *queues: str, job_id: str | None = None
) -> AsyncIterator[None]:
    """Raise `DamagedKey`, which names the key, where the store answers with a wrong-type error.

    All other error replies are raised as `StoreUnavailable`: pages and commands never see an
    exception of the client library.

    Args:
        link: The connection. After an error it is used to look at the keys' types: some twenty
            commands for each queue.
        prefix: The first part of the keys.
        queues: The names of the queues that are read or changed.
        job_id: The job that is read or changed, if it is a single one.

    Raises:
        DamagedKey: A key is of the wrong type.
        StoreUnavailable: The store is away, refused, or answered with another error.
    """
    try:
        yield
    except (ResponseError, StoreUnavailable) as error:
        reply = error if isinstance(error, ResponseError) else error.__cause__
        if not isinstance(reply, ResponseError) or refusal(reply, link.url):
            raise
        found = damage_in_error(reply)
        if not found and any(word in str(reply) for word in _DAMAGE_REPLIES):
            found = await find_damaged_keys(link, _keys(prefix, queues, job_id))
        if found:
            raise DamagedKey(*found) from reply
        raise unexpected(reply, link.url) from reply


def damage_in_error(error: ResponseError) -> list[str]:
    """The damage that a script reported by an error reply; empty for any other error.

    Scripts of the inspector reply `DAMAGED <key> is a <type>, not a <type>`.
    """
    word, _, damage = str(error).partition(" ")
    return [escaped(damage.encode(errors="replace"))] if word == "DAMAGED" else []


async def find_damaged_keys(link: Link, keys: Iterable[tuple[str, str]]) -> list[str]:
    """Check the types of keys, one or two commands for each.

    Args:
        link: The connection.
        keys: Each key with the type it must have; `number` for a string that holds a number.

    Returns:
        One text for each wrong key: `<key> is a <type>, not a <type>`.

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
        base = queue_base(prefix, queue)
        yield from ((base + name, kind) for name, kind in QUEUE_KEYS.items())
        yield quarantine_key(base), "hash"
        yield minutes_key(base), "hash"
        if job_id is not None:
            yield from ((job_key(base, job_id, part), kind) for part, kind in JOB_KEYS.items())
    yield process_key(prefix), "hash"
    yield former_process_key(prefix), "hash"
    yield audit_key(prefix), "stream"

"""Find which rights the store's user lacks, before work fails half-way for want of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

from corral.errors import StoreUnavailable
from corral.store.connection import Link
from corral.store.keys import (
    META,
    audit_key,
    former_process_key,
    probe_key,
    process_key,
    queue_base,
)
from corral.store.replies import RIGHTS_HINT, ResponseError, is_missing_right
from corral.store.scripts import run, script

__all__ = ["Role", "ensure_rights", "missing_rights"]

Role = Literal["worker", "operator"]
"""Who uses the store: each needs other rights, see docs/store-users.md."""

MOST_NAMED: Final = 8
"""How many names one sentence lists: a user who lacks more lacks a whole category."""
_KEYS: Final = ("access a key", "access one of the keys")
"""What Valkey, and Redis 7.0, answer where the user lacks a key and not a command."""


async def missing_rights(link: Link, prefix: str, queue: str, role: Role) -> str:
    """Try every command and key that a role needs for a queue.

    Args:
        link: The connection.
        prefix: The first part of the keys.
        queue: The queue.
        role: The role. An operator needs more than a worker.

    Returns:
        What the store's user lacks, as `the commands ZADD, XADD and the keys corral:bull:alive`.
        Empty where it lacks nothing, or where the store takes no writes now.

    Raises:
        StoreUnavailable: The store is away, or refuses for another reason.
    """
    base = queue_base(prefix, queue)
    own = [f"hash {process_key(prefix)}", f"hash {former_process_key(prefix)}"]
    if role == "operator":
        own = [f"stream {audit_key(prefix)}"]
    found: Sequence[Sequence[bytes]]
    try:
        found = await run(link, script("probe"), [base], [role, f"hash {base}{META}", *own])
    except StoreUnavailable as error:
        if not is_missing_right(error):
            raise
        # Not even a script may run, or not on this key.
        return (
            f"the keys {base}*"
            if any(each in str(error) for each in _KEYS)
            else "the commands EVAL, EVALSHA"
        )
    commands, keys = ([each.decode(errors="replace") for each in part] for part in found)
    if role == "worker" and not keys and not await _may_wait(link, probe_key(base)):
        commands.append("BZPOPMIN")
    missing = [f"the commands {_listed(commands)}"] if commands else []
    missing += [f"the keys {_listed(keys)}"] if keys else []
    return " and ".join(missing)


async def ensure_rights(link: Link, prefix: str, queue: str) -> None:
    """Refuse an operator's change that the store would refuse half-way.

    Raises:
        StoreUnavailable: A right is missing, and nothing was changed; also as `missing_rights`.
    """
    if lacking := await missing_rights(link, prefix, queue, "operator"):
        raise StoreUnavailable(
            f"the store's user lacks {lacking}: nothing was changed", hint=RIGHTS_HINT
        )


async def _may_wait(link: Link, key: str) -> bool:
    """Whether the user may call `BZPOPMIN`, which Redis 7.0 allows in no script."""
    try:
        # "never" is no timeout, so the call fails at once; the store checks rights before.
        with suppress(ResponseError):
            await link.call("BZPOPMIN", key, "never")
    except StoreUnavailable as error:
        if not is_missing_right(error):
            raise
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    known = list(dict.fromkeys(names))
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return ", ".join(known[:MOST_NAMED]) + more

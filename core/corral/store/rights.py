"""Which rights the store's user lacks: found before they are missed, and named."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

from corral.errors import StoreUnavailable
from corral.store.connection import Link
from corral.store.replies import RIGHTS_HINT, ResponseError, is_missing_right
from corral.store.scripts import run, script

__all__ = ["Role", "audit_key", "ensure_rights", "missing_rights"]

Role = Literal["worker", "operator"]
"""Who needs which rights."""

PROCESSES: Final = ("alive", "catalog")
"""What every worker process writes besides its queues."""
MOST_NAMED: Final = 8
"""Commands in one sentence: somebody who lacks more lacks a whole category."""
_KEYS: Final = ("access a key", "access one of the keys")
"""How Valkey, and Redis 7.0, say that it is a key, and no command, that somebody may not have."""


def audit_key(prefix: str) -> str:
    """The stream in which the changes of operators are written down, of the queues below a prefix."""
    return f"corral:{prefix}:audit"


async def missing_rights(link: Link, prefix: str, queue: str, role: Role) -> str:
    """Try what a role does to a queue.

    Args:
        link: The connection.
        prefix: The first part of the keys.
        queue: The queue.
        role: A worker, or an operator, who needs more.

    Returns:
        What the store's user lacks, as `the commands ZADD, XADD and the keys corral:bull:alive`;
        empty where that is nothing, or where the store takes no writes now.

    Raises:
        StoreUnavailable: The store is away, or refuses for another reason.
    """
    base = f"{prefix}:{queue}:"
    own = [f"hash corral:{prefix}:{name}" for name in PROCESSES]
    if role == "operator":
        own = [f"stream {audit_key(prefix)}"]
    found: Sequence[Sequence[bytes]]
    try:
        found = await run(link, script("probe"), [base], [role, f"hash {base}meta", *own])
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
    if role == "worker" and not keys and not await _may_wait(link, f"corral:{base}probe"):
        commands.append("BZPOPMIN")
    told = [f"the commands {_listed(commands)}"] if commands else []
    told += [f"the keys {_listed(keys)}"] if keys else []
    return " and ".join(told)


async def ensure_rights(link: Link, prefix: str, queue: str) -> None:
    """Refuse a change of an operator's that the store would refuse in its middle.

    Raises:
        StoreUnavailable: A right is missing, and nothing was changed; or as `missing_rights`.
    """
    if lacking := await missing_rights(link, prefix, queue, "operator"):
        raise StoreUnavailable(
            f"the store's user lacks {lacking}: nothing was changed", hint=RIGHTS_HINT
        )


async def _may_wait(link: Link, key: str) -> bool:
    """Whether the one command is allowed that Redis 7.0 lets no script call."""
    try:
        with suppress(
            ResponseError
        ):  # no time to wait is called so: nobody waits, and rights are checked before
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

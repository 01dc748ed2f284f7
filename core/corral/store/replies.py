"""What the store's error replies mean, in one place.

Some errors answer the command. The others are refusals, "not now" or "not you". For each refusal
this module knows what is wrong, what an operator can do, and whether the command may have written
something.

An error reply begins with a word. Inside of a script a refusal comes with the script's name behind
it; refusals of access control and of a cluster have words of their own there, which differ between
Redis 7.0 and later servers.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from corral.errors import StoreUnavailable
from corral.redactor import masked

__all__ = [
    "RIGHTS_HINT",
    "NoScriptError",
    "ResponseError",
    "explain_client_error",
    "is_missing_right",
    "is_unreplicated",
    "refusal",
    "unavailable",
    "unexpected",
    "unreplicated",
]


class ResponseError(Exception):
    """The store understood a command and answered with an error.

    Its text begins with the store's own word; `ERR` is left out, because it means nothing.
    """


class NoScriptError(ResponseError):
    """The store does not have the script that it should run."""


RIGHTS_HINT: Final = "give the store's user the access rules of its role: docs/store-users.md"
"""The hint of every refusal for want of a right."""
_REPLICAS_HINT: Final = (
    "bring a replica back (INFO replication lists them), and enqueue again under the same job_id: "
    "no second job is made"
)
_PRIMARY: Final = "let REDIS_URL name the primary, or a name that follows it"
_CLUSTER: Final = (
    "Corral talks to one server and follows no cluster: name a server that is none, or, with all "
    "keys in one slot (CORRAL_PREFIX={bull}), the node that holds it"
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of refusal.

    Attributes:
        sentence: What is wrong with the store, after "the store at …".
        hint: What to do about it.
        outcome: `"unknown"` where the refusal may come in a script that has written already.
    """

    sentence: str
    hint: str
    outcome: Literal["refused", "unknown"] = "refused"


_KINDS: Final[Mapping[str, _Kind]] = {
    "NOPERM": _Kind("does not let its user do this", RIGHTS_HINT),
    "NOAUTH": _Kind(
        "wants a password", "write it into REDIS_URL: redis://user:password@host:6379/0"
    ),
    "WRONGPASS": _Kind(
        "refuses this user name and password",
        "check both in REDIS_URL; special characters are written as %40, %3A",
    ),
    "OOM": _Kind("has no memory left", "raise maxmemory, or remove finished jobs: corral clean"),
    "MISCONF": _Kind(
        "cannot write to its disk, and takes no writes until it can",
        "look into the store's own log",
    ),
    "READONLY": _Kind("is a replica, which takes no writes", _PRIMARY),
    "NOREPLICAS": _Kind(
        "reaches too few replicas to take writes",
        "bring its replicas back, or lower min-replicas-to-write",
    ),
    "MASTERDOWN": _Kind("is a replica that has lost its primary", _PRIMARY),
    "UNBLOCKED": _Kind("has become a replica while a command waited", _PRIMARY),
    "LOADING": _Kind(
        "still loads its data", "wait until it has: INFO persistence says how far it is"
    ),
    "BUSY": _Kind(
        "is busy with a script", "wait for its end; SCRIPT KILL ends one that has written nothing"
    ),
    "CLUSTERDOWN": _Kind(
        "is a node of a cluster that does not work", "look at CLUSTER INFO and CLUSTER NODES"
    ),
    "MOVED": _Kind("is a node of a cluster, and another one holds these keys", _CLUSTER),
    "ASK": _Kind("is a node of a cluster, and another one receives these keys", _CLUSTER),
    "TRYAGAIN": _Kind(
        "is a node of a cluster that hands these keys over", "try again when CLUSTER NODES says so"
    ),
    "CROSSSLOT": _Kind("is a cluster, and these keys are in different slots of it", _CLUSTER),
}
"""Refusals, by the first word of the reply.

The store gives each of them before a command runs, or at the first write of a script. None of them
stops a script that has written.
"""
_IN_SCRIPT: Final = _Kind(_KINDS["NOPERM"].sentence, RIGHTS_HINT, "unknown")
_ELSEWHERE: Final = "is a node of a cluster that does not serve all of these keys"
_PHRASES: Final[Mapping[str, _Kind]] = {
    "ACL failure in script": _IN_SCRIPT,
    "The user executing the script can't": _IN_SCRIPT,  # Redis 7.0
    "Script attempted to": _Kind(_ELSEWHERE, _CLUSTER, "unknown"),
    "Attempted to access": _Kind(_ELSEWHERE, _CLUSTER, "unknown"),  # Valkey
    "Protocol error: unauthenticated": _KINDS["NOAUTH"],  # of a long command, before it is read
    "unknown command": _Kind(
        "does not know a command that Corral needs", "its provider may have taken it away: ask"
    ),
    "Unknown Redis command": _Kind(
        "does not know a command that Corral needs", "Redis 7.0 does", "unknown"
    ),
    "Unknown Valkey command": _Kind(
        "does not know a command that Corral needs", "Valkey 7.2 does", "unknown"
    ),
    "max number of clients reached": _Kind(
        "takes no more connections", "raise maxclients, or end idle clients"
    ),
    "DB index is out of range": _Kind(
        "has no database of this number",
        "the number ends REDIS_URL: CONFIG GET databases says how many there are",
    ),
}
"""Refusals without a word of their own, by how the reply begins."""
_WHERE: Final = re.compile(r" script: (?:\w+, )?on @?user_script:\d+\.?$")
_ARGUMENTS: Final = ", with args beginning with:"
"""What follows this in a reply may be a payload."""


def refusal(error: BaseException, url: str) -> StoreUnavailable | None:
    """Explain an error reply by which the store refuses a command.

    Args:
        error: What the connection raised.
        url: The store.

    Returns:
        None where the reply is no refusal, but answers the command.
    """
    found = _kind(error)
    if found is None:
        return None
    kind, reason = found
    message = f"{_store(url)} {kind.sentence}" + (f" ({reason})" if reason else "")
    return StoreUnavailable(message, outcome=kind.outcome, hint=kind.hint)


def unavailable(error: BaseException, url: str, *, refused: bool) -> StoreUnavailable:
    """The error of a store that could not be reached, or whose reply did not come.

    Args:
        error: What the connection raised.
        url: The store.
        refused: Whether nothing was sent that could have had an effect; then `outcome` is
            `"refused"`, else `"unknown"`.
    """
    cause = _cause(error)
    return refusal(error, url) or StoreUnavailable(
        f"{_store(url)} is unavailable: {cause}", outcome="refused" if refused else "unknown"
    )


def unreplicated(url: str, seconds: float) -> StoreUnavailable:
    """The error of a write that is done, but that no replica has confirmed.

    Args:
        url: The store.
        seconds: How long the call has waited for a replica.
    """
    return StoreUnavailable(
        f"{_store(url)} has written it, but no replica had it within {seconds:g} s: "
        "it is lost if the store fails over",
        outcome="unknown",
        hint=_REPLICAS_HINT,
    )


def unexpected(error: ResponseError, url: str) -> StoreUnavailable:
    """The error of a reply that should not occur: a damaged key, or a server that we do not know.

    Args:
        error: The reply. Our own scripts answer `DAMAGED …` where they have changed nothing.
        url: The store.
    """
    if known := refusal(error, url):
        return known
    reason = _without_place(str(error))
    word, _, damage = reason.partition(" ")
    if word == "DAMAGED":
        return StoreUnavailable(
            f"{_store(url)} has a damaged key: {damage}",
            hint="look at it with redis-cli, and repair it or rename it away; "
            "nothing was changed by this",
        )
    may_have_written = word != "WRONGTYPE" or _WHERE.search(str(error)) is not None
    return StoreUnavailable(
        f"{_store(url)} answers with an error: {reason}",
        outcome="unknown" if may_have_written else "refused",
        hint="a key of the wrong type, or a server that is neither Valkey nor Redis 7, may be why",
    )


def explain_client_error(error: Exception) -> StoreUnavailable | None:
    """Explain an error of a client of the store, ours or redis-py's.

    Returns:
        None where the error is of another kind.
    """
    if isinstance(error, ResponseError):
        return unexpected(error, "")
    if "redis" not in sys.modules:  # then it is not redis-py's
        return None
    from corral.store.redis_py import as_ours  # noqa: PLC0415  # loads redis-py

    ours = as_ours(error)
    if isinstance(ours, ResponseError):
        return unexpected(ours, "")
    return None if ours is None else unavailable(ours, "", refused=False)


def is_missing_right(error: StoreUnavailable) -> bool:
    """Whether a right is missing, so that trying again does not help."""
    return error.hint == RIGHTS_HINT


def is_unreplicated(error: StoreUnavailable) -> bool:
    """Whether only a replica's confirmation is missing, so that writing again does not help."""
    return error.hint == _REPLICAS_HINT


def _cause(error: BaseException) -> str:
    """The reason of an error, without the operating system's number."""
    if (
        isinstance(error, OSError)
        and error.errno
        and not isinstance(error, socket.gaierror | ssl.SSLError)
    ):
        return os.strerror(error.errno)
    return str(error).strip().rstrip(".") or type(error).__name__


def _store(url: str) -> str:
    return f"the store at {masked(url)}" if url else "the store"


def _kind(error: BaseException) -> tuple[_Kind, str] | None:
    """The kind of an error reply, and the rest of its text."""
    text = _without_place(str(error)).removeprefix("ERR ")
    word, _, rest = text.partition(" ")
    if isinstance(error, ResponseError) and word in _KINDS:
        return _KINDS[word], rest
    for phrase, kind in _PHRASES.items():
        if text.startswith(phrase):
            return kind, text
    return None


def _without_place(text: str) -> str:
    """An error's text without the place in a script, and without the command's arguments."""
    return _WHERE.sub("", text.partition(_ARGUMENTS)[0].strip()).rstrip(".")

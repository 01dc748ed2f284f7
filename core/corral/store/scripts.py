"""The Lua scripts: read from `lua/`, joined with the files they include, run by their digest."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from corral.errors import StoreUnavailable
from corral.store.connection import Link, ThreadLink
from corral.store.replies import NoScriptError

__all__ = ["Script", "call_again", "run", "run_blocking", "script"]

T = TypeVar("T")

STORE = "corral.store"
"""The package whose scripts other packages may include."""

PROMPT_SECONDS = 0.5
"""A call that fails within this time may be made again.

A connection that the other side has closed fails at once. One that is only silent takes longer, and
is not tried twice.
"""

_INCLUDE = re.compile(r"^([ \t]*)-- @include (\w+\.lua)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest the server knows it by."""

    source: str
    digest: str


@cache
def script(name: str, package: str = STORE) -> Script:
    """Read the script `lua/<name>.lua` of a package.

    Each line `-- @include <file>` is replaced by that file, which is looked for in the
    package's own `lua/`, then in the store's.
    """
    source = _source(f"{name}.lua", package)
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


async def run(
    link: Link,
    which: Script,
    keys: Sequence[str],
    arguments: Sequence[Any],
    *,
    replicated: bool = False,
) -> Any:
    """Run a script by its digest; a server that does not have it gets the source.

    A server that answers `NOSCRIPT` has run nothing, so this never runs a script twice.

    Args:
        link: The connection.
        which: The script.
        keys: Its keys.
        arguments: Its arguments.
        replicated: As for `Link.call`.

    Raises:
        StoreUnavailable: As `Link.call`.
    """
    try:
        return await link.call(
            "EVALSHA", which.digest, len(keys), *keys, *arguments, replicated=replicated
        )
    except NoScriptError:
        return await link.call(
            "EVAL", which.source, len(keys), *keys, *arguments, replicated=replicated
        )


async def call_again(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, and once more where its connection turns out to be closed.

    Servers and load balancers close idle connections, and the next request fails. Only for calls
    that change nothing, or change nothing more when they are repeated.

    Raises:
        StoreUnavailable: As `Link.call`. After a second call, `outcome` is `"unknown"`: the first
            one may have had an effect.
    """
    began = time.monotonic()
    try:
        return await call()
    except StoreUnavailable as error:
        if error.outcome == "refused" or time.monotonic() - began > PROMPT_SECONDS:
            raise
    try:
        return await call()
    except StoreUnavailable as error:
        error.outcome = "unknown"
        raise


def run_blocking(
    link: ThreadLink, which: Script, keys: Sequence[str], arguments: Sequence[Any]
) -> Any:
    """`run` for a thread."""
    try:
        return link.call("EVALSHA", which.digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return link.call("EVAL", which.source, len(keys), *keys, *arguments)


def _source(name: str, package: str) -> str:
    own = files(package) / "lua" / name
    path = own if own.is_file() else files(STORE) / "lua" / name
    return _INCLUDE.sub(
        lambda include: _source(include[2], package), path.read_text(encoding="utf-8")
    )

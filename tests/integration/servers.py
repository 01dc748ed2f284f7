"""Servers of a test's own: with users, as replicas, as nodes of a cluster; the embedded Valkey, and
Redis 7.0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from corral.embedded.server_binary import find_server

NO_REDIS = "no redis-server on the PATH: apt-get install redis-server"
START_SECONDS = 10.0
PASSWORD = "a-secret"

KINDS = ("valkey", "redis")


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        socket: Where it listens.
        admin: A client that may do everything; replies as text.
        folder: Its working directory.
    """

    socket: Path
    admin: redis.Redis
    folder: Path

    def url(self, user: str | None = None) -> str:
        """The URL of a user, or of the one that may do everything."""
        return f"unix://{user}:{PASSWORD}@{self.socket}" if user else f"unix://{self.socket}"

    def set_user(self, name: str, rules: str) -> None:
        """Make a user with these rules, and no others."""
        self.admin.execute_command(
            "ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *rules.split()
        )

    def denied(self) -> list[tuple[str, str]]:
        """Who was denied what since the last call, as the server has it in its own log."""
        entries = self.admin.acl_log()
        self.admin.acl_log_reset()
        return [(entry["username"], entry["object"]) for entry in entries]


@contextmanager
def server(kind: str, *options: str, files: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server.

    Args:
        kind: `valkey`, the embedded one, or `redis`, which must be installed.
        options: As on its command line.
        files: What its working directory holds before it starts.
    """
    if kind == "redis":
        program = shutil.which("redis-server")
        if program is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NO_REDIS)
    else:
        program = find_server(os.environ.get("CORRAL_VALKEY_SERVER")).path
    with tempfile.TemporaryDirectory(prefix="corral-") as name:
        folder = Path(name)
        socket = folder / "s"
        for file, text in (files or {}).items():
            (folder / file).write_text(text, "utf-8")
        asked = [
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--dir",
            name,
            "--logfile",
            f"{name}/log",
        ]
        process = subprocess.Popen([program, *asked, *options], stdin=subprocess.DEVNULL)
        try:
            with redis.Redis(
                unix_socket_path=str(socket), decode_responses=True, socket_timeout=10
            ) as admin:
                _wait_for(admin, process)
                yield Server(socket, admin, folder)
        finally:
            process.kill()
            process.wait(START_SECONDS)


def _wait_for(admin: redis.Redis, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            admin.ping()
        except redis.ConnectionError:
            assert process.poll() is None, f"it has ended with {process.returncode}"
            assert time.monotonic() < deadline, f"it does not answer within {START_SECONDS:g} s"
            time.sleep(0.01)
        except redis.ResponseError:
            return  # it answers
        else:
            return

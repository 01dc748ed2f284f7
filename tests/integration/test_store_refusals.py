"""Stores that refuse, each a real one in that state: each error is one sentence, and says what to
do.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from board.asking import Browser, Host
from corral import Payload, Queue
from corral.board import Board
from corral.catalog import Catalog, CatalogEntry
from corral.errors import StoreUnavailable
from corral.plugins import Plugins, Provider
from corral.producer import RedisJobScheduler
from corral.store.connection import blocking_link
from integration.servers import KINDS, PASSWORD, Server, server

QUEUE = "acme-letters"
SELF, OTHER = "a" * 40, "b" * 40
SLOTS = 16384


class Letter(Payload):
    text: str = ""


letters = Queue(QUEUE, Letter)


@contextmanager
def held_port() -> Iterator[int]:
    """A port that the kernel gives to nobody else meanwhile; a server may listen on it all the
    same.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def free_port() -> int:
    """A port on which nobody listens."""
    with held_port() as port:
        return port


@contextmanager
def no_memory(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        store.admin.config_set("maxmemory", 1)
        yield store, store.url()


@contextmanager
def no_replicas(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        store.admin.config_set("min-replicas-to-write", 1)
        yield store, store.url()


@contextmanager
def a_replica(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind, "--replicaof", f"127.0.0.1 {free_port()}") as store:
        yield store, store.url()


@contextmanager
def a_lost_replica(kind: str) -> Iterator[tuple[Server, str]]:
    asked = ("--replicaof", f"127.0.0.1 {free_port()}", "--replica-serve-stale-data", "no")
    with server(kind, *asked) as store:
        yield store, store.url()


@contextmanager
def a_busy_script(kind: str) -> Iterator[tuple[Server, str]]:
    def loop(socket_path: Path) -> None:
        with (
            redis.Redis(unix_socket_path=str(socket_path), socket_timeout=60) as other,
            suppress(redis.RedisError),
        ):
            other.eval("while true do end", 0)

    with server(kind, "--lua-time-limit", "1") as store:
        busy = threading.Thread(target=loop, args=[store.socket])
        busy.start()
        try:
            until(lambda: _says(store.admin) == "BUSY", "it is busy")
            yield store, store.url()
        finally:
            store.admin.script_kill()
            busy.join(10)


@contextmanager
def no_disk(kind: str) -> Iterator[tuple[Server, str]]:
    """A snapshot cannot be written: a directory stands in its place."""
    with server(kind) as store:
        (store.folder / "dump.rdb" / "of somebody else").mkdir(parents=True)
        store.admin.config_set("save", "1 1")
        store.admin.set("one", "change")
        store.admin.bgsave()
        until(
            lambda: store.admin.info("persistence")["rdb_last_bgsave_status"] == "err",
            "it has failed to save",
        )
        yield store, store.url()


@contextmanager
def a_wrong_password(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        store.set_user("ada", "~* +@all")
        yield store, store.url("ada").replace(PASSWORD, "another")


@contextmanager
def no_password(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        store.admin.config_set("requirepass", PASSWORD)
        yield store, store.url()


@contextmanager
def no_such_database(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        yield store, f"{store.url()}?db=99"


@contextmanager
def no_rights(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        store.set_user("ada", "~* +@all -@scripting")
        yield store, store.url("ada")


@contextmanager
def no_rights_in_scripts(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind) as store:
        store.set_user("ada", "~* +@all -@hash")
        yield store, store.url("ada")


@contextmanager
def no_such_command(kind: str) -> Iterator[tuple[Server, str]]:
    with server(kind, "--rename-command", "EVALSHA", "") as store:
        yield store, store.url()


@contextmanager
def a_cluster(
    kind: str, slots: str, others: str = "", moving: str = ""
) -> Iterator[tuple[Server, str]]:
    """A node whose configuration says who holds which slots; the other node is nowhere, and nobody
    asks it.

    Args:
        slots: This node's.
        others: The other node's.
        moving: The slot that moves, as `[slot->-node]`.
    """
    with ExitStack() as ports:
        port, bus, away, away_bus = (ports.enter_context(held_port()) for _ in range(4))
        nodes = (
            f"{SELF} 127.0.0.1:{port}@{bus} myself,master - 0 0 1 connected {slots} {moving}"
        ).rstrip() + "\n"
        if others:
            nodes += (
                f"{OTHER} 127.0.0.1:{away}@{away_bus} master - 0 0 2 connected {others}".rstrip()
                + "\n"
            )
        nodes += "vars currentEpoch 2 lastVoteEpoch 0\n"
        options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "600000",
            "--bind",
            "127.0.0.1",
        ]
        options += ["--port", str(port), "--cluster-port", str(bus)]
        store = ports.enter_context(server(kind, *options, files={"nodes.conf": nodes}))
        if slots:
            until(
                lambda: store.admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok",
                "the cluster works",
            )
        yield store, store.url()


def until(predicate: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not predicate():
        assert time.monotonic() < deadline, f"waited in vain until {what}"


def _says(admin: redis.Redis) -> str:
    try:
        admin.ping()
    except redis.ResponseError as error:
        return str(error).partition(" ")[0]
    return ""


STATES: dict[str, tuple[Callable[[str], Any], str]] = {
    "OOM": (no_memory, "has no memory left"),
    "MISCONF": (no_disk, "cannot write to its disk"),
    "NOREPLICAS": (no_replicas, "reaches too few replicas"),
    "READONLY": (a_replica, "is a replica, which takes no writes"),
    "MASTERDOWN": (a_lost_replica, "is a replica that has lost its primary"),
    "BUSY": (a_busy_script, "is busy with a script"),
    "WRONGPASS": (a_wrong_password, "refuses this user name and password"),
    "NOAUTH": (no_password, "wants a password"),
    "no database": (no_such_database, "has no database of this number"),
    "NOPERM": (no_rights, "does not let its user do this"),
    "ACL in a script": (no_rights_in_scripts, "does not let its user do this"),
    "no command": (no_such_command, "does not know a command"),
    "CLUSTERDOWN": (lambda kind: a_cluster(kind, ""), "is a node of a cluster that does not work"),
    "MOVED": (lambda kind: a_cluster(kind, "0", f"1-{SLOTS - 1}"), "another one holds these keys"),
    "keys of others in a script": (
        lambda kind: a_cluster(kind, *divided()),
        "in different slots of it",
    ),
    "ASK": (
        lambda kind: a_cluster(kind, f"0-{SLOTS - 1}", " ", moving()),
        "another one receives these keys",
    ),
}


def divided() -> tuple[str, str]:
    """This node holds the slot of the key that a script names, and not those of the keys that it
    makes of that.
    """
    own = slot(f"bull:{QUEUE}:")
    return str(own), " ".join(
        f"{first}-{last}" for first, last in ((0, own - 1), (own + 1, SLOTS - 1))
    )


def moving() -> str:
    return f"[{slot(f'bull:{QUEUE}:')}->-{OTHER}]"


def slot(key: str) -> int:
    return int(key_slot(key.encode()))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def terminal(
    in_process: Callable[..., tuple[int, str, str]], acme: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """See `in_process`; the board is asked by these tests, too."""
    monkeypatch.setenv("CORRAL_BOARD_ENABLED", "true")
    monkeypatch.setattr(sys, "path", [str(acme), *sys.path])
    return in_process


@pytest.mark.parametrize("state", STATES)
def test_every_caller_gets_one_sentence_and_what_to_do(
    kind: str, state: str, terminal: Callable[..., tuple[int, str, str]]
) -> None:
    made, sentence = STATES[state]
    with made(kind) as (_, url):
        raised = asyncio.run(_enqueue(url))
        assert sentence in str(raised)
        assert raised.hint
        assert raised.outcome == "refused"
        assert PASSWORD not in str(raised)
        for arguments in (("enqueue", QUEUE, "{}"), ("pause", QUEUE)):
            code, out, err = terminal(url, *arguments)
            assert (code, out) == (4, ""), (arguments, err)
            error, hint = (line for line in err.splitlines() if not line.startswith("{"))
            assert error.startswith("error: the store")
            assert hint.startswith("  hint: ")
        for arguments in (
            ("queues",),
            ("audit",),
            ("schedules",),
            ("job", "list", QUEUE),
        ):  # some can be looked at
            code, _, err = terminal(url, *arguments)
            assert code in {0, 4}, (arguments, err)
            assert "Traceback" not in err
        status, page = asyncio.run(_look(url))
        assert "Traceback" not in page
        assert status in {200, 503}, page[:500]


async def _enqueue(url: str) -> StoreUnavailable:
    provider = Provider("acme", "1.0", "wheel")
    catalog = Catalog(MappingProxyType({QUEUE: CatalogEntry(letters, provider, "")}))
    jobs = RedisJobScheduler(
        catalog, Plugins.load([]).job_hooks, url=url, prefix="bull", max_payload_bytes=1024
    )
    try:
        with pytest.raises(StoreUnavailable) as raised:
            await jobs.enqueue(letters, Letter())
        return raised.value
    finally:
        await jobs.close()


async def _look(url: str) -> tuple[int, str]:
    board = Board(authorize=Host().who, url=url)
    try:
        got = await Browser(board, "admin").ask("GET", f"/queues/{QUEUE}")
        return got.status, got.text
    finally:
        await board.close()


@pytest.mark.asyncio
async def test_a_worker_that_waits_notices_that_its_store_becomes_a_replica(
    kind: str, wait_until: Any
) -> None:
    with server(kind) as store:
        link = blocking_link(store.url(), "bull:letters:w:one")
        waiting = asyncio.create_task(link.call("BZPOPMIN", "bull:letters:marker", 4))
        await wait_until(lambda: store.admin.info("clients")["blocked_clients"] == 1, "it waits")
        store.admin.replicaof("127.0.0.1", free_port())
        with pytest.raises(
            StoreUnavailable, match="has become a replica while a command waited"
        ) as raised:
            await waiting
        assert raised.value.outcome == "refused"
        await link.close()

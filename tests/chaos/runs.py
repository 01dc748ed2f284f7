"""The runs: a store, workers and producers under load, and one coroutine that does to them what the
run is about.

A run is a `Run`: its name, how its store is configured, its nemesis, and what its faults account
for. `perform` makes the load, calls the nemesis, lets everything come to rest and has the checker
judge what is left. Both sides (Corral, and BullMQ for Node in its place) get the same load and the
same faults, drawn from the same seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from chaos import checker, history
from chaos.checker import Bounds, Snapshot, run_faults, snapshot
from chaos.journal import Line
from chaos.processes import Program, Store
from chaos.proxy import Proxy
from chaos.scene import Scene, staged
from chaos.sides import CONCURRENCY, LOCK_SECONDS, NOTHING, Side
from corral.jobs import Durability
from corral.testing import find_leaks

WORKERS, PRODUCERS = 3, 2
ROUNDS, LONG_ROUNDS = 1, 3
"""How often a nemesis does what it does: once, and at length."""
BASE = "bull:chaos:"
MAX_EVENTS = 1000
"""Where the event stream is cut: a run writes more."""
PLAN_SECONDS = 120.0
"""Longer than any run: the run stops its producers before that."""
DRAIN_SECONDS = 30.0
"""How long a queue may take to come to rest after the last fault."""
RESUME_SECONDS = 10.0
"""How long work may take to go on after an outage before the next one begins."""
ADMIN = "admin on >admin ~* &* +@all"
"""A user of the store's that no fault takes its rights from."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
TICK_MS = 1000
HOLDS = ("fetched", "effect", "failing")
LONG_JOB_MS = 2500
"""Longer than a lock and a stalled check: the job of a frozen worker is started elsewhere, and not
at its end then.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the table.

    Attributes:
        name: The letter of the reliability page, and more where there are several of them.
        about: What happens, in a few words.
        nemesis: Makes the faults; begins the load itself.
        store: How the store is configured.
        rate: Jobs per second.
        every_ms: The period of a schedule that runs beside; 0: none does.
        bounds: What its faults account for, all but the extra starts.
        durability: What producers ask for. Only Corral's can, and with one only Corral makes the
        run.
    """

    name: str
    about: str
    nemesis: Callable[[Load], Awaitable[None]]
    store: Mapping[str, object] = field(default_factory=dict)
    rate: float = 150.0
    every_ms: int = 0
    bounds: Bounds = field(default_factory=Bounds)
    durability: Durability | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a run.

    Attributes:
        run: Its name.
        side: Who worked.
        seed: What all of it was drawn from.
        seconds: How long it took.
        acked: How many jobs were acknowledged.
        unknown: How many may have been written.
        refused: How many certainly were not.
        lost: How many acknowledged jobs are gone.
        lost_age: How old the oldest lost acknowledgement was when the store, or its replica, was
        back, in seconds.
        doubled: How many starts there were beyond one for each job and one for each of its
        failures.
        unfinished: How many jobs have not completed when the run has waited for them.
        stalls: How many stalls were charged.
        recovery: The longest time from a fault until work went on, in seconds.
        accepted: The longest time from an outage's end until a job was acknowledged, in seconds.
        late: Within which time 99 of 100 due jobs started that did not stall, in seconds.
        overlap: For how long two starts of one job ran at once, at most, in seconds.
        refused_effects: How many effects came from a start that a later one had overtaken.
        faults: How many faults there were, by name.
        hit: What the kills hit.
        violations: What is wrong, a sentence each.
    """

    run: str
    side: str
    seed: int
    seconds: float
    acked: int
    unknown: int
    refused: int
    lost: int
    lost_age: float
    doubled: int
    unfinished: int
    stalls: int
    recovery: float
    accepted: float
    late: float
    overlap: float
    refused_effects: int
    faults: Mapping[str, int]
    hit: Mapping[str, int]
    violations: Sequence[str]

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {name}" for name, count in self.faults.items())
        hit = (
            f"; hit: {', '.join(f'{count} x {kind}' for kind, count in sorted(self.hit.items()))}"
            if self.hit
            else ""
        )
        return (
            f"{self.side}, run {self.run}, seed {self.seed}, {self.seconds:.1f} s: {self.acked} jobs acknowledged, "
            f"{self.unknown} unknown, {self.refused} refused; {self.lost} lost"
            + (f" (acknowledged up to {self.lost_age:.2f} s before)" if self.lost else "")
            + f", {self.doubled} extra starts, {self.unfinished} unfinished, {self.stalls} stalls; longest recovery "
            f"{self.recovery:.2f} s"
            + (f" (first acknowledgement {self.accepted:.2f} s)" if self.accepted else "")
            + f", due jobs late by {self.late * 1000:.0f} ms (p99), two at once for "
            f"{self.overlap * 1000:.0f} ms, {self.refused_effects} effects refused; {faults}{hit}"
        )


class Load:
    """Workers and producers on a scene, for one run.

    Attributes:
        scene: Where they work.
        chance: What everything random is drawn from.
        rounds: How often the nemesis does what it does.
        workers: Those that live.
        url: What they are given as their store's.
        control: A client of the store's that no fault shuts out.
        extra_starts: How many of them the faults so far account for.
        notes: What went wrong on the way.
        long: The jobs that run longer than a lock.
        stack: What is entered here lasts until the run has been judged.
    """

    def __init__(
        self,
        run: Run,
        side: Side,
        scene: Scene,
        chance: random.Random,
        rounds: int,
        stack: AsyncExitStack,
    ) -> None:
        self.scene = scene
        self.chance = chance
        self.rounds = rounds
        self.stack = stack
        self.workers: list[Program] = []
        self.url = scene.store.url
        self.control = self._control_of(scene.store)
        self.extra_starts = 0
        self.notes: list[str] = []
        self.long: set[str] = set()
        self._run = run
        self._side = side
        self._producers: list[Program] = []
        self._plans = 0

    def _control_of(self, store: Store) -> redis.asyncio.Redis:
        client = redis.asyncio.Redis(
            unix_socket_path=str(store.socket),
            username="admin",
            password="admin",
            decode_responses=True,
        )
        self.stack.push_async_callback(client.aclose)
        return client

    def move_to(self, store: Store) -> None:
        """Look at another store from now on: it has taken the place of the scene's."""
        self.scene.store = store
        self.control = self._control_of(store)

    # the load

    async def open(
        self, *, urls: Sequence[str] = (), environments: Sequence[Mapping[str, str]] = ()
    ) -> None:
        """Start the workers.

        Args:
            urls: The store's for each of them, if it is not the scene's; producers are given the
            first one.
            environments: More of the environment of each.
        """
        self.url = urls[0] if urls else self.url
        await self.scene.store.client.hset(f"{BASE}meta", "opts.maxLenEvents", MAX_EVENTS)
        for number in range(WORKERS):
            self.hire(
                environments[number] if environments else NOTHING,
                url=urls[number] if urls else None,
            )
        await self.scene.until(
            lambda: all(each.has_started for each in self.workers), "the workers have started"
        )

    def hire(self, environment: Mapping[str, str] = NOTHING, *, url: str | None = None) -> None:
        """Start one more worker; it may take a second until it works.

        Args:
            environment: More of its environment.
            url: Its store's, if it is not that of the others.
        """
        every_ms = self._run.every_ms
        self.workers.append(
            self._side.worker(
                self.scene, url or self.url, every_ms=every_ms, environment=environment
            )
        )

    async def begin(self) -> None:
        """Start the producers; returns when jobs run."""
        self._producers += [self.produce(self._run.rate / PRODUCERS) for _ in range(PRODUCERS)]
        await self.scene.until(
            lambda: all(each.has_started for each in self._producers), "the producers have started"
        )
        await self.scene.until(lambda: len(self.scene.starts()) > 10, "the load is on")

    def produce(self, rate: float, holds: Sequence[str] = (), url: str | None = None) -> Program:
        """Start a producer.

        Args:
            rate: Jobs per second.
            holds: What jobs there are, one every 0.4 s, that hold their process where the word
            says.
            url: Its store's, if it is not the workers'.
        """
        self._plans += 1
        plan = self.scene.folder / f"plan-{self._plans}.jsonl"
        wishes = planned(self.chance, f"p{self._plans}", rate, holds)
        self.long |= {each["id"] for each in wishes if each["data"]["ms"] == LONG_JOB_MS}
        plan.write_text("".join(json.dumps(each) + "\n" for each in wishes), "utf-8")
        return self._side.producer(self.scene, url or self.url, plan, self._run.durability)

    async def close(self) -> None:
        """Let everything come to rest, and end it; a second call does nothing."""
        if not self.workers:
            return
        for each in self._producers:
            each.terminate()
        for each in self._producers:
            await each.ended()
        await self._drained()
        for each in self.workers:
            with suppress(AssertionError):
                await self.scene.until(lambda: each.has_started, "a worker has started")
            each.terminate()
        codes = [await each.ended() for each in self.workers]
        if any(codes):
            self.notes.append(f"the workers exited with {codes}")
        self.workers.clear()

    async def _drained(self) -> None:
        async def is_empty() -> bool:
            async with self.control.pipeline(transaction=True) as pipe:
                for name in ("wait", "active"):
                    pipe.llen(BASE + name)
                for name in ("prioritized", "delayed"):
                    pipe.zcard(BASE + name)
                return not any(await pipe.execute())

        await self.attempt(
            self.scene.until(is_empty, "the queue is empty", seconds=DRAIN_SECONDS, every=0.05)
        )

    # faults

    async def attempt(self, wait: Awaitable[None]) -> bool:
        """Wait for something that may not come: then it is noted, and the run goes on."""
        try:
            await wait
        except AssertionError as error:
            self.notes.append(str(error))
            return False
        return True

    @contextmanager
    def fault(self, name: str, pid: int = 0) -> Any:
        """Write down when a fault begins and ends."""
        self.scene.journal.write("fault.begin", name, pid)
        try:
            yield
        finally:
            self.scene.journal.write("fault.end", name, pid)

    async def passed(self, least: float, most: float | None = None) -> None:
        """Wait for so many seconds, or for a random time between two."""
        await self.scene.passed(time.time() + (self.chance.uniform(least, most) if most else least))

    async def went_on(self, since: float, event: str = "start") -> None:
        """Wait until a job has started, or something else has happened to one, after a moment."""
        journal = self.scene.journal
        await self.attempt(
            self.scene.until(
                lambda: any(
                    line.at > since for line in reversed(journal.lines()) if line.event == event
                ),
                f"work goes on after {self._last_fault()!r}: {event}",
                seconds=RESUME_SECONDS,
                every=0.02,
            )
        )

    def _last_fault(self) -> str:
        return [line.id for line in self.scene.journal.lines() if line.event == "fault.begin"][-1]

    def at_work(self) -> Program:
        """Any of the workers that work."""
        started = [each for each in self.workers if each.has_started]
        return self.chance.choice(started or self.workers)

    def kill(self, worker: Program, *, idle: bool = False) -> None:
        """`kill -9` a worker, and start another."""
        worker.kill()
        self.scene.journal.write("fault.begin", history.WORKER_KILLED, worker.pid)
        self.scene.journal.write("fault.end", history.WORKER_KILLED, worker.pid)
        self.extra_starts += 0 if idle else CONCURRENCY
        self.workers.remove(worker)
        self.hire()

    def hold(self) -> None:
        """Have jobs enqueued that hold their process, one of each kind, for `kill_held`."""
        self._producers.append(self.produce(10.0, HOLDS))

    async def kill_held(self, where: str) -> None:
        """`kill -9` a worker in the moment that a job marks."""

        def held() -> list[Line]:
            lines = self.scene.journal.lines()
            return [
                line
                for line in lines
                if line.event == "hold" and line.where == where and line.pid in living
            ]

        living = {each.pid: each for each in self.workers}
        if await self.attempt(
            self.scene.until(held, f"a job holds its process: {where}", every=0.01)
        ):
            self.kill(living[held()[0].pid])

    async def freeze(self, seconds: float) -> None:
        """Stop a worker that runs a long job for so long, and let it go on."""

        await self.runs_long(self.workers)
        worker = self.chance.choice([each for each in self.workers if self._long_of(each)])
        with self.fault(history.FROZEN, worker.pid):
            worker.freeze()
            await self.passed(seconds)
        worker.thaw()
        self.extra_starts += CONCURRENCY

    async def runs_long(self, workers: Sequence[Program]) -> None:
        """Wait until one of some workers is in the middle of a job that runs longer than a lock."""
        await self.scene.until(
            lambda: any(map(self._long_of, workers)), "a worker runs a long job", every=0.02
        )

    def _long_of(self, worker: Program) -> set[str]:
        return self.scene.journal.running(worker.pid) & self.long

    async def kill_producer_after_send(self) -> None:
        """`kill -9` a producer whose requests the store has, and which has read no reply."""
        sent = asyncio.Event()
        mark = f"p{self._plans + 1}-".encode()

        def is_add(request: bytes) -> bool:
            if mark in request:
                sent.set()
            return False

        store = self.scene.store
        async with Proxy(self.scene.folder / f"producer-{self._plans}", store.socket) as proxy:
            proxy.cut = is_add
            proxy.late = lambda _: 30.0 if sent.is_set() else 0.0
            doomed = self.produce(100.0, url=proxy.url)
            await self.scene.until(lambda: proxy.held, "a reply is held back")
            doomed.kill()
            with self.fault(history.PRODUCER_KILLED, doomed.pid):
                pass


def planned(
    chance: random.Random, name: str, rate: float, holds: Sequence[str]
) -> list[dict[str, Any]]:
    """What a producer enqueues: mostly short jobs, some that fail once, are delayed, or run longer
    than a lock.
    """
    wishes: list[dict[str, Any]] = []
    for number in range(int(PLAN_SECONDS * rate)):
        work: dict[str, Any] = {"ms": chance.randrange(50), "fenced": True}
        wish = {
            "at": number / rate,
            "id": f"{name}-{number:05}",
            "data": work,
            "delay_ms": 0,
            "attempts": 1,
        }
        kind = chance.random()
        if kind < 0.10:
            wish["delay_ms"] = chance.randrange(200, 2000)
        elif kind < 0.13:
            work["fails"], wish["attempts"] = 1, 2
        elif kind < 0.145:
            work["ms"] = LONG_JOB_MS
        wishes.append(wish)
    for place, where in enumerate(holds):
        held = wishes[int((0.5 + 0.4 * place) * rate)]
        fails = 1 if where == "failing" else 0
        held |= {
            "delay_ms": 0,
            "attempts": fails + 1,
            "data": {"ms": 5, "fenced": True, "fails": fails, "holds": where},
        }
    return wishes


# run A


async def kill_and_freeze(load: Load) -> None:
    await load.open()
    load.kill(load.at_work(), idle=True)
    await load.begin()
    for _ in range(load.rounds):
        load.hold()
        for where in HOLDS:
            await load.kill_held(where)
        await load.freeze(load.chance.uniform(1.5, 3.0))
        await load.kill_producer_after_send()
        doomed = load.at_work()
        await load.scene.until(
            lambda: load.scene.journal.running(doomed.pid), "a worker is at work", every=0.02
        )
        load.kill(doomed)
        await load.freeze(load.chance.uniform(0.5, 1.0))


# run B


async def crash_the_store(load: Load) -> None:
    """Kill the store twice in each round, and let the power fail once."""
    await load.open()
    await load.begin()
    store = load.scene.store
    for _ in range(load.rounds):
        for _ in range(2):
            await load.passed(0.3, 0.8)
            await _down(load, "store killed")
        async with _sizes(store.written) as sizes:
            await load.passed(2.2, 2.6)
        await _down(load, history.POWER_LOST, lambda: _lose_power(load, sizes))


async def _down(load: Load, name: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Kill the store, do something to its files, and start it again."""
    with load.fault(name):
        await load.scene.store.kill()
        meanwhile()
        back = await load.scene.store.start()
    load.extra_starts += WORKERS * CONCURRENCY
    await load.went_on(back)


@asynccontextmanager
async def _sizes(file: Path) -> AsyncIterator[list[tuple[float, int]]]:
    """The sizes of a file, and when it had them, as long as the block lasts."""
    sizes: list[tuple[float, int]] = []

    async def look() -> None:
        while True:
            sizes.append((time.time(), file.stat().st_size))  # noqa: ASYNC240  # takes microseconds
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look(), name="sizes")
    try:
        yield sizes
    finally:
        looking.cancel()


def _lose_power(load: Load, sizes: Sequence[tuple[float, int]]) -> None:
    """Leave of the append-only file what a machine without power would: with `always` all, and half
    a record more.
    """
    written = load.scene.store.written
    if load.scene.store.options["appendfsync"] == "always":
        with written.open("ab") as file:
            file.write(b"*3\r\n$3\r\nSET\r\n$9\r\nunfin")
        return
    moment = time.time() - load.chance.uniform(1.0, 1.8)
    size = max(size for at, size in sizes if at <= moment)
    os.truncate(written, size - load.chance.randrange(1, 30))


# run C


async def fail_over(load: Load) -> None:
    """Cut a replica off, kill the primary, and have the replica take over the address that
    everybody has.
    """
    front = await load.stack.enter_async_context(
        Proxy(load.scene.folder / "front", load.scene.store.socket)
    )
    replica, link = await _follower(load, "replica-0")
    await load.open(urls=[front.url] * WORKERS)
    await load.begin()
    for number in range(1, load.rounds + 1):
        await load.passed(0.5, 1.0)
        with load.fault(history.REPLICA_CUT_OFF):
            link.hold()
            await load.passed(CUT_SECONDS)
            with load.fault("primary killed"):
                await load.scene.store.kill()
                await load.passed(DOWN_SECONDS)
                await replica.client.replicaof("NO", "ONE")
                front.redirect(replica.socket)
        back = time.time()
        load.extra_starts += WORKERS * CONCURRENCY
        load.move_to(replica)
        replica, link = await _follower(
            load, f"replica-{number}"
        )  # without one, no write is replicated
        await load.went_on(back)
        await load.went_on(back, "enq.ok")
    await load.passed(1.0)


async def _follower(load: Load, name: str) -> tuple[Store, Proxy]:
    """A replica that has what the scene's store has, and the link through which it follows."""
    store, folder = load.scene.store, load.scene.folder / name
    folder.mkdir()
    replica = Store(folder, user=ADMIN)
    link = await load.stack.enter_async_context(Proxy(folder / "unused", store.socket, tcp=True))
    await store.client.config_set(
        "repl-diskless-sync", "no"
    )  # which waits for more replicas, for 5 s
    await replica.start()
    load.stack.push_async_callback(replica.stop)
    await replica.client.replicaof("127.0.0.1", link.port)
    await store.client.set("follows", name)

    async def follows() -> bool:
        return await replica.client.get("follows") == name

    await load.scene.until(follows, f"the {name} follows")
    await store.client.delete("follows")
    return replica, link


CUT_SECONDS, DOWN_SECONDS = 1.5, 0.5
"""How long the replica hears nothing while the primary lives, and nobody has the address."""
IN_FLIGHT_SECONDS = 0.2
"""What was done so shortly before the replica was cut off may have been on its way to it."""


# run D


async def cut_the_network(load: Load) -> None:
    """Lose replies and connections all the time; hold requests up for a while; swallow what open
    connections carry.

    One worker has a link of its own: it is cut from the store for longer than its locks live.
    """
    chance, scene = load.chance, load.scene
    async with (
        Proxy(scene.folder / "proxy", scene.store.socket) as proxy,
        Proxy(scene.folder / "apart", scene.store.socket) as apart,
    ):
        await load.open(urls=[*[proxy.url] * (WORKERS - 1), apart.url])
        await load.begin()
        with load.fault(history.CUTS):
            for each in (proxy, apart):
                each.cut = lambda _: chance.random() < 0.02
                each.severs = lambda _: chance.random() < 0.01
            for _ in range(load.rounds):
                with load.fault(history.DELAYS):
                    for _ in range(10):
                        proxy.delay_seconds = apart.delay_seconds = chance.uniform(0.02, 0.08)
                        await load.passed(0.1)
                    proxy.delay_seconds = apart.delay_seconds = 0.0
                if await load.attempt(load.runs_long(load.workers[-1:])):
                    with load.fault(history.PARTITION, load.workers[-1].pid):
                        apart.hold()
                        await load.passed(2.0)
                    apart.let_go()
                with load.fault(history.BLACK_HOLE):
                    proxy.swallow()
                    apart.swallow()
                await load.passed(1.0)
            for each in (proxy, apart):
                each.cut = each.severs = lambda _: False
        load.extra_starts += proxy.cuts + apart.cuts + load.rounds * (WORKERS + 1) * CONCURRENCY
        await load.close()


# run F


@asynccontextmanager
async def readonly(load: Load) -> AsyncIterator[None]:
    with socket.socket() as taken:  # nobody listens there: the store stays as it is
        taken.bind(("127.0.0.1", 0))
        await load.control.replicaof(*taken.getsockname())
        yield
        await load.control.replicaof("NO", "ONE")


@asynccontextmanager
async def busy(load: Load) -> AsyncIterator[None]:
    await load.control.config_set("busy-reply-threshold", 50)
    other = redis.asyncio.Redis(
        unix_socket_path=str(load.scene.store.socket), username="admin", password="admin"
    )
    endless = asyncio.create_task(other.eval("while true do end", 0), name="endless script")
    yield
    await load.scene.until(lambda: _is_killed(load), "the script is killed", every=0.02)
    with suppress(RedisError):
        await endless
    await other.aclose()


async def _is_killed(load: Load) -> bool:
    try:
        await load.control.script_kill()
    except RedisError:
        return False
    return True


@asynccontextmanager
async def misconf(load: Load) -> AsyncIterator[None]:
    """A snapshot cannot be written: a folder is in its place."""
    place = load.scene.folder / "dump.rdb"
    place.mkdir()
    await load.control.config_set("save", "3600 1")
    await load.control.bgsave()

    async def failed() -> bool:
        return (await load.control.info("persistence"))["rdb_last_bgsave_status"] == "err"

    await load.scene.until(failed, "the snapshot has failed")
    yield
    shutil.rmtree(place)
    await load.control.config_set("save", "")


@asynccontextmanager
async def out_of_memory(load: Load) -> AsyncIterator[None]:
    await load.control.config_set("maxmemory", 1024 * 1024)
    yield
    await load.control.config_set("maxmemory", 0)


@asynccontextmanager
async def password(load: Load) -> AsyncIterator[None]:
    """Connections that are open keep their user: they are ended."""
    await load.control.config_set("requirepass", "secret")
    await load.control.execute_command("CLIENT", "KILL", "TYPE", "normal")
    yield
    await load.control.config_set("requirepass", "")


@asynccontextmanager
async def user_off(load: Load) -> AsyncIterator[None]:
    await load.control.execute_command("ACL", "SETUSER", "default", "off")
    await load.control.execute_command("CLIENT", "KILL", "TYPE", "normal")
    yield
    await load.control.execute_command("ACL", "SETUSER", "default", "on")


@asynccontextmanager
async def right_removed(load: Load) -> AsyncIterator[None]:
    await load.control.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
    yield
    await load.control.execute_command("ACL", "SETUSER", "default", "+@all")


@asynccontextmanager
async def paused(load: Load) -> AsyncIterator[None]:
    await load.control.client_pause(PAUSE_MS, all=True)
    yield
    await load.control.ping()  # answered when the pause is over


@asynccontextmanager
async def scripts_flushed(load: Load) -> AsyncIterator[None]:
    await load.control.script_flush()
    yield


@asynccontextmanager
async def connections_killed(load: Load) -> AsyncIterator[None]:
    await load.control.execute_command("CLIENT", "KILL", "TYPE", "normal")
    yield


@asynccontextmanager
async def loading(load: Load) -> AsyncIterator[None]:
    """A store that takes a while to read its files."""
    store = load.scene.store
    await store.kill()
    records = store.written.read_bytes().count(b"\r\n*")
    await store.start(key_load_delay=max(1, int(LOADING_SECONDS * 1_000_000 / max(records, 1))))
    await load.control.config_set("key-load-delay", 0)
    yield


LOADING_SECONDS, PAUSE_MS = 1.0, 500
STORE_FAULTS: Mapping[str, tuple[Callable[[Load], AbstractAsyncContextManager[None]], float]] = {
    "READONLY": (readonly, 0.4),
    "LOADING": (loading, 0.0),
    "BUSY": (busy, 0.4),
    "MISCONF": (misconf, 0.4),
    "OOM": (out_of_memory, 0.4),
    "NOAUTH": (password, 0.4),
    "user off": (user_off, 0.4),
    "right removed": (right_removed, 0.4),
    "CLIENT PAUSE": (paused, 0.0),
    "SCRIPT FLUSH": (scripts_flushed, 0.0),
    "CLIENT KILL": (connections_killed, 0.0),
}
"""What the store says, who makes it say so, and for how many seconds at least; at most for twice as
long.
"""


async def refuse_in_every_way(load: Load) -> None:
    await load.open()
    await load.begin()
    for _ in range(load.rounds):
        for name in load.chance.sample(list(STORE_FAULTS), len(STORE_FAULTS)):
            make, seconds = STORE_FAULTS[name]
            await load.passed(0.2)
            with load.fault(name):
                async with make(load):
                    await load.passed(seconds, 2 * seconds)
            load.extra_starts += WORKERS * CONCURRENCY
            await load.went_on(time.time())


# run G


def faked(offset: str, folder: Path) -> dict[str, str]:
    """The environment of a process whose clock is wrong: by an offset, or by what a file says."""
    moved = (
        {"FAKETIME": offset} if offset else {"FAKETIME_TIMESTAMP_FILE": str(folder / "faketime")}
    )
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
        **moved,
    }


def moved_seconds(environment: Mapping[str, str]) -> float:
    """How far off the clock of a process with this environment is; blocks for 20 ms."""
    printed = subprocess.run(
        ["date", "+%s"], env={**os.environ, **environment}, capture_output=True, check=True
    ).stdout
    return int(printed) - time.time()


async def move_clocks(load: Load) -> None:
    """One worker is an hour ahead, one an hour behind, and one jumps between both."""
    folder = load.scene.folder
    assert moved_seconds(faked("+3600", folder)) > 3500, "libfaketime moves no clock"
    stepping = folder / "faketime"
    stepping.write_text("+0", "utf-8")
    await load.open(environments=[faked(offset, folder) for offset in ("+3600", "-3600", "")])
    await load.begin()
    for _ in range(load.rounds):
        for offset in ("+3600", "-3600"):
            with load.fault(f"clock moved by {offset} s"):
                stepping.write_text(offset, "utf-8")
            await load.passed(2.0)
    load.extra_starts += CONCURRENCY  # beside other tests a worker may get no processor for as long as its locks live


RUNS = (
    Run("A", "workers and producers killed, workers frozen", kill_and_freeze),
    Run("B always", "store killed, power lost", crash_the_store, store={"appendfsync": "always"}),
    Run(
        "B everysec",
        "store killed, power lost",
        crash_the_store,
        store={"appendfsync": "everysec"},
        bounds=Bounds(lost_seconds=2.0, set_back_seconds=2.1),
    ),
    Run(
        "C",
        "a replica takes over",
        fail_over,
        bounds=Bounds(lost_seconds=IN_FLIGHT_SECONDS, set_back_seconds=IN_FLIGHT_SECONDS),
    ),
    Run(
        "C replicated",
        "a replica takes over, and producers wait for it",
        fail_over,
        bounds=Bounds(set_back_seconds=IN_FLIGHT_SECONDS),
        durability="replicated",
    ),
    Run("D", "replies cut, requests delayed, connections swallowed", cut_the_network, rate=100.0),
    # at this rate a third of the slots are busy: after an outage, what is due does not wait for a
    # slot
    Run("F", "the store refuses in every way it can", refuse_in_every_way, rate=75.0),
    Run("G", "clocks an hour off, and jumping", move_clocks, every_ms=TICK_MS),
)


async def perform(
    run: Run, side: Side, *, site: Path, seed: int, rounds: int, timed: bool = False
) -> Report:
    """Make a run.

    Args:
        run: Which.
        side: Who works.
        site: Where the plugin of the tests is installed.
        seed: What everything random is drawn from.
        rounds: How often the nemesis does what it does.
        timed: Whether bounds in seconds are asserted, too.
    """
    began = time.monotonic()
    chance = random.Random(f"{seed} {run.name}")
    async with (
        staged(site, auto_aof_rewrite_percentage=0, user=ADMIN, **run.store) as scene,
        AsyncExitStack() as stack,
    ):
        load = Load(run, side, scene, chance, rounds, stack)
        await load.attempt(run.nemesis(load))
        await load.close()
        left = await snapshot(scene.store.client, BASE)
        lines = scene.journal.lines()
        bounds = replace(
            run.bounds,
            extra_starts=load.extra_starts,
            **(TIMED.get(run.name[0], {}) if timed else {}),
        )
        leaks = await asyncio.to_thread(find_leaks, scene.store.url)
        violations = [*load.notes, *run_faults(left, lines, bounds), *leaks]
        if run.every_ms:
            violations += checker.tick_faults(lines, run.every_ms)
        return _reported(run, side, seed, time.monotonic() - began, left, lines, violations)


TIMED: Mapping[str, Mapping[str, float]] = {
    "A": {"overlap_seconds": LOCK_SECONDS / 4 + 1},
    "F": {"late_seconds": 1.0},
    "G": {"late_seconds": 0.25},
}
"""Bounds in seconds, by run: how long a thawed worker may run beside its successor, and how late
due jobs start.
"""
RECOVERY_SECONDS = 2.0
"""How long it takes, at most, until a job starts after an outage of less than 30 s."""


def _reported(
    run: Run,
    side: Side,
    seed: int,
    seconds: float,
    left: Snapshot,
    lines: Sequence[Line],
    violations: Sequence[str],
) -> Report:
    answers = history.answers(lines)
    lost = [at for job, at in answers.acked.items() if job not in left.jobs]
    losses = [each.end for each in history.losses(lines)]
    ages = [min((loss - at for loss in losses if loss >= at), default=float("inf")) for at in lost]
    return Report(
        run=run.name,
        side=side.name,
        seed=seed,
        seconds=seconds,
        acked=len(answers.acked),
        unknown=len(answers.unknown),
        refused=len(answers.refused),
        lost=len(lost),
        lost_age=max(ages, default=0.0),
        doubled=history.extra_starts(lines),
        unfinished=sum(job not in left.places["completed"] for job in left.jobs),
        stalls=sum(int(fields.get("stc", 0)) for fields in left.jobs.values()),
        recovery=max(history.recoveries(lines), default=0.0),
        accepted=max(history.acceptances(lines), default=0.0),
        late=checker.late_seconds(left, lines),
        overlap=max(history.overlaps(lines).values(), default=0.0),
        refused_effects=checker.sink(lines)[1],
        faults=Counter(each.name for each in history.spans(lines)),
        hit=history.kills(lines),
        violations=violations,
    )

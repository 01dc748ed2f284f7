"""How figures are taken: loads of jobs, added and drained in rounds in which Corral and BullMQ for
Node take turns.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.peer import Peer, corral_peer, node_is_missing, node_peer
from bench.pinning import pinned, two_cores
from bench.store import Store, find_jemalloc, opened_store

DRAIN_SECONDS = 120.0
"""No drain takes a tenth of this: a peer that stands still is an error, not a slow one."""
POLL_SECONDS = 0.01
WARM_UP_JOBS = 2_000
"""Node compiles what is hot."""
QUICKLY = 10
"""A quick run has so many times fewer jobs."""


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs that every side adds and drains.

    Attributes:
        jobs: How many.
        kind: What they do; see `bench.peers.queues`.
        callers: So many callers each add one job after the other; 0: `bulk` jobs with each call.
        bulk: See `callers`.
        concurrency: How many jobs the worker runs at once; 0: they are only added.
        is_pinned: Whether the client and the store each stay on one core, and not on the same.
        has_jemalloc: Whether the store's memory is jemalloc's.
        is_ours_alone: Whether only Corral is measured.
        is_retried: Whether every job runs more than once; then the worker's start is timed, too.
    """

    jobs: int
    kind: str = "noop"
    callers: int = 0
    bulk: int = 1_000
    concurrency: int = 100
    is_pinned: bool = False
    has_jemalloc: bool = False
    is_ours_alone: bool = False
    is_retried: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side took for one load, in one round; all CPU times in microseconds per job.

    Attributes:
        added: Jobs added per second.
        drained: Jobs drained per second, 0 where they were only added.
        add_us: The store's, for adding.
        drain_us: The store's, for everything after that.
        worker_us: The worker process's, for the same.
    """

    added: float
    drained: float
    add_us: float
    drain_us: float
    worker_us: float

    @property
    def life_us(self) -> float:
        """The store's CPU time for a job's whole life."""
        return self.add_us + self.drain_us


@dataclass(frozen=True, slots=True)
class Taken:
    """The figures of a load.

    Attributes:
        ours: Corral's, round by round; empty where nothing was measured.
        theirs: Those of BullMQ for Node in the same rounds; empty where it is not there.
        note: Why nothing was measured.
    """

    ours: Sequence[Figures] = ()
    theirs: Sequence[Figures] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """A store and the processes that work on it."""

    store: Store
    corral: Peer
    node: Peer | None


@dataclass(slots=True)
class Bench:
    """One run: what was opened stays open until its end, and what was measured is measured once.

    Attributes:
        rounds: Every figure is the median of so many.
        is_quick: Whether a tenth of the jobs will do.
        is_alone: Whether Corral is measured without its peers.
        ending: Closes what was opened.
        instructions: What one job costs the store, by the name of a case of `bench.instructions`;
        empty: not counted.
    """

    rounds: int
    is_quick: bool
    is_alone: bool
    ending: ExitStack
    instructions: dict[str, float] = field(default_factory=dict)
    _stages: dict[Path | None, Stage] = field(default_factory=dict)
    _taken: dict[Load, Taken] = field(default_factory=dict)

    def count(self, jobs: int) -> int:
        """How many jobs, in this run."""
        return jobs // QUICKLY if self.is_quick else jobs

    @property
    def node_note(self) -> str:
        """Why BullMQ for Node is not measured; empty where it is."""
        return "Corral alone was asked for" if self.is_alone else node_is_missing()

    def stage(self, preload: Path | None = None) -> Stage:
        """A store whose server loads `preload` first, Corral and BullMQ for Node; all warm."""
        if preload not in self._stages:
            store = self.ending.enter_context(opened_store(preload))
            corral = self.ending.enter_context(corral_peer(store))
            node = None if self.node_note else self.ending.enter_context(node_peer(store))
            self._stages[preload] = Stage(store, corral, node)
            for peer in (corral, *([node] if node else [])):
                measure(store, peer, Load(WARM_UP_JOBS))
        return self._stages[preload]

    def take(self, load: Load) -> Taken:
        """Measure a load, in rounds in which both sides take turns."""
        if load not in self._taken:
            self._taken[load] = self._measured(load)
        return self._taken[load]

    def _measured(self, load: Load) -> Taken:
        jemalloc = find_jemalloc() if load.has_jemalloc else None
        if load.has_jemalloc and jemalloc is None:
            return Taken(note="libjemalloc2 is not installed")
        cores = two_cores() if load.is_pinned else None
        if load.is_pinned and cores is None:
            return Taken(note="this process may use only one core")
        stage = self.stage(jemalloc)
        if load.has_jemalloc and "jemalloc" not in stage.store.allocator:
            return Taken(note=f"the server did not load it: {stage.store.allocator}")
        node = None if load.is_ours_alone else stage.node
        ours: list[Figures] = []
        theirs: list[Figures] = []
        for number in range(self.rounds):
            for peer, figures in ((stage.corral, ours), (node, theirs)):
                if peer is not None:
                    show_progress(
                        f"{load.kind} at {load.concurrency}, round {number + 1}: {peer.name}"
                    )
                    places = (
                        {} if cores is None else {peer.pid: cores[0], stage.store.pid: cores[1]}
                    )
                    with pinned(places) if places else nullcontext():
                        figures.append(
                            measure(stage.store, peer, replace(load, jobs=self.count(load.jobs)))
                        )
        show_progress("")
        return Taken(ours, theirs)


def measure(store: Store, peer: Peer, load: Load) -> Figures:
    """Add a load's jobs to an empty store, drain them, and say what each took."""
    store.client.flushdb()
    before = store.cpu_seconds()
    if load.callers:
        adding = peer.ask("add", kind=load.kind, count=load.jobs, callers=load.callers)
    else:
        adding = peer.ask("add_bulk", kind=load.kind, count=load.jobs, size=load.bulk)
    add_seconds = store.cpu_seconds() - before
    draining, drain_seconds, worker_seconds = (
        _drain(store, peer, load) if load.concurrency else (math.inf, 0.0, 0.0)
    )
    us = 1e6 / load.jobs
    return Figures(
        added=load.jobs / adding,
        drained=load.jobs / draining,
        add_us=add_seconds * us,
        drain_us=drain_seconds * us,
        worker_us=worker_seconds * us,
    )


def _drain(store: Store, peer: Peer, load: Load) -> tuple[float, float, float]:
    """Run a worker until a load's jobs are completed.

    Returns:
        How many seconds they took, how many of the store's CPU, how many of the worker process's.
    """
    queue = f"{peer.prefix}:{load.kind}"
    since_ms = store.now_ms() if load.is_retried else None
    store_before, worker_before = store.cpu_seconds(), peer.cpu_seconds()
    peer.ask("start", kind=load.kind, concurrency=load.concurrency)
    wait_until(lambda: store.completed(queue) >= load.jobs, f"{peer.name} drains {load.jobs} jobs")
    store_used, worker_used = store.cpu_seconds() - store_before, peer.cpu_seconds() - worker_before
    peer.ask("stop")
    return store.drain_seconds(queue, load.jobs, since_ms), store_used, worker_used


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Ask again and again.

    Raises:
        RuntimeError: What was waited for did not come; the message names it.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {DRAIN_SECONDS:g} s in vain until {what}")
        time.sleep(POLL_SECONDS)


def show_progress(progress: str) -> None:
    """Say on a terminal what is being measured; an empty text clears the line."""
    if sys.stderr.isatty():
        print(f"\r{progress:60}\r", end="", file=sys.stderr, flush=True)

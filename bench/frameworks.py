"""Corral beside other Python frameworks: no-op jobs, drained by one process with a concurrency of
100.

In each round each of them gets a new process, which is ended afterwards: not all of them can stop a
worker and start another one. What their jobs do and how they are configured, the modules of
`bench.peers` say.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.peer import PYTHON_PEERS, python_peer
from bench.peers.requests import CONCURRENCY
from bench.rounds import Bench, Load, measure, show_progress

OURS = "Corral"
OUR_JOBS, THEIR_JOBS = 20_000, 4_000
"""Half a second of work and more; a rate does not depend on it."""


def measure_frameworks(bench: Bench) -> tuple[dict[str, Sequence[float]], list[str]]:
    """Drained jobs per second, by name and round by round; and a line on each configuration."""
    stage = bench.stage()
    rates: dict[str, list[float]] = {name: [] for name in (OURS, *PYTHON_PEERS)}
    notes: dict[str, str] = {}
    ours, theirs = bench.count(OUR_JOBS), bench.count(THEIR_JOBS)
    for number in range(bench.rounds):
        show_progress(f"round {number + 1}: {OURS}")
        rates[OURS].append(
            measure(stage.store, stage.corral, Load(ours, concurrency=CONCURRENCY)).drained
        )
        for name in PYTHON_PEERS:
            show_progress(f"round {number + 1}: {name}")
            stage.store.client.flushdb()
            with python_peer(name, stage.store) as peer:
                peer.ask("add", count=theirs)
                rates[name].append(theirs / peer.ask("drain", count=theirs))
                notes[name] = f"{name}: {peer.about.pop('setup')}; {versions(peer.about)}"
    stage.store.client.flushdb()
    show_progress("")
    return dict(rates), list(notes.values())


def versions(about: dict[str, str]) -> str:
    """A description of a process, in one line."""
    return ", ".join(f"{name} {value}" for name, value in about.items())

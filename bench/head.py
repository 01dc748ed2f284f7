"""What was measured, as the measured processes report it: versions, files, digests, settings
of the store.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.pinning import two_cores
from bench.rounds import Bench
from bench.store import find_jemalloc


def head(bench: Bench) -> Iterator[str]:
    """The lines above the table."""
    stage = bench.stage()
    ours, store = stage.corral.about, stage.store
    usable, busy = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    yield f"machine   {os.cpu_count()} cores ({platform.machine()}), {usable} usable; load before the run: {busy:.1f}"
    cores = two_cores()
    yield "pinning   " + (
        f"rows that say so: client on core {cores[0]}, store on core {cores[1]}; nothing else is pinned"
        if cores
        else "none: this process may use only one core"
    )
    written = "on" if store.writes_file else "off"
    yield f"store     {store.version}, allocator {store.allocator}, append-only file {written}, unix socket"
    jemalloc = find_jemalloc()
    yield f"jemalloc  {jemalloc or 'not installed'}, for the row that says so"
    yield f"Corral    {ours['corral']} of {measured_commit(ours)}, Python {ours['python']}, event loop {ours['loop']}"
    yield f"          {ours['file']}"
    yield f"          add.lua {ours['add']}"
    yield f"          advance.lua {ours['advance']}"
    node = stage.node
    yield "BullMQ    " + (
        f"{node.about['bullmq']} for Node {node.about['node']}"
        if node
        else f"not measured: {bench.node_note}"
    )
    yield f"figures   medians of {bench.rounds} rounds in which the sides take turns"
    yield "          a ratio is Corral's figure divided by the peer's of the same round"
    if bench.is_quick:
        yield "          a quick run: too few jobs to judge by"


def measured_commit(about: dict[str, str]) -> str:
    """The commit of the checkout that the measured files are in, with `-dirty` where files differ
    from it.
    """
    return git(about, "describe", "--always", "--dirty", "--exclude=*") or "no checkout"


def git(about: dict[str, str], *arguments: str) -> str:
    """What git reports about the measured files' checkout, or empty."""
    folder = Path(about["file"]).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()

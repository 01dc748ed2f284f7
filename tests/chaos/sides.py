"""Who works and who produces in a run: Corral, or BullMQ for Node in its place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from chaos.acme_chaos import EPOCH, EVERY_MS, chaos, chaos_ticks
from chaos.processes import Program, epoch
from chaos.scene import Scene
from corral.jobs import Durability

PEER = Path(__file__).with_name("peer.mjs")
TESTS = Path(__file__).parents[1]
CONCURRENCY = 5
LOCK_SECONDS, STALLED_SECONDS = 1.0, 1.0
MAX_STALLED = 10
"""Kills come so often that a job may be hit by several: none shall fail for that."""
NOTHING: Mapping[str, str] = MappingProxyType({})


class Side(Protocol):
    """Starts processes of one kind on a scene."""

    name: str

    def worker(
        self, scene: Scene, url: str, *, every_ms: int = 0, environment: Mapping[str, str] = NOTHING
    ) -> Program:
        """A worker of the queue `chaos`, and with a period of its schedule, too, of the queue
        `chaos-ticks`.
        """
        ...

    def producer(
        self, scene: Scene, url: str, plan: Path, durability: Durability | None = None
    ) -> Program:
        """A producer that does what a plan says; only Corral's can ask for a durability."""
        ...


class Corral:
    """Corral's own workers and producers."""

    name = "Corral"

    def worker(
        self, scene: Scene, url: str, *, every_ms: int = 0, environment: Mapping[str, str] = NOTHING
    ) -> Program:
        return scene.launch(
            url=url,
            serves=served(every_ms),
            concurrency=CONCURRENCY,
            environment={**environment, **({EVERY_MS: str(every_ms)} if every_ms else {})},
            lock_seconds=LOCK_SECONDS,
            stalled_interval_seconds=STALLED_SECONDS,
            max_stalled=MAX_STALLED,
        )

    def producer(
        self, scene: Scene, url: str, plan: Path, durability: Durability | None = None
    ) -> Program:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS), EPOCH: epoch()}
        command = [sys.executable, "-m", "chaos.producing", url, str(scene.journal.path), str(plan)]
        command += [durability] if durability else []
        return hired(scene, Program(command, environment=environment, log=plan.with_suffix(".log")))


class Node:
    """BullMQ for Node.

    Args:
        node_modules: The directory that holds Node's `node_modules`.
    """

    name = "BullMQ for Node"

    def __init__(self, node_modules: Path) -> None:
        self._environment = {"CORRAL_NODE_MODULES": str(node_modules)}

    def worker(
        self, scene: Scene, url: str, *, every_ms: int = 0, environment: Mapping[str, str] = NOTHING
    ) -> Program:
        wish = {
            "serves": served(every_ms),
            "concurrency": CONCURRENCY,
            "lock_ms": int(LOCK_SECONDS * 1000),
            "stalled_ms": int(STALLED_SECONDS * 1000),
            "max_stalled": MAX_STALLED,
            "every_ms": every_ms,
        }
        return self._program(scene, "work", url, wish, environment)

    def producer(
        self, scene: Scene, url: str, plan: Path, durability: Durability | None = None
    ) -> Program:
        assert durability is None, "BullMQ cannot wait for a replica"
        return self._program(scene, "produce", url, {"plan": str(plan)}, NOTHING)

    def _program(
        self,
        scene: Scene,
        role: str,
        url: str,
        wish: Mapping[str, object],
        environment: Mapping[str, str],
    ) -> Program:
        number = sum(1 for _ in scene.folder.glob("peer-*.log"))
        message = {
            **wish,
            "socket": url.removeprefix("unix://"),
            "journal": str(scene.journal.path),
        }
        own = {"PATH": os.environ["PATH"], EPOCH: epoch(), **self._environment, **environment}
        command = ["node", str(PEER), role, json.dumps(message)]
        return hired(
            scene, Program(command, environment=own, log=scene.folder / f"peer-{number}.log")
        )


def served(every_ms: int) -> tuple[str, ...]:
    return (chaos.name, chaos_ticks.name) if every_ms else (chaos.name,)


def hired(scene: Scene, program: Program) -> Program:
    """Have the scene end a program when it ends itself."""
    scene.hired.append(program)
    return program

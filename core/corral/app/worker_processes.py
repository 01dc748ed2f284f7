"""`run_processes`: the parent of worker processes.

It starts them, restarts them, and takes back what dead ones held.

It loads declarations only, so that it stays small, and runs nobody's code but theirs: it is what
must not die.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from corral.app.heartbeat import HURRY, STOP, sending_heartbeats
from corral.app.installed import Installed, log_lock, read_installed
from corral.app.observed import observed_parent
from corral.app.restarts import IN_ORDER, Restarts, exit_code, told_end
from corral.app.service import run_service
from corral.app.working import check_store
from corral.embedded.server import chosen_store
from corral.errors import ConfigurationError, StoreUnavailable
from corral.fleet.heartbeats import Heartbeat, Heartbeats
from corral.fleet.processes import process_name
from corral.loggers import Logger
from corral.observe.logs import configure_logs, name_worker
from corral.observe.probes import ParentProbes
from corral.shutdown import EXIT_SECONDS, GRACE_SECONDS, HURRY_SECONDS, Demand, on_stop, settle
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.worker.consumer import LANES
from corral.worker.stopping import end_tasks

if TYPE_CHECKING:
    from corral.observe.http_server import Address

__all__ = ["listening", "run_processes"]

log = Logger("corral")

MARGIN_SECONDS = 0.1
"""How much longer than its time a worker process may take: it is told to stop a little later than
the parent.
"""
TAKE_BACK_SECONDS = 0.2
"""How long it takes to end processes that hang, and to take back what they held."""
RETRY_SECONDS = 0.5
"""How long the parent waits for a store that is away before it tries again to take jobs back."""


def run_processes(
    served: Mapping[str, int | None],
    processes: int,
    *,
    burst: bool = False,
    concurrency: int | None = None,
    shutdown_timeout_seconds: float | None = None,
    address: Address | None = None,
) -> int:
    """Keep worker processes running until told to stop, or in a burst until each has ended.

    Args:
        served: As for `run_worker`, and so are the options.
        processes: How many.
        burst: Whether they end when nothing waits and nothing runs.
        concurrency: Overrides every queue's own, in each process.
        shutdown_timeout_seconds: Overrides the setting.
        address: Where the parent serves metrics and health, or None; its processes do on the ports
        that follow.

    Returns:
        The exit code: the worst of theirs.

    Raises:
        CorralError: The parent must not start.
    """
    installed = read_installed()
    settings = installed.settings
    configure_logs(settings)
    queues = [
        installed.catalog.get(name).queue.name for name in served or installed.catalog.entries
    ]
    if not queues:
        raise ConfigurationError(
            "no queues are installed: there is nothing to work off",
            hint="a queue is a distribution with an entry point in the group corral.queues: install one",
        )
    options = ["--burst"] if burst else []
    if concurrency is not None:
        options += ["--concurrency", str(concurrency)]
    if shutdown_timeout_seconds is None:
        shutdown_timeout_seconds = settings.worker.shutdown_timeout_seconds
    options += ["--shutdown-timeout", f"{shutdown_timeout_seconds:g}"]
    options += [f"{name}={number}" if number else name for name, number in served.items()]
    log_lock(installed)
    with chosen_store(settings) as url:
        timeout = shutdown_timeout_seconds
        parent = _Parent(
            installed, url, queues, options, burst=burst, timeout_seconds=timeout, address=address
        )
        return run_service(parent.run(processes))


@dataclass(slots=True, eq=False)
class _Child:
    """A worker process.

    Attributes:
        name: Its name, which no other process has had or will have.
        pid: Its process id: ours until `ended` has a result.
        ended: Its exit code, negative for a signal.
        line: Our end of its standard input; None when it is closed.
    """

    name: str
    pid: int
    ended: asyncio.Future[int]
    line: int | None

    def tell(self, what: bytes) -> None:
        """Tell it to stop, or to hurry; see `stop_with_parent`."""
        if self.line is not None:
            with suppress(OSError):  # it has ended
                os.write(self.line, what)

    def close(self) -> None:
        """It has ended: nothing more is told to it."""
        if self.line is not None:
            os.close(self.line)
            self.line = None

    def kill(self) -> None:
        """End it at once."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)


def listening(address: Address | None, place: int) -> Sequence[str]:
    """The options of the process in a place.

    A place keeps its port, whoever fills it: a scraper's target stays.

    Args:
        address: The parent's; its port 0 stays 0.
        place: From 0.
    """
    if address is None:
        return ()
    port = address.port + 1 + place if address.port else 0
    return ("--metrics-host", address.host, "--metrics-port", str(port))


class _Parent:
    def __init__(
        self,
        installed: Installed,
        url: str,
        queues: Sequence[str],
        options: Sequence[str],
        *,
        burst: bool,
        timeout_seconds: float,
        address: Address | None,
    ) -> None:
        self._installed = installed
        self._settings = settings = installed.settings
        self._address = address
        self._url = url
        self._command = [
            sys.executable,
            "-P",
            "-m",
            "corral",
            "worker",
            *options,
        ]  # -P: as the program `corral`
        self._burst = burst
        self._timeout_seconds = timeout_seconds
        self._ended = threading.Event()
        self._name = process_name()
        self._numbers = count(1)
        self._children: dict[int, _Child] = {}
        self._stop = asyncio.Event()
        self._hurries = asyncio.Event()
        self._refused = 0
        self._link = Link(url)
        self._stalled = dict.fromkeys(queues, 0)
        self._stores = [QueueStore(self._link, settings.prefix, queue) for queue in queues]

    async def run(self, processes: int) -> int:
        """Keep so many processes running; returns the exit code."""
        name_worker(self._name)
        await check_store(self._url, lenient=self._settings.is_development)

        def heartbeat() -> Heartbeat:
            return Heartbeat(0.0, draining=self._stop.is_set(), processes=processes)

        with self._reaping(), on_stop(self._demand()):
            async with (
                sending_heartbeats(self._name, heartbeat, self._url, self._settings.prefix),
                self._observed(),
            ):
                log.info("parent started", processes=processes)
                places = [
                    asyncio.create_task(self._keep(n), name=f"corral-place-{n}")
                    for n in range(processes)
                ]
                stopping = asyncio.create_task(self._drain(), name="corral-drain")
                try:
                    codes = await asyncio.gather(*places)
                finally:
                    for child in self._children.values():
                        child.kill()
                    await end_tasks([stopping, *places])
                    await self._link.close()
            code = self._refused or exit_code(codes)
            settle(code)
            self._ended.set()
        log.info("parent stopped", exit_code=code)
        return code

    def _demand(self) -> Demand:
        """How the parent is stopped.

        It ends after its processes, whose time is not up before its own.
        """
        loop = asyncio.get_running_loop()

        def announce() -> None:
            log.info(
                "parent stopping",
                waits_for="worker processes",
                processes=len(self._children),
                timeout_seconds=self._timeout_seconds,
                hint="a second signal hands their jobs back at once",
            )

        return Demand(
            self._timeout_seconds + MARGIN_SECONDS + TAKE_BACK_SECONDS,
            stop=lambda: loop.call_soon_threadsafe(self._stop.set),
            announce=announce,
            hurry=lambda: loop.call_soon_threadsafe(self._hurries.set),
            cut=self._ended.wait,
        )

    @asynccontextmanager
    async def _observed(self) -> AsyncIterator[None]:
        if self._address is None:
            yield
            return
        probes = ParentProbes(self._name, self._url, self._settings.prefix, self._stop)
        async with observed_parent(
            probes, self._stalled, self._installed, self._url, self._address
        ):
            yield

    async def _keep(self, place: int) -> int:
        """Fill one place until it is to stay empty; returns the exit code of its last process."""
        restarts = Restarts()
        while not self._stop.is_set():
            code, lived = await self._run_one(place)
            if self._stop.is_set() or (self._burst and code == 0):
                return code
            seconds = restarts.ended(code, lived, random.random())  # noqa: S311  # keeps places apart, no secret
            if seconds is None:
                log.error("worker processes are refused: no other is started", by=told_end(code))
                self._refused = code
                self._stop.set()
                return code
            log.info("worker process restarts", seconds=round(seconds, 2))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return 0

    async def _run_one(self, place: int) -> tuple[int, float]:
        """Run one process to its end, and take back what it held; returns its exit code, and the
        seconds it lived.
        """
        started = time.monotonic()
        try:
            child = self._start(place)
        except OSError as error:  # no memory, no descriptors, too many processes: for the moment
            log.error("no worker process can be started", error=str(error))  # noqa: TRY400  # a trace tells nothing more
            return 1, 0.0
        code = await child.ended
        lived = time.monotonic() - started
        child.close()
        died = code not in IN_ORDER
        event = "worker process died" if died else "worker process ended"
        (log.warning if died else log.info)(
            event, child=child.name, pid=child.pid, by=told_end(code)
        )
        if code:
            await self._take_back(child.name)
        return code, lived

    def _start(self, place: int) -> _Child:
        name = f"{self._name}.{next(self._numbers)}"
        theirs, ours = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [*self._command, *listening(self._address, place), "--child", name],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 0)],
                setsid=True,  # Ctrl-C is for the parent: to a child it would be the second signal
                setsigmask=(),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        child = _Child(name, pid, asyncio.get_running_loop().create_future(), ours)
        self._children[pid] = child
        log.info("worker process started", child=name, pid=pid)
        return child

    def _reap(self) -> None:
        """Collect every process that has ended: ours, and as PID 1 those that others left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                child.ended.set_result(os.waitstatus_to_exitcode(status))

    async def _take_back(self, name: str) -> None:
        """Put the jobs that a dead process held back to the waiting list, unless the store stays
        away.
        """
        deadline = time.monotonic() + self._settings.worker.lock_seconds
        for store in self._stores:
            while True:
                try:
                    ids = await store.release(name, self._settings.worker.max_stalled, lanes=LANES)
                except StoreUnavailable as error:
                    if self._stop.is_set() or time.monotonic() > deadline:
                        log.warning(
                            "jobs of a dead process are left to the stalled check", error=str(error)
                        )
                        return
                    await asyncio.sleep(RETRY_SECONDS)
                except ResponseError as error:
                    log.warning(
                        "jobs could not be handed back", queue=store.queue, error=str(error)
                    )
                    break
                else:
                    self._stalled[store.queue] += len(ids)
                    if ids:
                        told = {"queue": store.queue, "count": len(ids), "job_ids": ids}
                        log.warning("jobs handed back", child=name, **told)
                    break
        with suppress(StoreUnavailable):
            await Heartbeats(self._link, self._settings.prefix).remove(name)

    async def _drain(self) -> None:
        """When asked to stop: tell every child, and after a while end those that are left."""
        await self._stop.wait()
        for child in self._children.values():
            child.tell(STOP)
        hardest = GRACE_SECONDS + EXIT_SECONDS + MARGIN_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurries.wait(), self._timeout_seconds + hardest)
        if self._hurries.is_set():
            for child in self._children.values():
                child.tell(HURRY)
            await asyncio.sleep(HURRY_SECONDS + EXIT_SECONDS + MARGIN_SECONDS)
        for child in self._children.values():
            log.warning(
                "worker process does not end and is killed", child=child.name, pid=child.pid
            )
            child.kill()

    @contextmanager
    def _reaping(self) -> Iterator[None]:
        """Collect processes as they end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

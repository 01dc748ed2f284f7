"""`run_processes`: the parent of several worker processes.

It starts them, replaces those that end, and puts the jobs of those that died back into their
queues.
It must not die itself: it loads only the declarations of queues, and runs no processor.
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

from corral.app.child_process import HURRY, STOP, keep_record
from corral.app.installed import Installed, log_lock, log_plugin_warnings, read_installed
from corral.app.observation import observe_parent
from corral.app.restart_policy import ORDERLY_EXIT_CODES, RestartPolicy, describe_exit, exit_code
from corral.app.service import run_service
from corral.app.working import check_store
from corral.embedded.server import open_store
from corral.errors import ConfigurationError, StoreUnavailable
from corral.fleet.processes import OwnRecord, ProcessRecord, ProcessRecords, process_name
from corral.loggers import Logger
from corral.observe.logs import configure_logs, name_worker
from corral.observe.probes import ParentProbes
from corral.shutdown import EXIT_SECONDS, GRACE_SECONDS, HURRY_SECONDS, StopHandler, on_stop, settle
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.tasks import end_tasks
from corral.worker.consumer import LANES

if TYPE_CHECKING:
    from corral.observe.http_server import ListenAddress

__all__ = ["address_options", "run_processes"]

log = Logger("corral")

MARGIN_SECONDS = 0.1
"""How much longer than its timeout a worker process may take: it is asked to stop a little later
than the parent.
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
    address: ListenAddress | None = None,
) -> int:
    """Keep worker processes running until asked to stop, or in a burst until each has ended.

    Args:
        served: As for `run_worker`, and so are the options.
        processes: How many.
        burst: Whether they end when nothing waits and nothing runs.
        concurrency: Overrides every queue's own, in each process.
        shutdown_timeout_seconds: Overrides the setting.
        address: Where the parent serves metrics and health, or None. Its processes use the ports
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
            hint="a queue is a distribution with an entry point in the group corral.queues:"
            " install one",
        )
    options = ["--burst"] if burst else []
    if concurrency is not None:
        options += ["--concurrency", str(concurrency)]
    if shutdown_timeout_seconds is None:
        shutdown_timeout_seconds = settings.worker.shutdown_timeout_seconds
    options += ["--shutdown-timeout", f"{shutdown_timeout_seconds:g}"]
    options += [f"{name}={number}" if number else name for name, number in served.items()]
    log_plugin_warnings(installed.plugins)
    log_lock(installed)
    with open_store(settings) as url:
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
        pid: Its process id, valid until `ended` has a result.
        ended: Resolves to its exit code, negative for a signal.
        pipe: Our end of its standard input; None once it is closed.
    """

    name: str
    pid: int
    ended: asyncio.Future[int]
    pipe: int | None

    def request(self, what: bytes) -> None:
        """Ask it to `STOP`, or to `HURRY`; see `stop_with_parent`."""
        if self.pipe is not None:
            with suppress(OSError):  # it has ended
                os.write(self.pipe, what)

    def close(self) -> None:
        """Close the pipe of a process that has ended."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    def kill(self) -> None:
        """End it at once."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)


def address_options(address: ListenAddress | None, place: int) -> Sequence[str]:
    """The command-line options that say where the process in a place serves metrics and health.

    Each process in a place has the same port, so that a scraper's target stays.

    Args:
        address: The parent's address; a port of 0 stays 0.
        place: The number of the place, from 0.
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
        address: ListenAddress | None,
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
        """Keep so many processes running; return the exit code."""
        name_worker(self._name)
        await check_store(self._url, lenient=self._settings.is_development)

        def heartbeat() -> ProcessRecord:
            return ProcessRecord(0.0, draining=self._stop.is_set(), processes=processes)

        own = OwnRecord(Link(self._url), self._settings.prefix, self._name)
        own.start_heartbeats(heartbeat)

        with self._reaping(), on_stop(self._stop_handler()):
            async with (
                keep_record(own),
                self._serving_metrics(),
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

    def _stop_handler(self) -> StopHandler:
        """How signals stop the parent.

        Its own time is longer than that of its processes, so that it ends after them.
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

        return StopHandler(
            self._timeout_seconds + MARGIN_SECONDS + TAKE_BACK_SECONDS,
            stop=lambda: loop.call_soon_threadsafe(self._stop.set),
            announce=announce,
            hurry=lambda: loop.call_soon_threadsafe(self._hurries.set),
            cut=self._ended.wait,
        )

    @asynccontextmanager
    async def _serving_metrics(self) -> AsyncIterator[None]:
        if self._address is None:
            yield
            return
        probes = ParentProbes(self._name, self._url, self._settings.prefix, self._stop)
        async with observe_parent(probes, self._stalled, self._installed, self._url, self._address):
            yield

    async def _keep(self, place: int) -> int:
        """Keep a process in one place; return the exit code of the last one."""
        policy = RestartPolicy()
        while not self._stop.is_set():
            code, lived = await self._run_one(place)
            if self._stop.is_set() or (self._burst and code == 0):
                return code
            seconds = policy.next_start(code, lived, random.random())  # noqa: S311  # keeps places apart, no secret
            if seconds is None:
                log.error(
                    "worker processes refuse their configuration: none is started any more",
                    by=describe_exit(code),
                )
                self._refused = code
                self._stop.set()
                return code
            log.info("another worker process starts after a wait", seconds=round(seconds, 2))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return 0

    async def _run_one(self, place: int) -> tuple[int, float]:
        """Run one process to its end, and put the jobs that it held back into their queues.

        Returns:
            Its exit code, and the seconds it lived.
        """
        started = time.monotonic()
        try:
            child = self._start(place)
        except OSError as error:  # no memory, no descriptors, too many processes: for the moment
            log.error("worker process could not be started: the next try follows", error=str(error))  # noqa: TRY400  # a traceback shows nothing more
            return 1, 0.0
        code = await child.ended
        lived = time.monotonic() - started
        child.close()
        died = code not in ORDERLY_EXIT_CODES
        event = "worker process died" if died else "worker process ended"
        (log.warning if died else log.info)(
            event, child=child.name, pid=child.pid, by=describe_exit(code)
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
                [*self._command, *address_options(self._address, place), "--child", name],
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
        """Collect each process that has ended: ours, and as PID 1 also orphans of others."""
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
        """Put the jobs that a dead process held back into their queues.

        If the store stays away longer than a lock lives, other workers find the jobs by themselves.
        """
        deadline = time.monotonic() + self._settings.worker.lock_seconds
        for store in self._stores:
            while True:
                try:
                    ids = await store.release(name, self._settings.worker.max_stalled, lanes=LANES)
                except StoreUnavailable as error:
                    if self._stop.is_set() or time.monotonic() > deadline:
                        log.warning(
                            "could not hand back the jobs of a dead worker process:"
                            " other workers take them over when their locks expire",
                            child=name,
                            error=str(error),
                        )
                        return
                    await asyncio.sleep(RETRY_SECONDS)
                except ResponseError as error:
                    log.warning(
                        "could not hand back the jobs of a dead worker process in one queue:"
                        " other workers take them over when their locks expire",
                        child=name,
                        queue=store.queue,
                        error=str(error),
                    )
                    break
                else:
                    self._stalled[store.queue] += len(ids)
                    if ids:
                        found = {"queue": store.queue, "count": len(ids), "job_ids": ids}
                        log.warning(
                            "jobs of a dead worker process were handed back", child=name, **found
                        )
                    break
        with suppress(StoreUnavailable):
            await ProcessRecords(self._link, self._settings.prefix).remove(name)

    async def _drain(self) -> None:
        """Wait for the request to stop, pass it on to all children, and kill those that stay."""
        await self._stop.wait()
        for child in self._children.values():
            child.request(STOP)
        hardest = GRACE_SECONDS + EXIT_SECONDS + MARGIN_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurries.wait(), self._timeout_seconds + hardest)
        if self._hurries.is_set():
            for child in self._children.values():
                child.request(HURRY)
            await asyncio.sleep(HURRY_SECONDS + EXIT_SECONDS + MARGIN_SECONDS)
        for child in self._children.values():
            log.warning(
                "worker process did not end in time and is killed", child=child.name, pid=child.pid
            )
            child.kill()

    @contextmanager
    def _reaping(self) -> Iterator[None]:
        """Collect processes as they end, while entered."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

"""`Kit`, the fixture `corral_kit`: a producer, a draining worker and a clock, on a real store."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import FunctionType, MappingProxyType, SimpleNamespace
from typing import Any

from corral.app import Installed, read_installed
from corral.catalog import Catalog, CatalogEntry, Role
from corral.catalog.check import check_processor, check_queue
from corral.inspector import JobInspector, of_worker
from corral.job import P
from corral.jobs import CheckedJob, CheckedSchedule, JobChecks, JobScheduler, Written
from corral.plugins import JobHooks, Provider, Report
from corral.processor import Processor
from corral.producer import RedisJobScheduler
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.testing.draining import Drained, Hops, Run, recording_job_hooks, work_off
from corral.testing.matching import Matching, first_match, no_match
from corral.testing.stored import FoundJob, StoredQueues
from corral.worker.worker import Worker

__all__ = ["Kit"]

DRAIN_SECONDS = 30.0
"""How long a drain may take by the real clock, by default."""
SHUTDOWN_SECONDS = 1.0
"""How long a processor that runs at that time may take to finish."""
_TEST = Provider("the test", "", "application")
"""The provider of queues that a kit is given as objects."""


class Kit(JobScheduler):
    """Corral in a test: the real scripts on a real store, and time that the test moves.

    It holds no connection between two calls, so it is bound to no event loop: a test without one
    calls `asyncio.run(corral_kit.drain())`.

    It is a `JobScheduler`, in this kit's time. It knows the installed queues, as a process of the
    application would, and every queue that it was given as an object.

    Args:
        url: The store.
        prefix: The first part of the keys.

    Attributes:
        url: The store.
        prefix: The first part of the keys.
    """

    def __init__(self, url: str, *, prefix: str = "bull") -> None:
        self.url = url
        self.prefix: str = prefix
        self._clock = Clock(by_hand=True)
        self._handed: dict[str, CatalogEntry] = {}
        self._read: dict[Role, Installed] = {}
        self._hooks: tuple[object, ...] = ()

    def __call__(self, *, hooks: Iterable[object]) -> Kit:
        """A kit of the same store and time in which more code answers hooks.

        It is asked before the installed plugins are:

        ```python
        @hookimpl
        def acme_find_user(user_id: str) -> User:
            return User(user_id, "ada@example.org")


        kit = corral_kit(hooks=[acme_find_user])
        ```

        Args:
            hooks: Functions that are marked with `hookimpl`, or objects that have such functions.
        """
        kit = Kit(self.url, prefix=self.prefix)
        kit._clock, kit._handed = self._clock, self._handed
        kit._hooks = (*self._hooks, *map(_subscriber, hooks))
        return kit

    # time

    @property
    def now(self) -> datetime:
        """The store's time as this kit has moved it; aware, UTC."""
        return _moment(self._now_ms())

    def travel(self, by: timedelta) -> None:
        """Move time forward. Jobs that come due by this run in the next drain.

        Args:
            by: How far; not negative.

        Raises:
            ValueError: It is negative: a store's time runs forward only.
        """
        self._move(_milliseconds(by))

    def travel_to(self, moment: datetime) -> None:
        """Move time forward to a moment.

        Args:
            moment: Aware; not before `now`.

        Raises:
            ValueError: It is before `now`, or has no time zone.
        """
        self._move(_unix_ms(moment) - self._now_ms())

    # a producer

    @asynccontextmanager
    async def connect(self, *queues: Queue[Any]) -> AsyncIterator[RedisJobScheduler]:
        """Open a producer in this kit's time, as `corral.connect` does.

        Args:
            queues: Queues that are not installed, to which it may enqueue by name.
        """
        self._hand(queues)
        installed = self._load_installed("producer")
        async with self._scheduler(installed, installed.plugins.job_hooks) as jobs:
            yield jobs

    def _checks(self) -> JobChecks:
        installed = self._load_installed("producer")
        return JobChecks(
            self._queue,
            self._catalog(installed).entries,
            max_payload_bytes=installed.settings.max_payload_bytes,
            enqueuing=installed.plugins.job_hooks.enqueuing,
            proves_all=True,
        )

    async def _write(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        async with self.connect() as scheduler:
            return await scheduler._write(queue, jobs)  # noqa: SLF001  # the same port

    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:
        async with self.connect() as scheduler:
            return await scheduler._keep_schedule(queue, schedule)  # noqa: SLF001  # the same port

    async def _end_schedule(self, queue: Queue[Any], schedule_id: str) -> bool:
        async with self.connect() as scheduler:
            return await scheduler._end_schedule(queue, schedule_id)  # noqa: SLF001  # the same port

    # what was enqueued

    def jobs(self, queue: Queue[Any] | str) -> list[FoundJob]:
        """All jobs of one queue in the store, in any state, in the order they were enqueued."""
        declared = self._queue(queue)
        with self._open_stored() as stored:
            return stored.jobs(declared)

    def assert_enqueued(
        self, queue: Queue[P] | str, matching: Matching[P] | None = None
    ) -> FoundJob:
        """Fail unless the store has a job of this queue that matches, in any state.

        Args:
            queue: The queue, or its name.
            matching: Some of the payload's fields with their values, by their Python or JSON names,
                or a function of the payload that says whether it is meant; None for any job.

        Returns:
            The first job that matches.

        Raises:
            AssertionError: None does; says what was enqueued.
            ValueError: `matching` names a field that the payload does not have.
        """
        return first_match(self._queue(queue), matching, self._all_jobs())

    def refute_enqueued(self, queue: Queue[P] | str, matching: Matching[P] | None = None) -> None:
        """Fail if the store has a job of this queue that matches; see `assert_enqueued`."""
        no_match(self._queue(queue), matching, self._all_jobs())

    @asynccontextmanager
    async def open_inspector(self) -> AsyncIterator[JobInspector]:
        """Open an inspector in this kit's time, as `corral.open_inspector` does.

        It has everything that is stored of a job, and repairs what an operator would:

        ```python
        await corral_kit.enqueue(emails, mail, job_id="welcome-ada")
        async with corral_kit.open_inspector() as inspector:
            job = await inspector.get(emails, "welcome-ada")
        assert (job.state, job.log_lines) == ("waiting", 0)
        ```
        """
        async with self._inspector(self._load_installed("producer")) as inspector:
            yield inspector

    # a worker

    async def relay(self) -> int:
        """Relay the outbox to the store, as a worker with a database does all the time.

        The database is the one that `CORRAL_DATABASE_URL` names; the fixture
        `corral_database_with_tables` sets it.

        Returns:
            How many jobs were written to the store.

        Raises:
            CorralError: The extra `sql` is not installed, or the database is away.
        """
        from corral import sql  # noqa: PLC0415  # an extra

        engine = sql.create_engine()
        catalog = self._catalog(self._load_installed("producer"))
        relay = sql.OutboxRelay(engine, catalog, url=self.url, prefix=self.prefix)
        try:
            return (await relay.drain()).jobs
        finally:
            await relay.close()
            await engine.dispose()

    async def drain(
        self,
        *processors: Processor,
        for_: timedelta | None = None,
        until: datetime | None = None,
        seconds: float = DRAIN_SECONDS,
    ) -> Drained:
        """Run a worker until nothing waits and nothing runs.

        With `for_` or `until`, time then moves to the next job that comes due, or to the end of a
        rate limit that jobs wait behind, and the worker goes on, until nothing more is due by then;
        and at last to that moment itself.

        Args:
            processors: Processors, each of another queue: `queue.processed_by(function, using=…)`.
                Without any, all that are installed.
            for_: How far time may move.
            until: Up to which moment time may move; aware.
            seconds: How long the drain may take by the real clock.

        Returns:
            Every run with its outcome.

        Raises:
            TimeoutError: There was more to do after `seconds`.
            ValueError: `for_` is negative, or `until` is past.
            CorralError: The installed plugins cannot serve, or a processor cannot be called.
        """
        end_ms = self._end_ms(for_, until)
        deadline = time.monotonic() + seconds
        self._hand([processor.queue for processor in processors])
        _check_processors(processors)
        installed = self._load_installed("producer" if processors else "worker")
        working = processors or [
            entry.processor for entry in installed.catalog if entry.processor is not None
        ]
        names = [processor.queue.name for processor in working]
        runs: list[Run] = []
        job_hooks = recording_job_hooks(installed.plugins.job_hooks, runs)
        worker_settings = installed.settings.worker.model_copy(
            update={"shutdown_timeout_seconds": SHUTDOWN_SECONDS}
        )
        async with (
            self._scheduler(installed, job_hooks) as jobs,
            self._inspector(installed) as inspector,
        ):
            with self._open_stored() as stored:
                hops = Hops(
                    stored, self._clock, queues=names, runs=runs, end_ms=end_ms, deadline=deadline
                )
                worker = Worker(
                    working,
                    url=self.url,
                    prefix=self.prefix,
                    settings=worker_settings,
                    plugins=dataclasses.replace(installed.plugins, job_hooks=job_hooks),
                    jobs=jobs,
                    provided={of_worker: inspector},
                    burst=True,
                    clock=self._clock,
                    idle=hops.to_next,
                )
                await work_off(worker, deadline)
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"the drain did not end in {seconds:g} s: {len(runs)} runs have ended, more is due"
            )
        if end_ms is not None:
            self._move(max(end_ms - self._now_ms(), 0))
        return Drained(tuple(runs))

    def _end_ms(self, for_: timedelta | None, until: datetime | None) -> int | None:
        if for_ is not None and until is not None:
            raise ValueError("give for_ or until, not both")
        if for_ is None and until is None:
            return None
        now_ms = self._now_ms()
        end_ms = (
            _unix_ms(until) if until is not None else now_ms + _milliseconds(for_ or timedelta())
        )
        if end_ms < now_ms:
            raise ValueError(
                f"{_moment(end_ms)} is past: time moves forward only, and it is {_moment(now_ms)}"
            )
        return end_ms

    def _now_ms(self) -> int:
        with self._open_stored() as stored:
            return stored.now_ms() + self._clock.offset_ms

    def _open_stored(self) -> AbstractContextManager[StoredQueues]:
        return StoredQueues.at(self.url, self.prefix)

    def _move(self, by_ms: int) -> None:
        if by_ms < 0:
            raise ValueError(f"time moves forward only, not by {by_ms} ms")
        self._clock.offset_ms += by_ms
        with self._open_stored() as stored:
            stored.shorten_limits(stored.find_limited(), by_ms)

    @asynccontextmanager
    async def _scheduler(
        self, installed: Installed, job_hooks: JobHooks
    ) -> AsyncIterator[RedisJobScheduler]:
        jobs = RedisJobScheduler(
            self._catalog(installed),
            job_hooks,
            url=self.url,
            prefix=self.prefix,
            max_payload_bytes=installed.settings.max_payload_bytes,
            clock=self._clock,
            proves_all=True,
        )
        try:
            yield jobs
        finally:
            await jobs.close()

    @asynccontextmanager
    async def _inspector(self, installed: Installed) -> AsyncIterator[JobInspector]:
        inspector = JobInspector(
            self._catalog(installed), Link(self.url), prefix=self.prefix, clock=self._clock
        )
        try:
            yield inspector
        finally:
            await inspector.close()

    def _load_installed(self, role: Role) -> Installed:
        if role not in self._read:
            installed = read_installed(role)
            plugins = installed.plugins.with_own(*self._hooks)
            self._read[role] = dataclasses.replace(installed, plugins=plugins)
        return self._read[role]

    def _catalog(self, installed: Installed) -> Catalog:
        entries = {**installed.catalog.entries, **self._handed}
        return dataclasses.replace(installed.catalog, entries=MappingProxyType(entries))

    def _queue(self, queue: Queue[P] | str) -> Queue[P]:
        self._hand([queue])
        return self._catalog(self._load_installed("producer")).get(queue).queue

    def _all_jobs(self) -> list[FoundJob]:
        catalog = self._catalog(self._load_installed("producer"))
        with self._open_stored() as stored:
            return [job for entry in catalog for job in stored.jobs(entry.queue)]

    def _knows(self, queue: Queue[Any]) -> bool:
        handed = self._handed.get(queue.name)
        return handed is not None and handed.queue is queue

    def _hand(self, queues: Iterable[Queue[Any] | str]) -> None:
        """Add queues that are not installed to the catalog, checked as installed ones are."""
        report = Report()
        for queue in queues:
            if isinstance(queue, str) or self._knows(queue):
                continue
            entry = CatalogEntry(queue, _TEST, check_queue(queue, _TEST, report))
            report.raise_problems()
            self._handed[queue.name] = entry


def _check_processors(processors: Iterable[Processor]) -> None:
    """Refuse processors that the catalog refuses, with the same message."""
    report = Report()
    for processor in processors:
        check_processor(
            processor,
            f"the processor that the test has for queue {processor.queue.name!r}",
            _TEST,
            report,
        )
    report.raise_problems()


def _subscriber(hook: object) -> object:
    """An object with hooks, as plugins are; a function becomes one."""
    if not isinstance(hook, FunctionType):
        return hook
    return SimpleNamespace(**{hook.__name__: hook})


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _unix_ms(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return _milliseconds(moment - datetime(1970, 1, 1, tzinfo=UTC))


def _moment(unix_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms)

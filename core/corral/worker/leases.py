"""The lease thread: renews the locks of running jobs on a connection and a thread of its own.

A processor that blocks the event loop must not lose its lock, so nothing here runs on the loop. A
renewal never creates a key: a job that was removed while it ran stays removed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corral.store.connection import ThreadLink
from corral.store.queue_store import QueueStore
from corral.worker.outage import ConnectionReport

__all__ = ["Lease", "Leases", "PendingCall"]

LOOP_SILENCE_SECONDS = 300.0
"""After this time without a turn of its event loop a process is hung, and its leases end."""


@dataclass(slots=True, eq=False)
class Lease:
    """One job's lock.

    Attributes:
        store: The job's queue.
        job_id: The job.
        token: The lock's token.
        on_loss: Called with `holder` on the lease thread when another worker has the lock.
        holder: The worker's record of the job.
        renewed: When it was renewed last, by the monotonic clock.
        until: When renewal ends, by the monotonic clock; None: as long as the event loop runs.
    """

    store: QueueStore
    job_id: str | bytes
    token: str
    on_loss: Callable[[Any], object]
    holder: object
    renewed: float
    until: float | None


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call on its way that may fetch jobs.

    The locks of these jobs are renewed from when it is sent until its reply is read.

    Attributes:
        store: The queue, and the lane of the call.
        worker: The worker's name.
        seq: The number of the call.
        renewed: When it was sent, or when its jobs' locks were renewed last, by the monotonic
            clock.
    """

    store: QueueStore
    worker: str
    seq: int
    renewed: float


class Leases:
    """All locks that this worker holds.

    Args:
        url: The store.
        lock_seconds: How long a lock lives without renewal.
        connection: Receives each renewal, and each that failed, on the lease thread.
    """

    def __init__(
        self,
        url: str,
        lock_seconds: float,
        connection: ConnectionReport,
    ) -> None:
        self._url = url
        self._lock_ms = int(lock_seconds * 1000)
        self._age = lock_seconds / 4
        self._connection = connection
        self._held: set[Lease] = set()
        self._pending: set[PendingCall] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._last_turn = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="corral-leases", daemon=True)

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; returns when the thread has ended."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def note_turn(self) -> None:
        """Record that the event loop runs."""
        self._last_turn = time.monotonic()

    def hold(self, leases: Sequence[Lease]) -> None:
        """Renew these from now on."""
        with self._guard:
            self._held.update(leases)

    def release(self, leases: Sequence[Lease]) -> None:
        """Stop renewing these: the store has written their endings."""
        with self._guard:
            self._held.difference_update(leases)

    def expect(self, call: PendingCall) -> None:
        """Renew the locks of the jobs that a call fetches, from now on."""
        with self._guard:
            self._pending.add(call)

    def forget(self, call: PendingCall) -> None:
        """Stop renewing them: the call's reply was read, or will not come."""
        with self._guard:
            self._pending.discard(call)

    def _run(self) -> None:
        link: ThreadLink | None = None
        while not self._stop.wait(self._age / 2):
            due, calls = self._due()
            if not due and not calls:
                continue
            try:
                if link is None:
                    link = ThreadLink(self._url, read_seconds=max(self._age, 0.25))
                queues = {lease.store.base for lease in due} | {call.store.base for call in calls}
                for queue in queues:
                    self._renew(
                        link,
                        [lease for lease in due if lease.store.base == queue],
                        [call for call in calls if call.store.base == queue],
                    )
            except Exception as error:  # noqa: BLE001  # without this thread every lock is lost
                # Closed, not reused: the reply to this renewal might still come.
                if link is not None:
                    link.close()
                link = None
                self._connection.report_failure(error)
            else:
                # Without a due lease nothing may have been written, and a store that refuses writes
                # answers that as well.
                if due:
                    self._connection.report_answer()
        if link is not None:
            link.close()

    def _due(self) -> tuple[list[Lease], list[PendingCall]]:
        now = time.monotonic()
        if now - self._last_turn > LOOP_SILENCE_SECONDS:
            return [], []
        with self._guard:
            leases = [
                lease
                for lease in self._held
                if now - lease.renewed >= self._age and (lease.until is None or now < lease.until)
            ]
            return leases, [call for call in self._pending if now - call.renewed >= self._age]

    def _renew(
        self, link: ThreadLink, leases: Sequence[Lease], calls: Sequence[PendingCall]
    ) -> None:
        started = time.monotonic()
        store = (leases[0] if leases else calls[0]).store
        lost, not_renewed = store.extend(
            link,
            [(lease.job_id, lease.token) for lease in leases],
            self._lock_ms,
            worker=calls[0].worker if calls else "",
            calls=[(call.store.lane, call.seq) for call in calls],
        )
        for place, call in enumerate(calls):
            if place not in not_renewed:
                call.renewed = started
        for place, lease in enumerate(leases):
            lease.renewed = started
            if place not in lost:
                continue
            with self._guard:
                # A job that ended while its renewal was on its way has released its lock itself.
                is_held = lease in self._held
                self._held.discard(lease)
            if is_held:
                lease.on_loss(lease.holder)

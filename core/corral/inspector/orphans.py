"""Orphaned queues: queues in the store that nobody declares.

No plugin of this process declares them, and none of any other process of ours that is running under
this prefix. A plugin was uninstalled while jobs of it were waiting, a queue was renamed, or clients
in other languages use the queue.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from corral.catalog import Catalog
from corral.catalog.record import parsed
from corral.errors import StoreUnavailable
from corral.fleet.processes import live_catalogs
from corral.inspector.limits import Limits
from corral.inspector.sizes import QueueSizes, decode_sizes
from corral.job_state import JobState
from corral.store.codec import fields_of
from corral.store.connection import Link, ThreadLink
from corral.store.keys import process_key, queue_base
from corral.store.queue_search import STEPS, QueueSearch
from corral.store.replies import ResponseError, is_missing_right
from corral.store.scripts import call_again, run, run_blocking, script

__all__ = ["OrphanSearch", "OrphanedQueues", "declared_names"]

REFUSED: Final = (
    "queues that nobody declares are not looked for: the store's user may not call SCAN"
)


@dataclass(frozen=True, slots=True)
class OrphanedQueues:
    """The queues of the store that nobody declares.

    Attributes:
        sizes: Their jobs, by the queue's name; at most 100 queues.
        is_partial: Whether there may be more of them: the search goes on with the next call, or has
            found more than 100, or was refused.
        problem: Why they could not be looked for, as a sentence; else empty.
    """

    sizes: Mapping[str, QueueSizes]
    is_partial: bool = False
    problem: str = ""

    @property
    def with_jobs(self) -> Mapping[str, QueueSizes]:
        """Those with any job, in whatever state, or with keys that cannot be read."""
        return {
            name: each
            for name, each in self.sizes.items()
            if each.quarantined or each.damaged or any(each.counts.values())
        }


def declared_names(catalog: Catalog) -> frozenset[str]:
    """The queues that the plugins of this process declare, those of disabled plugins included."""
    return frozenset(catalog.entries) | catalog.disabled


_Call = tuple[str, tuple[Any, ...]]
"""The name of a script, or "" for a command; and the command's words or the script's only key."""
_Work = Generator[_Call, Any, OrphanedQueues]
"""A search that says what to ask the store, one call after the other, and receives the replies."""


def _next_step(work: _Work, reply: Any, failure: Exception | None) -> _Call | OrphanedQueues:
    """The next call of a search, or its result.

    Args:
        work: The search.
        reply: What the store has answered to the last call.
        failure: What the last call has raised, or None.
    """
    try:
        return work.throw(failure) if failure else work.send(reply)
    except StopIteration as done:
        found: OrphanedQueues = done.value
        return found


class OrphanSearch:
    """Finds orphaned queues for a process that lives long, and counts their jobs.

    Each call makes at most ten steps of the search (10,000 keys), and uses a finished search for
    five minutes. The jobs are counted with each call.

    Args:
        prefix: The first part of the keys.
        declared: The queues that this process declares.
    """

    def __init__(self, prefix: str, declared: Collection[str]) -> None:
        self._prefix = prefix
        self._search = QueueSearch(prefix, declared)

    async def read(self, link: Link, *, whole: bool = False) -> OrphanedQueues:
        """Go on with the search, and count the jobs of what is known.

        Args:
            link: The connection.
            whole: Whether to make all steps of the search at once.

        Raises:
            StoreUnavailable: The store is away.
        """
        work, failure, reply = self._work(whole=whole), None, None
        while not isinstance(step := _next_step(work, reply, failure), OrphanedQueues):
            (name, words), failure = step, None
            try:
                if name:
                    reply = await run(link, script(name, __package__), words, [0])
                else:
                    reply = await call_again(partial(link.call, *words))
            except (StoreUnavailable, ResponseError) as error:
                failure = error
        return step

    def read_blocking(self, link: ThreadLink) -> OrphanedQueues:
        """`read` for a thread."""
        work, failure, reply = self._work(), None, None
        while not isinstance(step := _next_step(work, reply, failure), OrphanedQueues):
            (name, words), failure = step, None
            try:
                if name:
                    reply = run_blocking(link, script(name, __package__), words, [0])
                else:
                    reply = link.call(*words)
            except (StoreUnavailable, ResponseError) as error:
                failure = error
        return step

    def _work(self, *, whole: bool = False) -> _Work:
        search = self._search
        is_done, steps = False, 0
        while not is_done and (whole or steps < STEPS):
            command = search.next_command(time.monotonic())
            if command is None:
                break
            steps += 1
            try:
                is_done = search.take(command, (yield "", command), time.monotonic())
            except StoreUnavailable as error:
                if not is_missing_right(error):
                    raise
                search.refuse(time.monotonic())
                break
        if search.is_refused:
            return OrphanedQueues({}, is_partial=True, problem=REFUSED)
        elsewhere: set[str] = set()
        if search.names:
            elsewhere = yield from self._declared_elsewhere()
        sizes: dict[str, QueueSizes] = {}
        for name in search.names:
            if name not in elsewhere:
                sizes[name] = yield from self._count(name)
        return OrphanedQueues(sizes, is_partial=search.is_partial)

    def _declared_elsewhere(self) -> Generator[_Call, Any, set[str]]:
        """The queues that other running processes declare; none where that cannot be read."""
        try:
            seconds, _ = yield "", ("TIME",)
            records = fields_of((yield "", ("HGETALL", process_key(self._prefix))))
        except ResponseError:
            return set()
        except StoreUnavailable as error:
            if not is_missing_right(error):
                raise
            return set()
        return {
            name for each in live_catalogs(records, int(seconds) * 1000) for name in parsed(each)
        }

    def _count(self, name: str) -> Generator[_Call, Any, QueueSizes]:
        base = queue_base(self._prefix, name)
        try:
            return decode_sizes((yield "counts", (base,)))
        except ResponseError as error:
            problem = f"{base}* cannot be read: {error}"
        except StoreUnavailable as error:
            if not is_missing_right(error):
                raise
            problem = f"{base}* may not be read by the store's user"
        return QueueSizes(dict.fromkeys(JobState), None, Limits(), (problem,))

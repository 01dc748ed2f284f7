"""`QueueTroubles`: one queue's damage, in the log once and for operators as long as it is there."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from corral.loggers import Logger
from corral.store.codec import Damage
from corral.store.replies import RIGHTS_HINT

__all__ = ["ENDING", "RIGHTS", "QueueTroubles"]

log = Logger("corral.worker")

DAMAGE, ENDING, RIGHTS = "damage", "ending", "rights"
"""The kinds of trouble that are told here, see `Worker.troubles`."""
LACKS = "is not worked off: the store's user lacks"
"""In every sentence of the kind RIGHTS: a parent reads sentences in its processes' heartbeats, and
no kinds.
"""


class QueueTroubles:
    """The damage of one queue, as far as its worker knows.

    Args:
        queue: The queue's name.
        troubles: What an operator must know, by queue and kind; see `Worker.troubles`.
    """

    def __init__(self, queue: str, troubles: MutableMapping[tuple[str, str], str]) -> None:
        self._queue = queue
        self._troubles = troubles
        self._logged: set[str] = set()

    def report(self, quarantined: Sequence[Damage], broken: str) -> None:
        """Log what was found damaged, each once, and tell what an operator must repair.

        Args:
            quarantined: What was put into the quarantine.
            broken: What a script says of a key without which the queue cannot be worked off, or
            empty.
        """
        for damage in quarantined:
            if damage.reason not in self._logged:
                self._logged.add(damage.reason)
                log.warning(
                    "put into the quarantine: `corral quarantine` lists it and can return it",
                    queue=self._queue,
                    name=damage.name,
                    reason=damage.reason,
                )
        sentence = f"queue {self._queue!r} cannot be worked off: {broken.removeprefix('DAMAGED ')}"
        if broken and self._troubles.get((self._queue, DAMAGE)) != sentence:
            self._troubles[self._queue, DAMAGE] = sentence
            log.error(
                "queue cannot be worked off: the store answers with an error",
                queue=self._queue,
                error=broken,
            )

    def clear(self) -> None:
        """The queue can be worked off: nothing is broken, or not any more."""
        if self._troubles.pop((self._queue, DAMAGE), None) is not None:
            log.info("queue works again: its damaged key was repaired", queue=self._queue)

    def report_rights(self, lacking: str) -> None:
        """Tell what the store's user may not do, once, or that it may do everything now.

        Args:
            lacking: What it lacks, see `missing_rights`; or empty.
        """
        sentence = f"queue {self._queue!r} {LACKS} {lacking}"
        if not lacking:
            if self._troubles.pop((self._queue, RIGHTS), None) is not None:
                log.info(
                    "queue is worked off: the store's user has its rights now", queue=self._queue
                )
        elif self._troubles.get((self._queue, RIGHTS)) != sentence:
            self._troubles[self._queue, RIGHTS] = sentence
            log.error(sentence, queue=self._queue, hint=RIGHTS_HINT)

    def warn_of_removals(self, counts: Mapping[str, int]) -> None:
        """Say before the first job ends that the declared retention removes what other clients have
        kept.

        Args:
            counts: How many jobs, by state; see `QueueStore.history_at_risk`.
        """
        if counts:
            log.warning(
                "the retention that the queue declares removes finished jobs that other clients have kept, as soon as a"
                " job ends: declare none, and only Corral's own jobs are removed",
                queue=self._queue,
                **counts,
            )

    def report_ending(self, job_id: str, error: Exception) -> None:
        """The store fails over one job's ending; its lock is renewed until it does not.

        Args:
            job_id: The job.
            error: The store's answer.
        """
        self._troubles[self._queue, ENDING] = (
            f"how job {job_id!r} of queue {self._queue!r} ended cannot be written: {error}"
        )
        log.error(
            "a job's ending cannot be written, and is tried again",
            queue=self._queue,
            job_id=job_id,
            error=str(error),
        )

    def clear_ending(self) -> None:
        """The store has taken that ending."""
        self._troubles.pop((self._queue, ENDING), None)

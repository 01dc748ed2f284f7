"""`QueueTroubles`: the problems of one queue, logged once and listed until they are solved."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from corral.loggers import Logger
from corral.store.codec import Damage
from corral.store.replies import RIGHTS_HINT

__all__ = ["ENDING", "RIGHTS", "QueueTroubles"]

log = Logger("corral.worker")

DAMAGE, ENDING, RIGHTS = "damage", "ending", "rights"
"""The kinds of problems that are listed here, see `Worker.troubles`."""
LACKS = "is not processed: the store's user lacks"
"""Part of each sentence of the kind RIGHTS: heartbeats have sentences and no kinds.

A parent process recognises the kind by it.
"""


class QueueTroubles:
    """The problems of one queue, as far as its worker knows.

    Args:
        queue: The queue's name.
        troubles: The problems of all queues, by queue and kind; see `Worker.troubles`.
    """

    def __init__(self, queue: str, troubles: MutableMapping[tuple[str, str], str]) -> None:
        self._queue = queue
        self._troubles = troubles
        self._logged: set[str] = set()

    def report(self, quarantined: Sequence[Damage], broken: str) -> None:
        """Log damage, each once, and list what an operator must repair.

        Args:
            quarantined: The damaged jobs that were put into the quarantine.
            broken: A script's error about a key without which the queue cannot be processed, or
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
        sentence = f"queue {self._queue!r} cannot be processed: {broken.removeprefix('DAMAGED ')}"
        if broken and self._troubles.get((self._queue, DAMAGE)) != sentence:
            self._troubles[self._queue, DAMAGE] = sentence
            log.error(
                "queue cannot be processed: the store answers with an error",
                queue=self._queue,
                error=broken,
            )

    def clear(self) -> None:
        """Remove the queue's damage from the list: the queue can be processed."""
        if self._troubles.pop((self._queue, DAMAGE), None) is not None:
            log.info("queue works again: its damaged key was repaired", queue=self._queue)

    def report_rights(self, missing: str) -> None:
        """Log once which rights the store's user lacks, or that it lacks none any more.

        Args:
            missing: The rights, see `missing_rights`; or empty.
        """
        sentence = f"queue {self._queue!r} {LACKS} {missing}"
        if not missing:
            if self._troubles.pop((self._queue, RIGHTS), None) is not None:
                log.info(
                    "queue is processed: the store's user has its rights now", queue=self._queue
                )
        elif self._troubles.get((self._queue, RIGHTS)) != sentence:
            self._troubles[self._queue, RIGHTS] = sentence
            log.error(sentence, queue=self._queue, hint=RIGHTS_HINT)

    def warn_of_removals(self, counts: Mapping[str, int]) -> None:
        """Warn, before the first job ends, that the declared retention removes others' jobs.

        Args:
            counts: How many jobs, by state; see `QueueStore.count_finished_jobs_at_risk`.
        """
        if counts:
            log.warning(
                "the retention that the queue declares removes finished jobs that other clients"
                " have kept, as soon as a job ends: declare none, and only Corral's own jobs are"
                " removed",
                queue=self._queue,
                **counts,
            )

    def report_ending(self, job_id: str, error: Exception) -> None:
        """Log and list that one job's ending cannot be written; its lock is renewed until it is.

        Args:
            job_id: The job.
            error: The store's answer.
        """
        self._troubles[self._queue, ENDING] = (
            f"the ending of job {job_id!r} of queue {self._queue!r} cannot be written: {error}"
        )
        log.error(
            "a job's ending cannot be written, and is tried again",
            queue=self._queue,
            job_id=job_id,
            error=str(error),
        )

    def clear_ending(self) -> None:
        """Remove that problem from the list: the ending is written."""
        self._troubles.pop((self._queue, ENDING), None)

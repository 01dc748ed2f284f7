"""The whole of it: events that are enqueued, a worker, a database, an application; and workers that
are killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

import corral
from corral import Job, JobState, testing
from corral.outcome import Completed, Failed, Retried
from corral_billing_webhooks_retry import BillingEvent, billing_webhooks_retry, enqueue_event
from corral_billing_webhooks_retry.event_dispatcher import EventDispatcher
from corral_billing_webhooks_retry.processor import EventResult, dispatch_event, open_dispatcher

pytestmark = pytest.mark.asyncio

NAME = billing_webhooks_retry.name

APPLICATION = '''
"""Books a payment for each event; dies, or refuses, once for each file of that name."""
import os, signal
from contextlib import contextmanager
from pathlib import Path
from sqlalchemy import text
from corral import hookimpl

def take_file(name):
    try:
        Path(name).unlink()
    except FileNotFoundError:
        return False
    return True

@hookimpl
async def billing_webhooks_retry_event(event, connection):
    row = {"event": f"{event.provider} {event.event_id}"}
    await connection.execute(text("INSERT INTO payments VALUES (:event)"), row)
    if take_file("refuse") or Path("refuse always").exists():
        raise LookupError("no price")
    if take_file("die before the commit"):
        os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if take_file("die before the completion"):  # the processor has returned, and the store does not know of it
        os.kill(os.getpid(), signal.SIGKILL)
'''


@dataclass
class Site:
    """A folder with an application; a store and a database, which the environment names.

    Attributes:
        folder: Where workers run.
        kit: The store.
        workers: Those that were started; none outlives the test.
    """

    folder: Path
    kit: testing.Kit
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start `corral worker`; its log is in the folder."""
        with (self.folder / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "corral", "worker", NAME]
            self.workers.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))
        return self.workers[-1]

    def states(self) -> dict[str, str]:
        """Where each job is."""
        return {job.id: job.state for job in self.kit.jobs(billing_webhooks_retry)}

    def result(self, job_id: str) -> Any:
        """What the store keeps as a job's result."""
        with redis.Redis.from_url(self.kit.url) as store:
            return json.loads(store.hget(f"{self.kit.prefix}:{NAME}:{job_id}", "returnvalue"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def site(
    payments_db: Any,
    corral_kit: testing.Kit,
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    (tmp_path / "acme_billing.py").write_text(APPLICATION, "utf-8")
    settings = {
        "CORRAL_APP": "acme_billing",
        "CORRAL_WORKER__CONCURRENCY": "8",
        "CORRAL_WORKER__LOCK_SECONDS": "1",
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # the workers of a run compile what they load once, and not in the checkout
        "PYTHONPYCACHEPREFIX": str(compiled),
        "PYTHONPATH": os.pathsep.join(
            [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(
        tmp_path
    )  # this process is a producer, and loads the application too
    monkeypatch.delitem(sys.modules, "acme_billing", raising=False)
    monkeypatch.chdir(tmp_path)
    site = Site(
        tmp_path, testing.Kit(corral_kit.url, prefix=corral_kit.prefix)
    )  # it reads the application
    yield site
    for worker in site.workers:
        worker.kill()
        worker.wait(timeout=15)


class Counted:
    """The processor, and how many of its jobs ran at once."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self.processor = billing_webhooks_retry.processed_by(self._run, using=open_dispatcher)

    async def _run(self, job: Job[BillingEvent], dispatcher: EventDispatcher) -> EventResult:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return await dispatch_event(job, dispatcher)
        finally:
            self._now -= 1


async def send_repeatedly(kit: testing.Kit, event: BillingEvent, times: int) -> int:
    """Send an event that often, 8 times at once; return how many jobs that has made."""
    turn = asyncio.Semaphore(8)

    async def send(jobs: corral.JobScheduler) -> bool:
        async with turn:
            return (await enqueue_event(jobs, event)).created

    async with kit.connect() as jobs:
        return sum(await asyncio.gather(*(send(jobs) for _ in range(times))))


async def test_100_replays_are_one_job_and_one_effect_also_when_the_job_is_forgotten(
    site: Site, payments_db: Any
) -> None:
    processor = billing_webhooks_retry.processed_by(dispatch_event, using=open_dispatcher)
    event, other = payments_db.event(), payments_db.event("evt_2")

    assert await send_repeatedly(site.kit, event, 100) == 1
    (run,) = await site.kit.drain(processor)
    assert run.outcome == Completed(b'{"status":"handled"}')
    assert await send_repeatedly(site.kit, event, 100) == 0, "the queue still knows"

    site.kit.travel(timedelta(days=2))
    await send_repeatedly(site.kit, other, 1)
    await site.kit.drain(processor)
    assert site.states() == {"stripe-evt_2": "completed"}, (
        "as the queue has it, the first job never was"
    )

    assert await send_repeatedly(site.kit, event, 100) == 1
    (run,) = await site.kit.drain(processor)
    assert (run.job.id, run.outcome) == ("stripe-evt_1", Completed(b'{"status":"replayed"}'))
    assert await payments_db.effects() == ["stripe evt_1", "stripe evt_2"]


async def test_100_jobs_of_one_event_8_at_a_time_have_one_effect(
    site: Site, payments_db: Any
) -> None:
    """A producer that gives them no id of their own still pays once."""
    await site.kit.enqueue_many(billing_webhooks_retry, [payments_db.event()] * 100)
    counted = Counted()
    drained = await site.kit.drain(counted.processor)
    assert Counter(run.outcome for run in drained) == {
        Completed(b'{"status":"handled"}'): 1,
        Completed(b'{"status":"replayed"}'): 99,
    }
    assert counted.most == 8
    assert await payments_db.effects() == ["stripe evt_1"]


async def test_what_a_provider_sends_again_after_the_job_has_failed_runs_it_once_more(
    site: Site, payments_db: Any
) -> None:
    """The subscriber is broken for longer than the horizon; then it is mended, and somebody presses
    Resend, three times.
    """
    processor = billing_webhooks_retry.processed_by(dispatch_event, using=open_dispatcher)
    event = payments_db.event()
    assert await send_repeatedly(site.kit, event, 1) == 1
    (site.folder / "refuse always").touch()
    runs = await site.kit.drain(processor, for_=timedelta(days=8))
    assert site.states() == {"stripe-evt_1": "failed"}
    attempts = len(runs)
    span = runs.runs[-1].job.processed_on - runs.runs[0].job.processed_on
    assert timedelta(days=3) <= span <= timedelta(days=5)

    (site.folder / "refuse always").unlink()
    (site.folder / "refuse").touch()  # the first attempt of the new run fails as well
    sent_again = event.model_copy(update={"body": {"id": "evt_1", "livemode": True}})
    async with site.kit.connect() as jobs:
        results = [await enqueue_event(jobs, sent_again) for _ in range(3)]
    assert [(each.created, each.state) for each in results] == [
        (False, JobState.FAILED),
        (False, JobState.WAITING),
        (False, JobState.WAITING),
    ]
    again = await site.kit.drain(processor, for_=timedelta(minutes=5))
    assert [run.job.attempt for run in again] == [1, 2], f"counted from zero, not from {attempts}"
    assert again.runs[-1].outcome == Completed(b'{"status":"handled"}')
    assert again.runs[-1].job.payload == event, "the stored event is kept"
    assert await payments_db.effects() == ["stripe evt_1"]
    assert await send_repeatedly(site.kit, event, 3) == 0
    assert len(await site.kit.drain(processor)) == 0, "a job that has succeeded is left alone"


async def test_a_subscriber_that_raises_is_asked_again_until_it_does_not(
    site: Site, payments_db: Any
) -> None:
    (site.folder / "refuse").touch()
    await send_repeatedly(site.kit, payments_db.event(), 1)
    processor = billing_webhooks_retry.processed_by(dispatch_event, using=open_dispatcher)
    (first,) = await site.kit.drain(processor)
    assert isinstance(first.outcome, Retried)
    said = "HookRaised: acme_billing raised in billing_webhooks_retry_event: LookupError: no price"
    assert first.outcome.reason == said
    assert 22_500 <= first.outcome.delay_ms <= 30_000
    assert await payments_db.count_rows() == (0, 0, 0)

    (second,) = await site.kit.drain(processor, for_=timedelta(minutes=1))
    assert second.outcome == Completed(b'{"status":"handled"}')
    assert await payments_db.effects() == ["stripe evt_1"]


async def test_an_event_that_nobody_can_handle_is_given_up_after_three_days_and_stays_for_somebody_to_look(
    site: Site, payments_db: Any
) -> None:
    def refuse() -> None:
        raise LookupError("no price")

    processor = billing_webhooks_retry.processed_by(
        dispatch_event, using=lambda _: nullcontext(payments_db.dispatcher(refuse))
    )
    await send_repeatedly(site.kit, payments_db.event(), 1)
    drained = await site.kit.drain(processor, for_=timedelta(days=5))
    *before, last = drained.outcomes(NAME)
    assert {type(outcome) for outcome in before} == {Retried}
    assert isinstance(last, Failed)
    first, *_, latest = (run.job.processed_on for run in drained)
    assert timedelta(days=3) <= latest - first <= timedelta(days=4)

    site.kit.travel(timedelta(days=24))
    assert site.states() == {"stripe-evt_1": "failed"}


@pytest.mark.parametrize(
    ("moment", "committed", "status"),
    [("die before the commit", 0, "handled"), ("die before the completion", 1, "replayed")],
)
async def test_a_worker_that_is_killed_leaves_one_effect(
    site: Site, payments_db: Any, wait_until: Any, moment: str, committed: int, status: str
) -> None:
    await send_repeatedly(site.kit, payments_db.event(), 1)
    (site.folder / moment).touch()

    assert site.worker().wait(timeout=60) == -signal.SIGKILL
    assert site.states() == {"stripe-evt_1": "active"}
    assert await payments_db.count_rows() == (committed, committed, 0)

    second = site.worker()
    await wait_until(
        lambda: site.states() == {"stripe-evt_1": "completed"}, "another worker has ended the job"
    )
    second.terminate()
    assert second.wait(timeout=60) == 0
    assert site.result("stripe-evt_1") == {"status": status}
    assert await payments_db.effects() == ["stripe evt_1"]
    assert await payments_db.count_rows() == (1, 1, 0)

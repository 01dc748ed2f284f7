"""The whole of it: `corral worker` as a process of its own, the embedded store, a database, an
application's hooks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import text

import corral
from corral import testing
from corral_usage_period_rollover import UsagePeriodRollover, usage_period_rollover
from corral_usage_period_rollover.processor import open_rollover, roll_over
from corral_usage_period_rollover.usage import begin_subscription, record_usage

pytestmark = pytest.mark.asyncio

HOUR = timedelta(hours=1)

APPLICATION = '''
"""Bills in the rollover's transaction; dies, or refuses, once for each file of that name."""
import os
from contextlib import contextmanager
from datetime import timedelta
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
async def usage_period_rollover_closed(period, connection, jobs):
    row = {"subscription": period.subscription_id, "amount": period.totals.get("requests", 0)}
    follow_up = {"job_id": f"follow-up-{row['amount']}", "delay": timedelta(days=1)}
    await jobs.enqueue("usage-period-rollover", {}, **follow_up)
    await connection.execute(text("INSERT INTO invoices VALUES (:subscription, :amount)"), row)
    if period.totals.get("requests") == 2 and take_file("refuse"):
        raise LookupError("no price")

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if take_file("die"):  # the processor has returned, and the store does not know of it
        os._exit(9)
'''


@dataclass
class Site:
    """A folder with an application, a store and a database.

    Attributes:
        folder: Where the worker runs.
        kit: The store.
        store: A client of it.
        workers: Those that were started; none outlives the test.
    """

    folder: Path
    kit: testing.Kit
    store: redis.Redis
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start `corral worker`; its log is in the folder."""
        command = [sys.executable, "-m", "corral", "worker", "usage-period-rollover"]
        with (self.folder / "worker.log").open("ab") as log:
            self.workers.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))
        return self.workers[-1]

    def follow_ups(self) -> list[str]:
        """The jobs that the application enqueued when it was called, and that the outbox's relay has
        carried here.
        """
        delayed = self.store.zrange("bull:usage-period-rollover:delayed", 0, -1)
        return sorted(job_id for job_id in delayed if job_id.startswith("follow-up"))

    def ticks(self) -> list[str]:
        """The jobs of the schedule that are still to come."""
        delayed = self.store.zrange("bull:usage-period-rollover:delayed", 0, -1)
        return [job_id for job_id in delayed if job_id.startswith("repeat:")]

    def job(self, job_id: str) -> dict[str, str]:
        """What the store keeps of a job."""
        return dict(self.store.hgetall(f"bull:usage-period-rollover:{job_id}"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def site(
    corral_kit: testing.Kit,
    corral_database_with_tables: str,
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    for name in list(os.environ):
        if name.startswith("CORRAL_") and name != "CORRAL_DATABASE_URL":
            monkeypatch.delenv(name)
    (tmp_path / "acme_jobs.py").write_text(APPLICATION, "utf-8")
    with redis.Redis.from_url(corral_kit.url, decode_responses=True) as store:
        settings = {
            "CORRAL_APP": "acme_jobs",
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
        monkeypatch.delitem(sys.modules, "acme_jobs", raising=False)
        monkeypatch.chdir(tmp_path)
        site = Site(tmp_path, corral_kit, store)
        yield site
        for worker in site.workers:
            worker.terminate()  # not killed: a tick may have come just now
            try:
                worker.wait(timeout=60)
            finally:
                worker.kill()


async def prepared(book: Any, site: Site) -> datetime:
    """A subscription whose last three hours are over, with 1, 2 and 3 requests; when the first of
    them began.

    The schedule is there, too, and far from its next tick: whatever the time is, none comes into
    what is tested.
    """
    site.kit.travel_to(site.kit.now.replace(minute=10) + HOUR)
    await site.kit.drain(usage_period_rollover.processed_by(roll_over, using=open_rollover))
    site.store.delete(
        "bull:usage-period-rollover:stalled-check"
    )  # it has just been made: the next one is due in 30 s
    start = datetime.now(UTC) - 3 * HOUR - timedelta(minutes=5)
    table = text("CREATE TABLE invoices (subscription TEXT, amount INT)")
    await book.run(lambda connection: connection.execute(table))
    await book.run(begin_subscription, "ada", "hour", started_at=start)
    for number in range(3):
        await book.run(
            record_usage, "ada", "requests", number + 1, recorded_at=start + number * HOUR
        )
    return start


async def invoices(book: Any) -> list[int]:
    rows = await book.run(
        lambda connection: connection.execute(text("SELECT amount FROM invoices ORDER BY amount"))
    )
    return [amount for (amount,) in rows]


async def enqueue(**options: Any) -> str:
    async with corral.connect() as jobs:
        return (await jobs.enqueue(usage_period_rollover, UsagePeriodRollover(), **options)).id


async def test_a_crash_between_the_effect_and_the_completion_leaves_one_effect(
    books: Any, site: Site, wait_until: Any
) -> None:
    book = books()
    start = await prepared(book, site)
    job_id = await enqueue()
    (site.folder / "die").touch()

    assert site.worker().wait(timeout=60) == 9
    assert "finishedOn" not in site.job(job_id)
    effect = await book.periods(), await book.totals(), await invoices(book)
    assert effect[2] == [1, 2, 3]

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "another worker has ended the job")
    job = site.job(job_id)
    assert (job["ats"], job["stc"]) == ("2", "1"), (
        "it was started again, because its worker had died"
    )
    assert json.loads(job["returnvalue"])["periods"] == 0
    assert (await book.periods(), await book.totals(), await invoices(book)) == effect
    await wait_until(lambda: len(site.follow_ups()) == 3, "the outbox was relayed")
    assert [closed is not None for _, _, closed in effect[0]] == [True, True, True, False]
    assert effect[1] == {(start + number * HOUR, "requests"): number + 1 for number in range(3)}


async def test_a_subscriber_that_raises_fails_the_attempt_and_the_next_one_does_the_rest(
    books: Any, site: Site, wait_until: Any
) -> None:
    book = books()
    start = await prepared(book, site)
    job_id = await enqueue(backoff=corral.Fixed(timedelta(milliseconds=100)))
    (site.folder / "refuse").touch()

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "the job has ended")

    job = site.job(job_id)
    message = json.loads(job["returnvalue"])
    assert job["atm"] == "2"
    assert (
        "subscription 'ada': acme_jobs raised in usage_period_rollover_closed: LookupError: no price"
        in job["stacktrace"]
    )
    assert (message["periods"], message["subscriptions"]) == (2, 1), (
        "the first hour was closed by the first attempt"
    )
    assert datetime.fromisoformat(message["tick"]) == datetime.fromtimestamp(
        int(job["timestamp"]) / 1000, UTC
    )
    await wait_until(lambda: len(site.follow_ups()) == 3, "the outbox was relayed")
    assert await invoices(book) == [1, 2, 3], "the invoice of the attempt that failed is gone"
    assert await book.totals() == {
        (start + number * HOUR, "requests"): number + 1 for number in range(3)
    }


async def test_a_worker_that_starts_installs_the_schedule(site: Site, wait_until: Any) -> None:
    """What its ticks do is shown in moved time (`test_ticks.py`); this holds also while one of them
    runs.
    """
    site.worker()
    await wait_until(site.ticks, "there is a tick to come")
    tick = datetime.fromtimestamp(int(site.ticks()[0].rpartition(":")[2]) / 1000, UTC)
    assert (tick.minute, tick.second, tick.microsecond) == (5, 0, 0)
    assert tick - datetime.now(UTC) <= HOUR

"""The whole of it: `corral worker` as a process of its own, a store, a database, an application, a
queue for mail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("its workers are killed"),
]

APPLICATION = '''
"""Dies at the place that a file names: it has that name."""
import os
from contextlib import contextmanager
from pathlib import Path
from corral import hookimpl
from corral_account_deletions.deletion import Deletion
from corral_account_deletions.traces import Traces

def take_file(name):
    try:
        Path(name).unlink()
    except FileNotFoundError:
        return False
    return True

def dying(name, whole):
    async def call(*arguments, **named):
        if take_file(f"die-before-{name}"):
            os.kill(os.getpid(), 9)
        result = await whole(*arguments, **named)
        if take_file(f"die-after-{name}"):
            os.kill(os.getpid(), 9)
        return result
    return call

Traces.erase = dying("scrub", Traces.erase)
Deletion.finish = dying("finish", Deletion.finish)

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if job.queue.name == "account-deletions" and take_file("die-before-completion"):
        os.kill(os.getpid(), 9)
'''

TABLES = """
[tables.users]
user_column = "id"
action = "delete"

[tables.orders]
user_column = "user_id"
action = "anonymize"
columns = ["user_id", "note"]
"""


@dataclass
class Site:
    """A folder where workers run.

    Attributes:
        folder: The folder.
        store: A client of the store.
        environ: What workers find in their environment.
        workers: Those that were started; none outlives the test.
    """

    folder: Path
    store: redis.Redis
    environ: dict[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start `corral worker`; its log is in the folder."""
        command = [sys.executable, "-m", "corral", "worker", "account-deletions", "emails"]
        with (self.folder / "worker.log").open("ab") as log:
            started = subprocess.Popen(
                command, cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )
        self.workers.append(started)
        return self.workers[-1]

    def mails(self) -> list[str]:
        """Whom the queue `emails` has written to."""
        sent = self.folder / "mails"
        return sent.read_text("utf-8").splitlines() if sent.exists() else []

    def job(self, job_id: str) -> dict[str, str]:
        """What the store keeps of a deletion's job."""
        return dict(self.store.hgetall(f"bull:account-deletions:{job_id}"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def site(
    accounts: Any, corral_store: str, packages: Path, compiled: Path, tmp_path: Path
) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "acme_jobs.py").write_text(APPLICATION, "utf-8")
    (folder / "accounts.toml").write_text(TABLES, "utf-8")
    settings = {
        "CORRAL_APP": "acme_jobs",
        "CORRAL_ACCOUNT_DELETIONS_TABLES": str(folder / "accounts.toml"),
        "CORRAL_WORKER__LOCK_SECONDS": "1",
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # the workers of a run compile what they load once, and not in the checkout
        "PYTHONPYCACHEPREFIX": str(compiled),
        "PYTHONPATH": os.pathsep.join(
            [str(folder), str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    with redis.Redis.from_url(corral_store, decode_responses=True) as store:
        site = Site(folder, store, {**os.environ, **settings})
        yield site
        for worker in site.workers:
            worker.kill()
            worker.wait(timeout=15)


@pytest.mark.parametrize(
    "where", ["before-scrub", "after-scrub", "before-finish", "after-finish", "before-completion"]
)
async def test_a_worker_killed_at_any_step_leaves_one_effect_and_one_mail(
    accounts: Any, site: Site, wait_until: Any, where: str
) -> None:
    request = await accounts.asked(grace=timedelta(0))
    job_id = f"deletion-{request.id}"
    (site.folder / f"die-{where}").touch()

    assert site.worker().wait(timeout=60) == -9
    assert "finishedOn" not in site.job(job_id)
    assert await accounts.rows("SELECT id FROM users") == [("bob-1",)], (
        "it was erased before it died"
    )
    receipts = await accounts.rows(
        "SELECT name, amount FROM account_deletion_receipts ORDER BY name"
    )
    assert receipts == [("orders", 2), ("users", 1)]

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "another worker has ended the job")
    await wait_until(site.mails, "the mail was sent")
    job = site.job(job_id)
    assert (job["ats"], job["stc"]) == ("2", "1"), (
        "it was started again, because its worker had died"
    )
    done_before = where in {"after-finish", "before-completion"}
    assert json.loads(job["returnvalue"])["outcome"] == (
        "already-deleted" if done_before else "deleted"
    )
    assert (
        await accounts.rows("SELECT name, amount FROM account_deletion_receipts ORDER BY name")
        == receipts
    )
    assert await accounts.rows("SELECT id, user_id, note FROM orders ORDER BY id") == [
        (1, None, None),
        (2, None, None),
        (3, "bob-1", None),
    ]
    assert site.mails() == [f"account-deletions.{job_id}.mail ada@example.org account-deleted None"]
    assert await accounts.rows("SELECT * FROM corral_outbox") == []
    assert "ada@example.org" not in await accounts.dumped()
    await wait_until(
        lambda: not site.store.exists(f"bull:emails:account-deletions.{job_id}.mail"),
        "its job is gone",
    )


async def test_a_worker_with_a_tables_file_that_does_not_fit_says_so_and_does_not_start(
    accounts: Any, site: Site
) -> None:
    (site.folder / "accounts.toml").write_text(
        TABLES.replace("users]", "user]").replace('"note"', '"remark"'), "utf-8"
    )
    assert site.worker().wait(timeout=60) == 2
    message = (site.folder / "worker.log").read_text("utf-8")
    assert "accounts.toml' was refused:" in message
    assert "table 'user' is not in the database; did you mean 'users'?" in message
    assert "table 'orders' has no column 'remark'" in message

"""The whole of it: `corral worker` as a process of its own, killed at the worst moments, and a real
receiver.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook

import corral
from corral import sql
from corral.embedded import embedded_store
from corral_webhooks_outgoing import WebhookDelivery, webhooks_outgoing
from corral_webhooks_outgoing.endpoints import add_endpoint
from corral_webhooks_outgoing.settings import PREFIX

from .conftest import NO_CONTENT, Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

pytestmark = pytest.mark.asyncio

APPLICATION = '''
"""Dies once, if there is a certain file, when the processor has returned and the store does not know of it."""
import os
from contextlib import contextmanager
from pathlib import Path
from corral import hookimpl

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if Path("die").exists():
        Path("die").unlink()
        os.kill(os.getpid(), 9)
'''


@dataclass
class Site:
    """A folder with an application, a store and a database.

    Attributes:
        folder: Where the worker runs.
        store: A client of the store.
        workers: Those that were started; none outlives the test.
    """

    folder: Path
    store: redis.Redis
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start `corral worker`; its log is in the folder."""
        command = [sys.executable, "-m", "corral", "worker", "webhooks-outgoing"]
        with (self.folder / "worker.log").open("ab") as log:
            self.workers.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))
        return self.workers[-1]

    def job(self, job_id: str) -> dict[str, str]:
        """What the store keeps of a job."""
        return dict(self.store.hgetall(f"bull:webhooks-outgoing:{job_id}"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def site(
    corral_database_with_tables: str,
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    for name in list(os.environ):
        if name.startswith("CORRAL_"):
            monkeypatch.delenv(name)
    (tmp_path / "acme_jobs.py").write_text(APPLICATION, "utf-8")
    with (
        tempfile.TemporaryDirectory(
            prefix="corral-store-"
        ) as short,  # a socket's path has a hundred bytes
        embedded_store(Path(short)) as url,
        redis.Redis.from_url(url, decode_responses=True) as store,
    ):
        settings = {
            "REDIS_URL": url,
            "CORRAL_ENV": "development",
            "CORRAL_APP": "acme_jobs",
            "CORRAL_DATABASE_URL": corral_database_with_tables,
            "CORRAL_WORKER__LOCK_SECONDS": "1",
            "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "1",
            f"{PREFIX}ALLOW_PRIVATE": "1",
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
        site = Site(tmp_path, store)
        yield site
        for worker in site.workers:
            worker.kill()
            worker.wait(timeout=15)


async def enqueue(receiver: Receiver) -> str:
    """One event for one endpoint, which is stored as an application does; the id of its job."""
    engine = sql.create_engine()
    try:
        async with engine.begin() as connection:
            await add_endpoint(
                connection, f"http://127.0.0.1:{receiver.port}/", endpoint_id="ep_1", secret=SECRET
            )
    finally:
        await engine.dispose()
    event = WebhookDelivery(
        endpoint_id="ep_1", event_id="evt_1", event_type="user.created", data={"id": 7}
    )
    async with corral.connect() as jobs:
        return (await jobs.enqueue(webhooks_outgoing, event, job_id="evt_1.ep_1")).id


def effects(receiver: Receiver) -> list[Any]:
    """What a receiver makes of its requests that verifies them and has one effect for each
    `webhook-id`.
    """
    seen: dict[str, Any] = {}
    for request in receiver.requests:
        event = Webhook(SECRET).verify(request.body, request.headers)
        seen.setdefault(request.headers["webhook-id"], event["data"])
    return list(seen.values())


async def test_a_crash_after_the_row_and_before_the_completion_sends_nothing_again(
    site: Site, receiver: Receiver, wait_until: Any
) -> None:
    job_id = await enqueue(receiver)
    (site.folder / "die").touch()
    first = site.worker()
    await wait_until(lambda: first.poll() is not None, "the worker has died")
    assert first.returncode == -signal.SIGKILL
    assert "finishedOn" not in site.job(job_id)
    assert len(receiver.requests) == 1

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "another worker has ended the job")
    job = site.job(job_id)
    assert (job["ats"], job["stc"]) == ("2", "1"), (
        "it was started again, because its worker had died"
    )
    assert json.loads(job["returnvalue"]) == {"webhookId": "evt_1", "status": None}
    assert (len(receiver.requests), effects(receiver)) == (1, [{"id": 7}])


async def test_a_crash_between_the_answer_and_the_row_sends_it_again_and_the_receiver_has_one_effect(
    site: Site, receiver: Receiver, wait_until: Any
) -> None:
    job_id = await enqueue(receiver)
    first = site.worker()

    async def kill_it_and_answer(writer: asyncio.StreamWriter) -> None:
        first.kill()
        writer.write(NO_CONTENT)

    receiver.replies.append(kill_it_and_answer)
    await wait_until(lambda: first.poll() is not None, "the worker was killed")
    assert len(receiver.requests) == 1

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "another worker has ended the job")
    assert json.loads(site.job(job_id)["returnvalue"]) == {"webhookId": "evt_1", "status": 204}
    assert (len(receiver.requests), effects(receiver)) == (2, [{"id": 7}])
    assert receiver.requests[0].body == receiver.requests[1].body

"""A shop's tables on both databases, the plugin's hooks with subscribers of a test, and workers as
processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import redis
from pydantic import StringConstraints
from sqlalchemy import text

import corral
import corral_data_exports
from corral import Payload, Queue, hookimpl, testing
from corral.embedded import embedded_store
from corral.inspector import of_worker
from corral.sql import create_engine
from corral_data_exports import DataExport, data_exports
from corral_data_exports.processor import Exports, open_exports

SECONDS = 60
SECRET = "a secret of thirty-two bytes, or more"
BASE_URL = "https://app.example/exports"

SHOP = """
CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, note TEXT, total NUMERIC(10, 2), paid BOOLEAN);
CREATE TABLE visits (at TEXT, visitor VARCHAR(40));
INSERT INTO users VALUES (1, 'ada@example.org'), (2, 'bob@example.org'), (3, NULL);
INSERT INTO orders VALUES (10, 1, '=1+1', 12.5, true), (11, 2, 'of Bob', 1, false), (12, 1, NULL, -3, false);
INSERT INTO visits VALUES ('2027-01-01', '1'), ('2027-01-02', '2')
"""

TABLES = """
[users]
table = "users"
id_column = "id"
email_column = "email"

[tables.orders]
user_column = "customer_id"
action = "delete"
export = ["id", "note", "total", "paid"]

[tables.visits]
user_column = "visitor"
export = ["at"]

[tables.sessions]
user_column = "user_id"
action = "delete"
"""


class Mail(Payload):
    """What `corral-emails` declares, as far as it matters here; it need not be installed."""

    to: Annotated[str, StringConstraints(pattern=r"^\S+@\S+$")]
    template: str
    variables: dict[str, str]
    locale: str | None = None


emails = Queue("emails", Mail)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`setting(STORAGE="…")` sets `CORRAL_DATA_EXPORTS_STORAGE`."""

    def set_all(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"CORRAL_DATA_EXPORTS_{name}", value)

    return set_all


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CORRAL_DATA_", "AWS_")):
            monkeypatch.delenv(name)


@dataclass
class Shop:
    """A database with the shop's tables, and what exports of it leave behind.

    Attributes:
        url: The database.
        folder: Where archives are.
        jobs: Takes the mails.
        queues: The names of the queues that are installed.
    """

    url: str
    folder: Path
    jobs: testing.RecordingJobScheduler = field(
        default_factory=lambda: testing.RecordingJobScheduler(emails)
    )
    queues: tuple[str, ...] = ("data-exports", "emails")

    def without_mail(self) -> None:
        """Uninstall the queue `emails`."""
        self.jobs, self.queues = testing.RecordingJobScheduler(), ("data-exports",)

    async def run(self, statements: str, rows: list[dict[str, object]] | None = None) -> list[Any]:
        """Statements in a transaction of their own; the rows of the last one."""
        engine = create_engine(self.url)
        found: list[Any] = []
        async with engine.begin() as connection:
            for statement in statements.split(";"):
                result = await connection.execute(text(statement), rows)
                found = list(result) if result.returns_rows else []
        await engine.dispose()
        return found

    @asynccontextmanager
    async def exports(self, **subscribers: Callable[..., Any]) -> AsyncIterator[Exports]:
        """What a worker opens; in the package `acme`, a subscriber for each hook that is named."""
        acme = SimpleNamespace(**{name: hookimpl(made) for name, made in subscribers.items()})
        async with asyncio.timeout(SECONDS), AsyncExitStack() as resources:
            deps = testing.deps(
                jobs=self.jobs,
                plugins={"corral_data_exports": corral_data_exports, "acme": acme},
                resources=resources,
                provided={of_worker: SimpleNamespace(queues=self.queues)},
            )
            yield await resources.enter_async_context(open_exports(deps))

    def job(
        self, user_id: str = "1", *, form: str = "json", **options: Any
    ) -> corral.Job[DataExport]:
        """A job, as a worker hands it over."""
        return testing.job(
            data_exports, {"userId": user_id, "exportId": "e1", "format": form}, **options
        )

    @staticmethod
    def percents(job: corral.Job[Any]) -> list[int]:
        """The progress that a job has reported, in order."""
        return testing.progress_of(job)

    def archives(self) -> list[str]:
        """Everything that is in the storage's folder."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def is_on_its_way(self, key: str) -> bool:
        """Whether there is nothing but an archive that is not complete."""
        (name,) = self.archives()
        return bool(re.fullmatch(rf"{re.escape(key)}\.[0-9a-f]{{16}}\.part(#1)?", name))

    def read(self, key: str) -> dict[str, bytes]:
        """An archive's entries; each is as its checksum says."""
        with zipfile.ZipFile(self.folder / key) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}

    def manifest(self, key: str) -> dict[str, Any]:
        """An archive's manifest."""
        manifest: dict[str, Any] = json.loads(self.read(key)["manifest.json"])
        return manifest


@pytest.fixture
def shop(
    corral_database_with_tables: str,
    tmp_path: Path,
    setting: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Shop:
    """The shop, with every setting of exports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables.toml").write_text(TABLES, "utf-8")
    setting(
        STORAGE=str(tmp_path / "exports"),
        TABLES="tables.toml",
        BASE_URL=BASE_URL,
        LINK_SECRET=SECRET,
    )
    made = Shop(corral_database_with_tables, tmp_path / "exports")
    asyncio.run(made.run(SHOP))
    return made


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`await wait_until(condition, "what is awaited")`: that of `corral.testing`, for a minute."""
    return partial(testing.wait_until, seconds=SECONDS)


APPLICATION = '''
"""Hands over records that do not compress; waits, or dies, where there is a file of that name."""
import asyncio, hashlib, os
from contextlib import contextmanager
from pathlib import Path
from corral import hookimpl

RECORDS = 8000

def exists(name):
    return Path(name).exists()

async def wait_while(name):
    while exists(name):
        await asyncio.sleep(0.02)

async def noise():
    for number in range(1, RECORDS + 1):
        yield {"noise": hashlib.shake_256(str(number).encode()).hexdigest(2000)}
        if number == RECORDS // 2 and exists("wait"):
            Path("waits").touch()
            await wait_while("wait")
        if number % (RECORDS // 4) == 0 and exists("step"):
            step = f"step-{number * 4 // RECORDS}"
            Path(step).touch()
            await wait_while(step)

@hookimpl
def data_exports_records():
    from corral_data_exports import RecordSet
    return [RecordSet("noise", noise(), rows=RECORDS)]

@hookimpl
def corral_enqueuing(queue):
    if queue.name == "emails" and exists("die-before-mail"):
        os.unlink("die-before-mail")
        os._exit(9)

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if exists("die-after"):  # the processor has returned, and the store does not know of it
        os.unlink("die-after")
        os._exit(9)
'''

MAILER = '''
"""Declares what corral-emails does, which need not be installed."""
from corral import Payload, Queue, hookimpl

class Mail(Payload):
    to: str
    template: str
    variables: dict[str, str]

@hookimpl
def corral_queues():
    return [Queue("emails", Mail)]
'''


@dataclass
class Site:
    """A folder with an application, a store and the shop's database.

    Attributes:
        folder: Where the worker runs.
        store: A client of the store.
        workers: Those that were started; none outlives the test.
    """

    folder: Path
    store: redis.Redis
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `corral worker`; its log is in the folder."""
        command = [sys.executable, "-m", "corral", "worker", *arguments, "data-exports"]
        with (self.folder / "worker.log").open("ab") as log:
            self.workers.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))
        return self.workers[-1]

    async def enqueue(self, export: DataExport) -> str:
        """Enqueue a job; its id."""
        async with corral.connect() as jobs:
            return (await jobs.enqueue(data_exports, export)).id

    def job(self, job_id: str) -> dict[str, str]:
        """What the store keeps of a job."""
        return dict(self.store.hgetall(f"bull:data-exports:{job_id}"))

    def progress(self, job_id: str) -> int | None:
        """How far the store says that a job is, in percent."""
        said = self.job(job_id).get("progress")
        return None if said is None else int(said)

    def mails(self) -> list[dict[str, Any]]:
        """The payloads of the mails that wait."""
        waiting = self.store.lrange("bull:emails:wait", 0, -1)
        return [json.loads(self.store.hget(f"bull:emails:{job_id}", "data")) for job_id in waiting]

    def create_file(self, name: str) -> None:
        """Make the file that has the application do something."""
        (self.folder / name).touch()

    def remove_file(self, name: str) -> None:
        """Remove it."""
        (self.folder / name).unlink()

    def has_file(self, name: str) -> bool:
        """Whether it is there; the application makes some, too."""
        return (self.folder / name).exists()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def site(
    shop: Shop, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """The shop as a worker serves it."""
    (tmp_path / "acme_jobs.py").write_text(APPLICATION, "utf-8")
    (tmp_path / "acme_mailer.py").write_text(MAILER, "utf-8")
    distribution = tmp_path / "acme_mailer-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-mailer\nVersion: 1.0\n", "utf-8"
    )
    (distribution / "entry_points.txt").write_text(
        "[corral.queues]\nemails = acme_mailer\n", "utf-8"
    )
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
            "CORRAL_DISABLED_PLUGINS": "corral-emails",
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
        for name in ("acme_jobs", "acme_mailer"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        site = Site(tmp_path, store)
        yield site
        for worker in site.workers:
            worker.kill()
            worker.wait(timeout=15)

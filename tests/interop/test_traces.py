"""One trace through BullMQ for Node with bullmq-otel and through us, both ways; each side records
its own spans.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaos.processes import Store, Worker
from corral.testing import find_leaks
from interop.node import Node, node_process
from interop.peers import KINDS, no_api

pytestmark = pytest.mark.asyncio

HERE = Path(__file__).parent
ADDRESS = "ada@example.org"
"""What no span may show (S-17)."""


@dataclass(frozen=True)
class Span:
    """A span of either side. `said` is all that its SDK has recorded."""

    side: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str | None
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, Any]:
        return self.said["attributes"]


@dataclass
class Company:
    """A store, Node with bullmq-otel, and processes of ours whose application configures
    OpenTelemetry's SDK.
    """

    store: Store
    node: Node
    folder: Path
    environment: dict[str, str]
    until: Callable[..., Any]
    hired: list[Worker] = field(default_factory=list)

    async def hire(self, *queues: str) -> None:
        """A worker of ours that has started."""
        site = Path(self.environment["PYTHONPATH"])
        worker = Worker(
            self.store.url,
            site=site,
            folder=self.folder,
            journal=None,
            serves=queues,
            environment=self.environment,
        )
        self.hired.append(worker)
        await self.until(lambda: worker.has_started, "the worker has started")

    def enqueue(self, queue: str, **payload: Any) -> None:
        """`corral enqueue`, in a process of its own."""
        command = [sys.executable, "-m", "corral", "enqueue", queue, json.dumps(payload)]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=30)

    async def completed(self, **counts: int) -> None:
        """Wait until so many jobs of each queue are completed: `welcome_mails=1`."""

        async def done() -> bool:
            keys = {name: f"bull:{name.replace('_', '-')}:completed" for name in counts}
            return {
                name: await self.store.client.zcard(key) for name, key in keys.items()
            } == counts

        await self.until(done, f"{counts} are completed")

    def own_spans(self) -> list[Span]:
        """What our processes have written so far."""
        path = Path(self.environment["ACME_SPANS"])
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        return [_our_span(line) for line in lines if line.endswith("\n")]

    async def spans(self, count: int) -> list[Span]:
        """What producers and consumers have recorded, once it is so many spans; parents before
        their children.
        """
        found: list[Span] = []

        async def there() -> bool:
            found[:] = [Span("Node", **each) for each in await self.node.ask("spans")]
            found.extend(self.own_spans())
            found[:] = [span for span in found if span.kind in {"PRODUCER", "CONSUMER"}]
            return len(found) >= count

        await self.until(there, f"{count} spans are recorded")
        ordered: list[Span] = []
        left = found
        while left:
            known = {span.id for span in ordered}
            ready = [span for span in left if span.parent is None or span.parent in known]
            assert ready, f"parents that nobody recorded: {left}"
            ordered += ready
            left = [span for span in left if span not in ready]
        return ordered


def _our_span(line: str) -> Span:
    said = json.loads(line)
    context = said["context"]
    parent = said["parent_id"]
    return Span(
        "Corral",
        said["name"],
        said["kind"].removeprefix("SpanKind."),
        context["trace_id"].removeprefix("0x"),
        context["span_id"].removeprefix("0x"),
        parent and parent.removeprefix("0x"),
        said,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    metadata = folder / "acme_signups-1.0.dist-info"
    metadata.mkdir()
    for module in ("acme_signups.py", "acme_tracing.py"):
        shutil.copy(HERE / module, folder)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-signups\nVersion: 1.0\n", "utf-8"
    )
    points = "[corral.queues]\nsignups = acme_signups\nwelcome-mails = acme_signups\n"
    (metadata / "entry_points.txt").write_text(points, "utf-8")
    return folder


@pytest.fixture(params=KINDS)
def peer(request: pytest.FixtureRequest) -> str:
    """The other side's kind: BullMQ for Python has no telemetry, and so no trace to go on with."""
    kind: str = request.param
    if kind == "python":
        no_api("BullMQ for Python has no telemetry")
    return kind


@pytest_asyncio.fixture
async def company(
    peer: str, node_modules: Path, site: Path, wait_until: Callable[..., Any], data_dir: Path
) -> AsyncIterator[Company]:
    folder = data_dir.parent  # short enough to have a socket in it
    store = Store(folder)
    await store.start()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(site),
        "REDIS_URL": store.url,
        "CORRAL_APP": "acme_tracing",
        "ACME_SPANS": str(folder / "spans"),
    }
    try:
        journal = folder / "journal"
        async with node_process(
            node_modules, store.socket, journal, kind=peer, ACME_TRACED="1"
        ) as node:
            company = Company(store, node, folder, environment, wait_until)
            yield company
            for worker in company.hired:
                worker.terminate()
                assert await worker.ended() == 0
            assert await node.ask("errors") == []
        assert find_leaks(store.url) == []
    finally:
        for worker in company.hired:
            worker.close()
        await store.stop()


def summary(spans: list[Span]) -> list[tuple[str, str, str]]:
    return [(span.side, span.name, span.kind) for span in spans]


@pytest.mark.matrix(28)
async def test_a_trace_that_starts_in_node_goes_on_in_our_processor_and_back(
    company: Company,
) -> None:
    """Node's producer, our processor, the e-mail job it enqueues, Node's worker: each the child of
    the one before.
    """
    await company.node.ask("work", queue="welcome-mails", concurrency=1)
    await company.hire("signups")
    await company.node.ask("add_one", queue="signups", data={"to": ADDRESS}, opts={"jobId": "ada"})
    await company.completed(signups=1, welcome_mails=1)
    spans = await company.spans(4)
    assert summary(spans) == [
        ("Node", "add signups.work", "PRODUCER"),
        ("Corral", "process signups", "CONSUMER"),
        ("Corral", "add welcome-mails", "PRODUCER"),
        ("Node", "process welcome-mails", "CONSUMER"),
    ]
    assert len({span.trace for span in spans}) == 1
    assert [span.parent for span in spans] == [None, *(span.id for span in spans[:-1])]
    _, run, added, _ = spans
    assert run.attributes == {
        "messaging.system": "bullmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "signups",
        "messaging.message.id": "ada",
        "corral.job.attempt": 1,
    }
    assert added.attributes == {
        "messaging.system": "bullmq",
        "messaging.operation.name": "add",
        "messaging.operation.type": "create",
        "messaging.destination.name": "welcome-mails",
    }
    assert ADDRESS not in json.dumps([span.said for span in spans])


@pytest.mark.matrix(28)
async def test_a_trace_that_starts_with_us_goes_on_in_node_and_back(company: Company) -> None:
    await company.node.ask("work", queue="signups", concurrency=1, then="welcome-mails")
    await company.hire("welcome-mails")
    company.enqueue("signups", to=ADDRESS)
    await company.completed(signups=1, welcome_mails=1)
    spans = await company.spans(4)
    assert summary(spans) == [
        ("Corral", "add signups", "PRODUCER"),
        ("Node", "process signups", "CONSUMER"),
        ("Node", "add welcome-mails.work", "PRODUCER"),
        ("Corral", "process welcome-mails", "CONSUMER"),
    ]
    assert len({span.trace for span in spans}) == 1
    assert [span.parent for span in spans] == [None, *(span.id for span in spans[:-1])]


@pytest.mark.matrix(28)
async def test_each_attempt_is_a_span_of_the_same_trace(company: Company) -> None:
    """And one that fails says which exception it was, but not what that said."""
    await company.hire("signups")
    await company.node.ask(
        "add_one", queue="signups", data={"to": ADDRESS, "fails": 1}, opts={"attempts": 2}
    )
    await company.completed(signups=1)
    added, first, second, mail = await company.spans(4)
    assert {first.name, second.name} == {"process signups"}
    assert first.parent == second.parent == added.id
    assert mail.parent == second.id
    assert len({span.trace for span in (added, first, second, mail)}) == 1
    assert [span.attributes["corral.job.attempt"] for span in (first, second)] == [1, 2]
    assert (first.said["status"], first.attributes["error.type"]) == (
        {"status_code": "ERROR"},
        "ConnectionError",
    )
    assert (second.said["status"], second.attributes.get("error.type")) == (
        {"status_code": "UNSET"},
        None,
    )
    assert first.said["events"] == []
    assert ADDRESS not in json.dumps([span.said for span in (first, second, mail)])


@pytest.mark.matrix(28)
async def test_a_job_whose_context_is_not_to_be_used_starts_a_trace_of_its_own(
    company: Company,
) -> None:
    await company.hire("welcome-mails")
    opts = {"telemetry": {"omitContext": True}}
    await company.node.ask("add_one", queue="welcome-mails", data={"to": ADDRESS}, opts=opts)
    await company.completed(welcome_mails=1)
    added, run = await company.spans(2)
    assert {added.name, run.name} == {"add welcome-mails.work", "process welcome-mails"}
    assert added.parent is run.parent is None
    assert added.trace != run.trace

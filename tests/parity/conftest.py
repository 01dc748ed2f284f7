"""What the parity tests need: Node with BullMQ, and a place to add up what was run."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parity.keyspace import ALLOWED
from parity.lockstep import NOT_COMPARED, Verdict


@dataclass(slots=True)
class Tally:
    """What all programs together showed."""

    programs: Counter[tuple[int, str]] = field(default_factory=Counter)
    operations: int = 0
    jobs: int = 0
    repeats: int = 0
    differing: int = 0
    allowed: Counter[str] = field(default_factory=Counter)

    def add(self, batch: int, path: str, verdict: Verdict) -> None:
        """Count one program, in batches of a size and by the path that its calls took."""
        self.programs[batch, path] += 1
        self.operations += verdict.operations
        self.jobs += verdict.jobs
        self.repeats += verdict.repeats
        self.differing += verdict.differs
        self.allowed += verdict.allowed

    def lines(self) -> Iterator[str]:
        """The summary."""
        batches = ", ".join(
            f"{count} {path} in batches of {batch}"
            for (batch, path), count in sorted(self.programs.items())
        )
        yield (
            f"{self.programs.total()} programs ({batches}): "
            f"{self.operations} operations, {self.jobs} endings, "
            f"{self.repeats} calls made twice; {self.differing} programs differ"
        )
        yield "entries that may differ, and how many did:"
        for exception in ALLOWED:
            yield f"  {self.allowed[exception.name]:8} {exception.name}: {exception.why}"
        yield "where the sides differ by design, and programs do not go:"
        for difference in NOT_COMPARED:
            yield f"  {difference}"


_MISSING = "BullMQ for Node is not installed: npm ci --prefix tests/node"
_TALLY = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Where the programs are counted; printed when the run ends."""
    return pytestconfig.stash.setdefault(_TALLY, Tally())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was compared: a run without differences is worth as much as it covered."""
    counted = config.stash.get(_TALLY, None)
    if counted is not None and counted.programs:
        terminalreporter.section("parity with BullMQ for Node")
        for line in counted.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The directory that holds BullMQ's `node_modules`: CORRAL_NODE_MODULES, else `tests/node`.

    Without it these tests are skipped at home, and fail where CI is true.
    """
    folder = Path(os.environ.get("CORRAL_NODE_MODULES") or Path(__file__).parents[1] / "node")
    if shutil.which("node") and (folder / "node_modules" / "bullmq").is_dir():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail(_MISSING, pytrace=False)
    pytest.skip(_MISSING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give all tests that Node's absence skips one place, so that they are listed in one counted
    line.
    """
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and _MISSING in report.longrepr[2]:
        report.longrepr = (str(Path(__file__).parent), 0, report.longrepr[2])
    return report

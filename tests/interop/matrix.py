"""The matrix of wire § 13: what each operation did with each BullMQ, from the outcomes of tests.

A test is marked with the rows that it is about, `@pytest.mark.matrix(4, 5)`, and has one side in
its parameter `peer`; `peers=("node6", "python")` says it where there is no such parameter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest

from chaos.processes import store_binary
from interop.peers import KINDS, NO_API

ROWS = MappingProxyType(
    {
        1: "standard job",
        2: "idle worker latency",
        3: "burst, several kinds of workers",
        4: "delayed",
        5: "prioritized",
        6: "lifo",
        7: "custom id twice",
        8: "fail, three attempts, backoff",
        9: "fail, no backoff",
        10: "unrecoverable",
        11: "processor postpones",
        12: "stalled",
        13: "lock renewal",
        14: "progress, logs, keepLogs",
        15: "waitUntilFinished",
        16: "pause/resume",
        17: "global concurrency",
        18: "rate limit",
        19: "deduplication",
        20: "scheduler",
        21: "scheduler, crash before advance",
        22: "flows",
        23: "retention",
        24: "retry, promote, change",
        25: "remove, clean, drain, obliterate",
        26: "metrics",
        27: "getWorkers",
        28: "telemetry",
        29: "unicode, big and odd data",
        30: "robustness",
        31: "Bull Board",
        32: "cluster",
        33: "event hygiene",
        34: "connection loss",
    }
)
PROPERTY = "matrix"
"""How the rows and the side of a test go from the process that ran it to the one that prints."""


def cells(item: pytest.Item) -> Iterator[tuple[int, str]]:
    """The rows that a test is about, each with a side."""
    for mark in item.iter_markers("matrix"):
        params = (
            item.callspec.params
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else {}
        )
        for peer in mark.kwargs.get("peers") or [params.get("peer", "node6")]:
            yield from ((row, peer) for row in mark.args)


@dataclass(eq=False)  # a plugin of pytest is a key of its dictionaries
class Matrix:
    """Collects the outcomes of a run and prints them when it ends."""

    passed: dict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    missing: dict[tuple[int, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of a test, wherever it has run."""
        for name, cell in report.user_properties:
            if name != PROPERTY:
                continue
            row, peer = str(cell).split()
            key = int(row), peer
            if report.failed:
                self.failed[key] += 1
            elif (
                report.skipped
                and isinstance(report.longrepr, tuple)
                and NO_API in report.longrepr[2]
            ):
                self.missing[key].add(report.longrepr[2].partition(NO_API)[2])
            elif report.passed and report.when == "call":
                self.passed[key] += 1

    def cell(self, row: int, peer: str) -> str:
        """The text of a cell.

        A failure outweighs what passed, and what passed outweighs an operation without an API.
        """
        key = row, peer
        if self.failed[key]:
            return "FAIL"
        if self.passed[key]:
            return "pass*" if self.missing[key] else "pass"
        return "no API yet" if self.missing[key] else "not run"

    def lines(self) -> Iterator[str]:
        """The table, and what is missing where something is."""
        yield f"on {store_binary()}"
        yield "".join([f"{'':40}", *(f"{kind.title:12}" for kind in KINDS.values())]).rstrip()
        for row, title in ROWS.items():
            yield "".join(
                [f"{row:>4}  {title:34}", *(f"{self.cell(row, peer):12}" for peer in KINDS)]
            ).rstrip()
        reasons: dict[tuple[int, str], list[str]] = defaultdict(list)
        for (row, peer), sentences in sorted(self.missing.items()):
            for sentence in sorted(sentences):
                reasons[row, sentence].append(KINDS[peer].title)
        if reasons:
            yield "no API yet (*: for a part of the row):"
        for (row, sentence), titles in reasons.items():
            yield f"{row:>4}  {sentence} ({', '.join(titles)})"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, if anything of it was run."""
        if self.passed or self.failed or self.missing:
            terminalreporter.section("the matrix of the wire page, beside us")
            for line in self.lines():
                terminalreporter.write_line(line)

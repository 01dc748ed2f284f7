"""`python -m chaos`: all runs and one table; with `--peers` BullMQ for Node, too, under the same
load and faults.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos.processes import install_plugin
from chaos.runs import DRAIN_SECONDS, LONG_ROUNDS, ROUNDS, RUNS, Report, Run, perform
from chaos.sides import Corral, Node, Side

NODE_MODULES = Path(__file__).parents[1] / "node"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="BullMQ for Node, too")
    parser.add_argument(
        "--long", action="store_true", help=f"{LONG_ROUNDS} rounds of faults, not {ROUNDS}"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(10**6),
        help="what everything random is drawn from",
    )
    parser.add_argument(
        "--run",
        action="append",
        choices=[run.name for run in RUNS],
        help="this one only; repeatable",
    )
    wish = parser.parse_args()
    if wish.peers and not (NODE_MODULES / "node_modules" / "bullmq").is_dir():
        parser.error("BullMQ for Node is not installed: npm ci --prefix tests/node")
    return wish


async def performed(
    run: Run, sides: Sequence[Side], site: Path, seed: int, rounds: int
) -> list[Report]:
    """A run of each side that can make it, one after the other; says what it shows."""
    reports = []
    for side in sides:
        if run.durability and side.name != Corral.name:
            continue
        report = await perform(run, side, site=site, seed=seed, rounds=rounds)
        print(report, flush=True)
        for sentence in summed_up(report.violations):
            print(f"    {sentence}", flush=True)
        reports.append(report)
    return reports


def summed_up(sentences: Sequence[str], most: int = 8) -> Iterator[str]:
    """The first sentences, and how many more there are."""
    yield from sentences[:most]
    if len(sentences) > most:
        yield f"… and {len(sentences) - most} more"


def table(sides: Sequence[str], rows: Sequence[tuple[Run, Sequence[Report]]]) -> Iterator[str]:
    """The rows of all runs, as Markdown; `-` where a side cannot make a run."""
    words = "jobs, lost, doubled, unfinished, longest recovery s"
    yield f"| run | {' | '.join(f'{side}: {words}' for side in sides)} |"
    yield f"|{'---|' * (len(sides) + 1)}"
    for run, reports in rows:
        cells = {
            r.side: f"{r.acked}, {r.lost}, {r.doubled}, {r.unfinished}, {recovery(r)}"
            for r in reports
        }
        yield f"| {run.name}: {run.about} | {' | '.join(cells.get(side, '-') for side in sides)} |"


def recovery(report: Report) -> str:
    """The longest recovery; a queue that has not come to rest has not recovered."""
    return f"> {DRAIN_SECONDS:g}" if report.unfinished else f"{report.recovery:.1f}"


async def main() -> int:
    wish = arguments()
    sides: list[Side] = [Corral(), *([Node(NODE_MODULES)] if wish.peers else [])]
    chosen = [run for run in RUNS if not wish.run or run.name in wish.run]
    print(f"seed {wish.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="corral-chaos-") as site:
        install_plugin(Path(site))
        rounds = LONG_ROUNDS if wish.long else ROUNDS
        rows = [(run, await performed(run, sides, Path(site), wish.seed, rounds)) for run in chosen]
    print("\n".join(table([side.name for side in sides], rows)))
    return int(
        any(
            report.violations
            for _, reports in rows
            for report in reports
            if report.side == Corral.name
        )
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

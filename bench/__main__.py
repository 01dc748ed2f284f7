"""Corral beside its peers: `python -m bench`, in one run, on one machine. `tox -e bench` does the
same.

One table: drains, adds, CPU, idle pick-up, long queues, processes, other Python frameworks. Each
figure stands beside its goal, what is possible, and the same of BullMQ for Node; all are medians of
rounds in which the sides take turns. A row that misses its goal says so; nothing is asserted. A
whole run takes about four minutes; `--only` takes sections.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack

from bench import instructions
from bench.head import head, measured_commit
from bench.history import history_line
from bench.rounds import Bench, show_progress
from bench.sections import SECTIONS
from bench.table import HEADING, Row

ROUNDS = 3
INSTRUCTIONS = "instructions"
"""The section that fills a column of others."""
NAMES = (*SECTIONS, INSTRUCTIONS)


def sections_of(text: str) -> list[str]:
    """The sections that `--only` names.

    Raises:
        ArgumentTypeError: One of them does not exist.
    """
    names = text.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(
            f"no section is named {unknown[0]!r}; there are {', '.join(NAMES)}"
        )
    return names


def arguments_of_the_program() -> argparse.Namespace:
    """What the caller asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Corral beside its peers."
    )
    parser.add_argument(
        "--only", type=sections_of, metavar="SECTION,…", help=f"some of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="rounds of each figure (default: 3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round, a tenth of the jobs: to see that it runs"
    )
    parser.add_argument("--alone", action="store_true", help="Corral without its peers")
    parser.add_argument(
        "--history", action="store_true", help="print the line for bench/HISTORY.md, too"
    )
    return parser.parse_args()


def count_instructions() -> tuple[dict[str, float], str]:
    """What one job costs the store, by case; and why nothing was counted, or nothing."""
    if missing := instructions.missing_programs():
        return {}, f"not counted: {' and '.join(missing)} cannot be found on the PATH"
    counted: dict[str, float] = {}
    for case in instructions.CASES:
        show_progress(f"instructions: {case.name}")
        counted[case.name] = instructions.count(case).instructions
    show_progress("")
    return counted, ""


def main() -> None:
    """Measure and print."""
    arguments = arguments_of_the_program()
    # so that what was opened is closed: the embedded server would live on
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = arguments.only or [
        name for name in NAMES if name != INSTRUCTIONS or not arguments.quick
    ]
    began = time.monotonic()
    rows: list[Row] = []
    with ExitStack() as ending:
        rounds = 1 if arguments.quick else arguments.rounds
        bench = Bench(rounds, is_quick=arguments.quick, is_alone=arguments.alone, ending=ending)
        print("\n".join(head(bench)), flush=True)
        bench.instructions, note = (
            count_instructions() if INSTRUCTIONS in chosen else ({}, "not counted in this run")
        )
        print(
            f"instructions of one job in the store {f'are {note}' if note else 'counted by callgrind'}\n\n{HEADING}"
        )
        for name in [name for name in SECTIONS if name in chosen]:
            group = SECTIONS[name](bench)
            rows += group.rows
            print(f"\n{group}", flush=True)
        print(f"\n{time.monotonic() - began:.0f} s")
        if arguments.history:
            commit = measured_commit(bench.stage().corral.about)
            print(f"\n{history_line(time.strftime('%Y-%m-%d'), commit, rows, bench.instructions)}")


if __name__ == "__main__":
    main()

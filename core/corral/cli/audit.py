"""`corral audit`: what operators have changed, and who they were."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import age
from corral.cli.results import command, print_result
from corral.cli.table import show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.inspector import Audited, JobInspector

__all__ = ["audit"]


@command()
@click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=50,
    show_default=True,
    metavar="N",
    help="The last N.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit(limit: int, as_json: bool) -> None:
    """Show what operators have changed, and who they were, the latest first.

    \b
    corral audit
    corral audit --limit 200 --json
    """
    from corral.app import operate

    async def read(inspector: JobInspector) -> Sequence[Audited]:
        return await inspector.audit.read(limit=limit)

    found = operate(read)
    if as_json:
        print_result(
            json.dumps([{**dataclasses.asdict(each), "at": each.at.isoformat()} for each in found])
        )
    elif found:
        show_table(
            ["SINCE", "WHO", "WHAT", "QUEUE", "JOB", "CHANGED"], [_row(each) for each in found]
        )
    else:
        click.echo("nothing was changed yet", err=True)


def _row(each: Audited) -> list[object]:
    job = each.job_id or ("" if each.count is None else f"{each.count:,} of them")
    return [
        age(each.at),
        each.who,
        each.what,
        each.queue or "",
        job,
        _changed(each.before, each.after),
    ]


def _changed(before: Any, after: Any) -> str:
    if before is None and after is None:
        return ""
    return " -> ".join("gone" if each is None else _shown(each) for each in (before, after))


def _shown(value: Any) -> str:
    """A state as it is, settings as `concurrency 5, rate none`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    return value if isinstance(value, str) else json.dumps(value)

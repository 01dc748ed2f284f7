"""`corral audit`: what operators changed, and who they were."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import format_age
from corral.cli.results import command, print_result
from corral.cli.text_table import show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.inspector import AuditEntry, JobInspector

__all__ = ["audit"]


@command()
@click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=50,
    show_default=True,
    metavar="N",
    help="How many changes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit(limit: int, as_json: bool) -> None:
    """Show what operators changed and who they were, the latest change first.

    \b
    corral audit
    corral audit --limit 200 --json
    """
    from corral.app import operate

    async def read(inspector: JobInspector) -> Sequence[AuditEntry]:
        return await inspector.audit.read(limit=limit)

    found = operate(read)
    if as_json:
        print_result(
            json.dumps([{**dataclasses.asdict(each), "at": each.at.isoformat()} for each in found])
        )
    elif found:
        show_table(
            ["WHEN", "WHO", "WHAT", "QUEUE", "JOB", "CHANGED"], [_row(each) for each in found]
        )
    else:
        click.echo("no changes are recorded", err=True)


def _row(each: AuditEntry) -> list[object]:
    job = each.job_id or ("" if each.count is None else _counted(each.what, each.count))
    return [
        format_age(each.at),
        each.who,
        each.what,
        each.queue or "",
        job,
        _changed(each.before, each.after),
    ]


def _counted(operation: str, count: int) -> str:
    what = "event" if operation == "scrub_events" else "job"
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _changed(before: Any, after: Any) -> str:
    if before is None and after is None:
        return ""
    return " -> ".join("gone" if each is None else _format_value(each) for each in (before, after))


def _format_value(value: Any) -> str:
    """A state as it is; settings as `concurrency 5, rate none`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format_value(each)}" for name, each in value.items())
    return value if isinstance(value, str) else json.dumps(value)

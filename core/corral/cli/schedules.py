"""`corral schedules`: what runs by itself, and when next."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from corral.cli.table import show_table
from corral.cli.terminal import show_damage

if TYPE_CHECKING:
    from corral.app.scheduling import Scheduled

__all__ = ["schedules"]


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def schedules(context: click.Context, as_json: bool) -> None:
    """Every schedule of the installed queues, and when it runs next.

    \b
    corral schedules
    corral schedules --json
    corral schedules prune      remove those that their queues declare no longer
    """
    if context.invoked_subcommand is not None:
        return
    from corral.app import list_schedules

    _show(list_schedules(), as_json, "no schedules")


@schedules.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prune(as_json: bool) -> None:
    """Remove the schedules that their queues declare no longer; others, and jobs that wait already, are left.

    \b
    corral schedules prune
    """
    from corral.app import prune_schedules

    _show(prune_schedules(), as_json, "nothing to remove")


def _show(found: list[Scheduled], as_json: bool, nothing: str) -> None:
    rows = [_row(each) for each in found if not each.damaged]
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        # A declared schedule has its queue's name: saying it twice would not fit into 80 columns.
        cells = [[row["queue"], row["id"] if row["origin"] == "runtime" else row["origin"]] for row in rows]
        for cell, row in zip(cells, rows, strict=True):
            cell += [row["when"] or "-", (row["next"] or "-")[:16].replace("T", " "), row["state"]]
        show_table(["QUEUE", "SCHEDULE", "WHEN", "NEXT (UTC)", "STATE"], cells, elastic=1)
    else:
        click.echo(nothing, err=True)
    damaged = [each.damaged for each in found if each.damaged]
    if damaged:
        show_damage(damaged)
        raise click.exceptions.Exit(1)


def _row(each: Scheduled) -> dict[str, Any]:
    stored = each.stored
    if stored is None:
        return {
            "queue": each.queue,
            "id": each.queue,
            "when": None,
            "next": None,
            "origin": each.origin,
            "state": "new",
            "iterations": 0,
        }
    when = f"every {stored.every_ms / 1000:g} s" if stored.every_ms else f"{stored.pattern} {stored.tz or 'UTC'}"
    return {
        "queue": each.queue,
        "id": stored.id,
        "when": when,
        "next": datetime.fromtimestamp(stored.next_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "origin": each.origin,
        "state": "alive" if stored.alive else "ended",
        "iterations": stored.iterations,
    }

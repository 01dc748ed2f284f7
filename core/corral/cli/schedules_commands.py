"""`corral schedules`: list, prune, remove and restore schedules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from corral.cli.results import group, print_result
from corral.cli.terminal import show_damage
from corral.cli.text_table import show_table

if TYPE_CHECKING:
    from corral.app.scheduling import ListedSchedule

__all__ = ["schedules"]


@group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def schedules(context: click.Context, as_json: bool) -> None:
    """List every schedule of the installed queues, and when it runs next.

    \b
    corral schedules
    corral schedules --json
    corral schedules prune             remove what is no longer declared
    corral schedules remove reports    stop the schedule of queue reports
    corral schedules restore reports   start it again
    """
    if context.invoked_subcommand is not None:
        return
    from corral.app import list_schedules

    _print_schedules(list_schedules(), as_json, "no schedules")


@schedules.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prune(as_json: bool) -> None:
    """Remove the schedules that their queues no longer declare.

    Schedules that programs made are kept, and so are jobs that are waiting already.

    \b
    corral schedules prune
    """
    from corral.app import prune_schedules

    _print_schedules(prune_schedules(), as_json, "nothing to remove")


@schedules.command("remove")
@click.argument("queue")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def remove_declared_schedule(queue: str, as_json: bool) -> None:
    """Remove the schedule that a queue declares.

    Workers do not install it again until it is restored.

    \b
    corral schedules remove reports
    """
    from corral.app import remove_schedule

    removed = remove_schedule(queue)
    if as_json:
        print_result(json.dumps({"queue": queue, "removed": removed}))
    else:
        print_result(
            f"{queue}: the schedule is removed; to restore it: corral schedules restore {queue}"
        )


@schedules.command()
@click.argument("queue")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def restore(queue: str, as_json: bool) -> None:
    """Install the schedule that a queue declares, however it was removed.

    A schedule that exists is left as it is.

    \b
    corral schedules restore reports
    """
    from corral.app import restore_schedule

    following = restore_schedule(queue)
    if as_json:
        print_result(json.dumps({"queue": queue, "next": _format_time(following)}))
    else:
        print_result(f"{queue}: runs next at {_format_time(following)}")


def _print_schedules(found: list[ListedSchedule], as_json: bool, nothing: str) -> None:
    rows = [_plain_row(each) for each in found if not each.damaged]
    if as_json:
        print_result(json.dumps(rows))
    elif rows:
        # A declared schedule has its queue's name, which is shown only once, to fit into 80 cells.
        cells = [
            [row["queue"], row["id"] if row["origin"] == "runtime" else row["origin"]]
            for row in rows
        ]
        for cell, row in zip(cells, rows, strict=True):
            cell += [row["when"] or "-", (row["next"] or "-")[:16].replace("T", " "), row["state"]]
        show_table(["QUEUE", "SCHEDULE", "WHEN", "NEXT (UTC)", "STATE"], cells, elastic=1)
    else:
        click.echo(nothing, err=True)
    damaged = [each.damaged for each in found if each.damaged]
    if damaged:
        show_damage(damaged)
        raise click.exceptions.Exit(1)


def _plain_row(each: ListedSchedule) -> dict[str, Any]:
    stored = each.stored
    if stored is None:
        return {
            "queue": each.queue,
            "id": each.queue,
            "when": None,
            "next": None,
            "origin": each.origin,
            "state": "removed" if each.removed else "new",
            "iterations": 0,
        }
    when = f"every {stored.every_ms / 1000:g} s" if stored.every_ms else None
    if stored.pattern:
        when = f"{stored.pattern} {stored.tz or 'UTC'}"
    return {
        "queue": each.queue,
        "id": stored.id,
        "when": when,
        "next": _format_time(datetime.fromtimestamp(stored.next_ms / 1000, UTC)),
        "origin": each.origin,
        "state": "alive" if stored.alive else "ended",
        "iterations": stored.iterations,
    }


def _format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

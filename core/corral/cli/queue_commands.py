"""`corral enqueue` and `corral queues`: add a job, and count the jobs of each queue."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import parse_duration
from corral.cli.results import command, is_on_terminal, print_result
from corral.cli.terminal import show_damage
from corral.cli.text_table import show_table
from corral.errors import ConfigurationError
from corral.options import EnqueueOptions

if TYPE_CHECKING:
    from corral.inspector import QueueSizes, Retrying

__all__ = ["enqueue", "queues"]


@command()
@click.argument("queue")
@click.argument("payload", metavar="(JSON | - | @FILE)")
@click.option(
    "--delay",
    metavar="30s|5m|ISO",
    help="When the job is due: after a time (ms s m h d), or at an ISO 8601 time with a zone.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=0),
    metavar="N",
    help="How often the job is tried in all.",
)
@click.option(
    "--priority",
    type=click.IntRange(min=0),
    metavar="N",
    help="1 is the most urgent; jobs without a priority run before all others.",
)
@click.option(
    "--job-id",
    metavar="ID",
    help="The job's id; an id that exists does not add a second job.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="If the job with this id has failed, run it again as it is.",
)
def enqueue(
    queue: str,
    payload: str,
    delay: str | None,
    attempts: int | None,
    priority: int | None,
    job_id: str | None,
    retry_failed: bool,
) -> None:
    """Add one job and print its id.

    If the queue has a job with that id, nothing is added, and stderr says in which state it is.

    \b
    corral enqueue emails '{"to": "ada@example.com", "template": "welcome",
        "variables": {"name": "Ada", "url": "https://example.com/start"}}'
    corral enqueue emails @mail.json --delay 5m --job-id welcome-ada
    echo '{…}' | corral enqueue emails -
    """
    from corral.app import enqueue_once
    from corral.job_state import JobState

    options: EnqueueOptions = {}
    if delay is not None:
        options["delay"] = _parse_delay(delay)
    if attempts is not None:
        options["attempts"] = attempts
    if priority is not None:
        options["priority"] = priority
    if job_id is not None:
        options["job_id"] = job_id
    if retry_failed:
        options["if_failed"] = "retry"
    enqueued = enqueue_once(queue, _read_payload(payload), options)
    print_result(enqueued.id)
    if retry_failed and enqueued.state == JobState.FAILED:
        click.echo(f"job {enqueued.id} had failed; it runs again with its own payload", err=True)
    elif not enqueued.created:
        state = f" and is {enqueued.state}" if enqueued.state else ""
        click.echo(f"job {enqueued.id} exists already{state}; nothing was added", err=True)


@command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def queues(as_json: bool) -> None:
    """Count the jobs of each queue by state.

    It also shows which queues are paused, which have jobs in quarantine, how many of the delayed
    jobs are retrying (they have failed attempts, and wait for another one), and which queues are in
    the store and not installed: no plugin declares them.

    \b
    corral queues
    corral queues --json
    """
    from corral.app import count_jobs

    declared, orphans = count_jobs()
    found = {**declared, **orphans.sizes}
    if as_json:
        rows = [
            _plain_queue(name, each, installed=name in declared) for name, each in found.items()
        ]
        print_result(json.dumps(rows))
    elif found:
        _show_queues(found, declared)
    if not declared and not as_json:
        click.echo("no queues are installed", err=True)
    if orphans.problem:
        click.echo(f"note: {orphans.problem}", err=True)
    elif orphans.is_partial:
        click.echo("note: more queues of the store are not installed", err=True)
    damaged = [wrong for each in declared.values() for wrong in each.damaged]
    if damaged:
        show_damage(damaged)
        raise click.exceptions.Exit(1)


def _plain_queue(name: str, found: QueueSizes, *, installed: bool) -> dict[str, Any]:
    others: dict[str, Any] = {
        "retrying": found.retrying.count,
        "retrying_is_bound": found.retrying.is_bound,
        "paused": found.limits.paused,
        "quarantined": found.quarantined,
        "damaged": [*found.damaged],
        "installed": installed,
    }
    return {"queue": name, **{str(state): count for state, count in found.counts.items()}, **others}


def _show_queues(found: Mapping[str, QueueSizes], declared: Collection[str]) -> None:
    columns: dict[str, list[object]] = {"QUEUE": list(found)}
    for state in next(iter(found.values())).counts:
        columns[state.upper()] = [_count(each.counts[state]) for each in found.values()]
        if state == "delayed" and any(each.retrying.count for each in found.values()):
            columns["RETRYING"] = [_retrying(each.retrying) for each in found.values()]
    if any(each.quarantined != 0 for each in found.values()):
        columns["QUARANTINE"] = [_count(each.quarantined) for each in found.values()]
    columns["PAUSED"] = ["paused" if each.limits.paused else "" for each in found.values()]
    if len(declared) < len(found):
        columns["CATALOG"] = ["" if name in declared else "not installed" for name in found]
    if is_on_terminal():  # columns without values are left out, to fit into 80 cells
        rare = {"PRIORITIZED", "WAITING-CHILDREN", "PAUSED"}
        columns = {
            heading.replace("WAITING-", "WAITING-\n").replace("PRIORI", "PRIORI-\n"): cells
            for heading, cells in columns.items()
            if heading not in rare or any(cells)
        }
    show_table(list(columns), list(zip(*columns.values(), strict=True)), elastic=0)


def _retrying(retrying: Retrying) -> int | str:
    return str(retrying) if retrying.is_bound else retrying.count


def _count(count: int | None) -> int | str:
    return "?" if count is None else count


def _read_payload(argument: str) -> dict[str, Any]:
    """Read the payload from the argument itself, from a file (`@`), or from stdin (`-`)."""
    text, source = argument, "the payload"
    hint: str | None = "quote it for the shell: '{\"name\": 1}'"
    try:
        if argument == "-":
            source, hint = "standard input", None
            text = sys.stdin.buffer.read().decode()
        elif argument.startswith("@"):
            source, hint = argument[1:], None
            text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"cannot read {source}: {reason}") from error
    try:
        payload = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source} is not JSON: {error}", hint=hint) from error
    if not isinstance(payload, dict):
        raise ConfigurationError(f"{source} is not a JSON object")
    return payload


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def _parse_delay(text: str) -> timedelta:
    span = parse_duration(text)
    if span is not None:
        return span
    try:
        return max(datetime.fromisoformat(text) - datetime.now(UTC), timedelta(0))
    except (
        ValueError,
        TypeError,
        OverflowError,
    ) as error:  # not a time, a time without a zone, or a time beyond the range of `datetime`
        raise ConfigurationError(
            f"delay {text!r} is not understood",
            hint="write 30s, 5m, 2h, or 2030-01-31T08:00:00+01:00",
        ) from error

"""`corral job`: list, show and remove jobs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import format_age, format_duration
from corral.cli.results import group, is_on_terminal, print_result
from corral.cli.terminal import printable, show_damage
from corral.cli.text_table import show_page_size, show_table
from corral.errors import CorralError
from corral.job_state import JobState

if TYPE_CHECKING:
    from corral.inspector import JobInspector, JobPage, StoredJob

__all__ = ["STATES", "job_group", "run_on_each_job"]

STATES = tuple(state.value for state in JobState)
"""The values of `JobState`, in its order."""
RETRYING = "retrying"
"""No state of its own: the delayed jobs that have failed attempts."""


@group("job")
def job_group() -> None:
    """List, show and remove jobs.

    \b
    corral job list emails --state failed
    corral job show emails 01hx…
    """


@job_group.command("list")
@click.argument("queue")
@click.option(
    "--state",
    type=click.Choice((*STATES, RETRYING)),
    default="failed",
    show_default=True,
    metavar="STATE",
    help=f"Their state: {', '.join(STATES)}; or retrying: delayed, with failed attempts.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    metavar="N",
    help="How many jobs.",
)
@click.option(
    "--start",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="How many jobs to skip.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_jobs(queue: str, state: str, limit: int, start: int, as_json: bool) -> None:
    """List the jobs of a queue that are in one state.

    The jobs that run next come first; of finished jobs, those that ended last.

    \b
    corral job list emails
    corral job list emails --state waiting --limit 100 --start 100
    corral job list emails --state retrying
    """
    from corral.app import operate

    def read(inspector: JobInspector) -> Coroutine[Any, Any, JobPage]:
        if state == RETRYING:
            return inspector.list_retrying(queue, start=start, limit=limit)
        return inspector.list(queue, JobState(state), start=start, limit=limit)

    page = operate(read, queue)
    if as_json:
        jobs = [plain_job(each) for each in page.jobs]
        facts = {"queue": queue, "state": state, "total": page.total, "start": start}
        print_result(json.dumps({**facts, "jobs": jobs, "damaged": [*page.damaged]}))
    elif page.jobs:
        heading, cell = _DETAILS.get(state, ("PRIORITY", lambda each: each.priority or ""))
        rows = [
            (each.id, _age(each), f"{each.attempts_made}/{each.max_attempts}", cell(each))
            for each in page.jobs
        ]
        show_table(["ID", _TIMES.get(state, "ENQUEUED"), "ATTEMPTS", heading], rows)
    if not as_json:
        jobs_in_state = f"{state} job{'' if page.total == 1 else 's'} in queue {queue!r}"
        show_page_size(jobs_in_state, start, len(page.jobs), limit, page.total)
        if page.is_bound:
            click.echo("only the 2,000 delayed jobs that are due first were looked at", err=True)
    if page.damaged:
        show_damage(page.damaged)
        raise click.exceptions.Exit(1)


@job_group.command()
@click.argument("queue")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(queue: str, job_id: str, as_json: bool) -> None:
    """Show everything that is stored of a job.

    This includes its payload and stack traces, which may be confidential.

    \b
    corral job show emails 01hx…
    corral job show emails welcome-ada --json
    """
    from corral.app import operate

    found = operate(lambda inspector: inspector.get(queue, job_id), queue)
    if as_json:
        print_result(json.dumps(plain_job(found)))
        return
    facts = list(_facts(found))
    width = max(len(label) for label, _ in facts)
    for label, value in facts:
        first, *more = _wrapped(printable(value), width + 2)
        print_result(f"{click.style(label.ljust(width), bold=True)}  {first}")
        for line in more:
            print_result(" " * (width + 2) + line)
    for label, text in _texts(found):
        click.secho(f"\n{label}", bold=True)
        print_result("\n".join(f"  {line}" for line in printable(text, lines=True).splitlines()))


@job_group.command()
@click.argument("queue")
@click.argument("job_id", metavar="ID")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many lines, the last ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def logs(queue: str, job_id: str, limit: int, as_json: bool) -> None:
    """Show the log lines of a job, the oldest first.

    \b
    corral job logs emails welcome-ada
    corral job logs emails welcome-ada --limit 10 --json
    """
    from corral.app import operate

    lines = operate(
        lambda inspector: inspector.logs(queue, job_id, start=-limit, limit=limit), queue
    )
    if as_json:
        print_result(json.dumps({"queue": queue, "id": job_id, "lines": list(lines)}))
        return
    for line in lines:
        print_result(printable(line, lines=True))
    if not lines:
        click.echo(f"job {printable(job_id)} has no log lines", err=True)


@job_group.command("remove")
@click.argument("queue")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def remove_jobs_by_id(queue: str, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Remove jobs and their children. A job that a worker is running is not removed.

    \b
    corral job remove emails welcome-ada
    """
    run_on_each_job(
        "removed",
        queue,
        job_ids,
        lambda inspector, job_id: inspector.remove(queue, job_id),
        as_json=as_json,
    )


def run_on_each_job(
    done: str,
    queue: str,
    job_ids: tuple[str, ...],
    operation: Callable[[JobInspector, str], Awaitable[None]],
    *,
    as_json: bool,
) -> None:
    """Run an operation on jobs, one by one, and print a result for each.

    Args:
        done: The participle that is printed for each success, and the key in JSON: `removed`.
        queue: The queue's name.
        job_ids: The jobs' ids.
        operation: Changes one job.
        as_json: Whether to print one JSON document.

    Raises:
        click.exceptions.Exit: With code 1 if any job was refused.
    """
    from corral.app import operate
    from corral.errors import StoreUnavailable

    async def work(inspector: JobInspector) -> list[tuple[str, CorralError | None]]:
        results: list[tuple[str, CorralError | None]] = []
        for job_id in job_ids:
            try:
                await operation(inspector, job_id)
            except StoreUnavailable:
                raise
            except CorralError as error:
                results.append((job_id, error))
            else:
                results.append((job_id, None))
        return results

    results = operate(work, queue)
    if as_json:
        rows = [
            {"id": job_id, done: error is None, "error": error and str(error)}
            for job_id, error in results
        ]
        print_result(json.dumps({"queue": queue, "jobs": rows}))
    for job_id, error in results:
        if error is None and not as_json:
            print_result(f"{done} {printable(job_id)}")
        elif error is not None:
            click.echo(f"error: {printable(str(error))}", err=True)
            if error.hint:
                click.echo(f"  hint: {error.hint}", err=True)
    if any(error for _, error in results):
        raise click.exceptions.Exit(1)


def plain_job(found: StoredJob) -> dict[str, Any]:
    """A job as values for JSON: times in ISO 8601, durations in seconds."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        match value:
            case datetime():
                plain[field.name] = value.astimezone(UTC).isoformat()
            case timedelta():
                plain[f"{field.name}_seconds"] = value.total_seconds()
            case _:
                plain[field.name] = value
    return plain


def _age(found: StoredJob) -> str:
    """How long ago a job ended; else how long ago an active job started; else was enqueued."""
    return format_age(
        found.finished_on
        or (found.processed_on if found.state == "active" else None)
        or found.enqueued_at
    )


def _took(found: StoredJob) -> str:
    if found.finished_on is None or found.processed_on is None:
        return ""
    return format_duration(found.finished_on - found.processed_on)


_TIMES = {"failed": "FAILED", "completed": "COMPLETED", "active": "STARTED"}
"""By state, the heading of the column with the time that `_age` shows."""
_DETAILS: dict[str, tuple[str, Callable[[StoredJob], object]]] = {
    "failed": ("REASON", lambda each: each.failed_reason or ""),
    RETRYING: ("REASON", lambda each: each.failed_reason or ""),
    "delayed": ("DUE", lambda each: format_age(each.due_at)),
    "active": ("WORKER", lambda each: each.processed_by or ""),
    "completed": ("TOOK", _took),
}


def _wrapped(value: str, indent: int) -> list[str]:
    """A value in lines that fit beside its label on a terminal; elsewhere in one line."""
    if not is_on_terminal():
        return [value]
    return textwrap.wrap(value, max(shutil.get_terminal_size().columns - indent, 20)) or [""]


def _when(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC, {format_age(moment)}"


def _facts(found: StoredJob) -> Iterator[tuple[str, str]]:
    yield "id", found.id
    yield "queue", found.queue
    yield "name", found.name
    yield "state", found.state or "in no state: it will never run"
    yield (
        "attempts",
        f"{found.attempts_made} of {found.max_attempts} made, {found.attempts_started} started",
    )
    optional = {
        "priority": str(found.priority) if found.priority else "",
        "enqueued": _when(found.enqueued_at),
        "due": _when(found.due_at),
        "started": _when(found.processed_on),
        "ended": _when(found.finished_on),
        "worker": found.processed_by,
        "locked for": format_duration(found.locked_for) if found.locked_for is not None else "",
        "stalled": str(found.stalled) if found.stalled else "",
        "progress": ""
        if found.progress is None
        else json.dumps(found.progress, ensure_ascii=False),
        "log lines": str(found.log_lines) if found.log_lines else "",
        "parent": found.parent_key,
        "deduplication": found.deduplication_id,
        "schedule": found.schedule_id,
        "failed reason": found.failed_reason,
        "will fail with": found.deferred_failure,
    }
    for label, value in optional.items():
        if value:
            yield label, value


def _texts(found: StoredJob) -> Iterator[tuple[str, str]]:
    yield "payload", _pretty(found.data)
    yield "options", _pretty(found.opts)
    if found.returnvalue is not None:
        yield "result", _pretty(found.returnvalue)
    for number, trace in enumerate(found.stacktrace, 1):
        yield f"stack trace {number} of {len(found.stacktrace)}", trace


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)

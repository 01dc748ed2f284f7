"""`corral quarantine`: ids that workers have moved aside because they cannot be jobs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import format_age
from corral.cli.operator_commands import as_json_option, yes_option
from corral.cli.results import group, print_result
from corral.cli.terminal import confirm, printable
from corral.cli.text_table import show_page_size, show_table

if TYPE_CHECKING:
    from corral.inspector import JobInspector, QuarantinedJob, QuarantinePage, ReturnedJob

__all__ = ["quarantine"]


@group()
def quarantine() -> None:
    """The quarantine: ids that workers have moved aside because they cannot be jobs.

    The key of the job is not a hash, or the id has the name of a key of the queue.

    \b
    corral quarantine list emails
    corral quarantine return emails completed
    corral quarantine discard emails --all
    """


@quarantine.command("list")
@click.argument("queue")
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    default=100,
    show_default=True,
    metavar="N",
    help="How many ids.",
)
@click.option(
    "--start",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="How many ids to skip.",
)
@as_json_option
def list_quarantined(queue: str, limit: int, start: int, as_json: bool) -> None:
    """List the ids in quarantine, the newest first.

    For each id it shows where it was, whether and how it can be returned, and why it is there. An
    id that is not UTF-8 is shown with escapes; the other commands take it in this spelling.

    \b
    corral quarantine list emails
    corral quarantine list emails --start 100 --json
    """
    from corral.app import operate

    page: QuarantinePage = operate(
        lambda inspector: inspector.list_quarantined(queue, start=start, limit=limit), queue
    )
    if as_json:
        jobs = [_plain_row(each) for each in page.jobs]
        print_result(
            json.dumps({"queue": queue, "total": page.total, "start": start, "jobs": jobs})
        )
        return
    if page.jobs:
        rows = [
            (each.id, format_age(each.since), each.origin, _return_text(each), each.reason)
            for each in page.jobs
        ]
        show_table(["ID", "WHEN", "FROM", "RETURNS", "REASON"], rows)
    what = f"id{'' if page.total == 1 else 's'} in quarantine of queue {queue!r}"
    show_page_size(what, start, len(page.jobs), limit, page.total)


@quarantine.command("return")
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All ids that are in quarantine now.")
@as_json_option
def return_quarantined(
    queue: str, job_ids: tuple[str, ...], everything: bool, as_json: bool
) -> None:
    """Return jobs from the quarantine to waiting, behind all others.

    The kept key of the job must be a hash by now: repair it where it is kept, or create the job's
    own key. A job whose id is the name of a key of the queue gets a new id, which is printed.

    \b
    corral quarantine return emails welcome-ada
    corral quarantine return emails --all
    """
    _check_which(job_ids, everything)

    async def work(inspector: JobInspector) -> Sequence[ReturnedJob]:
        if everything:
            return await inspector.return_all_quarantined(queue)
        return await inspector.return_quarantined(queue, job_ids)

    found = _operate(work, queue)
    rows = [(each.id, each.job_id, each.refused) for each in found]
    if as_json:
        jobs = [
            {"id": job_id, "returned": new is not None, "job_id": new, "error": refused or None}
            for job_id, new, refused in rows
        ]
        print_result(json.dumps({"queue": queue, "jobs": jobs}))
    for job_id, new, refused in rows:
        if refused:
            click.echo(
                f"error: {printable(job_id)} was not returned: {printable(refused)}", err=True
            )
        elif not as_json:
            renamed = "" if new == job_id else f" as {printable(new or '')}"
            print_result(f"returned {printable(job_id)}{renamed}")
    if everything and not rows and not as_json:
        click.echo(f"no ids in quarantine of queue {queue!r}", err=True)
    if any(refused for *_, refused in rows):
        raise click.exceptions.Exit(1)


@quarantine.command("discard")
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All ids that are in quarantine now.")
@yes_option
@as_json_option
def discard_quarantined(
    queue: str, job_ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool
) -> None:
    """Remove ids from the quarantine, with the keys that are kept of them.

    \b
    corral quarantine discard emails welcome-ada
    corral quarantine discard emails --all --yes
    """
    _check_which(job_ids, everything)

    async def work(inspector: JobInspector) -> tuple[int, Sequence[str]]:
        if everything:
            total = (await inspector.list_quarantined(queue, limit=1)).total
            ids = f"{total:,} id{'' if total == 1 else 's'}"
            confirm(f"remove everything in quarantine of queue {queue!r}, {ids}", yes=yes)
            return await inspector.discard_all_quarantined(queue), ()
        which = "id" if len(job_ids) == 1 else "ids"
        confirm(f"remove {len(job_ids)} {which} in quarantine of queue {queue!r}", yes=yes)
        gone = await inspector.discard_quarantined(queue, job_ids)
        return len(gone), [job_id for job_id in job_ids if job_id not in gone]

    count, missing = _operate(work, queue)
    if as_json:
        print_result(json.dumps({"queue": queue, "discarded": count, "missing": [*missing]}))
    else:
        print_result(f"discarded {count:,} job{'' if count == 1 else 's'}")
    for job_id in missing:
        click.echo(f"error: {printable(job_id)} is not in quarantine", err=True)
    if missing:
        raise click.exceptions.Exit(1)


def _operate(work: Callable[[JobInspector], Awaitable[Any]], queue: str) -> Any:
    from corral.app import operate

    return operate(work, queue)  # type: ignore[arg-type]  # a coroutine function is one


def _check_which(job_ids: Sequence[str], everything: bool) -> None:
    if bool(job_ids) == everything:
        raise click.UsageError("name the jobs: IDs, or --all")


def _return_text(each: QuarantinedJob) -> str:
    if each.obstacle:
        return f"no: {each.obstacle}"
    return "yes" if each.returns_as == each.id else f"as {each.returns_as}"


def _plain_row(each: QuarantinedJob) -> dict[str, Any]:
    return {
        "id": each.id,
        "since": each.since and each.since.isoformat(),
        "from": each.origin,
        "reason": each.reason,
        "key": each.key,
        "returnable": not each.obstacle,
        "returns_as": each.returns_as,
        "obstacle": each.obstacle,
    }

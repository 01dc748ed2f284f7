"""`corral quarantine`: what workers have put aside because it cannot be a job as it stands."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import age
from corral.cli.operator import as_json_option, yes_option
from corral.cli.results import group, print_result
from corral.cli.table import show_table
from corral.cli.terminal import confirm, printable

if TYPE_CHECKING:
    from corral.inspector import JobInspector, QuarantinedJob, QuarantinePage, ReturnedJob

__all__ = ["quarantine"]


@group()
def quarantine() -> None:
    """What workers have put aside because it cannot be a job as it stands.

    An id whose own key is no hash, or that is the name of one of the queue's own keys.

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
    help="How many.",
)
@click.option(
    "--start",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="How many to leave out first.",
)
@as_json_option
def list_quarantined(queue: str, limit: int, start: int, as_json: bool) -> None:
    """List what is in quarantine, what came last first.

    Each with where it stood, why it is there, and why it cannot be returned, if so. An id that is
    no UTF-8 is shown with escapes; the other commands take it as it is shown.

    \b
    corral quarantine list emails
    corral quarantine list emails --start 100 --json
    """
    from corral.app import operate

    page: QuarantinePage = operate(
        lambda inspector: inspector.quarantined(queue, start=start, limit=limit), queue
    )
    if as_json:
        jobs = [_as_plain(each) for each in page.jobs]
        print_result(
            json.dumps({"queue": queue, "total": page.total, "start": start, "jobs": jobs})
        )
        return
    if page.jobs:
        rows = [
            (each.id, age(each.since), each.origin, _way_back(each), each.reason)
            for each in page.jobs
        ]
        show_table(["ID", "SINCE", "FROM", "RETURNS", "REASON"], rows)
    shown = f"{start + 1} to {start + len(page.jobs)} of " if page.jobs else "none of "
    more = f"; more: --start {start + limit}" if start + limit < page.total else ""
    click.echo(f"{shown}{page.total:,} in quarantine{more}", err=True)


@quarantine.command("return")
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are in quarantine now.")
@as_json_option
def return_quarantined(
    queue: str, job_ids: tuple[str, ...], everything: bool, as_json: bool
) -> None:
    """Let jobs in quarantine wait again, behind all others.

    What is kept of a job must be a hash by now: repair it where it is kept, or where it was. A job
    whose id is a key of the queue comes back under another, which is told.

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
        click.echo("nothing is in quarantine", err=True)
    if any(refused for *_, refused in rows):
        raise click.exceptions.Exit(1)


@quarantine.command("discard")
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are in quarantine now.")
@yes_option
@as_json_option
def discard_quarantined(
    queue: str, job_ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool
) -> None:
    """Remove jobs in quarantine, with what is kept of them.

    \b
    corral quarantine discard emails welcome-ada
    corral quarantine discard emails --all --yes
    """
    _check_which(job_ids, everything)

    async def work(inspector: JobInspector) -> tuple[int, Sequence[str]]:
        if everything:
            total = (await inspector.quarantined(queue, limit=1)).total
            confirm(
                f"remove all that is in quarantine of queue {queue!r}, {total:,} in number", yes=yes
            )
            return await inspector.discard_all_quarantined(queue), ()
        which = "job" if len(job_ids) == 1 else "jobs"
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
        raise click.UsageError("say which: IDs, or --all")


def _way_back(each: QuarantinedJob) -> str:
    if each.obstacle:
        return f"no: {each.obstacle}"
    return "yes" if each.returns_as == each.id else f"as {each.returns_as}"


def _as_plain(each: QuarantinedJob) -> dict[str, Any]:
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

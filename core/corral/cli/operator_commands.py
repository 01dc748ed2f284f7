"""Commands of an operator: retry, promote, remove and scrub jobs; pause and limit queues."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import format_duration, parse_duration
from corral.cli.job_commands import STATES, run_on_each_job
from corral.cli.results import command, print_result
from corral.cli.terminal import confirm, printable, show_damage, show_progress
from corral.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from corral.inspector import JobInspector, Limits

__all__ = ["clean", "drain", "limit", "pause", "promote", "resume", "retry", "scrub"]

CLEANABLE = tuple(state for state in STATES if state != "waiting-children")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed if there is no terminal.")


@command()
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all-failed", is_flag=True, help="All jobs that have failed until now.")
@click.option(
    "--refused",
    is_flag=True,
    help="All failed jobs whose payload a worker could not read; use it after deploying a fix.",
)
@click.option("--reset", is_flag=True, help="Count attempts from zero, instead of adding one more.")
@as_json_option
def retry(
    queue: str,
    job_ids: tuple[str, ...],
    all_failed: bool,
    refused: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Move failed jobs back to waiting; completed jobs only if their ids are given.

    \b
    corral retry emails welcome-ada
    corral retry emails --all-failed
    corral retry emails --refused --reset
    """
    if sum((bool(job_ids), all_failed, refused)) != 1:
        raise click.UsageError("name the jobs: IDs, or --all-failed, or --refused")
    if job_ids:
        run_on_each_job(
            "retried",
            queue,
            job_ids,
            lambda inspector, job_id: inspector.retry(queue, job_id, reset=reset),
            as_json=as_json,
        )
        return

    async def work(inspector: JobInspector) -> int:
        method = inspector.retry_refused if refused else inspector.retry_all_failed
        with show_progress(f"retrying {queue}") as on_progress:
            return await method(queue, reset=reset, on_progress=on_progress)

    _print_count(queue, "retried", _operate(work, queue), as_json)


@command()
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All jobs that are delayed now.")
@as_json_option
def promote(queue: str, job_ids: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Move delayed jobs to waiting, so that they run now.

    \b
    corral promote emails welcome-ada
    corral promote emails --all
    """
    if bool(job_ids) == everything:
        raise click.UsageError("name the jobs: IDs, or --all")
    if job_ids:
        run_on_each_job(
            "promoted",
            queue,
            job_ids,
            lambda inspector, job_id: inspector.promote(queue, job_id),
            as_json=as_json,
        )
        return

    async def work(inspector: JobInspector) -> int:
        with show_progress(f"promoting {queue}") as on_progress:
            return await inspector.promote_all(queue, on_progress=on_progress)

    _print_count(queue, "promoted", _operate(work, queue), as_json)


@command()
@click.argument("queue")
@as_json_option
def pause(queue: str, as_json: bool) -> None:
    """Pause a queue: no worker starts its jobs. Running jobs continue; jobs can be enqueued.

    \b
    corral pause emails
    """
    changed = _operate(lambda inspector: inspector.pause(queue), queue)
    _print_paused(queue, paused=True, changed=changed, as_json=as_json)


@command()
@click.argument("queue")
@as_json_option
def resume(queue: str, as_json: bool) -> None:
    """Resume a paused queue: its jobs may start again.

    \b
    corral resume emails
    """
    changed = _operate(lambda inspector: inspector.resume(queue), queue)
    _print_paused(queue, paused=False, changed=changed, as_json=as_json)


@command()
@click.argument("queue")
@click.option("--delayed", is_flag=True, help="Remove delayed jobs, too.")
@yes_option
@as_json_option
def drain(queue: str, delayed: bool, yes: bool, as_json: bool) -> None:
    """Remove all waiting jobs. Running jobs continue; the next runs of schedules are kept.

    \b
    corral drain emails
    corral drain emails --delayed --yes
    """
    from corral.inspector import drained_states

    async def work(inspector: JobInspector) -> int:
        count = sum((await inspector.counts(queue, drained_states(delayed=delayed))).values())
        which = "waiting and delayed" if delayed else "waiting"
        confirm(f"remove the {_jobs(count, which)} of queue {queue!r}", yes=yes)
        with show_progress(f"draining {queue}") as on_progress:
            return await inspector.drain(queue, delayed=delayed, on_progress=on_progress)

    _print_count(queue, "removed", _operate(work, queue), as_json)


@command()
@click.argument("queue")
@click.option("--state", type=click.Choice(CLEANABLE), required=True, help="Their state.")
@click.option(
    "--older-than",
    required=True,
    metavar="7d",
    help="The least age, since the job ended, started or was added.",
)
@click.option(
    "--limit", "maximum", type=click.IntRange(min=1), metavar="N", help="How many jobs at most."
)
@yes_option
@as_json_option
def clean(
    queue: str, state: Any, older_than: str, maximum: int | None, yes: bool, as_json: bool
) -> None:
    """Remove the jobs in one state that are old enough.

    Jobs that a worker holds, and the next runs of schedules, are kept.

    \b
    corral clean emails --state failed --older-than 7d
    corral clean emails --state completed --older-than 1h --limit 1000 --yes
    """
    old = parse_duration(older_than)
    if old is None:
        raise ConfigurationError(
            f"--older-than {older_than!r} is not understood", hint="write 7d, 12h, 30m or 90s"
        )

    async def work(inspector: JobInspector) -> int:
        count = (await inspector.counts(queue, (state,)))[state]
        which = f"at most {maximum:,}" if maximum else "those"
        jobs = _jobs(count, state)
        confirm(
            f"remove {which} of the {jobs} of queue {queue!r} that are older than {older_than}",
            yes=yes,
        )
        with show_progress(f"cleaning {queue}") as on_progress:
            return await inspector.clean(queue, state, old, limit=maximum, on_progress=on_progress)

    _print_count(queue, "removed", _operate(work, queue), as_json)


@command()
@click.argument("text")
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
@yes_option
@as_json_option
def scrub(text: str, queues: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Empty the finished jobs that contain a text, such as a user's id.

    Payload, result, progress, failed reason, stack traces and log lines of these jobs are removed,
    and events that contain the text. Unfinished jobs are not changed: they need their payload.

    \b
    corral scrub user-4711
    corral scrub user-4711 emails data-exports --yes
    """

    async def work(
        inspector: JobInspector,
    ) -> tuple[dict[str, int], list[str], dict[str, StoreUnavailable]]:
        names = queues or inspector.queues
        where = f"queue {', '.join(names)}" if len(names) == 1 else f"{len(names)} queues"
        confirm(f"empty all finished jobs of {where} that contain {printable(text)!r}", yes=yes)
        from corral.inspector import DamagedKey
        from corral.store.replies import is_missing_right

        scrubbed: dict[str, int] = {}
        damaged: list[str] = []
        refused: dict[str, StoreUnavailable] = {}
        for name in names:
            with show_progress(f"scrubbing {name}") as on_progress:
                try:
                    scrubbed[name] = await inspector.scrub(name, text, on_progress=on_progress)
                except DamagedKey as error:
                    scrubbed[name] = error.done
                    damaged += error.damaged
                except StoreUnavailable as error:
                    if not is_missing_right(error):
                        raise
                    refused[name] = error
        if len(refused) == len(names):
            raise refused[names[0]]
        return scrubbed, damaged, refused

    scrubbed, damaged, refused = _operate(work, *queues)
    if as_json:
        print_result(
            json.dumps([{"queue": name, "scrubbed": count} for name, count in scrubbed.items()])
        )
    else:
        for name, count in scrubbed.items():
            print_result(f"{name}: {_jobs(count)} scrubbed")
    for name, error in refused.items():
        click.echo(f"error: queue {name!r} was skipped: {error}\n  hint: {error.hint}", err=True)
    if damaged:
        show_damage(damaged)
    if damaged or refused:
        raise click.exceptions.Exit(1)


@command()
@click.argument("queue")
@click.option(
    "--concurrency", metavar="N|none", help="The most jobs that run at once, over all workers."
)
@click.option(
    "--rate", metavar="N/1m|none", help="The most jobs that start within a time, over all workers."
)
@as_json_option
def limit(queue: str, concurrency: str | None, rate: str | None, as_json: bool) -> None:
    """Show or change the limits of a whole queue.

    They hold for all of its workers together.

    \b
    corral limit emails
    corral limit emails --concurrency 20 --rate 100/1m
    corral limit emails --rate none
    """
    most, (allowed, per) = _parse_concurrency(concurrency), _parse_rate(rate)

    async def work(inspector: JobInspector) -> Limits:
        if concurrency is not None:
            await inspector.set_concurrency(queue, most)
        if rate is not None:
            await inspector.set_rate_limit(queue, allowed, per)
        return await inspector.limits(queue)

    limits: Limits = _operate(work, queue)
    if as_json:
        plain = {
            "queue": queue,
            "paused": limits.paused,
            "concurrency": limits.concurrency,
            "rate": limits.rate,
            "per_seconds": None if limits.per is None else limits.per.total_seconds(),
        }
        print_result(json.dumps(plain))
        return
    rate_text = "none"
    if limits.rate is not None and limits.per is not None:
        rate_text = f"{limits.rate}/{format_duration(limits.per)}"
    print_result(f"paused       {'yes' if limits.paused else 'no'}")
    print_result(f"concurrency  {'none' if limits.concurrency is None else limits.concurrency}")
    print_result(f"rate         {rate_text}")


def _operate(work: Any, *queues: str) -> Any:
    from corral.app import operate

    return operate(work, *queues)


def _parse_concurrency(text: str | None) -> int | None:
    """Parse `--concurrency`: a number, or None for no limit."""
    if text is None or text == "none":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise ConfigurationError(
            f"--concurrency {text!r} is not understood", hint="write a whole number, or none"
        )
    return int(text)


def _parse_rate(text: str | None) -> tuple[int | None, timedelta | None]:
    """Parse `--rate`: the number and the window, or None twice for no limit."""
    if text is None or text == "none":
        return None, None
    count, _, window = text.partition("/")
    per = parse_duration(window)
    if per is None or not (count.isascii() and count.isdecimal()):
        raise ConfigurationError(
            f"--rate {text!r} is not understood", hint="write 100/1m, 5/30s, or none"
        )
    return int(count), per


def _jobs(count: int, state: str = "") -> str:
    """`1 job`, `1,200 delayed jobs`."""
    return f"{count:,} {f'{state} ' if state else ''}job{'' if count == 1 else 's'}"


def _print_count(queue: str, done: str, count: int, as_json: bool) -> None:
    print_result(json.dumps({"queue": queue, done: count}) if as_json else f"{done} {_jobs(count)}")


def _print_paused(queue: str, *, paused: bool, changed: bool, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps({"queue": queue, "paused": paused, "changed": changed}))
        return
    if paused:
        print_result(f"{queue} is paused" if changed else f"{queue} was paused already")
    else:
        print_result(f"{queue} is resumed" if changed else f"{queue} was not paused")

"""The commands that put right what went wrong, and those that hold a queue back."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from corral.cli.durations import duration, short
from corral.cli.job import STATES, each_job
from corral.cli.results import command, print_result
from corral.cli.terminal import confirm, printable, progress, show_damage
from corral.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from corral.inspector import JobInspector, Limits

__all__ = ["clean", "drain", "limit", "pause", "promote", "resume", "retry", "scrub"]

CLEANABLE = tuple(state for state in STATES if state != "waiting-children")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask; needed where nobody is at a terminal."
)


@command()
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all-failed", is_flag=True, help="Every job that has failed until now.")
@click.option(
    "--refused",
    is_flag=True,
    help="Those whose payload a worker could not read: after a deploy that can.",
)
@click.option(
    "--reset", is_flag=True, help="Count attempts from zero, instead of trying once more."
)
@as_json_option
def retry(
    queue: str,
    job_ids: tuple[str, ...],
    all_failed: bool,
    refused: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Make failed jobs wait again, or completed ones that are named.

    \b
    corral retry emails welcome-ada
    corral retry emails --all-failed
    corral retry emails --refused --reset
    """
    if sum((bool(job_ids), all_failed, refused)) != 1:
        raise click.UsageError("say which: IDs, or --all-failed, or --refused")
    if job_ids:
        each_job(
            "retried",
            queue,
            job_ids,
            lambda inspector, job_id: inspector.retry(queue, job_id, reset=reset),
            as_json=as_json,
        )
        return

    async def work(inspector: JobInspector) -> int:
        method = inspector.retry_refused if refused else inspector.retry_all_failed
        with progress(f"retrying {queue}") as told:
            return await method(queue, reset=reset, told=told)

    _tell(queue, "retried", _operate(work, queue), as_json)


@command()
@click.argument("queue")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every job that is delayed now.")
@as_json_option
def promote(queue: str, job_ids: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Let delayed jobs run now.

    \b
    corral promote emails welcome-ada
    corral promote emails --all
    """
    if bool(job_ids) == everything:
        raise click.UsageError("say which: IDs, or --all")
    if job_ids:
        each_job(
            "promoted",
            queue,
            job_ids,
            lambda inspector, job_id: inspector.promote(queue, job_id),
            as_json=as_json,
        )
        return

    async def work(inspector: JobInspector) -> int:
        with progress(f"promoting {queue}") as told:
            return await inspector.promote_all(queue, told=told)

    _tell(queue, "promoted", _operate(work, queue), as_json)


@command()
@click.argument("queue")
@as_json_option
def pause(queue: str, as_json: bool) -> None:
    """Let no job of a queue start, on any worker. What runs goes on; jobs may still be enqueued.

    \b
    corral pause emails
    """
    changed = _operate(lambda inspector: inspector.pause(queue), queue)
    _tell_paused(queue, paused=True, changed=changed, as_json=as_json)


@command()
@click.argument("queue")
@as_json_option
def resume(queue: str, as_json: bool) -> None:
    """Let the jobs of a paused queue start again.

    \b
    corral resume emails
    """
    changed = _operate(lambda inspector: inspector.resume(queue), queue)
    _tell_paused(queue, paused=False, changed=changed, as_json=as_json)


@command()
@click.argument("queue")
@click.option("--delayed", is_flag=True, help="Delayed jobs, too.")
@yes_option
@as_json_option
def drain(queue: str, delayed: bool, yes: bool, as_json: bool) -> None:
    """Remove all jobs that wait. What runs goes on; the next runs of schedules stay.

    \b
    corral drain emails
    corral drain emails --delayed --yes
    """
    from corral.inspector import drained_states

    async def work(inspector: JobInspector) -> int:
        count = sum((await inspector.counts(queue, drained_states(delayed=delayed))).values())
        which = "wait or are delayed" if delayed else "wait"
        confirm(f"remove the {count:,} jobs of queue {queue!r} that {which}", yes=yes)
        with progress(f"draining {queue}") as told:
            return await inspector.drain(queue, delayed=delayed, told=told)

    _tell(queue, "removed", _operate(work, queue), as_json)


@command()
@click.argument("queue")
@click.option("--state", type=click.Choice(CLEANABLE), required=True, help="Which jobs.")
@click.option(
    "--older-than",
    required=True,
    metavar="7d",
    help="Since when: they ended, started or were made.",
)
@click.option(
    "--limit", "maximum", type=click.IntRange(min=1), metavar="N", help="How many at most."
)
@yes_option
@as_json_option
def clean(
    queue: str, state: Any, older_than: str, maximum: int | None, yes: bool, as_json: bool
) -> None:
    """Remove the jobs of one state that are old enough.

    Jobs that a worker holds stay, and next runs of schedules.

    \b
    corral clean emails --state failed --older-than 7d
    corral clean emails --state completed --older-than 1h --limit 1000 --yes
    """
    old = duration(older_than)
    if old is None:
        raise ConfigurationError(
            f"--older-than {older_than!r} is not understood", hint="write 7d, 12h, 30m or 90s"
        )

    async def work(inspector: JobInspector) -> int:
        count = (await inspector.counts(queue, (state,)))[state]
        most = f"at most {maximum:,}" if maximum else "those"
        confirm(
            f"remove {most} of the {count:,} {state} jobs of {queue!r} older than {older_than}",
            yes=yes,
        )
        with progress(f"cleaning {queue}") as told:
            return await inspector.clean(queue, state, old, limit=maximum, told=told)

    _tell(queue, "removed", _operate(work, queue), as_json)


@command()
@click.argument("text")
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
@yes_option
@as_json_option
def scrub(text: str, queues: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Empty the finished jobs that contain a text.

    A user's id, say: payload, result, progress, failed reason, stack traces and log lines of such a
    job are taken away, and events that contain it. What has not finished is left alone: it needs
    its payload.

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
            with progress(f"scrubbing {name}") as told:
                try:
                    scrubbed[name] = await inspector.scrub(name, text, told=told)
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
        click.echo(f"error: queue {name!r} is left: {error}\n  hint: {error.hint}", err=True)
    if damaged:
        show_damage(damaged)
    if damaged or refused:
        raise click.exceptions.Exit(1)


@command()
@click.argument("queue")
@click.option(
    "--concurrency", metavar="N|none", help="How many jobs run at once, over all workers."
)
@click.option(
    "--rate", metavar="N/1m|none", help="How many jobs start in a while, over all workers."
)
@as_json_option
def limit(queue: str, concurrency: str | None, rate: str | None, as_json: bool) -> None:
    """Show or change what holds a whole queue back.

    It holds over all workers together, however many there are.

    \b
    corral limit emails
    corral limit emails --concurrency 20 --rate 100/1m
    corral limit emails --rate none
    """
    most, (allowed, per) = _count(concurrency), _rate(rate)

    async def work(inspector: JobInspector) -> Limits:
        if concurrency is not None:
            await inspector.set_concurrency(queue, most)
        if rate is not None:
            await inspector.set_rate_limit(queue, allowed, per)
        return await inspector.limits(queue)

    held: Limits = _operate(work, queue)
    if as_json:
        seconds = None if held.per is None else held.per.total_seconds()
        told = {
            "paused": held.paused,
            "concurrency": held.concurrency,
            "rate": held.rate,
            "per_seconds": seconds,
        }
        print_result(json.dumps({"queue": queue, **told}))
        return
    print_result(f"paused       {'yes' if held.paused else 'no'}")
    print_result(f"concurrency  {'none' if held.concurrency is None else held.concurrency}")
    print_result(
        f"rate         {'none' if held.rate is None or held.per is None else f'{held.rate}/{short(held.per)}'}"
    )


def _operate(work: Any, *queues: str) -> Any:
    from corral.app import operate

    return operate(work, *queues)


def _count(text: str | None) -> int | None:
    """`--concurrency`: a number, or None for no limit."""
    if text is None or text == "none":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise ConfigurationError(
            f"--concurrency {text!r} is not understood", hint="write a whole number, or none"
        )
    return int(text)


def _rate(text: str | None) -> tuple[int | None, timedelta | None]:
    """`--rate`: how many in how long, or None twice for no limit."""
    if text is None or text == "none":
        return None, None
    count, _, window = text.partition("/")
    per = duration(window)
    if per is None or not (count.isascii() and count.isdecimal()):
        raise ConfigurationError(
            f"--rate {text!r} is not understood", hint="write 100/1m, 5/30s, or none"
        )
    return int(count), per


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


def _tell(queue: str, done: str, count: int, as_json: bool) -> None:
    print_result(json.dumps({"queue": queue, done: count}) if as_json else f"{done} {_jobs(count)}")


def _tell_paused(queue: str, *, paused: bool, changed: bool, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps({"queue": queue, "paused": paused, "changed": changed}))
        return
    word = "paused" if paused else "resumed" if changed else "not paused"
    print_result(f"{queue} is {word}" if changed or not paused else f"{queue} was paused already")

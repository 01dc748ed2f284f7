"""`corral worker` and `corral dev`: the commands that stay."""

from __future__ import annotations

import os

import click

from corral.errors import ConfigurationError

__all__ = ["dev", "worker"]


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE[=N]]...")
@click.option("--burst", is_flag=True, help="End when nothing waits and nothing runs; delayed jobs are not awaited.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs at once per queue, over all settings."
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds that running jobs have after SIGTERM.",
)
def worker(queues: tuple[str, ...], burst: bool, concurrency: int | None, shutdown_timeout: float | None) -> None:
    """Work off queues until stopped: all that are installed, or those that are named.

    SIGTERM or Ctrl-C lets running jobs finish, then hands the rest back; a second one ends the process at once.

    \b
    corral worker
    corral worker emails=50 data-exports=2
    """
    from corral.app import run_worker

    _end(run_worker(_served(queues), burst=burst, concurrency=concurrency, shutdown_timeout_seconds=shutdown_timeout))


@click.command()
def dev() -> None:
    """Run everything in one process for development: an embedded store and a worker for every installed queue.

    \b
    corral dev
    """
    from corral.app import run_worker

    _end(run_worker({}, development=True))


def _served(arguments: tuple[str, ...]) -> dict[str, int | None]:
    served: dict[str, int | None] = {}
    for argument in arguments:
        name, equals, number = argument.partition("=")
        if equals and not (number.isdecimal() and int(number) > 0):
            raise ConfigurationError(f"{argument!r} does not say how many jobs run at once", hint=f"write {name}=10")
        served[name] = int(number) if equals else None
    return served


def _end(stopped: tuple[int, int]) -> None:
    """Exit; where processors still run, without waiting for them."""
    code, stuck = stopped
    if stuck:
        os._exit(code)
    if code:
        raise click.exceptions.Exit(code)

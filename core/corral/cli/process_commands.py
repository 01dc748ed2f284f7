"""`corral worker` and `corral dev` run workers; `corral health` checks them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from corral.cli.results import command, print_result
from corral.cli.terminal import printable
from corral.cli.text_table import show_table
from corral.errors import ConfigurationError, CorralError, MissingExtra
from corral.shutdown import begin_service, leave

__all__ = ["dev", "health", "worker"]

LAST_PORT = 65_535


@command()
@click.argument("queues", nargs=-1, metavar="[QUEUE[=N]]...")
@click.option(
    "--burst",
    is_flag=True,
    help="Exit when no job is waiting or running; delayed jobs are not waited for.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Jobs at once per queue; overrides settings and declarations.",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds that running jobs have to finish after SIGTERM.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run N worker processes below this one, and replace those that die.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, LAST_PORT),
    metavar="N",
    help="Serve /metrics, /healthz and /readyz on this port; 0 for any that is free.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    metavar="HOST",
    help="The address for it; 127.0.0.1 by default.",
)
@click.option("--child", metavar="NAME", hidden=True)
def worker(
    queues: tuple[str, ...],
    burst: bool,
    concurrency: int | None,
    shutdown_timeout: float | None,
    processes: int | None,
    metrics_port: int | None,
    metrics_host: str,
    child: str | None,
) -> None:
    """Process jobs until stopped, of all installed queues or of the named ones.

    SIGTERM or Ctrl-C lets running jobs finish and hands back those that do not finish in time. A
    second signal hands them back at once, a third one ends the process.

    \b
    corral worker
    corral worker emails=50 data-exports=2
    corral worker --processes 4
    corral worker --metrics-port 9300
    """
    begin_service()
    served = _parse_queues(queues)
    address = None
    if metrics_port is not None:
        from corral.observe.http_server import ListenAddress

        address = ListenAddress(metrics_host, metrics_port)
    if processes is not None:
        from corral.app import run_processes

        if metrics_port and metrics_port + processes > LAST_PORT:
            raise ConfigurationError(
                f"--metrics-port {metrics_port} leaves no port for each of {processes} processes",
                hint="each process listens on a port of its own, after the parent's",
            )
        code = run_processes(
            served,
            processes,
            burst=burst,
            concurrency=concurrency,
            shutdown_timeout_seconds=shutdown_timeout,
            address=address,
        )
        leave(code)
    from corral.app import run_worker

    leave(
        run_worker(
            served,
            burst=burst,
            concurrency=concurrency,
            shutdown_timeout_seconds=shutdown_timeout,
            child=child,
            address=address,
        )
    )


@command()
def dev() -> None:
    """Run store, worker and board in one process, for development.

    The store is embedded; the worker serves every installed queue. If CORRAL_DATABASE_URL names no
    database, the tables that plugins declare are created in a SQLite file.

    \b
    corral dev
    """
    begin_service()
    from corral.app import run_worker

    try:
        from corral.board.serving import beside_worker
    except MissingExtra as missing:
        click.echo(f"the board is not served: {missing}", err=True)
        leave(run_worker({}, development=True))
    leave(run_worker({}, development=True, beside=beside_worker))


@command()
@click.option("--worker", metavar="NAME", help="Only this worker, or the processes of this parent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def health(worker: str | None, as_json: bool) -> None:
    """Check that the workers of this host are at work, for a container's probe.

    Exit code 0 if at least one worker, and every process of a parent, has fetched jobs within the
    last 15 s, and no worker reports a problem; otherwise 1, and 4 if the store cannot be reached. A
    worker that is draining is healthy.

    \b
    corral health
    corral health --json
    """
    from corral.app import read_settings
    from corral.observe.health import read_health

    found = read_health(read_settings(), worker)
    if as_json:
        print_result(
            json.dumps(
                {"healthy": found.is_healthy, "workers": [asdict(each) for each in found.workers]}
            )
        )
    elif found.workers:
        rows = [(each.name, f"{each.seconds:.1f} s ago", each.state) for each in found.workers]
        show_table(("WORKER", "LAST SEEN", "STATE"), rows)
    if not found.is_healthy:
        raise CorralError("; ".join(filter(None, (found.problem, *map(printable, found.troubles)))))


def _parse_queues(arguments: tuple[str, ...]) -> dict[str, int | None]:
    served: dict[str, int | None] = {}
    for argument in arguments:
        name, equals, number = argument.partition("=")
        if equals and not (number.isdecimal() and int(number) > 0):
            raise ConfigurationError(
                f"{argument!r} does not say how many jobs run at once", hint=f"write {name}=10"
            )
        served[name] = int(number) if equals else None
    return served

"""The command line: parses arguments, calls `corral.app`, prints. Whatever is heavy is imported inside a command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.cli.catalog import check, lock, plugins
from corral.cli.database import db, outbox
from corral.cli.jobs import enqueue, queues
from corral.cli.process import dev, worker
from corral.errors import CorralError

__all__ = ["cli", "main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Results go to stdout, logs to stderr. Exit codes: 0 done, 1 failure, 2 usage or configuration, 3 catalog "
    "refused, 4 store unavailable, 5 stopped with jobs handed back.",
)
@click.version_option(package_name="corral", message="%(package)s %(version)s")
def cli() -> None:
    """Work off queues that are plugins.

    \b
    corral check                            what is installed, and whether it fits together
    corral dev                              a store and a worker in one process, for development
    corral enqueue emails '{"to": "…"}'     one job, from the shell
    """


for command in (dev, worker, check, lock, plugins, queues, enqueue, db, outbox):
    cli.add_command(command)


def main() -> None:
    """The `corral` program. A `CorralError` is a sentence and an exit code; anything else is a bug with a traceback."""
    sys.path.insert(0, str(Path.cwd()))  # where CORRAL_APP is looked for: a console script leaves it out
    try:
        code = cli.main(prog_name="corral", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CorralError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)

"""The command line: parses arguments, calls `corral.app`, prints.

A command's module is loaded when it is asked for.

Whatever is heavy is imported inside a command, since `corral --help` asks for all of them.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

import click

from corral.errors import CorralError
from corral.shutdown import is_stopped_early, leave, stop_code

__all__ = ["cli", "main"]

_COMMANDS: Final = {
    "audit": "audit",
    "board": "board",
    "catalog": "check lock plugins",
    "database": "db outbox",
    "job": "job",
    "jobs": "enqueue queues",
    "operator": "clean drain limit pause promote resume retry scrub",
    "process": "dev health worker",
    "quarantine": "quarantine",
    "schedules": "schedules",
}
"""By module, the commands that it defines."""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by their names; the module of one is loaded when it is asked for."""

    def __init__(self) -> None:
        self._module_of = {
            name: module for module, names in _COMMANDS.items() for name in names.split()
        }

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = getattr(import_module(f"corral.cli.{self._module_of[name]}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._module_of)

    def __len__(self) -> int:
        return len(self._module_of)

    def __setitem__(self, name: str, command: click.Command) -> NoReturn:
        raise TypeError("commands stand in a table")

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError("commands stand in a table")


@click.group(
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Results go to stdout, logs to stderr. Exit codes: 0 done, 1 failure, 2 usage or configuration, 3 catalog "
    "refused, 4 store unavailable, 5 stopped with jobs handed back, 130 or 143 ended by a signal.",
)
@click.version_option(package_name="corral", message="%(package)s %(version)s")
def cli() -> None:
    """Work off queues that are plugins.

    \b
    corral check                          what is installed, and whether it fits
    corral dev                            a store and a worker, for development
    corral enqueue emails '{"to": "…"}'   one job, from the shell
    corral job list emails                what failed; `corral job show` says why
    """


def _calm_collector() -> None:
    """Keep the garbage collector from looking through what a command loads, which stays until the
    command ends.

    At its defaults it took 45 of the 270 ms of `corral enqueue`: 15 while modules were loaded, and
    30 at the exit. A worker calms it further, see `corral.app.calm_collector`.
    """
    gc.set_threshold(300_000)
    atexit.register(gc.freeze)


def main() -> None:
    """The `corral` program.

    A `CorralError` is a sentence and an exit code, and so is what the store said of itself.

    Anything else is a bug with a traceback.
    """
    _calm_collector()
    with suppress(
        FileNotFoundError
    ):  # the working directory was deleted, as old releases are below running workers
        sys.path.insert(
            0, str(Path.cwd())
        )  # where CORRAL_APP is looked for: a console script leaves it out
    try:
        code = cli.main(prog_name="corral", standalone_mode=False)
    except click.exceptions.Exit as done:
        leave(done.exit_code)
    except click.Abort:
        leave(stop_code())
    except click.ClickException as error:
        error.show()
        leave(error.exit_code)
    except CorralError as error:
        _exit_with(error)
    except Exception as error:
        if "corral.store.replies" not in sys.modules:
            raise
        from corral.store.replies import of_the_client

        refused = of_the_client(error)
        if refused is None:
            raise
        _exit_with(refused)
    leave(code if isinstance(code, int) else 0)


def _exit_with(error: CorralError) -> NoReturn:
    if is_stopped_early():
        leave(stop_code())
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    leave(error.exit_code)

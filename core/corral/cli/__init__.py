"""The command line: parses arguments, calls `corral.app`, prints results.

The module of a command is loaded when the command is first used. Modules that are slow to load are
imported inside the commands, because `corral --help` loads all command modules.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Final, NoReturn

import click

from corral.errors import CorralError
from corral.shutdown import is_stopped_early, leave, stop_code

__all__ = ["cli", "main"]

_COMMANDS: Final = {
    "audit_commands": "audit",
    "board_commands": "board",
    "catalog_commands": "check lock plugins",
    "database_commands": "db outbox",
    "job_commands": "job:job_group",
    "operator_commands": "clean drain limit pause promote resume retry scrub",
    "process_commands": "dev health worker",
    "quarantine_commands": "quarantine",
    "queue_commands": "enqueue queues",
    "schedules_commands": "schedules",
}
"""The commands that each module defines: the name that a user types, and after a colon the name of
its function where the two differ.
"""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name; a command's module is loaded when the command is first used."""

    def __init__(self) -> None:
        self._function_of = {
            name: (module, function or name)
            for module, commands in _COMMANDS.items()
            for name, _, function in (each.partition(":") for each in commands.split())
        }

    def __getitem__(self, name: str) -> click.Command:
        module, function = self._function_of[name]
        command: click.Command = getattr(import_module(f"corral.cli.{module}"), function)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._function_of)

    def __len__(self) -> int:
        return len(self._function_of)

    def __setitem__(self, name: str, command: click.Command) -> NoReturn:
        raise TypeError("commands are defined in corral.cli._COMMANDS")

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError("commands are defined in corral.cli._COMMANDS")


@click.group(
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Results go to stdout, logs to stderr. Exit codes: 0 done, 1 failure, 2 usage or "
    "configuration, 3 catalog refused, 4 store unavailable, 5 stopped with jobs handed back, "
    "130 or 143 ended by a signal.",
)
@click.version_option(package_name="corral", message="%(package)s %(version)s")
def cli() -> None:
    """Run and operate job queues that are plugins.

    \b
    corral check                          check what is installed, list queues
    corral dev                            run store, worker and board locally
    corral enqueue emails '{"to": "…"}'   add one job
    corral job list emails                list failed jobs; see corral job show
    """


def _relax_garbage_collector() -> None:
    """Let the garbage collector run rarely: what a command loads stays until the command ends.

    With its defaults it took 45 of the 270 ms of `corral enqueue`: 15 ms while modules were loaded,
    and 30 ms at the exit. Workers go further, see `corral.app.tune_garbage_collector`.
    """
    gc.set_threshold(300_000)
    atexit.register(gc.freeze)


def _escape_unprintable() -> None:
    r"""Print what the terminal's encoding does not have as an escape, such as `\u2026`.

    Payloads, results and our own help have characters that Latin-1, cp1252 or ASCII lack.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in {"strict", "surrogateescape"}:
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the program `corral`.

    A `CorralError` is printed as one sentence and sets the exit code, and so does an error reply of
    the store. Any other exception is a bug and shows its traceback.
    """
    _relax_garbage_collector()
    _escape_unprintable()
    # The working directory may have been deleted, like an old release of a running worker.
    with suppress(FileNotFoundError):
        # CORRAL_APP is imported from the working directory, which a console script leaves out.
        sys.path.insert(0, str(Path.cwd()))
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
        from corral.store.replies import explain_client_error

        refused = explain_client_error(error)
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

"""`corral check`, `corral lock`, `corral plugins`: what is installed, and whether it fits together."""

from __future__ import annotations

import json
import textwrap
import traceback

import click

from corral.cli.results import command, is_on_terminal, print_result
from corral.cli.table import show_table
from corral.errors import CatalogError

__all__ = ["check", "lock", "plugins"]


@command()
@click.option(
    "--producer",
    is_flag=True,
    help="Only what a producer needs: the declarations, not the processors.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(producer: bool, as_json: bool) -> None:
    """Check the installed plugins as a worker would at its start; exit 3 if they do not make a
    catalog.

    \b
    corral check
    corral check --producer --json
    """
    from corral.app import read_installed
    from corral.catalog.lock import LOCK_FILE

    try:
        installed = read_installed("producer" if producer else "check")
    except CatalogError as error:
        _show_problems(error, as_json)
        raise click.exceptions.Exit(error.exit_code) from error
    entries = list(installed.catalog)
    if as_json:
        queues = [
            {
                "name": entry.queue.name,
                "distribution": entry.provider.distribution,
                "version": entry.provider.version,
                "origin": entry.provider.origin,
            }
            for entry in entries
        ]
        print_result(json.dumps({"ok": True, "queues": queues, "problems": []}))
        return
    for warning in (*installed.plugins.warnings, *installed.catalog.warnings):
        click.echo(f"warning: {warning}", err=True)
    if entries:
        providers = [(entry.queue.name, entry.provider) for entry in entries]
        show_table(
            ["QUEUE", "DISTRIBUTION", "VERSION", "ORIGIN"],
            [(name, made.distribution, made.version, made.origin) for name, made in providers],
        )
    else:
        print_result("no queues are installed")
    path = installed.settings.lock or LOCK_FILE
    print_result(
        f"catalog is locked: {path}"
        if installed.catalog.is_locked
        else f"catalog is open: no {path}"
    )


def _show_problems(error: CatalogError, as_json: bool) -> None:
    if error.__cause__ is not None and not as_json:
        traceback.print_exception(error.__cause__)
    if not as_json:
        click.echo(f"error: {error}", err=True)
        return
    problems = [
        {
            "code": each.code,
            "message": each.message,
            "hint": each.hint,
            "providers": list(each.providers),
        }
        for each in error.problems
    ]
    print_result(json.dumps({"ok": False, "queues": [], "problems": problems}))


@command()
def lock() -> None:
    """Write `corral.lock`: the queues and plugins that may run here.

    From then on anything else is refused.

    \b
    corral lock && git add corral.lock
    """
    from corral.app import read_plugins
    from corral.catalog import Catalog
    from corral.catalog.lock import LOCK_FILE, write_lock

    settings, loaded = read_plugins(by_lock=False)
    catalog = Catalog.build(loaded, role="check")
    path = settings.lock or LOCK_FILE
    write_lock(path, catalog.lock_entries())
    others = f" and {_counted(len(catalog.plugins), 'other plugin')}" if catalog.plugins else ""
    print_result(f"{path}: {_counted(len(catalog), 'queue')}{others}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


@command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """Every plugin that was found: who provides it, which hooks it implements, what is disabled.

    \b
    corral plugins
    corral plugins --json
    """
    from corral.app import read_plugins

    _, loaded = read_plugins()
    hooks = {claim: plugin.hooks for plugin in loaded.loaded for claim in plugin.claims}
    rows = [
        {
            "name": claim.name,
            "group": claim.group,
            "distribution": claim.provider.distribution,
            "version": claim.provider.version,
            "origin": claim.provider.origin,
            "state": "disabled"
            if claim in loaded.disabled
            else "loaded"
            if claim in hooks
            else "failed",
            "hooks": list(hooks.get(claim, ())),
        }
        for claim in dict.fromkeys((*loaded.claims, *hooks))
    ]
    if as_json:
        print_result(json.dumps(rows))
    elif rows:
        keys = ("name", "distribution", "version", "origin", "state")
        headings, cells = (
            [key.upper() for key in keys],
            [[row[key] for key in keys] for row in rows],
        )
        if is_on_terminal():  # the hooks of one plugin fill a line
            show_table(headings, cells, elastic=1)
            for name, implemented in (
                (row["name"], " ".join(row["hooks"])) for row in rows if row["hooks"]
            ):
                print_result(f"\n{name}\n{textwrap.indent(textwrap.fill(implemented, 76), '  ')}")
        else:
            show_table(
                [*headings, "HOOKS"],
                [[*each, " ".join(row["hooks"])] for each, row in zip(cells, rows, strict=True)],
            )
    else:
        print_result("no plugins are installed")

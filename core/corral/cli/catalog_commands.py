"""`corral check`, `corral lock`, `corral plugins`: the installed queues and plugins."""

from __future__ import annotations

import json
import textwrap
import traceback
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from corral.cli.results import command, is_on_terminal, print_result
from corral.cli.terminal import printable
from corral.cli.text_table import show_table
from corral.errors import CatalogError, CorralError, Problem

if TYPE_CHECKING:
    from corral.app import Installed
    from corral.inspector import QueueSizes
    from corral.plugins import Plugins
    from corral.plugins.entry_points import PluginEntryPoint

__all__ = ["check", "lock", "plugins"]


@command()
@click.option(
    "--producer",
    is_flag=True,
    help="Check only what a producer needs: the declarations, not the processors.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(producer: bool, as_json: bool) -> None:
    """Check the installed plugins as a worker does at its start, and list the queues.

    The exit code is 3 if the plugins do not make a catalog. Warnings do not change it: of a plugin
    that is slow to import, of a module that is not the installed one, or of a queue in the store
    that no plugin declares. No store is needed, and none is started.

    \b
    corral check
    corral check --producer --json
    """
    from corral.app import check_installed
    from corral.catalog.lock import LOCK_FILE

    checked = check_installed("producer" if producer else "check")
    if not as_json:
        for warning in checked.warnings:
            click.echo(f"warning: {printable(warning)}", err=True)
    if checked.installed is None:
        error = cast("CatalogError", checked.refusal)
        _show_problems(error, checked.warnings, as_json)
        raise click.exceptions.Exit(error.exit_code) from error
    installed = checked.installed
    orphans, problem = _look_for_orphans(installed)
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
        plain = {
            "ok": True,
            "queues": queues,
            "problems": [],
            "warnings": [*checked.warnings],
            "not_installed": None if problem else [*orphans],
        }
        print_result(json.dumps(plain))
        return
    for name, sizes in orphans.items():
        counts = ", ".join(f"{count:,} {state}" for state, count in sizes.counts.items() if count)
        click.echo(
            f"warning: queue {printable(repr(name))} is in the store and not installed:"
            f" {counts or 'its jobs cannot be counted'}",
            err=True,
        )
    if problem:
        click.echo(f"note: {problem}", err=True)
    if entries:
        rows = [
            (
                each.queue.name,
                each.provider.distribution,
                each.provider.version,
                each.provider.origin,
            )
            for each in entries
        ]
        show_table(["QUEUE", "DISTRIBUTION", "VERSION", "ORIGIN"], rows)
    else:
        print_result("no queues are installed")
    path = installed.settings.lock or LOCK_FILE
    print_result(
        f"catalog is locked: {path}"
        if installed.catalog.is_locked
        else f"catalog is open: no {path}"
    )


def _look_for_orphans(installed: Installed) -> tuple[Mapping[str, QueueSizes], str]:
    """The queues with jobs that nobody declares, and why they could not be looked for."""
    from corral.app import find_orphans

    try:
        found = find_orphans(installed)
    except CorralError as error:
        return {}, f"the store was not searched for queues that nobody declares: {error}"
    return ({}, "") if found is None else (found.with_jobs, found.problem)


def _show_problems(error: CatalogError, warnings: Sequence[str], as_json: bool) -> None:
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
    plain = {"ok": False, "queues": [], "problems": problems, "warnings": [*warnings]}
    print_result(json.dumps({**plain, "not_installed": None}))


@command()
def lock() -> None:
    """Write `corral.lock`, the list of queues and plugins that may run here.

    With this file, all others are refused.

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
    """List the installed plugins: what each offers, its package, and what is wrong.

    A plugin is `loaded`, `disabled` by CORRAL_DISABLED_PLUGINS, or `failed`: then `corral check`
    refuses its package, and the reason is shown.

    \b
    corral plugins
    corral plugins --json
    """
    from corral.app import read_plugins

    settings, loaded = read_plugins()
    problems = _find_problems(loaded)
    hooks = {each: plugin.hooks for plugin in loaded.loaded for each in plugin.entry_points}
    rows = [
        _plain_plugin(each, hooks.get(each), problems, disabled=settings.disabled_plugins)
        for each in dict.fromkeys((*loaded.entry_points, *hooks))
    ]
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_result(json.dumps(rows))
    elif rows:
        _print_plugins(rows)
    else:
        print_result("no plugins are installed")
    installed = {str(each.provider) for each in loaded.entry_points}
    for problem in problems:
        if as_json and not installed.isdisjoint(problem.providers):
            continue  # it is the reason of a row
        click.echo(f"error: {problem.message}", err=True)
        if problem.hint:
            click.echo(f"  hint: {problem.hint}", err=True)


def _find_problems(loaded: Plugins) -> list[Problem]:
    """Find what `corral check` refuses: of the catalog, and of the plugins' settings."""
    from corral.catalog import Catalog
    from corral.plugins.declared_settings import find_setting_problems
    from corral.plugins.report import Report

    problems: list[Problem] = []
    try:
        Catalog.build(loaded, role="check")
    except CatalogError as error:
        problems += error.problems
    report = Report()
    settings = find_setting_problems(loaded, report, values=True)
    problems += report.problems
    for provider, sentence in dict.fromkeys(settings):
        message = f"{provider} cannot read its settings: {sentence}"
        problems.append(Problem("bad-setting", message, None, (str(provider),)))
    return problems


def _plain_plugin(
    entry_point: PluginEntryPoint,
    hooks: Sequence[str] | None,
    problems: Sequence[Problem],
    *,
    disabled: Collection[str],
) -> dict[str, Any]:
    """One row of the listing, as values for JSON.

    Args:
        entry_point: The plugin's entry point.
        hooks: The hooks that the plugin implements; None if it was not imported.
        problems: Everything that is wrong with the installed plugins.
        disabled: The names in CORRAL_DISABLED_PLUGINS.
    """
    from corral.plugins.entry_points import QUEUES, canonical_name

    reasons = [each.message for each in problems if str(entry_point.provider) in each.providers]
    own_names = {
        canonical_name(entry_point.name),
        canonical_name(entry_point.provider.distribution),
    }
    disabling = [name for name in disabled if canonical_name(name) in own_names]
    state, reason = "loaded", None
    if disabling:
        state, reason = "disabled", f"CORRAL_DISABLED_PLUGINS names {disabling[0]}"
    elif reasons:
        state, reason = "failed", "; ".join(reasons)
    elif hooks is None:
        state, reason = "failed", "it was not imported"
    return {
        "name": entry_point.name,
        "group": entry_point.group,
        "offers": "queue" if entry_point.group == QUEUES else "hooks",
        "distribution": entry_point.provider.distribution,
        "version": entry_point.provider.version,
        "origin": entry_point.provider.origin,
        "state": state,
        "reason": reason,
        "hooks": list(hooks or ()),
    }


def _print_plugins(rows: Sequence[Mapping[str, Any]]) -> None:
    columns = {
        "PLUGIN": "name",
        "OFFERS": "offers",
        "DISTRIBUTION": "distribution",
        "VERSION": "version",
        "ORIGIN": "origin",
        "STATE": "state",
    }
    cells = [[row[key] for key in columns.values()] for row in rows]
    if is_on_terminal():  # the hooks of one plugin need a line of their own
        show_table([*columns], cells, elastic=2)
    else:
        hooks = [" ".join(row["hooks"]) for row in rows]
        with_hooks = [[*row, each] for row, each in zip(cells, hooks, strict=True)]
        show_table([*columns, "HOOKS"], with_hooks)
    for row in rows:
        if row["state"] == "disabled":
            print_result(f"\n{row['name']} is disabled: {printable(row['reason'])}")
    if is_on_terminal():
        for row in rows:
            if row["hooks"]:
                names = textwrap.fill(" ".join(row["hooks"]), 76)
                print_result(f"\n{row['name']} implements\n{textwrap.indent(names, '  ')}")

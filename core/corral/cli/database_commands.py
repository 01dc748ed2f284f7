"""`corral db` and `corral outbox`: the commands for the SQL database."""

from __future__ import annotations

import json

import click

from corral.cli.results import group, print_result
from corral.cli.text_table import show_table

__all__ = ["db", "outbox"]


@group()
def db() -> None:
    """The SQL database that CORRAL_DATABASE_URL names.

    \b
    corral db create
    """


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(as_json: bool) -> None:
    """Create the missing tables of Corral and of every installed plugin.

    Tables that exist are left as they are.

    \b
    corral db create
    CORRAL_DATABASE_URL=postgresql+asyncpg://app@db/app corral db create --json
    """
    from corral.app import create_database

    tables = create_database()
    if as_json:
        rows = [
            {
                "table": each.table,
                "distribution": each.provider.distribution,
                "version": each.provider.version,
                "made": each.made,
            }
            for each in tables
        ]
        print_result(json.dumps(rows))
        return
    show_table(
        ["TABLE", "DISTRIBUTION", "VERSION", "STATE"],
        [
            (
                each.table,
                each.provider.distribution,
                each.provider.version,
                "created" if each.made else "exists",
            )
            for each in tables
        ],
    )


@group()
def outbox() -> None:
    """The outbox: jobs that were enqueued in transactions of the SQL database.

    \b
    corral outbox relay
    """


@outbox.command()
@click.option("--once", is_flag=True, help="Relay the present jobs, print how many, and exit.")
def relay(once: bool) -> None:
    """Move jobs from the outbox to the store until stopped.

    Workers do this, too. Any number of relays may run at once.

    \b
    corral outbox relay
    corral outbox relay --once
    """
    from corral.app import relay_outbox
    from corral.shutdown import begin_service

    if not once:
        begin_service()

    relayed = relay_outbox(once=once)
    if relayed is not None:
        print_result(f"{relayed.jobs} relayed, {relayed.set_aside} set aside")

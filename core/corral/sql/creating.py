"""Making the tables: the core's own, then those of every plugin that implements `corral_tables`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from importlib_metadata import version
from sqlalchemy import Connection, MetaData, Table, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from corral.errors import CatalogError, ConfigurationError, DatabaseUnavailable, Problem
from corral.plugins import Plugins, Provider
from corral.redactor import masked
from corral.sql.engines import unavailable
from corral.sql.tables import metadata

__all__ = ["MadeTable", "create_tables", "offered", "require_tables"]

LOCK: Final = 0x636F7272616C  # "corral"
"""PostgreSQL's advisory lock under which tables are made: two that make them at once would trip
over each other.
"""


@dataclass(frozen=True, slots=True)
class MadeTable:
    """A table that there is now.

    Attributes:
        table: Its name, with its schema where it has one.
        provider: The distribution that declares it.
        made: False where it existed before, and was left as it was.
    """

    table: str
    provider: Provider
    made: bool


def offered(plugins: Plugins) -> list[tuple[Provider, MetaData]]:
    """Everybody's tables: the core's own first, the others in the order in which plugins are
    called.

    Raises:
        CatalogError: A plugin could not be asked, or two declare tables of one name.
    """
    report = plugins.report.copy()
    core = Provider("corral", version("corral"), "")
    asked = [(core, metadata), *plugins.ask("corral_tables", MetaData, report)]
    report.raise_problems()
    owners: dict[str, tuple[Provider, Table]] = {}
    problems: list[Problem] = []
    for provider, table in (
        (provider, table) for provider, tables in asked for table in tables.tables.values()
    ):
        first, before = owners.setdefault(table.fullname.lower(), (provider, table))
        if before is not table:
            problems.append(_claimed_twice(table.fullname, first, provider))
    if problems:
        raise CatalogError(tuple(problems))
    return asked


async def create_tables(engine: AsyncEngine, plugins: Plugins) -> list[MadeTable]:
    """Make those tables that are missing, all of them or none.

    Safe to repeat, and for several at once.

    A table that exists is left as it is, whatever its columns: changing tables is a migration, and
    yours.

    Args:
        engine: Where.
        plugins: Whose.

    Returns:
        Every table, in the order of their making.

    Raises:
        CatalogError: As `offered`.
        DatabaseUnavailable: The database is away.
    """
    asked = offered(plugins)
    with unavailable(engine):
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK}
                )
            return await connection.run_sync(_create, asked)


async def require_tables(engine: AsyncEngine, *tables: Table) -> None:
    """Refuse a database that lacks tables: for a plugin to call when a worker opens what its
    processor needs.

    A database that is away cannot be asked, and is no reason not to start: the attempts of jobs
    will tell.

    Args:
        engine: The database.
        tables: What is needed.

    Raises:
        ConfigurationError: Some are missing; it names them, and the command that makes them.
    """
    with suppress(DatabaseUnavailable), unavailable(engine):
        async with engine.execution_options(sqlite_begin="DEFERRED").connect() as connection:
            missing = await connection.run_sync(_missing, tables)
        if missing:
            where = masked(engine.url.render_as_string(hide_password=True))
            raise ConfigurationError(
                f"the database at {where} lacks {missing}", hint="corral db create"
            )


def _missing(connection: Connection, tables: Sequence[Table]) -> str:
    inspector = inspect(connection)
    names = [
        table.fullname
        for table in tables
        if not inspector.has_table(table.name, schema=table.schema)
    ]
    return f"the table{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""


def _create(connection: Connection, asked: Sequence[tuple[Provider, MetaData]]) -> list[MadeTable]:
    made: dict[str, MadeTable] = {}
    for provider, tables in asked:
        inspector = inspect(connection)
        for table in tables.sorted_tables:
            is_there = inspector.has_table(table.name, schema=table.schema)
            made.setdefault(table.fullname, MadeTable(table.fullname, provider, not is_there))
        tables.create_all(connection)
    return list(made.values())


def _claimed_twice(table: str, *providers: Provider) -> Problem:
    names = tuple(dict.fromkeys(map(str, providers)))
    if len(names) == 1:
        return Problem(
            "duplicate-table", f"table {table!r} is declared twice by {names[0]}", None, names
        )
    others = ",".join(each.distribution for each in providers if each.distribution != "corral")
    hint = f"uninstall one, or disable it: CORRAL_DISABLED_PLUGINS={others.split(',')[-1]}"
    return Problem(
        "duplicate-table", f"table {table!r} is declared twice: {' and '.join(names)}", hint, names
    )

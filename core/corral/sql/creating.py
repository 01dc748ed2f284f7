"""Creates the tables: the core's own, then those of each plugin that implements `corral_tables`."""

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
from corral.sql.engines import database_errors
from corral.sql.tables import metadata

__all__ = ["TableState", "collect_tables", "create_tables", "require_tables"]

LOCK: Final = 0x636F7272616C  # "corral"
"""PostgreSQL's advisory lock for creating tables: two programs that do so at once would fail."""


@dataclass(frozen=True, slots=True)
class TableState:
    """A table that exists now.

    Attributes:
        table: Its name, with its schema if it has one.
        provider: The distribution that declares it.
        made: Whether this call created it. False: it existed, and was left as it was.
    """

    table: str
    provider: Provider
    made: bool


def collect_tables(plugins: Plugins) -> list[tuple[Provider, MetaData]]:
    """Collect the tables of all: the core's own first, then the plugins' in their calling order.

    Raises:
        CatalogError: A plugin could not be asked, or two declare tables of one name.
    """
    report = plugins.report.copy()
    core = Provider("corral", version("corral"), "")
    declared = [(core, metadata), *plugins.ask("corral_tables", MetaData, report)]
    report.raise_problems()
    owners: dict[str, tuple[Provider, Table]] = {}
    problems: list[Problem] = []
    for provider, table in (
        (provider, table) for provider, tables in declared for table in tables.tables.values()
    ):
        first, before = owners.setdefault(table.fullname.lower(), (provider, table))
        if before is not table:
            problems.append(_duplicate_table(table.fullname, first, provider))
    if problems:
        raise CatalogError(tuple(problems))
    return declared


async def create_tables(engine: AsyncEngine, plugins: Plugins) -> list[TableState]:
    """Create the tables that are missing, all of them or none.

    Safe to repeat, and for several programs at once. A table that exists is left as it is, whatever
    its columns are: changing tables is a migration, which is the application's task.

    Args:
        engine: The database.
        plugins: The plugins that declare tables.

    Returns:
        Every table, in the order in which they are created.

    Raises:
        CatalogError: As for `collect_tables`.
        DatabaseUnavailable: The database is away.
    """
    declared = collect_tables(plugins)
    with database_errors(engine):
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK}
                )
            return await connection.run_sync(_create, declared)


async def require_tables(engine: AsyncEngine, *tables: Table) -> None:
    """Refuse a database that lacks tables.

    A plugin calls it when a worker opens what its processor needs. If the database is away, it does
    nothing: the worker may start, and the attempts of jobs will fail with the reason.

    Args:
        engine: The database.
        tables: The tables that are needed.

    Raises:
        ConfigurationError: Some are missing; it names them, and the command that creates them.
    """
    with suppress(DatabaseUnavailable), database_errors(engine):
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


def _create(
    connection: Connection, declared: Sequence[tuple[Provider, MetaData]]
) -> list[TableState]:
    made: dict[str, TableState] = {}
    for provider, tables in declared:
        inspector = inspect(connection)
        for table in tables.sorted_tables:
            exists = inspector.has_table(table.name, schema=table.schema)
            made.setdefault(table.fullname, TableState(table.fullname, provider, not exists))
        tables.create_all(connection)
    return list(made.values())


def _duplicate_table(table: str, *providers: Provider) -> Problem:
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

"""The participant without code: deletes rows and overwrites columns as the tables file says.

Overwriting comes first, because it may let go of rows that are deleted then. Rows are deleted
before the rows that they refer to: the database's own foreign keys give the order, whatever the
file's is.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    Inspector,
    MetaData,
    Table,
    delete,
    func,
    inspect,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from corral_account_deletions.kept import Kept
from corral_account_deletions.settings import DeletionSettings
from corral_account_deletions.tables_file import (
    ConfiguredTable,
    UsersTable,
    build_file_error,
    read_tables,
    read_users,
)

__all__ = ["check_tables", "erase_configured", "find_configured_owners"]

CONVERTED: Final = (int, Decimal, UUID)
"""What a column of users' ids may hold beside texts, each made from its text."""


async def check_tables(connection: AsyncConnection, path: Path) -> None:
    """Compare the file with the database.

    Raises:
        ConfigurationError: The file is wrong, or it names what is not there; all of it at once.
    """
    tables = read_tables(path)
    faults = await connection.run_sync(_faults, tables, read_users(path))
    if faults:
        raise build_file_error(path, faults)


async def find_configured_owners(connection: AsyncConnection, email: str) -> Collection[str] | None:
    """The ids of the users that have an address, in any case, by `[users]` of the tables file.

    None where the file does not say where users are.

    Raises:
        ConfigurationError: The file cannot be used any longer.
    """
    path = DeletionSettings().tables
    users = None if path is None else read_users(path)
    return None if users is None else await connection.run_sync(_find_owners, users, email)


def _find_owners(connection: Connection, users: UsersTable, email: str) -> Collection[str]:
    columns = _reflect_table(connection, MetaData(), users.table).c
    address = columns[users.email_column]
    # lower() of SQLite knows ASCII alone, so the address is compared as it is, too
    has_it = or_(address == email, func.lower(address) == email.lower())
    return [
        str(found) for found in connection.scalars(select(columns[users.id_column]).where(has_it))
    ]


async def erase_configured(connection: AsyncConnection, user_id: str) -> Mapping[str, int | Kept]:
    """Erase a user's rows in all configured tables.

    Returns:
        How many rows of each table were deleted, and how many were kept, overwritten or not.

    Raises:
        ConfigurationError: The file cannot be used any longer.
        ValueError: The id is no value for a column.
        Exception: The database refused; a row of a table that is not configured refers to one that
        is, mostly.
    """
    path = DeletionSettings().tables
    return {} if path is None else await connection.run_sync(_erase, read_tables(path), user_id)


def _erase(
    connection: Connection, configured: Mapping[str, ConfiguredTable], user_id: str
) -> Mapping[str, int | Kept]:
    metadata = MetaData()
    tables = {name: _reflect_table(connection, metadata, name) for name in configured}
    deleted = [name for name, entry in configured.items() if entry.action == "delete"]
    removed: dict[str, int | Kept] = {}
    for name, entry in configured.items():
        owner = tables[name].c[entry.user_column]
        if entry.action == "keep":
            mine = select(func.count()).where(owner == _value(owner, user_id))
            removed[name] = Kept(connection.scalar(mine) or 0, str(entry.reason))
        if entry.action == "anonymize":
            new = {
                column: null() if text is None else text
                for column, text in entry.overwritten.items()
            }
            change = update(tables[name]).where(owner == _value(owner, user_id)).values(new)
            reason = entry.reason or f"anonymized: {', '.join(entry.overwritten)}"
            removed[name] = Kept(connection.execute(change).rowcount, reason, anonymized=True)
    for name in _referring_first(inspect(connection), deleted):
        owner = tables[name].c[configured[name].user_column]
        removed[name] = connection.execute(
            delete(tables[name]).where(owner == _value(owner, user_id))
        ).rowcount
    return removed


def _reflect_table(connection: Connection, metadata: MetaData, name: str) -> Table:
    schema, table = _split(name)
    return Table(table, metadata, schema=schema, autoload_with=connection, resolve_fks=False)


def _split(name: str) -> tuple[str | None, str]:
    schema, _, table = name.rpartition(".")
    return schema or None, table


def _value(column: Column[Any], user_id: str) -> Any:
    """A user's id as the column holds it."""
    wanted = _python_type(column)
    if wanted not in CONVERTED:
        return user_id
    try:
        return wanted(user_id)
    except (ValueError, ArithmeticError):
        raise ValueError(
            f"the user's id is no value for {column.table}.{column.name} ({column.type})"
        ) from None


def _python_type(column: Column[Any]) -> type:
    try:
        return column.type.python_type
    except NotImplementedError:  # a type of the database's own
        return object


def _referring_first(inspector: Inspector, names: Sequence[str]) -> list[str]:
    """Tables in an order in which no row is deleted that another one refers to.

    Of tables that refer to each other in a circle, the first of the file comes first.
    """
    referred: dict[str, set[str]] = {}
    for name in names:
        schema, table = _split(name)
        keys = inspector.get_foreign_keys(table, schema=schema)
        found = {
            ".".join(filter(None, (key["referred_schema"], key["referred_table"]))) for key in keys
        }
        referred[name] = found - {name}
    left, ordered = list(names), []
    while left:
        free = [name for name in left if not any(name in referred[other] for other in left)]
        ordered += free or left[:1]
        left = [name for name in left if name not in ordered]
    return ordered


def _faults(
    connection: Connection, configured: Mapping[str, ConfiguredTable], users: UsersTable | None
) -> list[str]:
    inspector = inspect(connection)
    faults: list[str] = []
    if users is not None:
        schema, table = _split(users.table)
        if not inspector.has_table(table, schema=schema):
            near = _near(table, inspector.get_table_names(schema))
            faults.append(f"[users]: table {users.table!r} is not in the database{near}")
        else:
            columns = _reflect_table(connection, MetaData(), users.table).c
            faults += [
                f"[users]: table {users.table!r} has no column {column!r}"
                f"{_near(column, columns.keys())}"
                for column in (users.id_column, users.email_column)
                if column not in columns
            ]
    for name, entry in configured.items():
        schema, table = _split(name)
        if not inspector.has_table(table, schema=schema):
            faults.append(
                f"table {name!r} is not in the database"
                f"{_near(table, inspector.get_table_names(schema))}"
            )
            continue
        columns = _reflect_table(connection, MetaData(), name).c
        faults += [
            f"table {name!r} has no column {column!r}{_near(column, columns.keys())}"
            for column in dict.fromkeys([entry.user_column, *entry.overwritten])
            if column not in columns
        ]
        for column, text in entry.overwritten.items():
            if column not in columns:
                continue
            if text is None and not columns[column].nullable:
                advice = f'give it a text: columns = {{ {column} = "deleted" }}'
                faults.append(f"table {name!r}: column {column!r} cannot be NULL; {advice}")
            if text is not None and _python_type(columns[column]) not in {str, object}:
                faults.append(
                    f"table {name!r}: column {column!r} ({columns[column].type}) can hold no text"
                )
    return faults


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

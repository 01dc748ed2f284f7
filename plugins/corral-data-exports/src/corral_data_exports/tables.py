"""The participant that is configured, not coded: it streams rows of the tables that a file names.

It asks the database itself how the columns are typed: a user id is text in a job, and often a
number in a table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Select,
    func,
    inspect,
    literal,
    select,
    type_coerce,
)
from sqlalchemy import column as named_column
from sqlalchemy import table as named_table
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType, TypeEngine

from corral_data_exports.records import Recipient, RecordSet
from corral_data_exports.settings import ExportSettings
from corral_data_exports.tables_file import ExportedTable, TablesFile, build_file_error

__all__ = ["ConfiguredTables"]

ROWS_AT_ONCE: Final = 500
"""How many rows are fetched at once: enough to be worth a round trip, and a MiB where each is 2
KiB.
"""

Columns = dict[str, TypeEngine[Any]]
"""A table's columns and their types."""


class ConfiguredTables:
    """The tables that are configured.

    Args:
        path: The file, for errors; None where there is none.
        file: What it says.
    """

    def __init__(self, path: Path | None, file: TablesFile) -> None:
        self._path = path
        self.users = file.users
        self.exported: dict[str, tuple[ExportedTable, list[str]]] = {
            name: (table, table.export)
            for name, table in file.tables.items()
            if table.export is not None
        }

    @classmethod
    def from_environment(cls) -> ConfiguredTables:
        """What `CORRAL_DATA_EXPORTS_TABLES` names; nothing where it names no file.

        Raises:
            ConfigurationError: The file cannot be read, or says what cannot be understood.
        """
        path = ExportSettings().tables
        return cls(path, TablesFile() if path is None else TablesFile.read(path))

    async def check(self, connection: AsyncConnection) -> None:
        """Compare the file with the database.

        Raises:
            ConfigurationError: It names tables or columns that are not there, or an id of another
            kind; all are named.
        """
        faults: list[str] = []
        if users := self.users:
            wanted = [users.id_column, users.email_column]
            faults += _faults(
                "[users]",
                users.table,
                users.id_column,
                wanted,
                await _columns(connection, users.table),
            )
        for name, (table, export) in self.exported.items():
            wanted = [table.user_column, *export]
            faults += _faults(
                f"table {name!r}", name, table.user_column, wanted, await _columns(connection, name)
            )
        if faults:
            raise build_file_error(self._path, faults)

    async def recipient(self, user_id: str, connection: AsyncConnection) -> Recipient | None:
        """The user's address, from the users' table; None without such a user or an address."""
        if (users := self.users) is None:
            return None
        columns = await _columns(connection, users.table) or {}
        if (mine := _equals(users.id_column, columns, user_id)) is None:
            return None
        query: Select[Any] = (
            select(named_column(users.email_column)).select_from(_table(users.table)).where(mine)
        )
        email = await connection.scalar(query)
        return Recipient(str(email)) if email else None

    async def record_sets(self, user_id: str, connection: AsyncConnection) -> list[RecordSet]:
        """The user's rows in each table: counted now, fetched when their turn comes."""
        made: list[RecordSet] = []
        for name, (table, export) in self.exported.items():
            columns = await _columns(connection, name) or {}
            mine = _equals(table.user_column, columns, user_id)
            if mine is None:
                made.append(RecordSet(name, _nothing(), rows=0, columns=tuple(export)))
                continue
            rows = await connection.scalar(
                select(func.count()).select_from(_table(name)).where(mine)
            )
            selected = [_selected(column, columns, connection.dialect.name) for column in export]
            records = _stream_rows(connection, selected, name, mine)
            made.append(RecordSet(name, records, rows=rows, columns=tuple(export)))
        return made


async def _stream_rows(
    connection: AsyncConnection,
    selected: list[ColumnElement[Any]],
    name: str,
    mine: ColumnElement[bool],
) -> AsyncIterator[Mapping[str, object]]:
    query = (
        select(*selected)
        .select_from(_table(name))
        .where(mine)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    async with connection.stream(query) as result:
        async for rows in result.mappings().partitions():
            for row in rows:
                yield {str(column): value for column, value in row.items()}


async def _nothing() -> AsyncIterator[Mapping[str, object]]:
    return
    yield {}


def _table(name: str) -> Any:
    schema, _, bare = name.rpartition(".")
    return named_table(bare, schema=schema or None)


async def _columns(connection: AsyncConnection, name: str) -> Columns | None:
    """A table's columns; None where there is no such table."""
    schema, _, bare = name.rpartition(".")

    def read(blocking: Connection) -> Columns | None:
        try:
            found = inspect(blocking).get_columns(bare, schema=schema or None)
        except NoSuchTableError:
            return None
        return {column["name"]: column["type"] for column in found}

    return await connection.run_sync(read)


def _equals(name: str, columns: Columns, user_id: str) -> ColumnElement[bool] | None:
    """A condition for the user's rows; None if the id does not fit the column's type."""
    kind = _kind(columns.get(name, NullType()))
    column: ColumnElement[Any] = named_column(name)
    if kind is int:
        if (
            not (user_id.isascii() and user_id.removeprefix("-").isdigit())
            or abs(number := int(user_id)) >= 2**63
        ):
            return None
        return column == literal(number, BigInteger())
    if kind is UUID:
        try:
            return column == literal(UUID(user_id), columns[name])
        except ValueError:
            return None
    return column == literal(user_id)


def _kind(of: TypeEngine[Any]) -> type[Any] | None:
    """The Python type of a column's values; str for unknown types, as PostgreSQL's citext."""
    try:
        found: type[Any] = of.python_type
    except NotImplementedError:
        return str
    return found if found in {str, int, UUID} else None


def _selected(name: str, columns: Columns, dialect: str) -> ColumnElement[Any]:
    """A column, as its values are handed over.

    SQLite keeps what it is given, whatever the column was declared as, so a declared type is
    believed only where the value would be exported wrongly without it.
    """
    kind = columns.get(name, NullType())
    if dialect == "sqlite" and not isinstance(kind, Boolean | JSON):
        kind = NullType()
    return type_coerce(named_column(name), kind).label(name)


def _faults(
    place: str, table: str, user_column: str, wanted: list[str], columns: Columns | None
) -> list[str]:
    if columns is None:
        return [f"{place}: the database has no table {table!r}"]
    faults = [f"{place}: there is no column {name!r}" for name in wanted if name not in columns]
    if user_column in columns and _kind(columns[user_column]) is None:
        kind = columns[user_column]
        faults.append(
            f"{place}: column {user_column!r} is {kind}: not text, a whole number or a UUID"
        )
    return faults

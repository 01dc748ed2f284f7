"""The file that configures participants: which tables hold data of users, and where users themselves are found.

`account-deletions` reads its part of the same file, so its keys are known here, and passed over.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from corral.errors import ConfigurationError

__all__ = ["ExportedTable", "TablesFile", "Users", "refused"]

Name = Annotated[str, StringConstraints(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Users(_Part):
    """Where users are found: `[users]`.

    Attributes:
        table: The table, with its schema where that is not the default one: `crm.users`.
        id_column: What a user id is compared with.
        email_column: Where the mail goes.
    """

    table: Name
    id_column: Name
    email_column: Name


class ExportedTable(_Part):
    """A table with data of users: `[tables.<name>]`.

    Attributes:
        user_column: Says whose a row is.
        export: The columns that are handed over; None where the table is not for us.
        action: For `account-deletions`.
        columns: For `account-deletions`.
    """

    user_column: Name
    export: Annotated[list[Name], Field(min_length=1)] | None = None
    action: Any = None
    columns: Any = None


class TablesFile(_Part):
    """The file.

    Attributes:
        users: Where users are found, or None.
        tables: The tables, by their names as they are written.
    """

    users: Users | None = None
    tables: dict[Name, ExportedTable] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TablesFile:
        """A file.

        Raises:
            ConfigurationError: It cannot be read, or says what cannot be understood; everything is named.
        """
        try:
            said = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise refused(path, [str(error)]) from error
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            faults = [(fault["loc"], fault["msg"]) for fault in error.errors(include_url=False, include_input=False)]
            raise refused(path, [f"{_place(at)}: {text[:1].lower()}{text[1:]}" for at, text in faults]) from None


def refused(path: Path | None, faults: list[str]) -> ConfigurationError:
    """The error that names the file and everything that is wrong with it."""
    return ConfigurationError("\n  ".join([f"the tables of data-exports, {path}, were refused:", *faults]))


def _place(location: tuple[int | str, ...]) -> str:
    """`[tables.orders] export.0`: a fault's place, as one finds it in the file."""
    depth = 2 if location[0] == "tables" else 1
    table, rest = ".".join(map(str, location[:depth])), ".".join(map(str, location[depth:]))
    return f"[{table}] {rest}".rstrip()

"""The file `CORRAL_ACCOUNT_DELETIONS_TABLES`: which tables have users' data, and how to erase it.

The queue `data-exports` reads the same file, and its keys are known here. Nothing in here knows a
database.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from corral.errors import ConfigurationError
from corral.field_errors import FieldError, field_errors

__all__ = ["ConfiguredTable", "UsersTable", "build_file_error", "read_tables", "read_users"]

Name = Annotated[str, Field(min_length=1)]


class ConfiguredTable(BaseModel):
    """One table.

    Attributes:
        user_column: Holds the id of the user whose row it is.
        action: `delete` removes the rows, `anonymize` keeps them and overwrites `columns`, `keep`
        changes nothing; None: not for deletions.
        columns: What `anonymize` overwrites, each with its new text, or with NULL.
        reason: Why rows are kept, in one line; `keep` needs it, `anonymize` may have it.
        export: For the queue `data-exports`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user_column: Name
    action: Literal["delete", "anonymize", "keep"] | None = None
    columns: list[Name] | dict[Name, str] = []
    reason: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)] | None = None
    export: Any = None

    @property
    def overwritten(self) -> Mapping[str, str | None]:
        """The columns with their new values."""
        return self.columns if isinstance(self.columns, dict) else dict.fromkeys(self.columns)

    @model_validator(mode="after")
    def _what_belongs_together(self) -> Self:
        if self.action is None and self.export is None:
            raise PydanticCustomError(
                "nothing", "neither 'action' nor 'export' says what the table is for"
            )
        if self.action == "anonymize" and not self.columns:
            raise PydanticCustomError("columns", "'anonymize' needs 'columns'")
        if self.action == "keep" and self.reason is None:
            raise PydanticCustomError("reason", "'keep' needs a 'reason': the user gets to read it")
        if self.action in {None, "delete"} and self.reason is not None:
            raise PydanticCustomError(
                "reason", "'reason' is for the actions 'keep' and 'anonymize'"
            )
        if self.action != "anonymize" and self.columns:
            raise PydanticCustomError("columns", "'columns' is for the action 'anonymize'")
        return self


class UsersTable(BaseModel):
    """Where users are found: it says whose an address is. `[users]`, as `data-exports` has it.

    Attributes:
        table: The table, with its schema where that is not the default one.
        id_column: The users' ids.
        email_column: Their addresses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: Name
    id_column: Name
    email_column: Name


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    users: UsersTable | None = None
    tables: dict[Name, ConfiguredTable] = {}


def read_tables(path: Path) -> Mapping[str, ConfiguredTable]:
    """The tables that deletions are about, in the order of the file.

    Raises:
        ConfigurationError: The file cannot be read; it names everything that is wrong in it.
    """
    tables = _read(path).tables
    return {name: table for name, table in tables.items() if table.action is not None}


def read_users(path: Path) -> UsersTable | None:
    """Where users are found, or None where the file does not say it.

    Raises:
        ConfigurationError: As `read_tables`.
    """
    return _read(path).users


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(tomllib.loads(path.read_text("utf-8")), strict=True)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"the tables file {str(path)!r} cannot be read: {error}"
        ) from error
    except ValidationError as error:
        raise build_file_error(path, [_sentence(each) for each in field_errors(error)]) from None


def build_file_error(path: Path, faults: Sequence[str]) -> ConfigurationError:
    """What is wrong with the file, all at once."""
    return ConfigurationError("\n  ".join([f"the tables file {str(path)!r} was refused:", *faults]))


def _sentence(error: FieldError) -> str:
    """One fault, with the table it is in."""
    where = [str(part) for part in error.location]
    known, table, rest = _File.model_fields, list[str](), where
    if where[0] == "tables" and len(where) > 1:
        known, table, rest = ConfiguredTable.model_fields, [f"table {where[1]!r}"], where[2:]
    elif where[0] == "users" and len(where) > 1:
        known, table, rest = UsersTable.model_fields, ["[users]"], where[1:]
    if error.type == "extra_forbidden":
        near = difflib.get_close_matches(rest[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(map(repr, known))}"
        return ": ".join([*table, f"{rest[-1]!r} is not known; {hint}"])
    return error.sentence(": ".join([*table, *rest[:1]]))

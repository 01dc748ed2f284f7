"""The file `CORRAL_DATA_EXPORTS_TABLES`: which tables have users' data, and where users are.

The queue `account-deletions` reads its part of the same file, so its keys are known here, and
passed over. Nothing in here knows a database.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from corral.errors import ConfigurationError
from corral.field_errors import FieldError, field_errors

__all__ = ["ExportedTable", "TablesFile", "Users", "build_file_error"]

Name = Annotated[str, Field(min_length=1)]


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
        export: The columns that are handed over; None where the table is not for exports.
        action: For the queue `account-deletions`.
        columns: For the queue `account-deletions`.
        reason: For the queue `account-deletions`.
    """

    user_column: Name
    export: Annotated[list[Name], Field(min_length=1)] | None = None
    action: Any = None
    columns: Any = None
    reason: Any = None

    @model_validator(mode="after")
    def _for_somebody(self) -> Self:
        if self.export is None and self.action is None:
            raise PydanticCustomError(
                "nothing", "neither 'action' nor 'export' says what the table is for"
            )
        return self


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
            ConfigurationError: It cannot be read, or says what cannot be understood; everything is
            named.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except ValidationError as error:  # a ValueError, too
            raise build_file_error(
                path, [_sentence(each) for each in field_errors(error)]
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the tables file {str(path)!r} cannot be read: {error}"
            ) from error


def build_file_error(path: Path | None, faults: Sequence[str]) -> ConfigurationError:
    """What is wrong with the file, all at once."""
    return ConfigurationError("\n  ".join([f"the tables file {str(path)!r} was refused:", *faults]))


def _sentence(error: FieldError) -> str:
    """One fault, with the part of the file it is in."""
    parts = [str(part) for part in error.location]
    known, place, rest = TablesFile.model_fields, list[str](), parts
    if parts[0] == "tables" and len(parts) > 1:
        known, place, rest = ExportedTable.model_fields, [f"table {parts[1]!r}"], parts[2:]
    elif parts[0] == "users" and len(parts) > 1:
        known, place, rest = Users.model_fields, ["[users]"], parts[1:]
    if error.type == "extra_forbidden":
        near = difflib.get_close_matches(rest[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(map(repr, known))}"
        return ": ".join([*place, f"{rest[-1]!r} is not known; {hint}"])
    return error.sentence(": ".join([*place, *rest[:1]]))

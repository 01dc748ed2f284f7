"""Secrets that stand in files: `CORRAL_EMAILS_PASSWORD_FILE` names a file with the password.

Container platforms mount secrets as files. Every setting that is declared secret (`SecretStr`,
`SecretBytes`, `Secret[…]`) can be given so, under the name of its variable and `_FILE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

__all__ = ["SecretFiles", "file_variables", "is_secret", "read_secret_files", "variable_name"]

SUFFIX: Final = "_FILE"
MAX_BYTES: Final = 65_536
"""No password, token or private key is longer: a file that is, is the wrong file."""


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """The secret settings that files gave.

    Attributes:
        values: The values, by the name with which a field is validated. They must not be shown.
        problems: What is wrong with files, by the same name: whole sentences without values.
    """

    values: Mapping[str, str]
    problems: Mapping[str, str]


def variable_name(model: type[BaseModel], field: str) -> str:
    """The environment variable of a field of a settings model, in capital letters."""
    alias = _alias(model, field)
    if alias is not None:  # an alias is read without the prefix
        return alias.upper()
    return f"{model.model_config.get('env_prefix', '')}{field}".upper()


def _alias(model: type[BaseModel], field: str) -> str | None:
    alias = model.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else None


def is_secret(field: FieldInfo) -> bool:
    """Whether a field is declared secret: by its type, or by `"writeOnly": True` in its schema."""
    extra = field.json_schema_extra
    is_marked = isinstance(extra, dict) and bool(extra.get("writeOnly"))
    return is_marked or any(
        issubclass(part, Secret | SecretStr | SecretBytes) for part in _types(field.annotation)
    )


def _types(annotation: Any) -> Iterator[type]:
    """The classes that a value may have: the parts of a union, and what is inside `Annotated`."""
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        for part in get_args(annotation):
            yield from _types(part)
    elif origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif isinstance(origin or annotation, type):
        yield origin or annotation


def file_variables(model: type[BaseModel]) -> dict[str, str]:
    """The variables that name files, by the secret field whose value the file has.

    A field of the model that has such a name itself keeps it.
    """
    return {
        name: f"{variable_name(model, name)}{SUFFIX}"
        for name, field in model.model_fields.items()
        if is_secret(field) and f"{name}{SUFFIX.lower()}" not in model.model_fields
    }


def read_secret_files(model: type[BaseModel], environ: Mapping[str, str]) -> SecretFiles:
    """Read the secret fields of a settings model that the environment gives by files.

    One newline at the end of a file is no part of the value: editors and `echo` leave it there.

    Args:
        model: The settings model.
        environ: The environment. The case of its names is ignored, and so is an empty value.
    """
    given = {name.upper(): value for name, value in environ.items() if value}
    values: dict[str, str] = {}
    problems: dict[str, str] = {}
    for field, variable in file_variables(model).items():
        if variable not in given:
            continue
        plain = variable.removesuffix(SUFFIX)
        key = _alias(model, field) or field
        if plain in given:
            problems[key] = f"{plain} and {variable} are both set: set one of them"
            continue
        try:
            values[key] = _content(Path(given[variable]))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            problems[key] = f"{variable}: the file {given[variable]!r} cannot be read: {reason}"
        except ValueError as error:
            problems[key] = f"{variable}: the file {given[variable]!r} cannot be used: {error}"
    return SecretFiles(values, problems)


def _content(path: Path) -> str:
    """The text of a file, without the newline at its end.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds no usable text. The message says nothing of what it holds.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("it is empty")
    return text

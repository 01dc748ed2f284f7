"""`first_difference`: compares a payload with what a worker reads back.

It is stricter than `==`, for which `True`, `1` and a member of an `IntEnum` are equal, as are equal
members of a union.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from itertools import chain
from typing import Any, Final, cast

from pydantic import BaseModel, RootModel

__all__ = ["first_difference"]

VALUE: Final = "has another value where a worker reads it"
TYPED: Final = (bool, Enum, BaseModel)
"""For an instance of these, no instance of another class is accepted as the same value."""


def first_difference(given: object, read: object) -> tuple[str, str] | None:
    """The first difference between two values.

    Args:
        given: The producer's value.
        read: The value that a worker reads.

    Returns:
        The dotted path, as in the JSON text, and what is different, without the values; None if
        nothing is.
    """
    return next(_differences(given, read, ""), None)


def _differences(given: Any, read: Any, path: str) -> Iterator[tuple[str, str]]:
    if given is read:
        return
    if not _same_kind(given, read):
        yield (
            path,
            f"is {type(given).__name__} here, and {type(read).__name__} where a worker reads it",
        )
    elif isinstance(given, RootModel):
        yield from _differences(given.root, read.root, path)
    elif (members := _members(given)) is not None:
        others = dict(_members(read) or ())
        for name, value in members:
            if name not in others:
                yield _inside(path, name), "is not there where a worker reads it"
            else:
                yield from _differences(value, others.pop(name), _inside(path, name))
        for name in others:
            yield _inside(path, name), "is there only where a worker reads it"
    elif isinstance(given, set | frozenset):
        if {_Key(item) for item in given} != {_Key(item) for item in read}:
            yield path, VALUE
    elif not _equal(given, read):
        yield path, VALUE


def _same_kind(given: object, read: object) -> bool:
    if type(given) is type(read) or (isinstance(given, Mapping) and isinstance(read, Mapping)):
        return True
    # A subclass is accepted: a template engine's text is a text, a database driver's UUID a UUID.
    return (
        isinstance(given, type(read))
        and not isinstance(given, TYPED)
        and not dataclasses.is_dataclass(given)
    )


def _members(value: Any) -> Iterator[tuple[Any, Any]] | None:
    """The parts of a value, by comparable names; None if it is compared as a whole."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        named = (
            (field.serialization_alias or field.alias or name, getattr(value, name))
            for name, field in fields
        )
        hidden: Iterable[Any] = (value.__pydantic_private__ or {}).items()
        return chain(named, (value.__pydantic_extra__ or {}).items(), hidden)
    if dataclasses.is_dataclass(value):
        return ((each.name, getattr(value, each.name, None)) for each in dataclasses.fields(value))
    if isinstance(value, Mapping):
        # To Python, 1, 1.0 and True are the same key.
        return ((_Key(name), each) for name, each in value.items())
    if isinstance(value, list | tuple | deque):
        return enumerate(cast("Iterable[Any]", value))
    if hasattr(value, "__dict__") and _compares_by_identity(type(value)):
        return iter(cast("dict[str, Any]", vars(value)).items())
    return None


def _compares_by_identity(kind: type) -> bool:
    return getattr(kind, "__eq__", None) is getattr(object, "__eq__", None)


class _Key:
    """A key of a mapping, or an item of a set. It equals only a key of its own type."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Key) or not self.key == other.key:
            return False
        return _same_kind(self.key, other.key) or _same_kind(other.key, self.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return str(self.key.value if isinstance(self.key, Enum) else self.key)


def _inside(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _equal(given: Any, read: Any) -> bool:
    try:
        if given == read or (given != given and read != read):  # noqa: PLR0124  # NaN
            return True
        # For a time in an hour that a zone has twice, `==` is false whatever it is compared with.
        return isinstance(given, datetime) and given.isoformat() == read.isoformat()
    except Exception:  # noqa: BLE001  # a user's own `__eq__` may raise anything
        return False

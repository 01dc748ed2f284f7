"""Models of payloads that several tests are about, and how to look at what became of one."""

from __future__ import annotations

import dataclasses
import enum
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    create_model,
)
from typing_extensions import TypedDict

from corral import Payload
from corral.jobs import EnqueueOptions, JobChecks

T = TypeVar("T")
NAIVE = datetime(2024, 1, 2)  # noqa: DTZ001  # a payload may hold one
NONE: EnqueueOptions = {}


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Size(enum.IntEnum):
    SMALL = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Shape(Payload):
    name: str = ""


class Circle(Shape):
    radius: int = 0


class BareShape(BaseModel):
    name: str


class BareCircle(BareShape):
    radius: int = 0


class Cat(Payload):
    id: int


class Dog(Payload):
    id: int
    breed: str


class Envelope(Payload, Generic[T]):
    item: T


class Numbers(RootModel[list[int]]):
    pass


class Hidden(Payload):
    a: int
    _seen: int = PrivateAttr(0)


class Open(Payload):
    model_config = ConfigDict(extra="allow")
    a: int = 0


class Squared(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field
    @property
    def square(self) -> int:
        return self.a * self.a


class Card(Payload):
    kind: Literal["card"] = "card"
    number_of: int = 0


class Cash(Payload):
    kind: Literal["cash"] = "cash"
    amount: int = 0


class Node(Payload):
    below: Node | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: str = "q"


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


class Pair(NamedTuple):
    a: int
    b: str


class Typed(TypedDict):
    some_name: int


def one(kind: Any, **more: Any) -> type[Payload]:
    """A payload with a field of this type."""
    return create_model("One", __base__=Payload, a=(kind, ...), **more)


def checks(*, proves_all: bool = False) -> JobChecks:
    return JobChecks(lambda queue: queue, (), proves_all=proves_all)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def fields(**given: Any) -> type[Payload]:
    return create_model("Faulty", __base__=Payload, **given)


def exactly(value: Any) -> Any:
    """A value in a form in which everything that a program can notice of it differs."""
    if isinstance(value, BaseModel):
        fields = {name: exactly(getattr(value, name)) for name in type(value).model_fields}
        return (
            type(value),
            fields,
            exactly(value.__pydantic_extra__),
            exactly(value.__pydantic_private__ or {}),
        )
    if dataclasses.is_dataclass(value):
        return type(value), exactly(vars(value))
    if isinstance(value, dict):
        return sorted(
            ((repr(exactly(name)), exactly(each)) for name, each in value.items()),
            key=lambda pair: pair[0],
        )
    if isinstance(value, list | tuple):
        return type(value), [exactly(each) for each in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(exactly(each)) for each in value)
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return type(value), value.get_secret_value()
    if isinstance(value, datetime):
        return datetime, value.isoformat()
    return type(value), repr(value)

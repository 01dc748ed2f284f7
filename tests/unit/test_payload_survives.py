"""Producer → JSON text → worker: a payload is refused, or a worker has exactly what was given.

Shown on generated models; on a list of shapes that arrive exactly, none of which may be refused; and on others.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json
import pathlib
import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    computed_field,
    create_model,
    field_serializer,
    model_serializer,
    model_validator,
)
from pydantic_core import TzInfo
from typing_extensions import TypedDict

from corral import Payload, PayloadRefused, Queue
from corral.jobs import EnqueueOptions, JobChecks
from corral.round_trip import first_difference

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


def checks(*, tries_all: bool = False) -> JobChecks:
    return JobChecks(lambda queue: queue, (), tries_all=tries_all)  # type: ignore[arg-type, return-value]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


# shapes that arrive exactly


def an_alias() -> Any:
    class P(Payload):
        user_id: str = Field(alias="user-id")

    return P(user_id="x")


def a_renamed_field() -> Any:
    class P(Payload):
        user_id: str = Field(validation_alias=AliasChoices("userId", "uid", AliasPath("user", "id")))

    return P(uid="x")


def a_part_of_another() -> Any:
    class P(Payload):
        first: str = Field(validation_alias=AliasPath("names", 0))

    return P(names=["x"])


def swapped_names() -> Any:
    class P(Payload):
        a: int = Field(alias="b")
        b: int = Field(alias="a")

    return P.model_validate({"a": 1, "b": 2})


def a_strict_model() -> Any:
    class P(Payload):
        model_config = ConfigDict(strict=True)
        a: uuid.UUID
        b: datetime
        c: Decimal
        d: tuple[int, ...]
        e: set[int]
        f: Colour
        g: dict[int, str]

    return P(
        a=uuid.UUID(int=1),
        b=NAIVE,
        c=Decimal(1),
        d=(1,),
        e={1},
        f=Colour.RED,
        g={1: "x"},
    )


def an_old_name_by_a_validator() -> Any:
    class P(Payload):
        user_id: str = Field(validation_alias="uid")

        @model_validator(mode="before")
        @classmethod
        def rename(cls, data: Any) -> Any:
            return {("uid" if name == "userId" else name): value for name, value in data.items()}

    return P(uid="x")


def a_derived_field() -> Any:
    class P(Payload):
        first: str
        slug: str = Field("", exclude=True)

        @model_validator(mode="after")
        def derive(self) -> Any:
            object.__setattr__(self, "slug", self.first.lower())
            return self

    return P(first="Ada")


def a_private_field_that_follows_from_others() -> Any:
    class P(Payload):
        a: int
        _twice: int = PrivateAttr(0)

        def model_post_init(self, _context: Any) -> None:
            object.__setattr__(self, "__pydantic_private__", {"_twice": self.a * 2})

    return P(a=1)


def a_subclass_by_a_validator() -> Any:
    def which(value: Any) -> Any:
        return Circle.model_validate(value) if isinstance(value, dict) and "radius" in value else value

    return one(Annotated[SerializeAsAny[Shape], BeforeValidator(which)])(a=Circle(name="c", radius=1))


def a_format_of_ones_own() -> Any:
    day = PlainSerializer(lambda value: value.strftime("%d.%m.%Y"), return_type=str)
    read = BeforeValidator(lambda v: datetime.strptime(v, "%d.%m.%Y").date() if isinstance(v, str) else v)  # noqa: DTZ007
    return one(Annotated[date, day, read])(a=date(2024, 1, 2))


def a_class_that_compares_by_identity() -> Any:
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

        @classmethod
        def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
            schema = handler(int)
            from pydantic_core import core_schema

            return core_schema.no_info_after_validator_function(
                lambda value: value if isinstance(value, cls) else cls(value),
                core_schema.union_schema([core_schema.is_instance_schema(cls), schema]),
                serialization=core_schema.plain_serializer_function_ser_schema(lambda money: money.cents),
            )

        @classmethod
        def __get_pydantic_json_schema__(cls, _schema: Any, handler: Any) -> Any:
            return {"type": "integer"}

    return one(Money)(a=Money(5))


EXACT: dict[str, Callable[[], Payload]] = {
    "alias": an_alias,
    "alias choices with the written name": a_renamed_field,
    "alias path of a field of one word": a_part_of_another,
    "swapped names": swapped_names,
    "union of models": lambda: one(Cat | Dog)(a=Dog(id=1, breed="x")),
    "UUID | str": lambda: one(uuid.UUID | str)(a=uuid.UUID(int=5)),
    "datetime | str": lambda: one(datetime | str)(a=datetime(2024, 1, 2, tzinfo=UTC)),
    "date | datetime": lambda: one(date | datetime)(a=NAIVE),
    "Decimal | float": lambda: one(Decimal | float)(a=Decimal("0.10")),
    "int | bool": lambda: one(int | bool)(a=True),
    "bool | int": lambda: one(bool | int)(a=1),
    "str | int": lambda: one(str | int)(a=5),
    "int | float": lambda: one(int | float)(a=3.0),
    "float | int": lambda: one(float | int)(a=3),
    "Literal": lambda: one(Literal[1, "1", True])(a="1"),
    "bytes": lambda: one(bytes)(a=b"abc"),
    "Base64Bytes": lambda: one(Base64Bytes)(a=b"/wA="),
    "Json": lambda: one(Json[list[int]])(a="[1,2]"),
    "Enum": lambda: one(Colour)(a=Colour.RED),
    "IntEnum": lambda: one(Size)(a=Size.SMALL),
    "Flag": lambda: one(Rights)(a=Rights.READ | Rights.WRITE),
    "keys: int": lambda: one(dict[int, str])(a={1: "x"}),
    "keys: UUID": lambda: one(dict[uuid.UUID, int])(a={uuid.UUID(int=1): 1}),
    "keys: date": lambda: one(dict[date, int])(a={date(2024, 1, 1): 1}),
    "keys: Enum": lambda: one(dict[Colour, int])(a={Colour.RED: 2}),
    "keys: bool": lambda: one(dict[bool, str])(a={True: "x"}),
    "keys: float": lambda: one(dict[float, str])(a={1.5: "x"}),
    "keys: Literal": lambda: one(dict[Literal["a", "b"], str])(a={"a": "x"}),
    "Mapping of another class": lambda: one(Mapping[str, int])(a=OrderedDict(a=1)),
    "set": lambda: one(set[int])(a={1, 2}),
    "frozenset": lambda: one(frozenset[str])(a=frozenset("ab")),
    "tuple": lambda: one(tuple[int, str])(a=(1, "x")),
    "Sequence": lambda: one(Sequence[int])(a=[1, 2]),
    "timedelta": lambda: one(timedelta)(a=timedelta(days=-1, microseconds=3)),
    "timedelta.max": lambda: one(timedelta)(a=timedelta.max),
    "time": lambda: one(time)(a=time(1, 2, 3, tzinfo=UTC)),
    "date": lambda: one(date)(a=date(1, 1, 1)),
    "datetime.max": lambda: one(datetime)(a=NAIVE.max),
    "datetime of a zone": lambda: one(datetime)(a=datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
    "datetime that a zone has twice": lambda: one(datetime)(
        a=datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    ),
    "Decimal": lambda: one(Decimal)(a=Decimal("1E+400")),
    "Decimal with zeros": lambda: one(Decimal)(a=Decimal("0.1000")),
    "largest float": lambda: one(float)(a=1.7976931348623157e308),
    "smallest float": lambda: one(float)(a=5e-324),
    "float of a large integer": lambda: one(float)(a=1e22),
    "strict model": a_strict_model,
    "generic": lambda: Envelope[Dog](item=Dog(id=1, breed="x")),
    "generic in a field": lambda: one(Envelope[int])(a=Envelope[int](item=1)),
    "private field": lambda: Hidden(a=1),
    "private field that follows": a_private_field_that_follows_from_others,
    "computed field": lambda: one(Squared)(a=Squared(a=2)),
    "extra allowed": lambda: Open(a=1, more={"b": [1]}),  # type: ignore[call-arg]
    "extra allowed in a field": lambda: one(Open)(a=Open(more=[1])),  # type: ignore[call-arg]
    "root model": lambda: one(Numbers)(a=Numbers([1, 2])),
    "discriminated union": lambda: one(Annotated[Card | Cash, Field(discriminator="kind")])(a=Cash(amount=3)),
    "default factory": create_model("P", __base__=Payload, id=(uuid.UUID, Field(default_factory=uuid.uuid4))),
    "control characters": lambda: one(str)(a="\x00\x01\u2028\U0001f600"),
    "JsonValue, deep": lambda: one(JsonValue)(a=deep(150)),
    "JsonValue, as deep as can be read": lambda: one(JsonValue)(a=deep(190)),
    "Any of JSON's types": lambda: one(Any)(a={"a": [1, 1.5, None, True, "x", {"b": {}}]}),
    "SecretStr": lambda: one(SecretStr)(a="s3cret"),
    "SecretBytes": lambda: one(SecretBytes)(a=b"s3cret"),
    "SecretStr | int": lambda: one(SecretStr | int)(a="pw12345"),
    "secrets by name": lambda: one(dict[str, SecretStr])(a={"x": "t0ken"}),
    "dataclass": lambda: one(Point)(a=Point(1)),
    "NamedTuple": lambda: one(Pair)(a=Pair(1, "x")),
    "TypedDict": lambda: one(Typed)(a={"some_name": 1}),
    "IPv4Network": lambda: one(ipaddress.IPv4Network)(a="10.0.0.0/8"),
    "URL": lambda: one(AnyUrl)(a="http://x.y/"),
    "Path": lambda: one(pathlib.Path)(a="/srv"),
    "Pattern": lambda: one(re.Pattern)(a="a+"),
    "ByteSize": lambda: one(ByteSize)(a="3 MiB"),
    "None where there is a default": lambda: create_model("P", __base__=Payload, a=(str | None, "set"))(a=None),
    "models within models": lambda: Node(below=Node(below=Node())),
    "an old name by a validator": an_old_name_by_a_validator,
    "an excluded field that follows from others": a_derived_field,
    "a subclass by a validator": a_subclass_by_a_validator,
    "a format of one's own": a_format_of_ones_own,
    "a class that compares by identity": a_class_that_compares_by_identity,
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_a_shape_that_arrives_exactly_is_refused_nowhere(make: Callable[[], Payload]) -> None:
    payload = make()
    queue = Queue("exact", type(payload))
    assert queue.schema_faults == ()
    both = checks(), checks(tries_all=True)
    for each in (both[0], both[0], both[1]):
        read, unknown = queue.parsed(each.job(queue, payload, NONE).data)
        assert unknown == frozenset()
        assert type(read) is type(payload)
        assert first_difference(payload, read) is None


# generated models


@dataclasses.dataclass
class Kind:
    """A type of a field.

    Attributes:
        type: The annotation.
        values: What a program may put there.
        custom: Whether functions of the model's author write or read it: those are tried, not judged.
        open: Whether it takes objects with members of any name.
        hashable: Whether a set may hold it.
    """

    type: Any
    values: st.SearchStrategy[Any]
    custom: bool = False
    open: bool = False
    hashable: bool = True


class Named(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, extra="forbid")


class Bare(BaseModel):
    pass


class Keeping(BaseModel):
    model_config = ConfigDict(extra="allow", validate_by_name=True)


class InBase64(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", extra="forbid")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["1", "true", "2024-01-01", "00000000-0000-0000-0000-000000000005", "r", "1.5", "card", "PT1S", "null", ""]
)
MOMENTS = st.datetimes(timezones=st.sampled_from([None, TzInfo(0), TzInfo(3600)]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ODD = st.sampled_from(
    [date(2024, 1, 1), uuid.UUID(int=1), (1, 2), {1}, Decimal("1.10"), Colour.RED, {1: 2}, b"x", Cat(id=1)]
)
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)

LEAVES = [
    Kind(int, INTEGERS),
    Kind(bool, st.booleans()),
    Kind(str, TEXT),
    Kind(float, st.floats(allow_nan=False, allow_infinity=False) | INTEGERS.map(float)),
    Kind(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    Kind(date, st.dates()),
    Kind(datetime, MOMENTS),
    Kind(timedelta, st.timedeltas()),
    Kind(uuid.UUID, st.uuids()),
    Kind(bytes, st.binary(max_size=3)),
    Kind(Base64Bytes, st.binary(max_size=3).map(lambda raw: __import__("base64").b64encode(raw))),
    Kind(SecretStr, TEXT.map(SecretStr)),
    Kind(SecretBytes, st.binary(max_size=3).map(SecretBytes)),
    Kind(Secret[date], st.dates()),
    Kind(Colour, st.sampled_from(Colour)),
    Kind(Size, st.sampled_from(Size)),
    Kind(Literal["a", 1], st.sampled_from(["a", 1])),
    Kind(JsonValue, JSON, open=True, hashable=False),
    Kind(Any, JSON | ODD, open=True, hashable=False),
    Kind(Shape, st.builds(Shape, name=TEXT) | st.builds(Circle, name=TEXT, radius=INTEGERS)),
    Kind(SerializeAsAny[Shape], st.builds(Shape, name=TEXT) | st.builds(Circle, radius=INTEGERS), custom=True),
    Kind(Circle, st.builds(Circle, name=TEXT, radius=INTEGERS)),
    Kind(BareShape, st.builds(BareShape, name=TEXT) | st.builds(BareCircle, name=TEXT), open=True, hashable=False),
    Kind(Cat, st.builds(Cat, id=INTEGERS)),
    Kind(Dog, st.builds(Dog, id=INTEGERS, breed=TEXT)),
    Kind(Squared, st.builds(Squared, a=st.integers(0, 9)), hashable=False),
    Kind(Numbers, st.lists(INTEGERS, max_size=2).map(Numbers), hashable=False),
    Kind(Open, st.builds(Open, a=INTEGERS, more=JSON | ODD), open=True, hashable=False),
    Kind(Annotated[Card | Cash, Field(discriminator="kind")], st.builds(Card) | st.builds(Cash, amount=INTEGERS)),
    Kind(Node, st.builds(Node, below=st.none() | st.builds(Node))),
    Kind(Point, st.builds(Point, INTEGERS, TEXT) | st.builds(Point3, INTEGERS, TEXT), open=True, hashable=False),
    Kind(Pair, st.builds(Pair, INTEGERS, TEXT)),
    Kind(Annotated[str, AfterValidator(str.lower)], TEXT, custom=True),
    Kind(Annotated[str, AfterValidator(lambda text: f"tenant/{text}")], TEXT, custom=True),
    Kind(Annotated[date, PlainSerializer(lambda day: f"{day:%d.%m.%Y}", return_type=str)], st.dates(), custom=True),
    Kind(Annotated[int, PlainSerializer(lambda number: number // 2)], st.integers(0, 9), custom=True),
    Kind(Iterable[int], st.lists(st.integers(0, 9), max_size=2), hashable=False),
]


@st.composite
def kinds(draw: Callable[..., Any], depth: int) -> Kind:
    if depth == 0:
        return draw(st.sampled_from(LEAVES))
    shape = draw(
        st.sampled_from(
            ["leaf", "list", "dict", "keys", "tuple", "set", "optional", "union", "json", "model", "generic"]
        )
    )
    inner: Kind = draw(kinds(depth - 1))
    flags = {"custom": inner.custom, "open": inner.open, "hashable": False}
    match shape:
        case "list":
            return Kind(list[inner.type], st.lists(inner.values, max_size=2), **flags)
        case "dict":
            return Kind(
                dict[str, inner.type], st.dictionaries(TEXT, inner.values, max_size=2), **flags | {"open": True}
            )
        case "keys":
            key = draw(st.sampled_from([kind for kind in LEAVES if kind.hashable and not kind.custom]))
            union = draw(st.booleans())
            keys = key.values | TEXT if union else key.values
            values = st.dictionaries(keys, inner.values, max_size=2)
            return Kind(dict[key.type | str if union else key.type, inner.type], values, **flags | {"open": True})
        case "tuple":
            other: Kind = draw(kinds(depth - 1))
            flags = {"custom": inner.custom or other.custom, "open": inner.open or other.open, "hashable": False}
            return Kind(tuple[inner.type, other.type], st.tuples(inner.values, other.values), **flags)
        case "set" if inner.hashable:
            return Kind(set[inner.type], st.sets(inner.values, max_size=2), **flags)
        case "optional":
            return Kind(inner.type | None, st.none() | inner.values, **flags)
        case "union":
            other = draw(kinds(depth - 1))
            flags = {"custom": inner.custom or other.custom, "open": inner.open or other.open, "hashable": False}
            return Kind(inner.type | other.type, inner.values | other.values, **flags)
        case "json":
            return Kind(Json[inner.type], inner.values.map(lambda _: "[1]"), **flags | {"custom": True})
        case "model":
            return draw(models(depth - 1))
        case "generic":
            envelope = Envelope[inner.type]
            return Kind(envelope, inner.values.map(lambda item: built(envelope, {"item": item})), **flags)
        case _:
            return inner


NAMES = ["a_b", "aB", "address_1", "address1", "name", "user_id", "userId", "x"]
numbers = count()


def built(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """An instance; None where its own model takes no such values."""
    given = {}
    for name, value in values.items():
        alias = model.model_fields[name].validation_alias
        first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
        given[first if isinstance(first, str) and not model.model_config.get("validate_by_name") else name] = value
    try:
        return model.model_validate(given)
    except ValueError:
        return None


@st.composite
def models(draw: Callable[..., Any], depth: int, base: type[BaseModel] | None = None) -> Kind:
    base = base or draw(st.sampled_from([Payload, Payload, Named, Bare, Keeping, InBase64]))
    fields: dict[str, Any] = {}
    inside: dict[str, Kind] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
        kind = inside[name] = draw(kinds(depth))
        options: dict[str, Any] = {}
        other = st.sampled_from(NAMES)
        match draw(st.sampled_from(["", "", "", "", "alias", "read", "choices", "written", "excluded", "left out"])):
            case "alias":
                options["alias"] = draw(other)
            case "read":
                options["validation_alias"] = draw(other)
            case "choices":
                options["validation_alias"] = AliasChoices(draw(other), draw(other))
            case "written":
                options["serialization_alias"] = draw(other)
            case "excluded":
                options |= {"exclude": True, "default": draw(kind.values)}
            case "left out":
                options["exclude"] = True
        fields[name] = (kind.type, Field(**options))
    extras: dict[str, Any] = {}
    custom = any(kind.custom for kind in inside.values())
    if draw(st.integers(0, 9)) == 0:
        extras["_hidden"] = (int, PrivateAttr(0))
    if draw(st.integers(0, 9)) == 0:
        custom = True
        extras["__validators__"] = {"wrapped": model_serializer(lambda self: {"wrapped": 1})}
    model = create_model(f"Model{next(numbers)}", __base__=base, **{**fields, **extras})
    values = st.fixed_dictionaries({name: kind.values for name, kind in inside.items()})

    def make(each: dict[str, Any], hidden: int) -> Any:
        made = built(model, each)
        if made is not None and "_hidden" in extras:
            made.__pydantic_private__["_hidden"] = hidden
        return made

    is_open = base in {Bare, Keeping} or any(kind.open for kind in inside.values())
    return Kind(model, st.builds(make, values, st.sampled_from([0, 0, 1])), custom, is_open, hashable=False)


def exactly(value: Any) -> Any:
    """A value in a form in which everything that a program can notice of it differs."""
    if isinstance(value, BaseModel):
        fields = {name: exactly(getattr(value, name)) for name in type(value).model_fields}
        return type(value), fields, exactly(value.__pydantic_extra__), exactly(value.__pydantic_private__ or {})
    if dataclasses.is_dataclass(value):
        return type(value), exactly(vars(value))
    if isinstance(value, dict):
        return sorted(((repr(exactly(name)), exactly(each)) for name, each in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list | tuple):
        return type(value), [exactly(each) for each in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(exactly(each)) for each in value)
    if isinstance(value, SecretStr | SecretBytes | Secret):
        return type(value), value.get_secret_value()
    if isinstance(value, datetime):
        return datetime, value.isoformat()
    return type(value), repr(value)


def objects(value: Any, tree: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The models in a payload, each with the object that was written for it."""
    if isinstance(value, RootModel):
        yield from objects(value.root, tree)
    elif isinstance(value, BaseModel) and isinstance(tree, dict):
        yield value, tree
        for name, field in type(value).model_fields.items():
            written = field.serialization_alias or field.alias or name
            if written in tree:
                yield from objects(getattr(value, name), tree[written])
    elif isinstance(value, list | tuple) and isinstance(tree, list):
        for each, part in zip(value, tree, strict=True):
            yield from objects(each, part)
    elif isinstance(value, dict) and isinstance(tree, dict) and len(value) == len(tree):
        for each, part in zip(value.values(), tree.values(), strict=True):
            yield from objects(each, part)


def check_unknown_fields(queue: Queue[Any], payload: Any, raw: bytes) -> int:
    """Add a field to each model's object in turn: nothing else is changed, and what is left out is told."""
    several = len(list(objects(payload, json.loads(raw))))
    for index in range(several):
        tree = json.loads(raw)
        holder, written = list(objects(payload, tree))[index]
        written["zzNew"] = next(iter(written.values()), 1)
        read, unknown = queue.parsed(json.dumps(tree).encode())
        match holder.model_config.get("extra"):
            case "forbid":
                assert {name.rpartition(".")[2] for name in unknown} == {"zzNew"}
                assert exactly(read) == exactly(payload)
            case "allow":
                assert unknown == frozenset()
                assert json.loads(queue.dumped(read)) == tree
            case _:
                assert exactly(read) == exactly(payload)
    return several


@pytest.mark.filterwarnings("ignore::pydantic.json_schema.PydanticJsonSchemaWarning")  # of defaults that are no JSON
def test_a_generated_payload_is_refused_or_arrives_exactly_also_with_an_unknown_field() -> None:
    counts = dict.fromkeys(("payloads", "refused models", "refused payloads", "arrived", "unknown fields"), 0)

    @settings(
        max_examples=int(__import__("os").environ.get("N", "400")),
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def refused_or_exact(data: st.DataObject) -> None:
        try:
            kind = data.draw(models(depth=2, base=Payload))
        except (TypeError, NameError, ValueError):  # pydantic makes no model of this
            return
        queue = Queue("generated", kind.type)
        # what functions do is tried with the first payload of a process: each of these stands for a process
        own = checks(tries_all=kind.custom)
        counts["refused models"] += bool(queue.schema_faults)
        for _ in range(3):
            payload = data.draw(kind.values)
            if payload is None:
                continue
            counts["payloads"] += 1
            try:
                raw = own.job(queue, payload, NONE).data
            except PayloadRefused:
                counts["refused payloads"] += 1
                continue
            read, unknown = queue.parsed(raw)
            assert unknown == frozenset()
            assert exactly(read) == exactly(payload), raw
            counts["arrived"] += 1
            if not kind.open and not kind.custom:  # else another member of a union may be meant, or a function decides
                counts["unknown fields"] += check_unknown_fields(queue, payload, raw)

    refused_or_exact()
    print(", ".join(f"{number} {name}" for name, number in counts.items()))
    assert counts["arrived"] > counts["payloads"] / 10
    assert counts["unknown fields"] > 100


# what a schema decides


class Misspelt(BaseModel):
    user_id: str = Field(validation_alias="uid")


@dataclasses.dataclass
class WithInit:
    x: int
    y: dataclasses.InitVar[int]


class Mixed(BaseModel):
    model_config = ConfigDict(ser_json_bytes="hex")
    raw: bytes


FAULTY: dict[str, tuple[Callable[[], type[Payload]], str, str]] = {
    "two fields of one name": (lambda: fields(a_b=(int, 0), aB=(int, 0)), "aB", "the name of two fields"),
    "written and not read": (
        lambda: fields(user_id=(str, Field(validation_alias="uid"))),
        "userId",
        "read from 'uid', 'user_id'",
    ),
    "read and not written": (
        lambda: fields(user_id=(str, Field(serialization_alias="uid"))),
        "uid",
        "is written under this name",
    ),
    "choices without the written name": (
        lambda: fields(user_id=(str, Field(validation_alias=AliasChoices("uid", "user")))),
        "userId",
        "read from 'uid', 'user', 'user_id'",
    ),
    "only a part of another": (
        lambda: one(create_model("M", __base__=BaseModel, first=(str, Field(validation_alias=AliasPath("names", 0))))),
        "a.first",
        "read from a part of 'names'",
    ),
    "another field's name first": (
        lambda: fields(old=(str, ""), new_name=(str, Field("", validation_alias=AliasChoices("old", "newName")))),
        "newName",
        "read from a name under which the field 'old' is written",
    ),
    "excluded, and read from another": (
        lambda: fields(a=(int, 0), b=(int, Field(0, alias="a", exclude=True))),
        "a",
        "read from a name under which the field 'a' is written",
    ),
    "excluded and required": (lambda: fields(a_b=(str, Field(exclude=True))), "a_b", "is required, and excluded"),
    "needed and never written": (lambda: one(WithInit), "a.y", "is required, and excluded"),
    "keys: tuple": (lambda: one(dict[tuple[int, int], str]), "a", "keys of the type tuple"),
    "keys: model or text": (lambda: one(dict[Cat | str, str]), "a", "keys of the type model"),
    "keys: secret": (lambda: one(dict[SecretStr, int]), "a", "keys that are secret"),
    "Secret[date]": (lambda: one(Secret[date]), "a", "written as a mask"),
    "Secret[date], optional, in a list": (lambda: one(list[Secret[date] | None]), "a", "written as a mask"),
    "Iterable": (lambda: one(Iterable[int]), "a", "is an iterator"),
    "bytes in two ways": (lambda: one(Mixed), "a.raw", "written in one way and read in another"),
    "deep inside": (lambda: one(dict[str, list[Misspelt | None]]), "a.user_id", "read from 'uid'"),
    "in a root model": (lambda: one(RootModel[list[Misspelt]]), "a.user_id", "read from 'uid'"),
    "in a generic": (lambda: one(Envelope[Misspelt]), "a.item.user_id", "read from 'uid'"),
}


def fields(**given: Any) -> type[Payload]:
    return create_model("Faulty", __base__=Payload, **given)


@pytest.mark.parametrize(("make", "path", "what"), FAULTY.values(), ids=FAULTY)
def test_a_schema_that_loses_something_is_found_with_the_path(
    make: Callable[[], type[Payload]], path: str, what: str
) -> None:
    (fault,) = Queue("faulty", make()).schema_faults
    assert fault.path == path
    assert what in fault.what
    assert fault.hint


# what is tried


def not_idempotent() -> Payload:
    return one(Annotated[str, AfterValidator(lambda text: f"tenant/{text}")])(a="x")


def unreadable() -> Payload:
    class P(Payload):
        at: datetime

        @field_serializer("at")
        def show(self, value: datetime) -> str:
            return f"{value:%d.%m.%Y %H:%M}"

    return P(at=datetime(2024, 1, 2, tzinfo=UTC))


def wrapped() -> Payload:
    class P(Payload):
        some_number: int

        @model_serializer
        def wrap(self) -> dict[str, int]:
            return {"someNumber": self.some_number, "more": 1}

    return P(some_number=1)


def raising_when_read_again() -> Payload:
    seen: list[str] = []

    def once(value: str) -> str:
        seen.append(value)
        if len(seen) > 1:
            raise LookupError(value)
        return value

    return one(Annotated[str, AfterValidator(once)])(a="hunter2")


def hidden() -> Payload:
    payload = Hidden(a=1)
    (payload.__pydantic_private__ or {})["_seen"] = 1
    return payload


LOST: dict[str, tuple[Callable[[], Payload], str, str]] = {
    "subclass in a field": (lambda: one(Shape)(a=Circle()), "a", "is Circle here, and Shape where a worker reads it"),
    "subclass in a list": (lambda: one(list[BareShape])(a=[BareCircle(name="c")]), "a.0", "is BareCircle here"),
    "subclass in a dict": (lambda: one(dict[str, Shape])(a={"x": Circle()}), "a.x", "is Circle here"),
    "subclass in a tuple": (lambda: one(tuple[int, Shape])(a=(1, Circle())), "a.1", "is Circle here"),
    "subclass in a model": (lambda: one(Envelope[Shape])(a=Envelope[Shape](item=Circle())), "a.item", "is Circle"),
    "subclass in a root model": (lambda: one(RootModel[Shape])(a=Circle()), "a", "is Circle here"),
    "subclass of a dataclass": (lambda: one(Point)(a=Point3(1)), "a", "is Point3 here, and Point"),
    "subclass that is duck-typed": (lambda: one(SerializeAsAny[Shape])(a=Circle()), "a.radius", "unknown to a worker"),
    "generic without its type": (lambda: Envelope(item=Dog(id=1, breed="x")), "item", "is Dog here, and dict"),
    "excluded, and not its default": (lambda: fields(b=(str, Field("", exclude=True)))(b="y"), "b", "another value"),
    "private": (hidden, "_seen", "another value"),
    "Any: datetime": (lambda: one(Any)(a=datetime(2024, 1, 2, tzinfo=UTC)), "a", "is datetime here, and str"),
    "Any: deep inside": (lambda: one(dict[str, Any])(a={"x": [{"y": (1,)}]}), "a.x.0.y", "is tuple here, and list"),
    "Any: keys": (lambda: one(Any)(a={1: 2}), "a.1", "is not there"),
    "Any: NaN": (lambda: one(Any)(a=[float("nan")]), "a.0", "is float here, and NoneType"),
    "Any: too deep": (lambda: one(Any)(a=deep(230)), "", "a worker cannot read it"),
    "extra": (lambda: Open(more={1, 2}), "more", "is set here, and list"),  # type: ignore[call-arg]
    "models, too deep": (lambda: chain_of(230), "", "a worker cannot read it"),
    "NaN in a model of its own": (
        lambda: one(create_model("M", x=(float, 0.0)))(a={"x": float("inf")}),
        "a.x",
        "cannot",
    ),
    "text that is a UUID": (lambda: one(uuid.UUID | str)(a=str(uuid.UUID(int=5))), "a", "is str here, and UUID"),
    "IntEnum | int": (lambda: one(int | Size)(a=Size.SMALL), "a", "is Size here, and int"),
    "keys: int | str": (lambda: one(dict[int | str, int])(a={1: 1}), "a.1", "is not there"),
    "a look-alike": (lambda: one(Shape | Alike)(a=Alike(name="x")), "a", "is Alike here, and Shape"),
    "not idempotent": (not_idempotent, "a", "another value"),
    "unreadable": (unreadable, "at", "a worker cannot read it: Input should be a valid datetime"),
    "a field too many": (wrapped, "more", "unknown to a worker"),
    "raising": (raising_when_read_again, "", "a worker cannot read it: LookupError is raised"),
}
BY_FUNCTIONS = {"not idempotent", "unreadable", "a field too many", "raising"}


class Alike(Payload):
    name: str = ""


def chain_of(levels: int) -> Node:
    node = Node()
    for _ in range(levels):
        node = Node.model_construct(below=node)
    return node


@pytest.mark.parametrize(("make", "path", "what"), LOST.values(), ids=LOST)
def test_what_would_be_lost_of_a_payload_is_refused_with_its_path_and_without_its_value(
    make: Callable[[], Payload], path: str, what: str
) -> None:
    payload = make()
    queue = Queue("lost", type(payload))
    assert queue.schema_faults == ()
    with pytest.raises(PayloadRefused) as refused:
        checks().job(queue, payload, NONE)
    assert path in dict(refused.value.errors)
    assert what in dict(refused.value.errors)[path]
    assert refused.value.hint
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("make", [make for name, (make, _, _) in LOST.items() if name not in BY_FUNCTIONS])
def test_what_a_schema_leaves_open_is_tried_of_every_payload_and_not_only_of_the_first(
    make: Callable[[], Payload],
) -> None:
    payload = make()
    queue = Queue("lost", type(payload))
    own = checks()
    own._tried.add(queue)
    with pytest.raises(PayloadRefused):
        own.job(queue, payload, NONE)


def test_an_instance_of_a_subclass_is_refused_and_not_cut() -> None:
    queue = Queue("shapes", Shape)
    own = checks()
    own.job(queue, Shape(name="a"), NONE)
    with pytest.raises(PayloadRefused, match="is Circle here, and Shape where a worker reads it"):
        own.job(queue, Circle(name="a"), NONE)


def counted() -> tuple[Queue[Any], list[int]]:
    """A queue, and the numbers that its payload's validator has seen."""
    seen: list[int] = []

    def note(number: int) -> int:
        seen.append(number)
        return number

    return Queue("counted", one(Annotated[int, AfterValidator(note)])), seen


def test_a_producer_tries_the_first_payload_of_each_queue_and_no_other() -> None:
    (queue, seen), (other, others) = counted(), counted()
    own = checks()
    for number in range(3):
        own.job(queue, queue.payload(a=number), NONE)  # type: ignore[call-arg]
    own.jobs(other, [{"a": 7}, {"a": 8}], NONE)
    assert seen == [0, 0, 1, 2]
    assert others == [7, 7, 8]


def test_where_all_are_tried_every_payload_is() -> None:
    queue, seen = counted()
    own = checks(tries_all=True)
    for number in range(3):
        own.job(queue, {"a": number}, NONE)
    assert seen == [0, 0, 1, 1, 2, 2]


def test_a_queue_whose_first_payload_was_refused_is_tried_again() -> None:
    class P(Payload):
        path: Annotated[str, AfterValidator(lambda text: f"{text}/" if text == "a" else text)]

    queue, own = Queue("paths", P), checks()
    with pytest.raises(PayloadRefused):
        own.job(queue, P.model_construct(path="a"), NONE)
    with pytest.raises(PayloadRefused):
        own.job(queue, P.model_construct(path="a"), NONE)
    own.job(queue, P(path="b"), NONE)


# unknown fields


class Loose(BaseModel):
    a: int = 0


class Holder(Payload):
    name: str = ""
    pet: Cat | Dog | None = None
    pets: list[Cat | Dog] = Field(default_factory=list)
    kept: Open | None = None
    loose: Loose | None = None
    paid: Annotated[Card | Cash, Field(discriminator="kind")] | None = None
    text: Json[Dog] | None = None
    line: Shape | dict[str, Any] | None = None


class Outer(Payload):
    kind: Literal["card"] = "card"
    card: Shape
    currency: str = ""


class Wallet(Payload):
    held: Annotated[Outer | Cash, Field(discriminator="kind")]


UNKNOWN: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "beside a model that keeps what it does not know": (
        {"kept": {"a": 1, "more": 2}, "new": 1},
        {"kept": {"a": 1, "more": 2}},
        {"new"},
    ),
    "beside a union": ({"pet": {"id": 1, "breed": "x"}, "new": 1}, {"pet": {"id": 1, "breed": "x"}}, {"new"}),
    "in a member of a union": (
        {"pet": {"id": 1, "breed": "x", "new": 1}},
        {"pet": {"id": 1, "breed": "x"}},
        {"pet.new"},
    ),
    "in the smaller member": ({"pet": {"id": 1, "new": 1}}, {"pet": {"id": 1}}, {"pet.new"}),
    "in several of a list": (
        {"pets": [{"id": 1, "new": 1}, {"id": 2, "breed": "x", "new": 1, "newer": 2}]},
        {"pets": [{"id": 1}, {"id": 2, "breed": "x"}]},
        {"pets.new", "pets.newer"},
    ),
    "in a discriminated union": (
        {"paid": {"kind": "cash", "amount": 1, "new": 1}},
        {"paid": {"kind": "cash", "amount": 1}},
        {"paid.new"},
    ),
    "in JSON within a text": (
        {"text": '{"id":1,"breed":"x","new":1}', "new": 1},
        {"text": '{"id":1,"breed":"x"}'},
        {"text.new", "new"},
    ),
    "beside a model or anything": (
        {"line": {"name": "x", "what": 1}, "new": 1},
        {"line": {"name": "x", "what": 1}},
        {"new"},
    ),
    "beside one that takes no notice": ({"loose": {"a": 1, "b": 2}, "new": 1}, {"loose": {"a": 1}}, {"new"}),
    "of the name of a member of the union": (
        {"pet": {"id": 1, "breed": "x", "Cat": {"new": 1}, "new": 1}},
        {"pet": {"id": 1, "breed": "x"}},
        {"pet.Cat", "pet.new"},
    ),
}


@pytest.mark.parametrize(("written", "meant", "told"), UNKNOWN.values(), ids=UNKNOWN)
def test_exactly_the_unknown_fields_are_left_out(
    written: dict[str, Any], meant: dict[str, Any], told: set[str]
) -> None:
    queue = Queue("holders", Holder)
    read, unknown = queue.parsed(json.dumps(written).encode())
    assert unknown == told
    assert exactly(read) == exactly(queue.parsed(json.dumps(meant).encode())[0])


def test_an_unknown_field_is_told_from_a_known_one_further_inside_where_a_tag_is_named_like_a_field() -> None:
    queue = Queue("wallets", Wallet)
    raw = b'{"held":{"kind":"card","card":{"name":"n"},"currency":"EUR","name":"n"}}'
    read, unknown = queue.parsed(raw)
    assert unknown == {"held.name"}
    assert read == Wallet(held=Outer(card=Shape(name="n"), currency="EUR"))


def test_numbers_beside_an_unknown_field_stay_as_they_are() -> None:
    class P(Payload):
        a: float
        b: int
        c: Decimal

    queue = Queue("numbers", P)
    raw = b'{"a":1e22,"b":123456789012345678901234567890,"c":0.10%s}'
    assert queue.parsed(raw % b',"new":1')[0] == queue.parsed(raw % b"")[0]


@pytest.mark.parametrize(
    "written",
    [
        {"pet": {"id": "x", "new": 1}},
        {"pet": {"breed": "x", "new": 1}, "new": 1},
        {"paid": {"kind": "gold", "new": 1}},
        {"name": 1, "new": 1},
    ],
)
def test_what_is_wrong_otherwise_is_refused_with_and_without_unknown_fields(written: dict[str, Any]) -> None:
    queue = Queue("holders", Holder)
    with pytest.raises(PayloadRefused) as refused:
        queue.parsed(json.dumps(written).encode())
    assert all("Extra inputs" not in message for _, message in refused.value.errors)


def test_a_payload_of_many_unknown_fields_is_read_in_a_few_rounds() -> None:
    queue = Queue("holders", Holder)
    pets = [{"id": number, "breed": "x", "new": number} for number in range(2000)]
    read, unknown = queue.parsed(json.dumps({"pets": pets}).encode())
    assert unknown == {"pets.new"}
    assert read.pets == [Dog(id=number, breed="x") for number in range(2000)]

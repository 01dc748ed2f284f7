"""Producer, JSON text, worker, on generated models: a payload is refused, or arrives unchanged."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    Base64Bytes,
    BaseModel,
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
    create_model,
    model_serializer,
)
from pydantic_core import TzInfo

from chaos.fixtures import is_at_length
from corral import Payload, PayloadRefused, Queue
from unit.payload_shapes import (
    NONE,
    BareCircle,
    BareShape,
    Card,
    Cash,
    Cat,
    Circle,
    Colour,
    Dog,
    Envelope,
    Node,
    Numbers,
    Open,
    Pair,
    Point,
    Point3,
    Shape,
    Size,
    Squared,
    checks,
    exactly,
)


@dataclasses.dataclass
class Kind:
    """A type of a field.

    Attributes:
        type: The annotation.
        values: What a program may put there.
        custom: Whether functions of the model's author write or read it: those are tried, not
        judged.
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
    [
        "1",
        "true",
        "2024-01-01",
        "00000000-0000-0000-0000-000000000005",
        "r",
        "1.5",
        "card",
        "PT1S",
        "null",
        "",
    ]
)
MOMENTS = st.datetimes(timezones=st.sampled_from([None, TzInfo(0), TzInfo(3600)]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ODD = st.sampled_from(
    [
        date(2024, 1, 1),
        uuid.UUID(int=1),
        (1, 2),
        {1},
        Decimal("1.10"),
        Colour.RED,
        {1: 2},
        b"x",
        Cat(id=1),
    ]
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
    Kind(
        SerializeAsAny[Shape],
        st.builds(Shape, name=TEXT) | st.builds(Circle, radius=INTEGERS),
        custom=True,
    ),
    Kind(Circle, st.builds(Circle, name=TEXT, radius=INTEGERS)),
    Kind(
        BareShape,
        st.builds(BareShape, name=TEXT) | st.builds(BareCircle, name=TEXT),
        open=True,
        hashable=False,
    ),
    Kind(Cat, st.builds(Cat, id=INTEGERS)),
    Kind(Dog, st.builds(Dog, id=INTEGERS, breed=TEXT)),
    Kind(Squared, st.builds(Squared, a=st.integers(0, 9)), hashable=False),
    Kind(Numbers, st.lists(INTEGERS, max_size=2).map(Numbers), hashable=False),
    Kind(Open, st.builds(Open, a=INTEGERS, more=JSON | ODD), open=True, hashable=False),
    Kind(
        Annotated[Card | Cash, Field(discriminator="kind")],
        st.builds(Card) | st.builds(Cash, amount=INTEGERS),
    ),
    Kind(Node, st.builds(Node, below=st.none() | st.builds(Node))),
    Kind(
        Point,
        st.builds(Point, INTEGERS, TEXT) | st.builds(Point3, INTEGERS, TEXT),
        open=True,
        hashable=False,
    ),
    Kind(Pair, st.builds(Pair, INTEGERS, TEXT)),
    Kind(Annotated[str, AfterValidator(str.lower)], TEXT, custom=True),
    Kind(Annotated[str, AfterValidator(lambda text: f"tenant/{text}")], TEXT, custom=True),
    Kind(
        Annotated[date, PlainSerializer(lambda day: f"{day:%d.%m.%Y}", return_type=str)],
        st.dates(),
        custom=True,
    ),
    Kind(
        Annotated[int, PlainSerializer(lambda number: number // 2)], st.integers(0, 9), custom=True
    ),
    Kind(Iterable[int], st.lists(st.integers(0, 9), max_size=2), hashable=False),
]


@st.composite
def kinds(draw: Callable[..., Any], depth: int) -> Kind:
    if depth == 0:
        return draw(st.sampled_from(LEAVES))
    shape = draw(
        st.sampled_from(
            [
                "leaf",
                "list",
                "dict",
                "keys",
                "tuple",
                "set",
                "optional",
                "union",
                "json",
                "model",
                "generic",
            ]
        )
    )
    inner: Kind = draw(kinds(depth - 1))
    flags = {"custom": inner.custom, "open": inner.open, "hashable": False}
    match shape:
        case "list":
            return Kind(list[inner.type], st.lists(inner.values, max_size=2), **flags)
        case "dict":
            return Kind(
                dict[str, inner.type],
                st.dictionaries(TEXT, inner.values, max_size=2),
                **flags | {"open": True},
            )
        case "keys":
            key = draw(
                st.sampled_from([kind for kind in LEAVES if kind.hashable and not kind.custom])
            )
            union = draw(st.booleans())
            keys = key.values | TEXT if union else key.values
            values = st.dictionaries(keys, inner.values, max_size=2)
            return Kind(
                dict[key.type | str if union else key.type, inner.type],
                values,
                **flags | {"open": True},
            )
        case "tuple":
            other: Kind = draw(kinds(depth - 1))
            flags = {
                "custom": inner.custom or other.custom,
                "open": inner.open or other.open,
                "hashable": False,
            }
            return Kind(
                tuple[inner.type, other.type], st.tuples(inner.values, other.values), **flags
            )
        case "set" if inner.hashable:
            return Kind(set[inner.type], st.sets(inner.values, max_size=2), **flags)
        case "optional":
            return Kind(inner.type | None, st.none() | inner.values, **flags)
        case "union":
            other = draw(kinds(depth - 1))
            flags = {
                "custom": inner.custom or other.custom,
                "open": inner.open or other.open,
                "hashable": False,
            }
            return Kind(inner.type | other.type, inner.values | other.values, **flags)
        case "json":
            return Kind(
                Json[inner.type], inner.values.map(lambda _: "[1]"), **flags | {"custom": True}
            )
        case "model":
            return draw(models(depth - 1))
        case "generic":
            envelope = Envelope[inner.type]
            return Kind(
                envelope, inner.values.map(lambda item: built(envelope, {"item": item})), **flags
            )
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
        given[
            first
            if isinstance(first, str) and not model.model_config.get("validate_by_name")
            else name
        ] = value
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
        match draw(
            st.sampled_from(
                ["", "", "", "", "alias", "read", "choices", "written", "excluded", "left out"]
            )
        ):
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
    return Kind(
        model, st.builds(make, values, st.sampled_from([0, 0, 1])), custom, is_open, hashable=False
    )


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
    """Add a field to each model's object in turn: it alone is left out, and is reported."""
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


@pytest.mark.filterwarnings(
    "ignore::pydantic.json_schema.PydanticJsonSchemaWarning"
)  # of defaults that are no JSON
def test_a_generated_payload_is_refused_or_arrives_exactly_also_with_an_unknown_field() -> None:
    counts = dict.fromkeys(
        ("payloads", "refused models", "refused payloads", "arrived", "unknown fields"), 0
    )

    @settings(
        max_examples=1500 if is_at_length() else 150,
        phases=[Phase.generate],  # to shrink an example takes minutes; each says what it was
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
        # what functions do is tried with the first payload of a process: each of these stands for a
        # process
        own = checks(proves_all=kind.custom)
        counts["refused models"] += bool(queue.schema_faults)
        for _ in range(3):
            payload = data.draw(kind.values)
            if payload is None:
                continue
            counts["payloads"] += 1
            try:
                raw = own.check_job(queue, payload, NONE).data
            except PayloadRefused:
                counts["refused payloads"] += 1
                continue
            read, unknown = queue.parsed(raw)
            assert unknown == frozenset()
            assert exactly(read) == exactly(payload), raw
            counts["arrived"] += 1
            if (
                not kind.open and not kind.custom
            ):  # else another member of a union may be meant, or a function decides
                counts["unknown fields"] += check_unknown_fields(queue, payload, raw)

    refused_or_exact()
    print(", ".join(f"{number} {name}" for name, number in counts.items()))
    assert counts["arrived"] > counts["payloads"] / 10
    assert counts["unknown fields"] > counts["payloads"] / 20

"""A payload is refused, or a worker reads exactly what was given: which shapes do, and which do not."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import pytest
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
    create_model,
    field_serializer,
    model_serializer,
    model_validator,
)

from corral import Payload, PayloadRefused, Queue
from corral.round_trip import first_difference
from unit.payload_shapes import (
    NAIVE,
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
    Hidden,
    Node,
    Numbers,
    Open,
    Pair,
    Point,
    Point3,
    Rights,
    Shape,
    Size,
    Squared,
    Typed,
    checks,
    deep,
    fields,
    one,
)

# shapes that arrive exactly


def an_alias() -> Any:
    class P(Payload):
        user_id: str = Field(alias="user-id")

    return P(user_id="x")


def a_renamed_field() -> Any:
    class P(Payload):
        user_id: str = Field(
            validation_alias=AliasChoices("userId", "uid", AliasPath("user", "id"))
        )

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
        return (
            Circle.model_validate(value) if isinstance(value, dict) and "radius" in value else value
        )

    return one(Annotated[SerializeAsAny[Shape], BeforeValidator(which)])(
        a=Circle(name="c", radius=1)
    )


def a_format_of_ones_own() -> Any:
    day = PlainSerializer(lambda value: value.strftime("%d.%m.%Y"), return_type=str)
    read = BeforeValidator(
        lambda v: date(*map(int, v.split(".")[::-1])) if isinstance(v, str) else v
    )
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
                serialization=core_schema.plain_serializer_function_ser_schema(
                    lambda money: money.cents
                ),
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
    "datetime of a zone": lambda: one(datetime)(
        a=datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    ),
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
    "extra allowed": lambda: Open(a=1, more={"b": [1]}),
    "extra allowed in a field": lambda: one(Open)(a=Open(more=[1])),
    "root model": lambda: one(Numbers)(a=Numbers([1, 2])),
    "discriminated union": lambda: one(Annotated[Card | Cash, Field(discriminator="kind")])(
        a=Cash(amount=3)
    ),
    "default factory": create_model(
        "P", __base__=Payload, id=(uuid.UUID, Field(default_factory=uuid.uuid4))
    ),
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
    "None where there is a default": lambda: create_model(
        "P", __base__=Payload, a=(str | None, "set")
    )(a=None),
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
    both = checks(), checks(proves_all=True)
    for each in (both[0], both[0], both[1]):
        read, unknown = queue.parsed(each.check_job(queue, payload, NONE).data)
        assert unknown == frozenset()
        assert type(read) is type(payload)
        assert first_difference(payload, read) is None


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
    "two fields of one name": (
        lambda: fields(a_b=(int, 0), aB=(int, 0)),
        "aB",
        "the name of two fields",
    ),
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
        lambda: one(
            create_model(
                "M", __base__=BaseModel, first=(str, Field(validation_alias=AliasPath("names", 0)))
            )
        ),
        "a.first",
        "read from a part of 'names'",
    ),
    "another field's name first": (
        lambda: fields(
            old=(str, ""),
            new_name=(str, Field("", validation_alias=AliasChoices("old", "newName"))),
        ),
        "newName",
        "read from a name under which the field 'old' is written",
    ),
    "excluded, and read from another": (
        lambda: fields(a=(int, 0), b=(int, Field(0, alias="a", exclude=True))),
        "a",
        "read from a name under which the field 'a' is written",
    ),
    "excluded and required": (
        lambda: fields(a_b=(str, Field(exclude=True))),
        "a_b",
        "is required, and excluded",
    ),
    "needed and never written": (lambda: one(WithInit), "a.y", "is required, and excluded"),
    "keys: tuple": (lambda: one(dict[tuple[int, int], str]), "a", "keys of the type tuple"),
    "keys: model or text": (lambda: one(dict[Cat | str, str]), "a", "keys of the type model"),
    "keys: secret": (lambda: one(dict[SecretStr, int]), "a", "keys that are secret"),
    "Secret[date]": (lambda: one(Secret[date]), "a", "written as a mask"),
    "Secret[date], optional, in a list": (
        lambda: one(list[Secret[date] | None]),
        "a",
        "written as a mask",
    ),
    "Iterable": (lambda: one(Iterable[int]), "a", "is an iterator"),
    "bytes in two ways": (lambda: one(Mixed), "a.raw", "written in one way and read in another"),
    "deep inside": (lambda: one(dict[str, list[Misspelt | None]]), "a.user_id", "read from 'uid'"),
    "in a root model": (lambda: one(RootModel[list[Misspelt]]), "a.user_id", "read from 'uid'"),
    "in a generic": (lambda: one(Envelope[Misspelt]), "a.item.user_id", "read from 'uid'"),
}


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
    "subclass in a field": (
        lambda: one(Shape)(a=Circle()),
        "a",
        "is Circle here, and Shape where a worker reads it",
    ),
    "subclass in a list": (
        lambda: one(list[BareShape])(a=[BareCircle(name="c")]),
        "a.0",
        "is BareCircle here",
    ),
    "subclass in a dict": (
        lambda: one(dict[str, Shape])(a={"x": Circle()}),
        "a.x",
        "is Circle here",
    ),
    "subclass in a tuple": (
        lambda: one(tuple[int, Shape])(a=(1, Circle())),
        "a.1",
        "is Circle here",
    ),
    "subclass in a model": (
        lambda: one(Envelope[Shape])(a=Envelope[Shape](item=Circle())),
        "a.item",
        "is Circle",
    ),
    "subclass in a root model": (lambda: one(RootModel[Shape])(a=Circle()), "a", "is Circle here"),
    "subclass of a dataclass": (lambda: one(Point)(a=Point3(1)), "a", "is Point3 here, and Point"),
    "subclass that is duck-typed": (
        lambda: one(SerializeAsAny[Shape])(a=Circle()),
        "a.radius",
        "unknown to a worker",
    ),
    "generic without its type": (
        lambda: Envelope(item=Dog(id=1, breed="x")),
        "item",
        "is Dog here, and dict",
    ),
    "excluded, and not its default": (
        lambda: fields(b=(str, Field("", exclude=True)))(b="y"),
        "b",
        "another value",
    ),
    "private": (hidden, "_seen", "another value"),
    "Any: datetime": (
        lambda: one(Any)(a=datetime(2024, 1, 2, tzinfo=UTC)),
        "a",
        "is datetime here, and str",
    ),
    "Any: deep inside": (
        lambda: one(dict[str, Any])(a={"x": [{"y": (1,)}]}),
        "a.x.0.y",
        "is tuple here, and list",
    ),
    "Any: keys": (lambda: one(Any)(a={1: 2}), "a.1", "is not there"),
    "Any: NaN": (lambda: one(Any)(a=[float("nan")]), "a.0", "is float here, and NoneType"),
    "Any: too deep": (lambda: one(Any)(a=deep(230)), "", "a worker cannot read it"),
    "extra": (lambda: Open(more={1, 2}), "more", "is set here, and list"),
    "models, too deep": (lambda: chain_of(230), "", "a worker cannot read it"),
    "NaN in a model of its own": (
        lambda: one(create_model("M", x=(float, 0.0)))(a={"x": float("inf")}),
        "a.x",
        "cannot",
    ),
    "text that is a UUID": (
        lambda: one(uuid.UUID | str)(a=str(uuid.UUID(int=5))),
        "a",
        "is str here, and UUID",
    ),
    "IntEnum | int": (lambda: one(int | Size)(a=Size.SMALL), "a", "is Size here, and int"),
    "keys: int | str": (lambda: one(dict[int | str, int])(a={1: 1}), "a.1", "is not there"),
    "a look-alike": (
        lambda: one(Shape | Alike)(a=Alike(name="x")),
        "a",
        "is Alike here, and Shape",
    ),
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
        checks().check_job(queue, payload, NONE)
    assert path in dict(refused.value.errors)
    assert what in dict(refused.value.errors)[path]
    assert refused.value.hint
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "make", [make for name, (make, _, _) in LOST.items() if name not in BY_FUNCTIONS]
)
def test_what_a_schema_leaves_open_is_tried_of_every_payload_and_not_only_of_the_first(
    make: Callable[[], Payload],
) -> None:
    payload = make()
    queue = Queue("lost", type(payload))
    own = checks()
    own._proved.add(queue)
    with pytest.raises(PayloadRefused):
        own.check_job(queue, payload, NONE)


def test_an_instance_of_a_subclass_is_refused_and_not_cut() -> None:
    queue = Queue("shapes", Shape)
    own = checks()
    own.check_job(queue, Shape(name="a"), NONE)
    with pytest.raises(PayloadRefused, match="is Circle here, and Shape where a worker reads it"):
        own.check_job(queue, Circle(name="a"), NONE)


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
        own.check_job(queue, queue.payload(a=number), NONE)
    own.check_jobs(other, [{"a": 7}, {"a": 8}], NONE)
    assert seen == [0, 0, 1, 2]
    assert others == [7, 7, 8]


def test_where_all_are_tried_every_payload_is() -> None:
    queue, seen = counted()
    own = checks(proves_all=True)
    for number in range(3):
        own.check_job(queue, {"a": number}, NONE)
    assert seen == [0, 0, 1, 1, 2, 2]


def test_a_queue_whose_first_payload_was_refused_is_tried_again() -> None:
    class P(Payload):
        path: Annotated[str, AfterValidator(lambda text: f"{text}/" if text == "a" else text)]

    queue, own = Queue("paths", P), checks()
    with pytest.raises(PayloadRefused):
        own.check_job(queue, P.model_construct(path="a"), NONE)
    with pytest.raises(PayloadRefused):
        own.check_job(queue, P.model_construct(path="a"), NONE)
    own.check_job(queue, P(path="b"), NONE)

"""Payload models with fields of every kind as the source of a plugin, and payloads as clients store them.

Everything is made from a number, so that the board of another process has the same models.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from board.asking import Form

__all__ = [
    "JOB",
    "MODULE",
    "GeneratedQueue",
    "Member",
    "changed_value",
    "generated_queues",
    "install_queues",
    "is_same_text",
    "put_job",
    "type_value",
]

MODULE = "board_test_generated"
JOB = "edited"
"""The id of the job in each of the queues."""
HEAD = '''
"""Queues with generated payload models."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, Json, JsonValue, SecretStr

from corral import Payload, Processor, Queue, hookimpl


class Size(StrEnum):
    SMALL = "klein"
    LARGE = "größer"
    NULL = "null"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Street(BaseModel):
    street: str
    number: int | None = None
    rate: float = 1.0


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    street: str | None = None
    door_code: SecretStr | None = None


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]
    amount: Decimal

'''
TAIL = """

@hookimpl
def corral_queues() -> list[Queue]:
    return queues


async def ignore(job) -> None:
    pass


@hookimpl
def corral_processors() -> list[Processor]:
    return [queue.processed_by(ignore) for queue in queues]
"""
TEXTS = (
    '"ada"',
    '""',
    '"null"',
    '"true"',
    '"12"',
    r'"\"quoted\" & <b>\\</b> &amp; \u00e9é😀\ud83d\ude00"',
    '" padded "',
    r'"\t"',
    r'"a\tb"',
    r'"two\nlines"',
    r'"\nfirst"',
    r'"\n\n"',
    r'"a\r\nb\r\n"',
    r'"\r\n\r\na"',
    r'"a\rb"',
    r'"mixed\r\na\nb\rc"',
    r'"half \ud800 of a pair"',
    r'"\u0000\u000b\u001f\u007f\u0085"',
    r'"\u2028 and \u2029"',
    r'"\ufeff\ufffd"',
    '"we know hunter22 here"',
    '"https://ada:hunter23@example.org/x?password=hunter24"',
    '"' + "long " * 300 + '"',
)
NUMBERS = (
    "0",
    "-0",
    "1",
    "1.0",
    "1.50",
    "-0.0",
    "1e21",
    "1E+2",
    "0.1000000000000000055511151231257827",
    "9007199254740993",
    "-123456789012345678901234567890",
)
ANYTHING = (
    "null",
    "true",
    "[]",
    "{}",
    '[1, 1.0, 1e2, true, null, "a\\r\\nb"]',
    '{"b": {"a": [ ]}, "a" : 1e21, "password": "hunter25", "a.b": "\\u00e9"}',
)
MOMENTS = (
    '"2024-01-01T00:00:00Z"',
    '"2024-01-01T00:00:00.000000+00:00"',
    '"2024-01-01 00:00:00+01:00"',
    "1704067200",
    "1704067200.5",
)


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Attributes:
        type: The annotation, as source text.
        default: A default, as source text; empty if the field is always required.
        values: JSON texts that a client may have stored.
    """

    type: str
    default: str
    values: tuple[str, ...]


KINDS = (
    Kind("str", '"by default"', TEXTS),
    Kind("str | None", "None", ("null", *TEXTS)),
    Kind("Annotated[str, Field(max_length=9000)]", '""', TEXTS),
    Kind('Annotated[str, Field(pattern="^[a-z]+$")]', '"abc"', ('"abc"', '"xyz"')),
    Kind("Annotated[str, Field(min_length=2, max_length=9)] | None", "None", ('"ada"', "null")),
    Kind("int", "5", ("0", "-0", "1", "12", '"12"')),
    Kind("int | None", "None", ("null", "7", "1.0")),
    Kind("float", "0.5", NUMBERS),
    Kind("float | None", "None", ("null", *NUMBERS)),
    Kind("Decimal", 'Decimal("1.10")', ('"1.10"', "1.10", "1", '"1E+3"', '"-0.00"')),
    Kind("Decimal | None", "None", ("null", '"0.10"', "2.50")),
    Kind("bool", "False", ("true", "false", '"yes"', "1")),
    Kind("bool | None", "None", ("null", "true", "false")),
    Kind("datetime", "datetime(2024, 1, 1)", MOMENTS),
    Kind("datetime | None", "None", ("null", *MOMENTS)),
    Kind("date | str", '"soon"', ('"2024-01-01"', '"soon"', '""')),
    Kind("timedelta", "timedelta(1)", ('"PT1S"', '"P1DT2H"', "90", "1.5", '"00:01:00"')),
    Kind("UUID | None", "None", ("null", '"00000000-0000-0000-0000-00000000000A"')),
    Kind("Size", "Size.SMALL", ('"klein"', r'"gr\u00f6\u00dfer"', '"größer"', '"null"')),
    Kind("Size | None", "None", ("null", '"null"', '"klein"')),
    Kind("Level", "Level.LOW", ("1", "2")),
    Kind('Literal["a", "", "null", "1", 1, 2]', '"a"', ('"a"', '""', '"null"', '"1"', "1", "2")),
    Kind('Literal["a", None]', "None", ('"a"', "null")),
    Kind('Literal["only"]', '"only"', ('"only"',)),
    Kind("list[str]", "[]", ("[]", r'["a", "b\r\nc",""]', '[ "hunter22" ]')),
    Kind("list[str] | None", "None", ("null", "[]", '["null"]')),
    Kind("tuple[int, ...]", "()", ("[]", "[1,2 ,3]")),
    Kind("set[int]", "set()", ("[3,1]", "[]")),
    Kind("dict[str, str]", "{}", ("{}", r'{"b": "1", "a": "\u00e9"}', '{"apiKey": "hunter22"}')),
    Kind("dict[str, Any]", "{}", ("{}", ANYTHING[-1])),
    Kind("Any", "None", (*ANYTHING, *TEXTS, *NUMBERS)),
    Kind("JsonValue", "None", (*ANYTHING, *TEXTS[:9])),
    Kind("Street", "", ('{"street": "x"}', '{"street":"","number":null,"rate":1e0,"new":[1.0]}')),
    Kind("Closed | None", "None", ("null", "{}", '{"street": "a\\r\\n", "door_code": "hunter22"}')),
    Kind("list[Street]", "[]", ("[]", '[{"street": "x"}, {"rate": -0.0, "street": "y"}]')),
    Kind(
        'Annotated[Card | Cash, Field(discriminator="kind")]',
        "",
        ('{"kind": "card", "number": "1"}', '{"kind": "cash", "amount": "1.10"}'),
    ),
    Kind("int | str", "0", ("1", '"1"', '""', '"a\\rb"')),
    Kind("int | bool | None", "None", ("1", "true", "null")),
    Kind("SecretStr", 'SecretStr("")', ('"hunter22"', '""', '"-----BEGIN-----\\nhunter26\\n"')),
    Kind("SecretStr | None", "None", ("null", '"hunter23"')),
    Kind("list[SecretStr]", "[]", ("[]", '["hunter22", "hunter24"]')),
    Kind("dict[str, SecretStr]", "{}", ("{}", '{"a": "hunter22"}')),
    Kind("bytes", 'b""', ('"abc"', '""')),
    Kind("Json[list[int]]", "", ('"[1, 2]"', '" [] "')),
)
NAMES = (
    "first_name",
    "address_1",
    "a_b_c",
    "name",
    "userId",
    "x",
    "api_key",
    "to",
    "class_",
    "größe",
    "url",
)
CONFIGS = (
    "",
    "",
    "",
    'extra="allow"',
    'extra="ignore"',
    "str_strip_whitespace=True",
    "strict=True",
)
UNKNOWN = ("newer", "a b", "ünknown", "__proto__", "data.x", "")
STYLES = (
    ("{", ":", ",", "}"),
    ("{", ": ", ", ", "}"),
    ("{\n  ", ": ", ",\n  ", "\n}\n"),
    (" { ", " :", " , ", " } "),
)


@dataclass(frozen=True)
class Member:
    """A member of a stored payload.

    Attributes:
        name: Its name, as JSON text.
        value: Its value, as JSON text.
        field: The name of the model's field in the form; empty if it belongs to none.
    """

    name: str
    value: str
    field: str = ""


@dataclass(frozen=True)
class GeneratedQueue:
    """A queue with a generated model, and a payload that is stored in it.

    Attributes:
        name: The queue's name.
        source: The model and the queue, as source text.
        kinds: The kinds of the model's fields, by their names in the form.
        members: The stored payload's members, in order.
        style: What stands before them, after their names, between and after them.
    """

    name: str
    source: str
    kinds: dict[str, Kind]
    members: tuple[Member, ...]
    style: tuple[str, str, str, str]

    @property
    def stored(self) -> str:
        """The text of the stored payload."""
        return self.text(self.members)

    def text(self, members: Sequence[Member]) -> str:
        """The text of a payload with these members, in this queue's style."""
        before, colon, between, after = self.style
        parts = [f"{member.name}{colon}{member.value}" for member in members]
        return f"{before}{between.join(parts)}{after}"


def generated_queues(count: int) -> list[GeneratedQueue]:
    """Make queues; the same number makes the same ones."""
    return [_generated(number) for number in range(count)]


def _generated(number: int) -> GeneratedQueue:
    chance = random.Random(number)
    fields: list[str] = []
    kinds: dict[str, Kind] = {}
    members: list[Member] = []
    chosen = [KINDS[number % len(KINDS)], *chance.choices(KINDS, k=chance.randint(1, 7))]
    for name, kind in zip(chance.sample(NAMES, len(chosen)), chosen, strict=True):
        shown, stored, options = _spelt(name, chance)
        if kind.default and chance.random() < 0.6:
            options = [f"default={kind.default}", *options]
        declared = f" = Field({', '.join(options)})" if options else ""
        fields.append(f"    {name}: {kind.type}{declared}")
        kinds[shown] = kind
        values = kind.values if chance.random() < 0.95 else chance.choice(KINDS).values
        if chance.random() < 0.85:
            members.append(Member(_name(stored, chance), chance.choice(values), shown))
    if chance.random() < 0.4:
        unknown = chance.sample(UNKNOWN, chance.randint(1, 2))
        members += [Member(_name(each, chance), chance.choice(ANYTHING)) for each in unknown]
    chance.shuffle(members)
    config = chance.choice(CONFIGS)
    source = "\n".join(
        [
            f"class Model{number}(Payload):",
            *([f"    model_config = ConfigDict({config})", ""] if config else []),
            *fields,
        ]
    )
    return GeneratedQueue(
        f"generated-{number}", source, kinds, tuple(members), chance.choice(STYLES)
    )


def _spelt(name: str, chance: random.Random) -> tuple[str, str, list[str]]:
    """The name of a field in the form, the name that it is stored under, and its options."""
    camel = to_camel(name)
    match chance.randrange(10):
        case 0:
            return f"{name}-Ä 1", f"{name}-Ä 1", [f'alias="{name}-Ä 1"']
        case 1:
            one, two = f"{name}One", f"{name}Two"
            choices = f'validation_alias=AliasChoices("{one}", "{two}")'
            return one, chance.choice((one, two)), [choices, f'serialization_alias="{two}"']
        case 2:
            return camel, name, []
        case _:
            return camel, camel, []


def _name(name: str, chance: random.Random) -> str:
    return json.dumps(name, ensure_ascii=chance.random() < 0.5)


def install_queues(folder: Path, queues: Sequence[GeneratedQueue]) -> Path:
    """Install a plugin with these queues into a folder, which must then be put on the path."""
    lines = [
        f"{queue.source}\n\n\nqueue_{number} = Queue({queue.name!r}, Model{number})\n\n"
        for number, queue in enumerate(queues)
    ]
    names = ", ".join(f"queue_{number}" for number in range(len(queues)))
    source = "\n".join([HEAD, *lines, f"queues = [{names}]", TAIL])
    (folder / f"{MODULE}.py").write_text(source, "utf-8")
    metadata = folder / f"{MODULE}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: board-test-generated\nVersion: 1.0\n"
    )
    points = "".join(f"{queue.name} = {MODULE}\n" for queue in queues)
    (metadata / "entry_points.txt").write_text(f"[corral.queues]\n{points}")
    sys.modules.pop(MODULE, None)
    return folder


def put_job(queue: GeneratedQueue) -> list[tuple[str, ...]]:
    """The commands that store a queue's job, as it has failed."""
    fields = {"name": queue.name, "data": queue.stored, "opts": "{}", "timestamp": "1", "atm": "1"}
    fields |= {"failedReason": "x", "processedOn": "1", "finishedOn": "2"}
    flat = [text for pair in fields.items() for text in pair]
    base = f"bull:{queue.name}"
    return [("HSET", f"{base}:{JOB}", *flat), ("ZADD", f"{base}:failed", "2", JOB)]


def type_value(form: Form, name: str, value: Any) -> bool:
    """Type a value into a field; whether the field takes it as it is."""
    control = form.controls[f"data.{name}"]
    choices = [each.get("value") for each in control.iter("option")]
    if control.tag == "select":
        text = json.dumps(value, ensure_ascii=False)
        form.fields[f"data.{name}"] = text
        return text in choices
    if "as JSON" in form.hints[f"data.{name}"] or control.get("inputmode"):
        form.fields[f"data.{name}"] = json.dumps(value, ensure_ascii=False)
        return not _is_half(value)
    if value is None or value == "":
        meaning = "null" if value is None else "empty"
        form.fields |= {f"data.{name}": "", f"empty.{name}": meaning}
        return meaning in [
            each.get("value") for each in form.controls[f"empty.{name}"].iter("option")
        ]
    if not isinstance(value, str) or _is_half(value):
        return False
    form.fields[f"data.{name}"] = value
    return not set(value) & ({"\r", "\0"} if control.tag == "textarea" else {"\r", "\0", "\n"})


def _is_half(value: Any) -> bool:
    """Whether a value has half of a surrogate pair, which no form can send."""
    return any("\ud800" <= each <= "\udfff" for each in json.dumps(value, ensure_ascii=False))


def changed_value(queue: GeneratedQueue, was: Member | None, after: str) -> Any:
    """The value of the only part of a payload's text that may differ."""
    members: Sequence[Member] = queue.members
    if was is None:
        inside = queue.text(members)[: -len(queue.style[3])]
        assert after.startswith(inside)
        assert after.endswith(queue.style[3])
        added = after[len(inside) : -len(queue.style[3])]
        return next(iter(json.loads("{" + added.removeprefix(",") + "}").values()))
    at = queue.members.index(was)
    head = queue.text([*members[:at], Member(was.name, "")])[: -len(queue.style[3])]
    tail = queue.stored[len(head) + len(was.value) :]
    assert after.startswith(head), (head, after)
    assert after.endswith(tail), (tail, after)
    return json.loads(after[len(head) : -len(tail)])


def is_same_text(value: Any, other: Any) -> bool:
    """Whether two values are the same, apart from the line breaks and characters of no page."""
    one, two = (
        re.sub(r"\\u0000|\\ud800", "\ufffd", json.dumps(each, sort_keys=True)).replace(
            r"\r\n", r"\n"
        )
        for each in (value, other)
    )
    return one.replace(r"\r", r"\n") == two.replace(r"\r", r"\n")

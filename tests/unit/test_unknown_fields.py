"""A worker leaves out exactly the fields that it does not know, and no other changes by that."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    BaseModel,
    Field,
    Json,
)

from corral import Payload, PayloadRefused, Queue
from unit.payload_shapes import (
    Card,
    Cash,
    Cat,
    Dog,
    Open,
    Shape,
    exactly,
)


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
    "beside a union": (
        {"pet": {"id": 1, "breed": "x"}, "new": 1},
        {"pet": {"id": 1, "breed": "x"}},
        {"new"},
    ),
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
    "beside one that takes no notice": (
        {"loose": {"a": 1, "b": 2}, "new": 1},
        {"loose": {"a": 1}},
        {"new"},
    ),
    "of the name of a member of the union": (
        {"pet": {"id": 1, "breed": "x", "Cat": {"new": 1}, "new": 1}},
        {"pet": {"id": 1, "breed": "x"}},
        {"pet.Cat", "pet.new"},
    ),
}


@pytest.mark.parametrize(("written", "meant", "names"), UNKNOWN.values(), ids=UNKNOWN)
def test_exactly_the_unknown_fields_are_left_out(
    written: dict[str, Any], meant: dict[str, Any], names: set[str]
) -> None:
    queue = Queue("holders", Holder)
    read, unknown = queue.parsed(json.dumps(written).encode())
    assert unknown == names
    assert exactly(read) == exactly(queue.parsed(json.dumps(meant).encode())[0])


def test_an_unknown_field_is_not_taken_for_a_known_one_inside_where_a_tag_is_named_like_a_field() -> (
    None
):
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
def test_what_is_wrong_otherwise_is_refused_with_and_without_unknown_fields(
    written: dict[str, Any],
) -> None:
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

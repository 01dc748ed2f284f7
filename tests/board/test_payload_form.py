"""A form is made from a payload's model, and shows each error at its field."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field as Declared
from pydantic import SecretStr

from corral import Payload, PayloadRefused, Queue
from corral.board.job_view import MASK
from corral.board.payload_form import (
    FormField,
    build_form,
    filled,
    parse_form,
    unmasked,
    with_errors,
)


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Inner(Payload):
    street: str


class Parcel(Payload):
    to: Annotated[str, Declared(min_length=3, max_length=50, description="who gets it")]
    grams: Annotated[int, Declared(ge=1, le=30_000)]
    price: float | None = None
    size: Size = Size.SMALL
    speed: Literal["slow", "fast"] = "slow"
    fragile: bool = False
    address: Inner
    notes: Annotated[str, Declared(max_length=5000)] = ""
    tags: tuple[str, ...] = ()
    due: datetime | None = None
    door_code: SecretStr | None = None


parcels = Queue("parcels", Parcel)


def by_name(fields: tuple[FormField, ...]) -> dict[str, FormField]:
    return {field.name: field for field in fields}


def form(**values: str) -> dict[str, list[str]]:
    return {f"data.{name}": [value] for name, value in values.items()}


def test_every_type_has_its_kind_of_field() -> None:
    fields = by_name(build_form(parcels))
    assert {name: field.kind for name, field in fields.items()} == {
        "to": "text",
        "grams": "number",
        "price": "number",
        "size": "choice",
        "speed": "choice",
        "fragile": "choice",
        "address": "json",
        "notes": "long",
        "tags": "json",
        "due": "text",
        "doorCode": "text",
    }
    assert [name for name, field in fields.items() if field.required] == ["to", "grams", "address"]
    assert fields["size"].choices == ('"small"', '"large"')
    assert fields["fragile"].choices == ("true", "false")
    assert [name for name, field in fields.items() if field.secret] == ["doorCode"]
    assert fields["to"].hint == "who gets it; text at least 3 characters at most 50 characters"
    assert fields["grams"].hint == "integer from 1 to 30000"


def test_what_was_typed_is_a_payload_and_what_is_empty_is_left_out() -> None:
    typed = form(
        to="Ada",
        grams="12",
        size='"large"',
        fragile="true",
        address='{"street": "x"}',
        notes="a\r\nb",
    )
    data, _ = parse_form(build_form(parcels), typed)
    assert data == {
        "to": "Ada",
        "grams": 12,
        "size": "large",
        "fragile": True,
        "address": {"street": "x"},
        "notes": "a\nb",
    }
    assert parcels.validated(data).grams == 12


@pytest.mark.parametrize(
    ("typed", "wrong", "says"),
    [
        ({"to": "Al"}, "to", "at least 3 characters"),
        ({"grams": "twelve"}, "grams", "this is not a number"),
        ({"grams": "0"}, "grams", "greater than or equal to 1"),
        ({"address": "{"}, "address", "this is not JSON"),
        ({"address": "{}"}, "address", "street: Field required"),
        ({"due": "tomorrow"}, "due", "datetime"),
        ({"to": ""}, "to", "Field required"),
    ],
)
def test_an_error_stands_at_its_field_and_what_was_typed_is_still_there(
    typed: dict[str, str], wrong: str, says: str
) -> None:
    right = {"to": "Ada", "grams": "12", "address": '{"street": "x"}'}
    data, fields = parse_form(build_form(parcels), form(**(right | typed)))
    with pytest.raises(PayloadRefused) as refused:
        parcels.validated(data)
    judged, elsewhere = with_errors(fields, refused.value)
    assert elsewhere == ()
    assert {field.name for field in judged if field.error} == {wrong}
    assert says in by_name(judged)[wrong].error
    assert by_name(judged)[wrong].value == (right | typed)[wrong]


def test_a_secret_is_neither_shown_nor_sent_back() -> None:
    fields = filled(build_form(parcels), {"to": "Ada", "doorCode": "1234"})
    assert by_name(fields)["doorCode"].value == ""
    _, typed = parse_form(fields, form(to="Ada", doorCode="9876"))
    assert by_name(typed)["doorCode"].value == ""


@pytest.mark.parametrize(
    ("new", "old", "is_now"),
    [
        (MASK, "s", "s"),
        ({"a": MASK, "b": 2}, {"a": 1, "b": 1}, {"a": 1, "b": 2}),
        ([MASK, "new"], ["s", "t"], ["s", "new"]),
        ({"a": [{"b": MASK}]}, {"a": [{"b": "deep"}]}, {"a": [{"b": "deep"}]}),
        ({"a": MASK}, "no object", {"a": None}),
    ],
)
def test_what_is_masked_in_an_edited_payload_is_what_was_stored(
    new: Any, old: Any, is_now: Any
) -> None:
    assert unmasked(new, old) == is_now

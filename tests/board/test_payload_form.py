"""A form is made from a payload's model, and shows each error at its field."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field as Declared
from pydantic import SecretStr

from corral import Payload, PayloadRefused, Queue
from corral.board.job_view import MASK, MAX_SHOWN
from corral.board.payload_form import (
    CUT,
    MASKED,
    FormField,
    TypedPayload,
    build_form,
    filled,
    parse_form,
    with_errors,
)
from corral.redactor import Redactor


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


def edit(queue: Queue[Any], data: dict[str, Any], **typed: str) -> TypedPayload:
    """Show a payload in a form, change some of its fields, and read them back."""
    shown = Redactor(data=data).value(data)
    fields = filled(build_form(queue), data, shown)
    sent = {f"data.{field.name}": [field.value] for field in fields}
    sent |= {f"empty.{field.name}": [field.empty] for field in fields}
    sent |= {f"shown.{field.name}": [field.mark] for field in fields}
    sent |= {(name if "." in name else f"data.{name}"): [text] for name, text in typed.items()}
    return parse_form(fields, sent, data, shown)


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
    assert fields["notes"].meanings == ("absent", "empty")
    assert fields["due"].meanings == ("absent", "null", "empty")


def test_what_was_typed_is_a_payload_and_what_is_empty_is_left_out() -> None:
    typed = form(
        to="Ada",
        grams="12",
        size='"large"',
        fragile="true",
        address='{"street": "x"}',
        notes="a\r\nb",
    )
    data = parse_form(build_form(parcels), typed, {}, {}).payload
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
    made = parse_form(build_form(parcels), form(**(right | typed)), {}, {})
    with pytest.raises(PayloadRefused) as refused:
        parcels.validated(made.payload)
    judged, elsewhere = with_errors(made.fields, refused.value)
    assert elsewhere == ()
    assert {field.name for field in judged if field.error} == {wrong}
    assert says in by_name(judged)[wrong].error
    assert by_name(judged)[wrong].value == (right | typed)[wrong]


def test_a_text_that_is_no_number_is_an_error_also_where_null_would_be_valid() -> None:
    right = {"to": "Ada", "grams": "12", "address": '{"street": "x"}'}
    made = parse_form(build_form(parcels), form(**right, price="cheap"), {}, {})
    assert made.has_errors
    assert by_name(made.fields)["price"].error == "this is not a number"
    assert "price" not in made.payload


def test_a_secret_is_neither_shown_nor_sent_back() -> None:
    data = {"to": "Ada", "doorCode": "1234"}
    fields = filled(build_form(parcels), data, {"to": "Ada", "doorCode": MASK})
    assert by_name(fields)["doorCode"].value == ""
    made = edit(parcels, data, doorCode="9876")
    assert made.payload == {"to": "Ada", "doorCode": "9876"}
    assert by_name(made.fields)["doorCode"].value == ""
    assert edit(parcels, data, to="Grace").payload == {"to": "Grace", "doorCode": "1234"}
    assert edit(parcels, data, **{"empty.doorCode": "absent"}).payload == {"to": "Ada"}
    assert edit(parcels, data, **{"empty.doorCode": "null"}).payload["doorCode"] is None


class Odd(Payload):
    text: str | None = None
    api_key: str = ""
    link: str = ""
    remark: str = ""
    word: Literal["a", "null", "", "größe"] | None = None
    rows: tuple[dict[str, Any], ...] = ()
    anything: Any = None


odds = Queue("odds", Odd)
STORED = [
    None,
    "",
    "null",
    '""',
    " padded ",
    "\n\nfirst",
    "two\nlines",
    "a\r\nb\rc",
    "a\tb",
    "\x00\x0b",
    "half of a pair \ud800",
    "\u2028",
    "x" * (MAX_SHOWN + 1),
    5,
    1.0,
    True,
    [],
    {"a": 1},
]


@pytest.mark.parametrize("name", ["text", "apiKey", "link", "word", "rows", "anything", "newer"])
@pytest.mark.parametrize("value", STORED, ids=lambda value: repr(value)[:20])
def test_what_was_not_changed_is_what_was_stored(name: str, value: Any) -> None:
    data = {"remark": "x", name: value}
    made = edit(odds, data)
    assert made.payload == data
    assert made.payload[name] is value
    assert not made.is_changed
    other = edit(odds, data, remark="new")
    assert other.payload == data | {"remark": "new"}
    assert other.payload[name] is value
    assert other.is_changed


@pytest.mark.parametrize("value", STORED, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("other", STORED, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["text", "word", "anything"])
def test_two_values_that_a_page_can_hold_never_look_the_same(
    name: str, value: Any, other: Any
) -> None:
    one, two = (
        by_name(filled(build_form(odds), {name: each}, {name: each}))[name]
        for each in (value, other)
    )
    assert (one.mark == two.mark) is (repr(value) == repr(other))


@pytest.mark.parametrize(
    ("stored", "typed", "becomes"),
    [
        ("a\r\nb\r\nc", "a\r\nX\r\nc", "a\r\nX\r\nc"),
        ("a\nb", "a\r\nc", "a\nc"),
        ("a\rb\r\nc\nd", "a\nb\nC\nd", "a\rb\r\nC\nd"),
        ("a\r\nb", "a\nb\nc", "a\r\nb\r\nc"),
        ("a\x00b\ud800c", "a\ufffdb\ufffdC", "a\x00b\ud800C"),
        ("aa", "aaa", "aaa"),
        ("aaa", "aa", "aa"),
        ("abc", "", None),
        ("", "abc", "abc"),
        (5, "6", 6),
        (5, '"6"', "6"),
        (None, "null", "null"),
    ],
)
def test_a_changed_text_keeps_what_stands_around_the_change(
    stored: Any, typed: str, becomes: Any
) -> None:
    made = edit(odds, {"text": stored}, text=typed)
    assert made.payload.get("text") == becomes
    assert not made.has_errors


@pytest.mark.parametrize("stored", ["abc", "", None])
@pytest.mark.parametrize(
    ("meaning", "becomes"),
    [("absent", {}), ("null", {"text": None}), ("empty", {"text": ""}), ("kept", {})],
)
def test_an_empty_field_stands_for_what_is_chosen(
    stored: str | None, meaning: str, becomes: dict[str, Any]
) -> None:
    made = edit(odds, {"text": stored}, text="", **{"empty.text": meaning})
    assert made.payload == becomes
    assert made.is_changed is (becomes != {"text": stored})


def test_an_empty_text_that_a_program_sends_stands_for_what_is_stored() -> None:
    for data in ({"text": None}, {"text": ""}, {}):
        fields = filled(build_form(odds), data, data)
        assert parse_form(fields, {"data.text": [""]}, data, data).payload == data
        assert parse_form(fields, {}, data, data).payload == data


def test_choices_that_look_like_other_json_keep_their_quotation_marks() -> None:
    field = by_name(build_form(odds))["word"]
    assert field.choices == ('"a"', '"null"', '""', '"größe"', "null")
    labels = [*map(field.choice_label, field.choices)]
    assert labels == ["a", '"null"', '""', "größe", "null"]
    assert edit(odds, {"word": "größe"}).payload == {"word": "größe"}
    unknown = by_name(filled(build_form(odds), {"word": "b"}, {"word": "b"}))["word"]
    assert (unknown.choices[-1], unknown.value) == ('"b"', '"b"')


def test_a_field_that_somebody_else_has_changed_is_kept_or_asked_about() -> None:
    opened = by_name(
        filled(build_form(odds), {"text": "a", "link": "b"}, {"text": "a", "link": "b"})
    )
    sent = {f"data.{name}": [field.value] for name, field in opened.items()}
    sent |= {f"shown.{name}": [field.mark] for name, field in opened.items()}
    now = {"text": "a", "link": "by somebody else"}
    fields = filled(build_form(odds), now, now)

    kept = parse_form(fields, sent | {"data.text": ["mine"]}, now, now)
    assert kept.payload == {"text": "mine", "link": "by somebody else"}
    assert not kept.has_errors

    unclear = parse_form(fields, sent | {"data.link": ["mine"]}, now, now)
    error = by_name(unclear.fields)["link"].error
    assert "somebody else has changed this" in error
    assert error.endswith("It is now: by somebody else")
    assert by_name(unclear.fields)["link"].value == "mine"
    again = {"data.link": ["mine"], "shown.link": [by_name(unclear.fields)["link"].mark]}
    assert parse_form(fields, sent | again, now, now).payload["link"] == "mine"

    same = parse_form(fields, sent | {"data.link": ["by somebody else"]}, now, now)
    assert not same.is_changed


PEOPLE = [{"name": "ada", "password": "first"}, {"name": "bob", "password": "second"}]
ADA, BOB = ({"name": name, "password": MASK} for name in ("ada", "bob"))


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ([ADA, BOB], PEOPLE),
        ([BOB], PEOPLE[1:]),
        ([BOB, ADA], PEOPLE[::-1]),
        ([ADA, BOB, {"name": "eve"}], [*PEOPLE, {"name": "eve"}]),
        ([{**ADA, "name": "Ada"}, BOB], [{**PEOPLE[0], "name": "Ada"}, PEOPLE[1]]),
        ([{"name": "ada", "password": "new"}, BOB], [{**PEOPLE[0], "password": "new"}, PEOPLE[1]]),
        ([{**BOB, "name": "Bob"}], None),
        ([{**BOB, "name": "Bob"}, ADA], None),
        ([{"name": "ada", "passwort": MASK}, BOB], None),
        ([{**ADA, "more": f"x{MASK}"}, BOB], None),
    ],
)
def test_what_is_masked_in_a_list_stays_with_its_item_or_the_edit_is_refused(
    typed: list[Any], becomes: list[Any] | None
) -> None:
    made = edit(odds, {"rows": PEOPLE}, rows=json.dumps(typed))
    if becomes is None:
        assert by_name(made.fields)["rows"].error == MASKED
        assert "rows" not in made.payload
    else:
        assert made.payload == {"rows": becomes}


@pytest.mark.parametrize("several", [2, 3])
def test_of_items_that_look_the_same_no_other_one_is_kept(several: int) -> None:
    rows = [{"password": f"secret-{number}"} for number in range(several)]
    made = edit(odds, {"rows": rows}, rows=json.dumps([{"password": MASK}] * (several - 1)))
    assert by_name(made.fields)["rows"].error == MASKED
    moved = [{"password": MASK}] * (several - 1) + [{"password": "new"}]
    made = edit(odds, {"rows": rows}, rows=json.dumps(moved))
    assert made.payload["rows"] == [*rows[:-1], {"password": "new"}]


@pytest.mark.parametrize(
    ("name", "stored", "typed", "error"),
    [
        ("link", "https://u:hunter22@h/a", "https://u:***@h/b", MASKED),
        ("link", "https://u:hunter22@h/a", "https://h/b", ""),
        ("link", "five *** stars", "four *** stars", ""),
        ("text", "x" * (MAX_SHOWN + 1), "x" * (MAX_SHOWN - 1), CUT),
        ("anything", {"a": "x" * (MAX_SHOWN + 1)}, '{"a": "x"}', CUT),
        ("anything", {"url": "redis://:hunter22@h"}, '{"url": "redis://:***@other"}', MASKED),
        ("anything", {"url": "redis://:hunter22@h"}, '{"url": "redis://:***@h", "b": 1}', ""),
    ],
)
def test_a_part_that_was_not_shown_is_kept_or_the_edit_is_refused(
    name: str, stored: Any, typed: str, error: str
) -> None:
    made = edit(odds, {name: stored}, **{name: typed})
    assert by_name(made.fields)[name].error == error
    if name == "anything" and not error:
        assert made.payload["anything"] == {**stored, "b": 1}


def test_a_stored_text_of_bullets_stands_in_no_other_edit_s_way() -> None:
    made = edit(odds, {"text": MASK, "anything": [MASK]}, link="new")
    assert made.payload == {"text": MASK, "anything": [MASK], "link": "new"}
    assert not made.has_errors

"""An edited payload keeps the bytes of everything that the edit does not change."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, Field, JsonValue, SecretStr, field_validator

from corral import Payload, PayloadRefused, Queue
from corral.inspector.payload_edit import edit_payload, is_same_json, members_by_field


class Inner(Payload):
    street: str = ""
    house: int = 1


class Parcel(Payload):
    to_whom: Annotated[str, Field(pattern="^[a-z]*$")] = ""
    grams: float = 1.0
    at: datetime | None = None
    address: Inner = Inner()
    stops: tuple[Inner, ...] = ()
    note: str = Field(
        default="", validation_alias=AliasChoices("note", "remark"), serialization_alias="remark"
    )
    code: SecretStr | None = None
    anything: Any = None

    @field_validator("anything")
    @classmethod
    def _is_known(cls, value: Any) -> Any:
        if value == "raise":
            raise KeyError(value)
        return value


parcels = Queue("parcels", Parcel)


def edited(raw: str, **changes: Any) -> str:
    """The text after an edit of some fields, by any of their names."""
    text, _ = edit_payload(
        parcels, raw.encode(), {**members_by_field(parcels, json.loads(raw)), **changes}
    )
    return text.decode()


@pytest.mark.parametrize(
    ("raw", "changes", "becomes"),
    [
        ('{"grams":1e21,"toWhom":"a"}', {"toWhom": "b"}, '{"grams":1e21,"toWhom":"b"}'),
        (
            ' { "grams" : 1.50 ,\n "toWhom":"a"\t}\n',
            {"toWhom": "b"},
            ' { "grams" : 1.50 ,\n "toWhom":"b"\t}\n',
        ),
        (
            '{"\\u0074oWhom":"\\u0061","grams":-0}',
            {"grams": 2},
            '{"\\u0074oWhom":"\\u0061","grams":2}',
        ),
        ('{"to_whom":"a"}', {"toWhom": "b"}, '{"to_whom":"b"}'),
        ('{"remark":"a"}', {"note": "b"}, '{"remark":"b"}'),
        ('{"note":"a","remark":"x"}', {"note": "b"}, '{"note":"b","remark":"x"}'),
        ("{}", {"note": "b"}, '{"remark":"b"}'),
        ("{ }", {"to_whom": "b"}, '{ "toWhom":"b"}'),
        ('{"newer":[1.0]}', {"grams": 2.0}, '{"newer":[1.0],"grams":2.0}'),
        (
            '{"grams":1,"grams":2.50,"toWhom":"a"}',
            {"toWhom": ""},
            '{"grams":1,"grams":2.50,"toWhom":""}',
        ),
        ('{"grams":1,"grams":2.50}', {"grams": 3}, '{"grams":1,"grams":3}'),
        (
            '{"address":{"street":"\\u0061", "new":1.0}}',
            {"address": {"street": "a", "new": 1.0, "house": 2}},
            '{"address":{"street":"\\u0061", "new":1.0,"house":2}}',
        ),
        (
            '{"stops":[{"street":"\\u0061"},{"house":7 }]}',
            {"stops": [{"street": "a"}, {"house": 8}]},
            '{"stops":[{"street":"\\u0061"},{"house":8 }]}',
        ),
        (
            '{"stops":[{"street":"\\u0061"},{"house":7 }]}',
            {"stops": [{"house": 7}]},
            '{"stops":[{"house":7 }]}',
        ),
        ('{"stops":[ ]}', {"stops": [{"house": 7}]}, '{"stops":[ {"house":7}]}'),
        (
            '{"anything":[1,1.0,true,"\\ud800",NaN]}',
            {"grams": 2},
            '{"anything":[1,1.0,true,"\\ud800",NaN],"grams":2}',
        ),
        ('{"grams":1}', {"anything": "\ud800é"}, '{"grams":1,"anything":"\\ud800\\u00e9"}'),
        (
            '{"grams":1}',
            {"at": datetime(2024, 1, 1, tzinfo=UTC)},
            '{"grams":1,"at":"2024-01-01T00:00:00Z"}',
        ),
        (
            '{"anything":12345678901234567890}',
            {"grams": 2},
            '{"anything":12345678901234567890,"grams":2}',
        ),
    ],
)
def test_only_what_differs_is_written(raw: str, changes: dict[str, Any], becomes: str) -> None:
    assert edited(raw, **changes) == becomes


@pytest.mark.parametrize(
    ("raw", "kept", "becomes"),
    [
        ('{"grams":1, "toWhom":"a" ,"newer":2}', {"toWhom": "a"}, '{"toWhom":"a" ,"newer":2}'),
        ('{"grams":1, "toWhom":"a"}', {"grams": 1}, '{"grams":1}'),
        ('{ "grams":1 }', {}, "{  }"),
        ('{"to_whom":"a","grams":1}', {"grams": 1}, '{"grams":1}'),
    ],
)
def test_a_field_that_is_left_out_is_removed_and_an_unknown_one_is_kept(
    raw: str, kept: dict[str, Any], becomes: str
) -> None:
    text, _ = edit_payload(parcels, raw.encode(), kept)
    assert text.decode() == becomes


@pytest.mark.parametrize("raw", [b"", b"[1]", b"7", b'"a"', b"{", b'{"a": \xff}', b"\xff"])
def test_a_payload_that_is_no_object_is_replaced(raw: bytes) -> None:
    text, changed = edit_payload(parcels, raw, {"toWhom": "a"})
    assert (text, changed) == (b'{"toWhom":"a"}', ["toWhom"])


def test_bytes_that_are_no_utf_8_stay_where_they_are() -> None:
    raw = b'{"toWhom":"a","\xff":"\xfe"}'
    with pytest.raises(PayloadRefused):
        edit_payload(parcels, raw, {"toWhom": "b"})
    text, _ = edit_payload(parcels, b'{"remark":"\xff","grams":1.0}', {"note": "b", "grams": 1.0})
    assert text == b'{"remark":"b","grams":1.0}'


def test_an_unchanged_payload_is_not_checked_and_a_changed_one_is_checked_as_a_worker_reads_it() -> (
    None
):
    raw = '{"toWhom":"NOT ALLOWED","grams":1.0}'
    assert edited(raw) == raw
    assert edited(raw, toWhom="NOT ALLOWED", grams=1.0) == raw
    with pytest.raises(PayloadRefused, match="toWhom: String should match"):
        edited(raw, grams=2.0)
    assert edited(raw, toWhom="ok", grams=2.0) == '{"toWhom":"ok","grams":2.0}'
    assert edited('{"grams":1}', grams=1.0) == '{"grams":1.0}', (
        "another spelling that was asked for"
    )


@pytest.mark.parametrize(
    ("raw", "changes", "says"),
    [
        ("{}", {"newer": 1}, "newer: Extra inputs are not permitted"),
        ('{"address":{"newer":1}}', {"address": {"newest": 1}}, "address.newest: Extra inputs"),
        ("{}", {"grams": float("nan")}, "grams: NaN and infinite"),
        ("{}", {"anything": [2**53]}, "anything.0: an integer beyond"),
        ("{}", {"anything": object()}, "anything: cannot be written as JSON"),
        ("{}", {"anything": "raise"}, "a worker cannot read it: KeyError is raised"),
        ("{}", {"code": 5}, "code: Input should be a valid string"),
    ],
)
def test_what_a_producer_could_not_write_is_refused(
    raw: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(PayloadRefused) as refused:
        edited(raw, **changes)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "changes"),
    [
        ('{"newer":1}', {"newer": 2}),
        ('{"address":{"newer":1}}', {"address": {"newer": 2}}),
        ('{"stops":[{"newer":1},{}]}', {"stops": [{}, {"newer": 1}]}),
        ('{"anything":[9007199254740993,1]}', {"anything": [9007199254740993, 2]}),
    ],
)
def test_what_another_client_has_stored_may_stay(raw: str, changes: dict[str, Any]) -> None:
    assert json.loads(edited(raw, **changes)) == changes


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, False),
        (1, True, False),
        (0.0, -0.0, False),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (float("nan"), float("nan"), True),
        (None, "null", False),
        ("", None, False),
    ],
)
def test_values_are_compared_as_json(one: Any, other: Any, same: bool) -> None:
    assert is_same_json(one, other) is same


class Anything(Payload):
    a: JsonValue = None
    b: JsonValue = None


anything = Queue("anything", Anything)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.text('aé\n"\\', max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(
    old=VALUES,
    new=VALUES,
    other=VALUES,
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_the_new_text_always_says_the_new_payload(
    old: Any, new: Any, other: Any, indent: int | None, ascii_only: bool
) -> None:
    raw = json.dumps({"a": old, "b": other}, indent=indent, ensure_ascii=ascii_only)
    text, changed = edit_payload(anything, raw.encode(), {"a": new, "b": other})
    assert is_same_json(json.loads(text), {"a": new, "b": other})
    assert changed == ([] if is_same_json(old, new) else ["a"])
    tail = raw[raw.rindex(json.dumps({"b": other}, indent=indent, ensure_ascii=ascii_only)[1:]) :]
    assert text.decode().endswith(tail)

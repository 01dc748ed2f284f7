"""Payloads: refused or written by the producer, read by the worker, with the path of each error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from pydantic import Field, SecretBytes, SecretStr, computed_field

from corral import Payload, PayloadRefused, Queue


class Line(Payload):
    unit_price: int


class Order(Payload):
    order_id: str
    lines: list[Line] = Field(default_factory=list[Line])
    weight: float = 0.0
    extras: dict[str, Any] = Field(default_factory=dict[str, Any])


class Other(Payload):
    order_id: str


orders = Queue("orders", Order)


def refusal(call: Any, *args: Any) -> tuple[tuple[str, str], ...]:
    with pytest.raises(PayloadRefused) as refused:
        call(*args)
    assert refused.value.queue == "orders"
    return refused.value.errors


class TestValidated:
    def test_takes_an_instance_as_it_is(self) -> None:
        order = Order(order_id="a")
        assert orders.validated(order) is order

    @pytest.mark.parametrize(
        "mapping", [{"orderId": "a"}, {"order_id": "a"}], ids=["JSON", "Python"]
    )
    def test_builds_the_model_from_a_mapping_in_either_spelling(
        self, mapping: dict[str, str]
    ) -> None:
        assert orders.validated(mapping) == Order(order_id="a")

    def test_names_every_wrong_field_by_its_dotted_path(self) -> None:
        errors = refusal(
            orders.validated, {"lines": [{"unitPrice": 1}, {"unitPrice": "x"}], "colour": "red"}
        )
        assert [path for path, _ in errors] == ["orderId", "lines.1.unitPrice", "colour"]

    def test_refuses_another_queues_payload_and_what_is_no_payload_at_all(self) -> None:
        assert refusal(orders.validated, Other(order_id="a")) == (
            ("", "expected Order or a mapping, not Other"),
        )
        assert refusal(orders.validated, ["a"]) == (("", "expected Order or a mapping, not list"),)

    def test_a_refusal_does_not_quote_the_payload(self) -> None:
        with pytest.raises(PayloadRefused) as refused:
            orders.validated({"orderId": "a", "lines": "hunter2"})
        assert "hunter2" not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__


class TestDumped:
    def test_writes_camel_case_and_every_field(self) -> None:
        assert json.loads(orders.dumped(Order(order_id="é", lines=[Line(unit_price=3)]))) == {
            "orderId": "é",
            "lines": [{"unitPrice": 3}],
            "weight": 0.0,
            "extras": {},
        }

    @pytest.mark.parametrize("weight", [float("nan"), float("inf")])
    def test_a_field_takes_no_number_that_json_has_not(self, weight: float) -> None:
        ((path, _),) = refusal(orders.validated, {"orderId": "a", "weight": weight})
        assert path == "weight"

    def test_writes_null_where_a_free_form_value_holds_one(self) -> None:
        assert b'{"n":null}' in orders.dumped(Order(order_id="a", extras={"n": float("nan")}))

    @pytest.mark.parametrize("number", [2**53 - 1, 1 - 2**53])
    def test_writes_the_largest_integers_that_every_reader_can_hold(self, number: int) -> None:
        assert str(number).encode() in orders.dumped(Order(order_id="a", extras={"n": number}))

    @pytest.mark.parametrize(
        "number", [2**53, -(2**53), 10**30, -(10**5000)], ids=["2^53", "-2^53", "long", "huge"]
    )
    def test_refuses_larger_ones_with_their_path(self, number: int) -> None:
        ((path, message),) = refusal(
            orders.dumped, Order(order_id="a", extras={"n": [0, {"deep": number}]})
        )
        assert path == "extras.n.1.deep"
        assert "2^53" in message

    def test_long_runs_of_digits_elsewhere_are_no_integers(self) -> None:
        order = Order(order_id="9" * 40, weight=0.1234567890123456, extras={"x": 1.5e300})
        assert json.loads(orders.dumped(order))["orderId"] == "9" * 40

    def test_refuses_what_utf8_cannot_encode(self) -> None:
        ((path, message),) = refusal(orders.dumped, Order(order_id="\ud83d"))
        assert path == ""
        assert message.startswith("cannot be written as JSON")

    def test_refuses_a_model_that_was_changed_behind_its_validation_and_does_not_quote_it(
        self,
    ) -> None:
        errors = refusal(orders.dumped, Order.model_construct(order_id=["hunter2"]))
        assert "cannot be written as JSON" in errors[0][1]
        assert "hunter2" not in errors[0][1]

    def test_writes_only_what_the_queues_model_declares(self) -> None:
        class Bigger(Order):
            more: int = 1

            @computed_field
            def shouted(self) -> str:
                return self.order_id.upper()

        assert orders.dumped(Bigger(order_id="a")) == orders.dumped(Order(order_id="a"))

    def test_does_not_write_a_computed_field_which_its_own_model_would_refuse(self) -> None:
        class Parcel(Payload):
            grams: int

            @computed_field
            def kilograms(self) -> float:
                return self.grams / 1000

        parcels = Queue("parcels", Parcel)
        assert parcels.parsed(parcels.dumped(Parcel(grams=5))) == (Parcel(grams=5), frozenset())


class TestParsed:
    def test_reads_what_was_dumped(self) -> None:
        order = Order(
            order_id="a😀\\ud83d\n", lines=[Line(unit_price=3)], extras={"k": [None, True]}
        )
        assert orders.parsed(orders.dumped(order)) == (order, frozenset())

    def test_leaves_unknown_fields_out_and_names_them_at_every_depth(self) -> None:
        raw = b'{"orderId":"a","new":1,"lines":[{"unitPrice":1,"tax":2},{"unitPrice":1,"tax":3}]}'
        order, unknown = orders.parsed(raw)
        assert order == Order(order_id="a", lines=[Line(unit_price=1), Line(unit_price=1)])
        assert unknown == {"new", "lines.tax"}

    def test_a_wrong_field_beside_an_unknown_one_is_the_only_one_reported(self) -> None:
        errors = refusal(orders.parsed, b'{"orderId":7,"new":1}')
        assert [path for path, _ in errors] == ["orderId"]

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            (r"\ud83d", "\ufffd"),
            (r"\uDE00", "\ufffd"),
            (r"a\ud83db", "a\ufffdb"),
            (r"\ud83d\ud83d\ude00", "\ufffd😀"),
            (r"\ud83d\u0041", "\ufffdA"),
            (r"\\ud83d\ud83d", "\\ud83d\ufffd"),
            (r"\ude00\ud83d", "\ufffd\ufffd"),
        ],
    )
    def test_half_a_surrogate_pair_becomes_a_replacement_character(
        self, text: str, meant: str
    ) -> None:
        order, unknown = orders.parsed(b'{"orderId":"%b"}' % text.encode())
        assert order.order_id == meant
        assert unknown == frozenset()

    def test_half_a_pair_and_an_unknown_field_at_once(self) -> None:
        order, unknown = orders.parsed(rb'{"orderId":"\ud83d","new":1}')
        assert (order.order_id, set(unknown)) == ("\ufffd", {"new"})

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"null",
            b"[]",
            b"{",
            b'{"orderId":"\xff"}',
            b'{"orderId":NaN}',
            rb'{"orderId":"\ud83d"',
            rb'{"\q":1}',
        ],
    )
    def test_refuses_anything_else(self, raw: bytes) -> None:
        assert refusal(orders.parsed, raw)


def test_a_queue_needs_a_payload_type_of_its_own() -> None:
    with pytest.raises(TypeError, match="declare an empty subclass of Payload"):
        Queue("orders", Payload)


def test_secrets_of_a_set_are_written_as_they_are() -> None:
    class Keys(Payload):
        keys: set[SecretStr]
        frozen: frozenset[SecretStr] = frozenset()

    queue = Queue("keys", Keys)
    raw = queue.dumped(queue.validated({"keys": ["a", "b", "c"], "frozen": ["d"]}))
    assert sorted(json.loads(raw)["keys"]) == ["a", "b", "c"]
    assert json.loads(raw)["frozen"] == ["d"]


def test_a_secret_is_written_as_it_is_and_shown_nowhere() -> None:
    """pydantic writes `**********`: a worker would log in with ten asterisks."""

    class Inner(Payload):
        keys: tuple[SecretStr, ...]

    class Login(Payload):
        user_name: str
        password: SecretStr
        pin: SecretBytes | None = None
        inner: Inner
        by_name: Mapping[str, SecretStr] = {}
        at: datetime

    logins = Queue("logins", Login)
    given = {
        "userName": "ada",
        "password": "hunter2",
        "pin": "0042",
        "inner": {"keys": ["k1", "k2"]},
        "byName": {"a_b": "v"},
        "at": "2026-01-31T08:00:00Z",
    }
    payload = logins.validated(given)
    raw = logins.dumped(payload)
    assert json.loads(raw) == given
    read, _ = logins.parsed(raw)
    assert read == payload
    assert "hunter2" not in repr(payload)

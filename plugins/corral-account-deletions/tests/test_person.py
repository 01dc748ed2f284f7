"""Whose a payload is: an address is a whole address, and a short id is nobody's unless its name
says so.
"""

from __future__ import annotations

import pytest

from corral_account_deletions.person import Person, as_key

ADA = Person("ada-4711", "Ada+x@Example.org")


@pytest.mark.parametrize(
    "value",
    [
        "ada+x@example.org",
        "ADA+X@EXAMPLE.ORG",
        {"to": "Ada <ada+x@example.org>"},
        {"cc": ["bob@example.org", "ada+x@example.org"]},
        {"ada+x@example.org": True},
        "550 5.1.1 <ada+x@example.org>: no such user",
        "sent to ada+x@example.org.",
        "mailto:ada+x@example.org?subject=hi",
        "https://acme.example/unsubscribe?email=ada%2Bx%40example.org",
        "https://acme.example/?q=email%3Dada%2Bx%40example.org",
        '{"customer": {"email": "ada+x@example.org"}}',
        r'{"text": "Dear\nada+x@example.org"}',
        [1, None, {"deep": [{"deeper": "'ada+x@example.org'"}]}],
    ],
)
def test_an_address_is_found_wherever_it_stands(value: object) -> None:
    assert ADA.is_addressed_in(value)


@pytest.mark.parametrize(
    "value",
    [
        "nada+x@example.org",
        "x.ada+x@example.org",
        "ada@example.org",
        "ada+x@example.org.uk",
        "ada+x@example.organic",
        "ada+x@example-org",
        "ada+xy@example.org",
        {"to": "bob@example.org", "n": 7, "x": None},
    ],
)
def test_another_one_s_address_is_not_theirs(value: object) -> None:
    assert not ADA.is_addressed_in(value)


def test_an_address_beyond_ascii_is_found_as_json_in_a_text_spells_it() -> None:
    person = Person("ada-4711", "jürgen@example.org")
    assert person.is_addressed_in('{"to": "j\\u00fcrgen@example.org"}')
    assert person.is_addressed_in({"to": "Jürgen@example.org"})


def test_a_distinctive_id_is_theirs_under_any_name_and_no_part_of_another() -> None:
    assert ADA.is_identified_in({"data": {"owner": "ada-4711"}})
    assert ADA.is_identified_in(["x", ["ada-4711"]])
    assert not ADA.is_identified_in({"owner": "ada-47111", "text": "for ada-4711"})


@pytest.mark.parametrize("user_id", ["1", "1234567890", "ada"])
def test_a_number_and_a_short_id_are_theirs_only_under_a_user_s_name(user_id: str) -> None:
    person = Person(user_id, None, frozenset({"userid", "customerid"}))
    for name in ("userId", "user_id", "USER-ID", "customer_id"):
        assert person.is_identified_in({"order": {name: user_id}})
    assert not person.is_identified_in({"quantity": user_id, "id": user_id, "items": [user_id]})
    assert not person.is_identified_in({"userId": f"{user_id}1"})


def test_an_id_that_is_a_number_in_json_is_read_as_one() -> None:
    assert Person("1", None).is_identified_in({"userId": 1})
    assert not Person("1", None).is_identified_in({"userId": True, "quantity": 1})


def test_nobody_knows_the_address() -> None:
    person = Person("ada-4711", None)
    assert not person.is_addressed_in({"to": ""})
    assert person.left_out_of("as it was") == "as it was"


def test_the_address_is_taken_out_of_a_text() -> None:
    assert (
        ADA.left_out_of("Key (email)=(ada+x@example.org) exists")
        == "Key (email)=([e-mail address]) exists"
    )


def test_names_are_one_in_every_spelling() -> None:
    assert {as_key(name) for name in ("userId", "user_id", "UserID", "user-id", "USER ID")} == {
        "userid"
    }

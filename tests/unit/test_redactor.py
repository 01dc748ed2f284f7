"""What is secret, where it is masked, what is not found, and that the search is bounded."""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel, SecretBytes, SecretStr

from corral import Payload
from corral.redactor import (
    MASK,
    MOST,
    MOST_PLACES,
    Redactor,
    is_secret_name,
    masked,
    may_hold_secrets,
    secret_names,
)
from machine import slowness

SECRET = 'sk_"live"/ü<1&\\2\n3'


class Code(RootModel[SecretStr]):
    pass


class Inner(BaseModel):
    shown: str = ""
    hidden: SecretBytes = SecretBytes(b"")


class Everything(Payload):
    open: str = ""
    mark_it: SecretStr = SecretStr("")
    optional: SecretStr | None = None
    listed: list[list[SecretStr]] = Field(default_factory=list)
    mapped: dict[str, SecretStr] = Field(default_factory=dict)
    paired: tuple[int, SecretStr] | None = None
    root: Code = Code(SecretStr(""))
    inner: list[Inner] = Field(default_factory=list)
    written: str = Field(default="", json_schema_extra={"writeOnly": True})
    renamed: SecretStr = Field(default=SecretStr(""), alias="Other-Name")


class Plain(Payload):
    to: str
    count: int = 0
    tags: list[str] = Field(default_factory=list)


class Loose(Payload):
    context: dict[str, Any] = Field(default_factory=dict)


def test_marked_fields_are_found_wherever_the_model_has_them() -> None:
    wanted = {
        "markit",
        "optional",
        "listed",
        "mapped",
        "paired",
        "root",
        "hidden",
        "written",
        "renamed",
        "othername",
    }
    assert secret_names(Everything) == wanted
    redactor = Redactor(secret_names(Everything))
    assert all(map(redactor.is_secret, ("markIt", "mark_it", "MARK-IT", "Other-Name", "renamed")))
    assert not any(map(redactor.is_secret, ("open", "inner", "shown")))
    assert [may_hold_secrets(model) for model in (Everything, Plain, Loose)] == [True, False, True]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "userPassword",
            "PASSWD",
            "pwd",
            "passphrase",
            "secret",
            "clientSecret",
            "resetToken",
            "token",
        ),
        *(
            "api_key",
            "apiKey",
            "X-Api-Key",
            "access_key",
            "privateKey",
            "Authorization",
            "Set-Cookie",
            "credentials",
        ),
        *("signature", "otp", "sessionId", "jwt", "user.pin", "pin", "auth"),
    ],
)
def test_names_that_say_so(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["to", "name", "keyboard", "author", "spinning", "monkey", "passenger", "compass", "id"]
)
def test_names_that_do_not(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "spell",
    [
        str,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: json.dumps({"x": [text]}),
        lambda text: text[:-3],
        lambda text: text[4:],
    ],
    ids=["plain", "json", "json-utf8", "json-inside", "end-cut-off", "beginning-cut-off"],
)
def test_a_secret_is_found_in_plain_and_in_json_spelling_and_cut(
    spell: Callable[[str], str],
) -> None:
    redactor = Redactor(data={"token": SECRET})
    start = "" if spell(SECRET) == SECRET[4:] else "it was "
    for end in ("", "…"):
        clear = redactor.text(f"{start}{spell(SECRET)}{end}")
        assert MASK in clear
        assert not any(part in clear for part in ("live", "sk_", "<1&", "2\n3"))


def test_another_encoding_of_a_secret_is_not_found() -> None:
    """As the docs say: whoever encodes a secret must not log what comes out."""
    redactor = Redactor(data={"token": "hunter22"})
    for text in ("68756e7465723232", "aHVudGVyMjI=", "hunter%322"):
        assert redactor.text(f"it was {text}") == f"it was {text}"


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ('{"password": "x\\"y", "a": 1}', f'{{"password": {MASK}, "a": 1}}'),
        ("Letter(token='a', to='b')", f"Letter(token={MASK}, to='b')"),
        ("{'Authorization': 'Digest a'}", f"{{'Authorization': {MASK}}}"),
        ("curl -H 'x: Bearer abcdefgh'", f"curl -H 'x: Bearer {MASK}'"),
        ("GET /x?access_token=abc&page=2", f"GET /x?access_token={MASK}&page=2"),
        ("redis://:pass@h/0", "redis://:***@h/0"),
        ("password: Field required", "password: Field required"),
        ("if token == other: pass", "if token == other: pass"),
        ("to=ada at 12:30", "to=ada at 12:30"),
    ],
)
def test_what_looks_like_credentials_is_masked_whoever_wrote_it(text: str, clear: str) -> None:
    assert Redactor().text(text) == clear


def test_a_value_is_masked_in_its_field_and_where_it_is_repeated() -> None:
    data = {
        "token": "hunter22",
        "pin": 83120044,
        "short": {"pwd": "ab"},
        "none": {"secret": None},
        "hunter22": "key",
        "note": "ab hunter22hunter22",
        "again": [83120044, 8312004, True],
        "passwords": {"4f6d8": 1, "ada": 2},
        "keys": "4f6d8 ada",
    }
    assert Redactor(data=data).value(data) == {
        "token": MASK,
        "pin": MASK,
        "short": {"pwd": MASK},
        "none": {"secret": None},
        MASK: "key",
        "note": f"ab {MASK}{MASK}",
        "again": [MASK, 8312004, True],
        "passwords": MASK,
        "keys": f"{MASK} ada",
    }


def test_secrets_that_overlap_leave_nothing_of_each_other() -> None:
    redactor = Redactor(data={"tokens": ["abcdefgh", "efghijkl", "cdef"]})
    assert redactor.text("-abcdefghijkl-") == f"-{MASK}-"


def test_the_lines_of_a_key_are_secrets_too() -> None:
    redactor = Redactor(
        data={"privateKey": "-----BEGIN-----\nMIIabcdef\nMIIghijkl\n-----END-----\n"}
    )
    assert redactor.text("    MIIghijkl") == f"    {MASK}"


@pytest.mark.parametrize(
    "broken",
    [
        '{"to": "ada", "resetToken": "hunter22", "x',
        '{"to": "ada", "mark_it": "hunter22"',
        "\x82\xa2to\xa3ada\xa5token\xa8hunter22",
    ],
)
def test_of_a_payload_that_is_no_json_nothing_is_shown_from_the_first_secret_on(
    broken: str,
) -> None:
    clear = Redactor(secret_names(Everything)).broken(broken)
    assert "ada" in clear
    assert "hunter22" not in clear


def test_a_deep_value_is_cut_and_not_an_error() -> None:
    deep: Any = "hunter22"
    for _ in range(900):
        deep = {"a": [deep]}
    clear = json.dumps(Redactor(data={"token": "hunter22", "x": deep}).value({"x": deep}))
    assert "hunter22" not in clear
    assert "\\u2026" in clear


def test_a_text_full_of_secrets_is_masked_whole() -> None:
    redactor = Redactor(data={"token": "hunter22"})
    assert redactor.text("hunter22 " * MOST_PLACES) == f"{MASK} " * MOST_PLACES
    assert redactor.text("hunter22 " * (MOST_PLACES + 1)) == MASK


def test_with_too_many_secrets_all_texts_of_a_job_are_masked_whole() -> None:
    data = {
        "tokens": [f"secret{number}" for number in range(MOST + 1)],
        "note": "secret17",
        "count": 5,
    }
    assert Redactor(data=data).is_needed
    assert "secret" not in json.dumps(Redactor(data=data).value(data))
    assert Redactor(data=data).text("it was secret17") == MASK


def test_a_payload_model_shows_no_secret_of_itself() -> None:
    class Reset(Payload):
        to: str
        reset_token: str = ""
        headers: dict[str, str] = Field(default_factory=dict)

    reset = Reset(to="ada hunter22", reset_token="hunter22", headers={"Cookie": "id=7"})
    for text in (repr(reset), str(reset), f"{[reset]}"):
        assert text.strip("[]") in {repr(reset), str(reset)}
        assert "hunter22" not in text
        assert "id=7" not in text
        assert "to='ada " in text


WORDS = random.Random(7)
MEBIBYTE = 1024 * 1024


def word(length: int) -> str:
    return "".join(WORDS.choices(string.ascii_letters, k=length))


HOSTILE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "as many secrets as are searched for": lambda: (
        {"tokens": [word(24) for _ in range(MOST)]},
        {"text": " ".join(word(7) for _ in range(131_000))},
    ),
    "100,000 secrets": lambda: (
        {"tokens": [word(8) for _ in range(100_000)]},
        {"text": word(MEBIBYTE)},
    ),
    "one that is almost there everywhere": lambda: (
        {"token": "a" * 5000 + "b"},
        {"text": "a" * MEBIBYTE},
    ),
    "one of a mebibyte": lambda: ({"token": word(MEBIBYTE)}, {"text": word(1000)}),
    "nested ones": lambda: (
        {"tokens": ["a" * length for length in range(4, MOST)]},
        {"text": "a" * MEBIBYTE},
    ),
    "ones that are almost there everywhere": lambda: (
        {"tokens": [f"{'a' * length}b" for length in range(4, MOST)]},
        {"text": "a" * MEBIBYTE},
    ),
    "many small texts": lambda: ({"token": "hunter22"}, ["abcd"] * 130_000),
    "many small members": lambda: (
        {"token": "hunter22"},
        {f"m{number}": 1 for number in range(100_000)},
    ),
    "URLs": lambda: ({}, {"text": "://:" * (MEBIBYTE // 4)}),
    "URLs and an @": lambda: ({}, {"text": "://a:/" * (MEBIBYTE // 6) + "@"}),
    "members": lambda: ({}, {"text": '"token":"' * (MEBIBYTE // 9)}),
    "lists": lambda: ({}, {"text": '"token":[' * (MEBIBYTE // 9)}),
    "backslashes": lambda: ({}, {"text": "\\" * MEBIBYTE}),
    "assignments": lambda: ({}, {"text": "token=" * (MEBIBYTE // 6)}),
    "schemes": lambda: ({}, {"text": "Basic " * (MEBIBYTE // 6)}),
}


@pytest.mark.timing
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_mebibyte_costs_less_than_a_second_whatever_is_in_it(
    hostile: Callable[[], tuple[Any, Any]],
) -> None:
    secrets, value = hostile()
    began = time.process_time()
    redactor = Redactor(data=secrets)
    redactor.value(value)
    if isinstance(value, dict) and "text" in value:
        redactor.text(value["text"])
    assert time.process_time() - began < 1.0 * slowness()


@pytest.mark.timing
def test_the_passwords_of_urls_are_found_in_linear_time() -> None:
    began = time.process_time()
    masked("://:" * 250_000)
    masked("://:" * 250_000 + "@")
    assert time.process_time() - began < 1.0 * slowness()

"""Validation errors as sentences: one form for settings, payloads and files."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator

from corral.field_errors import field_errors


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Home(BaseModel):
    port: int
    names: list[Annotated[str, Field(max_length=7)]] = []
    token: SecretStr = SecretStr("")
    pet: Cat | Dog | None = Field(default=None, discriminator="kind")

    @field_validator("token")
    @classmethod
    def _is_long(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 20:
            raise ValueError("A token has 20 characters")
        return value


def test_each_wrong_field_is_a_sentence_and_no_value_is_quoted() -> None:
    with pytest.raises(ValidationError) as refused:
        Home.model_validate(
            {
                "port": "hunter2",
                "names": ["a", "hunter22"],
                "token": "hunter2",
                "pet": {"kind": "hunter2"},
            }
        )
    errors = field_errors(refused.value)
    assert [error.sentence() for error in errors] == [
        "port: input should be a valid integer, unable to parse string as an integer",
        "names.1: string should have at most 7 characters",
        "token: a token has 20 characters",
        "pet: 'kind' should be one of 'cat', 'dog'",
    ]
    assert errors[0].sentence("HOME_PORT").startswith("HOME_PORT: input should be")
    assert errors[2].sentence("") == errors[2].message == "A token has 20 characters"
    assert "hunter2" not in repr(errors)

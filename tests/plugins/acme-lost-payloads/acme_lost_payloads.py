"""Payloads that no worker would read as they are given; and one whose field was renamed as it
should be.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import AliasChoices, Field, Secret

from corral import Payload, Queue, hookimpl


class Address(Payload):
    address_1: str = ""
    address1: str = ""
    areas: dict[tuple[int, int], str]


class Inner(Payload):
    born_on: Secret[date]


class Login(Payload):
    user_name: str = Field(validation_alias="login")
    mail_address: str = Field(validation_alias=AliasChoices("mailAddress", "email"))
    nonce: str = Field(exclude=True)
    people: list[Inner]


@hookimpl
def corral_queues() -> list[Queue[Any]]:
    return [Queue("addresses", Address), Queue("logins", Login)]

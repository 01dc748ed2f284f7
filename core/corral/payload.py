"""`Payload`: the data of a job, a frozen pydantic model that is camelCase in JSON.

It is strict in producers and tolerant in workers: a field that the model does not have is refused
where a payload is built, and ignored where it is read (`Queue.parsed`). So a rolling deployment
fails no job when newer producers send a new field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from corral.redactor import Redactor, secret_names

__all__ = ["MAX_PAYLOAD_BYTES", "Payload", "unsafe_integers"]

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
"""A larger payload is refused, unless `CORRAL_MAX_PAYLOAD_BYTES` is set."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer, on either side of zero, that JavaScript reads exactly (wire § 4.3)."""

LONG_DIGITS: Final = re.compile(rb"[0-9]{16}")
"""Sixteen digits in a row.

`MAX_SAFE_INTEGER` has sixteen, so a JSON text without such a row holds no larger integer.
"""


class Payload(BaseModel):
    """The base class of every queue's payload model.

    Fields are snake_case in Python and camelCase in JSON, as a TypeScript producer writes them; the
    constructor takes both. Instances are immutable.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,  # the producer would write infinity, and the worker read null
        hide_input_in_errors=True,  # a traceback is logged, and payloads must not be
        ser_json_inf_nan="null",  # every Node client throws whenever it reads a job with a NaN
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """The fields for `repr`, with secrets masked: a `repr` ends up in logs and tracebacks."""
        shown = [(name or "", value) for name, value in super().__repr_args__()]
        return [*Redactor(secret_names(type(self)), dict(shown)).value(dict(shown)).items()]


def unsafe_integers(raw: bytes) -> tuple[tuple[str, str], ...]:
    """All integers of a JSON text that JavaScript cannot hold, as `(dotted path, message)`."""
    if not LONG_DIGITS.search(raw):
        return ()
    # Twenty characters show that an integer is too large. Python refuses to read more than 4,300.
    return tuple(_unsafe(json.loads(raw, parse_int=lambda digits: int(digits[:20]))))


def _unsafe(value: JsonValue, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unsafe(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unsafe(item, f"{path}.{index}" if path else str(index))
    elif isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        yield path, "an integer beyond ±(2^53 - 1) is another number to a reader in JavaScript"

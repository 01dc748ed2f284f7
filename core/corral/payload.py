"""`Payload`: what a job carries, as a frozen pydantic model that speaks camelCase in JSON.

Strict out, tolerant in: a producer's unknown field is refused where the payload is built; a worker
ignores fields that a newer producer added (`Queue.read`), so that a rolling deployment kills no
job.
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
"""A larger payload is refused, unless `CORRAL_MAX_PAYLOAD_BYTES` says otherwise."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Beyond it, on either side of zero, a Node client reads another number than was written (wire §
4.3).
"""

LONG_DIGITS: Final = re.compile(rb"[0-9]{16}")
"""No JSON text without sixteen digits in a row holds an integer above `MAX_SAFE_INTEGER`, which has
sixteen.
"""


class Payload(BaseModel):
    """The base of every queue's payload model.

    Fields are snake_case in Python and camelCase in JSON, as a TypeScript producer writes them;
    both spellings are accepted by the constructor. Instances are immutable.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,  # the worker would read null where the producer wrote infinity
        hide_input_in_errors=True,  # a traceback goes to the logs, and payloads never do
        ser_json_inf_nan="null",  # a NaN in a job makes every Node client throw on it, for ever
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What `repr` shows, without what is secret: it ends in logs and in tracebacks."""
        shown = [(name or "", value) for name, value in super().__repr_args__()]
        return [*Redactor(secret_names(type(self)), dict(shown)).value(dict(shown)).items()]


def unsafe_integers(raw: bytes) -> tuple[tuple[str, str], ...]:
    """Every integer of a JSON text that JavaScript cannot hold, as `(dotted path, message)`."""
    if not LONG_DIGITS.search(raw):
        return ()
    # Twenty characters show that an integer is too long; Python itself refuses to read 4,301 of
    # them.
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

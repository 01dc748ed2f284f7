"""Validation errors of pydantic as sentences that name the field and never quote its value.

Corral reports wrong settings and payloads with them; a plugin that reads a file with a pydantic
model can do the same. Pydantic's own text (`str(error)`) must not be shown: it quotes the value,
which may be a password.

```python
from pydantic import BaseModel, ValidationError

from corral.field_errors import field_errors


class Mailbox(BaseModel):
    host: str
    port: int


try:
    Mailbox.model_validate({"port": "hunter2"})
except ValidationError as error:
    sentences = [each.sentence() for each in field_errors(error)]
assert sentences == [
    "host: field required",
    "port: input should be a valid integer, unable to parse string as an integer",
]
```
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

__all__ = ["FieldError", "field_errors"]

RAISED_BY_VALIDATORS: Final = ("Value error, ", "Assertion failed, ")
"""What pydantic puts before the text of a ValueError or an AssertionError of a validator."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong.

    Attributes:
        location: The field's path: names, positions in lists, and members of unions. It is empty
            if several fields do not fit together.
        type: Pydantic's name for the kind of error: `missing`, `extra_forbidden`, …
        message: What is wrong, without the value.
        value: The value that was given. It may be secret: show it only if the field is not.
    """

    location: tuple[str | int, ...]
    type: str
    message: str
    value: Any = field(repr=False)

    @property
    def path(self) -> str:
        """The location with dots, as `address.lines.0`; empty if the location is."""
        return ".".join(map(str, self.location))

    def sentence(self, subject: str | None = None) -> str:
        """The message with the name of what is wrong before it, as `port: field required`.

        Args:
            subject: The name to begin with, if it is not the field's path. With an empty name, the
                message stands alone and keeps its capital letter: it has a subject of its own.
        """
        name = self.path if subject is None else subject
        return f"{name}: {self.message[:1].lower()}{self.message[1:]}" if name else self.message


def field_errors(error: ValidationError | Iterable[ErrorDetails]) -> tuple[FieldError, ...]:
    """Read the errors of a validation, one per wrong field, in pydantic's order.

    Args:
        error: What pydantic raised, or some of the items that its `errors()` returned.
    """
    details = error.errors(include_url=False) if isinstance(error, ValidationError) else error
    return tuple(
        FieldError(each["loc"], each["type"], _message(each), each.get("input")) for each in details
    )


def _message(details: ErrorDetails) -> str:
    if details["type"] == "union_tag_invalid":  # the only message of pydantic that quotes a value
        context = details.get("ctx", {})
        return f"{context['discriminator']} should be one of {context['expected_tags']}"
    message = details["msg"]
    for prefix in RAISED_BY_VALIDATORS:
        message = message.removeprefix(prefix)
    return message

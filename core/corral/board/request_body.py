"""Reads the body of a write.

It is a form, or a JSON object whose values are texts, numbers, booleans, or lists of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.requests import Request

from corral.board.messages import RequestRefused

__all__ = ["FORM", "JSON", "media_type", "read_form"]

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""A payload may have 1 MiB, and each of its bytes can take three bytes in a form (`%41`)."""
MAX_FIELDS: Final = 2000
"""Values in a form; in a JSON object, all values, those inside its lists counted."""


def media_type(request: Request) -> str:
    """The media type of the body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(
    request: Request, max_bytes: int = MAX_BODY_BYTES
) -> Mapping[str, Sequence[str]]:
    """Read the fields of a body, each with its values in order.

    Args:
        request: The request; reading stops as soon as the body is too large.
        max_bytes: How large the body may be.

    Raises:
        RequestRefused: The body is too large, is neither a form nor JSON, or cannot be parsed.
    """
    kind = media_type(request)
    if kind not in {FORM, JSON}:
        raise RequestRefused(415, f"a write is a form or JSON, not {kind or 'nothing'!r}")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > max_bytes:
            raise RequestRefused(413, f"a body may have at most {max_bytes} bytes")
    try:
        return _parse_json(bytes(raw)) if kind == JSON else _parse_form(bytes(raw))
    except (ValueError, RecursionError):
        raise RequestRefused(400, f"the body is not valid {kind}") from None


def _parse_form(raw: bytes) -> Mapping[str, Sequence[str]]:
    pairs = parse_qsl(
        raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
    )
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _parse_json(raw: bytes) -> Mapping[str, Sequence[str]]:
    # three times as fast as `json`, and refuses more than 200 levels of nesting
    parsed = from_json(raw)
    if not isinstance(parsed, dict):
        raise ValueError("not an object")  # noqa: TRY004  # the text is wrong, not a caller
    if len(parsed) > MAX_FIELDS:
        raise ValueError("too many fields")
    lists = {name: value if isinstance(value, list) else [value] for name, value in parsed.items()}
    if sum(map(len, lists.values())) > MAX_FIELDS:
        raise ValueError("too many values")
    return {name: [*map(_form_text, values)] for name, values in lists.items()}


def _form_text(value: Any) -> str:
    """The text that a form would send for a JSON value; of an object, its JSON text."""
    if isinstance(value, str):
        value.encode()  # raises ValueError for half of a surrogate pair, which nothing can store
        return value
    if value is True or value is False:
        return "on" if value else ""
    return "" if value is None else json.dumps(value)

"""Changes parts of a stored payload, and keeps every other byte of it.

A payload may have been written by any client: with other spaces, another order, numbers and escapes
in another spelling, fields that the model does not have, and values that it no longer allows. What
an edit does not change stays as that client wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic_core import PydanticSerializationError, to_json

from corral.errors import PayloadRefused
from corral.inspector.stored_job import parse_json
from corral.payload import unsafe_integers
from corral.queue import Queue

__all__ = ["FieldNames", "edit_payload", "field_names", "is_same_json", "members_by_field"]

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()


class FieldNames(NamedTuple):
    """The names that a field of a model has in JSON.

    Attributes:
        read: The names under which it is read, the first choice first.
        written: The name under which producers write it.
    """

    read: tuple[str, ...]
    written: str


class _Span(NamedTuple):
    """Where an item of a JSON list, or a member of a JSON object, is in its text.

    Attributes:
        name: The member's name; empty for an item of a list.
        start: Where it begins, with its name.
        value: Where its value begins.
        end: Where its value ends.
    """

    name: str
    start: int
    value: int
    end: int


def is_same_json(one: Any, other: Any) -> bool:
    """Whether two parsed JSON values are the same; unlike in Python, 1, 1.0 and true are three."""
    return one is other or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def members_by_field(queue: Queue[Any], data: Any) -> dict[str, Any]:
    """The members of a stored payload, under the names that the queue's JSON schema has for them.

    A field may be stored under another of its names, for example its Python name. Members that no
    field is read from keep their names.

    Args:
        queue: The queue.
        data: The payload as parsed from JSON; anything but an object has no members.
    """
    if not isinstance(data, dict):
        return {}
    members: dict[str, Any] = data
    fields = {stored: name for name, stored in _stored_names(queue.payload, members).items()}
    return {fields.get(name, name): value for name, value in members.items()}


def edit_payload(
    queue: Queue[Any], raw: bytes, payload: Mapping[str, Any]
) -> tuple[bytes, list[str]]:
    """Make the text of a new payload from the text of the stored one.

    Values that are the same in both keep their bytes, also inside of lists and objects that differ.
    Members that the queue's model does not have are kept. The new text is checked as a worker reads
    it; if nothing differs, it is the stored text, and nothing is checked.

    Args:
        queue: The queue.
        raw: The stored payload, the text of the job's field `data`.
        payload: The new payload: all of its fields, under any name that they have in JSON.

    Returns:
        The new text, and the sorted names of the members that differ.

    Raises:
        PayloadRefused: A worker could not read the new payload; or a changed field has a value that
            is not JSON, a member that the model does not have, or an integer that JavaScript cannot
            hold.
    """
    stored = parse_json(raw.decode(errors="replace"))
    old: dict[str, Any] = stored if isinstance(stored, dict) else {}
    new = _renamed(queue, old, payload)
    changed = sorted(
        name
        for name in old.keys() | new.keys()
        if name not in old or name not in new or not is_same_json(old[name], new[name])
    )
    if isinstance(stored, dict) and not changed:
        return raw, []
    try:
        text = _edited(raw, old, new) if isinstance(stored, dict) else _dumped(new)
    except ValueError:
        wrong = [name for name in changed if not _is_finite(new.get(name))]
        problem = "NaN and infinite numbers cannot be written as JSON"
        raise PayloadRefused(queue.name, tuple((name, problem) for name in wrong)) from None
    _ensure_readable(queue, text, old, {name: new[name] for name in changed if name in new})
    return text, changed


def _renamed(
    queue: Queue[Any], old: Mapping[str, Any], payload: Mapping[str, Any]
) -> dict[str, Any]:
    """The new payload with the names that its fields have in the stored one.

    What is stored and belongs to no field is added.
    """
    fields, stored = field_names(queue.payload), _stored_names(queue.payload, old)
    targets = {first: stored.get(first, field.written) for first, field in fields.items()}
    others = {name: targets[first] for first, field in fields.items() for name in field.read}
    names = others | targets
    new = {name: value for name, value in old.items() if name not in stored.values()}
    problems: list[tuple[str, str]] = []
    for name, value in payload.items():
        try:
            new[name if name in old else names.get(name, name)] = _as_json(value)
        except (ValueError, PydanticSerializationError):
            problems.append((name, "cannot be written as JSON"))
    if problems:
        raise PayloadRefused(queue.name, tuple(problems))
    return new


def _as_json(value: Any) -> Any:
    """A value as it is parsed from JSON; values of Python's types, such as a datetime, as texts."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return json.loads(to_json(value))


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def field_names(model: type[BaseModel]) -> dict[str, FieldNames]:
    """The names of a model's fields in JSON, by the name that its JSON schema has for them."""
    config = model.model_config
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    found: dict[str, FieldNames] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        paths = [each.path if isinstance(each, AliasPath) else [each] for each in choices if each]
        read = [str(path[0]) for path in paths if len(path) == 1]
        names = tuple(dict.fromkeys([*read, name] if by_name or alias is None else read))
        found[names[0] if names else name] = FieldNames(names, field.serialization_alias or name)
    return found


def _stored_names(model: type[BaseModel], data: Mapping[str, Any]) -> dict[str, str]:
    """The name under which each field is stored, by its name in the JSON schema.

    A field that is not stored has none.
    """
    return {
        first: next(name for name in field.read if name in data)
        for first, field in field_names(model).items()
        if any(name in data for name in field.read)
    }


def _ensure_readable(
    queue: Queue[Any], text: bytes, old: Mapping[str, Any], changed: Mapping[str, Any]
) -> None:
    """Refuse a payload that a worker cannot read, or whose changed fields a producer cannot write.

    Raises:
        PayloadRefused: It is such a payload; says what is wrong with which field.
    """
    try:
        _, unknown = queue.parsed(text)
    except PayloadRefused:
        raise
    except Exception as error:  # noqa: BLE001  # a validator of the model may raise anything
        problem = f"a worker cannot read it: {type(error).__name__} is raised"
        raise PayloadRefused(queue.name, (("", problem),)) from None
    known = {*_paths(old)}
    problems = [
        (path, "Extra inputs are not permitted")
        for path in sorted(unknown)
        if path.partition(".")[0] in changed and path not in known
    ]
    before = unsafe_integers(json.dumps(old).encode())
    after = unsafe_integers(json.dumps(changed).encode())
    problems += [each for each in after if each not in before]
    if problems:
        raise PayloadRefused(queue.name, tuple(problems))


def _paths(value: Any, path: str = "") -> list[str]:
    """The dotted names of all members inside of a value; positions in lists are left out."""
    if isinstance(value, list):
        return [each for item in value for each in _paths(item, path)]
    if not isinstance(value, dict):
        return []
    found: list[str] = []
    for name, each in value.items():
        inner = f"{path}.{name}" if path else name
        found += [inner, *_paths(each, inner)]
    return found


def _edited(raw: bytes, old: Any, new: Any) -> bytes:
    """The text of `new`, with the bytes that `raw`, the text of `old`, has for the same values."""
    if is_same_json(old, new):
        return raw
    if isinstance(old, dict) and isinstance(new, dict):
        return _edited_object(raw, old, new)
    if isinstance(old, list) and isinstance(new, list):
        return _edited_list(raw, old, new)
    return _dumped(new)


def _edited_object(raw: bytes, old: Mapping[str, Any], new: Mapping[str, Any]) -> bytes:
    spans = _spans(raw)
    last = {span.name: span for span in spans}  # readers take the last of several equal names
    parts: list[bytes] = []
    end = 0
    for span in spans:
        if span.name in new:
            value = raw[span.value : span.end]
            if span is last[span.name]:
                value = _edited(value, old[span.name], new[span.name])
            gap = raw[end : span.start] if parts else b""
            parts.append(gap + raw[span.start : span.value] + value)
        end = span.end
    for name, value in new.items():
        if name not in last:
            parts.append((b"," if parts else b"") + _dumped(name) + b":" + _dumped(value))
    return _with_borders(raw, spans, parts)


def _edited_list(raw: bytes, old: list[Any], new: list[Any]) -> bytes:
    spans = _spans(raw)
    texts = [raw[span.value : span.end] for span in spans]
    if len(old) == len(new):
        parts = [_edited(*each) for each in zip(texts, old, new, strict=True)]
        gaps = [b"", *(raw[one.end : other.start] for one, other in pairwise(spans))]
    else:
        known = {
            json.dumps(item, sort_keys=True): text
            for item, text in zip(reversed(old), reversed(texts), strict=True)
        }
        parts = [known.get(json.dumps(item, sort_keys=True)) or _dumped(item) for item in new]
        gaps = [b"", *[b","] * len(new)]
    return _with_borders(raw, spans, [gap + part for gap, part in zip(gaps, parts, strict=False)])


def _with_borders(raw: bytes, spans: list[_Span], parts: list[bytes]) -> bytes:
    """The parts between the brackets of the text, and with the space that surrounds them."""
    if spans:
        return b"".join([raw[: spans[0].start], *parts, raw[spans[-1].end :]])
    inside = raw.rstrip()[:-1]
    return b"".join([inside, *parts, raw[len(inside) :]])


def _spans(raw: bytes) -> list[_Span]:
    """The items of a list, or the members of an object, in the order of their text."""
    text = raw.decode("latin-1")  # one character per byte; what is not ASCII is inside of texts
    at = _blank(text, 0)
    is_object, at = text[at] == "{", _blank(text, at + 1)
    spans: list[_Span] = []
    while text[at] not in "}]":
        start, name = at, ""
        if is_object:
            _, at = _DECODER.raw_decode(text, at)
            name = json.loads(raw[start:at].decode(errors="replace"))
            at = _blank(text, _blank(text, at) + 1)
        value = at
        _, at = _DECODER.raw_decode(text, at)
        spans.append(_Span(name, start, value, at))
        at = _blank(text, at)
        at = _blank(text, at + 1) if text[at] == "," else at
    return spans


def _blank(text: str, at: int) -> int:
    """Where the next character is that is no space."""
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _dumped(value: Any) -> bytes:
    """A value as JSON text. Half of a surrogate pair becomes an escape, as JavaScript writes it.

    Raises:
        ValueError: It holds a NaN or an infinite number.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()

"""The form for a payload: one field per property of its model's JSON schema.

The form is built from the model, filled from a payload, and parsed back into one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat, zip_longest
from typing import Any, Final, Literal

from corral.board.job_view import MASK, is_masked_field, masked_schema
from corral.board.messages import first_value
from corral.errors import PayloadRefused
from corral.queue import Queue

__all__ = [
    "FormField",
    "build_form",
    "ensure_unmasked",
    "filled",
    "parse_form",
    "unmasked",
    "with_errors",
]

FieldKind = Literal["text", "long", "number", "choice", "json"]
MULTILINE: Final = 800
"""A text field for which the model allows more characters than this has several lines."""


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the form.

    Attributes:
        name: The property's name in JSON.
        kind: How the browser shows it; `json` for all but texts, numbers and choices.
        required: Whether the payload must have it.
        choices: The choices as JSON texts; a boolean is a choice, too.
        hint: What the model says about it: description, type, bounds, default.
        value: Its present text.
        error: What is wrong with that text, or empty.
        secret: Whether it is masked: its stored value is not shown, and an empty field keeps it.
    """

    name: str
    kind: FieldKind
    required: bool
    choices: tuple[str, ...] = ()
    hint: str = ""
    value: str = ""
    error: str = ""
    secret: bool = False


def build_form(queue: Queue[Any]) -> tuple[FormField, ...]:
    """The empty form for a queue's payload."""
    schema = masked_schema(queue)
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    return tuple(
        _build_field(queue, name, _resolved(prop, definitions), name in required)
        for name, prop in schema.get("properties", {}).items()
    )


def _build_field(
    queue: Queue[Any], name: str, prop: Mapping[str, Any], required: bool
) -> FormField:
    kind, choices = _kind_of(prop)
    words = [prop.get("description", ""), _type_in_words(prop)]
    if not required and prop.get("default") not in (None, ""):
        words.append(f"{json.dumps(prop['default'], ensure_ascii=False)} by default")
    hint = "; ".join(filter(None, words))
    return FormField(name, kind, required, choices, hint, secret=is_masked_field(queue, name))


def _resolved(prop: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A property with its reference resolved, and without `or null` where one type remains."""
    own = {key: value for key, value in prop.items() if key not in {"$ref", "anyOf", "allOf"}}
    if "$ref" in prop:
        return {**definitions.get(str(prop["$ref"]).rpartition("/")[2], {}), **own}
    choices = [each for each in prop.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) == 1:
        return {**_resolved(choices[0], definitions), **own}
    return own


def _kind_of(prop: Mapping[str, Any]) -> tuple[FieldKind, tuple[str, ...]]:
    if "enum" in prop or "const" in prop:
        return "choice", tuple(json.dumps(each) for each in prop.get("enum", [prop.get("const")]))
    match prop.get("type"):
        case "boolean":
            return "choice", ("true", "false")
        case "integer" | "number":
            return "number", ()
        case "string":
            return ("long" if prop.get("maxLength", 0) > MULTILINE else "text"), ()
        case _:
            return "json", ()


def _type_in_words(prop: Mapping[str, Any]) -> str:
    words = [str(prop.get("format") or prop.get("type") or "JSON").replace("string", "text")]
    for key, word in (
        ("minimum", "from"),
        ("maximum", "to"),
        ("minLength", "at least"),
        ("maxLength", "at most"),
    ):
        if key in prop:
            words.append(f"{word} {prop[key]}{' characters' if 'Length' in key else ''}")
    return " ".join(words) if words != ["text"] else ""


def filled(fields: tuple[FormField, ...], data: Mapping[str, Any]) -> tuple[FormField, ...]:
    """The form with a payload's values; fields of secrets stay empty."""
    return tuple(
        replace(field, value=_field_text(field, data[field.name]))
        if field.name in data and not field.secret
        else replace(field, value="")
        for field in fields
    )


def _field_text(field: FormField, value: Any) -> str:
    if field.kind in {"text", "long"} and isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2 if field.kind == "json" else None)


def parse_form(
    fields: tuple[FormField, ...], form: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[FormField, ...]]:
    """Parse what was typed into the form.

    Args:
        fields: The form.
        form: The request's fields; those of the payload begin with `data.`.

    Returns:
        The payload as parsed JSON, without the fields that were left empty; and the form with what
        was typed, and with an error at each field that could not be parsed.
    """
    data: dict[str, Any] = {}
    typed: list[FormField] = []
    for field in fields:
        text = first_value(form, f"data.{field.name}").replace("\r\n", "\n")
        error = ""
        if text:
            try:
                data[field.name] = text if field.kind in {"text", "long"} else json.loads(text)
            except (ValueError, RecursionError):
                error = "this is not a number" if field.kind == "number" else "this is not JSON"
                data[field.name] = None
        typed.append(replace(field, value="" if field.secret else text, error=error))
    return data, tuple(typed)


def with_errors(
    fields: tuple[FormField, ...], refused: PayloadRefused
) -> tuple[tuple[FormField, ...], tuple[str, ...]]:
    """The form with each error at its field, and the errors that belong to no field."""
    messages: dict[str, list[str]] = {}
    names = {field.name for field in fields}
    elsewhere: list[str] = []
    for path, message in refused.errors:
        name, _, below = path.partition(".")
        if name in names:
            messages.setdefault(name, []).append(f"{below}: {message}" if below else message)
        else:
            elsewhere.append(f"{path}: {message}" if path else message)
    judged = tuple(
        replace(field, error=field.error or "; ".join(messages.get(field.name, ())))
        for field in fields
    )
    return judged, tuple(elsewhere)


def unmasked(new: Any, old: Any, seen: Any = MASK) -> Any:
    """A payload from the form, with every value that was left masked replaced by the stored one.

    Args:
        new: What was typed.
        old: What is stored.
        seen: What the form showed of `old`. It is not always the whole mask: of a text that
            contains a secret only that part is masked, and very deep values are cut.
    """
    if new in (MASK, seen):
        return old
    if isinstance(new, dict):
        stored, shown = (each if isinstance(each, dict) else {} for each in (old, seen))
        return {
            name: unmasked(value, stored.get(name), shown.get(name, MASK))
            for name, value in new.items()
        }
    if isinstance(new, list):
        stored_items, shown_items = (each if isinstance(each, list) else [] for each in (old, seen))
        pairs = zip_longest(stored_items, shown_items, fillvalue=None)
        return [
            unmasked(value, *pair)
            for value, pair in zip(new, chain(pairs, repeat((None, MASK))), strict=False)
        ]
    return new


def ensure_unmasked(queue: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a payload in which no mask is left.

    Raises:
        PayloadRefused: A text was edited around a mask. The masked part is not known here, and the
            bullets of the mask must not be stored in its place.
    """
    message = "part of this text is masked: leave the whole text as it is, or type all of it anew"
    errors = tuple(
        (name, message)
        for name, value in data.items()
        if MASK in json.dumps(value, ensure_ascii=False)
    )
    if errors:
        raise PayloadRefused(queue, errors)
    return data

"""A form made from a payload model: one field per property of its JSON schema, and back to a
payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat, zip_longest
from typing import Any, Final, Literal

from corral.board.job_view import MASK, is_secret, schema_shown
from corral.board.messages import first
from corral.errors import PayloadRefused
from corral.queue import Queue

__all__ = ["Field", "checked_whole", "fields_of", "filled", "parsed", "unmasked", "with_errors"]

Kind = Literal["text", "long", "number", "choice", "json"]
LONG: Final = 80
"""A text with more characters, or of which the model allows more than so many times ten, has
several lines.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form.

    Attributes:
        name: As JSON spells it.
        kind: What the browser shows; `json` for whatever is no text, number or choice.
        required: Whether the payload cannot do without.
        choices: Of a `choice`, as JSON texts; a boolean is one, too.
        hint: What the model says of it: its type, its bounds, its description.
        value: What it holds.
        error: What is wrong with that, or empty.
        secret: Whether it is masked: what is stored is not shown, and an empty field leaves it as
        it is.
    """

    name: str
    kind: Kind
    required: bool
    choices: tuple[str, ...] = ()
    hint: str = ""
    value: str = ""
    error: str = ""
    secret: bool = False


def fields_of(queue: Queue[Any]) -> tuple[Field, ...]:
    """The empty form of a queue's payload."""
    schema = schema_shown(queue)
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    return tuple(
        _field(queue, name, _resolved(prop, definitions), name in required)
        for name, prop in schema.get("properties", {}).items()
    )


def _field(queue: Queue[Any], name: str, prop: Mapping[str, Any], required: bool) -> Field:
    kind, choices = _kind(prop)
    words = [prop.get("description", ""), _type_in_words(prop)]
    if not required and prop.get("default") not in (None, ""):
        words.append(f"{json.dumps(prop['default'], ensure_ascii=False)} by default")
    hint = "; ".join(filter(None, words))
    return Field(name, kind, required, choices, hint, secret=is_secret(queue, name))


def _resolved(prop: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A property without references and without `or null`, as far as that leaves one type."""
    own = {key: value for key, value in prop.items() if key not in {"$ref", "anyOf", "allOf"}}
    if "$ref" in prop:
        return {**definitions.get(str(prop["$ref"]).rpartition("/")[2], {}), **own}
    choices = [each for each in prop.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) == 1:
        return {**_resolved(choices[0], definitions), **own}
    return own


def _kind(prop: Mapping[str, Any]) -> tuple[Kind, tuple[str, ...]]:
    if "enum" in prop or "const" in prop:
        return "choice", tuple(json.dumps(each) for each in prop.get("enum", [prop.get("const")]))
    match prop.get("type"):
        case "boolean":
            return "choice", ("true", "false")
        case "integer" | "number":
            return "number", ()
        case "string":
            return ("long" if prop.get("maxLength", 0) > LONG * 10 else "text"), ()
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


def filled(fields: tuple[Field, ...], data: Mapping[str, Any]) -> tuple[Field, ...]:
    """The form, filled with a payload; what is secret stays empty."""
    return tuple(
        replace(
            field,
            value=""
            if field.secret or field.name not in data
            else _written(field, data[field.name]),
        )
        for field in fields
    )


def _written(field: Field, value: Any) -> str:
    if field.kind in {"text", "long"} and isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2 if field.kind == "json" else None)


def parsed(
    fields: tuple[Field, ...], form: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Field, ...]]:
    """What a form holds, and the form with what was typed; a field that cannot be read says so.

    Args:
        fields: The form.
        form: The request's fields; those of the payload begin with `data.`.

    Returns:
        The payload as JSON would parse it, without the fields that are empty; and the fields.
    """
    data: dict[str, Any] = {}
    typed: list[Field] = []
    for field in fields:
        text = first(form, f"data.{field.name}").replace("\r\n", "\n")
        error = ""
        if text:
            try:
                data[field.name] = text if field.kind in {"text", "long"} else json.loads(text)
            except (ValueError, RecursionError):
                error = "this is no number" if field.kind == "number" else "this is no JSON"
                data[field.name] = None
        typed.append(replace(field, value="" if field.secret else text, error=error))
    return data, tuple(typed)


def with_errors(
    fields: tuple[Field, ...], refused: PayloadRefused
) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    """The form with each error at its field; and the errors that are at none."""
    told: dict[str, list[str]] = {}
    names = {field.name for field in fields}
    elsewhere: list[str] = []
    for path, message in refused.errors:
        name, _, below = path.partition(".")
        if name in names:
            told.setdefault(name, []).append(f"{below}: {message}" if below else message)
        else:
            elsewhere.append(f"{path}: {message}" if path else message)
    judged = tuple(
        replace(field, error=field.error or "; ".join(told.get(field.name, ()))) for field in fields
    )
    return judged, tuple(elsewhere)


def unmasked(new: Any, old: Any, seen: Any = MASK) -> Any:
    """A payload in which what was masked is what is stored: nobody has typed it anew.

    Args:
        new: What was typed.
        old: What is stored.
        seen: What was shown of that: a text in which a secret stands is masked in part, and what is
        very deep cut.
    """
    if new in (MASK, seen):
        return old
    if isinstance(new, dict):
        before, shown = (each if isinstance(each, dict) else {} for each in (old, seen))
        return {
            name: unmasked(value, before.get(name), shown.get(name, MASK))
            for name, value in new.items()
        }
    if isinstance(new, list):
        behind, shown_behind = (each if isinstance(each, list) else [] for each in (old, seen))
        pairs = zip_longest(behind, shown_behind, fillvalue=None)
        return [
            unmasked(value, *pair)
            for value, pair in zip(new, chain(pairs, repeat((None, MASK))), strict=False)
        ]
    return new


def checked_whole(queue: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A payload in which no mask is left.

    Raises:
        PayloadRefused: A mask was edited in part: what stood there is not known, and must not
        become bullets.
    """
    told = "a masked part stays only where the whole text is left as it is: write it anew"
    halves = tuple(
        (name, told)
        for name, value in data.items()
        if MASK in json.dumps(value, ensure_ascii=False)
    )
    if halves:
        raise PayloadRefused(queue, halves)
    return data

"""The form for a payload: one field per property of its model's JSON schema.

The form is built from the model and filled from a payload. What comes back is compared with what
the form showed: only a field whose text differs is read, and every other one keeps its stored
value. So an edit changes nothing but what a person has changed, whatever a form or a browser makes
of a value on its way: masks, line breaks, another spelling of a number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from corral.board.job_view import MASK, MAX_SHOWN, is_masked_field, masked_schema
from corral.board.messages import first_value
from corral.errors import PayloadRefused
from corral.inspector.payload_edit import field_names, is_same_json
from corral.queue import Queue

__all__ = [
    "FormField",
    "TypedPayload",
    "build_form",
    "filled",
    "parse_form",
    "with_errors",
]

FieldKind = Literal["text", "long", "number", "choice", "json"]
EmptyMeaning = Literal["absent", "null", "empty", "kept"]
MEANINGS: Final[Mapping[EmptyMeaning, str]] = {
    "kept": "keep the stored value",
    "absent": "leave it out",
    "null": "null",
    "empty": "an empty text",
}
"""What an empty field can stand for, and the words for it."""
MULTILINE: Final = 800
"""A text field for which the model allows more characters than this has several lines."""
STARS: Final = "***"
"""What `corral.redactor.masked` shows in the place of a URL's password."""
MASKED: Final = "part of this is masked: leave the masked text as it is, or type all of it anew"
CUT: Final = f"this is longer than the {MAX_SHOWN:,} characters shown here: it cannot be changed"
CHANGED_MEANWHILE: Final = (
    "somebody else has changed this since the page was opened; to replace it, send the form again. "
    "It is now:"
)

_ONE_LINE: Final = re.compile(r"[^\x00-\x1f\x7f\x85\u2028\u2029]*")
"""Texts that a field of one line can hold: browsers remove line breaks there."""
_UNSHOWN: Final = re.compile("[\x00\ud800-\udfff]")
"""Characters that no page can hold; browsers show U+FFFD in their place."""
_CHARACTER: Final = re.compile(r"\r\n|[\s\S]")


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
        empty: What it stands for while it is empty.
        meanings: What an empty field can stand for; where there are several, the form asks.
        names: All names that it may have in a stored payload.
        mark: A digest of what the form shows in this field. The browser sends it back, which tells
            what was changed there from what was changed in the store meanwhile.
    """

    name: str
    kind: FieldKind
    required: bool
    choices: tuple[str, ...] = ()
    hint: str = ""
    value: str = ""
    error: str = ""
    secret: bool = False
    empty: EmptyMeaning = "absent"
    meanings: tuple[EmptyMeaning, ...] = ("absent",)
    names: tuple[str, ...] = ()
    mark: str = ""

    def meaning_label(self, meaning: EmptyMeaning) -> str:
        """The words for what an empty field can stand for."""
        return MEANINGS[meaning]

    def choice_label(self, choice: str) -> str:
        """How a choice is shown: without quotation marks, if it is then no other JSON value."""
        plain = choice.strip('"')
        return choice if not plain or _is_json(plain) else plain


@dataclass(frozen=True, slots=True)
class TypedPayload:
    """What a form came back with.

    Attributes:
        payload: The whole payload as parsed JSON, by the names of the form's fields: what was
            typed, and what is stored where nothing was typed.
        fields: The form with what was typed, and an error at each field that cannot be read.
        is_changed: Whether any field differs from what the form showed.
    """

    payload: dict[str, Any]
    fields: tuple[FormField, ...]
    is_changed: bool

    @property
    def has_errors(self) -> bool:
        """Whether any field has an error."""
        return any(field.error for field in self.fields)


class _NotTypable(Exception):
    """A value was typed that cannot be stored; the text says why."""


def build_form(queue: Queue[Any]) -> tuple[FormField, ...]:
    """The empty form for a queue's payload."""
    schema = masked_schema(queue)
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    return tuple(
        _build_field(queue, name, prop, definitions, name in required)
        for name, prop in schema.get("properties", {}).items()
    )


def _build_field(
    queue: Queue[Any],
    name: str,
    declared: Mapping[str, Any],
    definitions: Mapping[str, Any],
    required: bool,
) -> FormField:
    prop = _resolved(declared, definitions)
    kind, choices = _kind_of(prop)
    meanings: tuple[EmptyMeaning, ...] = ("absent",)
    if kind in {"text", "long"}:
        meanings = (
            ("absent", "null", "empty")
            if _takes_null(declared, definitions)
            else ("absent", "empty")
        )
    elif kind == "choice" and _takes_null(declared, definitions):
        choices = tuple(dict.fromkeys((*choices, "null")))
    words = [prop.get("description", ""), _type_in_words(prop)]
    if not required and prop.get("default") not in (None, ""):
        words.append(f"{json.dumps(prop['default'], ensure_ascii=False)} by default")
    hint = "; ".join(filter(None, words))
    secret = is_masked_field(queue, name)
    known = field_names(queue.payload).get(name)
    names = known.read if known else ()
    return _marked(
        FormField(
            name, kind, required, choices, hint, secret=secret, meanings=meanings, names=names
        )
    )


def _resolved(prop: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A property with its reference resolved, and without `or null` where one type remains."""
    own = {key: value for key, value in prop.items() if key not in {"$ref", "anyOf", "allOf"}}
    if "$ref" in prop:
        return {**definitions.get(str(prop["$ref"]).rpartition("/")[2], {}), **own}
    choices = [each for each in prop.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) == 1:
        return {**_resolved(choices[0], definitions), **own}
    return own


def _takes_null(prop: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether a property may be null."""
    resolved = _resolved(prop, definitions)
    return (
        any(each.get("type") == "null" for each in prop.get("anyOf", ()))
        or resolved.get("type") == "null"
        or None in resolved.get("enum", ())
    )


def _kind_of(prop: Mapping[str, Any]) -> tuple[FieldKind, tuple[str, ...]]:
    if "enum" in prop or "const" in prop:
        return "choice", tuple(map(_json_line, prop.get("enum", [prop.get("const")])))
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


def filled(
    fields: tuple[FormField, ...], data: Mapping[str, Any], shown: Mapping[str, Any]
) -> tuple[FormField, ...]:
    """The form with a payload's values; fields of secrets stay empty.

    Args:
        fields: The empty form.
        data: The stored payload, by the names of the fields.
        shown: The same payload with its secrets masked.
    """
    return tuple(
        _marked(_filled(field, data[field.name], shown.get(field.name, MASK)))
        if field.name in data
        else field
        for field in fields
    )


def _filled(field: FormField, stored: Any, shown: Any) -> FormField:
    """A field with a value that can be typed back: the same text never stands for two values."""
    is_text = field.kind in {"text", "long"}
    several_lines = isinstance(stored, str) and not _ONE_LINE.fullmatch(stored)
    kind: FieldKind = "long" if field.kind == "text" and several_lines else field.kind
    if field.secret:
        return replace(field, kind=kind, empty="kept", meanings=("kept", *field.meanings))
    if is_text and shown in (None, ""):
        empty: EmptyMeaning = "null" if shown is None else "empty"
        return replace(field, empty=empty, meanings=tuple(dict.fromkeys((*field.meanings, empty))))
    if is_text and isinstance(shown, str):
        return replace(field, kind=kind, value=_page_text(shown))
    if is_text or field.kind == "json":
        text = json.dumps(shown, ensure_ascii=False, indent=2)
        return replace(field, kind="json", value=text, meanings=("absent",))
    text = _json_line(shown)
    return replace(
        field,
        value=text,
        choices=tuple(dict.fromkeys((*field.choices, text))) if field.kind == "choice" else (),
    )


def _json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _page_text(text: str) -> str:
    """A text as a browser has it in a field of several lines."""
    return _UNSHOWN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _marked(field: FormField) -> FormField:
    return replace(field, mark=_digest(field.value, field.empty))


def _digest(text: str, empty: str) -> str:
    shown = json.dumps([text, "" if text else empty])
    return hashlib.blake2b(shown.encode(), digest_size=12).hexdigest()


def parse_form(
    fields: tuple[FormField, ...],
    form: Mapping[str, Sequence[str]],
    data: Mapping[str, Any],
    shown: Mapping[str, Any],
) -> TypedPayload:
    """Parse what came back from a form.

    Args:
        fields: The form as it would be shown now: empty, or with the stored payload.
        form: The request's fields. Those of the payload begin with `data.`; a field that is not
            there was not changed. `empty.` tells what an empty one stands for, and `shown.` has the
            mark of what the form showed.
        data: The stored payload, by the names of the fields; empty for a new job.
        shown: The same payload with its secrets masked.
    """
    payload = dict(data)
    typed: list[FormField] = []
    is_changed = False
    for field in fields:
        text, empty = _typed(field, form)
        seen = first_value(form, f"shown.{field.name}", field.mark)
        if _digest(text, empty) in {seen, field.mark}:
            typed.append(field)
            continue
        is_changed = True
        errors = [] if seen == field.mark else [f"{CHANGED_MEANWHILE} {_present_text(field)}"]
        payload.pop(field.name, None)
        try:
            if text:
                old, visible = data.get(field.name), shown.get(field.name, MASK)
                payload[field.name] = _parsed(field, text, old, visible)
            elif empty != "absent":
                payload[field.name] = None if empty == "null" else ""
        except _NotTypable as wrong:
            errors.append(str(wrong))
        value = "" if field.secret else text
        typed.append(replace(field, value=value, empty=empty, error="; ".join(errors)))
    return TypedPayload(payload, tuple(typed), is_changed)


def _typed(field: FormField, form: Mapping[str, Sequence[str]]) -> tuple[str, EmptyMeaning]:
    """The text of a field as a browser sends it back, and what it stands for if it is empty."""
    if f"data.{field.name}" not in form:
        return field.value, field.empty
    text = _page_text(first_value(form, f"data.{field.name}"))
    asked = first_value(form, f"empty.{field.name}", field.empty)
    return text, next((each for each in field.meanings if each == asked), "absent")


def _present_text(field: FormField) -> str:
    if not field.value:
        return MEANINGS[field.empty] if field.empty != "absent" else "left out"
    return field.value if len(field.value) <= 200 else f"{field.value[:200]}…"


def _parsed(field: FormField, text: str, old: Any, seen: Any) -> Any:
    """The value of a text that was typed into a field.

    Raises:
        _NotTypable: It is not JSON, or a part that is not shown would be lost.
    """
    if field.kind in {"text", "long"}:
        value: Any = _corrected(old, text) if not field.secret and isinstance(old, str) else text
    else:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            kind = "a number" if field.kind == "number" else "JSON"
            raise _NotTypable(f"this is not {kind}") from None
    if field.secret:
        return _new_value(value, (MASK,))
    # A password in a URL is shown as `***`, which other texts may hold, too.
    stars = _json_line(seen).count(STARS) > _json_line(old).count(STARS)
    return _merged(value, old, seen, (MASK, STARS) if stars else (MASK,))


def _corrected(old: str, text: str) -> str:
    """The stored text with the change that was made to it in the browser.

    What stands before and after the change keeps its line breaks and its characters that no page
    can hold.
    """
    characters = _CHARACTER.findall(old)
    page = _page_text(old)
    start = _common_length(page, text)
    end = _common_length(page[start:][::-1], text[start:][::-1])
    between = text[start : len(text) - end]
    line_break = next((each for each in characters if each in {"\r\n", "\r", "\n"}), "\n")
    kept = characters[:start], characters[len(characters) - end :]
    return "".join([*kept[0], between.replace("\n", line_break), *kept[1]])


def _common_length(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _merged(new: Any, old: Any, seen: Any, masks: tuple[str, ...]) -> Any:
    """A value from the form, with what the form did not show as it is stored.

    Args:
        new: What was typed.
        old: What is stored.
        seen: What the form showed of it: parts that hold secrets are masked, and very long or very
            deep parts are cut.
        masks: The texts that stand for what is masked.

    Raises:
        _NotTypable: A mask or a cut text stands where nothing is stored that it stands for. It must
            not be stored itself.
    """
    if is_same_json(new, seen):
        return old
    if isinstance(new, dict) and isinstance(old, dict) and isinstance(seen, dict):
        return {
            name: _merged(value, old[name], seen[name], masks)
            if name in old and name in seen
            else _new_value(value, masks)
            for name, value in new.items()
        }
    if isinstance(new, list) and isinstance(old, list) and isinstance(seen, list):
        return _merged_list(new, old, seen, masks)
    if isinstance(old, str) and isinstance(seen, str) and len(old) > len(seen) == MAX_SHOWN:
        raise _NotTypable(CUT)
    return _new_value(new, masks)


def _merged_list(
    new: list[Any], old: list[Any], seen: list[Any], masks: tuple[str, ...]
) -> list[Any]:
    """A list from the form. An item that is shown unchanged is found again where it was moved."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(seen):
        places.setdefault(_json_line(item), []).append(place)
    found: dict[int, int] = {}
    is_in_place = len(new) == len(seen)
    for place, item in enumerate(new):
        equal = places.get(_json_line(item), [])
        if is_in_place and place in equal:
            found[place] = place
        elif equal and all(is_same_json(old[each], old[equal[0]]) for each in equal):
            found[place] = equal[0]
    is_in_place = is_in_place and all(place == was for place, was in found.items())
    return [
        old[found[place]]
        if place in found
        else _merged(item, old[place], seen[place], masks)
        if is_in_place
        else _new_value(item, masks)
        for place, item in enumerate(new)
    ]


def _new_value(value: Any, masks: tuple[str, ...]) -> Any:
    text = _json_line(value)
    if any(mask in text for mask in masks):
        raise _NotTypable(MASKED)
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def with_errors(
    fields: tuple[FormField, ...], refused: PayloadRefused
) -> tuple[tuple[FormField, ...], tuple[str, ...]]:
    """The form with each error at its field, and the errors that belong to no field."""
    messages: dict[str, list[str]] = {}
    fields_by_name = {name: field.name for field in fields for name in (*field.names, field.name)}
    elsewhere: list[str] = []
    for path, message in refused.errors:
        # names may have dots
        own = [name for name in fields_by_name if path == name or path.startswith(f"{name}.")]
        if own:
            name = max(own, key=len)
            below = path[len(name) + 1 :]
            said = f"{below}: {message}" if below else message
            messages.setdefault(fields_by_name[name], []).append(said)
        else:
            elsewhere.append(f"{path}: {message}" if path else message)
    judged = tuple(
        replace(field, error=field.error or "; ".join(messages.get(field.name, ())))
        for field in fields
    )
    return judged, tuple(elsewhere)

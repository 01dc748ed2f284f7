"""`Redactor`: masks what is secret in one job.

Logs, stack traces and the board show nothing that has not been through one.

Secret is a field that the payload's model marks so (`SecretStr`, or
`json_schema_extra={"writeOnly": True}`), and, of whichever job, a field whose name says so. Its
value is masked there, and wherever else the job repeats it: as it is, or as JSON, Python, HTML, a
URL or base64 spells it. Nothing is promised of a secret of fewer than `SHORTEST` characters.

Every text is read once, whatever it holds: what a job carries must not cost its reader more than
its length.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

__all__ = [
    "MASK",
    "SHORTEST",
    "Redactor",
    "is_secret_name",
    "masked",
    "may_hold_secrets",
    "secret_names",
]

MASK: Final = "••••••"
SHORTEST: Final = 4
"""A secret of fewer characters is masked in its field only: elsewhere it would be found in every
other word.
"""
LINE: Final = 8
"""Of a secret of several lines, one of so many characters is a secret, too: a log has it as a line
of its own.
"""
DEEPEST: Final = 50
"""Further inside of a value nothing is shown: Python would end at some 300."""
EFFORT: Final = 1_000_000
"""How much is compared for one job, in steps of `STEP` characters; what would need more is masked
whole.
"""
STEP: Final = 64
MOST: Final = 2000
"""Secrets of one job; where it has more, all of its texts are masked whole."""
LONGEST: Final = 200_000
"""Characters of one text inside of a value that are shown."""
CUT: Final = 8192
"""So many characters at an end of a text are looked at for a secret that was cut off there."""

_NAMES: Final = re.compile(
    r"pass(word|wd|phrase|code|wort)|pwd|secret|token|authori[sz]ation|credential|cookie|signature|jwt|bearer"
    r"|(api|access|private|signing|encryption)[-_ ]?key|session[-_ ]?(id|key)|(^|[-_.])(pin|otp|auth)$|[a-z]Otp$|otp$",
    re.IGNORECASE,
)
"""Names of fields that hold secrets, whoever wrote the job."""

_USER: Final = re.compile(r"""://[^\s/?#:@"']*:(?!\d{1,5}(?:[/?#\s"']|$))""")
"""A URL with a user, perhaps an empty one, and then no port."""
_AUTHORITY: Final = re.compile(r"""[^\s/?#"']*""")
_STOP: Final = re.compile(r"""[\s@"']|$""")
_PASSWORD_OPTION: Final = re.compile(r"""([?&]password=)[^\s&#"']*""", re.IGNORECASE)

_HALVES: Final = re.compile("[\\ud800-\\udfff]")
_SCHEME: Final = re.compile(r"\b(Bearer|Basic)(\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE)
"""Credentials as HTTP's `Authorization` has them."""
_MEMBER: Final = re.compile(
    r"""(\\{0,7}["'])([\w.$-]{1,80})\1\s{0,8}:\s{0,8}   # "name": of JSON, of a dict's repr, of JSON within JSON
    |\b([\w.-]{1,80})=(?![=\s]|\.\.\.)                  # name=value of a call, a repr, a query""",
    re.VERBOSE,
)
_VALUE: Final = re.compile(
    r"""b?(\\{0,7}["'])(?s:.*?)(?<!\\)\1|b?\\{0,7}["'](?s:.*)|\[[^\]]*\]?|\{[^}]*\}?|[^\s,;&)}\]"']+"""
)


def masked(text: str) -> str:
    """The text with `***` for the password of every URL in it, so that it can be shown."""
    if "://" not in text:
        return text
    parts, done, stop = [], 0, -1
    for user in _USER.finditer(text):
        start = user.end()
        if start < done:
            continue
        # Up to the last @ before the path; SQL's URLs may have / in a password, and then it is the
        # first.
        end = text.rfind("@", start, _AUTHORITY.match(text, start).end())  # type: ignore[union-attr]  # it may be empty
        if end < 0:
            stop = _STOP.search(text, start).start() if stop < start else stop  # type: ignore[union-attr]  # or the end
            end = stop if text.startswith("@", stop) else -1
        if end >= 0:
            parts += [text[done:start], "***"]
            done = end
    return _PASSWORD_OPTION.sub(r"\1***", "".join([*parts, text[done:]]))


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, whatever it is a field of."""
    return _NAMES.search(name[:500]) is not None


def secret_names(model: type[BaseModel]) -> frozenset[str]:
    """The names of the fields that a model marks secret, nested ones included, in small letters
    without `-` and `_`.
    """
    return _secret_names(model)


def may_hold_secrets(model: type[BaseModel]) -> bool:
    """Whether a model has fields that are secret, or that may hold anything."""
    return _may_hold_secrets(model)


@lru_cache(maxsize=256)
def _secret_names(model: type[BaseModel]) -> frozenset[str]:
    names: set[str] = set()
    for by_alias in (True, False):
        schema = model.model_json_schema(by_alias=by_alias)
        definitions = schema.get("$defs", {})
        for each in (schema, *definitions.values()):
            fields = each.get("properties", {}).items()
            names.update(_plain(name) for name, field in fields if is_marked(field, definitions))
    return frozenset(names)


@lru_cache(maxsize=256)
def _may_hold_secrets(model: type[BaseModel]) -> bool:
    schema = model.model_json_schema(by_alias=True)
    fields = [
        pair
        for each in (schema, *schema.get("$defs", {}).values())
        for pair in each.get("properties", {}).items()
    ]
    return bool(secret_names(model)) or any(
        is_secret_name(name) or _is_open(field) for name, field in fields
    )


def _is_open(field: Any) -> bool:
    """Whether a field may hold members of any name."""
    if not isinstance(field, dict):
        return bool(field)
    inner = [
        each for key in ("anyOf", "oneOf", "allOf", "prefixItems") for each in field.get(key, ())
    ]
    inner += [field["items"]] if "items" in field else []
    is_any = not field.keys() & {"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf"}
    return is_any or field.get("type") == "object" or any(map(_is_open, inner))


def is_marked(field: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether a field's schema says that it, or what it is a list or a mapping of, is secret."""
    if field.get("writeOnly") or field.get("format") == "password" or depth > DEEPEST:
        return True
    inner = [
        each for key in ("anyOf", "oneOf", "allOf", "prefixItems") for each in field.get(key, ())
    ]
    inner += [
        field[key] for key in ("items", "additionalProperties") if isinstance(field.get(key), dict)
    ]
    inner += [definitions.get(str(field["$ref"]).rpartition("/")[2], {})] if "$ref" in field else []
    inner += field.get("patternProperties", {}).values()
    return any(
        is_marked(each, definitions, depth + 1) for each in inner if "properties" not in each
    )


def _plain(name: str) -> str:
    """A name as every client may spell it: `resetCode`, `reset_code`, `Reset-Code`."""
    return name.replace("_", "").replace("-", "").casefold()


class Redactor:
    """Masks what is secret in one job.

    Args:
        names: What `secret_names` says of the queue's payload model.
        data: The payload, as JSON was parsed: its secrets are looked for everywhere. A text was no
        JSON.
    """

    def __init__(self, names: frozenset[str] = frozenset(), data: Any = None) -> None:
        self._names = names
        self._effort = EFFORT
        secrets = set(self._secrets(data))
        if len(secrets) > MOST:
            self._effort, secrets = -1, {MASK}
        spelt = {each for text in secrets for each in _spellings(text) if len(each) >= SHORTEST}
        self._whole = frozenset(spelt)
        self._of_head: dict[str, list[str]] = {}
        for each in sorted(spelt, key=len, reverse=True):
            self._of_head.setdefault(each[:SHORTEST], []).append(each)
        columns = [{head[place] for head in self._of_head} for place in range(SHORTEST)]
        first, *more = ["[" + "".join(map(re.escape, sorted(column))) + "]" for column in columns]
        # Reads a text at C's speed; what it finds is then looked up.
        self._heads = re.compile(f"{first}(?={''.join(more)})") if spelt else None

    @property
    def is_needed(self) -> bool:
        """Whether the payload has a secret."""
        return self._heads is not None

    def text(self, text: str) -> str:
        """A text without the payload's secrets, and without what looks like credentials."""
        clear = self._without_credentials(_writable(text))
        return (
            self._without(clear, [*self._places(clear), *self._cut(clear)])
            if self._heads
            else clear
        )

    def broken(self, text: str) -> str:
        """A payload that was no JSON, as far as nothing in it is called a secret."""
        found = min(
            (m.end() for m in (_NAMES.search(text), self._marked_in(text)) if m), default=None
        )
        return self.text(text) if found is None else f"{self.text(text[:found])}{MASK}"

    def value(self, value: Any, depth: int = 0) -> Any:
        """A JSON value, as `text`."""
        if isinstance(value, str):
            return (
                self._whole_text(value[: 2 * LONGEST])[:LONGEST]
                if len(value) >= SHORTEST
                else _writable(value)
            )
        if isinstance(value, dict | list | tuple) and depth > DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            return {
                self._whole_text(str(name)): self._field(str(name), each, depth)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(each, depth + 1) for each in value]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return MASK if is_number and self._whole and _digits(value) in self._whole else value

    def is_secret(self, name: str) -> bool:
        """Whether a field of this name is masked."""
        return is_secret_name(name) or _plain(name) in self._names

    def _field(self, name: str, value: Any, depth: int) -> Any:
        return (
            MASK
            if value not in (None, "") and self.is_secret(name)
            else self.value(value, depth + 1)
        )

    def _secrets(self, data: Any) -> Iterator[str]:
        left: list[tuple[Any, bool]] = [(data, False)]
        while left:
            value, hidden = left.pop()
            if isinstance(value, Mapping):
                for name, each in value.items():
                    left.append((each, hidden or self.is_secret(str(name))))
                    if hidden and any(
                        map(str.isdigit, str(name))
                    ):  # no field's name: it is a token itself
                        yield str(name)
            elif isinstance(value, list | tuple):
                left += [(each, hidden) for each in value]
            elif hidden and value is not None and not isinstance(value, bool):
                yield _writable(value) if isinstance(value, str) else _digits(value)

    def _marked_in(self, text: str) -> re.Match[str] | None:
        names = "|".join("[-_]?".join(map(re.escape, name)) for name in sorted(self._names))
        return re.search(names, text, re.IGNORECASE) if names else None

    def _without_credentials(self, text: str) -> str:
        if " " in text:
            text = _SCHEME.sub(rf"\1\2{MASK}", text)
        if "=" not in text and ":" not in text:
            return text
        text = masked(text)
        parts, done = [], 0
        for found in _MEMBER.finditer(text):
            if found.start() >= done and self.is_secret(found[2] or found[3]):
                value = _VALUE.match(text, found.end())
                if value and value[0].strip("\\\"'") not in {"", "***", MASK}:
                    parts += [text[done : found.end()], MASK]
                    done = value.end()
        return "".join([*parts, text[done:]]) if parts else text

    def _whole_text(self, text: str) -> str:
        """As `text`, of one that nobody has cut."""
        clear = self._without_credentials(_writable(text))
        return (
            self._without(clear, [*self._places(clear)])
            if self._heads and (self._effort < 0 or self._heads.search(clear))
            else clear
        )

    def _without(self, text: str, places: Iterable[tuple[int, int]]) -> str:
        if self._effort < 0:
            return MASK
        parts, done = [], 0
        for start, end in sorted(places):
            if start >= done:
                parts += [text[done:start], MASK]
            done = max(done, end)
        return "".join([*parts, text[done:]])

    def _places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the secrets are."""
        assert self._heads is not None  # noqa: S101  # asked by the caller
        for found in self._heads.finditer(text):
            start = found.start()
            for secret in self._of_head.get(text[start : start + SHORTEST], ()):
                self._effort -= 1 + len(secret) // STEP
                if self._effort < 0:
                    return
                if text.startswith(secret, start):
                    yield start, start + len(secret)
                    break

    def _cut(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a secret's beginning ends the text, or its end begins it: of a long text a worker
        keeps a part.
        """
        body = text.removesuffix("…")
        for secret in (each for secrets in self._of_head.values() for each in secrets):
            if len(secret) == SHORTEST:
                continue
            self._effort -= 1 + 2 * min(len(secret), len(body), CUT) // STEP
            if self._effort < 0:
                return
            start = body.find(secret[:SHORTEST], max(0, len(body) - min(len(secret) - 1, CUT)))
            while start >= 0:
                if secret.startswith(body[start:]):
                    yield start, len(body)
                    break
                self._effort -= 1
                start = body.find(secret[:SHORTEST], start + 1)
            end = body.rfind(secret[-SHORTEST:], 0, min(len(secret) - 1, CUT))
            while end >= 0:
                if secret.endswith(body[: end + SHORTEST]):
                    yield 0, end + SHORTEST
                    break
                self._effort -= 1
                end = body.rfind(secret[-SHORTEST:], 0, end + SHORTEST - 1)


def _writable(text: str) -> str:
    """A text without halves of surrogate pairs, which JavaScript's `slice` leaves, and which no
    answer can hold.
    """
    return text if text.isascii() else _HALVES.sub("\ufffd", text)


def _digits(value: Any) -> str:
    """A number as its text; one with more digits than Python writes has none."""
    try:
        return str(value)
    except ValueError:
        return ""


def _spellings(secret: str) -> Iterable[str]:
    """A secret as it may stand in a text."""
    if len(secret) < SHORTEST:
        return ()
    from html import escape  # noqa: PLC0415  # half a MiB of names of characters, and most processes mask nothing

    lines = [line.strip() for line in secret.splitlines()]
    found = (
        {secret, secret.strip(), *(line for line in lines if len(line) >= LINE)}
        if len(lines) > 1
        else {secret}
    )
    for each in tuple(found):
        quoted = {each, *_quoted(each)}
        found |= quoted.union(*map(_quoted, quoted))  # JSON within JSON, a repr in a log's line
        raw = each.encode(errors="replace")
        found |= {escape(each), quote(raw, safe=""), quote(raw), quote_plus(raw), raw.hex()}
        if len(raw) >= LINE:
            found |= set(_in_base64(raw))
    return found


def _quoted(text: str) -> Iterable[str]:
    """A text as JSON and Python spell it."""
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]


def _in_base64(raw: bytes) -> Iterator[str]:
    """What base64 makes of it wherever it begins, without the characters that have bits of its
    neighbours.
    """
    for before in range(3):
        text = b64encode(bytes(before) + raw).decode()
        whole = text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")

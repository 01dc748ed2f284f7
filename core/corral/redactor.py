"""`Redactor`: masks the secrets of one job in texts and values. It is a best effort, and no proof.

Logs, stack traces and the board show only what has been through one. It masks

* the values of fields that the payload's model declares secret (`SecretStr`, or
  `json_schema_extra={"writeOnly": True}`), and of fields of any job whose names say that they hold
  a secret (`password`, `apiKey`, …);
* these values wherever else they stand in a text, in plain or in JSON spelling, and their beginning
  or end if a text was cut there;
* in any text: members and assignments with such names (`"token": "…"`, `token=…`), the password of
  a URL, and what follows `Bearer` and `Basic`.

It does not find a secret in another encoding (base64, hexadecimal, HTML, percent encoding, Python's
`repr` of special characters), a part from the middle of a secret, a secret of fewer than `SHORTEST`
characters outside of its field, or one that no name and no model declares.

Jobs come from other programs, so the cost is bounded: a text is searched once for each secret. If
a job has more than `MOST` secrets, all of its texts are masked whole. So is a text in which they
stand more than `MOST_PLACES` times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final

from pydantic import BaseModel

__all__ = [
    "LONGEST",
    "MASK",
    "MOST",
    "MOST_PLACES",
    "SHORTEST",
    "Redactor",
    "is_marked",
    "is_secret_name",
    "masked",
    "may_hold_secrets",
    "secret_names",
]

MASK: Final = "••••••"
SHORTEST: Final = 4
"""Characters. A shorter secret is masked in its field only: elsewhere it would be found within
ordinary words.
"""
LINE: Final = 8
"""Characters. Each line of a secret of several lines that is at least as long is searched for, too:
a log shows the lines of a private key one by one.
"""
DEEPEST: Final = 50
"""Levels of nesting that are shown; Python's own recursion would end at some 300."""
MOST: Final = 100
"""Spellings of secrets that are searched for in one job. In the worst case a mebibyte of text takes
0.3 s then; a private key of 4,096 bits has 54, one for each of its lines.
"""
MOST_PLACES: Final = 1000
"""Places in one text that are masked one by one."""
LONGEST: Final = 200_000
"""Characters of one text inside of a value that are shown."""
CUT: Final = 1024
"""Characters at both ends of a text in which a secret is searched for that was cut off there."""

_NAMES: Final = re.compile(
    r"pass(word|wd|phrase|code|wort)|pwd|secret|token|authori[sz]ation|credential|cookie|signature"
    r"|jwt|bearer|(api|access|private|signing|encryption)[-_ ]?key|session[-_ ]?(id|key)"
    r"|(^|[-_.])(pin|otp|auth)$|[a-z]Otp$|otp$",
    re.IGNORECASE,
)
"""Names of fields that hold secrets in any job."""

_USER: Final = re.compile(r"""://[^\s/?#:@"']*:(?!\d{1,5}(?:[/?#\s"']|$))""")
"""The beginning of a URL with a user, perhaps an empty one, and a password: no port follows."""
_AUTHORITY: Final = re.compile(r"""[^\s/?#"']*""")
_STOP: Final = re.compile(r"""[\s@"']|$""")
_PASSWORD_OPTION: Final = re.compile(r"""([?&]password=)[^\s&#"']*""", re.IGNORECASE)

_HALVES: Final = re.compile("[\\ud800-\\udfff]")
_SCHEME: Final = re.compile(r"\b(Bearer|Basic)(\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE)
"""Credentials as in HTTP's `Authorization`."""
_MEMBER: Final = re.compile(
    # "name": of JSON, of a dict's repr, and of JSON within JSON
    r"""(\\{0,7}["'])([\w.$-]{1,80})\1\s{0,8}:\s{0,8}
    |\b([\w.-]{1,80})=(?![=\s]|\.\.\.)                  # name=value of a call, a repr, a query""",
    re.VERBOSE,
)
_VALUE: Final = re.compile(
    r"""b?(\\{0,7}["'])(?s:.*?)(?<!\\)\1|b?\\{0,7}["'](?s:.*)|\[[^\]]*\]?|\{[^}]*\}?|[^\s,;&)}\]"']+"""
)


def masked(text: str) -> str:
    """The text with `***` for the password of every URL in it."""
    if "://" not in text:
        return text
    parts, done, stop = [], 0, -1
    for user in _USER.finditer(text):
        start = user.end()
        if start < done:
            continue
        # The password ends at the last @ before the path. A database's URL may have / in its
        # password: then it ends at the first @.
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
    """Whether the name of a field says that it holds a secret."""
    return _NAMES.search(name[:500]) is not None


def secret_names(model: type[BaseModel]) -> frozenset[str]:
    """The names of the fields that a model declares secret, nested ones included.

    They are in small letters, without `-` and `_`.
    """
    return _secret_names(model)


def may_hold_secrets(model: type[BaseModel]) -> bool:
    """Whether a model has secret fields, or fields that may hold anything."""
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
        is_secret_name(name) or _takes_any_name(field) for name, field in fields
    )


def _takes_any_name(field: Any) -> bool:
    """Whether a field may hold members of any name."""
    if not isinstance(field, dict):
        return bool(field)
    inner = [
        each for key in ("anyOf", "oneOf", "allOf", "prefixItems") for each in field.get(key, ())
    ]
    inner += [field["items"]] if "items" in field else []
    is_any = not field.keys() & {"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf"}
    return is_any or field.get("type") == "object" or any(map(_takes_any_name, inner))


def is_marked(field: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether a field's schema declares it secret, or the items of its list or mapping."""
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
    """One form of all spellings of a name: `resetCode`, `reset_code`, `Reset-Code`."""
    return name.replace("_", "").replace("-", "").casefold()


class Redactor:
    """Masks the secrets of one job; see the module for what it finds and what it does not.

    Args:
        names: The secret fields of the queue's payload model, from `secret_names`.
        data: The payload, as parsed from JSON. Its secrets are searched for in every text. A text
            instead of an object was not JSON.
    """

    def __init__(self, names: frozenset[str] = frozenset(), data: Any = None) -> None:
        self._names = names
        spellings = {each for secret in set(self._secrets(data)) for each in _spellings(secret)}
        self._masks_all = len(spellings) > MOST
        self._spellings = () if self._masks_all else tuple(sorted(spellings, key=len, reverse=True))
        self._whole = frozenset(self._spellings)

    @property
    def is_needed(self) -> bool:
        """Whether the payload has a secret that texts are searched for."""
        return self._masks_all or bool(self._spellings)

    def text(self, text: str) -> str:
        """A text without the payload's secrets, and without credentials of its own."""
        return self._redacted(text, is_cut=True)

    def broken(self, text: str) -> str:
        """A payload that is not JSON: what stands before the first secret name, and a mask."""
        found = min(
            (m.end() for m in (_NAMES.search(text), self._declared_name_in(text)) if m),
            default=None,
        )
        return self.text(text) if found is None else f"{self.text(text[:found])}{MASK}"

    def value(self, value: Any, depth: int = 0) -> Any:
        """A JSON value without the payload's secrets; see `text`."""
        if isinstance(value, str):
            if len(value) < SHORTEST:
                return _writable(value)
            return self._redacted(value[: 2 * LONGEST], is_cut=False)[:LONGEST]
        if isinstance(value, dict | list | tuple) and depth > DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            return {
                self._redacted(str(name), is_cut=False): self._field(str(name), each, depth)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(each, depth + 1) for each in value]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_secret = is_number and (self._masks_all or _digits(value) in self._whole)
        return MASK if is_secret else value

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
                    if hidden and any(map(str.isdigit, str(name))):
                        yield str(name)  # not the name of a field: a token that is a key itself
            elif isinstance(value, list | tuple):
                left += [(each, hidden) for each in value]
            elif hidden and value is not None and not isinstance(value, bool):
                yield _writable(value) if isinstance(value, str) else _digits(value)

    def _declared_name_in(self, text: str) -> re.Match[str] | None:
        names = "|".join("[-_]?".join(map(re.escape, name)) for name in sorted(self._names))
        return re.search(names, text, re.IGNORECASE) if names else None

    def _redacted(self, text: str, *, is_cut: bool) -> str:
        clear = self._without_credentials(_writable(text))
        if self._masks_all:
            return MASK
        found = chain.from_iterable(_places(secret, clear) for secret in self._spellings)
        places = [*islice(found, MOST_PLACES + 1)]
        if len(places) > MOST_PLACES:
            return MASK
        if is_cut:
            places += [place for secret in self._spellings for place in _cut_places(secret, clear)]
        return _without(clear, places) if places else clear

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


def _without(text: str, places: Iterable[tuple[int, int]]) -> str:
    """The text with a mask in the place of each part; parts that overlap have one mask."""
    parts, done = [], 0
    for start, end in sorted(places):
        if start >= done:
            parts += [text[done:start], MASK]
        done = max(done, end)
    return "".join([*parts, text[done:]])


def _places(secret: str, text: str) -> Iterator[tuple[int, int]]:
    """Where a secret stands in a text."""
    start = text.find(secret)
    while start >= 0:
        end = start + len(secret)
        yield start, end
        start = text.find(secret, end)


def _cut_places(secret: str, text: str) -> Iterator[tuple[int, int]]:
    """Where the beginning of a secret ends a text, or its end begins the text.

    Workers keep only a part of a long text, and put `…` behind what they cut.
    """
    body = text.removesuffix("…")
    longest = min(len(secret) - 1, CUT)
    start = body.find(secret[:SHORTEST], max(0, len(body) - longest))
    while start >= 0:
        if secret.startswith(body[start:]):
            yield start, len(body)
            break
        start = body.find(secret[:SHORTEST], start + 1)
    end = body.rfind(secret[-SHORTEST:], 0, longest)
    while end >= 0:
        if secret.endswith(body[: end + SHORTEST]):
            yield 0, end + SHORTEST
            break
        end = body.rfind(secret[-SHORTEST:], 0, end + SHORTEST - 1)


def _writable(text: str) -> str:
    """The text with U+FFFD for halves of surrogate pairs.

    JavaScript's `slice` leaves them, and no answer can be encoded with them.
    """
    return text if text.isascii() else _HALVES.sub("\ufffd", text)


def _digits(value: Any) -> str:
    """The text of a number; empty if it has more digits than Python converts (4,300)."""
    try:
        return str(value)
    except ValueError:
        return ""


def _spellings(secret: str) -> Iterator[str]:
    """A secret, and its longer lines, in plain and in JSON spelling."""
    lines = [line.strip() for line in secret.splitlines()]
    parts = {secret}
    if len(lines) > 1:
        parts |= {secret.strip(), *(line for line in lines if len(line) >= LINE)}
    for part in parts:
        for each in (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            if len(each) >= SHORTEST:
                yield each

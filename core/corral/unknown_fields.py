"""Leaves out the fields that a payload's model does not know, and nothing else.

`extra="ignore"` would do more: it empties models that keep unknown fields, and lets another member
of a union match. So exactly the fields that pydantic reports are taken out of the JSON text, which
is then read as strictly as any other. This module knows pydantic's errors, and no models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pydantic import JsonValue
from pydantic_core import ErrorDetails, from_json, to_json

__all__ = ["UNKNOWN", "Problems", "without_unknown"]

UNKNOWN: Final = "extra_forbidden"
"""The type of pydantic's error for an unknown field."""
ROUNDS: Final = 20
"""How often a text is read at most. Pydantic may report further fields once some are left out."""
MOST_UNSURE: Final = 20
"""How many fields of a text are located by trying. A text with more of them is refused."""

Problems: TypeAlias = Sequence[ErrorDetails]
Part: TypeAlias = str | int | None
Path: TypeAlias = tuple[Part, ...]
"""Where a value is in a JSON text: names and positions.

None steps into JSON within a text (`pydantic.Json`).
"""


def without_unknown(
    raw: bytes, problems: Problems, problems_of: Callable[[bytes], Problems]
) -> tuple[bytes, frozenset[str]] | None:
    """A JSON text without its unknown fields.

    In a union, the member is chosen that has the fewest unknown fields and no other errors.

    Args:
        raw: The text.
        problems: Pydantic's findings for it.
        problems_of: Returns the findings for another text; none if it is valid.

    Returns:
        The text, and the dotted names of what was left out (without positions in lists). None if
        there are errors other than unknown fields.
    """
    tree: JsonValue = from_json(raw)
    names: set[str] = set()
    for _ in range(ROUNDS):
        paths = _unknown(tree, problems, problems_of)
        if not paths:
            return None
        for path in paths:
            tree = _without(tree, path)
        names |= {".".join(part for part in path if isinstance(part, str)) for path in paths}
        raw = _text(tree)
        problems = problems_of(raw)
        if not problems:
            return raw, frozenset(names)
    return None


@dataclass(slots=True)
class _Place:
    """The errors at one place of the text.

    Attributes:
        wrong: Whether there is an error that is no unknown field.
        unknown: The unknown fields of the object at this place.
        inside: The errors further inside, by name or position.
        members: The same, by the member of a union that was tried.
    """

    wrong: bool = False
    unknown: list[Path] = field(default_factory=list[Path])
    inside: dict[Part, _Place] = field(default_factory=dict[Part, "_Place"])
    members: dict[Part, _Place] = field(default_factory=dict[Part, "_Place"])

    def to_drop(self) -> list[Path] | None:
        """The fields to leave out here; None if that does not help."""
        if self.wrong:
            return None
        paths = self.unknown.copy()
        for place in self.inside.values():
            further = place.to_drop()
            if further is None:
                return None
            paths += further
        if self.members:
            helpful = [
                found for member in self.members.values() if (found := member.to_drop()) is not None
            ]
            if not helpful:
                return None
            helpful.sort(key=len)  # stable: of equal ones the first, which pydantic chooses, too
            paths += helpful[0]
        return paths


def _unknown(
    tree: JsonValue, problems: Problems, problems_of: Callable[[bytes], Problems]
) -> list[Path] | None:
    """The fields to leave out; None, or an empty list, if that does not help."""
    root, unsure = _Place(), 0
    for problem in problems:
        is_unknown, loc = problem["type"] == UNKNOWN, problem["loc"]
        ways = list(_ways(tree, loc, is_unknown, missing=problem["type"] == "missing"))
        if is_unknown and len(ways) > 1:
            unsure += 1
            if unsure > MOST_UNSURE:
                return None
            ways = [way for way in ways if _helps(tree, _path(way), loc, problems_of)]
        if not ways:
            return None
        place, way = root, ways[0]
        for tag, part in way[:-1] if is_unknown else way:
            place = (place.members if tag else place.inside).setdefault(part, _Place())
        if is_unknown:
            place.unknown.append(_path(way))
        else:
            place.wrong = True
    return root.to_drop()


Way: TypeAlias = tuple[tuple[bool, Part], ...]
"""The parts of an error's location.

Each comes with whether it names a member of a union, which is no part of the text.
"""


def _path(way: Way) -> Path:
    return tuple(part for tag, part in way if not tag)


def _ways(
    node: JsonValue, loc: Sequence[str | int], is_unknown: bool, *, missing: bool
) -> Iterator[Way]:
    """All ways to read an error's location: a member of a union may be named like a field.

    Args:
        node: The value at which the location begins.
        loc: The location.
        is_unknown: Whether it must end with a field of the text.
        missing: Whether it ends with a field that is not in the text.
    """
    if not loc:
        if not is_unknown:
            yield ()
        return
    part, rest = loc[0], loc[1:]
    if isinstance(node, str):
        with suppress(ValueError):
            within: JsonValue = from_json(node)
            if not isinstance(within, str):
                yield from (
                    ((False, None), *way) for way in _ways(within, loc, is_unknown, missing=missing)
                )
    is_last = is_unknown and not rest
    if isinstance(node, dict) and isinstance(part, str) and part in node:
        if is_last:
            yield ((False, part),)
        else:
            yield from (
                ((False, part), *way)
                for way in _ways(node[part], rest, is_unknown, missing=missing)
            )
    elif isinstance(node, list) and isinstance(part, int) and part < len(node):
        yield from (
            ((False, part), *way) for way in _ways(node[part], rest, is_unknown, missing=missing)
        )
    elif missing and not rest:
        yield ((False, part),)
        return
    if not is_last and not isinstance(part, int):
        yield from (((True, part), *way) for way in _ways(node, rest, is_unknown, missing=missing))


def _helps(
    tree: JsonValue,
    path: Path,
    loc: tuple[int | str, ...],
    problems_of: Callable[[bytes], Problems],
) -> bool:
    """Whether pydantic stops reporting a field if this one is left out."""
    left = problems_of(_text(_without(from_json(_text(tree)), path)))
    return all(problem["type"] != UNKNOWN or problem["loc"] != loc for problem in left)


def _without(node: Any, path: Path) -> Any:
    """The tree without one field. It is changed in place, except for JSON within a text."""
    part: Any = path[0]
    rest = path[1:]
    if part is None:
        return _text(_without(from_json(node), rest)).decode()
    if not rest:
        node.pop(part, None)
    elif isinstance(node, list) or part in node:
        node[part] = _without(node[part], rest)
    return node


def _text(tree: JsonValue) -> bytes:
    return to_json(tree, inf_nan_mode="constants")

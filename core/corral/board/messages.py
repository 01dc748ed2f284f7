"""What a handler is given and what it answers with: plain values.

It knows no framework, and no framework knows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.board.identity import Identity

__all__ = ["Answer", "Page", "Redirect", "Refused", "Request", "Stream", "first", "whole"]


def first(form: Mapping[str, Sequence[str]], name: str, default: str = "") -> str:
    """The first value of a field of a form."""
    return next(iter(form.get(name, ())), default)


def whole(
    typed: str, what: str, *, least: int = 0, most: int = 1_000_000_000, status: int = 400
) -> int:
    """A whole number that somebody has typed, or that an address has.

    Args:
        typed: The text.
        what: What it is called in the refusal.
        least: The lowest that is taken.
        most: The highest.
        status: Of the refusal.

    Raises:
        Refused: It is none of those.
    """
    if not typed.isdecimal() or len(typed) > 10 or not least <= int(typed) <= most:
        raise Refused(status, f"{what} is a whole number from {least} to {most}")
    return int(typed)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, of somebody who has been let in.

    Attributes:
        method: `GET` or `POST`; a `HEAD` is answered as a `GET`, without its body.
        path: Below where the board is mounted, with a leading slash; its escapes as they were sent.
        mount: Where the board is mounted, without a slash at its end; empty at the root.
        query: The query's fields; of a repeated one the last.
        form: The body's fields, each with all of its values, of a form or of a JSON object.
        parts: What the route's pattern took from the path, decoded: `queue`, `job_id`.
        identity: Who asks.
        csrf: What a form of this answer must bring back.
        can_log_out: Whether the board logged them in, and can log them out.
        is_data: Whether JSON is wanted instead of a page.
    """

    method: str
    path: str
    mount: str
    query: Mapping[str, str]
    identity: Identity
    csrf: str = ""
    can_log_out: bool = False
    is_data: bool = False
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str, default: str = "") -> str:
        """The first value of a field of the form."""
        return first(self.form, name, default)

    def number(self, name: str, *, least: int = 0, status: int = 400) -> int | None:
        """The whole number in a field of the form; None where it is empty.

        Raises:
            Refused: It is none, or lower than `least`.
        """
        typed = self.first(name).strip()
        return whole(typed, name.replace("_", " "), least=least, status=status) if typed else None


@dataclass(frozen=True, slots=True)
class Page:
    """A page: HTML from a template, or the same values as JSON to whoever asks for that.

    Attributes:
        template: The template's name, without its ending.
        title: Of the page.
        values: What the template shows; plain values and dataclasses.
        status: The HTTP status.
        live: Whether a page in a browser asks again when something has changed.
    """

    template: str
    title: str
    values: Mapping[str, Any]
    status: int = 200
    live: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Look there now: what a write answers.

    Attributes:
        path: Below where the board is mounted.
        told: What was done, a word of `rendering.TOLD`, with what it says of it; shown on top of
        that page.
        values: What the sentence tells: numbers and ids.
    """

    path: str
    told: str = ""
    values: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes, as they are: a file, metrics.

    Attributes:
        body: The bytes.
        content_type: Their type.
        status: The HTTP status.
        cacheable: Whether a browser may keep it: true for files only, which have their hash in the
        address.
    """

    body: bytes
    content_type: str
    status: int = 200
    cacheable: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """Server-sent events, until the browser goes or the process ends."""

    events: AsyncIterator[str]


class Refused(Exception):  # an answer, no fault of ours
    """What was asked cannot be done; becomes a page that says so.

    Attributes:
        status: The HTTP status.
        told: One sentence.
        hint: What the reader can do, or None.
    """

    def __init__(self, status: int, told: str, hint: str | None = None) -> None:
        super().__init__(told)
        self.status = status
        self.told = told
        self.hint = hint

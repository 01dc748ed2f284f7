"""`Queue`: a name and a payload model, declared once and imported by producers and by workers.

It is also the one place where a payload changes between a model and JSON bytes: `validated` and
`dumped` on the way out, `parsed` on the way in; `ensure_survives` compares the two. It knows no
store and no catalog.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, is_dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, Generic, TypeVar, cast, overload

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticSerializationError, SchemaSerializer, to_json

from corral.errors import PayloadRefused
from corral.job import Job, P
from corral.options import JobOptions
from corral.payload import Payload, unsafe_integers
from corral.payload_schema import DEEPEST, SchemaFault, doubt_of, schema_faults
from corral.processor import Deps, Processor
from corral.round_trip import first_difference
from corral.schedule import Cron, Every
from corral.unknown_fields import UNKNOWN, Problems, without_unknown

__all__ = ["Queue"]

R = TypeVar("R")

ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Any escape of a JSON text; a group where it is half of a surrogate pair and the other half is
missing.
"""

HINT: Final = (
    "a worker must read exactly what is given here: write the field as its type says, or change its type, its"
    " serializer or its validators"
)


@dataclass(frozen=True, eq=False)
class Queue(Generic[P]):
    """A queue of the catalog.

    The object is the queue: two objects of one name are two claims to it.

    The constructor judges nothing about the name; the catalog does, so that all faults come in one
    report.

    Attributes:
        name: Kebab-case, at most 64 characters, and the name of the entry point that declares it.
        payload: The model of its jobs' payloads, a subclass of `Payload`.
        options: What holds for its jobs unless a producer says otherwise.
        timeout: How long an `async def` processor may run, or None for no bound.
        concurrency: How many jobs one worker runs at once, or None for the worker's setting.
        schedule: When it runs by itself, or None.
    """

    name: str
    payload: type[P]
    options: JobOptions = field(default_factory=JobOptions, kw_only=True)
    timeout: timedelta | None = field(default=None, kw_only=True)
    concurrency: int | None = field(default=None, kw_only=True)
    schedule: Cron | Every | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.payload is Payload:
            raise TypeError(
                f"queue {self.name!r}: declare an empty subclass of Payload: the queue needs a payload type of its own"
            )

    @overload
    def processed_by(self, function: Callable[[Job[P]], object]) -> Processor: ...

    @overload
    def processed_by(
        self,
        function: Callable[[Job[P], R], object],
        *,
        using: Callable[[Deps], AbstractAsyncContextManager[R]],
    ) -> Processor: ...

    def processed_by(
        self,
        function: Callable[..., object],
        *,
        using: Callable[[Deps], AbstractAsyncContextManager[Any]] | None = None,
    ) -> Processor:
        """Bind the function that processes this queue's jobs.

        Args:
            function: `function(job)`, or `function(job, resource)` where `using` is given. `async
                def` runs on the worker's event loop, `def` on a thread.
            using: Opens the resource: an async context manager, entered once per worker before its
                first fetch and left after its last job.

        Returns:
            The processor, to be returned from the `corral_processors` hook.
        """
        return Processor(self, function, using)

    def validated(self, payload: P | Mapping[str, Any]) -> P:
        """A payload of this queue's shape, or a refusal.

        Args:
            payload: An instance of the queue's model, taken as it is: it validated itself when it
                was built. Or a mapping with the field names of Python or of JSON.

        Returns:
            The payload.

        Raises:
            PayloadRefused: It has another shape; says what is wrong with which field.
        """
        if isinstance(payload, self.payload):
            return payload
        if not isinstance(payload, Mapping):
            wanted = f"expected {self.payload.__name__} or a mapping, not {type(payload).__name__}"
            raise PayloadRefused(self.name, (("", wanted),))
        try:
            return self.payload.model_validate(dict(payload))
        except ValidationError as error:
            problems = _told(error.errors(include_url=False))
            raise PayloadRefused(
                self.name, problems
            ) from None  # pydantic's own text quotes the payload

    def dumped(self, payload: P) -> bytes:
        """A payload as strict JSON text: camelCase, UTF-8, no NaN, no integer that JavaScript
        cannot hold.

        Only the fields that the queue's model declares are written: computed fields, and what a
        subclass adds, would be unknown fields to the worker. `ensure_survives` finds out whether
        anything is lost by that.

        Args:
            payload: What `validated` returned.

        Raises:
            PayloadRefused: A value cannot be written as such JSON.
        """
        try:
            # The model's own serializer: `model_dump_json` would ask the instance's class, which
            # may be a subclass.
            serializer = self.payload.__pydantic_serializer__
            if self._hides:
                raw = to_json(_with_secrets(serializer, payload), inf_nan_mode="null")
            else:
                raw = serializer.to_json(payload, by_alias=True, round_trip=True, warnings="error")
        except PydanticSerializationError as error:
            reason = " ".join(str(error).split()).partition(" [")[
                0
            ]  # what follows quotes the payload
            raise PayloadRefused(
                self.name, (("", f"cannot be written as JSON: {reason}"),)
            ) from None
        except UnicodeError:
            raise PayloadRefused(
                self.name, (("", "cannot be written as JSON: bytes that are no UTF-8"),)
            ) from None
        except _SecretLost as error:
            raise PayloadRefused(
                self.name, (("", f"cannot be written as JSON: {error}"),)
            ) from None
        if unsafe := unsafe_integers(raw):
            raise PayloadRefused(self.name, unsafe)
        return raw

    @cached_property
    def _hides(self) -> bool:
        """Whether a field of the model masks itself when it is written: `SecretStr`, and what is
        made like it.
        """
        return b'"writeOnly":true' in to_json(self.payload.model_json_schema())

    def parsed(self, raw: bytes) -> tuple[P, frozenset[str]]:
        """A payload from a job's JSON text, tolerant of what a newer or a foreign producer wrote.

        Fields that the model does not know are left out, and nothing else changes by that: the rest
        is read as strictly as any other text. Half a surrogate pair, which is what JavaScript's
        `slice` makes of an emoji, becomes U+FFFD.

        Args:
            raw: The job's `data`.

        Returns:
            The payload, and the dotted names of the fields that were left out (positions in lists
            are not named, so that the set of names stays small).

        Raises:
            PayloadRefused: It is no JSON, or has another shape.
        """
        try:
            # what `model_validate_json` calls in the end, for half of its cost
            return self.payload.__pydantic_validator__.validate_json(raw), frozenset()
        except ValidationError as error:
            problems = error.errors(include_url=False)
        if problems[0]["type"] == "json_invalid":
            whole = ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], raw)
            if whole != raw:
                return self.parsed(whole)
        wrong = [problem for problem in problems if problem["type"] != UNKNOWN]
        known = (
            None if len(wrong) == len(problems) else without_unknown(raw, problems, self._problems)
        )
        if known is None:
            raise PayloadRefused(self.name, _told(wrong or problems))
        raw, unknown = known
        return self.payload.__pydantic_validator__.validate_json(raw), unknown

    def _problems(self, raw: bytes) -> Problems:
        """What is wrong with a JSON text."""
        try:
            self.payload.__pydantic_validator__.validate_json(raw)
        except ValidationError as error:
            return error.errors(include_url=False)
        return ()

    @cached_property
    def schema_faults(self) -> tuple[SchemaFault, ...]:
        """What is in the payload's model that can never reach a worker as it was; the catalog
        refuses it.
        """
        return schema_faults(self.payload)

    def ensure_sound(self) -> None:
        """Refuse a payload's model as the catalog does, for whoever enqueues to a queue that is in
        none.

        Raises:
            PayloadRefused: Something in it can never reach a worker as it was.
        """
        if self.schema_faults:
            faults = tuple((fault.path, fault.what) for fault in self.schema_faults)
            raise PayloadRefused(self.name, faults, hint=self.schema_faults[0].hint)

    @cached_property
    def _doubt(self) -> tuple[Callable[[Payload], bool] | None, bool]:
        return doubt_of(self.payload)

    def is_doubtful(self, payload: P, raw: bytes) -> bool:
        """Whether the model's schema leaves open if a worker reads this payload as it is given; see
        `ensure_survives`.

        It looks only at what the schema leaves open: of a payload of plain fields, at nothing.

        Args:
            payload: What `validated` returned.
            raw: What `dumped` made of it.
        """
        if type(payload) is not self.payload:
            return True
        doubt, recurs = self._doubt
        if recurs and raw.count(b"{") + raw.count(b"[") > DEEPEST:
            return True
        try:
            return doubt is not None and doubt(payload)
        except RecursionError:  # the caller's own stack is nearly as deep as Python lets it be
            return True

    def ensure_survives(self, payload: P, raw: bytes) -> None:
        """Read a payload back as a worker will, and compare.

        Args:
            payload: What `validated` returned.
            raw: What `dumped` made of it.

        Raises:
            PayloadRefused: A worker would not read it, or would read something else; names the
            first such field.
        """
        changed: tuple[tuple[str, str], ...]
        try:
            read, unknown = self.parsed(raw)
        except PayloadRefused as error:
            changed = tuple(
                (path, f"a worker cannot read it: {message}") for path, message in error.errors
            )
        except Exception as error:  # noqa: BLE001  # a validator of the payload's model may raise anything
            changed = (("", f"a worker cannot read it: {type(error).__name__} is raised"),)
        else:
            changed = tuple(
                (path, "is written, and unknown to a worker") for path in sorted(unknown)
            )
            if difference := first_difference(payload, read):
                changed = (difference, *changed)
        if changed:
            raise PayloadRefused(self.name, changed, hint=HINT)


def _told(problems: list[ErrorDetails]) -> tuple[tuple[str, str], ...]:
    """Pydantic's findings as `(dotted path in the JSON text, message)`, one per wrong field."""
    return tuple(
        (".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in problems
    )


def _with_secrets(serializer: SchemaSerializer, payload: Payload) -> Any:
    """What JSON would be written, with the values of secrets, which pydantic writes as
    `**********`.
    """
    written = serializer.to_python(
        payload, mode="json", by_alias=True, round_trip=True, warnings="error"
    )
    return _unveiled(written, payload)


class _SecretLost(Exception):
    """A secret that cannot be put in the place of its mask."""


def _unveiled(written: object, held: object) -> object:
    """What is written of a value, with the secrets that the value holds; what a serializer has
    changed is left.
    """
    plain = written
    if isinstance(held, Secret | SecretStr | SecretBytes):
        value = cast("Secret[object]", held).get_secret_value()
        return value.decode() if isinstance(value, bytes) else value
    if isinstance(held, RootModel):
        return _unveiled(written, cast("RootModel[object]", held).root)
    if isinstance(written, dict):
        members = cast("dict[str, object]", written)
        if isinstance(held, BaseModel) or is_dataclass(held):
            fields: Mapping[str, FieldInfo] = getattr(type(held), "__pydantic_fields__", {})
            names = {(field.serialization_alias or name): name for name, field in fields.items()}
            return {
                name: _unveiled(each, getattr(held, names.get(name, name), None))
                for name, each in members.items()
            }
        if isinstance(held, Mapping):
            inner = cast("Mapping[object, object]", held).values()
            if len(members) != len(inner):
                raise _SecretLost("two keys of a mapping are one in JSON")
            return {
                name: _unveiled(each, part)
                for (name, each), part in zip(members.items(), inner, strict=True)
            }
    if isinstance(written, list) and isinstance(held, list | tuple | set | frozenset | deque):
        items, parts = cast("list[object]", written), cast("Collection[object]", held)
        if len(items) == len(parts):
            return [_unveiled(each, part) for each, part in zip(items, parts, strict=True)]
    return plain

"""`Queue`: a name and a payload model, declared once and imported by producers and by workers.

Here, and nowhere else, a payload is converted between a model and JSON bytes: `validated` and
`dumped` in the producer, `parsed` in the worker. `ensure_survives` compares what went in with what
comes out. A queue knows no store and no catalog.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, is_dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, Generic, TypeVar, cast, overload

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, SchemaSerializer, to_json

from corral.deps import Deps
from corral.errors import PayloadRefused
from corral.field_errors import FieldError, field_errors
from corral.job import Job, P
from corral.options import JobOptions
from corral.payload import Payload, unsafe_integers
from corral.payload_schema import DEEPEST, SchemaFault, round_trip_check, schema_faults
from corral.processor import Processor
from corral.round_trip import first_difference
from corral.schedule import Cron, Every
from corral.unknown_fields import UNKNOWN, Problems, without_unknown

__all__ = ["Queue"]

R = TypeVar("R")

ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""An escape sequence in a JSON text.

The group matches half of a surrogate pair whose other half is missing.
"""

HINT: Final = (
    "a worker must read exactly what is given here: write the field as its type says, "
    "or change its type, its serializer or its validators"
)


@dataclass(frozen=True, eq=False)
class Queue(Generic[P]):
    """A queue of the catalog.

    Queues are compared by identity: two objects of one name are two claims to that name, and the
    catalog refuses them. The constructor does not check the name; the catalog does, so that all
    faults are in one report.

    Attributes:
        name: Kebab-case, at most 64 characters, and the name of the entry point that declares it.
        payload: The model of its jobs' payloads, a subclass of `Payload`.
        options: The options of its jobs, unless a producer overrides them.
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
                f"queue {self.name!r}: declare an empty subclass of Payload: "
                "the queue needs a payload type of its own"
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
            function: `function(job)`, or `function(job, resource)` if `using` is given. `async def`
                runs on the worker's event loop, `def` on a thread.
            using: Opens the resource: an async context manager, entered once per worker before its
                first fetch and left after its last job.

        Returns:
            The processor, to be returned from the `corral_processors` hook.
        """
        return Processor(self, function, using)

    def validated(self, payload: P | Mapping[str, Any]) -> P:
        """A payload as an instance of the queue's model.

        Args:
            payload: An instance of the queue's model, returned as it is: it was validated when it
                was built. Or a mapping with the field names of Python or of JSON.

        Raises:
            PayloadRefused: It does not fit the model; says what is wrong with which field.
        """
        if isinstance(payload, self.payload):
            return payload
        if not isinstance(payload, Mapping):
            wanted = f"expected {self.payload.__name__} or a mapping, not {type(payload).__name__}"
            raise PayloadRefused(self.name, (("", wanted),))
        try:
            return self.payload.model_validate(dict(payload))
        except ValidationError as error:
            problems = _as_pairs(field_errors(error))
            # `from None`: pydantic's own text quotes the payload.
            raise PayloadRefused(self.name, problems) from None

    def dumped(self, payload: P) -> bytes:
        """A payload as strict JSON text.

        Names are camelCase, the text is UTF-8, and it has no NaN and no integer beyond 2^53, which
        JavaScript cannot hold. Only the fields that the queue's model declares are written: to the
        worker, computed fields, and those that a subclass adds, would be unknown.
        `ensure_survives` finds out whether that loses anything.

        Args:
            payload: What `validated` returned.

        Raises:
            PayloadRefused: A value cannot be written as such JSON.
        """
        try:
            # `model_dump_json` would take the serializer of the instance's class, which may be a
            # subclass of the model.
            serializer = self.payload.__pydantic_serializer__
            if self._has_masked_fields:
                raw = to_json(_with_secrets(serializer, payload), inf_nan_mode="null")
            else:
                raw = serializer.to_json(payload, by_alias=True, round_trip=True, warnings="error")
        except PydanticSerializationError as error:
            # Behind " [", pydantic quotes the payload.
            reason = " ".join(str(error).split()).partition(" [")[0]
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
    def _has_masked_fields(self) -> bool:
        """Whether a field of the model is written as a mask: `SecretStr`, and types like it."""
        return b'"writeOnly":true' in to_json(self.payload.model_json_schema())

    def parsed(self, raw: bytes) -> tuple[P, frozenset[str]]:
        """A payload from a job's JSON text, tolerant of what a newer or another producer wrote.

        Fields that the model does not know are left out; the rest is read as strictly as any other
        text. Half of a surrogate pair becomes U+FFFD: JavaScript's `slice` can cut an emoji in two.

        Args:
            raw: The job's `data`.

        Returns:
            The payload, and the dotted names of the fields that were left out. Positions in lists
            are left out of the names, so that the set stays small.

        Raises:
            PayloadRefused: It is no JSON, or does not fit the model.
        """
        try:
            # `model_validate_json` calls this in the end, and costs twice as much.
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
            raise PayloadRefused(self.name, _as_pairs(field_errors(wrong or problems)))
        raw, unknown = known
        return self.payload.__pydantic_validator__.validate_json(raw), unknown

    def _problems(self, raw: bytes) -> Problems:
        """Pydantic's findings for a JSON text; empty if it is valid."""
        try:
            self.payload.__pydantic_validator__.validate_json(raw)
        except ValidationError as error:
            return error.errors(include_url=False)
        return ()

    @cached_property
    def schema_faults(self) -> tuple[SchemaFault, ...]:
        """Parts of the model that can never reach a worker unchanged; the catalog refuses them."""
        return schema_faults(self.payload)

    def ensure_sound(self) -> None:
        """Refuse a payload model that the catalog would refuse, for a queue that is in no catalog.

        Raises:
            PayloadRefused: Something in the model can never reach a worker unchanged.
        """
        if self.schema_faults:
            faults = tuple((fault.path, fault.what) for fault in self.schema_faults)
            raise PayloadRefused(self.name, faults, hint=self.schema_faults[0].hint)

    @cached_property
    def _doubt(self) -> tuple[Callable[[Payload], bool] | None, bool]:
        return round_trip_check(self.payload)

    def is_doubtful(self, payload: P, raw: bytes) -> bool:
        """Whether a worker might read this payload differently, judged by the model's schema.

        If so, `ensure_survives` finds out. Only those fields are looked at whose types leave it
        open: none, for a payload of plain fields.

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
        except RecursionError:  # the caller's own stack is nearly full
            return True

    def ensure_survives(self, payload: P, raw: bytes) -> None:
        """Read a payload back as a worker will, and compare.

        Args:
            payload: What `validated` returned.
            raw: What `dumped` made of it.

        Raises:
            PayloadRefused: A worker could not read it, or would read something else; names the
                first such field.
        """
        changed: tuple[tuple[str, str], ...]
        try:
            read, unknown = self.parsed(raw)
        except PayloadRefused as error:
            changed = tuple(
                (path, f"a worker cannot read it: {message}") for path, message in error.errors
            )
        except Exception as error:  # noqa: BLE001  # a validator of the model may raise anything
            changed = (("", f"a worker cannot read it: {type(error).__name__} is raised"),)
        else:
            changed = tuple(
                (path, "is written, and unknown to a worker") for path in sorted(unknown)
            )
            if difference := first_difference(payload, read):
                changed = (difference, *changed)
        if changed:
            raise PayloadRefused(self.name, changed, hint=HINT)


def _as_pairs(errors: Iterable[FieldError]) -> tuple[tuple[str, str], ...]:
    """The errors as `(dotted path in the JSON text, message)`."""
    return tuple((error.path, error.message) for error in errors)


def _with_secrets(serializer: SchemaSerializer, payload: Payload) -> Any:
    """A payload as it is written in JSON, with the values of secrets.

    Pydantic would write them as `**********`.
    """
    written = serializer.to_python(
        payload, mode="json", by_alias=True, round_trip=True, warnings="error"
    )
    return _with_secret_values(written, payload)


class _SecretLost(Exception):
    """A secret's value cannot be put in the place of its mask."""


def _with_secret_values(written: object, held: object) -> object:
    """What is written for a value, with the values of the secrets that it holds.

    What a serializer of the model has changed is left as it is written.
    """
    plain = written
    if isinstance(held, Secret | SecretStr | SecretBytes):
        value = cast("Secret[object]", held).get_secret_value()
        return value.decode() if isinstance(value, bytes) else value
    if isinstance(held, RootModel):
        return _with_secret_values(written, cast("RootModel[object]", held).root)
    if isinstance(written, dict):
        members = cast("dict[str, object]", written)
        if isinstance(held, BaseModel) or is_dataclass(held):
            fields: Mapping[str, FieldInfo] = getattr(type(held), "__pydantic_fields__", {})
            names = {(field.serialization_alias or name): name for name, field in fields.items()}
            return {
                name: _with_secret_values(each, getattr(held, names.get(name, name), None))
                for name, each in members.items()
            }
        if isinstance(held, Mapping):
            inner = cast("Mapping[object, object]", held).values()
            if len(members) != len(inner):
                raise _SecretLost("two keys of a mapping are one in JSON")
            return {
                name: _with_secret_values(each, part)
                for (name, each), part in zip(members.items(), inner, strict=True)
            }
    if isinstance(written, list) and isinstance(held, list | tuple | set | frozenset | deque):
        items, parts = cast("list[object]", written), cast("Collection[object]", held)
        if len(items) == len(parts):
            return [
                _with_secret_values(each, part) for each, part in zip(items, parts, strict=True)
            ]
    return plain

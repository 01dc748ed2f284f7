"""What a payload's schema says about its way from a producer to a worker.

`schema_faults` finds what can never arrive unchanged; the catalog refuses it. `round_trip_check`
makes a function that judges one payload: if the schema leaves open how it is read back, the
producer reads it back. Neither can say what validators and serializers do with a value.

Both read pydantic's core schema, from which pydantic makes its readers and writers: `core_schema`
in its reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, Final, TypeAlias, cast

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter

__all__ = ["DEEPEST", "SchemaFault", "round_trip_check", "schema_faults"]

DEEPEST: Final = 100
"""Levels of nesting up to which a payload is judged; a deeper one is read back.

Beyond 190 to 200 levels, pydantic writes texts that it does not read.
"""

Schema: TypeAlias = dict[str, Any]
RoundTripCheck: TypeAlias = Callable[[Any], bool]

NOT_IN_KEYS: Final = frozenset(
    {
        "tuple",
        "named-tuple",
        "list",
        "set",
        "frozenset",
        "dict",
        "model",
        "dataclass",
        "typed-dict",
        "generator",
    }
)
"""Types that no key may have. JSON keys are text; of these, pydantic does not read its own text."""

SURE_KEYS: Final = frozenset({"str", "int", "uuid", "date", "datetime"})
"""Types of keys that are read back unchanged, if a mapping has only one of them.

Payloads with keys of other types are read back.
"""

FORM: Final = {
    "bool": "bool",
    "int": "int",
    "float": "float",
    "none": "null",
    **dict.fromkeys(
        ("list", "set", "frozenset", "tuple", "named-tuple", "generator", "call"), "array"
    ),
    **dict.fromkeys(("dict", "model", "dataclass", "typed-dict"), "object"),
    **dict.fromkeys(
        ("str", "bytes", "date", "time", "datetime", "timedelta", "uuid", "url", "multi-host-url"),
        "text",
    ),
    **dict.fromkeys(("decimal", "complex"), "text"),
}
"""The form of a value in JSON, by type of schema.

`int` and `float` are different forms: pydantic writes 3.0 for a float.
"""

PLAIN: Final = frozenset({str, int, bool, NoneType})
"""The types that JSON has, apart from finite floats, lists and objects."""


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """Something in a payload's model that cannot arrive unchanged.

    Attributes:
        path: The field's dotted path, as in the JSON text.
        what: What is wrong with the field, as the rest of a sentence that begins with it.
        hint: What its author can do.
    """

    path: str
    what: str
    hint: str


def schema_faults(model: type[BaseModel]) -> tuple[SchemaFault, ...]:
    """All faults of a model and of the models within it.

    Fields with a serializer, or with a validator that runs first, are left out: values are tried.
    """
    model.model_rebuild()
    found: list[SchemaFault] = []
    _Judge(found).visit(cast("Schema", model.__pydantic_core_schema__), "", {})
    return tuple(dict.fromkeys(found))


class _Judge:
    """Walks a schema in the way in which pydantic reads a JSON text."""

    def __init__(self, found: list[SchemaFault]) -> None:
        self._found = found
        self._definitions: dict[str, Schema] = {}
        self._seen: set[str] = set()

    def visit(self, schema: Schema, path: str, config: Mapping[str, Any]) -> None:
        kind = schema["type"]
        config = schema.get("config", config)
        if kind == "definitions":
            self._definitions |= {each["ref"]: each for each in schema["definitions"]}
        elif kind == "definition-ref":
            if schema["schema_ref"] not in self._seen and not _rewrites(schema):
                self._seen.add(schema["schema_ref"])
                self.visit(self._definitions[schema["schema_ref"]], path, config)
            return
        if _masks(schema):
            self._add(path, "is a Secret that is written as a mask", "use SecretStr or SecretBytes")
            return
        if _rewrites(schema) or kind in {"function-before", "function-wrap", "function-plain"}:
            return
        if kind == "generator":
            self._add(
                path,
                "is an iterator, of which nothing is left once it is written",
                "use a list or a tuple",
            )
        if kind == "bytes" and config.get("ser_json_bytes", "utf8") != config.get(
            "val_json_bytes", "utf8"
        ):
            hint = "give ser_json_bytes and val_json_bytes of its model_config one value"
            self._add(path, "is bytes, which are written in one way and read in another", hint)
        if kind == "dict":
            self._check_keys(schema.get("keys_schema"), path)
        fields = _named_fields(schema)
        self._check_names(fields, path, config)
        for name, each in fields:
            self.visit(
                each["schema"], _inside(path, each.get("serialization_alias") or name), config
            )
        for each in _children(schema):
            self.visit(each, path, config)

    def _add(self, path: str, what: str, hint: str) -> None:
        self._found.append(SchemaFault(path, what, hint))

    def _check_keys(self, keys: Schema | None, path: str) -> None:
        for each in _alternatives(keys, self._definitions):
            if each["type"] in NOT_IN_KEYS:
                hint = "use keys that are text, or a list of pairs"
                self._add(
                    path, f"has keys of the type {each['type']}, and keys are text in JSON", hint
                )
        if keys is not None and any(map(_is_secret, _all(keys))):
            self._add(
                path,
                "has keys that are secret, which are written as a mask",
                "use the secrets as values",
            )

    def _check_names(
        self, fields: Sequence[tuple[str, Schema]], path: str, config: Mapping[str, Any]
    ) -> None:
        """Check each field: pydantic reads it from the first of its names that is there.

        That must be the value which was written for it, and not another field's.
        """
        owners: dict[str, str] = {}
        judged = {name for name, each in fields if not each.get("init", True)}
        for name, each in fields:
            written = each.get("serialization_alias") or name
            if _is_unwritten(each):
                if _is_required(each):
                    hint = "write it, or give it a default"
                    self._add(
                        _inside(path, name), "is required, and excluded from what is written", hint
                    )
            elif written in owners:
                what = f"is in JSON the name of two fields, {owners[written]!r} and {name!r}"
                self._add(
                    _inside(path, written),
                    what,
                    "give one of them an alias of its own: Field(alias=…)",
                )
                judged.add(name)
            else:
                owners[written] = name
        for name, each in fields:
            lookups = _lookups(name, each, config)
            source = next((owners[key] for key, *_ in lookups if key in owners), None)
            written = each.get("serialization_alias") or name
            if name in judged or source == name or (source is None and _is_unwritten(each)):
                continue
            if source is None:
                read = ", ".join(
                    repr(key) if not more else f"a part of {key!r}" for key, *more in lookups
                )
                hint = f"read that name, too: validation_alias=AliasChoices({written!r}, …)"
                self._add(
                    _inside(path, written),
                    f"is written under this name, and read from {read}",
                    hint,
                )
            else:
                what = f"is read from a name under which the field {source!r} is written"
                self._add(
                    _inside(path, written),
                    what,
                    "let its own name stand first among its validation aliases",
                )


def _lookups(name: str, each: Schema, config: Mapping[str, Any]) -> list[list[Any]]:
    """The places from which a field is read, the first choice first; each is a path."""
    alias = each.get("validation_alias")
    if alias is None:
        return [[name]]
    paths: list[list[Any]] = [[alias]] if isinstance(alias, str) else alias
    if not isinstance(paths[0], list):
        paths = [paths]
    by_name = config.get("validate_by_name", config.get("populate_by_name", False))
    return [
        *(paths if config.get("validate_by_alias", True) else []),
        *([[name]] if by_name else []),
    ]


def _is_unwritten(each: Schema) -> bool:
    return bool(each.get("serialization_exclude") or each.get("init_only"))


def _is_required(each: Schema) -> bool:
    if each["type"] == "typed-dict-field":
        return bool(each.get("required", True))
    return bool(each["schema"]["type"] != "default")


def _named_fields(schema: Schema) -> list[tuple[str, Schema]]:
    """The fields that an object in JSON has by name."""
    fields: Any = schema.get("fields")
    if schema["type"] in {"model-fields", "typed-dict"}:
        return [*fields.items()]
    return [(each["name"], each) for each in fields] if schema["type"] == "dataclass-args" else []


def _children(schema: Schema) -> Iterator[Schema]:
    """The schemas within a schema, except named fields, that are used when JSON is read."""
    kind = schema["type"]
    if kind == "json-or-python":
        yield schema["json_schema"]
    elif kind == "lax-or-strict":
        yield schema["lax_schema"]
    elif kind == "chain":
        yield schema["steps"][0]
    elif kind == "named-tuple":
        yield from (each["schema"] for each in schema["fields"])
    elif kind == "call":
        yield schema["arguments_schema"]
    elif kind == "arguments":
        yield from (each["schema"] for each in schema["arguments_schema"])
    elif kind in {"union", "tagged-union"}:
        choices = schema["choices"]
        for each in choices.values() if isinstance(choices, dict) else choices:
            # In an old form of tagged unions, a choice may be the tag of another one.
            if isinstance(each, dict | tuple):
                yield each[0] if isinstance(each, tuple) else each
    else:
        items = schema.get("items_schema")
        yield from (items if isinstance(items, list) else [items] if items else [])
        yield from (
            schema[key] for key in ("schema", "keys_schema", "values_schema") if key in schema
        )


def _all(schema: Schema) -> Iterator[Schema]:
    yield schema
    for each in _children(schema):
        yield from _all(each)


def _alternatives(schema: Schema | None, definitions: Mapping[str, Schema]) -> Iterator[Schema]:
    """The schemas that a value may have, without wrappers that do not change its form in JSON."""
    if schema is None:
        return
    kind = schema["type"]
    if kind == "definition-ref":
        if schema["schema_ref"] in definitions:
            yield from _alternatives(definitions[schema["schema_ref"]], definitions)
    elif kind in {
        "union",
        "nullable",
        "default",
        "function-after",
        "lax-or-strict",
        "json-or-python",
        "custom-error",
    }:
        for each in _children(schema):
            yield from _alternatives(each, definitions)
    else:
        yield schema


def _rewrites(schema: Schema) -> bool:
    """Whether a serializer of the model's author writes the value.

    Pydantic's own serializers for sequences write their items, as the schema says.
    """
    written = schema.get("serialization")
    if written is None:
        return False
    return not str(getattr(written.get("function"), "__module__", "")).startswith("pydantic.")


def _is_secret(schema: Schema) -> bool:
    made_by = schema["function"]["function"] if schema["type"] == "function-after" else None
    return _masks(schema) or (
        isinstance(made_by, type) and issubclass(made_by, (SecretStr, SecretBytes))
    )


def _masks(schema: Schema) -> bool:
    """Whether it is a `pydantic.Secret` of any type: those are written as a mask."""
    function = schema.get("serialization", {}).get("function")
    return function is not None and function is _secret_serializer()


@cache
def _secret_serializer() -> object:
    """The serializer of every `Secret`: nothing else in a schema identifies one."""
    return (
        cast("Schema", TypeAdapter(Secret[int]).core_schema)
        .get("serialization", {})
        .get("function")
    )


def round_trip_check(model: type[BaseModel]) -> tuple[RoundTripCheck | None, bool]:
    """Make a function that says whether a payload may be read back differently.

    These may be: an instance of a subclass, which is written without the fields that it adds; an
    excluded or private field; a union whose members look alike in JSON; a value that JSON does not
    have, in a field of any type.

    Returns:
        The function, or None if the schema leaves nothing open; and whether the model may hold
        itself, to any depth.
    """
    model.model_rebuild()
    checks = _RoundTripChecks()
    return checks.of(cast("Schema", model.__pydantic_core_schema__), {}), checks.recurs


class _RoundTripChecks:
    """Makes a function of a schema; most parts of one need none."""

    def __init__(self) -> None:
        self.recurs = False
        self._definitions: dict[str, Schema] = {}
        self._made: dict[str, RoundTripCheck | None] = {}
        self._being_made: set[str] = set()

    def of(self, schema: Schema, config: Mapping[str, Any]) -> RoundTripCheck | None:
        config = schema.get("config", config)
        match schema["type"]:
            case "definitions":
                self._definitions |= {each["ref"]: each for each in schema["definitions"]}
                return self.of(schema["schema"], config)
            case "definition-ref":
                return self._of_definition(schema["schema_ref"], config)
            case "any":
                return _is_not_json
            case "json-or-python" if schema["json_schema"]["type"] == "any":  # pydantic.JsonValue
                return _is_not_json
            case "float":
                may_be_nan = schema.get("allow_inf_nan", config.get("allow_inf_nan", True))
                return _is_not_finite if may_be_nan else None
            case "model" | "dataclass":
                return self._of_class(schema, config)
            case "typed-dict":
                return self._of_mapping(schema, config)
            case "dict":
                return self._of_dict(schema, config)
            case "union":
                return self._of_union(schema, config)
            case "list" | "set" | "frozenset" | "tuple" | "named-tuple" | "arguments":
                return _any_item(self._of_children(schema, config))
            case _:
                return _any_of(self._of_children(schema, config))

    def _of_children(self, schema: Schema, config: Mapping[str, Any]) -> list[RoundTripCheck]:
        made = (self.of(each, config) for each in _children(schema))
        return [check for check in made if check is not None]

    def _of_definition(self, ref: str, config: Mapping[str, Any]) -> RoundTripCheck | None:
        if ref in self._being_made:
            self.recurs = True

            def again(value: Any) -> bool:
                check = self._made.get(ref)
                return check is not None and check(value)

            return again
        if ref not in self._made:
            self._being_made.add(ref)
            self._made[ref] = self.of(self._definitions[ref], config)
            self._being_made.remove(ref)
        return self._made[ref]

    def _of_class(self, schema: Schema, config: Mapping[str, Any]) -> RoundTripCheck:
        cls, inner = schema["cls"], schema["schema"]
        if getattr(cls, "__private_attributes__", None):
            return lambda value: isinstance(value, cls)
        if schema.get("root_model"):
            root = self.of(inner, config)
            within = [] if root is None else [("root", root)]
        else:
            while inner["type"].startswith("function-") and "schema" in inner:
                inner = inner["schema"]
            within = [*self._of_fields(inner, config)]
            if config.get("extra_fields_behavior") == "allow":
                within.append(("__pydantic_extra__", _is_not_json))
        if not within:
            return lambda value: type(value) is not cls and isinstance(value, cls)

        def check(value: Any) -> bool:
            if type(value) is not cls:
                return isinstance(value, cls)
            return any(inside(getattr(value, name, None)) for name, inside in within)

        return check

    def _of_mapping(self, schema: Schema, config: Mapping[str, Any]) -> RoundTripCheck | None:
        within = [*self._of_fields(schema, config)]
        if not within:
            return None
        return lambda value: (
            isinstance(value, Mapping)
            and any(inside(cast("Any", value)[name]) for name, inside in within if name in value)
        )

    def _of_fields(
        self, schema: Schema, config: Mapping[str, Any]
    ) -> Iterator[tuple[str, RoundTripCheck]]:
        for name, each in _named_fields(schema):
            if each.get("init_only"):
                continue
            if "serialization_exclude_if" in each or _is_unwritten(each):
                yield name, _differs_from(each["schema"])
            elif not each.get("init", True):
                yield name, _always
            elif (check := self.of(each["schema"], config)) is not None:
                yield name, check

    def _of_dict(self, schema: Schema, config: Mapping[str, Any]) -> RoundTripCheck | None:
        kinds = [
            each["type"] for each in _alternatives(schema.get("keys_schema"), self._definitions)
        ]
        if kinds in ([], ["any"]) and schema.get("values_schema", {"type": "any"})["type"] == "any":
            return _is_not_json
        if len(kinds) != 1 or not SURE_KEYS.issuperset(kinds):
            return bool
        values = self.of(schema.get("values_schema", {"type": "any"}), config)
        if values is None:
            return None
        return lambda value: (
            isinstance(value, Mapping) and any(map(values, cast("Any", value).values()))
        )

    def _of_union(self, schema: Schema, config: Mapping[str, Any]) -> RoundTripCheck | None:
        choices = [
            each
            for choice in _children(schema)
            for each in _alternatives(choice, self._definitions)
        ]
        forms = [form for each in choices if each["type"] != "model" for form in _forms(each)]
        models = [each for each in choices if each["type"] == "model"]
        if models:
            forms.append("object")
        look_alike = len(forms) > len(set(forms)) or ("any" in forms and len(forms) > 1)
        if look_alike or not _are_distinct(models):
            return lambda value: value is not None
        return _any_of(self._of_children(schema, config))


def _are_distinct(models: Sequence[Schema]) -> bool:
    """Whether what is written for one of these models is read as that model only.

    It is, if each of the others needs a field that is not there, or refuses one that is.
    """
    if len(models) < 2:
        return True
    fields: list[tuple[set[str], set[str], list[set[str]]]] = []
    for model in models:
        inner, config = model["schema"], model.get("config", {})
        if (
            inner["type"] != "model-fields"
            or config.get("extra_fields_behavior") != "forbid"
            or _rewrites(model)
        ):
            return False
        named = _named_fields(inner)
        written = {
            each.get("serialization_alias") or name
            for name, each in named
            if not _is_unwritten(each)
        }
        read = {key for name, each in named for key, *_ in _lookups(name, each, config)}
        needed = [
            {key for key, *_ in _lookups(name, each, config)}
            for name, each in named
            if _is_required(each)
        ]
        fields.append((written, read, needed))
    return not any(
        written <= read and all(written & keys for keys in needed)
        for index, (written, _, _) in enumerate(fields)
        for other, (_, read, needed) in enumerate(fields)
        if other != index
    )


def _forms(schema: Schema) -> Iterable[str]:
    """The forms that a value of a schema may have in JSON."""
    match schema["type"]:
        case "literal":
            return {_form_of(value) for value in schema["expected"]}
        case "enum":
            return {_form_of(member.value) for member in schema["members"]}
        case kind:
            return {FORM.get(kind, "any")}


def _form_of(value: object) -> str:
    known = {bool: "bool", int: "int", float: "float", str: "text", NoneType: "null"}
    return known.get(type(value), "text")


def _any_of(checks: list[RoundTripCheck]) -> RoundTripCheck | None:
    if len(checks) < 2:
        return checks[0] if checks else None
    return lambda value: any(check(value) for check in checks)


def _any_item(checks: list[RoundTripCheck]) -> RoundTripCheck | None:
    check = _any_of(checks)
    if check is None:
        return None
    return lambda value: (
        isinstance(value, Iterable)
        and not isinstance(value, str | bytes | Mapping)
        and any(map(check, value))
    )


def _always(_value: object) -> bool:
    return True


def _differs_from(schema: Schema) -> RoundTripCheck:
    """Make a function: whether a field that is not written differs from its default."""
    if schema["type"] != "default" or "default" not in schema:
        return _always
    default = schema["default"]
    return lambda value: type(value) is not type(default) or value != default


def _is_not_finite(value: object) -> bool:
    return type(value) is float and not math.isfinite(value)


def _is_not_json(value: object, left: int = DEEPEST) -> bool:
    """Whether a value is anything but what reading JSON gives."""
    kind = type(value)
    if kind in PLAIN:
        return False
    if kind is float:
        return not math.isfinite(cast("float", value))
    if kind is dict:
        members = cast("dict[object, object]", value)
        if any(type(name) is not str for name in members):
            return True
        inside: Iterable[object] = members.values()
    elif kind is list:
        inside = cast("list[object]", value)
    else:
        return True
    # A loop that looks at each type costs half as much as a call for each value.
    for each in inside:
        if type(each) not in PLAIN and (not left or _is_not_json(each, left - 1)):
            return True
    return False


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

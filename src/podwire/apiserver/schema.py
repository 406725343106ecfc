"""What may stand in a written object: fields that are unknown fall out, types that do not fit are refused.

Each definition is compiled once, when the first object of its kind arrives, into closures over plain tables: one look-up and one
comparison of types for a field that is as it should be. Paths are kept as linked pairs and spelled out only for an error.

A spec that was looked at before and was as it should be is not looked at again: Pods of one template have equal ones.

An object comes out as the API would give it back: a null means that the field is absent, empty lists and maps are absent, quantities
are canonical. The texts of errors are those of Kubernetes' decoder, since people and programs look for them.

Here: shapes. Not here: values and what they mean together (``validation*.py``, ``kinds/``), the schemas themselves (``definitions.py``).

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from podwire.apiserver import quantity
from podwire.apiserver.definitions import (
    INT_OR_STRING,
    JSON,
    JSON_SCHEMA,
    JSON_SCHEMA_OR,
    META,
    MICRO_TIME,
    QUANTITY,
    TIME,
    Schema,
    definition,
    plain_type,
    referenced,
)
from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.validation import Remembered

# The parent's path and the name or the index below it.
Where: TypeAlias = "tuple[Where, str | int] | None"
Unknown = list[tuple[Where, str]]
# Looks into a value of the right type; false when the value says nothing and its field falls out.
Look = Callable[[Any, Where, Unknown], bool]
# Takes a value of another type than expected; gives what to keep instead or raises Mistyped.
Convert = Callable[[Any, Where], Any]
# The type that a value should have, how to look into it, what to do with any other.
Field = tuple[type | None, Look | None, Convert]

_INT32, _INT64 = 1 << 31, 1 << 63


_WORTH_REMEMBERING = 512  # bytes of a spec; looking at a smaller one is quick
_unchanged = Remembered()  # specs, with their kinds, that were as they should be


class Mistyped(Exception):
    """A value that cannot be read as its field: status 400. The text is the whole message."""


class _Misfit(Exception):
    """The same before the kind is known."""


def prune_and_check(kind: Kind, tree: Tree) -> list[str]:
    """Bring a written object into shape, in place.

    Gives the fields that its kind does not know, which have been dropped, as ``unknown field "spec.foo"``: under strict validation
    the caller refuses them with ``strict_message``, else they are warnings. Raises Mistyped for a value of a wrong type.
    """
    if kind.custom is not None:
        return kind.custom.shape(tree)
    unknown: Unknown = []
    look = _compiled(kind.definition)
    spec = tree.get("spec")
    value = orjson.dumps(spec) if type(spec) is dict else b""
    known = len(value) >= _WORTH_REMEMBERING and (kind.definition, value) in _unchanged
    if known:
        del tree["spec"]
    try:
        look(tree, None, unknown)
    except _Misfit as error:
        raise Mistyped(f"{_cannot(kind)}: {error}") from None
    if known:
        tree["spec"] = spec
    elif len(value) >= _WORTH_REMEMBERING and not unknown and orjson.dumps(tree["spec"]) == value:
        _unchanged.add((kind.definition, value))
    tree.setdefault("metadata", {})
    return unknown_fields(unknown)


def prune_metadata(metadata: Tree, where: Where, unknown: Unknown, subject: str) -> None:
    """Bring metadata of any object into shape, in place. ``subject`` begins the message of Mistyped, as ``cannot`` has it."""
    try:
        _compiled(META + "ObjectMeta")(metadata, where, unknown)
    except _Misfit as error:
        raise Mistyped(f"{subject}: {error}") from None


def unknown_fields(unknown: Unknown) -> list[str]:
    """Print what a kind does not know, as warnings and errors have it."""
    return [f'unknown field "{spelled((where, name))}"' for where, name in unknown]


def strict_message(kind: Kind, unknown: list[str]) -> str:
    """Give the message that refuses unknown fields."""
    return f"{_cannot(kind)}: strict decoding error: {', '.join(unknown)}"


def _cannot(kind: Kind) -> str:
    return cannot(kind.kind, kind.version)


def cannot(kind: str, version: str) -> str:
    """Begin the message that refuses what is no object of its kind."""
    return f'{kind} in version "{version}" cannot be handled as a {kind}'


# Errors ------------------------------------------------------------------------------------------------------------------


def spelled(where: Where) -> str:
    """``spec.containers[0].name``: the path of a field that is unknown."""
    text = ""
    while where is not None:
        where, part = where
        text = f"[{part}]{text}" if isinstance(part, int) else f".{part}{text}"
    return text.removeprefix(".")


def _dotted(where: Where) -> str:
    """``spec.containers.name``: the path of a field of a wrong type, without indexes."""
    parts: list[str] = []
    while where is not None:
        where, part = where
        if isinstance(part, str):
            parts.append(part)
    return ".".join(reversed(parts))


_FOUND = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object", type(None): "null"}


def _refuse(owner: str, expected: str) -> Convert:
    def refuse(value: Any, where: Where) -> Any:
        found = _FOUND.get(type(value), "value")
        if found == "number" and expected in ("int32", "int64"):
            found = f"number {value}"
        raise _Misfit(f"json: cannot unmarshal {found} into Go struct field {owner}.{_dotted(where)} of type {expected}")

    return refuse


# Named texts: the decoder names the type of such a field and not "string".
_NAMED = {
    "protocol": "v1.Protocol",
    "restartPolicy": "v1.RestartPolicy",
    "dnsPolicy": "v1.DNSPolicy",
    "imagePullPolicy": "v1.PullPolicy",
    "sessionAffinity": "v1.ServiceAffinity",
    "uid": "types.UID",
}


def _go_type(schema: Schema, owner: str, name: str) -> str:
    """Name the type of a field as the decoder's errors do."""
    if name_of := referenced(schema):
        package, short = name_of.split(".")[-2:]
        return "string" if name_of in (TIME, MICRO_TIME) else f"{package}.{short}"
    match plain_type(schema):
        case "array":
            return "[]" + _go_type(schema.get("items", {}), owner, "")
        case "object":
            return "map[string]" + _go_type(schema.get("additionalProperties", {}), owner, "")
        case "integer":
            return str(schema.get("format", "int32"))
        case "number":
            return "float64"
        case "boolean":
            return "bool"
    if schema.get("format") == "byte":
        return "[]uint8"
    if name == "type" and owner == "ServiceSpec":
        return "v1.ServiceType"
    return _NAMED.get(name, "string")


# Single values -----------------------------------------------------------------------------------------------------------


def _bounded(limit: int, refuse: Convert) -> Look:
    def look(value: int, where: Where, _unknown: Unknown) -> bool:
        if not -limit <= value < limit:
            refuse(value, where)
        return True

    return look


_is_instant = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)").fullmatch


def _instant(value: str, _where: Where, _unknown: Unknown) -> bool:
    if not _is_instant(value):
        layout = '"2006-01-02T15:04:05Z07:00"'
        raise _Misfit(f'parsing time "{value}" as {layout}: cannot parse "{value}" as "2006"')
    return True


def _bytes(value: str, _where: Where, _unknown: Unknown) -> bool:
    text = value.replace("\n", "").replace("\r", "")
    try:
        binascii.a2b_base64(text, strict_mode=True)
        proper = len(text) % 4 == 0
    except (binascii.Error, ValueError):
        proper = False
    if not proper:
        good = re.match(r"[A-Za-z0-9+/\r\n]*", value)
        raise _Misfit(f"illegal base64 data at input byte {len(good[0]) if good else 0}")
    return True


def _quantity(value: Any, where: Where) -> str:
    """Quantities may be written as numbers and are kept as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return str(_refuse("Quantity", "string")(value, where))
    try:
        return quantity.canonical(
            value if isinstance(value, str) else format(value, "f").rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        )
    except quantity.Malformed as error:
        raise _Misfit(str(error)) from None


def _int_or_string(owner: str) -> Convert:
    refuse = _refuse(owner, "int32")

    def convert(value: Any, where: Where) -> Any:
        if type(value) is str or (type(value) is int and -_INT32 <= value < _INT32):
            return value
        return refuse(value, where)

    return convert


def _anything(value: Any, _where: Where) -> Any:
    return value


# Compiling -----------------------------------------------------------------------------------------------------------------


def _field(schema: Schema, owner: str, name: str) -> Field:
    """Compile the schema of one field of the struct ``owner``."""
    refuse = _refuse(owner, _go_type(schema, owner, name))
    target = referenced(schema)
    if target in (TIME, MICRO_TIME):
        return str, _instant, refuse
    if target == QUANTITY:
        return None, None, _quantity
    if target == INT_OR_STRING:
        return None, None, _int_or_string(owner)
    if target == JSON:
        return None, None, _anything
    if target in JSON_SCHEMA_OR:
        return (
            dict,
            _kept(_struct(JSON_SCHEMA)),
            lambda value, where: value if type(value) in JSON_SCHEMA_OR[target] else refuse(value, where),
        )
    if target:
        return dict, _struct(target), refuse
    match plain_type(schema):
        case "string":
            return str, _bytes if schema.get("format") == "byte" else None, refuse
        case "integer":
            return int, _bounded(_INT64 if schema.get("format") == "int64" else _INT32, refuse), refuse
        case "number":
            return float, None, lambda value, where: value if type(value) is int else refuse(value, where)
        case "boolean":
            return bool, None, refuse
        case "array":
            return list, _list(_field(schema.get("items", {}), owner, ""), schema.get("items", {})), refuse
        case "object":
            if "additionalProperties" in schema:
                return dict, _map(_field(schema["additionalProperties"], owner, ""), schema["additionalProperties"]), refuse
            return dict, None, refuse
    return None, None, _anything


def _kept(look: Look | None) -> Look | None:
    """A field that says something even when its value is empty."""
    if look is None:
        return None
    return lambda value, where, unknown: look(value, where, unknown) or True


def _zero(schema: Schema) -> Any:
    """What a null stands for inside a list or a map: the decoder's zero value."""
    if referenced(schema) in (TIME, MICRO_TIME, QUANTITY, INT_OR_STRING):
        return lambda: "0" if referenced(schema) == QUANTITY else ""
    kind = "object" if referenced(schema) else plain_type(schema)
    return {"object": dict, "array": list, "integer": int, "number": float, "boolean": bool}.get(kind, str)


def _list(item: Field, schema: Schema) -> Look:
    expected, look_into, convert = item
    zero = _zero(schema)

    def look(items: list[Any], where: Where, unknown: Unknown) -> bool:
        index = 0
        for value in items:
            if type(value) is expected:
                if look_into is not None:
                    look_into(value, (where, index), unknown)
            else:
                items[index] = zero() if value is None else convert(value, where)
            index += 1
        return index > 0

    return look


def _map(item: Field, schema: Schema) -> Look:
    expected, look_into, convert = item
    zero = _zero(schema)

    def look(items: Tree, where: Where, unknown: Unknown) -> bool:
        for key, value in items.items():
            if type(value) is expected:
                if look_into is not None:
                    look_into(value, where, unknown)
            else:
                items[key] = zero() if value is None else convert(value, where)
        return bool(items)

    return look


def _struct(name: str) -> Look | None:
    """Compile a definition when it is first looked into: definitions may contain themselves."""
    schema = definition(name)
    if "properties" not in schema:
        return None
    compiled: Look | None = None

    def look(value: Any, where: Where, unknown: Unknown) -> bool:
        nonlocal compiled
        if compiled is None:
            compiled = _compiled(name)
        return compiled(value, where, unknown)

    return look


@functools.cache
def _compiled(name: str) -> Look:
    schema = definition(name)
    owner = name.rsplit(".", 1)[-1]
    fields = {key: _field(one, owner, key) for key, one in schema.get("properties", {}).items()}
    find = fields.get

    def look(tree: Tree, where: Where, unknown: Unknown) -> bool:
        gone: list[str] | None = None
        for key, value in tree.items():
            field = find(key)
            if field is None:
                unknown.append((where, key))
            else:
                expected, look_into, convert = field
                if type(value) is expected:
                    if look_into is None or look_into(value, (where, key), unknown):
                        continue
                elif value is not None:
                    tree[key] = convert(value, (where, key))
                    continue
            if gone is None:
                gone = []
            gone.append(key)
        if gone is not None:
            for key in gone:
                del tree[key]
        return True

    return look

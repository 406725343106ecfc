"""Kubernetes' protobuf encoding of objects: bytes to the JSON tree that says the same.

    b"k8s\\0"  Unknown{typeMeta{apiVersion, kind}, raw}        raw: the object, a message of its kind

A message is read by its schema: the schema tells the type of each field (text, number, list, map, message), ``protobuf_fields`` its
number. Each definition is compiled once. Fields of numbers that are not known are passed over, as protobuf wants it. A field that the
encoding always writes, and whose value is zero, is left out of the tree where Kubernetes' JSON leaves it out.

Pure: bytes in, tree out. Here: the wire format and the types that are encoded in a way of their own (times, quantities, ports that are
names or numbers, free JSON, parts of JSON Schema). Not here: whether the object is right.

Source: https://protobuf.dev/programming-guides/encoding/ and
https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

from __future__ import annotations

import base64
import functools
import math
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from podwire.apiserver import protobuf_fields
from podwire.apiserver.definitions import (
    INT_OR_STRING,
    META,
    MICRO_TIME,
    QUANTITY,
    TIME,
    Schema,
    definition,
    definitions,
    plain_type,
    referenced,
)

MAGIC = b"k8s\0"
DEPTH = 100  # messages in messages: upstream's types end at about 15, and only JSON Schema holds itself
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS = 70
_CRD = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Tree = dict[str, Any]
# Reads a field into the tree of its message: its wire type, what is there, how deep the message lies.
Put = Callable[[Tree, int, Any, int], None]
# Reads one value: its wire type, what is there, how deep.
Read = Callable[[int, Any, int], Any]


class Malformed(ValueError):
    """Bytes that are not the encoding of an object. The text says why."""


class NotEncoded(ValueError):
    """A kind that has no protobuf encoding here: it is to be sent as JSON. The text names it."""


def decode(body: bytes) -> Tree:
    """Read an object. Raises Malformed, NotEncoded."""
    if not body.startswith(MAGIC):
        raise Malformed("the prefix k8s\\x00 is missing")
    parts = _parts(memoryview(body)[len(MAGIC) :])
    about = _parts(parts.get(1, memoryview(b"")))
    encoding, media = _text(parts.get(3, b"")), _text(parts.get(4, b""))
    if encoding or media not in ("", "application/vnd.kubernetes.protobuf"):
        raise Malformed(f"the object is encoded as {encoding or media}")
    api_version, kind = _text(about.get(1, b"")), _text(about.get(2, b""))
    if not kind:
        raise Malformed("Object 'Kind' is missing")
    name = _messages().get((api_version, kind))
    if name is None or protobuf_fields.fields(name) is None:
        raise NotEncoded(f'no kind "{kind}" is registered for version "{api_version}"')
    tree: Tree = {"apiVersion": api_version, "kind": kind}
    _read_message(name, name, parts.get(2, memoryview(b"")), tree, 0)
    return tree


@functools.cache
def _messages() -> dict[tuple[str, str], str]:
    """Definitions by what objects say of themselves. DeleteOptions may say any group."""
    found = {}
    for name, schema in definitions().items():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            version = f"{one['group']}/{one['version']}" if one["group"] else one["version"]
            found[version, one["kind"]] = name
    return found


# The wire ----------------------------------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise Malformed("unexpected end of the body")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift >= _VARINT_BITS:
            raise Malformed("a number is too long")


def _wire(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Give the fields of a message: number, wire type, value."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("a field has the number 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _LENGTH:
            length, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise Malformed(f"field {number} has the wire type {wire}")
        if length > end - at:
            raise Malformed("unexpected end of the body")
        yield number, wire, data[at : at + length]
        at += length


def _parts(data: memoryview) -> dict[int, memoryview]:
    """Give the fields with a length of a small message; of fields that come twice the last one."""
    return {number: value for number, wire, value in _wire(data) if wire == _LENGTH}


def _text(data: memoryview | bytes) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


# Messages ----------------------------------------------------------------------------------------------------------------


def _read_message(name: str, owner: str, data: memoryview, tree: Tree, depth: int) -> None:
    """Read a message into a tree; what the tree holds already is added to."""
    if depth > DEPTH:
        raise Malformed("messages are nested too deeply")
    puts = _compiled(name, owner)
    for number, wire, value in _wire(data):
        put = puts.get(number)
        if put is not None:
            put(tree, wire, value, depth + 1)


@functools.cache
def _compiled(name: str, owner: str) -> dict[int, Put]:
    """Compile a message. ``owner`` is the definition whose fields it has: its own, or that of the message that it stands in."""
    numbered = protobuf_fields.fields(name)
    if numbered is None:
        raise NotEncoded(f"{name} has no protobuf encoding here")
    properties = definition(owner).get("properties", {})
    puts = {}
    for number, one in numbered.items():
        if one.inline:
            puts[number] = _inline(one.inline, owner)
        elif one.name in properties:
            puts[number] = _put(one.name, properties[one.name], zero_counts=one.zero_counts)
    return puts


def _inline(name: str, owner: str) -> Put:
    def put(tree: Tree, wire: int, value: Any, depth: int) -> None:
        _read_message(name, owner, _length(wire, value), tree, depth)

    return put


def _put(name: str, schema: Schema, *, zero_counts: bool) -> Put:
    kind = "" if referenced(schema) else plain_type(schema)
    if kind == "array":
        return _put_item(name, schema.get("items", {}))
    if kind == "object" and "additionalProperties" in schema:
        return _put_entry(name, schema["additionalProperties"])
    target = referenced(schema)
    if target and target not in _SPECIAL:
        return _put_message(name, target)
    read = _reader(schema)
    always = zero_counts or bool(target)

    def put(tree: Tree, wire: int, value: Any, depth: int) -> None:
        found = read(wire, value, depth)
        if found is None or (not found and not always):
            tree.pop(name, None)
        else:
            tree[name] = found

    return put


def _put_message(name: str, target: str) -> Put:
    def put(tree: Tree, wire: int, value: Any, depth: int) -> None:
        _read_message(target, target, _length(wire, value), tree.setdefault(name, {}), depth)

    return put


def _put_item(name: str, schema: Schema) -> Put:
    read = _reader(schema)
    packed = plain_type(schema) in ("integer", "boolean") and not referenced(schema)

    def put(tree: Tree, wire: int, value: Any, depth: int) -> None:
        items = tree.setdefault(name, [])
        if not packed or wire != _LENGTH:
            items.append(read(wire, value, depth))
            return
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            items.append(read(_VARINT, number, depth))

    return put


def _put_entry(name: str, schema: Schema) -> Put:
    """A map is a list of messages, each with a key and a value. A list in a map is a message with one field, ``items``."""
    nested = plain_type(schema) == "array" and not referenced(schema)
    item = _put_item("items", schema.get("items", {})) if nested else None
    read = None if nested else _reader(schema)

    def put(tree: Tree, wire: int, value: Any, depth: int) -> None:
        key, found = "", None
        for number, kind, part in _wire(_length(wire, value)):
            if number == 1:
                key = _text(_length(kind, part))
            elif number == 2 and read is not None:
                found = read(kind, part, depth)
            elif number == 2 and item is not None:
                inner: Tree = {"items": []}
                for _, inner_kind, inner_part in (one for one in _wire(_length(kind, part)) if one[0] == 1):
                    item(inner, inner_kind, inner_part, depth)
                found = inner["items"]
        if found is None:
            found = [] if read is None else read(*_empty(schema), depth)
        tree.setdefault(name, {})[key] = found

    return put


def _empty(schema: Schema) -> tuple[int, Any]:
    """What stands for a value that is not written."""
    kind = "" if referenced(schema) else plain_type(schema)
    if kind in ("integer", "boolean"):
        return _VARINT, 0
    return (_FIXED64, memoryview(bytes(8))) if kind == "number" else (_LENGTH, memoryview(b""))


# Values ------------------------------------------------------------------------------------------------------------------


def _reader(schema: Schema) -> Read:
    """Choose how a single value is read."""
    target = referenced(schema)
    if target:
        return _SPECIAL.get(target) or _message(target)
    match plain_type(schema):
        case "integer":
            return _int64 if schema.get("format") == "int64" else _int32
        case "boolean":
            return _boolean
        case "number":
            return _double
        case "string":
            return _base64 if schema.get("format") == "byte" else _string
    return _free


def _message(name: str) -> Read:
    def read(wire: int, value: Any, depth: int) -> Tree:
        tree: Tree = {}
        _read_message(name, name, _length(wire, value), tree, depth)
        return tree

    return read


def _length(wire: int, value: Any) -> memoryview:
    if wire != _LENGTH:
        raise Malformed("a number stands where a text or a message should")
    found: memoryview = value
    return found


def _number(wire: int, value: Any) -> int:
    if wire != _VARINT:
        raise Malformed("a number is expected where something else stands")
    return int(value)


def _int64(wire: int, value: Any, _depth: int) -> int:
    found = _number(wire, value)
    return found - (1 << 64) if found >> 63 else found


def _int32(wire: int, value: Any, _depth: int) -> int:
    found = _number(wire, value) & 0xFFFF_FFFF
    return found - (1 << 32) if found >> 31 else found


def _boolean(wire: int, value: Any, _depth: int) -> bool:
    return bool(_number(wire, value))


def _double(wire: int, value: Any, _depth: int) -> float | int:
    if wire != _FIXED64:
        raise Malformed("a fraction is expected where something else stands")
    found: float = struct.unpack("<d", value)[0]
    if not math.isfinite(found):
        raise Malformed("a fraction is not finite")
    return int(found) if found.is_integer() and abs(found) < 1e15 else found


def _string(wire: int, value: Any, _depth: int) -> str:
    return _text(_length(wire, value))


def _base64(wire: int, value: Any, _depth: int) -> str:
    return base64.b64encode(_length(wire, value)).decode("ascii")


# Types that are encoded in a way of their own ------------------------------------------------------------------------------


def _instant(digits: int) -> Read:
    """Read a Timestamp: seconds and nanoseconds. None of it is no time."""

    def read(wire: int, value: Any, depth: int) -> str | None:
        data = _length(wire, value)
        if not data:
            return None
        seconds = nanos = 0
        for number, kind, part in _wire(data):
            if number == 1:
                seconds = _int64(kind, part, depth)
            elif number == 2:
                nanos = _int32(kind, part, depth)
        try:
            moment = _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000 if digits else 0)
        except OverflowError:
            raise Malformed("a time is out of range") from None
        return moment.isoformat(timespec="microseconds" if digits else "seconds").replace("+00:00", "Z")

    return read


def _quantity(wire: int, value: Any, _depth: int) -> str:
    return _text(_parts(_length(wire, value)).get(1, b"")) or "0"


def _int_or_string(wire: int, value: Any, depth: int) -> int | str:
    kind, number, text = 0, 0, ""
    for field, one, part in _wire(_length(wire, value)):
        if field == 1:
            kind = _int64(one, part, depth)
        elif field == 2:
            number = _int32(one, part, depth)
        elif field == 3:
            text = _text(_length(one, part))
    return text if kind else number


def _free(wire: int, value: Any, _depth: int) -> Any:
    """Read JSON that a message holds as it is (extensions, the fields of managers, defaults in schemas)."""
    raw = _parts(_length(wire, value)).get(1, b"")
    try:
        return orjson.loads(raw) if raw else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"JSON in the body: {error}") from None


def _schema_or(number: int, other: Read) -> Read:
    """Read what is a JSON Schema (field 1 or 2) or something simpler (the other field)."""
    schema = _message(_CRD + "JSONSchemaProps")

    def read(wire: int, value: Any, depth: int) -> Any:
        found: Any = None
        for field, kind, part in _wire(_length(wire, value)):
            if field == number:
                return schema(kind, part, depth)
            if field in (1, 2):
                found = _appended(found, other(kind, part, depth))
        return found

    return read


def _appended(found: Any, value: Any) -> Any:
    """Several values make a list; truth stands alone."""
    return value if isinstance(value, bool) else [*(found or ()), value]


_SPECIAL: dict[str, Read] = {
    TIME: _instant(0),
    MICRO_TIME: _instant(6),
    QUANTITY: _quantity,
    INT_OR_STRING: _int_or_string,
    META + "FieldsV1": _free,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _free,
    _CRD + "JSON": _free,
    _CRD + "JSONSchemaPropsOrBool": _schema_or(2, _boolean),
    _CRD + "JSONSchemaPropsOrArray": _schema_or(1, _message(_CRD + "JSONSchemaProps")),
    _CRD + "JSONSchemaPropsOrStringArray": _schema_or(1, _string),
}

"""What a schema must be like, so that it can prune, default and merge: *structural*.

Every value has a type, said outside of ``allOf``, ``anyOf``, ``oneOf`` and ``not``; those only restrict. Each rule gives its errors in
the API's words. Defaults must fit their own schema.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from podwire.apiserver.extension import shape, values
from podwire.apiserver.extension.values import regular_expression
from podwire.apiserver.schema import Unknown, unknown_fields
from podwire.apiserver.validation import FieldError, Path, forbidden, invalid, required, unsupported

Schema = dict[str, Any]

ROOT, ITEM, FIELD = "root", "item", "field"
TYPES = ("array", "boolean", "integer", "number", "object", "string")
_EMPTY_TYPE = {
    ROOT: "must not be empty at the root",
    ITEM: "must not be empty for specified array items",
    FIELD: "must not be empty for specified object fields",
}
_JUNCTORS = ("anyOf", "allOf", "oneOf")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
# Words that may not be said below a junctor, with what is said of them.
_FORBIDDEN_BELOW = {
    "type": "must be empty to be structural",
    "additionalProperties": "must be undefined to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    "externalDocs": "must be undefined to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}
# Words of JSON Schema that no structural schema has.
_FORBIDDEN_ANYWHERE = {
    "definitions": "definitions is not supported",
    "dependencies": "dependencies is not supported",
    "id": "id is not supported",
    "additionalItems": "additionalItems is not supported",
    "patternProperties": "patternProperties is not supported",
    "$ref": "$ref is not supported",
}


def errors(schema: Schema, path: Path) -> list[FieldError]:
    """Give everything that keeps a schema of a version from being structural, in the order of their texts."""
    found = [*_value(schema, ROOT, path), *_completeness(schema, path)]
    found += _unsupported_words(schema, path)
    if not found:
        found += _defaults(schema, path, within_metadata=False)
    return sorted(found, key=str)


def _unsupported_words(schema: Schema, path: Path) -> Iterator[FieldError]:
    for word, text in _FORBIDDEN_ANYWHERE.items():
        if schema.get(word):
            yield forbidden(path / word, text)
    if schema.get("uniqueItems"):
        yield forbidden(path / "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic")
    if schema.get("additionalProperties") is False:
        yield forbidden(path / "additionalProperties", "additionalProperties cannot be set to false")
    if isinstance(schema.get("items"), list):
        yield forbidden(path / "items", "items must be a schema object and not an array")
    for one, where in _below(schema, path):
        yield from _unsupported_words(one, where)


def _below(schema: Schema, path: Path) -> Iterator[tuple[Schema, Path]]:
    """Give every schema right below one, also those below junctors."""
    yield from _spine(schema, path)
    for word in _JUNCTORS:
        for index, one in enumerate(schema.get(word, ())):
            yield one, path / word @ index
    if isinstance(schema.get("not"), dict):
        yield schema["not"], path / "not"


def _spine(schema: Schema, path: Path) -> Iterator[tuple[Schema, Path]]:
    for name, one in schema.get("properties", {}).items():
        yield one, path / "properties" % name
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield schema[word], path / word


# The spine -----------------------------------------------------------------------------------------------------------------


def _value(schema: Schema, level: str, path: Path) -> Iterator[FieldError]:
    kind = schema.get("type", "")
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if kind == "array" and not isinstance(schema.get("items"), dict | list):
        yield required(path / "items", "must be specified")
    if "additionalProperties" in schema:
        if schema.get("properties"):
            yield forbidden(path / "additionalProperties", "additionalProperties and properties are mutual exclusive")
        if level == ROOT:
            yield forbidden(path / "additionalProperties", "must not be used at the root")
        if embedded:
            yield forbidden(path / "additionalProperties", "must not be used if x-kubernetes-embedded-resource is set")
    if embedded and kind != "object":
        text = "must be object if x-kubernetes-embedded-resource is true"
        yield invalid(path / "type", kind, text) if kind else required(path / "type", text)
    elif not kind and not free:
        yield required(path / "type", _EMPTY_TYPE[level])
    elif kind and kind not in TYPES:
        yield unsupported(path / "type", kind, TYPES)
    if level == ROOT and kind and kind != "object":
        yield invalid(path / "type", kind, "must be object at the root")
    yield from _extensions(schema, path)
    yield from _object_fields(schema, level, path, embedded=embedded)
    yield from _junctors(schema, path, first=True)
    for one, where in _spine(schema, path):
        yield from _value(one, ITEM if one is schema.get("items") else FIELD, where)


def _extensions(schema: Schema, path: Path) -> Iterator[FieldError]:
    kind, form = schema.get("type", ""), schema.get("x-kubernetes-list-type")
    if schema.get("x-kubernetes-int-or-string"):
        for word in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if schema.get(word):
                yield invalid(path / word, True, "must be false if x-kubernetes-int-or-string is true")
        if kind:
            yield invalid(path / "type", kind, "must be empty if x-kubernetes-int-or-string is true")
    if "x-kubernetes-preserve-unknown-fields" in schema and not schema["x-kubernetes-preserve-unknown-fields"]:
        yield invalid(path / "x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    if form is not None:
        if kind != "array":
            text = "must be array if x-kubernetes-list-type is specified"
            yield invalid(path / "type", kind, text) if kind else required(path / "type", text)
        if form not in ("atomic", "map", "set"):
            yield unsupported(path / "x-kubernetes-list-type", form, ("atomic", "map", "set"))
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if keys and form != "map":
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        yield required(path / "x-kubernetes-list-type", text) if form is None else invalid(path / "x-kubernetes-list-type", form, text)
    if form == "map":
        yield from _map_list(schema, keys, path)
    map_form = schema.get("x-kubernetes-map-type")
    if map_form is not None:
        if kind != "object":
            text = "must be object if x-kubernetes-map-type is specified"
            yield invalid(path / "type", kind, text) if kind else required(path / "type", text)
        if map_form not in ("atomic", "granular"):
            yield unsupported(path / "x-kubernetes-map-type", map_form, ("atomic", "granular"))


def _map_list(schema: Schema, keys: Any, path: Path) -> Iterator[FieldError]:
    if not keys:
        yield required(path / "x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    items = schema.get("items")
    if not isinstance(items, dict):
        return
    if items.get("type") != "object":
        yield invalid(path / "items" / "type", items.get("type", ""), "must be object if parent array's x-kubernetes-list-type is map")
        return
    properties = items.get("properties", {})
    for index, key in enumerate(keys):
        where = path / "x-kubernetes-list-map-keys" @ index
        found = properties.get(key)
        if found is None:
            text = "entries must all be names of item properties"
            yield invalid(where, key, text)
        elif found.get("type") in ("array", "object"):
            where = path / "items" / "properties" % key / "type"
            yield invalid(where, found["type"], "must be a scalar type if parent array's x-kubernetes-list-type is map")
        elif "default" not in found and key not in items.get("required", ()):
            where = path / "items" / "properties" % key / "default"
            yield required(where, "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property")
    if len(set(keys)) < len(keys):
        yield invalid(path / "x-kubernetes-list-map-keys", list(keys), "must not contain duplicate entries")


def _object_fields(schema: Schema, level: str, path: Path, *, embedded: bool) -> Iterator[FieldError]:
    properties = schema.get("properties", {})
    about_object = level == ROOT or embedded
    for name in ("kind", "apiVersion"):
        if about_object and name in properties and properties[name].get("type") != "string":
            yield invalid(path / "properties" % name / "type", properties[name].get("type", ""), "must be string")
    metadata = properties.get("metadata")
    if metadata is not None and about_object:
        where = path / "properties" % "metadata"
        if metadata.get("type") != "object":
            yield invalid(where / "type", metadata.get("type", ""), "must be object")
        if level == ROOT:
            rest = {key: one for key, one in metadata.items() if key not in ("type", "description", "properties") and one}
            if rest or not set(metadata.get("properties", ())) <= {"name", "generateName"}:
                text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
                yield forbidden(where, text)
    if embedded and not schema.get("x-kubernetes-preserve-unknown-fields") and not properties:
        text = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        yield required(path / "properties", text)


# Restrictions ----------------------------------------------------------------------------------------------------------------


def _junctors(schema: Schema, path: Path, *, first: bool) -> Iterator[FieldError]:
    """Check what restricts a value. The two forms of int-or-string may name types; ``first`` says that they are looked for."""
    mixed = first and bool(schema.get("x-kubernetes-int-or-string"))
    if pattern := schema.get("pattern"):
        try:
            regular_expression(pattern)
        except ValueError as error:
            yield invalid(path / "pattern", pattern, f"must be a valid regular expression, but isn't: {error}")
    for word in _JUNCTORS:
        for index, one in enumerate(schema.get(word, ())):
            if mixed and word == "anyOf" and schema["anyOf"] == _INT_OR_STRING:
                continue
            skip = mixed and word == "allOf" and index == 0 and one.get("anyOf") == _INT_OR_STRING
            yield from _restriction({key: value for key, value in one.items() if not (skip and key == "anyOf")}, path / word @ index)
    if isinstance(schema.get("not"), dict):
        yield from _restriction(schema["not"], path / "not")


def _restriction(schema: Schema, path: Path) -> Iterator[FieldError]:
    for word, text in _FORBIDDEN_BELOW.items():
        if schema.get(word):
            yield forbidden(path / word, text)
    if "metadata" in schema.get("properties", {}):
        yield forbidden(path / "properties" % "metadata", "must not be specified in a nested context")
    yield from _junctors(schema, path, first=False)
    for name, one in schema.get("properties", {}).items():
        yield from _restriction(one, path / "properties" % name)
    if isinstance(schema.get("items"), dict):
        yield from _restriction(schema["items"], path / "items")


def _completeness(schema: Schema, path: Path) -> Iterator[FieldError]:
    """Fields that a restriction names must be on the spine, too."""
    restrictions = [(one, path / word @ index) for word in _JUNCTORS for index, one in enumerate(schema.get(word, ()))]
    if isinstance(schema.get("not"), dict):
        restrictions.append((schema["not"], path / "not"))
    for one, where in restrictions:
        yield from _specified(one, schema, where, path)
    for one, where in _spine(schema, path):
        yield from _completeness(one, where)


def _specified(restriction: Schema, schema: Schema, where: Path, path: Path) -> Iterator[FieldError]:
    if isinstance(restriction.get("items"), dict):
        if isinstance(schema.get("items"), dict):
            yield from _specified(restriction["items"], schema["items"], where / "items", path / "items")
        else:
            yield required(path / "items", f"because it is defined in {where / 'items'}")
    for name, one in restriction.get("properties", {}).items():
        found = schema.get("properties", {}).get(name)
        if found is None:
            yield required(path / "properties" % name, f"because it is defined in {where / 'properties' % name}")
        else:
            yield from _specified(one, found, where / "properties" % name, path / "properties" % name)
    for word in _JUNCTORS:
        for index, one in enumerate(restriction.get(word, ())):
            yield from _specified(one, schema, where / word @ index, path)
    if isinstance(restriction.get("not"), dict):
        yield from _specified(restriction["not"], schema, where / "not", path)


# Defaults ----------------------------------------------------------------------------------------------------------------------


def _defaults(schema: Schema, path: Path, *, within_metadata: bool) -> Iterator[FieldError]:
    if "default" in schema and schema["default"] is not None:
        yield from _default(schema, path / "default")
    for one, where in _spine(schema, path):
        yield from _defaults(one, where, within_metadata=within_metadata)


def _default(schema: Schema, path: Path) -> Iterator[FieldError]:
    value = copy.deepcopy(schema["default"])
    unknown: Unknown = []
    prune = shape.pruner(schema, "", "")
    if prune is not None:
        prune(value, None, unknown)
    if unknown:
        yield invalid(path, schema["default"], f"must not have unknown fields: {', '.join(unknown_fields(unknown))}")
        return
    fill = shape.filler(schema)
    if fill is not None:
        fill(value)
    found: list[FieldError] = []
    values.checker(schema)(value, values.ABSENT, (None, path.text), found)
    yield from found

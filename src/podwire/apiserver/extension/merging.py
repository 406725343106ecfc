"""The type by which configurations of a custom kind merge: its schema's list types and map types.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver.merge_types import LEAF, UNOWNED, UNTYPED, Type, metadata

Schema = dict[str, Any]


def of_schema(schema: Schema) -> Type:
    """Give the type of a custom kind's objects."""
    fields = {name: _type(one) for name, one in schema.get("properties", {}).items() if name not in UNOWNED}
    fields["metadata"] = metadata()
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return Type("struct", UNTYPED, unowned=UNOWNED, _fields=fields)
    return Type("struct", unowned=UNOWNED, _fields=fields)


def _type(schema: Schema) -> Type:
    if schema.get("x-kubernetes-map-type") == "atomic" or schema.get("x-kubernetes-int-or-string"):
        return LEAF
    match schema.get("type", ""):
        case "object":
            return _object_type(schema)
        case "array":
            return _list_type(schema)
        case "":
            return UNTYPED
    return LEAF


def _object_type(schema: Schema) -> Type:
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return Type("map", _type(values))
    if "properties" not in schema:
        return UNTYPED
    fields = {name: _type(one) for name, one in schema["properties"].items()}
    if schema.get("x-kubernetes-embedded-resource"):
        fields["metadata"] = metadata()
        fields |= dict.fromkeys(("apiVersion", "kind"), LEAF)
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return Type("struct", UNTYPED, _fields=fields)
    return Type("struct", _fields=fields)


def _list_type(schema: Schema) -> Type:
    items: Schema = schema.get("items", {})
    match schema.get("x-kubernetes-list-type"):
        case "set":
            return Type("set", LEAF)
        case "map":
            properties = items.get("properties", {})
            names = sorted(schema.get("x-kubernetes-list-map-keys", ()))
            return Type("keyed", _type(items), tuple((name, properties.get(name, {}).get("default")) for name in names))
    return LEAF

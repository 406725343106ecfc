"""Custom objects brought into shape: what their schema does not know falls out, what is left out is filled in.

A schema is compiled once, when its definition is stored, into closures over plain tables. Types are not looked at here: a value of a wrong
type stays as it is and is refused later, by ``values.py``, together with all else that is wrong.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-pruning and #defaulting
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from podwire.apiserver.kind import Tree
from podwire.apiserver.schema import Mistyped, Unknown, Where, cannot, prune_metadata, unknown_fields

Schema = dict[str, Any]
Prune = Callable[[Any, Where, Unknown], None]
Fill = Callable[[Any], None]

_OBJECT = ("apiVersion", "kind", "metadata")


def shape(schema: Schema, kind: str, version: str, *, preserve: bool = False) -> Callable[[Tree], list[str]]:
    """Compile what brings an object of a kind into shape, in place, and gives its unknown fields. It raises Mistyped for bad metadata."""
    prune = pruner(schema, kind, version, root=True, preserve=preserve)
    subject = cannot(kind, version)

    def bring(tree: Tree) -> list[str]:
        unknown: Unknown = []
        metadata = tree.get("metadata")
        if metadata is None:
            metadata = tree["metadata"] = {}
        if not isinstance(metadata, dict):
            raise Mistyped(f"{subject}: metadata is not an object")
        prune_metadata(metadata, (None, "metadata"), unknown, subject)
        if prune is not None:
            prune(tree, None, unknown)
        return unknown_fields(unknown)

    return bring


def pruner(schema: Schema, kind: str, version: str, *, root: bool = False, preserve: bool = False) -> Prune | None:
    """Compile the pruning of one value; None where there is nothing to do. ``kind`` and ``version`` are for messages."""
    preserve = preserve or bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    if isinstance(schema.get("items"), dict):
        return _list_pruner(pruner(schema["items"], kind, version))
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return _map_pruner(pruner(values, kind, version), nullable=_keeps_null(values))
    if values is True or schema.get("type", "object") != "object" or schema.get("x-kubernetes-int-or-string"):
        return None
    fields: dict[str, tuple[Prune | None, bool]] = {
        name: (pruner(one, kind, version), _keeps_null(one)) for name, one in schema.get("properties", {}).items()
    }
    if root or embedded:
        fields |= dict.fromkeys(_OBJECT, (None, True))
    if not fields and preserve:
        return None
    return _object_pruner(fields, preserve=preserve, embedded=embedded, subject=cannot(kind, version))


def _keeps_null(schema: Schema) -> bool:
    return bool(schema.get("nullable")) or ("type" not in schema and not schema.get("x-kubernetes-int-or-string"))


def _list_pruner(below: Prune | None) -> Prune | None:
    if below is None:
        return None

    def prune(items: Any, where: Where, unknown: Unknown) -> None:
        if type(items) is list:
            for index, value in enumerate(items):
                below(value, (where, index), unknown)

    return prune


def _map_pruner(below: Prune | None, *, nullable: bool) -> Prune:
    def prune(value: Any, where: Where, unknown: Unknown) -> None:
        if type(value) is not dict:
            return
        if not nullable and None in value.values():
            for key in [key for key, one in value.items() if one is None]:
                del value[key]
        if below is not None:
            for key, one in value.items():
                below(one, (where, key), unknown)

    return prune


def _object_pruner(fields: dict[str, tuple[Prune | None, bool]], *, preserve: bool, embedded: bool, subject: str) -> Prune:
    find = fields.get

    def prune(value: Any, where: Where, unknown: Unknown) -> None:
        if type(value) is not dict:
            return
        gone: list[str] = []
        for key, one in value.items():
            field = find(key)
            if field is None:
                if not preserve:
                    unknown.append((where, key))
                    gone.append(key)
            elif one is None:
                if not field[1]:
                    gone.append(key)
            elif field[0] is not None:
                field[0](one, (where, key), unknown)
        for key in gone:
            del value[key]
        if embedded and isinstance(value.get("metadata"), dict):
            prune_metadata(value["metadata"], (where, "metadata"), unknown, subject)

    return prune


# Defaults ----------------------------------------------------------------------------------------------------------------


def filler(schema: Schema) -> Fill | None:
    """Compile what fills in defaults, in place; None where there are none."""
    if isinstance(schema.get("items"), dict):
        below = filler(schema["items"])
        return None if below is None else _each(below, lambda value: value if type(value) is list else ())
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        below = filler(values)
        return None if below is None else _each(below, lambda value: value.values() if type(value) is dict else ())
    defaults = [(name, one["default"]) for name, one in schema.get("properties", {}).items() if one.get("default") is not None]
    inner = [(name, below) for name, one in schema.get("properties", {}).items() if (below := filler(one)) is not None]
    if not defaults and not inner:
        return None

    def fill(value: Any) -> None:
        if type(value) is not dict:
            return
        for name, default in defaults:
            if name not in value:
                value[name] = copy.deepcopy(default) if type(default) in (dict, list) else default
        for name, below in inner:
            if name in value:
                below(value[name])

    return fill


def _each(below: Fill, values: Callable[[Any], Any]) -> Fill:
    def fill(value: Any) -> None:
        for one in values(value):
            below(one)

    return fill

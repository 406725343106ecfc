"""How the values of a kind merge: the schema's list types and map types, as a tree of types.

    leaf     one value, owned as a whole: scalars, lists and objects that are atomic
    struct   an object with declared fields, each owned by itself
    map      an object with any keys, each owned by itself
    keyed    a list whose elements are told apart by some of their fields
    set      a list of values

Fields that the server alone writes (names, versions, times) have no type: nobody owns them.

Here: from schema to type. Not here: what is done with it (``apply.py``).

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from podwire.apiserver.definitions import INT_OR_STRING, META, MICRO_TIME, QUANTITY, TIME, Schema, definition, plain_type, referenced
from podwire.apiserver.kind import Kind

Tree = dict[str, Any]

# What nobody owns, though the schema knows it.
UNOWNED = frozenset(("apiVersion", "kind"))
UNOWNED_METADATA = frozenset(
    ("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion")
)
# Keys of list elements that have a value when they are left out. The schemas at hand do not say it.
_KEY_DEFAULTS: Mapping[tuple[str, str], Any] = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
}


class NoElement(Exception):
    """A value that cannot stand in its list. The text says why."""


@dataclass(slots=True, eq=False)
class Type:
    """One type. ``element`` is that of a map's or a list's values, or of a struct's fields that the schema does not declare;
    ``keys`` tells keyed elements apart: names with their defaults.
    """

    form: str
    element: Type | None = None
    keys: tuple[tuple[str, Any], ...] = ()
    named: str = ""
    unowned: frozenset[str] = frozenset()
    plain_key: str = field(init=False)
    step_head: str = field(init=False)
    _fields: dict[str, Type] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.plain_key = self.keys[0][0] if len(self.keys) == 1 else ""
        self.step_head = f'k:{{"{self.plain_key}":"'

    @property
    def fields(self) -> Mapping[str, Type]:
        """The declared fields of a struct. Looked up when first asked for: types may contain themselves."""
        if self._fields is None:
            self._fields = _fields_of(self)
        return self._fields

    def below(self, key: str) -> Type | None:
        """The type of a field or of a map's value; None when nobody can own it."""
        if self.form != "struct":
            return self.element
        found = self.fields.get(key)
        return found if found is not None or self.element is None or key in self.unowned else self.element

    def declares(self, key: str) -> bool:
        """Whether a key is a field that the schema names, unlike the key of a map."""
        return self.form == "struct" and key in self.fields


LEAF = Type("leaf")
_UNTYPED_LEVELS = 30  # what lies deeper is one value


def _untyped() -> Type:
    """An object of which nothing is known: its keys are owned one by one."""
    found = LEAF
    for _ in range(_UNTYPED_LEVELS):
        found = Type("map", found)
    return found


UNTYPED = _untyped()


def _fields_of(struct: Type) -> dict[str, Type]:
    properties = definition(struct.named).get("properties", {})
    made = {key: _type(schema) for key, schema in properties.items() if key not in struct.unowned}
    if struct.unowned == UNOWNED and "metadata" in made:
        made["metadata"] = metadata()
    return made


@functools.cache
def metadata() -> Type:
    """Give the type of an object's metadata."""
    return Type("struct", named=META + "ObjectMeta", unowned=UNOWNED_METADATA)


def of_kind(kind: Kind) -> Type:
    """Give the type of a kind's objects."""
    found: Type = kind.custom.merging if kind.custom is not None else of_definition(kind.definition)
    return found


@functools.cache
def of_definition(name: str) -> Type:
    """Give the type of a kind's objects by the name of its definition."""
    return Type("struct", named=name, unowned=UNOWNED)


@functools.cache
def _struct(name: str) -> Type:
    return Type("struct", named=name)


def _type(schema: Schema) -> Type:
    target = referenced(schema)
    if target in (TIME, MICRO_TIME, QUANTITY, INT_OR_STRING):
        return LEAF
    meant = definition(target) if target else schema
    if schema.get("x-kubernetes-map-type", meant.get("x-kubernetes-map-type")) == "atomic":
        return LEAF
    match plain_type(meant):
        case "object":
            return _object_type(meant, target)
        case "array":
            return _list_type(meant)
        case "":
            return UNTYPED
    return LEAF


def _object_type(schema: Schema, target: str) -> Type:
    if target and "properties" in schema:
        return _struct(target)
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return Type("map", _type(values))
    return UNTYPED


def _list_type(schema: Schema) -> Type:
    items: Schema = schema.get("items", {})
    match schema.get("x-kubernetes-list-type"):
        case "set":
            return Type("set", LEAF)
        case "map":
            target = referenced(items)
            names = sorted(schema["x-kubernetes-list-map-keys"])
            return Type("keyed", _type(items), tuple((name, _KEY_DEFAULTS.get((target, name))) for name in names))
    return LEAF


def step(kind: Type, item: Any) -> str:
    """Name an element of a keyed list or a set as a step of a path. Raises NoElement."""
    if kind.plain_key and type(item) is dict and type(name := item.get(kind.plain_key)) is str and name.isalnum() and name.isascii():
        return f'{kind.step_head}{name}"}}'  # nearly all of them
    if kind.form == "set":
        if item is None or isinstance(item, dict | list):
            raise NoElement(
                f"associative list without keys has an element that's {'an explicit null' if item is None else 'no plain value'}"
            )
        return "v:" + orjson.dumps(item).decode()
    if type(item) is not dict:
        raise NoElement(f"associative list with keys may not have {'a null element' if item is None else 'non-map elements'}")
    found: Tree = {}
    for name, default in kind.keys:
        value = item.get(name, default)
        if value is not None:
            found[name] = value
    if not found:
        listed = " ".join(f'"{name}"' for name, _ in kind.keys)
        why = f"omits all key fields [{listed}] (and doesn't have default values for any key fields)"
        raise NoElement(f"associative list with keys has an element that {why}")
    return "k:" + orjson.dumps(found).decode()

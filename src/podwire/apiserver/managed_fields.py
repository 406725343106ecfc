"""Sets of fields, written as objects carry them (``FieldsV1``), and what can be done with them.

A set is a tree whose keys are steps of a path:

    f:NAME        the field of an object, the key of a map
    k:{...}       the element of a list that is told from others by these keys
    v:VALUE       the value in a list that is a set
    i:NUMBER      the element at an index
    .             the path that ends here is in the set itself

``{"f:spec": {"f:replicas": {}}}`` holds ``.spec.replicas`` alone: a step with nothing below it is in the set, one with something below it
only when it also has a ``.``. The sets are worked with in this very form and never converted; they share parts, so nothing is
ever changed in place.

Here: the algebra and the printed form of paths. Not here: objects and schemas (``apply.py``), who owns a set (``ownership.py``).

>>> two = {"f:spec": {"f:replicas": {}, "f:paused": {}}}
>>> difference(two, {"f:spec": {"f:paused": {}}})
{'f:spec': {'f:replicas': {}}}
>>> list(paths({"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}}}}}))
['.spec.ports[port=80,protocol="TCP"]', '.spec.ports[port=80,protocol="TCP"].name']

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/ and
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Fields = Mapping[str, Any]
"""A set of fields. Frozen by agreement: parts are shared."""

EMPTY: Fields = {}


class Written(dict[str, Any]):
    """A set that many objects share, with its canonical bytes: they are made once, by whoever remembers the set."""

    __slots__ = ("text",)

    def __init__(self, fields: Fields, text: bytes) -> None:
        super().__init__(fields)
        self.text = text


ITSELF = "."
_DEPTH = 100  # deeper than any object; sets come from clients, too


def _is_member(node: Fields) -> bool:
    return not node or ITSELF in node


def _joined(below: dict[str, Any], member: bool) -> Fields | None:
    """The node of a path: what is below it, and whether it is in the set itself. None: neither."""
    if not below:
        return EMPTY if member else None
    if member:
        below[ITSELF] = EMPTY
    return below


def union(one: Fields, other: Fields) -> Fields:
    """Give what is in either."""
    if not one or not other:
        return one or other
    made = dict(one)
    for key, node in other.items():
        mine = made.get(key)
        if mine is None or key == ITSELF:
            made[key] = node
        elif mine is not node:
            member = _is_member(mine) or _is_member(node)
            below = dict(union(mine, node))
            if member and below:
                below[ITSELF] = EMPTY
            made[key] = below
    return made


def difference(one: Fields, other: Fields) -> Fields:
    """Give what is in ``one`` and not in ``other``. A path that is taken away leaves the paths below it."""
    if not one or not other:
        return one
    made: dict[str, Any] = {}
    for key, node in one.items():
        if key == ITSELF:
            continue
        theirs = other.get(key)
        if theirs is None:
            made[key] = node
            continue
        kept = _joined(_below(difference(node, theirs)), _is_member(node) and not _is_member(theirs))
        if kept is not None:
            made[key] = kept
    return made


def intersection(one: Fields, other: Fields) -> Fields:
    """Give what is in both."""
    made: dict[str, Any] = {}
    for key, node in one.items():
        theirs = other.get(key)
        if theirs is None or key == ITSELF:
            continue
        kept = _joined(_below(intersection(node, theirs)), _is_member(node) and _is_member(theirs))
        if kept is not None:
            made[key] = kept
    return made


def _below(fields: Fields) -> dict[str, Any]:
    return {key: node for key, node in fields.items() if key != ITSELF}


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """Print the paths of a set, in order: ``.spec.containers[name="c"].image``."""
    for key in sorted(fields):
        if key == ITSELF:
            continue
        node, path = fields[key], prefix + step_text(key)
        if _is_member(node):
            yield path
        yield from paths(node, path)


def step_text(key: str) -> str:
    """Print one step of a path."""
    value = key[2:]
    match key[:2]:
        case "f:":
            return "." + value
        case "k:":
            named = sorted(orjson.loads(value).items())
            return "[" + ",".join(f"{name}={orjson.dumps(one).decode()}" for name, one in named) + "]"
        case "v:":
            return f"[={value}]"
    return f"[{value}]"


def canonical(fields: Any, depth: int = 0) -> Fields:
    """Read a set that a client has sent: keys spelled our way. Raises ValueError for what is no set."""
    if not isinstance(fields, dict) or depth > _DEPTH:
        raise ValueError("a set of fields is an object of objects")
    return {_canonical_step(key): canonical(node, depth + 1) for key, node in fields.items()}


def _canonical_step(key: str) -> str:
    if key == ITSELF or key.startswith("f:"):
        return key
    kind, text = key[:2], key[2:]
    value = orjson.loads(text) if kind in ("k:", "v:", "i:") else None
    if (kind == "k:" and not isinstance(value, dict)) or (kind == "i:" and type(value) is not int) or value is None:
        raise ValueError(f"{key} is no step of a path")
    return kind + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()

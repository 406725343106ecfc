"""Strategic merge patches: merge patches that know which lists are really maps, by a key of their elements.

A list whose schema names a merge key merges element by element, a list of plain values with the strategy ``merge`` is a set, every
other list is replaced. Directives in the patch say what a tree alone cannot:

    $patch: replace | delete | merge          of the object or, as an element of a list, of that list or the element
    $retainKeys: [key...]                     the keys that stay; others go
    $deleteFromPrimitiveList/FIELD: [...]     values to take out of a set
    $setElementOrder/FIELD: [...]             the order of the elements that the writer knows of

Gives a new tree, which shares nothing with the old one. Not here: other patches (``patch.py``), HTTP.

Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from podwire.apiserver.definitions import Schema, definition, referenced
from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.patch_refusals import printed

DIRECTIVE, RETAIN = "$patch", "$retainKeys"
DELETE_VALUES, ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"


class PatchError(Exception):
    """A patch that is none (status 400) or does not fit the object (422). The text is the message."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def copied(tree: Any) -> Any:
    """Copy a plain tree; by way of bytes, which is faster than by way of its nodes. Raises PatchError."""
    try:
        return orjson.loads(orjson.dumps(tree))
    except TypeError:
        raise PatchError("the object is nested too deeply", 400) from None


def strategic_merge_patch(kind: Kind, tree: Tree, patch: Any) -> Tree:
    """Apply a strategic merge patch to an object of a kind. Raises PatchError."""
    if not isinstance(patch, dict):
        raise PatchError(f"cannot restore struct from: {type(patch).__name__}", 400)
    return _merge_object(copied(tree), copied(patch), definition(kind.definition))


# Schemas -----------------------------------------------------------------------------------------------------------------


def _resolved(schema: Schema) -> Schema:
    target = referenced(schema)
    return definition(target) if target else schema


def _below(schema: Schema, key: str) -> Schema:
    """The schema of a field, with the marks that stand beside a reference; ``{}`` where the schema says nothing."""
    found: Schema | None = schema.get("properties", {}).get(key)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def _strategies(field: Schema) -> list[str]:
    return str(field.get("x-kubernetes-patch-strategy", "")).split(",")


# Objects -----------------------------------------------------------------------------------------------------------------


def _merge_object(old: Tree, patch: Tree, schema: Schema) -> Tree:
    if DIRECTIVE in patch:
        match patch[DIRECTIVE]:
            case "replace":
                return {key: _plain(value) for key, value in patch.items() if value is not None and not key.startswith("$")}
            case "delete":
                return {}
            case "merge":
                patch = {key: value for key, value in patch.items() if key != DIRECTIVE}
            case other:
                raise PatchError(f"Unknown patch type found: {other}", 400)
    merged = _retained(old, patch)
    ordered = {key.removeprefix(ORDER): value for key, value in patch.items() if key.startswith(ORDER)}
    for key, order in ordered.items():
        if key in merged or patch.get(key) is not None:
            merged[key] = _ordered_list(merged.get(key), patch.get(key), order, _below(schema, key), key)
    for key, value in patch.items():
        if key.startswith(DELETE_VALUES):
            _delete_values(merged, key.removeprefix(DELETE_VALUES), value)
        elif key == RETAIN or key.startswith(ORDER) or (key in ordered and value is not None):
            continue
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, _below(schema, key), key)
    return merged


def _merge_value(old: Any, value: Any, field: Schema, key: str) -> Any:
    if isinstance(value, dict):
        if isinstance(old, dict) and "replace" not in _strategies(field):
            return _merge_object(old, value, _resolved(field))
        return _plain(value)
    if isinstance(value, list):
        if isinstance(old, list) and "merge" in _strategies(field):
            merged = _merge_list(old, value, field, key)
            mine, theirs = _partition(merged, value, _merge_key(field))
            return _interleaved(mine, theirs, value, old, _merge_key(field))
        return _plain(value)
    return value


def _plain(value: Any) -> Any:
    """What a patch says where there is nothing to merge with: without nulls and directives."""
    if isinstance(value, dict):
        if value.get(DIRECTIVE) == "delete":
            return {}
        return {key: _plain(one) for key, one in value.items() if one is not None and not key.startswith("$")}
    if isinstance(value, list):
        return [_plain(one) for one in value if not (isinstance(one, dict) and one.keys() & {DIRECTIVE} and _is_mark(one))]
    return value


def _is_mark(element: Tree) -> bool:
    """An element that only directs: ``{$patch: replace}`` of its list, or the deletion of another."""
    return element[DIRECTIVE] == "delete" or len(element) == 1


def _retained(old: Tree, patch: Tree) -> Tree:
    if RETAIN not in patch:
        return dict(old)
    keys = patch[RETAIN]
    if not isinstance(keys, list):
        raise PatchError("$retainKeys is a list of keys", 400)
    keys = {key for key in keys if isinstance(key, str)}
    for key in patch:
        if not key.startswith("$") and key not in keys:
            raise PatchError(f"invalid patch format of {RETAIN}: {key} is set and not among the keys that stay", 400)
    return {key: value for key, value in old.items() if key in keys}


def _delete_values(merged: Tree, key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise PatchError(f"{DELETE_VALUES}{key} is a list of values", 400)
    if isinstance(merged.get(key), list):
        plain = {value for value in values if not isinstance(value, dict | list)}
        merged[key] = [value for value in merged[key] if isinstance(value, dict | list) or value not in plain]


# Lists ---------------------------------------------------------------------------------------------------------------------


def _merge_key(field: Schema) -> str:
    """The key by which a list merges, ``""`` for sets of plain values."""
    return str(field.get("x-kubernetes-patch-merge-key", ""))


def _identity(element: Any, merge_key: str) -> Any:
    """What tells an element from others: itself, or the value of the merge key."""
    if merge_key and (not isinstance(element, dict) or merge_key not in element):
        raise PatchError(f"map: {printed(element)} does not contain declared merge key: {merge_key}", 400)
    found = element[merge_key] if merge_key else element
    if isinstance(found, dict | list):
        raise PatchError(f"{printed(found)} tells no element of a list from others", 400)
    return found


def _merge_list(old: list[Any], patch: list[Any], field: Schema, key: str) -> list[Any]:
    """Merge without regard to order: the old elements at their places, new ones behind."""
    merge_key = _merge_key(field)
    if not any(isinstance(one, dict) for one in (*old, *patch)):
        return list(dict.fromkeys(_identity(one, "") for one in (*old, *patch)))
    if not merge_key:
        raise PatchError(f"cannot merge lists without merge key for {key}", 400)
    marks = [one for one in patch if isinstance(one, dict) and DIRECTIVE in one]
    values = [one for one in patch if not (isinstance(one, dict) and DIRECTIVE in one)]
    gone = set()
    for mark in marks:
        match mark[DIRECTIVE]:
            case "delete":
                gone.add(_identity(mark, merge_key))
            case "replace":
                return [_plain(one) for one in values] + ([_plain(mark)] if len(mark) > 1 else [])
            case "merge":
                values.append({one: value for one, value in mark.items() if one != DIRECTIVE})
            case other:
                raise PatchError(f"Unknown patch type found: {other}", 400)
    merged = [one for one in old if _identity(one, merge_key) not in gone]
    places = {_identity(one, merge_key): place for place, one in reversed(list(enumerate(merged)))}
    schema = _resolved(field.get("items", {}))
    for value in values:
        place = places.get(_identity(value, merge_key))
        if place is None:
            places[value[merge_key]] = len(merged)
            merged.append(_plain(value))
        else:
            merged[place] = _merge_object(merged[place], value, schema)
    return merged


def _ordered_list(old: Any, patch: Any, order: Any, field: Schema, key: str) -> list[Any]:
    """Merge a list and put it into the order that the writer gives; what he does not know stays near its neighbours."""
    if not isinstance(order, list):
        raise PatchError(f"{ORDER}{key} is a list", 400)
    merge_key = _merge_key(field)
    before: list[Any] = old if isinstance(old, list) else []
    if isinstance(patch, list):
        _check_order(patch, order, merge_key, key)
        merged = _merge_list(before, patch, field, key)
    else:
        merged = before
    mine, theirs = _partition(merged, order, merge_key)
    return _interleaved(mine, theirs, order, before, merge_key)


def _check_order(patch: Sequence[Any], order: Sequence[Any], merge_key: str, key: str) -> None:
    wanted = [_identity(one, merge_key) for one in order]
    named = [_identity(one, merge_key) for one in patch if not (isinstance(one, dict) and DIRECTIVE in one)]
    rest = iter(wanted)
    if not all(one in rest for one in named):
        raise PatchError(f"The order in patch list:\n{named}\n doesn't match {ORDER}{key} list:\n{wanted}\n", 400)


def _partition(merged: list[Any], known: Sequence[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Part a list into the elements that the writer knows of and the others."""
    names = {_identity(one, merge_key) for one in known if not (isinstance(one, dict) and one.get(DIRECTIVE) and _is_mark(one))}
    mine = [one for one in merged if _identity(one, merge_key) in names]
    return mine, [one for one in merged if _identity(one, merge_key) not in names]


def _interleaved(mine: list[Any], theirs: list[Any], order: Sequence[Any], old: Sequence[Any], merge_key: str) -> list[Any]:
    """Put the writer's elements into his order and insert the others where the old list has them, as far as that goes together."""
    wanted: dict[Any, int] = {}
    for one in order:
        if not (isinstance(one, dict) and one.get(DIRECTIVE) and _is_mark(one)):
            wanted.setdefault(_identity(one, merge_key), len(wanted))
    mine = sorted(mine, key=lambda one: wanted[_identity(one, merge_key)])
    places: dict[Any, int] = {}
    for one in old:
        places.setdefault(_identity(one, merge_key), len(places))
    made: list[Any] = []
    left = 0
    for one in mine:
        place = places.get(_identity(one, merge_key), -1)
        while left < len(theirs) and -1 < places.get(_identity(theirs[left], merge_key), -1) < place:
            made.append(theirs[left])
            left += 1
        made.append(one)
    return made + theirs[left:]

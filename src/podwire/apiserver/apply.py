"""Server-side apply, the pure part: how a configuration merges into an object, and which fields a value or a change consists of.

Everything here walks a value along its type (``merge_types.py``) and gives a new value or a set of fields (``managed_fields.py``). Nothing
is changed in place; what is given back may share parts with what was given.

    fields_of    the fields that a value consists of: what somebody who applies it owns
    compare      the fields that differ between two states
    merge        the state after a configuration is laid over an object
    without      the state after fields are taken out
    pruned       the state after somebody no longer applies what he applied before

Here: values and sets. Not here: who owns what (``ownership.py``), the request (``applying.py``).

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from podwire.apiserver.managed_fields import EMPTY, ITSELF, Fields, difference, intersection, step_text, union
from podwire.apiserver.merge_types import NoElement, Tree, Type, step

# Values that are always there, if only empty: who adds to one does not add the value itself.
_ALWAYS_THERE = frozenset(
    ("metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "resources", "containers")
)


# What a value consists of ------------------------------------------------------------------------------------------------


def fields_of(kind: Type, value: Any, *, added: bool = False) -> Fields:
    """Give the fields of a value: each leaf, each key of a map, each element of a list; ``EMPTY`` for a value that is one field.

    With ``added``, what somebody owns who has made the value where there was none: objects are then owned beside their fields.
    """
    return _fields(kind, value, added)


def _fields(kind: Type, value: Any, added: bool) -> dict[str, Any]:
    """The same, as a tree that the caller may add to. Every new object passes here, so it is written for speed."""
    form = kind.form
    if type(value) is dict:
        if form == "struct":
            return _fields_of_struct(kind, value, added)
        if form == "map":
            return _fields_of_map(kind, value, added)
    elif type(value) is list and (form == "keyed" or form == "set"):
        return _fields_of_list(kind, value, added)
    return {}


def _fields_of_struct(kind: Type, value: Tree, added: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    types = kind.fields
    for key, one in value.items():
        below = types.get(key)
        if below is None:
            below = kind.below(key) if kind.element is not None else None
            if below is None:
                continue
        if below.form == "leaf" or one is None:
            made["f:" + key] = EMPTY
            continue
        fields = _fields(below, one, added)
        if fields:
            if added and key not in _ALWAYS_THERE:
                fields[ITSELF] = EMPTY
            made["f:" + key] = fields
        elif below.form == "map" or (one == {} and not below.unowned):
            # An empty object is a field, and so is a value where the type has many forms; an empty list is none.
            made["f:" + key] = EMPTY
    return made


def _fields_of_map(kind: Type, value: Tree, added: bool) -> dict[str, Any]:
    below = kind.element
    assert below is not None
    if below.form == "leaf":
        return {"f:" + key: EMPTY for key in value}
    made: dict[str, Any] = {}
    for key, one in value.items():
        fields = _fields(below, one, added)
        if fields:
            fields[ITSELF] = EMPTY
        made["f:" + key] = fields
    return made


def _fields_of_list(kind: Type, value: list[Any], added: bool) -> dict[str, Any]:
    below = kind.element
    assert below is not None
    made: dict[str, Any] = {}
    for one in value:
        try:
            name = step(kind, one)
        except NoElement:
            continue
        if name in made or below.form == "leaf":
            made[name] = EMPTY  # elements that are there twice are owned as a whole
        else:
            fields = _fields(below, one, added)
            if fields:
                fields[ITSELF] = EMPTY
            made[name] = fields
    return made


def with_parents(kind: Type, fields: Fields) -> Fields:
    """Give a set with the declared objects and lists that its paths lead through: who owns a part then owns the whole, too."""
    made: dict[str, Any] = {}
    for key, node in fields.items():
        if not node:
            made[key] = node
            continue
        name = key[2:]
        below = kind.below(name) if key.startswith("f:") else kind.element
        inner = dict(with_parents(below, node)) if below is not None else dict(node)
        if key.startswith("f:") and kind.declares(name) and not (below is not None and below.unowned):
            inner[ITSELF] = EMPTY
        made[key] = inner
    return made


# How two states differ ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """The fields that are in the first state alone, in both but different, in the second alone."""

    removed: Fields
    modified: Fields
    added: Fields

    @property
    def changed(self) -> Fields:
        """What the second state says and the first did not."""
        return union(self.modified, self.added)


def compare(kind: Type, old: Tree, new: Tree) -> Comparison:
    """Compare two objects of a kind."""
    found = _compare_maps(kind, old, new)
    return Comparison(*(part or EMPTY for part in found))


_Parts = tuple[Fields | None, Fields | None, Fields | None]
_MODIFIED: _Parts = (None, EMPTY, None)


def _compare(kind: Type, old: Any, new: Any) -> _Parts:
    """Compare two values that are not equal; for each kind of difference the node of this path, None when there is none."""
    if type(old) is dict and type(new) is dict and kind.form in ("struct", "map"):
        return _compare_maps(kind, old, new) if old or new else _MODIFIED
    if type(old) is list and type(new) is list and kind.form in ("keyed", "set"):
        return _compare_lists(kind, old, new) if old or new else _MODIFIED
    return _MODIFIED


def _compare_maps(kind: Type, old: Tree, new: Tree) -> _Parts:
    removed: dict[str, Any] = {}
    modified: dict[str, Any] = {}
    added: dict[str, Any] = {}
    for key, value in new.items():
        if key not in old:
            below = kind.below(key)
            if below is not None:
                added["f:" + key] = _whole(below, key, value)
            continue
        before = old[key]
        if before == value and type(before) is type(value):
            continue
        below = kind.below(key)
        if below is not None:
            _file("f:" + key, _compare(below, before, value), removed, modified, added)
    for key, value in old.items():
        if key not in new:
            below = kind.below(key)
            if below is not None:
                removed["f:" + key] = _whole(below, "", value)
    return removed or None, modified or None, added or None


def _whole(kind: Type, key: str, value: Any) -> Fields:
    """The node of a field that came or went with all that is below it."""
    fields = _fields(kind, value, True)
    if fields and key not in _ALWAYS_THERE:
        fields[ITSELF] = EMPTY
    return fields


def _compare_lists(kind: Type, old: list[Any], new: list[Any]) -> _Parts:
    below = kind.element
    assert below is not None
    removed: dict[str, Any] = {}
    modified: dict[str, Any] = {}
    added: dict[str, Any] = {}
    before, after = _grouped(kind, old), _grouped(kind, new)
    for name, values in after.items():
        others = before.get(name)
        if others is None:
            added[name] = EMPTY if len(values) > 1 else _whole(below, "", values[0])
        elif others == values:
            continue
        elif len(others) == len(values) == 1:
            _file(name, _compare(below, others[0], values[0]), removed, modified, added)
        elif len(others) > 1 and len(values) > 1:
            modified[name] = EMPTY
        elif len(values) > 1:
            removed[name] = fields_of(below, others[0], added=True)
            added[name] = EMPTY
        else:
            removed[name] = EMPTY
            added[name] = _whole(below, "", values[0])
    for name, values in before.items():
        if name not in after:
            removed[name] = EMPTY if len(values) > 1 else _whole(below, "", values[0])
    return removed or None, modified or None, added or None


def _file(name: str, parts: _Parts, *groups: dict[str, Any]) -> None:
    for part, group in zip(parts, groups, strict=True):
        if part is not None:
            group[name] = part


def _grouped(kind: Type, values: list[Any]) -> dict[str, list[Any]]:
    """The elements of a list by their step; there may be several of one."""
    found: dict[str, list[Any]] = {}
    for value in values:
        try:
            found.setdefault(step(kind, value), []).append(value)
        except NoElement:
            continue
    return found


# Merging ------------------------------------------------------------------------------------------------------------------


def merge(kind: Type, live: Any, applied: Any) -> Any:
    """Lay a configuration over a value: what it says stands, what it does not speak of stays. An explicit null stays a null."""
    if type(live) is dict and type(applied) is dict and kind.form in ("struct", "map"):
        made = dict(live)
        for key, value in applied.items():
            below = kind.below(key)
            made[key] = merge(below, live[key], value) if below is not None and key in live else value
        return made
    if type(live) is list and type(applied) is list and kind.form in ("keyed", "set"):
        return _merge_lists(kind, live, applied)
    return applied


def _merge_lists(kind: Type, live: list[Any], applied: list[Any]) -> list[Any]:
    """Merge element by element: the applied order stands, and what is only in the live list keeps its neighbours as far as that goes."""
    below = kind.element
    assert below is not None
    there = [(step_or_none(kind, value), value) for value in live]
    wanted = [(step(kind, value), value) for value in applied]
    names = {name for name, _ in wanted}
    unique: dict[str, Any] = {}
    twice: set[str] = set()
    for name, value in there:
        if name is None or name in unique:
            twice.add(name or "")
        else:
            unique[name] = value
    made: list[Any] = []
    place = 0
    goals = _goals(wanted, {name for name, _ in there if name is not None})
    for (name, value), goal in zip(wanted, goals, strict=True):
        while place < len(there) and there[place][0] != goal:
            if there[place][0] not in names:
                made.append(there[place][1])
            place += 1
        made.append(merge(below, unique[name], value) if name in unique and name not in twice else value)
        if name == goal:
            place += 1
    return made + [value for name, value in there[place:] if name not in names]


def _goals(wanted: list[tuple[str, Any]], there: set[str]) -> list[str]:
    """For each wanted element, the next one (itself included) that is there already; ``""`` when none follows."""
    goals: list[str] = []
    goal = ""
    for name, _ in reversed(wanted):
        goal = name if name in there else goal
        goals.append(goal)
    return goals[::-1]


def step_or_none(kind: Type, value: Any) -> str | None:
    try:
        return step(kind, value)
    except NoElement:
        return None


# Taking out ---------------------------------------------------------------------------------------------------------------


def without(kind: Type, value: Any, fields: Fields) -> Any:
    """Give a value without some of its fields. What is left empty goes, too: then None."""
    if type(value) is dict and kind.form in ("struct", "map"):
        return _map_without(kind, value, fields) or None
    if type(value) is list and kind.form in ("keyed", "set"):
        below = kind.element
        assert below is not None
        made: list[Any] = []
        for one in value:
            node = fields.get(step_or_none(kind, one) or "")
            if node is None:
                made.append(one)
            elif node and ITSELF not in node:
                left = without(below, one, node)
                if left is not None:
                    made.append(left)
        return made or None
    return value


def _map_without(kind: Type, value: Tree, fields: Fields) -> Tree:
    made: Tree = {}
    for key, one in value.items():
        node = fields.get("f:" + key)
        if node is None:
            made[key] = one
        elif node and ITSELF not in node:
            below = kind.below(key)
            left = without(below, one, node) if below is not None else one
            if left is not None:
                made[key] = left
    return made


def pruned(kind: Type, merged: Tree, before: Fields, owned: Fields) -> Tree:
    """Take out of a merged object what was applied ``before`` and is not among what is ``owned``, by anybody, now."""
    if not before:
        return merged
    gone = with_parents(kind, before)
    all_of_it = with_parents(kind, fields_of(kind, merged))
    rest = _map_without(kind, merged, gone)
    # What stands below something that went, but is somebody's, comes back;
    kept = union(with_parents(kind, fields_of(kind, rest)), with_parents(kind, owned))
    rest = _map_without(kind, merged, difference(all_of_it, kept))
    # and so does what is nobody's: only what was applied before may go.
    lost = difference(all_of_it, with_parents(kind, fields_of(kind, rest)))
    return _map_without(kind, merged, intersection(lost, gone))


# What is no configuration ---------------------------------------------------------------------------------------------------


def faults(kind: Type, value: Any, path: str = "") -> Iterator[str]:
    """Say what of a configuration does not fit its type: undeclared fields, elements that are there twice or have no key."""
    if type(value) is dict and kind.form in ("struct", "map"):
        for key, one in value.items():
            below = kind.below(key)
            if below is not None:
                yield from faults(below, one, f"{path}.{key}")
            elif key not in kind.unowned:
                yield f"{path}.{key}: field not declared in schema"
    elif type(value) is list and kind.form in ("keyed", "set"):
        seen: set[str] = set()
        for index, one in enumerate(value):
            try:
                name = step(kind, one)
            except NoElement as error:
                yield f"{path}: element {index}: {error}"
                continue
            if name in seen:
                yield f"{path}: duplicate entries for key {step_text(name)}"
            seen.add(name)
            if kind.element is not None:
                yield from faults(kind.element, one, path + step_text(name))

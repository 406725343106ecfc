"""Owners of several versions of one object: ``ownership.py`` where entries of ``metadata.managedFields`` speak of different versions.

A set of fields means something in the version that its entry names, and there alone. So both states of an object are looked at in each
version that an entry names; what changed there is taken from that entry. What an applier no longer says is taken out in the version in
which he applied last. An entry of a version that there is no more goes.

Each function is a generator: it yields trees and the version in which it needs them, is sent those, or None for a version that is not
there, and returns what came of it. So it stays free of waiting; ``conversion.taken`` fetches.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and the order of steps in
https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/merge/update.go
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from podwire.apiserver.apply import Comparison, compare, fields_of, merge, pruned
from podwire.apiserver.managed_fields import EMPTY, Fields, difference, union
from podwire.apiserver.merge_types import Tree, Type
from podwire.apiserver.ownership import Applied, Entry, Owned, Owner, forced, ownerless, settled, taken

T = TypeVar("T")
Types = Callable[[str], Type]  # of an apiVersion
Steps = Generator[tuple[list[Tree], str], list[Tree] | None, T]
Compared = dict[str, Comparison | None]


def is_needed(entries: Iterable[Entry], api_version: str) -> bool:
    """Whether anybody owns fields of another version."""
    return any(entry.get("apiVersion") != api_version for entry in entries)


def _comparisons(types: Types, entries: Iterable[Entry], old: Tree, new: Tree, version: str) -> Steps[Compared]:
    """Compare two states in every version that an entry names; None for one that is not there."""
    found: Compared = {version: compare(types(version), old, new)}
    for other in dict.fromkeys(entry["apiVersion"] for entry in entries):
        if other not in found:
            seen = yield [old, new], other
            found[other] = None if seen is None else compare(types(other), seen[0], seen[1])
    return found


def updated(types: Types, entries: list[Entry], old: Tree, new: Tree, owner: Owner) -> Steps[Owned]:
    """Give the entries after ``owner`` has changed an object."""
    own = compare(types(owner.api_version), old, new)
    if not (own.changed or own.removed):
        return Owned(entries)
    found = yield from _comparisons(types, entries, old, new, owner.api_version)
    kept: list[Entry] = []
    for entry in entries:
        seen = found[entry["apiVersion"]]
        if entry["apiVersion"] == owner.api_version or seen is None:
            kept += [entry] if seen is not None else []
            continue
        left = difference(difference(entry["fieldsV1"], seen.changed), seen.removed)
        kept += [entry if left == entry["fieldsV1"] else entry | {"fieldsV1": left}] if left else []
    return taken(kept, owner, own.changed, own.removed)


def applied(types: Types, entries: list[Entry], live: Tree, config: Tree, owner: Owner, *, force: bool = False) -> Steps[Applied]:
    """Apply a configuration to an object. Raises Conflicts, NoElement."""
    kind = types(owner.api_version)
    entries = ownerless(kind, entries, live, owner)
    own = fields_of(kind, config)
    tree = yield from _pruned(types, entries, merge(kind, live, config), own, owner)
    compared = yield from _comparisons(types, entries, live, tree, owner.api_version)
    known = [entry for entry in entries if owner.is_of(entry) or compared[entry["apiVersion"]] is not None]

    def found(entry: Entry) -> Comparison:
        seen = compared[entry["apiVersion"]]
        assert seen is not None
        return seen

    return forced(kind, live, owner, force, lambda forcing: Applied(tree, settled(known, own, owner, found, forcing)))


def _pruned(types: Types, entries: list[Entry], merged: Tree, own: Fields, owner: Owner) -> Steps[Tree]:
    """Take out of a merged object what its applier said before and nobody says now. In the applier's version again."""
    before = next((entry for entry in entries if owner.is_of(entry)), None)
    if before is None or not before["fieldsV1"]:
        return merged
    version: str = before["apiVersion"]
    kept: dict[str, list[Fields]] = {owner.api_version: [own]}
    for entry in entries:
        if entry is not before:
            kept.setdefault(entry["apiVersion"], []).append(entry["fieldsV1"])
    whole, last = merged, before["fieldsV1"]
    if version != owner.api_version:
        seen = yield [merged], version
        if seen is None:
            return merged
        whole = seen[0]
    rest = pruned(types(version), whole, last, functools.reduce(union, kept.pop(version, ()), EMPTY))
    for other, sets in kept.items():
        seen = yield [whole, rest], other
        if seen is None:
            continue
        # What went there and is somebody's here comes back.
        whole, rest, version = seen[0], seen[1], other
        gone = difference(fields_of(types(other), whole), fields_of(types(other), rest))
        rest = pruned(types(other), whole, gone, functools.reduce(union, sets, EMPTY))
    if version == owner.api_version:
        return rest
    seen = yield [rest], owner.api_version
    return merged if seen is None else seen[0]

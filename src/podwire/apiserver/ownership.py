"""Who owns which fields of an object: the entries of ``metadata.managedFields``, and how each write changes them.

An owner is a field manager in one kind of operation (``Update`` or ``Apply``), through one subresource. Whoever changes a field by an
update owns it from then on, alone. Whoever applies a configuration owns what it says, together with others who applied the same; what
others own is changed by force only; what the configuration no longer says goes, when it is nobody else's.

Times are set last, by ``stamped``: a write that changes nothing else must not change a time.

Here: pure functions on entries. Not here: sets and values (``managed_fields.py``, ``apply.py``), requests (``applying.py``).

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from podwire.apiserver import managed_fields
from podwire.apiserver.apply import Comparison, compare, fields_of, merge, pruned
from podwire.apiserver.managed_fields import EMPTY, Fields, Written, difference, intersection, paths, union
from podwire.apiserver.merge_types import UNOWNED_METADATA, Tree, Type

Entry = dict[str, Any]

UPDATE, APPLY = "Update", "Apply"
BEFORE_FIRST_APPLY = "before-first-apply"  # owns what was there when an object is applied to whose owners are not known
ANCIENT = "ancient-changes"  # owns what the oldest of too many updaters did
LIMIT = 10  # updaters of one object that are told apart
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_REMEMBERED: dict[tuple[Type, bytes], Fields] = {}
_REMEMBERED_LIMIT = 256
_REMEMBERED_SIZE = 64 * 1024  # bytes: of larger objects there are not many alike
KUBECTL = "kubectl"  # whoever applied with kubectl on the client's side may go on on the server's


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes: how, in which version, through which subresource."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    def is_of(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is this owner's. Who applies is the same in every version."""
        return (
            entry.get("manager", "") == self.manager
            and entry.get("operation") == self.operation
            and entry.get("subresource", "") == self.subresource
            and (self.operation == APPLY or entry.get("apiVersion") == self.api_version)
        )

    def entry(self, fields: Fields) -> Entry:
        made: Entry = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        if self.subresource:
            made["subresource"] = self.subresource
        return made


@dataclass(frozen=True, slots=True)
class Owned:
    """The entries after a write. ``mine`` is the writer's, to be stamped with the time if the write is stored; it is one of ``entries``."""

    entries: list[Entry]
    mine: Entry | None = None


class Conflicts(Exception):
    """A configuration that would change what others own: their entries, each with those fields."""

    def __init__(self, found: Sequence[tuple[Entry, Fields]]) -> None:
        self.found = [
            (printed_owner(entry), path) for entry, fields in sorted(found, key=lambda one: printed_owner(one[0])) for path in paths(fields)
        ]
        super().__init__(_message(self.found))


def printed_owner(entry: Mapping[str, Any]) -> str:
    """Name an owner as messages do: ``"kubectl" with subresource "scale" using apps/v1``."""
    text = orjson.dumps(entry.get("manager", "")).decode()
    if entry.get("subresource"):
        text += f" with subresource {orjson.dumps(entry['subresource']).decode()}"
    if entry.get("operation") == UPDATE:
        text += f" using {entry.get('apiVersion', '')}"
    return text


def _message(found: Sequence[tuple[str, str]]) -> str:
    if len(found) == 1:
        return f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    lines: list[str] = []
    last = ""
    for owner, path in found:
        if owner != last:
            lines.append(f"conflicts with {owner}:")
            last = owner
        lines.append(f"- {path}")
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


# What a write starts from ---------------------------------------------------------------------------------------------------


def basis(sent: Any, stored: Sequence[Entry], subresource: str = "") -> list[Entry]:
    """Give the entries that a write starts from: those that were sent, if they are any, else the stored ones.

    A list of nothing but an empty entry takes all entries away. Through a subresource, entries cannot be written.
    """
    if subresource or sent is None or sent == stored:
        return list(stored)
    if sent in ([], [{}]):
        return []
    try:
        return [_read(entry) for entry in sent]
    except (ValueError, KeyError, TypeError):
        return list(stored)


def _read(entry: Entry) -> Entry:
    if entry["operation"] not in (UPDATE, APPLY) or entry["fieldsType"] != "FieldsV1" or not isinstance(entry["apiVersion"], str):
        raise ValueError("an entry says its operation, its version and the type of its fields")
    return entry | {"fieldsV1": managed_fields.canonical(entry.get("fieldsV1", {}))}


def keep_reset(tree: Tree) -> None:
    """Write an empty list of entries, which would fall out as an empty field, as the list of one empty entry, which means the same."""
    metadata = tree.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields") == []:
        metadata["managedFields"] = [{}]


# Writes ---------------------------------------------------------------------------------------------------------------------


def created(kind: Type, entries: list[Entry], new: Tree, owner: Owner) -> Owned:
    """Give the entries of an object that ``owner`` has made by itself."""
    return created_of(entries, _fields_of_new(kind, new), owner)


def created_of(entries: list[Entry], fields: Fields, owner: Owner) -> Owned:
    """The same where it is known what the object consists of."""
    if entries or not fields:
        return taken(entries, owner, fields, EMPTY)
    mine = owner.entry(fields)
    return Owned([mine], mine)


def _fields_of_new(kind: Type, new: Tree) -> Fields:
    if not new.get("spec"):
        return fields_of(kind, new, added=True)
    # Many objects are made from one template: what the last ones consisted of is remembered.
    owned = {name: value for name, value in new["metadata"].items() if name not in UNOWNED_METADATA}
    text = orjson.dumps(new | {"metadata": owned})
    key = (kind, text)
    found = _REMEMBERED.get(key)
    if found is None:
        fields = fields_of(kind, new, added=True)
        found = Written(fields, orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))
        if len(text) <= _REMEMBERED_SIZE:
            if len(_REMEMBERED) >= _REMEMBERED_LIMIT:
                del _REMEMBERED[next(iter(_REMEMBERED))]
            _REMEMBERED[key] = found
    return found


def updated(kind: Type, entries: list[Entry], old: Tree, new: Tree, owner: Owner) -> Owned:
    """Give the entries after ``owner`` has changed an object. Where no owner is known, none is until somebody applies."""
    if not entries:
        return Owned([])
    found = compare(kind, old, new)
    if not (found.changed or found.removed):
        return Owned(entries)
    return taken(entries, owner, found.changed, found.removed)


def taken(entries: Iterable[Entry], owner: Owner, changed: Fields, removed: Fields) -> Owned:
    """Give ``owner`` what changed, take it from all others, and take from everybody what is no more."""
    made: list[Entry] = []
    mine: Entry | None = None
    for entry in entries:
        if owner.is_of(entry):
            left = union(difference(entry["fieldsV1"], removed), changed)
        else:
            left = difference(difference(entry["fieldsV1"], changed), removed)
        if not left:
            continue
        if left != entry["fieldsV1"]:
            entry = entry | {"fieldsV1": left}
        if owner.is_of(entry):
            mine = entry = dict(entry)
        made.append(entry)
    if mine is None and changed:
        mine = owner.entry(changed)
        made.append(mine)
    return Owned(made, mine)


# Apply ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """An object after a configuration was applied to it, with nulls where the configuration has them, and its entries."""

    tree: Tree
    owned: Owned


def ownerless(kind: Type, entries: list[Entry], live: Tree, owner: Owner) -> list[Entry]:
    """Give the entries of an object; where no owner is known of what there is, somebody owns it from now on."""
    if entries or not live:
        return entries
    return taken([], Owner(BEFORE_FIRST_APPLY, UPDATE, owner.api_version), fields_of(kind, live, added=True), EMPTY).entries


def applied(kind: Type, entries: list[Entry], live: Tree, config: Tree, owner: Owner, *, force: bool = False) -> Applied:
    """Apply a configuration to an object (empty: a new one). Raises Conflicts, NoElement."""
    entries = ownerless(kind, entries, live, owner)
    before = next((entry["fieldsV1"] for entry in entries if owner.is_of(entry)), EMPTY)
    own = fields_of(kind, config)
    everybody = functools.reduce(union, (entry["fieldsV1"] for entry in entries if not owner.is_of(entry)), own)
    tree = pruned(kind, merge(kind, live, config), before, everybody)
    found = compare(kind, live, tree)
    return forced(kind, live, owner, force, lambda forcing: Applied(tree, settled(entries, own, owner, lambda _entry: found, forcing)))


def forced(kind: Type, live: Tree, owner: Owner, force: bool, lay: Callable[[bool], Applied]) -> Applied:
    """Apply, by force where that is asked for, or where kubectl goes on with what it applied on the client's side. Raises Conflicts."""
    try:
        return lay(force)
    except Conflicts as conflicts:
        if owner.manager != KUBECTL:
            raise
        allowed = frozenset(paths(_last_applied(kind, live)))
        others = [one for one in conflicts.found if one[1] not in allowed]
        if others:
            conflicts.found = others
            conflicts.args = (_message(others),)
            raise
        return lay(True)


def settled(entries: list[Entry], own: Fields, owner: Owner, found: Callable[[Entry], Comparison], force: bool) -> Owned:
    """Give the entries when ``owner`` applies the fields ``own``. ``found``: what changes, in an entry's version. Raises Conflicts."""
    others = [entry for entry in entries if not owner.is_of(entry)]
    conflicts = [(entry, shared) for entry in others if (shared := intersection(entry["fieldsV1"], found(entry).changed))]
    if conflicts and not force:
        raise Conflicts(conflicts)
    made: list[Entry] = []
    mine: Entry | None = None
    for entry in entries:
        if owner.is_of(entry):
            left = own
            mine = entry = entry | owner.entry(own)
        else:
            seen = found(entry)
            left = difference(difference(entry["fieldsV1"], seen.changed), seen.removed)
            entry = entry if left == entry["fieldsV1"] else entry | {"fieldsV1": left}
        if left:
            made.append(entry)
    if mine is None and own:
        mine = owner.entry(own)
        made.append(mine)
    return Owned(made, mine)


def _last_applied(kind: Type, live: Tree) -> Fields:
    """What was applied on the client's side and is still so: its annotation says it."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        config = orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return EMPTY
    if not isinstance(config, dict):
        return EMPTY
    found = compare(kind, config, live)
    return difference(difference(fields_of(kind, config), found.changed), found.removed)


# When it is stored --------------------------------------------------------------------------------------------------------------


def stamped(owned: Owned, now: str) -> list[Entry]:
    """Give the entries as they are stored: the writer's with the time, not too many, in order."""
    if owned.mine is not None:
        owned.mine["time"] = now
    entries = owned.entries
    if len(entries) > LIMIT:
        entries = _capped(entries)
    if len(entries) > 1:
        entries = sorted(entries, key=_order)
    return entries


def _order(entry: Entry) -> tuple[str, ...]:
    """Give the key by which entries are sorted, as upstream sorts them."""
    rest = (entry.get(name, "") for name in ("time", "manager", "apiVersion", "subresource"))
    return (entry["operation"], *rest)


def _capped(entries: list[Entry]) -> list[Entry]:
    """Put the oldest updaters together until there are no more than ``LIMIT``."""
    updaters = sorted((entry for entry in entries if entry["operation"] == UPDATE), key=_order)
    rest = [entry for entry in entries if entry["operation"] != UPDATE]
    buckets: dict[str, Entry] = {}
    while updaters and len(updaters) + len(buckets) > LIMIT:
        oldest = updaters.pop(0)
        version = oldest.get("apiVersion", "")
        bucket = buckets.get(version) or Owner(ANCIENT, UPDATE, version).entry(EMPTY)
        buckets[version] = bucket | {"fieldsV1": union(bucket["fieldsV1"], oldest["fieldsV1"]), "time": oldest.get("time", "")}
    return [*rest, *buckets.values(), *updaters]

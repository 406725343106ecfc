"""The definitions that there are, kept in force: what is served follows what is stored.

A definition that is stored, changed or deleted changes the registry before its writer is answered. Then, by and by: its conditions, and,
when it goes, its objects before it.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from podwire.apiserver import conversion, deletion, keys
from podwire.apiserver.answers import Tree, decode, encode
from podwire.apiserver.api import Api, put, remove
from podwire.apiserver.cel.check import Rejected
from podwire.apiserver.conversion import version_of
from podwire.apiserver.extension import converting, kinds, names, rights
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.custom import CLEANUP, CUSTOM_RESOURCE_DEFINITION
from podwire.apiserver.writing import is_finished
from podwire.store import Change, Unwritable

_LOG = logging.getLogger("podwire.apiserver")
_TOGETHER = 50  # objects that are deleted before others are served
_AGAIN_S = 5.0
_LEFT = ("InstanceDeletionInProgress", "CustomResource deletion is in progress")
_NONE_LEFT = ("InstanceDeletionCompleted", "removed all instances")


class Definitions:
    """The definitions of one API. ``run`` does what takes time, for ever."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._own = tuple(api.registry)
        self._found: dict[str, Tree] = {}
        self._rows: dict[str, list[Kind]] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._watched: set[str] = set()
        for record in api.store.range(keys.prefix(CUSTOM_RESOURCE_DEFINITION)):
            self._take(record.key, decode(record.value))
        self._serve()
        api.store.observe(CUSTOM_RESOURCE_DEFINITION.resource, self._changed)

    def _changed(self, change: Change) -> None:
        before_rows = self._rows.get(change.key, ())
        if change.record is None:
            self._found.pop(change.key, None)
            gone = self._rows.pop(change.key, None)
            if gone is not None:
                self._serve()
                self._end_watches(before_rows)
            self._due |= self._found.keys()  # names may be free now
            self._wake.set()
            return
        before = self._found.get(change.key)
        tree = decode(change.record.value)
        same = before is not None and _in_force(before) == _in_force(tree)
        self._take(change.key, tree, compile_it=not same)
        if not same or (before is not None and _accepted(before) != _accepted(tree)):
            self._serve()
        if not same:
            self._end_watches(before_rows)

    def _end_watches(self, rows: Iterable[Kind]) -> None:
        """End the watches of a definition as it was: their clients ask again, for what it is now."""
        gone = set(rows)
        for stream in list(self._api.streams):
            if stream.about in gone and stream.stop is not None:
                stream.stop()

    def _take(self, key: str, tree: Tree, *, compile_it: bool = True) -> None:
        self._found[key] = tree
        self._due.add(key)
        self._wake.set()
        if not compile_it:
            return
        try:
            self._rows[key] = kinds.of_definition(tree, converting.of_definition(tree, self._api.calls), strangers=self._strangers(tree))
        except (ValueError, KeyError, StopIteration, Rejected) as error:
            _LOG.error("%s cannot be served: %s", key, error)
            self._rows.pop(key, None)
            return
        resource = _resource(tree)
        for record in self._api.store.range(f"{resource}/"):
            record.facts = None  # what may be selected by may be other fields now
        if resource not in self._watched:
            self._watched.add(resource)
            self._api.store.observe(resource, self._object_changed)

    def _strangers(self, tree: Tree) -> bool:
        """Whether objects are stored in versions that their definition no longer has."""
        known = {f"{tree['spec']['group']}/{version['name']}" for version in tree["spec"]["versions"]}
        return any(version_of(record.value) not in known for record in self._api.store.range(f"{_resource(tree)}/"))

    def _object_changed(self, change: Change) -> None:
        """The last object of a kind that is going has gone."""
        if change.record is not None:
            return
        resource = change.key.partition("/")[0]
        key = f"{CUSTOM_RESOURCE_DEFINITION.resource}/{resource}"
        if self._found.get(key, {}).get("metadata", {}).get("deletionTimestamp"):
            self._due.add(key)
            self._wake.set()

    def _serve(self) -> None:
        """Serve every definition whose names nobody had before it, in the order in which they were made."""
        served: list[Kind] = []
        seen = {(kind.group, kind.plural) for kind in self._own} | {(kind.group, kind.kind) for kind in self._own}
        for key in sorted(self._rows, key=self._rank):
            rows = self._rows[key]
            if not rows or {(rows[0].group, rows[0].plural), (rows[0].group, rows[0].kind)} & seen:
                continue
            seen |= {(rows[0].group, rows[0].plural), (rows[0].group, rows[0].kind)}
            served += rows
        self._api.registry.extend(served)

    def _rank(self, key: str) -> tuple[bool, str, str]:
        tree = self._found[key]
        return not _accepted(tree), tree["metadata"]["creationTimestamp"], key

    # What takes time -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what definitions ask for, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            try:
                await rights.follow(self._api, (row for rows in self._rows.values() for row in rows))
            except Unwritable as error:
                _LOG.error("the rights of controllers: %s", error)
            for key in sorted(due):
                await asyncio.sleep(0)
                try:
                    await self._settle(key)
                except Unwritable as error:
                    _LOG.error("%s: %s", key, error)
                    self._due.add(key)
                    await asyncio.sleep(_AGAIN_S)
                    self._wake.set()

    async def _settle(self, key: str) -> None:
        """Bring one definition's conditions up to date; end it when it is to go."""
        record = self._api.store.latest(key)
        if record is None:
            return
        tree = decode(record.value)
        if tree["metadata"].get("deletionTimestamp"):
            await self._end(key, tree)
            return
        status = tree.setdefault("status", {})
        others = (other for name, other in self._found.items() if name != key)
        resources, taken = names.taken(tree["spec"]["group"], self._own, others)
        status["acceptedNames"], said = names.judge(tree["spec"]["names"], resources, taken)
        status["conditions"] = names.conditions(status.get("conditions", ()), said, self._api.timestamp())
        if encode(tree) != record.value:
            await self._store(CUSTOM_RESOURCE_DEFINITION, tree)

    async def _store(self, kind: Kind, tree: Tree) -> None:
        transaction = self._api.store.transaction()
        (remove if is_finished(kind, tree) else put)(transaction, kind, tree)
        await self._api.store.commit(transaction)

    async def _end(self, key: str, definition: Tree) -> None:
        """Delete the objects of a definition that is to go; when there are none, let it go."""
        metadata, rows = definition["metadata"], self._rows.get(key)
        if CLEANUP not in metadata.get("finalizers", ()):
            return
        prefix = f"{_resource(definition)}/"
        if rows is not None and self._api.store.count(prefix):
            await self._delete_objects(rows[0] if rows else kinds.first(definition))
        left = self._api.store.count(prefix) if rows is not None else 0
        record = self._api.store.latest(key)
        if record is None:
            return
        tree = decode(record.value)
        said = _LEFT if left else _NONE_LEFT
        status: Tree = tree.setdefault("status", {})
        state = "True" if left else "False"
        status["conditions"] = names.conditions(status.get("conditions", ()), [(names.TERMINATING, state, *said)], self._api.timestamp())
        if not left:
            tree["metadata"]["finalizers"] = [one for one in tree["metadata"]["finalizers"] if one != CLEANUP]
        if encode(tree) != record.value:
            await self._store(CUSTOM_RESOURCE_DEFINITION, tree)

    async def _delete_objects(self, kind: Kind) -> None:
        names_of = [record.key for record in self._api.store.range(keys.prefix(kind))]
        for start in range(0, len(names_of), _TOGETHER):
            transaction = self._api.store.transaction()
            for name in names_of[start : start + _TOGETHER]:
                latest = self._api.store.latest(name)
                if latest is None:
                    continue
                tree = decode(latest.value)
                row = conversion.row_of(kind, tree)
                changed = deletion.mark(self._api, row, tree, deletion.Options())
                if is_finished(row, tree):
                    remove(transaction, row, tree)
                elif changed:
                    put(transaction, row, tree)
            if transaction.changes:
                await self._api.store.commit(transaction)


def _resource(tree: Tree) -> str:
    return f"{tree['spec']['names']['plural']}.{tree['spec']['group']}"


def _accepted(tree: Tree) -> bool:
    conditions: list[Tree] = tree.get("status", {}).get("conditions", [])
    return any(one["type"] == names.ACCEPTED and one["status"] == "True" for one in conditions)


def _in_force(tree: Tree) -> Any:
    """What of a definition matters for serving."""
    return (
        tree["spec"],
        tree["metadata"]["uid"],
        bool(tree["metadata"].get("deletionTimestamp")),
    )

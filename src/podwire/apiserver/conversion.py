"""Objects at the store's door: stored in one version, seen by a request in another.

    store ─> records ─> those of another version, in one review ─> records as the request sees them
    object of the request's version ─> of the storage version ─> store

Everything between works in the request's version alone. A kind of one version passes here untouched and without giving up the event loop.
What is read before something is waited for may change meanwhile: who writes looks again before it commits (``writing.py``).

Here: when what is converted, and how many at once. Not here: how (``extension/converting.py``); built-in kinds (``versions.py``).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from podwire.apiserver import keys, merge_types, status
from podwire.apiserver.answers import TooDeep, Tree, decode, encode
from podwire.apiserver.kind import Kind, Versions
from podwire.apiserver.merge_types import Type
from podwire.apiserver.ownership_versions import Steps
from podwire.apiserver.schema import Mistyped
from podwire.store import Change, Record

if TYPE_CHECKING:
    from podwire.apiserver.api import Api

TOGETHER = 500  # objects in one review
_SIZE = 2 * 1024 * 1024  # bytes of objects in one review, if there are several
_HEAD = b'{"apiVersion":"'
T = TypeVar("T")


def version_of(value: bytes) -> str:
    """Read the apiVersion of a stored object, which is nearly always its first field."""
    if value.startswith(_HEAD):
        return value[len(_HEAD) : value.index(b'"', len(_HEAD))].decode()
    found: str = decode(value)["apiVersion"]
    return found


# Reading -------------------------------------------------------------------------------------------------------------------


async def shown(kind: Kind, records: list[Record]) -> list[Record]:
    """Give records as a request for ``kind`` sees them; those of its version are the same. Raises Failure."""
    versions = kind.versions
    if versions is None:
        return records
    others = [index for index, record in enumerate(records) if version_of(record.value) != kind.api_version]
    if not others:
        return records
    found = list(records)
    for some in _together(records, others):
        trees = [decode(records[index].value) for index in some]
        for tree in trees:
            if (row := versions.rows.get(tree["apiVersion"])) is not None:
                row.default(tree)
        for index, tree in zip(some, await _converted(versions, trees, kind), strict=True):
            record = records[index]
            found[index] = Record(record.key, record.revision, _encoded(tree))
        await asyncio.sleep(0)
    return found


def _encoded(tree: Tree) -> bytes:
    try:
        return encode(tree)
    except TooDeep as error:
        raise status.Failure(500, "", str(error)) from None


def _together(records: Sequence[Record], indexes: Sequence[int]) -> Iterator[list[int]]:
    some: list[int] = []
    size = 0
    for index in indexes:
        length = len(records[index].value)
        if some and (len(some) == TOGETHER or size + length > _SIZE):
            yield some
            some, size = [], 0
        some.append(index)
        size += length
    if some:
        yield some


async def tree_of(kind: Kind, record: Record) -> Tree:
    """Give one object as a request for ``kind`` sees it. Raises Failure."""
    if kind.versions is None:
        return decode(record.value)
    return decode((await shown(kind, [record]))[0].value)


async def latest_tree(api: Api, kind: Kind, namespace: str, name: str) -> Tree | None:
    """Give an object as the next write must find it, in the version of ``kind``. Raises Failure."""
    record = api.store.latest(keys.key(kind, namespace, name))
    return None if record is None else await tree_of(kind, record)


async def _converted(versions: Versions, trees: list[Tree], to: Kind) -> list[Tree]:
    """Convert objects, each of any version, and drop what the new one does not know. Those of it are the same. Raises Failure."""
    others = [tree for tree in trees if tree["apiVersion"] != to.api_version]
    for tree in others:
        if tree["apiVersion"] not in versions.rows:
            raise status.Failure(500, "", f"request to convert CR from an invalid group/version: {tree['apiVersion']}")
    if not others:
        return trees
    made = iter(await versions.convert(others, to))
    found = [tree if tree["apiVersion"] == to.api_version else next(made) for tree in trees]
    assert to.custom is not None
    for before, after in zip(trees, found, strict=True):
        if after is before:
            continue
        try:
            to.custom.shape(after)
        except (Mistyped, RecursionError) as error:
            raise status.Failure(500, "", str(error)) from None
    return found


async def across(trees: list[Tree], to: Kind) -> list[Tree]:
    """Give objects of kinds that are stored alike as those of one of them. Raises Failure."""
    if to.versions is not None:
        return await _converted(to.versions, trees, to)
    found: list[Tree] = []
    for tree in trees:
        if (tree["apiVersion"], tree["kind"]) != (to.api_version, to.kind):
            if to.conversion is None:
                raise status.Failure(500, "", f"unable to convert to {to.api_version}, Kind={to.kind}")
            tree = {**to.conversion.from_stored(tree), "apiVersion": to.api_version, "kind": to.kind}
        found.append(tree)
    return found


# Writing -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """An object as it is stored: its row and its tree. ``shown`` is how its writer sees it, None where that is the same."""

    kind: Kind
    tree: Tree
    shown: Tree | None = None

    def answer(self, value: bytes) -> bytes:
        """Give the bytes that the writer is answered, of those that were stored."""
        if self.shown is None:
            return value
        revision = {key: value for key, value in self.tree["metadata"].items() if key == "resourceVersion"}
        return encode({**self.shown, "metadata": {**self.shown["metadata"], **revision}})


async def kept(kind: Kind, tree: Tree) -> Kept:
    """Convert an object to the version in which it is stored, and back: its writer sees what became of it. Raises Failure."""
    versions = kind.versions
    if versions is None or versions.stored_as == kind.api_version:
        return Kept(kind, tree)
    storage = versions.storage
    metadata = {key: value for key, value in tree["metadata"].items() if key != "resourceVersion"}
    (stored,) = await _converted(versions, [decode(encode({**tree, "metadata": metadata}))], storage)
    seen = decode(encode(stored))
    storage.default(seen)
    (back,) = await _converted(versions, [seen], kind)
    if "resourceVersion" in tree["metadata"]:
        stored["metadata"]["resourceVersion"] = tree["metadata"]["resourceVersion"]
    return Kept(storage, stored, back)


def row_of(kind: Kind, tree: Tree) -> Kind:
    """Give the row of a stored object's own version."""
    return kind if kind.versions is None else kind.versions.rows.get(tree["apiVersion"], kind)


def is_outdated(api: Api, kind: Kind, metadata: Tree) -> bool:
    """Whether an object lies in the store in another version than it would be written in now."""
    if kind.versions is None:
        return False
    record = api.store.latest(keys.key(kind, metadata.get("namespace", ""), metadata["name"]))
    return record is not None and version_of(record.value) != kind.versions.stored_as


def types(kind: Kind) -> Callable[[str], Type]:
    """Give what tells how objects of a version merge, by its apiVersion."""
    versions = kind.versions
    return lambda version: merge_types.of_kind(kind if versions is None else versions.rows[version])


async def taken(kind: Kind, steps: Steps[T]) -> T:
    """Do what owners of several versions need: give each step the trees that it asks for. Raises Failure, and what the steps raise."""
    assert kind.versions is not None
    answer: list[Tree] | None = None
    while True:
        try:
            trees, version = steps.send(answer)
        except StopIteration as done:
            found: T = done.value
            return found
        row = kind.versions.rows.get(version)
        answer = None if row is None else await _converted(kind.versions, trees, row)


# Watching --------------------------------------------------------------------------------------------------------------------


async def changed(kind: Kind, changes: Sequence[Change], *, whole: bool) -> list[Change]:
    """Give changes as one who watches ``kind`` sees them; all who watch share one conversion. Raises Failure.

    ``whole``: with the state before each, for one who selects.
    """
    view = (kind, whole)
    if fresh := [change for change in changes if view not in change.frames]:
        task = asyncio.create_task(_view(kind, fresh, view))
        task.add_done_callback(_looked_at)
        for change in fresh:
            change.frames[view] = task
    for task in {id(one): one for change in changes if isinstance(one := change.frames[view], asyncio.Task)}.values():
        await asyncio.shield(task)
    found = [change.frames[view] for change in changes]
    return [one for one in found if isinstance(one, Change)]


async def _view(kind: Kind, changes: Sequence[Change], view: tuple[Kind, bool]) -> None:
    try:
        records: dict[int, Record] = {}
        for change in changes:
            for record in (change.record, change.last, change.previous if view[1] else None):
                if record is not None:
                    records[id(record)] = record
        seen = dict(zip(records, await shown(kind, list(records.values())), strict=True))
    except BaseException:
        for change in changes:
            change.frames.pop(view, None)
        raise

    def look(record: Record | None) -> Record | None:
        return None if record is None else seen.get(id(record), record)

    for change in changes:
        change.frames[view] = Change(change.key, change.revision, look(change.record), look(change.previous), look(change.last))


def _looked_at(task: asyncio.Task[None]) -> None:
    """Its failure is told to those who wait for it; there may be nobody left."""
    if not task.cancelled():
        task.exception()

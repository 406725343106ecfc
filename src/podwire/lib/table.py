"""A table with one writer and many snapshots.

What belongs here: rows under string keys, secondary indexes, and the guarantee that a snapshot never changes. What must not:
what a row means, any waiting or waking (the writer tells whom it likes).

How it works: rows and every index are persistent hash maps (hash array mapped tries), so a snapshot is a reference and costs the
same at ten rows and at a hundred thousand, and a write copies one path of a few nodes. An index maps each of its values to the
rows under it; a row may stand under several values or none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from immutables import Map, MapMutation

T = TypeVar("T")
Index = Callable[[T], Iterable[Hashable]]
_EMPTY: Map[Any, Any] = Map()


class Snapshot(Generic[T]):
    """An immutable state of a table. ``revision`` grows by one with every write that changed something."""

    __slots__ = ("_indexes", "_rows", "revision")

    def __init__(self, revision: int, rows: Map[str, T], indexes: dict[str, Map[Hashable, Map[str, T]]]) -> None:
        self.revision = revision
        self._rows = rows
        self._indexes = indexes

    def get(self, key: str) -> T | None:
        return self._rows.get(key)

    def by(self, index: str, value: Hashable) -> tuple[T, ...]:
        """Give the rows that stand under a value of an index, in the order of their keys. Raises KeyError for an unknown index."""
        found = self._indexes[index].get(value)
        if found is None:
            return ()
        if len(found) == 1:
            return tuple(found.values())
        return tuple(found[key] for key in sorted(found))

    def values_of(self, index: str) -> Iterator[Hashable]:
        """Give the values that an index holds, in no particular order. Raises KeyError for an unknown index."""
        return iter(self._indexes[index])

    def keys(self) -> Iterator[str]:
        return iter(self._rows)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the rows, in no particular order."""
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __repr__(self) -> str:
        return f"<Snapshot {self.revision}: {len(self)} rows>"


class Table(Generic[T]):
    """Rows under the key that ``key`` gives each of them, with an index for each keyword.

    ``Table(lambda pod: pod.key, node=lambda pod: [pod.spec.node_name])``. Key and index functions must be pure.
    """

    def __init__(self, key: Callable[[T], str], **indexes: Index[T]) -> None:
        self._key = key
        self._functions: dict[str, Index[T]] = dict(indexes)
        self._rows: Map[str, T] = _EMPTY
        self._indexes: dict[str, Map[Hashable, Map[str, T]]] = dict.fromkeys(indexes, _EMPTY)
        self._revision = 0

    def add_index(self, name: str, function: Index[T]) -> None:
        """Add an index over the rows that are there and those to come. An index of that name that exists is kept."""
        if name in self._functions:
            return
        self._functions[name] = function
        self._indexes = {**self._indexes, name: _indexed(self._rows, function)}

    def put(self, value: T) -> T | None:
        """Insert or replace a row. Returns the row replaced."""
        key = self._key(value)
        old = self._rows.get(key)
        self._rows = self._rows.set(key, value)
        self._reindex(key, old, value)
        self._revision += 1
        return old

    def delete(self, key: str) -> T | None:
        """Remove a row. Returns it, or None if there was none."""
        old = self._rows.get(key)
        if old is None:
            return None
        self._rows = self._rows.delete(key)
        self._reindex(key, old, None)
        self._revision += 1
        return old

    def replace(self, values: Iterable[T]) -> set[str]:
        """Make the table hold these rows and no others, in one step. Returns the keys that were added, changed or removed."""
        replacement = self.replacement()
        for value in values:
            replacement.add(value)
        return replacement.commit()

    def replacement(self) -> Replacement[T]:
        """Begin a replacement that is put together piece by piece; the table changes when it is committed, in one step."""
        return Replacement(self)

    def snapshot(self) -> Snapshot[T]:
        """Give the table as it is now. O(1): nothing is copied."""
        return Snapshot(self._revision, self._rows, self._indexes)

    def get(self, key: str) -> T | None:
        return self._rows.get(key)

    def by(self, index: str, value: Hashable) -> tuple[T, ...]:
        return self.snapshot().by(index, value)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def _reindex(self, key: str, old: T | None, new: T | None) -> None:
        if not self._functions:
            return
        indexes = dict(self._indexes)  # a snapshot holds the former one
        for name, function in self._functions.items():
            before = set(function(old)) if old is not None else set()
            after = set(function(new)) if new is not None else set()
            index = indexes[name]
            for value in before - after:
                rest = index[value].delete(key)
                index = index.set(value, rest) if rest else index.delete(value)
            for value in after:
                index = index.set(value, index.get(value, _EMPTY).set(key, cast("T", new)))
            indexes[name] = index
        self._indexes = indexes


class Replacement(Generic[T]):
    """The next content of a table. Between its making and its commit the table must not be written.

    It exists for lists too long to be taken in at one go: adding a row costs some microseconds, and the commit only looks
    for rows that are gone.
    """

    def __init__(self, table: Table[T]) -> None:
        self._table = table
        self._rows: MapMutation[str, T] = Map[str, T]().mutate()
        self._groups: dict[str, dict[Hashable, MapMutation[str, T]]] = {name: {} for name in table._functions}
        self._changed: set[str] = set()

    def add(self, value: T) -> None:
        key = self._table._key(value)
        former = self._rows.get(key)
        if former is not None:
            self._drop(key, former)
        self._rows[key] = value
        if self._table._rows.get(key) != value:
            self._changed.add(key)
        else:
            self._changed.discard(key)
        for name, function in self._table._functions.items():
            groups = self._groups[name]
            for group in function(value):
                rows = groups.get(group)
                if rows is None:
                    rows = groups[group] = Map[str, T]().mutate()
                rows[key] = value

    def _drop(self, key: str, former: T) -> None:
        for name, function in self._table._functions.items():
            for group in function(former):
                self._groups[name][group].pop(key, None)

    def commit(self) -> set[str]:
        """Make the table hold what was added. Returns the keys that were added, changed or removed."""
        table, rows = self._table, self._rows.finish()
        self._changed.update(key for key in table._rows if key not in rows)
        if self._changed:
            table._rows = rows
            table._indexes = {
                name: Map({group: rows.finish() for group, rows in groups.items() if len(rows)}) for name, groups in self._groups.items()
            }
            table._revision += 1
        return self._changed


def _indexed(rows: Map[str, T], function: Index[T]) -> Map[Hashable, Map[str, T]]:
    groups: dict[Hashable, dict[str, T]] = {}
    for key, row in rows.items():
        for value in function(row):
            groups.setdefault(value, {})[key] = row
    return Map({value: Map(group) for value, group in groups.items()})

"""One table of objects as it was and is: its records, its sorted keys, its recent changes, and those who watch it.

Belongs here: what happens in memory once a change is on disk. Must not be here: SQLite, threads, JSON, and any word of Kubernetes; a value
is bytes and a key is text whose part up to the first ``/`` names its table.

The past of a table is a bounded row of changes. It serves two ends: a watch that starts in the past is given what it missed, and a list
that goes on page by page sees the table as it was at its first page, the changes since being undone. What is older is *compacted*: asking
for it raises ``Compacted``, which a client answers by listing anew.

A watcher that does not keep up is dropped: its queue is bounded, and when it overflows the watcher learns so instead of being sent more.
Nobody waits for it.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator

HISTORY = 8192  # changes kept for each table
QUEUE = 10_000  # changes that a watcher may be behind before it is dropped

_END = "\U0010ffff"


class Compacted(LookupError):
    """The revision asked for is older than the changes that are kept. ``oldest`` is the first revision that can still be asked for."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {revision} ({oldest})")
        self.revision = revision
        self.oldest = oldest


class Record:
    """One object at one revision. ``facts`` is room for what the owner of the records derives from the value; the store never reads it."""

    __slots__ = ("facts", "key", "revision", "value")

    def __init__(self, key: str, revision: int, value: bytes, facts: object = None) -> None:
        self.key = key
        self.revision = revision
        self.value = value
        self.facts = facts

    def __repr__(self) -> str:
        return f"Record({self.key!r}, {self.revision}, {len(self.value)} bytes)"


class Change:
    """One step of one key: ``previous`` (``None``: it was created) to ``record`` (``None``: it was deleted).

    ``last`` is the record to show for a deleted object: its last value, carrying the revision of the deletion. ``frames`` is room for
    what is made of this change once, however many watch: its encoded forms, how it looks to those who see its records otherwise.
    """

    __slots__ = ("frames", "key", "last", "previous", "record", "revision")

    def __init__(self, key: str, revision: int, record: Record | None, previous: Record | None, last: Record | None = None) -> None:
        self.key = key
        self.revision = revision
        self.record = record
        self.previous = previous
        self.last = last
        self.frames: dict[object, object] = {}


def _nothing() -> None:
    return None


class Watch:
    """The changes under a prefix, in order, from one revision on.

    ``wake`` is set when there is something to take; ``take`` empties the queue. When ``overflowed`` is true the watch has ended: the
    watcher was too slow, and what it missed is not in the queue; ``on_overflow`` is called then.
    """

    def __init__(self, prefix: str, accepts: Callable[[Change], bool] | None, limit: int = QUEUE) -> None:
        self.prefix = prefix
        self.wake = asyncio.Event()
        self.overflowed = False
        self.on_overflow: Callable[[], None] = _nothing
        self._whole_table = prefix.find("/") == len(prefix) - 1
        self._accepts = accepts
        self._limit = limit
        self._queue: list[Change] = []

    def offer(self, change: Change) -> None:
        """Queue a change if it is under the prefix and accepted."""
        if not self._whole_table and not change.key.startswith(self.prefix):
            return
        if self._accepts is not None and not self._accepts(change):
            return
        if len(self._queue) >= self._limit:
            self._queue.clear()
            if not self.overflowed:
                self.overflowed = True
                self.on_overflow()
        if not self.overflowed:
            self._queue.append(change)
        self.wake.set()

    def take(self) -> list[Change]:
        """Give all queued changes and forget them. Clears ``wake``."""
        taken, self._queue = self._queue, []
        self.wake.clear()
        return taken


class Table:
    """All objects whose keys share the part up to the first ``/``."""

    def __init__(self, floor: int, history: int = HISTORY) -> None:
        self.records: dict[str, Record] = {}
        self.keys: list[str] = []
        self.floor = floor  # the table can be told as it was at this revision and at any later one
        self.watches: list[Watch] = []
        self.observers: list[Callable[[Change], None]] = []
        self._history: deque[Change] = deque()
        self._limit = history

    def load(self, record: Record) -> None:
        """Take a record that was on disk. ``loaded`` follows when all are taken."""
        self.records[record.key] = record

    def loaded(self) -> None:
        """Sort what was taken."""
        self.keys = sorted(self.records)

    def apply(self, change: Change) -> None:
        """Take a change that is on disk, remember it, and tell those who watch."""
        key, record = change.key, change.record
        if record is not None:
            if key not in self.records:
                insort(self.keys, key)
            self.records[key] = record
        elif self.records.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]
        self._history.append(change)
        while len(self._history) > self._limit:
            self.floor = self._history.popleft().revision
        for observer in self.observers:
            observer(change)
        for watch in self.watches:
            watch.offer(change)

    def compact(self, revision: int) -> None:
        """Forget how the table was before ``revision``."""
        while self._history and self._history[0].revision <= revision:
            self._history.popleft()
        self.floor = max(self.floor, revision)

    def since(self, revision: int) -> Iterator[Change]:
        """Give the changes after ``revision``, oldest first. Raises Compacted."""
        if revision < self.floor:
            raise Compacted(revision, self.floor)
        newest_first = []
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            newest_first.append(change)
        return reversed(newest_first)

    def range(self, prefix: str, after: str = "", limit: int = 0) -> list[Record]:
        """Give the records under ``prefix``, by key, those after the key ``after`` only, at most ``limit`` (0: all)."""
        low = bisect_right(self.keys, after) if after > prefix else bisect_left(self.keys, prefix)
        high = bisect_left(self.keys, prefix + _END, low)
        if limit:
            high = min(high, low + limit)
        return list(map(self.records.__getitem__, self.keys[low:high]))

    def count(self, prefix: str) -> int:
        """Count the records under ``prefix``."""
        low = bisect_left(self.keys, prefix)
        return bisect_left(self.keys, prefix + _END, low) - low

    def range_at(self, revision: int, prefix: str, after: str = "") -> list[Record]:
        """Give what ``range`` would have given at ``revision``: the changes since are undone. Raises Compacted."""
        undone: dict[str, Record | None] = {}
        for change in self.since(revision):
            undone.setdefault(change.key, change.previous)
        records = {record.key: record for record in self.range(prefix, after)}
        for key, record in undone.items():
            if not key.startswith(prefix) or key <= after:
                continue
            if record is None:
                records.pop(key, None)
            else:
                records[key] = record
        return [records[key] for key in sorted(records)]

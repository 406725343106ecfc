"""The store: one revision counter, transactions, reads of what is on disk.

Two states are held. The *durable* one is what readers and watchers see: nothing is in it that a crash could take back. The *latest* one is
the durable one with the writes under way on top; only a write reads it, because it must follow the writes before it. A transaction is built
and committed without giving up the event loop in between, so read-modify-write needs no lock.

A commit that fails (the disk is full) fails all writes under way, since the later ones were computed from the earlier ones; dropping the
layer on top restores the state. Revisions given to failed writes were seen by nobody and are given again.

Everything here runs on one event loop's thread; only ``Disk`` has a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from podwire.store.changes import HISTORY, QUEUE, Change, Record, Table, Watch
from podwire.store.disk import Batch, Disk

ENOUGH = 8  # transactions for which a commit is begun, though more may be on their way: each commit costs a few wake-ups


class Unwritable(OSError):
    """The disk did not take a write. Nothing of the transaction is stored, and the state is as before."""


class Transaction:
    """Writes that happen together, at one revision. Made by ``Store.transaction``; to be committed before the loop runs on."""

    def __init__(self, store: Store, revision: int) -> None:
        self.revision = revision
        self._store = store
        self.changes: dict[str, Change] = {}
        self.on_success: list[Callable[[], None]] = []  # called when it is on disk, before anybody is told
        self.on_failure: list[Callable[[], None]] = []  # called when it is not, and never will be

    def latest(self, key: str) -> Record | None:
        """Give an object as it is with these writes and all before them."""
        change = self.changes.get(key)
        return change.record if change is not None else self._store.latest(key)

    def put(self, key: str, value: bytes, facts: object = None) -> None:
        """Create or replace an object."""
        self.changes[key] = Change(key, self.revision, Record(key, self.revision, value, facts), self._store.latest(key))

    def delete(self, key: str, last: bytes, facts: object = None) -> None:
        """Delete an object. ``last`` is what watchers are shown of it. Raises KeyError when there is none."""
        previous = self._store.latest(key)
        if previous is None:
            raise KeyError(key)
        self.changes[key] = Change(key, self.revision, None, previous, Record(key, self.revision, last, facts))


class _Group:
    """The transactions that go to disk in one commit, and those who wait for them."""

    def __init__(self) -> None:
        self.transactions: list[tuple[Transaction, asyncio.Future[int]]] = []
        self.rows: dict[str, tuple[int, bytes] | None] = {}
        self.revision = 0

    def add(self, transaction: Transaction, waiter: asyncio.Future[int]) -> None:
        self.transactions.append((transaction, waiter))
        self.revision = transaction.revision
        for key, change in transaction.changes.items():
            self.rows[key] = None if change.record is None else (change.revision, change.record.value)


class Store:
    """All objects, in memory and on disk. See the module for what is visible when."""

    def __init__(self, disk: Disk, *, history: int = HISTORY) -> None:
        self._disk = disk
        self._history = history
        self._tables: dict[str, Table] = {}
        self._pending: dict[str, Change] = {}
        self._collecting = _Group()
        self._writing: _Group | None = None
        self._reaching: deque[tuple[int, asyncio.Future[int]]] = deque()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self.refused = ""  # what the disk said when it did not take the last write
        self.revision = disk.revision()
        self._head = self.revision
        self._floor = self.revision
        for key, revision, value in disk.rows():
            self._table(key).load(Record(key, revision, value))
        for table in self._tables.values():
            table.loaded()

    @classmethod
    def open(cls, path: str | Path, *, history: int = HISTORY, first_revision: int = 1) -> Store:
        """Open or make the file at ``path`` and read all of it. ``first_revision`` is where a new one starts counting.

        Raises LayoutMismatch, StoreInUse, sqlite3.Error.
        """
        disk = Disk(path, first_revision)
        try:
            return cls(disk, history=history)
        except BaseException:
            disk.close()
            raise

    def _table(self, key: str) -> Table:
        name = key[: key.index("/")]
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = Table(self._floor, self._history)
        return table

    # reading: the durable state ----------------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        """Give an object as it is on disk."""
        return self._table(key).records.get(key)

    def range(self, prefix: str, *, after: str = "", limit: int = 0, at: int = 0) -> list[Record]:
        """Give the objects under ``prefix`` by key: those after the key ``after``, at most ``limit`` (0: all).

        ``at`` is the revision to show them at (0: now). ``prefix`` holds at least one ``/``. Raises Compacted when ``at`` is too long ago.
        """
        table = self._table(prefix)
        if at and at != self.revision:
            found = table.range_at(at, prefix, after)
            return found[:limit] if limit else found
        return table.range(prefix, after, limit)

    def count(self, prefix: str) -> int:
        """Count the objects under ``prefix``."""
        return self._table(prefix).count(prefix)

    def tables(self) -> Iterator[str]:
        """Give the names of the tables that hold anything."""
        return (name for name, table in self._tables.items() if table.records)

    def watch(self, prefix: str, *, after: int, accepts: Callable[[Change], bool] | None = None, queue: int = QUEUE) -> Watch:
        """Follow the changes under ``prefix`` after revision ``after`` that ``accepts`` lets through. End it with ``unwatch``.

        Raises Compacted when ``after`` is too long ago.
        """
        table = self._table(prefix)
        watch = Watch(prefix, accepts, queue)
        for change in table.since(after):
            watch.offer(change)
        table.watches.append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """End a watch. Ending it twice is harmless."""
        watches = self._table(watch.prefix).watches
        if watch in watches:
            watches.remove(watch)

    def observe(self, table: str, observer: Callable[[Change], None]) -> None:
        """Have ``observer`` called for each change of a table, on the loop, before its watchers see it. It must be quick and not fail."""
        self._table(f"{table}/").observers.append(observer)

    def compact(self, revision: int) -> None:
        """Forget how things were before ``revision``."""
        self._floor = max(self._floor, min(revision, self.revision))
        for table in self._tables.values():
            table.compact(self._floor)

    # writing: the latest state -----------------------------------------------------------------------------------------

    def latest(self, key: str) -> Record | None:
        """Give an object as it will be when the writes under way are on disk. For computing a write only."""
        change = self._pending.get(key)
        return change.record if change is not None else self._table(key).records.get(key)

    def latest_range(self, prefix: str) -> list[Record]:
        """Give the objects under ``prefix`` as they will be when the writes under way are on disk. For computing a write only."""
        records = {record.key: record for record in self._table(prefix).range(prefix)}
        for key, change in self._pending.items():
            if not key.startswith(prefix):
                continue
            if change.record is None:
                records.pop(key, None)
            else:
                records[key] = change.record
        return [records[key] for key in sorted(records)]

    def transaction(self) -> Transaction:
        """Begin a transaction; its ``revision`` is what the objects in it will carry."""
        return Transaction(self, self._head + 1)

    def commit(self, transaction: Transaction) -> asyncio.Future[int]:
        """Take a transaction into the latest state now; the future gives its revision when it is on disk, or raises Unwritable.

        Raises RuntimeError when another transaction was committed since this one was begun, or it is empty: errors of the caller.
        """
        if transaction.revision != self._head + 1:
            raise RuntimeError(f"transaction at revision {transaction.revision} was overtaken: the store is at {self._head}")
        if not transaction.changes:
            raise RuntimeError("transaction without a change")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int] = loop.create_future()
        self._head = transaction.revision
        self._pending.update(transaction.changes)
        self._collecting.add(transaction, waiter)
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._hand_over, loop)
        return waiter

    async def reached(self, revision: int) -> None:
        """Wait until the latest state, as it was at ``revision``, is on disk. Raises Unwritable, also where that was taken back already."""
        if revision > self._head:
            raise Unwritable(f"the store could not write: revision {revision} was taken back")
        if revision > self.revision:
            waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._reaching.append((self._head, waiter))
            await waiter

    async def close(self) -> None:
        """Wait for the writes under way and close the file."""
        await self._idle.wait()
        self._disk.close()

    def _hand_over(self, loop: asyncio.AbstractEventLoop, before: int = 0) -> None:
        """Give the writer all that was collected; or rest. As long as few are there and others join, they are waited for."""
        group = self._collecting
        count = len(group.transactions)
        if not count:
            self._idle.set()
            return
        if before < count < ENOUGH:
            loop.call_soon(self._hand_over, loop, count)
            return
        self._writing, self._collecting = group, _Group()

        def done(error: BaseException | None) -> None:
            loop.call_soon_threadsafe(self._written, loop, error)

        self._disk.write(Batch(group.revision, group.rows), done)

    def _written(self, loop: asyncio.AbstractEventLoop, error: BaseException | None) -> None:
        group, self._writing = self._writing, None
        if group is None:
            raise RuntimeError("the writer answered twice")
        if error is not None:
            self._fail([*group.transactions, *self._collecting.transactions], error)
        else:
            self._succeed(group)
        self._hand_over(loop)

    def _succeed(self, group: _Group) -> None:
        self.refused = ""
        self.revision = group.revision
        for transaction, _ in group.transactions:
            for key, change in transaction.changes.items():
                self._table(key).apply(change)
                if self._pending.get(key) is change:
                    del self._pending[key]
            for act in transaction.on_success:
                act()
        for transaction, waiter in group.transactions:
            if not waiter.done():
                waiter.set_result(transaction.revision)
        while self._reaching and self._reaching[0][0] <= self.revision:
            _, waiter = self._reaching.popleft()
            if not waiter.done():
                waiter.set_result(self.revision)

    def _fail(self, failed: list[tuple[Transaction, asyncio.Future[int]]], error: BaseException) -> None:
        self.refused = str(error)
        self._pending.clear()
        self._collecting = _Group()
        self._head = self.revision
        for transaction, waiter in reversed(failed):
            for undo in transaction.on_failure:
                undo()
            _refuse(waiter, error)
        while self._reaching:
            _refuse(self._reaching.popleft()[1], error)


def _refuse(waiter: asyncio.Future[int], error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(Unwritable(f"the store could not write: {error}"))
        waiter.exception()  # a client that has gone does not ask

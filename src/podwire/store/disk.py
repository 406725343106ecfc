"""The store's file: SQLite with a write-ahead log, written by one thread.

Belongs here: SQL, and the thread that runs it. Must not be here: what a value means, who waits for a write.

Durability: ``synchronous=FULL`` has SQLite sync the log before a commit returns, so a commit that returned survives a crash of the machine.
One commit carries all writes that came while the one before was under way (group commit): the price of a sync is shared.

The statements carry many rows each. A Python thread gives up the interpreter's lock at every step of a statement and may wait up to the
switch interval to have it back while the event loop is busy; so a batch of any size takes a handful of steps and not one for each row.

The file is locked by the process that opened it; a second one is told so. ``user_version`` is the version of this layout.

Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

LAYOUT = 1
_APPLICATION = 0x706F6477  # "podw"
_ROWS = (64, 16, 4, 1)  # rows in one statement, so that few different statements exist

_UPSERT = (
    "INSERT INTO objects(key, revision, value) VALUES {} "
    "ON CONFLICT(key) DO UPDATE SET revision = excluded.revision, value = excluded.value"
)
_DELETE = "DELETE FROM objects WHERE key IN ({})"
_SCHEMA = """
CREATE TABLE objects(key TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE counter(id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0, {});
"""


class LayoutMismatch(RuntimeError):
    """The file is of another program, or of a version of the layout that this program does not know."""


class StoreInUse(RuntimeError):
    """Another process has the file open."""


class Batch:
    """What one commit writes: the revision reached, and for each key its value, or None where it is deleted."""

    __slots__ = ("revision", "rows")

    def __init__(self, revision: int, rows: Mapping[str, tuple[int, bytes] | None]) -> None:
        self.revision = revision
        self.rows = rows


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64, timeout=0)


class Disk:
    """The file, and the thread that writes it. The outcome of a write comes by its callback, on that thread."""

    def __init__(self, path: str | Path, first_revision: int = 0, connect: Callable[[str], Any] = _connect) -> None:
        """Open or make the file. Raises LayoutMismatch, StoreInUse, sqlite3.Error.

        ``connect`` opens the database; another one than SQLite's own can stand between it and the disk.
        """
        self.path = str(path)
        self._connection = connect(self.path)
        try:
            self._prepare(first_revision)
        except sqlite3.OperationalError as error:
            self._connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise StoreInUse(f"{self.path} is open in another process") from error
            raise
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise LayoutMismatch(f"{self.path} is not a database of this program: {error}") from error
        except BaseException:
            self._connection.close()
            raise
        self._queue: SimpleQueue[tuple[Batch, Callable[[BaseException | None], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def _prepare(self, first_revision: int) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        # A new file is turned to the log by one transaction with a journal. The journal's removal has to be on disk, too: if it came back
        # after a loss of power, all that was written since would be rolled back.
        run("PRAGMA synchronous = EXTRA")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA wal_autocheckpoint = 4000")
        run("PRAGMA cache_size = -16000")
        run("BEGIN IMMEDIATE")
        layout, application = run("PRAGMA user_version").fetchone()[0], run("PRAGMA application_id").fetchone()[0]
        if (layout, application) == (0, 0) and not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in _SCHEMA.format(int(first_revision)).strip().split(";\n"):
                run(statement)
            run(f"PRAGMA application_id = {_APPLICATION}")
            run(f"PRAGMA user_version = {LAYOUT}")
        elif application != _APPLICATION or layout != LAYOUT:
            raise LayoutMismatch(f"{self.path} has layout {layout} of application {application:#x}; this program knows layout {LAYOUT}")
        run("COMMIT")

    def revision(self) -> int:
        """Give the revision of the last commit. Before the first write only."""
        revision: int = self._connection.execute("SELECT revision FROM counter").fetchone()[0]
        return revision

    def rows(self) -> Iterator[tuple[str, int, bytes]]:
        """Give all rows, in the order of the file (that of the keys takes twice the time). Before the first write only."""
        return iter(self._connection.execute("SELECT key, revision, value FROM objects"))

    def write(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        """Have a batch written. ``done`` is called on the writer thread.

        With None when the batch is on disk, else with the error, and then nothing of it is.
        """
        self._queue.put((batch, done))

    def close(self) -> None:
        """Write what is queued, fold the log into the file, close it."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch, done = item
            error: BaseException | None = None
            try:
                self._commit(batch)
            except Exception as failure:  # the caller has to hear of it, whatever it is
                error = failure
                self._roll_back()
            done(error)

    def _commit(self, batch: Batch) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        puts = [(key, *row) for key, row in batch.rows.items() if row is not None]
        for part in _parts(puts):
            run(_UPSERT.format(",".join(["(?,?,?)"] * len(part))), [value for row in part for value in row])
        for keys in _parts([key for key, row in batch.rows.items() if row is None]):
            run(_DELETE.format(",".join("?" * len(keys))), keys)
        run("UPDATE counter SET revision = ?", (batch.revision,))
        run("COMMIT")

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself, or the next BEGIN will say what is wrong
            self._connection.execute("ROLLBACK")


def _parts(rows: list[T]) -> Iterator[list[T]]:
    start = 0
    for size in _ROWS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size

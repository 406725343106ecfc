"""The versioned store of objects: bytes in memory and in SQLite, one revision counter, and a watch on every change."""

from podwire.store.changes import Change, Compacted, Record, Watch
from podwire.store.disk import LayoutMismatch, StoreInUse
from podwire.store.store import Store, Transaction, Unwritable

__all__ = ["Change", "Compacted", "LayoutMismatch", "Record", "Store", "StoreInUse", "Transaction", "Unwritable", "Watch"]

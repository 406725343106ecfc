"""The versioned store of objects: bytes in memory and in SQLite, one revision counter, and a watch on every change."""

from podwire.store.changes import QUEUE, Change, Compacted, Record, Watch
from podwire.store.disk import LayoutMismatch, StoreInUse
from podwire.store.store import Store, Transaction, Unwritable

__all__ = ["QUEUE", "Change", "Compacted", "LayoutMismatch", "Record", "Store", "StoreInUse", "Transaction", "Unwritable", "Watch"]

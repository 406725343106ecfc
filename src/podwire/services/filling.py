"""All rows of an empty table, as they come, in batches.

What belongs here: collecting rows by map until there is a message full of them, and messages until there is a batch. What must not: order:
no packet meets the table yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from podwire import nft
from podwire.nft.rows import Form, Rows
from podwire.services.batches import BATCH, MESSAGE
from podwire.services.chains import LEADING, Chains
from podwire.services.elements import FIELDS, Elements
from podwire.services.structure import Structure

ROWS = 40_000  # bytes of rows in one message
_CHAIN = 800  # bytes of a change that makes a chain, or one of its rules


class Filling:
    """The batches of one table. ``count`` is how many rows each map has got, ``chains`` are those that were made."""

    def __init__(self, structure: Structure, sets: Mapping[str, nft.Set], forms: Mapping[str, Form]) -> None:
        self._structure, self._sets, self._forms = structure, sets, forms
        self.count = dict.fromkeys(FIELDS, 0)
        self.chains = Chains(structure, (chain.name for chain in structure.table.chains if not chain.hook))
        self._rows: dict[str, list[bytes]] = {field: [] for field in FIELDS}
        self._bytes = dict.fromkeys(FIELDS, 0)
        self._batch: list[nft.Change] = []
        self._size = 0

    def put(self, rows: Elements) -> Iterator[list[nft.Change]]:
        """Take the rows of a Service. Gives a batch where one is full."""
        for field, new in rows.items():
            if field in LEADING:
                for change in self.chains.needed(field, new):
                    yield from self._room(_CHAIN)
                    self._batch.append(change)
            self.count[field] += len(new)
            waiting = self._rows[field]
            waiting += new
            size = self._bytes[field] = self._bytes[field] + sum(map(len, new))
            if size > ROWS:
                yield from self._message(field)

    def done(self) -> Iterator[list[nft.Change]]:
        """Give what is left."""
        for field in FIELDS:
            if self._rows[field]:
                yield from self._message(field)
        if self._batch:
            yield self._batch

    def _message(self, field: str) -> Iterator[list[nft.Change]]:
        rows, size = self._rows[field], self._bytes[field]
        self._rows[field], self._bytes[field] = [], 0
        step = max(1, len(rows) * ROWS // size) if size > ROWS else len(rows)
        for start in range(0, len(rows), step):
            piece = rows[start : start + step]
            room = MESSAGE + sum(map(len, piece))
            yield from self._room(room)
            self._batch.append(nft.AddElements(self._structure.id, self._sets[field], Rows(self._forms[field], piece)))

    def _room(self, size: int) -> Iterator[list[nft.Change]]:
        if self._batch and self._size + size > BATCH:
            yield self._batch
            self._batch, self._size = [], 0
        self._size += size

"""All rows of an empty table, as they come, in batches.

What belongs here: collecting rows by map until there is a message full of them, and messages until there is a batch. What must not: order:
no packet meets the table yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from podwire import nft
from podwire.nft.bytecode import ELEMENTS_LIMIT
from podwire.nft.rows import Column, Columns
from podwire.services.batches import BATCH, MESSAGE
from podwire.services.chains import LEADING, Chains
from podwire.services.elements import FIELDS
from podwire.services.structure import Structure

_CHAIN = 800  # bytes of a change that makes a chain, or one of its rules


class Filling:
    """The batches of one table. ``count`` is how many rows each map has got, ``chains`` are those that were made."""

    def __init__(self, structure: Structure, sets: Mapping[str, nft.Set]) -> None:
        self._structure, self._sets = structure, sets
        self.count = dict.fromkeys(FIELDS, 0)
        self.chains = Chains(structure, (chain.name for chain in structure.table.chains if not chain.hook))
        self._waiting: dict[str, list[Column]] = {field: [] for field in FIELDS}
        self._bytes = dict.fromkeys(FIELDS, 0)
        self._batch: list[nft.Change] = []
        self._size = 0

    def put(self, columns: Mapping[str, Sequence[Column]]) -> Iterator[list[nft.Change]]:
        """Take rows, of which none is more than a message holds. Gives a batch where one is full."""
        for field, some in columns.items():
            for new in some:
                if field in LEADING:
                    for change in self.chains.picks(new.values) if new.values else self.chains.needed(field, new.rows()):
                        yield from self._room(_CHAIN)
                        self._batch.append(change)
                self.count[field] += len(new.keys)
                size = len(new.data)
                if self._bytes[field] + size > ELEMENTS_LIMIT:
                    yield from self._message(field)
                self._waiting[field].append(new)
                self._bytes[field] += size

    def done(self) -> Iterator[list[nft.Change]]:
        """Give what is left."""
        for field in FIELDS:
            if self._waiting[field]:
                yield from self._message(field)
        if self._batch:
            yield self._batch

    def _message(self, field: str) -> Iterator[list[nft.Change]]:
        waiting, size = self._waiting[field], self._bytes[field]
        self._waiting[field], self._bytes[field] = [], 0
        yield from self._room(MESSAGE + size)
        self._batch.append(nft.AddElements(self._structure.id, self._sets[field], Columns(self._sets[field], waiting)))

    def _room(self, size: int) -> Iterator[list[nft.Change]]:
        if self._batch and self._size + size > BATCH:
            yield self._batch
            self._batch, self._size = [], 0
        self._size += size

"""What differs between the rows that a kernel holds and those that it should.

What belongs here: differences of rows, and who has a row that several Services want. What must not: Services, numbers, the order in which
a kernel is changed (ruleset.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from podwire.nft.rows import Packed

Notes = dict[bytes, tuple[bytes | None, bytes | None]]
"""Rows by key: as it is in the kernel, as it should be."""


def difference(there: Packed, wanted: Sequence[bytes]) -> Notes:
    """Note what differs between the rows that are there and those that are wanted."""
    key = there.form.key
    held, keys = there.by_key, {key(row): row for row in wanted}
    notes: Notes = {}
    for at, row in keys.items():
        other = held.get(at)
        if other is not None and other != row:
            other = there.form.canonical(other)
        if other != row:
            notes[at] = (other, row)
    return notes | {at: (row, None) for at, row in held.items() if at not in keys}


class Shared:
    """The rows of a set whose keys several Services may have. Of those who want one, the first by name has it.

    ``make`` writes the row of an owner at a key; without it, rows are kept as they were claimed.
    """

    def __init__(self, make: Callable[[str, bytes], bytes] | None = None) -> None:
        self._make = make
        self._owners: dict[bytes, str | list[str]] = {}  # a list, in order, where there are several
        self._rows: dict[tuple[str, bytes], bytes] = {}
        self.contested: set[bytes] = set()

    def claim(self, key: bytes, owner: str, row: bytes | None) -> tuple[bytes | None, bytes | None]:
        """Replace what an owner wants at a key, None for nothing. Gives the row that was there, and that which is to be there."""
        found = self._owners.get(key)
        owners = [] if found is None else [found] if isinstance(found, str) else found
        before = self._row(owners[0], key) if owners else None
        after = sorted({*owners, owner}) if row is not None else [name for name in owners if name != owner]
        if self._make is None:
            if row is not None:
                self._rows[owner, key] = row
            else:
                self._rows.pop((owner, key), None)
        if not after:
            self._owners.pop(key, None)
            return before, None
        if len(after) == 1:
            self._owners[key] = after[0]
            self.contested.discard(key)
        else:
            self._owners[key] = after
            self.contested.add(key)
        return before, self._row(after[0], key)

    def claim_first(self, key: bytes, owner: str) -> None:
        """Claim a key for an owner, where it matters to nobody yet whose it was and is."""
        if self._owners.setdefault(key, owner) != owner:
            self.claim(key, owner, b"")

    def free(self, keys: Iterable[bytes]) -> bool:
        """Say whether nobody wants any of these."""
        return self._owners.keys().isdisjoint(keys)

    def claim_all(self, owners: Mapping[bytes, str]) -> None:
        """Claim what nobody wants."""
        self._owners.update(owners)

    def owner(self, key: bytes) -> str:
        """Say who has a key. Raises KeyError."""
        found = self._owners[key]
        return found if isinstance(found, str) else found[0]

    def _row(self, owner: str, key: bytes) -> bytes:
        return self._rows[owner, key] if self._make is None else self._make(owner, key)
